//! The live kernel and what is known of processes, as the pipeline asks for them.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spanwise_common::config::proc;
use spanwise_common::conn::{Info, Verdict};
use spanwise_common::limits::MAX_PROCS;

use crate::governor::follow::{self, Following};
use crate::instrument::{Instruments, Need, News};
use crate::kernel::load::Kernel;
use crate::kernel::recording::{Frame, Writer};
use crate::pipeline::Origin;
use crate::process::{
    Goroutine, Goroutines, Language, Proc, Process, Registry, Service, closed_sockets, command,
};
use crate::session::Who;
use crate::span::correlate::{Role, Started, role};

/// What probes may take before the agent says that it is ready.
const PROBES: Duration = Duration::from_secs(5);

/// The live kernel, and what is known of processes.
pub(super) struct Live {
    pub(super) kernel: Kernel,
    pub(super) registry: Registry,
    pub(super) recorder: Option<Writer>,
    pub(super) recorded: HashSet<u32>,
    pub(super) exits: u64,
    pub(super) following: Following,
    pub(super) instruments: Instruments,
    pub(super) goroutines: Goroutines,
    /// Why goroutines of some process are not known, as last said.
    pub(super) unknown: Option<String>,
}

impl Live {
    /// Bits of a process in the kernel side's map.
    pub(super) fn bits(&mut self, process: &Process) -> u32 {
        let bits = proc::TRACE | proc::FOLLOW;
        if process.language != Language::Go {
            return bits;
        }
        let layout = match self.goroutines.layout(process.tgid) {
            Ok(layout) => self.kernel.go_bits(layout),
            Err(why) => {
                if self.unknown.as_ref() != Some(&why) {
                    crate::tell!(
                        "spanwise: goroutines of {} are not known, so its calls find their parents by thread: {why}",
                        process.exe_name()
                    );
                    self.unknown = Some(why);
                }
                0
            }
        };
        bits | proc::GO | layout
    }

    pub(super) fn record_service(&mut self, tgid: u32, service: &Service) {
        // The end of a process may be lost; saying a service twice does no harm.
        if self.recorded.len() >= MAX_PROCS as usize {
            self.recorded.clear();
        }
        if let Some(recorder) = &mut self.recorder
            && self.recorded.insert(tgid)
        {
            recorder.frame(Frame::Service, &super::replay::encode_service(tgid, service));
        }
    }
}

impl Live {
    /// Where the kernel side does not tell of ends: those that are gone are found by looking.
    pub(super) fn look_for_exits(&mut self) {
        for tgid in self.kernel.traced() {
            if !Path::new("/proc").join(tgid.to_string()).exists() {
                self.kernel.untrace(tgid);
                self.exit(tgid);
            }
        }
    }
}

impl Live {
    /// What the instruments' thread has found out.
    pub(super) fn hear(&mut self) {
        for news in self.instruments.news() {
            match news {
                News::Bits { tgid, set, of } => self.kernel.mark(tgid, set, of),
                News::Said(sentence) => crate::tell!("spanwise: {sentence}"),
            }
        }
    }

    /// The probes on what is going to be started are there before it is, unless that takes long.
    pub(super) fn expect(&mut self, command: &[OsString]) {
        for program in command.first().into_iter().flat_map(|name| command::programs(name)) {
            self.instruments.expect(program);
        }
        self.instruments.settle(PROBES);
    }

    /// The probes on the processes that are traced from the start are there, unless that takes long.
    pub(super) fn settle(&mut self) {
        for tgid in self.kernel.traced() {
            self.instruments.started(tgid);
        }
        if !self.instruments.settle(PROBES) {
            crate::tell!("spanwise: some probes are not attached yet after {PROBES:?}; they follow");
        }
        self.hear();
    }
}

impl Who for Live {
    fn service(&mut self, tgid: u32) -> Arc<Service> {
        let service = self.registry.service(tgid);
        if self.recorder.is_some() {
            self.record_service(tgid, &service);
        }
        service
    }

    fn connection(&mut self, cookie: u64) -> Option<Info> {
        self.kernel.connection(cookie).map(|state| state.info)
    }

    fn is_gone(&mut self, cookie: u64) -> bool {
        self.kernel.connection(cookie).is_none()
    }

    fn closed_sockets(&mut self, tgid: u32, inodes: &[u64]) -> Vec<u64> {
        closed_sockets(&Proc::default(), tgid, inodes)
    }
}

impl Origin for Live {
    fn fork(&mut self, parent: u32, child: u32) {
        if self.following.child() {
            self.registry.fork(parent, child);
            self.instruments.forked(parent, child);
        } else {
            self.kernel.untrace(child);
        }
    }

    fn follow(&mut self, new: bool) {
        if self.following.set(new) {
            for child in follow::left_out(&self.kernel.traced()) {
                let Ok(child) = Process::inspect(child) else { continue };
                let bits = self.bits(&child);
                if self.kernel.trace(child.tgid, bits).is_ok() {
                    self.registry.add(&child);
                    self.instruments.started(child.tgid);
                    self.following.took_in();
                }
            }
        }
    }

    fn exec(&mut self, tgid: u32, comm: [u8; 16]) {
        self.recorded.remove(&tgid);
        self.goroutines.forget(tgid);
        if let Some(process) = self.registry.exec(tgid, comm)
            && process.language == Language::Go
        {
            let bits = self.bits(&process);
            self.kernel.mark(tgid, bits, bits);
        }
        self.instruments.became(tgid);
    }

    fn exit(&mut self, tgid: u32) {
        self.recorded.remove(&tgid);
        self.registry.exit(tgid);
        self.instruments.ended(tgid);
        self.goroutines.forget(tgid);
        self.exits += 1;
    }

    fn decide(&mut self, cookie: u64, verdict: Verdict) {
        self.kernel.decide(cookie, verdict);
    }

    fn forget(&mut self, cookie: u64) {
        self.kernel.forget(cookie);
    }

    fn mapped(&mut self, tgid: u32, more: bool) {
        self.instruments.mapped(tgid, more);
    }

    fn role(&mut self, tgid: u32, start: u64) -> Role {
        let name = self.goroutines.function(tgid, start);
        name.map_or_else(Role::default, |name| role::of(&name))
    }

    fn tasks(&mut self, tgid: u32) -> Option<Vec<Started>> {
        if self.goroutines.misses(tgid) {
            self.instruments.more(tgid, Need::Starters);
        }
        let started = |Goroutine { id, parent, start }| Started { id, parent, start };
        Some(self.goroutines.all(tgid)?.into_iter().map(started).collect())
    }

    fn hand_overs(&mut self, tgid: u32, told: bool) {
        if told {
            self.instruments.more(tgid, Need::HandOffs);
        } else {
            self.instruments.less(tgid, Need::HandOffs);
        }
    }

    fn unseen(&mut self) {
        self.kernel.watch_splice();
    }
}
