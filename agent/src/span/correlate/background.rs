//! Calls of a process that belong to no request (timers, pollers), so that none is given to a request that
//! merely happens to be open.
//!
//! Comes in: when requests are open, and calls by destination. Goes out: how many background calls to a
//! destination are to be expected while a request is alone, against those that were claimed for one.

/// Destinations told apart in one process; further ones share the last entry.
const DESTINATIONS: usize = 32;
/// All figures are halved this often: programs change.
const HALF_LIFE_NS: u64 = 60_000_000_000;
/// Background calls tolerated among a thousand claimed.
const PER_THOUSAND: f64 = 1.0;

#[derive(Clone, Copy, Default, Debug)]
struct Destination {
    hash: u64,
    /// Calls begun while no request was open.
    orphans: f64,
    /// Calls begun while one was.
    busy: f64,
    /// Calls that `only` claimed.
    claimed: f64,
}

/// Times and calls of one process, since its first request: what it does while it starts says nothing.
#[derive(Default, Debug)]
pub(super) struct Background {
    changed_ns: u64,
    halved_ns: u64,
    idle: f64,
    alone: f64,
    busy: f64,
    destinations: Vec<Destination>,
}

impl Background {
    /// Before the number of open requests changes, and before a call is counted.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a few minutes")]
    pub(super) fn advance(&mut self, now_ns: u64, open: u32) {
        if self.changed_ns == 0 {
            (self.changed_ns, self.halved_ns) = (now_ns, now_ns);
        }
        let passed = now_ns.saturating_sub(self.changed_ns) as f64;
        self.changed_ns = self.changed_ns.max(now_ns);
        match open {
            0 => self.idle += passed,
            1 => {
                self.alone += passed;
                self.busy += passed;
            }
            _ => self.busy += passed,
        }
        if now_ns.saturating_sub(self.halved_ns) > HALF_LIFE_NS {
            self.halved_ns = now_ns;
            for figure in [&mut self.idle, &mut self.alone, &mut self.busy] {
                *figure /= 2.0;
            }
            for destination in &mut self.destinations {
                for figure in [&mut destination.orphans, &mut destination.busy, &mut destination.claimed] {
                    *figure /= 2.0;
                }
            }
        }
    }

    /// A call begins; gives the index of its destination.
    pub(super) fn call(&mut self, hash: u64, orphan: bool) -> usize {
        let known = self.destinations.iter().position(|destination| destination.hash == hash);
        let index = known.unwrap_or_else(|| {
            if self.destinations.len() < DESTINATIONS {
                self.destinations.push(Destination { hash, ..Destination::default() });
            }
            self.destinations.len() - 1
        });
        if let Some(destination) = self.destinations.get_mut(index) {
            *(if orphan { &mut destination.orphans } else { &mut destination.busy }) += 1.0;
        }
        index
    }

    /// `only` holds for a call to this destination.
    pub(super) fn claimed(&mut self, index: usize) {
        if let Some(destination) = self.destinations.get_mut(index) {
            destination.claimed += 1.0;
        }
    }

    /// Few enough background calls are to be expected among those that `only` claims.
    pub(super) fn negligible(&self, index: usize) -> bool {
        self.destinations.get(index).is_none_or(|destination| {
            destination.orphans == 0.0
                || (destination.orphans + 1.0) / self.idle.max(1.0) * self.alone * 1_000.0
                    <= destination.claimed * PER_THOUSAND
        })
    }

    /// What calls there to this destination are explained by background alone.
    pub(super) fn explains(&self, index: usize) -> bool {
        self.destinations.get(index).is_some_and(|destination| {
            destination.orphans >= 3.0
                && destination.busy <= 2.0 * destination.orphans / self.idle.max(1.0) * self.busy + 3.0
        })
    }

    /// Calls begun while no request was open (in the window).
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    pub(super) fn orphans(&self) -> u64 {
        self.destinations.iter().map(|destination| destination.orphans).sum::<f64>() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Requests of 10 ms every 20 ms with one call each, and a poller every 100 ms whatever is open.
    fn live(poller: u64, shared: bool) -> (Background, usize, usize) {
        let mut background = Background::default();
        let (mut app, mut poll) = (0, 0);
        for i in 0..1_000_u64 {
            let at = MS + i * 20 * MS;
            background.advance(at, 0);
            app = background.call(1, false);
            background.claimed(app);
            if poller > 0 && i % 10 == 0 {
                poll = background.call(poller, false);
                background.claimed(poll);
            }
            background.advance(at + 10 * MS, 1);
            if poller > 0 && i % 10 == 5 {
                background.advance(at + 15 * MS, 0);
                background.call(if shared { 1 } else { poller }, true);
            }
        }
        (background, app, poll)
    }

    #[test]
    fn without_orphans_nothing_is_background() {
        let (background, app, _) = live(0, false);
        assert!(background.negligible(app));
        assert!(!background.explains(app));
    }

    #[test]
    fn a_poller_is_told_from_the_calls_of_requests() {
        let (background, app, poll) = live(2, false);
        assert!(background.negligible(app) && !background.explains(app));
        assert!(!background.negligible(poll) && background.explains(poll));
    }

    #[test]
    fn a_poller_to_the_same_destination_silences_it() {
        let (background, app, _) = live(1, true);
        assert!(!background.negligible(app));
    }

    #[test]
    fn destinations_are_bounded() {
        let mut background = Background::default();
        for hash in 0..1_000 {
            assert!(background.call(hash, false) < DESTINATIONS);
        }
        assert_eq!(background.destinations.len(), DESTINATIONS);
    }
}
