//! The loop of a live agent: reads the ring, looks at the clock, the processes and the budgets, and accounts for everything at the end.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use spanwise_common::counters;

use super::live::report_status;
use super::source::Live;
use super::stop::Stop;
use super::{CliError, fault};
use crate::config::Settings;
use crate::export::STOP_WITHIN;
use crate::governor::{Governor, KernelSide};
use crate::kernel::load::Kernel;
use crate::kernel::priority::Priority;
use crate::kernel::recording::Frame;
use crate::kernel::ring::Ring;
use crate::kernel::{clock, signal};
use crate::pipeline::Pipeline;
use crate::telemetry::{Flow, Stage, render, to_json};

/// Records handled before the clock is looked at.
const BATCH: usize = 4096;
/// Sleep after a look that found records.
const BUSY: Duration = Duration::from_millis(2);
/// Longest sleep of an idle agent: what a response's end is late by at most, beside the idle bound of its connection.
const IDLE: Duration = Duration::from_millis(16);
/// How often the traced processes are counted, to end with the last one.
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// What a program that was asked to end may take before the agent leaves without it.
const PROGRAM_GRACE: Duration = Duration::from_millis(300);

/// The loop.
pub(super) struct Engine {
    pub(super) pipeline: Pipeline<Live>,
    pub(super) governor: Governor,
    pub(super) ring: Ring,
    pub(super) child: Option<Child>,
    /// Exits seen when the processes were last counted.
    pub(super) seen: u64,
    /// Longest time between two looks at the ring.
    pub(super) longest_pause: Duration,
}

