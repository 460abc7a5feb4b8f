//! From what was counted to shares of the budgets. In: readings, each a sum since the start. Out: what was used between two.

use std::time::{Duration, Instant};

use spanwise_common::limits::RING_BYTES;

use super::steps::Load;
use crate::config::Budgets;

/// What a transfer that is shipped costs in the traced process, in nanoseconds. Measured where the kernel does not
/// measure: 285 to 371 (docs/journal/2026-11-22-cost.md).
const NS_SHIPPED: u64 = 370;
/// What one that is not shipped costs.
const NS_NOT_SHIPPED: u64 = 120;
/// What a transfer that is shipped costs the agent at most, with the program's part: many times what was measured (2 to 5 us for
/// a span of two, in the same journal), also on a slow machine.
const NS_AT_MOST: u64 = 50_000;
/// Cores that the agent takes to look at the ring, the clock and itself when nothing moves: 1 to 3 thousandths, and some room.
const IDLE: f64 = 0.005;
/// A look that finds this share of the ring, on the average of all looks, is as late as it may be.
const RING_ALLOWED: f64 = 0.5;

/// What the kernel side has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KernelSide {
    /// Run time of the programs: zero unless somebody has the kernel measure it.
    pub run_time: Duration,
    /// Transfers seen.
    pub seen: u64,
    /// Transfers shipped.
    pub shipped: u64,
}

/// Everything, so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// When.
    pub at: Instant,
    /// CPU time of the agent, all threads.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
    /// The programs.
    pub kernel: KernelSide,
    /// Looks at the ring.
    pub looks: u64,
    /// Bytes that they found.
    pub found: u64,
}

/// What was used between two readings.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Used {
    /// Cores, of the agent and of its programs.
    pub cores: f64,
    /// Part of them that is there for transfers, at most.
    pub moving: f64,
    /// Bytes resident at the end.
    pub resident: u64,
    /// Share of the ring that a look found, on the average.
    pub ring: f64,
}

/// The difference of two readings.
pub fn between(before: &Reading, now: &Reading) -> Used {
    let time = now.at.saturating_duration_since(before.at).as_secs_f64().max(1e-3);
    let run_time = now.kernel.run_time.saturating_sub(before.kernel.run_time);
    let programs = if run_time.is_zero() {
        let seen = now.kernel.seen.saturating_sub(before.kernel.seen);
        let shipped = now.kernel.shipped.saturating_sub(before.kernel.shipped);
        let others = seen.saturating_sub(shipped);
        Duration::from_nanos(shipped.saturating_mul(NS_SHIPPED) + others.saturating_mul(NS_NOT_SHIPPED))
    } else {
        run_time
    };
    let shipped = now.kernel.shipped.saturating_sub(before.kernel.shipped);
    let cores = (now.cpu.saturating_sub(before.cpu) + programs).as_secs_f64() / time;
    let moving = Duration::from_nanos(shipped.saturating_mul(NS_AT_MOST)).as_secs_f64() / time;
    let looks = now.looks.saturating_sub(before.looks).max(1);
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    let ring = now.found.saturating_sub(before.found) as f64 / looks as f64 / f64::from(RING_BYTES);
    Used { cores, moving: moving.min((cores - IDLE).max(0.0)), resident: now.resident, ring }
}

/// Shares of the budgets.
pub fn load(used: &Used, budgets: &Budgets) -> Load {
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    let memory = budgets.memory.map_or(0.0, |most| used.resident as f64 / most as f64);
    Load {
        cpu: budgets.cores.map_or(0.0, |most| used.cores / most),
        moving: budgets.cores.map_or(0.0, |most| used.moving / most),
        memory,
        // Whoever lifts the CPU budget wants nothing given up for being busy; the full ring is counted.
        ring: budgets.cores.map_or(0.0, |_| used.ring / RING_ALLOWED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: Instant) -> Reading {
        Reading { at, cpu: Duration::ZERO, resident: 0, kernel: KernelSide::default(), looks: 0, found: 0 }
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn shares_of_half_a_second() {
        let start = Instant::now();
        let before = reading(start);
        let now = Reading {
            at: start + Duration::from_millis(500),
            cpu: Duration::from_millis(200),
            resident: 64 << 20,
            kernel: KernelSide { run_time: Duration::ZERO, seen: 200_000, shipped: 100_000 },
            looks: 10,
            found: u64::from(RING_BYTES),
        };
        let used = between(&before, &now);
        // 200 ms of its own, 37 ms for what was shipped, 12 ms for the rest, in 500 ms.
        assert!(near(used.cores, 0.498), "{used:?}");
        assert!(near(used.ring, 0.1), "{used:?}");
        let measured = KernelSide { run_time: Duration::from_millis(50), ..now.kernel };
        assert!(near(between(&before, &Reading { kernel: measured, ..now }).cores, 0.5));
        let all = Budgets { cores: Some(0.25), memory: Some(128 << 20) };
        let shares = load(&used, &all);
        // All but what it takes in any case: so many transfers may cost that.
        assert!(
            near(shares.cpu, 1.992)
                && near(shares.moving, 1.972)
                && near(shares.memory, 0.5)
                && near(shares.ring, 0.2),
            "{shares:?}"
        );
        // Four transfers cannot have cost 0.4 of a core: that was something else, such as new processes.
        let few = Reading { kernel: KernelSide { run_time: Duration::ZERO, seen: 4, shipped: 4 }, ..now };
        assert!(near(between(&before, &few).moving, 0.0004));
        assert_eq!(load(&used, &Budgets { cores: None, memory: None }), Load::default());
    }

    #[test]
    fn odd_readings_do_no_harm() {
        let now = reading(Instant::now());
        let used = between(&Reading { cpu: Duration::from_secs(9), found: 7, looks: 3, ..now }, &now);
        assert_eq!(used, Used::default());
    }
}
