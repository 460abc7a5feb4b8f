//! What people are told: one line for each step, and never many.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::measure::Used;
use super::steps::{LEVELS, Level, Reason};
use crate::config::Budgets;

/// In this time ...
const WHILE: Duration = Duration::from_secs(60);
/// ... there are at most so many lines.
const MOST: usize = 12;
const MIB: u64 = 1 << 20;

/// The lines of the last while.
#[derive(Debug, Default)]
pub(super) struct Lines {
    said: VecDeque<Instant>,
    held_back: u64,
}

impl Lines {
    pub(super) fn up(&mut self, now: Instant, to: Level, reason: Reason, used: &Used, budgets: &Budgets) {
        self.say(now, &up(to, reason, used, budgets));
    }

    pub(super) fn back(&mut self, now: Instant, to: Level) {
        self.say(now, &back(to));
    }

    /// Nothing is left to give up.
    pub(super) fn helpless(&mut self, now: Instant, used: &Used, budgets: &Budgets) {
        let why = exceeded(Reason::Memory, used, budgets);
        self.say(now, &format!("{why}, and there is nothing left to give up; allow more with --max-rss"));
    }

    fn say(&mut self, now: Instant, line: &str) {
        if let Some(more) = self.permit(now) {
            match more {
                0 => crate::tell!("spanwise: {line}"),
                more => crate::tell!("spanwise: {line} ({more} more steps since the last line)"),
            }
        }
    }

    /// Whether a line may be said; the number is how many were held back before it.
    fn permit(&mut self, now: Instant) -> Option<u64> {
        while self.said.front().is_some_and(|first| now.saturating_duration_since(*first) >= WHILE) {
            self.said.pop_front();
        }
        if self.said.len() >= MOST {
            self.held_back += 1;
            return None;
        }
        self.said.push_back(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

fn exceeded(reason: Reason, used: &Used, budgets: &Budgets) -> String {
    match reason {
        Reason::Cpu => {
            let most = budgets.cores.unwrap_or_default();
            format!("over the CPU budget ({:.3} of a core, {most} allowed)", used.cores)
        }
        Reason::Memory => {
            let most = budgets.memory.unwrap_or_default() / MIB;
            format!("over the memory budget ({} MiB, {most} MiB allowed)", used.resident / MIB)
        }
        Reason::Ring => format!("too slow ({:.0} % of the ring is full at each look)", used.ring * 100.0),
    }
}

fn up(to: Level, reason: Reason, used: &Used, budgets: &Budgets) -> String {
    let (why, step, last) = (exceeded(reason, used, budgets), to as usize, LEVELS.len() - 1);
    format!("{why}: step {step} of {last}, {}", to.words())
}

fn back(to: Level) -> String {
    match to {
        Level::Everything => "within the budgets again: everything is captured".to_owned(),
        _ => format!(
            "within the budgets again: back to step {} of {}, {}",
            to as usize,
            LEVELS.len() - 1,
            to.words()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let used = Used { cores: 0.62, moving: 0.0, resident: 300 * MIB, ring: 0.8 };
        let budgets = Budgets { cores: Some(0.5), memory: Some(256 * MIB) };
        assert_eq!(
            up(Level::Half, Reason::Cpu, &used, &budgets),
            "over the CPU budget (0.620 of a core, 0.5 allowed): step 3 of 6, half of the connections rest"
        );
        assert_eq!(
            up(Level::Heads, Reason::Memory, &used, &budgets),
            "over the memory budget (300 MiB, 256 MiB allowed): step 1 of 6, only heads are shipped, no bodies"
        );
        assert!(up(Level::Heads, Reason::Ring, &used, &budgets).starts_with("too slow (80 % of the ring"));
        assert_eq!(
            back(Level::Impatient),
            "within the budgets again: back to step 2 of 6, other protocols are given up sooner"
        );
        assert_eq!(back(Level::Everything), "within the budgets again: everything is captured");
    }

    #[test]
    fn there_are_never_many() {
        let mut lines = Lines::default();
        let start = Instant::now();
        let said = (0..600).filter(|s| lines.permit(start + Duration::from_secs(*s)).is_some()).count();
        assert_eq!(said, 10 * MOST);
        assert_eq!(lines.permit(start + Duration::from_secs(600)), Some(48));
    }
}
