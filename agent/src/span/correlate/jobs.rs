//! Work that tasks (goroutines) get from others over channels: what a worker of a pool works for. Comes in: values that passed
//! channels, with the request that the giver worked for. Goes out: the request that a worker works for now, or that nobody knows.
//!
//! The rules stand in docs/adr/0014.

use super::arena::Id;
use super::hash::{Map, Seed};
use super::recent::Recent;

/// Types of values that are known at once.
const TYPES: usize = 4_096;
/// For each value that turned out to be work, so many may turn out to be none; and one before any did.
const OUTWEIGHED_BY: u64 = 3;
/// Values of a type that is no work, until it is looked at anew.
const FORGIVEN_AFTER: u64 = 4_096;

/// What values of one type turned out to be, by whom the result was given to.
#[derive(Clone, Copy, Debug, Default)]
struct Type {
    work: u64,
    other: u64,
    left_out: u64,
}

impl Type {
    fn is_work(self) -> bool {
        self.other <= self.work * OUTWEIGHED_BY + 1
    }
}

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
    /// Type of the value of another request that came meanwhile; zero for none.
    other: u64,
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
pub(super) struct Jobs {
    by: Recent<Job>,
    types: Map<u64, Type>,
}

impl Jobs {
    pub(super) fn new(seed: Seed, bound: usize) -> Self {
        Self { by: Recent::new(seed, bound), types: Map::with_hasher(seed) }
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
        if let Some(of) = self.types.get_mut(&kind)
            && !of.is_work()
        {
            of.left_out += 1;
            if of.left_out >= FORGIVEN_AFTER {
                *of = Type::default();
            }
            return Came::Clear;
        }
        let fresh = Job { request, kind, since_ns: at_ns, used: false, mixed: false, other: 0 };
        let Some(job) = self.by.get(to) else {
            self.by.insert(to, fresh);
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
            (job.mixed, job.other) = (true, kind);
            return Came::Clear;
        }
        *job = Job { mixed: true, ..fresh };
        Came::Mixed
    }

    /// A task gets a value from one that works for nobody, or for nobody knows whom.
    pub(super) fn comes_from_nobody(&mut self, to: u64, kind: u64) {
        if self.by.get(to).is_some_and(|job| job.kind == kind) {
            self.by.remove(to);
        }
    }

    /// A task does something with its work. The request that it is for.
    pub(super) fn uses(&mut self, id: u64) -> Option<Id> {
        let job = self.by.get(id)?;
        job.used = true;
        (!job.mixed).then_some(job.request)
    }

    /// The request that a task works for, and since when.
    pub(super) fn of(&mut self, id: u64) -> Option<(Id, u64)> {
        self.by.get(id).filter(|job| !job.mixed).map(|job| (job.request, job.since_ns))
    }

    /// A task gave a value to one that works for this request. Whether that was its result: then it is done. `sure` if the other
    /// serves the request itself: then it shows of which type the work was.
    pub(super) fn delivers(&mut self, id: u64, request: Id, given_ns: u64, sure: bool) -> bool {
        let Some(job) = self.by.get(id).copied() else { return false };
        // What lay in a buffer since before the task got this work has nothing to do with it.
        if job.since_ns > given_ns {
            return false;
        }
        let done = job.request == request;
        let collects = job.mixed && job.other == 0;
        if sure && !collects {
            self.learn(job.kind, done);
            if done && job.other != 0 {
                self.learn(job.other, false);
            }
        }
        if done {
            self.by.remove(id);
        }
        done
    }

    fn learn(&mut self, kind: u64, work: bool) {
        if self.types.len() >= TYPES && !self.types.contains_key(&kind) {
            return;
        }
        let of = self.types.entry(kind).or_default();
        if work {
            of.work += 1;
        } else {
            of.other += 1;
        }
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
        assert!(!jobs.delivers(WORKER, a, 3, false) && jobs.delivers(WORKER, b, 3, true));
        assert_eq!(jobs.uses(WORKER), None, "it is done");
        // A job that needs no call, and then the result.
        assert_eq!(jobs.comes(WORKER, c, JOBS, 3, |_| true), Came::Clear);
        assert!(jobs.delivers(WORKER, c, 4, true));
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

    #[test]
    fn what_is_no_work_is_found_out() {
        let mut jobs = Jobs::new(Seed::random(), 64);
        let [a, b, ..] = requests();
        for round in 0..4 {
            let now_ns = round * 10;
            jobs.comes(WORKER, a, JOBS, now_ns, |_| true);
            jobs.comes(WORKER, b, OTHER, now_ns + 1, |_| true);
            // The first ones may have been work.
            assert_eq!(jobs.uses(WORKER).is_some(), round > 1, "{round}");
            assert!(jobs.delivers(WORKER, a, now_ns + 2, true));
        }
        // The same where the work comes another way: the result goes to another than who gave the value.
        let mut jobs = Jobs::new(Seed::random(), 64);
        for round in 0..4 {
            jobs.comes(WORKER, b, OTHER, round, |_| false);
            assert_eq!(jobs.uses(WORKER).is_some(), round < 2, "{round}");
            assert!(!jobs.delivers(WORKER, a, round, true));
            jobs.comes_from_nobody(WORKER, OTHER);
        }
        // A result that was put away before the next work came says nothing of that.
        let mut jobs = Jobs::new(Seed::random(), 64);
        for round in 0..20 {
            jobs.comes(WORKER, b, JOBS, 10 + round, |_| false);
            assert!(!jobs.delivers(WORKER, a, 9, true));
        }
        assert_eq!(jobs.uses(WORKER), Some(b));
        for _ in 0..4 {
            jobs.learn(JOBS, false);
        }
        for _ in 0..FORGIVEN_AFTER {
            jobs.comes_from_nobody(WORKER, JOBS);
            jobs.comes(WORKER, a, JOBS, 30, |_| true);
            assert_eq!(jobs.uses(WORKER), None);
        }
        jobs.comes(WORKER, a, JOBS, 30, |_| true);
        assert_eq!(jobs.uses(WORKER), Some(a));
    }
}
