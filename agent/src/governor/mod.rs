//! Keeps the agent within its budgets of CPU time and memory.
//!
//! Comes in: what the agent uses, twice a second. Goes out: how much is to be done ([`Effort`]), a line for people at each step,
//! and an account. What is given up in which order stands at [`Level`]; why, in `docs/adr/0008-governor.md`.

pub mod follow;
pub mod measure;
mod say;
pub mod steps;

use std::time::{Duration, Instant};

pub use measure::KernelSide;
pub use steps::{LEVELS, Level};

use crate::config::Budgets;
use crate::kernel::usage;
use crate::session::Effort;
use crate::telemetry::{Flow, Stage};
use measure::{Reading, between, load};
use say::Lines;
use steps::{Reason, Steps};

/// Time between two measurements.
const EVERY: Duration = Duration::from_millis(500);
/// While memory is short, freed memory is given back to the system this often.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(5);
/// Share of the memory budget from which on it is short.
const SHORT: f64 = 0.9;

/// Measures and decides.
#[derive(Debug)]
pub struct Governor {
    budgets: Budgets,
    started: Instant,
    last: Reading,
    looks: u64,
    found: u64,
    steps: Steps,
    lines: Lines,
    gave_back: Option<Instant>,
    told_helpless: bool,
    /// Measurements at each level.
    at_level: [u64; LEVELS.len()],
    ups: u64,
    backs: u64,
    most_cores: f64,
    most_resident: u64,
}

impl Governor {
    /// Begins to measure.
    pub fn new(budgets: Budgets, now: Instant, kernel: KernelSide) -> Self {
        let resident = usage::resident().unwrap_or(0);
        Self {
            budgets,
            started: now,
            last: Reading { at: now, cpu: usage::cpu(), resident, kernel, looks: 0, found: 0 },
            looks: 0,
            found: 0,
            steps: Steps::default(),
            lines: Lines::default(),
            gave_back: None,
            told_helpless: false,
            at_level: [0; LEVELS.len()],
            ups: 0,
            backs: 0,
            most_cores: 0.0,
            most_resident: resident,
        }
    }

    /// A look at the ring found so many bytes. True when it is time to [`measure`](Self::measure).
    pub fn looked(&mut self, found: u64, now: Instant) -> bool {
        self.looks += 1;
        self.found += found;
        now.saturating_duration_since(self.last.at) >= EVERY
    }

    /// Measures. What is to be done from now on, if that changes; it has been said then.
    pub fn measure(&mut self, now: Instant, kernel: KernelSide) -> Option<Effort> {
        let resident = usage::resident().unwrap_or(0);
        self.take(Reading {
            at: now,
            cpu: usage::cpu(),
            resident,
            kernel,
            looks: self.looks,
            found: self.found,
        })
    }

    fn take(&mut self, reading: Reading) -> Option<Effort> {
        let now = reading.at;
        let used = between(&self.last, &reading);
        self.last = reading;
        self.most_cores = self.most_cores.max(used.cores);
        self.most_resident = self.most_resident.max(used.resident);
        if let Some(count) = self.at_level.get_mut(self.steps.level() as usize) {
            *count += 1;
        }
        let load = load(&used, &self.budgets);
        let step = self.steps.observe(now.saturating_duration_since(self.started), &load);
        if load.memory > SHORT {
            self.give_back(now);
        }
        let Some(step) = step else {
            let helpless = self.steps.level() == Level::Nothing && load.memory > 1.0;
            if helpless && !std::mem::replace(&mut self.told_helpless, true) {
                self.lines.helpless(now, &used, &self.budgets);
            }
            return None;
        };
        if let Some(reason) = step.reason {
            self.ups += 1;
            self.lines.up(now, step.to, reason, &used, &self.budgets);
        } else {
            self.backs += 1;
            self.told_helpless = false;
            self.lines.back(now, step.to);
        }
        if step.reason == Some(Reason::Memory) {
            self.gave_back = None;
        }
        Some(step.to.effort(step.reason))
    }

    fn give_back(&mut self, now: Instant) {
        if self.gave_back.is_none_or(|last| now.saturating_duration_since(last) >= GIVE_BACK_EVERY) {
            self.gave_back = Some(now);
            usage::give_back();
        }
    }

    /// How long was spent at which level, and what was used at most.
    pub fn stage(&self) -> Stage {
        let rows = LEVELS.iter().zip(self.at_level).map(|(level, count)| (Flow::Out, level.words(), count));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "thousandths of a few cores, never negative"
        )]
        let thousandths = (self.most_cores * 1000.0) as u64;
        Stage {
            name: "governor: half seconds",
            input: self.at_level.iter().sum(),
            rows: rows.collect(),
            notes: vec![
                ("steps up", self.ups),
                ("steps back", self.backs),
                ("most CPU in thousandths of a core", thousandths),
                ("most resident bytes", self.most_resident),
            ],
        }
    }
}

#[cfg(test)]
mod tests;
