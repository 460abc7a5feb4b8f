//! What must be gone at the end, however the end comes. In: process groups, folders and undo actions as they are made.
//! Out: nothing left of them after `now`, which runs on drop, on failure and on a signal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sys;

type Action = Box<dyn FnOnce() + Send>;

struct Registry {
    groups: BTreeSet<u32>,
    folders: BTreeSet<PathBuf>,
    undo: BTreeMap<u64, Action>,
}

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { groups: BTreeSet::new(), folders: BTreeSet::new(), undo: BTreeMap::new() });
static NEXT: AtomicU64 = AtomicU64::new(0);

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers a process group that this process started.
pub fn add_group(group: u32) {
    registry().groups.insert(group);
}

/// Forgets a process group that has ended.
pub fn remove_group(group: u32) {
    registry().groups.remove(&group);
}

/// Remembers a folder of ours.
pub fn add_folder(path: &Path) {
    registry().folders.insert(path.to_owned());
}

/// Forgets a folder that is gone (or is to stay).
pub fn remove_folder(path: &Path) {
    registry().folders.remove(path);
}

/// Undoes a change of the system when dropped, or at the latest when the process ends.
#[must_use = "the change is undone when this is dropped"]
pub struct Undo(u64);

impl Undo {
    /// Remembers `action`.
    pub fn new(action: impl FnOnce() + Send + 'static) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        registry().undo.insert(id, Box::new(action));
        Self(id)
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let action = registry().undo.remove(&self.0);
        if let Some(action) = action {
            action();
        }
    }
}

/// Ends and removes everything that is still remembered.
pub fn now() {
    let (groups, folders, undo) = {
        let mut all = registry();
        (std::mem::take(&mut all.groups), std::mem::take(&mut all.folders), std::mem::take(&mut all.undo))
    };
    for group in groups {
        // It may have ended meanwhile, which is what is wanted.
        let _ = sys::kill_group(group, libc::SIGKILL);
    }
    for action in undo.into_values().rev() {
        action();
    }
    for folder in folders {
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Cleans up and ends the process when SIGINT, SIGTERM or SIGHUP comes. Call once, early.
pub fn on_signals() -> std::io::Result<()> {
    sys::on_end_signals(|signal| {
        eprintln!("\nended by signal {signal}: cleaning up");
        now();
        #[expect(
            clippy::exit,
            reason = "the signal asked for the end of the process; everything is cleaned up"
        )]
        std::process::exit(128 + signal);
    })
}
