//! What the agent may do: what it needs to start, what it keeps once the probes are live, and nothing else.
//!
//! Comes in: the capabilities that whoever started the agent gave it. Goes out: before loading, a sentence if they do not
//! suffice; after attaching, an agent whose threads hold only what is needed to read `/proc`, and that answers every other
//! system call with an error (docs/privileges.md, docs/adr/0009-privileges.md).

mod calls;
pub mod caps;
mod filter;
mod limits;
mod surroundings;
mod threads;

pub use caps::{Capability, Set};
pub use limits::{
    LittleMemory, LockedMemory, advice, advice_on_permission, raise_locked_memory, too_little_memory,
};
pub use surroundings::{PidView, Refusal, cannot_look, check_load, in_user_namespace, losses, pid_view};
pub use threads::own_thread as thread_id;

use caps::Sets;

/// What must still work after [`reduce`].
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// The program that `run` started is asked to end, even if it has changed its user.
    pub signal_child: bool,
    /// Put the system call filter on.
    pub filter: bool,
    /// A thread that puts probes on user code, and whether those are perf events.
    pub prober: Option<(i32, bool)>,
}

/// What [`reduce`] came to.
#[derive(Clone, Debug, Default)]
pub struct Reduced {
    /// Capabilities that the calling thread, and those it makes from now on, still hold.
    pub kept: Set,
    /// One sentence for each thing that could not be given up.
    pub losses: Vec<String>,
}

/// Gives up everything that is not needed from now on, on all threads.
///
/// The calling thread keeps what looking at processes takes; all other threads keep nothing. To be called when the probes
/// are live and the program of `run` has been started: that one gets what the user had.
pub fn reduce(needs: Needs) -> Reduced {
    let mut reduced = Reduced::default();
    let Ok(now) = Sets::of_this_thread() else {
        reduced.losses.push(
            "the agent keeps its privileges, because this kernel does not tell which it has (capget failed)"
                .into(),
        );
        return reduced;
    };
    let mut keep = Set::of(&[Capability::SYS_PTRACE, Capability::DAC_READ_SEARCH, Capability::SYS_NICE]);
    if needs.signal_child {
        keep = keep.with(Capability::KILL);
    }
    if now.permitted.has(Capability::BPF) && !maps_work_without_privileges(now) {
        keep = keep.with(Capability::BPF);
    }
    if let Some((_, perf_events)) = needs.prober {
        keep = keep.with(Capability::CHECKPOINT_RESTORE);
        if perf_events {
            keep = keep.with(Capability::PERFMON);
        }
    }
    let keep = now.permitted.and(keep);
    reduced.kept = keep;
    if let Err(why) = threads::strip_others(needs.prober.map(|(thread, _)| (thread, keep))) {
        reduced.losses.push(format!("some threads of the agent keep their privileges: {why}"));
    }
    let own = Sets { effective: keep, permitted: keep, inheritable: Set::default() };
    if let Err(error) = caps::no_new_privileges().and_then(|()| own.apply()) {
        reduced
            .losses
            .push(format!("the agent keeps its privileges, because giving them up failed: {error}"));
    }
    if needs.filter
        && let Err(error) =
            filter::install(&calls::beside(needs.signal_child, needs.prober.map(|(_, perf)| perf)))
    {
        reduced.losses.push(format!(
            "the agent runs without its system call filter, because the kernel refuses it ({error}); --no-seccomp says \
             that this is known"
        ));
    }
    reduced
}

/// Whether maps that are open can be used without `CAP_BPF`: since Linux 5.19 always, before only where unprivileged BPF is
/// allowed. Tried on a map of its own.
fn maps_work_without_privileges(now: Sets) -> bool {
    let Ok(map) = super::hazard::raw::Map::array(1) else { return false };
    let less = now.effective.and(Set::of(&[Capability::BPF, Capability::SYS_ADMIN]).inverted());
    if (Sets { effective: less, ..now }).apply().is_err() {
        return false;
    }
    let works = map.update(0, 7).is_ok() && map.lookup(0).is_ok_and(|value| value == 7);
    // If this fails, what is missing afterwards is on the list of what goes anyway, except CAP_BPF.
    now.apply().is_ok() && works
}

#[cfg(test)]
mod tests {
    use super::super::hazard::raw::Map;
    use super::*;

    /// What is foretold with the capability only switched off is what comes when it is gone. Capabilities are the thread's own.
    #[test]
    fn what_is_foretold_of_maps_comes() {
        std::thread::spawn(|| {
            let Ok(map) = Map::array(1) else { return };
            let before = Sets::of_this_thread().unwrap();
            let foretold = maps_work_without_privileges(before);
            assert_eq!(Sets::of_this_thread().unwrap(), before, "the trial gave something up for good");
            println!("maps work without privileges: {foretold}");
            Sets::default().apply().unwrap();
            assert_eq!(map.update(0, 1).is_ok(), foretold);
        })
        .join()
        .unwrap();
    }
}
