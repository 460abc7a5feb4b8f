//! Time of the kernel's records -> time of day.
//!
//! Comes in: readings of both clocks. Goes out: for an instant of `CLOCK_BOOTTIME` its place in Unix time. Small
//! corrections are worked in slowly, so that order is kept; large ones are taken at once and counted. Durations are
//! the kernel's: the end of a span is its start, mapped, plus what passed on `CLOCK_BOOTTIME`.

use crate::kernel::clock::{Sample, sample};

/// A larger difference is a step of the system's clock.
const STEP_NS: u64 = 1_000_000_000;
/// A correction of 1 ns takes so many.
const SLEW: u64 = 100;

/// The mapping.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Unix time less boot time at `since`.
    offset: i64,
    /// Boot time of the last reading.
    since: u64,
    /// What is still to be worked into the offset.
    pending: i64,
    steps: u64,
    stepped_ns: i64,
}

impl Clock {
    /// Reads the clocks.
    pub fn now() -> Self {
        Self::from_sample(sample())
    }

    /// The mapping that one reading gives.
    pub fn from_sample(sample: Sample) -> Self {
        Self { offset: difference(&sample), since: sample.boot_ns, pending: 0, steps: 0, stepped_ns: 0 }
    }

    /// Reads the clocks again and corrects the mapping. For every few seconds.
    pub fn refresh(&mut self) {
        self.update(sample());
    }

    /// Corrects the mapping by a reading.
    pub fn update(&mut self, sample: Sample) {
        let reached = self.offset_at(sample.boot_ns);
        let wrong = difference(&sample).wrapping_sub(reached);
        self.offset = reached;
        self.since = sample.boot_ns.max(self.since);
        self.pending = 0;
        if wrong.unsigned_abs() > STEP_NS {
            self.offset = reached.wrapping_add(wrong);
            self.steps += 1;
            self.stepped_ns = wrong;
        } else if wrong.unsigned_abs() > sample.spread_ns {
            // What is within the reading's own error is no reason to move.
            self.pending = wrong;
        }
    }

    /// Unix time of an instant of the boot clock.
    pub fn unix_ns(&self, boot_ns: u64) -> u64 {
        boot_ns.saturating_add_signed(self.offset_at(boot_ns))
    }

    /// Start and end in Unix time; the duration is left as it is.
    pub fn interval(&self, began_ns: u64, ended_ns: u64) -> (u64, u64) {
        let start = self.unix_ns(began_ns);
        (start, start.saturating_add(ended_ns.saturating_sub(began_ns)))
    }

    /// How often the system's clock was set by more than a second.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// By how much it was, the last time.
    pub fn last_step_ns(&self) -> i64 {
        self.stepped_ns
    }

    fn offset_at(&self, boot_ns: u64) -> i64 {
        let possible = boot_ns.saturating_sub(self.since) / SLEW;
        let moved = i64::try_from(possible.min(self.pending.unsigned_abs())).unwrap_or(i64::MAX);
        self.offset.wrapping_add(moved * self.pending.signum())
    }
}

fn difference(sample: &Sample) -> i64 {
    sample.unix_ns.wrapping_sub(sample.boot_ns).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn at(boot_ns: u64, unix_ns: u64) -> Sample {
        Sample { boot_ns, unix_ns, spread_ns: 100 }
    }

    #[test]
    fn the_real_clocks_agree_with_the_system() {
        let clock = Clock::now();
        let unix =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let mapped = clock.unix_ns(crate::kernel::clock::boot_ns());
        assert!(mapped.abs_diff(unix) < S / 2, "{mapped} {unix}");
    }

    #[test]
    fn small_corrections_are_slow_and_keep_the_order() {
        let mut clock = Clock::from_sample(at(10 * S, 1000 * S));
        clock.update(at(20 * S, 1010 * S - S / 2));
        assert_eq!(clock.unix_ns(20 * S), 1010 * S, "nothing jumps");
        assert_eq!(clock.unix_ns(21 * S), 1011 * S - S / 100);
        assert_eq!(clock.unix_ns(100 * S), 1090 * S - S / 2, "and no further");
        let mut last = 0;
        for step in 0..200 {
            let unix = clock.unix_ns(19 * S + step * S / 2);
            assert!(unix > last);
            last = unix;
        }
        // A reading in the middle goes on from where it is.
        clock.update(at(30 * S, 1020 * S - S / 2));
        assert_eq!(clock.unix_ns(30 * S), 1020 * S - S / 10);
        assert_eq!(clock.steps(), 0);
    }

    #[test]
    fn noise_is_ignored() {
        let mut clock = Clock::from_sample(at(10 * S, 1000 * S));
        clock.update(at(20 * S, 1010 * S + 90));
        assert_eq!(clock.unix_ns(500 * S), 1490 * S);
    }

    #[test]
    fn steps_are_taken_at_once_and_counted() {
        let mut clock = Clock::from_sample(at(10 * S, 1000 * S));
        clock.update(at(20 * S, 5000 * S));
        assert_eq!((clock.unix_ns(20 * S), clock.steps()), (5000 * S, 1));
        assert_eq!(clock.last_step_ns(), 3990 * S as i64);
        clock.update(at(30 * S, 1000 * S));
        assert_eq!((clock.unix_ns(30 * S), clock.steps()), (1000 * S, 2));
    }

    #[test]
    fn durations_are_not_rewritten() {
        let mut clock = Clock::from_sample(at(10 * S, 1000 * S));
        clock.update(at(20 * S, 1010 * S + S / 2));
        let (start, end) = clock.interval(15 * S, 40 * S);
        assert_eq!((start, end - start), (1005 * S, 25 * S));
        assert_eq!(clock.interval(15 * S, 14 * S), (1005 * S, 1005 * S));
    }
}
