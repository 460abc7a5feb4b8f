//! Work that tasks (goroutines) get from others over channels: what a worker of a pool works for. Comes in: values that passed
//! channels, with the request that the giver worked for. Goes out: the request that a worker works for now, or that nobody knows.
//!
//! The rules stand in docs/adr/0014.

use super::arena::Id;
use super::hash::Seed;
use super::recent::Recent;

/// What a task works for.
#[derive(Clone, Copy, Debug)]
struct Job {
    request: Id,
    /// Type of the channel that it came over.
    kind: u64,
    since_ns: u64,
    /// Something was done with it: a call, or it was passed on.
    used: bool,
    /// It came to others that were not done, or they to it: which one the task works for is not known.
    mixed: bool,
}

/// What a new job means for the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Came {
    /// The task had none, or was done with it, or it is of the same request.
    Clear,
    /// The task now has work of several requests.
    Mixed,
}

/// The jobs of one process's tasks.
#[derive(Debug)]
pub(super) struct Jobs(Recent<Job>);

impl Jobs {
    pub(super) fn new(seed: Seed, bound: usize) -> Self {
        Self(Recent::new(seed, bound))
    }

    /// A task gets a value from one that works for `request`. `open` tells whether a request still is.
    pub(super) fn comes(
        &mut self,
        to: u64,
        request: Id,
        kind: u64,
        at_ns: u64,
        open: impl Fn(Id) -> bool,
    ) -> Came {
        let fresh = Job { request, kind, since_ns: at_ns, used: false, mixed: false };
        let Some(job) = self.0.get(to) else {
            self.0.insert(to, fresh);
            return Came::Clear;
        };
        if job.request == request {
            return Came::Clear;
        }
        let same = job.kind == kind;
        if !open(job.request) || same && job.used {
            *job = fresh;
            return Came::Clear;
        }
        if !same {
            // A connection from a pool that another request gave back, or more work: nobody can tell.
            job.mixed = true;
            return Came::Clear;
        }
        *job = Job { mixed: true, ..fresh };
        Came::Mixed
    }

    /// A task gets a value from one that works for nobody, or for nobody knows whom.
    pub(super) fn comes_from_nobody(&mut self, to: u64, kind: u64) {
        if self.0.get(to).is_some_and(|job| job.kind == kind) {
            self.0.remove(to);
        }
    }

    /// A task does something with its work. The request that it is for.
    pub(super) fn uses(&mut self, id: u64) -> Option<Id> {
        let job = self.0.get(id)?;
        job.used = true;
        (!job.mixed).then_some(job.request)
    }

    /// The request that a task works for, and since when.
    pub(super) fn of(&mut self, id: u64) -> Option<(Id, u64)> {
        self.0.get(id).filter(|job| !job.mixed).map(|job| (job.request, job.since_ns))
    }

    /// A task has given its result to one that works for this request: it is done.
    pub(super) fn delivers(&mut self, id: u64, request: Id) -> bool {
        let done = self.0.get(id).is_some_and(|job| job.request == request);
        if done {
            self.0.remove(id);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::correlate::arena::Arena;

    const JOBS: u64 = 0x100;
    const OTHER: u64 = 0x200;
    const WORKER: u64 = 30;

    fn requests() -> [Id; 4] {
        let mut arena = Arena::new();
        [(); 4].map(|()| arena.insert(()))
    }

    #[test]
    fn a_worker_goes_from_job_to_job() {
        let mut jobs = Jobs::new(Seed::random(), 64);
        let [a, b, c, d] = requests();
        assert_eq!(jobs.comes(WORKER, a, JOBS, 1, |_| true), Came::Clear);
        assert_eq!(jobs.uses(WORKER), Some(a));
        // The result was not seen, but it did something with the work.
        assert_eq!(jobs.comes(WORKER, b, JOBS, 2, |_| true), Came::Clear);
        assert_eq!(jobs.of(WORKER), Some((b, 2)));
        assert!(!jobs.delivers(WORKER, a) && jobs.delivers(WORKER, b));
        assert_eq!(jobs.uses(WORKER), None, "it is done");
        // A job that needs no call, and then the result.
        assert_eq!(jobs.comes(WORKER, c, JOBS, 3, |_| true), Came::Clear);
        assert!(jobs.delivers(WORKER, c));
        assert_eq!(jobs.comes(WORKER, d, JOBS, 4, |_| true), Came::Clear);
        assert_eq!(jobs.uses(WORKER), Some(d));
    }

    #[test]
    fn who_collects_works_for_several() {
        let mut jobs = Jobs::new(Seed::random(), 64);
        let [a, b, c, d] = requests();
        jobs.comes(WORKER, a, JOBS, 1, |_| true);
        assert_eq!(jobs.comes(WORKER, b, JOBS, 2, |_| true), Came::Mixed);
        assert_eq!(jobs.comes(WORKER, c, JOBS, 3, |_| true), Came::Mixed);
        assert_eq!(jobs.uses(WORKER), None);
        // The next one is alone again.
        assert_eq!(jobs.comes(WORKER, d, JOBS, 4, |_| true), Came::Clear);
        assert_eq!(jobs.uses(WORKER), Some(d));
        // What was left undone when its request was over is not mixed with what follows.
        let mut jobs = Jobs::new(Seed::random(), 64);
        jobs.comes(WORKER, a, JOBS, 1, |_| true);
        assert_eq!(jobs.comes(WORKER, b, JOBS, 2, |request| request != a), Came::Clear);
        assert_eq!(jobs.uses(WORKER), Some(b));
    }

    #[test]
    fn values_of_other_kinds() {
        let mut jobs = Jobs::new(Seed::random(), 64);
        let [a, b, ..] = requests();
        jobs.comes(WORKER, a, JOBS, 1, |_| true);
        // Of the same request: nothing new. Of nobody: a tick, a token.
        jobs.comes(WORKER, a, OTHER, 2, |_| true);
        jobs.comes_from_nobody(WORKER, OTHER);
        assert_eq!(jobs.uses(WORKER), Some(a));
        // A connection that another request gave back: or is it work?
        assert_eq!(jobs.comes(WORKER, b, OTHER, 3, |_| true), Came::Clear);
        assert_eq!(jobs.uses(WORKER), None);
        assert_eq!(jobs.comes(WORKER, b, JOBS, 4, |_| true), Came::Clear);
        assert_eq!(jobs.uses(WORKER), Some(b));
        // Work of nobody takes the place of the work before.
        jobs.comes_from_nobody(WORKER, JOBS);
        assert_eq!(jobs.uses(WORKER), None);
    }
}
