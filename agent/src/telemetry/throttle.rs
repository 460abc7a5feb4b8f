//! Lets one warning through in a while and counts the others.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Guards one place that warns.
#[derive(Debug)]
pub struct Throttle {
    every: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl Throttle {
    /// At most one warning in this time.
    pub const fn new(every: Duration) -> Self {
        Self { every, state: Mutex::new((None, 0)) }
    }

    /// Whether to warn now; the number is how many warnings were held back since the last one.
    pub fn permit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (last, held_back) = &mut *state;
        if last.is_some_and(|last| now.saturating_duration_since(last) < self.every) {
            *held_back += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(held_back))
    }

    /// Logs the warning if it is time, and how many like it were held back.
    pub fn warn(&self, sentence: impl FnOnce() -> String) {
        match self.permit(Instant::now()) {
            None => {}
            Some(0) => tracing::warn!("{}", sentence()),
            Some(more) => tracing::warn!("{} ({more} more like this since the last)", sentence()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_while() {
        let throttle = Throttle::new(Duration::from_secs(10));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(throttle.permit(at(5)), Some(0));
        assert_eq!(throttle.permit(at(6)), None);
        assert_eq!(throttle.permit(at(14)), None);
        assert_eq!(throttle.permit(at(15)), Some(2));
        assert_eq!(throttle.permit(at(1)), None, "time does not run backwards");
        assert_eq!(throttle.permit(at(25)), Some(1));
    }
}