impl Engine {
    pub(super) fn run(&mut self, settings: &Settings, stop: &Stop) -> Result<(), CliError> {
        let end = settings.duration.map(|duration| Instant::now() + duration);
        let mut sleep = BUSY;
        let mut counted = Instant::now();
        let mut last = Instant::now();
        let mut priority = Priority::default();
        loop {
            let before = self.ring.bytes;
            let found = self.read(Some(stop));
            let bytes = self.ring.bytes - before;
            priority.found(bytes as usize);
            self.pipeline.origin.hear();
            let now = Instant::now();
            if self.governor.looked(bytes, now)
                && let Some(effort) = self.governor.measure(now, kernel_side(&self.pipeline.origin.kernel))
            {
                self.pipeline.govern(effort, clock::boot_ns());
            }
            self.longest_pause = self.longest_pause.max(now.duration_since(last));
            last = now;
            if stop.wants_table() {
                fault::for_tests();
                crate::telemetry::said::lines(format_args!("{}", self.table()));
            }
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                self.child = None;
                report_status(Some(status))?;
            }
            if stop.is_asked() || fault::happened() || end.is_some_and(|end| now >= end) {
                self.end_program();
                return Ok(());
            }
            if now.duration_since(counted) >= COUNT_EVERY {
                counted = now;
                if self.all_gone() {
                    return Ok(());
                }
            }
            sleep = if found > 0 { BUSY } else { (sleep * 2).min(IDLE) };
            stop.sleep(sleep);
        }
    }

    /// Reads what the ring has now, but for what is left when the end is asked for.
    fn read(&mut self, stop: Option<&Stop>) -> usize {
        let mut found = 0;
        loop {
            let pipeline = &mut self.pipeline;
            let got = self.ring.drain(BATCH, |bytes| {
                if let Some(recorder) = &mut pipeline.origin.recorder {
                    recorder.frame(Frame::Record, bytes);
                }
                pipeline.record(bytes);
            });
            found += got;
            self.pipeline.tick(clock::boot_ns(), Instant::now());
            // One turn takes a bounded time, however fast records come.
            if got < BATCH || found >= 64 * BATCH || stop.is_some_and(Stop::is_asked) {
                return found;
            }
        }
    }

    /// Whether nothing that is traced is left. Asked only after something ended.
    fn all_gone(&mut self) -> bool {
        if !self.pipeline.origin.kernel.tells_exits {
            self.pipeline.origin.look_for_exits();
        }
        let exits = self.pipeline.origin.exits;
        if exits == self.seen || self.child.is_some() {
            return false;
        }
        self.seen = exits;
        self.pipeline.origin.kernel.traced().is_empty()
    }

    /// Asks the program that was started to end, and reads on while it does.
    fn end_program(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal::terminate(child.id());
        let until = Instant::now() + PROGRAM_GRACE;
        while Instant::now() < until {
            self.read(None);
            if matches!(child.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(BUSY);
        }
    }

    fn kernel_stage(&self) -> (Stage, Vec<(&'static str, u64)>) {
        let kernel = &self.pipeline.origin.kernel;
        let mut counters = kernel.counters();
        let stage = kernel_stage(&counters);
        counters.push(("hook runs that the kernel skipped", kernel.skipped()));
        (stage, counters)
    }

    fn table(&self) -> String {
        let (kernel, counters) = self.kernel_stage();
        let mut stages = vec![kernel];
        stages.extend(self.pipeline.stages());
        let origin = &self.pipeline.origin;
        stages.extend([self.governor.stage(), origin.following.stage()]);
        stages.extend(origin.instruments.stage());
        render(&stages, &counters)
    }

    /// Takes the probes off, reads the rest, empties every stage, and prints the account. What was traced waits neither for a
    /// backlog nor for an endpoint that is slow to take the last spans.
    pub(super) fn finish(mut self) {
        self.pipeline.origin.kernel.unhook();
        self.pipeline.origin.instruments.stop();
        // Nothing is added any more.
        while self.read(None) > 0 {}
        tracing::info!("longest time between two looks at the ring: {:?}", self.longest_pause);
        for report in self.pipeline.explain() {
            tracing::info!("{report}");
        }
        let (kernel, counters) = self.kernel_stage();
        let ring = self.ring;
        let detach = |live: Live| {
            let beside = [Some(live.following.stage()), live.instruments.stage()];
            live.kernel.detach();
            drop(ring);
            (live.recorder, beside)
        };
        let ((recorder, beside), rest) = self.pipeline.finish(clock::boot_ns(), STOP_WITHIN, detach);
        let governor = [Some(self.governor.stage())].into_iter().chain(beside).flatten();
        if let Some(recorder) = recorder {
            let failed = recorder.finish();
            if failed > 0 {
                crate::tell!(
                    "spanwise: {failed} frames of the recording could not be written; it is not complete"
                );
            }
        }
        let mut stages = vec![kernel];
        stages.extend(rest);
        stages.extend(governor);
        crate::telemetry::said::lines(format_args!("{}", render(&stages, &counters)));
        if let Some(path) = std::env::var_os("SPANWISE_STATS_JSON")
            && let Err(error) = std::fs::write(&path, to_json(&stages, &counters).to_string())
        {
            crate::tell!("spanwise: cannot write {}: {error}", Path::new(&path).display());
        }
    }
}

/// What the governor wants to know of the kernel side.
pub(super) fn kernel_side(kernel: &Kernel) -> KernelSide {
    let counters = kernel.counters();
    let of = |index: u32| counters.get(index as usize).map_or(0, |(_, value)| *value);
    KernelSide { run_time: kernel.run_time(), seen: of(counters::SEEN), shipped: of(counters::SHIPPED) }
}

/// The account of the kernel side: every transfer it saw was shipped, or not for a reason.
pub(super) fn kernel_stage(values: &[(&'static str, u64)]) -> Stage {
    let of = |index: u32| values.get(index as usize).map_or(0, |(_, value)| *value);
    let waiting = of(counters::URING_WAITED).saturating_sub(of(counters::URING_TOLD));
    let missed = of(counters::RETURNS_MISSED) + of(counters::CALLS_FULL);
    Stage {
        name: "kernel: transfers",
        input: of(counters::SEEN) + waiting + missed,
        rows: vec![
            (Flow::Drop, "return of the call not seen", missed),
            (Flow::Drop, "io_uring completion not seen", waiting),
            (Flow::Out, "shipped to the ring", of(counters::SHIPPED)),
            (Flow::Drop, "ring full", of(counters::RING_FULL_DATA)),
            (Flow::Drop, "connection ignored", of(counters::IGNORED)),
            (Flow::Drop, "connection encrypted", of(counters::ENCRYPTED)),
            (Flow::Drop, "connection map full", of(counters::CONN_FULL)),
        ],
        notes: vec![],
    }
}
