//! Services by process id, kept up to date by the events of the kernel side.
//!
//! A process may be gone when we look: its name is then what the kernel called it, or what its parent was.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use spanwise_common::limits::MAX_PROCS;

use super::inspect::Process;
use super::service::Service;
use super::services::{Naming, Services};
use crate::numbers::Numbers;

/// Most processes that are remembered: as many as the kernel side traces. The end of a process may be lost in a full ring.
const MOST: usize = MAX_PROCS as usize;
/// Ancestors that are asked for the name of a process that is gone.
const GENERATIONS: usize = 8;

/// Every traced process that was seen to do something.
#[derive(Debug)]
pub struct Registry {
    services: Services,
    known: HashMap<u32, Arc<Service>, Numbers>,
    /// Parent and kernel name of processes that were not looked at yet.
    hints: HashMap<u32, Hint>,
    /// Processes that were gone before they could be looked at.
    pub unseen: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Hint {
    parent: Option<u32>,
    comm: Option<[u8; 16]>,
}

impl Registry {
    /// With nothing known.
    pub fn new(naming: Naming) -> Self {
        Self { services: Services::new(naming), known: HashMap::default(), hints: HashMap::new(), unseen: 0 }
    }

    /// Forgets processes that are gone when there are too many, and all of them if that does not help: whoever does something
    /// is looked at again.
    fn make_room(&mut self, is_alive: impl Fn(u32) -> bool) {
        if self.known.len().max(self.hints.len()) < MOST {
            return;
        }
        self.known.retain(|tgid, _| is_alive(*tgid));
        self.hints.retain(|tgid, _| is_alive(*tgid));
        self.services.retain(is_alive);
        if self.known.len().max(self.hints.len()) >= MOST {
            self.known.clear();
            self.hints.clear();
            self.services.retain(|_| false);
        }
    }

    /// A process that was inspected before it was attached to.
    pub fn add(&mut self, process: &Process) -> Arc<Service> {
        self.make_room(is_alive);
        let service = self.services.for_process(process);
        self.known.insert(process.tgid, Arc::clone(&service));
        service
    }

    /// The service of a process.
    pub fn service(&mut self, tgid: u32) -> Arc<Service> {
        if let Some(service) = self.known.get(&tgid) {
            return Arc::clone(service);
        }
        self.look(tgid).0
    }

    fn look(&mut self, tgid: u32) -> (Arc<Service>, Option<Process>) {
        self.make_room(is_alive);
        let hint = self.hints.get(&tgid).copied().unwrap_or_default();
        let process = Process::inspect(tgid).ok();
        let service = match &process {
            Some(process) => self.services.for_process(process),
            None => {
                self.unseen += 1;
                let comm = hint.comm.map(|comm| text(&comm));
                let name =
                    comm.or_else(|| self.inherited(hint.parent?)).unwrap_or_else(|| "unknown".to_owned());
                self.services.for_gone(tgid, &name)
            }
        };
        self.known.insert(tgid, Arc::clone(&service));
        (service, process)
    }

    /// The name of a process for its child that was gone before it was looked at. It may never have been looked at itself.
    fn inherited(&mut self, parent: u32) -> Option<String> {
        let mut next = parent;
        for _ in 0..GENERATIONS {
            if !self.known.contains_key(&next)
                && let Ok(process) = Process::inspect(next)
            {
                self.add(&process);
            }
            if let Some(service) = self.known.get(&next) {
                return Some(service.name.to_string());
            }
            let hint = self.hints.get(&next)?;
            if let Some(comm) = &hint.comm {
                return Some(text(comm));
            }
            next = hint.parent?;
        }
        None
    }

    /// A traced process made a child, which is still the same program.
    pub fn fork(&mut self, parent: u32, child: u32) {
        self.make_room(is_alive);
        self.known.remove(&child);
        self.hints.insert(child, Hint { parent: Some(parent), comm: None });
    }

    /// A process became another program. Looked at now: it may be gone soon. What was found, if it could be looked at.
    pub fn exec(&mut self, tgid: u32, comm: [u8; 16]) -> Option<Process> {
        self.known.remove(&tgid);
        self.hints.entry(tgid).or_default().comm = Some(comm);
        self.look(tgid).1
    }

    /// A process ended.
    pub fn exit(&mut self, tgid: u32) {
        self.known.remove(&tgid);
        self.hints.remove(&tgid);
        self.services.forget(tgid);
    }
}

fn is_alive(tgid: u32) -> bool {
    Path::new("/proc").join(tgid.to_string()).exists()
}

/// The kernel's zero-terminated name as text.
fn text(comm: &[u8; 16]) -> String {
    let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(comm.get(..end).unwrap_or_default()).into_owned()
}

/// Every process below this one.
pub fn descendants(tgid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut next = vec![tgid];
    while let Some(parent) = next.pop() {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for thread in threads.flatten() {
            let Ok(list) = std::fs::read_to_string(thread.path().join("children")) else { continue };
            for child in list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()) {
                if !found.contains(&child) {
                    found.push(child);
                    next.push(child);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_whose_end_was_lost_are_forgotten() {
        let mut registry = Registry::new(Naming::default());
        // Ids that no process has.
        let first = 5_000_000;
        let own = std::process::id();
        let service = registry.service(own);
        for child in 0..u32::try_from(2 * MOST).unwrap() {
            registry.fork(own, first + child);
        }
        assert!(registry.hints.len() <= MOST, "{}", registry.hints.len());
        for child in 0..u32::try_from(2 * MOST).unwrap() {
            registry.service(first + child);
        }
        assert!(registry.known.len() <= MOST, "{}", registry.known.len());
        assert!(registry.services.len() <= MOST, "{}", registry.services.len());
        assert!(Arc::ptr_eq(&service, &registry.service(own)), "this process is alive and known");
        // Even if all are alive.
        registry.make_room(|_| true);
        for tgid in 0..u32::try_from(MOST).unwrap() {
            registry.hints.insert(tgid, Hint::default());
        }
        registry.make_room(|_| true);
        assert!(registry.hints.is_empty() && registry.known.is_empty() && registry.services.is_empty());
    }
}
