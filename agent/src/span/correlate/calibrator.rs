//! Checks a model without knowing the truth: how often what it says is impossible in time, against chance.
//!
//! *Last in* can be checked in a second way, which does not wear out where many requests are open: a response that
//! was not written for the answer read last comes at a moment of its own, and at most such moments there is no
//! answer to be had. So as long as no response came without a candidate, the chance that a wrong pair goes
//! unnoticed is that of both: there was a candidate, and it is possible.
//!
//! Comes in: for each pair that a model named, whether it is possible, and whether a pair with the candidate of
//! a neighbour would be. Goes out: the model's precision and whether it may speak. Only *contested* pairs
//! count, those whose request was not alone in the process: the others are easy for every model, and a good
//! score on them says nothing about the rest.

/// Pairs (weighted by what they prove) after which a half of the window is closed.
const HALF_WINDOW: f64 = 3_000.0;
/// A run of fresh impossible pairs silences a model before the window's figures do.
const RECENT_IMPOSSIBLE: u32 = 2;
/// The least chance that is assumed for a candidate to be there at any moment: load may keep step with timers.
const LEAST_AVAILABLE: f64 = 0.5;
/// The least share of responses at moments of their own that is assumed to find a wrong candidate. Where tasks move
/// between threads, moments drawn at random tell too little (Go at 64 at once: 8 % find nothing, 0.2 % the wrong one).
const LEAST_MISTAKEN: f64 = 0.05;

/// A proven model's share of wrong pairs is so many times below what the bar lets through.
const WELL_ABOVE: f64 = 2.0;

#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    pairs: u64,
    impossible: u64,
    chance_pairs: u64,
    chance_possible: u64,
    orphans: u64,
    /// Moments drawn at random, and those at which there was a candidate.
    moments: u64,
    available: u64,
    /// Responses for which another model named another call.
    disputes: u64,
}

/// What is known of a model in a process.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Estimate {
    /// Contested pairs that it named in the window.
    pub pairs: u64,
    /// Share of them that is possible.
    pub possible: f64,
    /// Share that would be possible by chance.
    pub chance: f64,
    /// Responses for which it found no candidate.
    pub orphans: u64,
    /// Estimated precision.
    pub precision: f64,
    /// Lower bound of the precision (95 %).
    pub lower: f64,
    /// It decides parents.
    pub speaking: bool,
}

/// Keeps the score of one model.
#[derive(Debug)]
pub(super) struct Calibrator {
    now: Counts,
    before: Counts,
    /// The last 64 pairs, newest in bit 0; set where impossible.
    recent: u64,
    bar: f64,
    tolerance: f64,
    speaking: bool,
    confidence: f64,
    stale: u32,
    /// The model that disputes is itself not refuted.
    rival_stands: bool,
}

impl Calibrator {
    pub(super) fn new(bar: f64, tolerance: f64) -> Self {
        Self {
            now: Counts::default(),
            before: Counts::default(),
            recent: 0,
            bar,
            tolerance,
            speaking: false,
            confidence: 0.0,
            stale: 0,
            rival_stands: true,
        }
    }

    /// A pair that the model named.
    pub(super) fn pair(&mut self, possible: bool) {
        self.now.pairs += 1;
        self.recent <<= 1;
        if !possible {
            self.now.impossible += 1;
            self.recent |= 1;
        }
        self.stale += 1;
        if !possible || self.stale >= 32 {
            self.judge();
        }
    }

    /// The same response with the candidate of a neighbour.
    pub(super) fn chance(&mut self, possible: bool) {
        self.now.chance_pairs += 1;
        self.now.chance_possible += u64::from(possible);
    }

    /// A response without a candidate.
    pub(super) fn orphan(&mut self) {
        self.now.orphans += 1;
    }

    /// A response came without a candidate, or a pair was impossible: what it names where several answers wait is a guess.
    pub(super) fn slipped(&self) -> bool {
        let slips = |counts: &Counts| counts.orphans + counts.impossible;
        slips(&self.now) + slips(&self.before) > 0
    }

    /// A moment that has nothing to do with responses: whether a response would have found a candidate.
    pub(super) fn moment(&mut self, available: bool) {
        self.now.moments += 1;
        self.now.available += u64::from(available);
    }

    /// A response for which another model named another call; whether pairs of that model are all possible.
    pub(super) fn disputed(&mut self, rival_stands: bool) {
        self.now.disputes += 1;
        self.rival_stands = rival_stands;
    }

    /// None of its pairs is impossible, as far as they go.
    pub(super) fn stands(&self) -> bool {
        self.now.impossible + self.before.impossible == 0
    }

    /// It would speak with a bar that lets through a fraction as many wrong pairs: enough to decide many calls at once.
    pub(super) fn proven(&self) -> bool {
        self.speaking && self.estimate().lower >= 1.0 - (1.0 - self.bar) / WELL_ABOVE
    }

    /// The model changed its mind about the process: its score means nothing any more.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.bar, self.tolerance);
    }

    /// The confidence it speaks with, if it does.
    pub(super) fn speaks(&self) -> Option<f64> {
        self.speaking.then_some(self.confidence)
    }

    fn judge(&mut self) {
        self.stale = 0;
        let estimate = self.estimate();
        self.speaking = estimate.speaking;
        self.confidence = estimate.precision;
        #[expect(clippy::cast_precision_loss, reason = "counts of a window are small")]
        let weight = self.now.pairs as f64 * (1.0 - estimate.chance);
        if weight > HALF_WINDOW || self.now.pairs > 1_000_000 {
            self.before = self.now;
            self.now = Counts::default();
        }
    }

    /// What pairs prove where a wrong one would have needed a candidate at its moment, too. Nothing, once a response
    /// came without one, or while a model that may be right names other calls.
    fn weight_of_moments(&self, pairs: f64, chance: f64) -> f64 {
        let both = |figure: fn(&Counts) -> u64| figure(&self.now) + figure(&self.before);
        let disputed = self.rival_stands && both(|counts| counts.disputes) > 0;
        let found_nothing = both(|counts| counts.orphans + counts.impossible) > 0;
        let Some(available) = self.available() else { return 0.0 };
        if disputed || found_nothing { 0.0 } else { pairs * (1.0 - chance * available.max(LEAST_AVAILABLE)) }
    }

    /// Responses that came at a moment of their own and found a candidate all the same, as far as those tell that found
    /// none.
    #[expect(clippy::cast_precision_loss, reason = "counts of a window are small")]
    fn mistaken(&self) -> f64 {
        let orphans = (self.now.orphans + self.before.orphans) as f64;
        self.available().map_or(0.0, |available| {
            let share = available.max(LEAST_MISTAKEN);
            orphans * share / (1.0 - share)
        })
    }

    /// Share of moments at which there was a candidate.
    #[expect(clippy::cast_precision_loss, reason = "counts of a window are small")]
    fn available(&self) -> Option<f64> {
        let moments = self.now.moments + self.before.moments;
        let available = self.now.available + self.before.available;
        (moments > 0).then(|| (available as f64 + 1.0) / (moments as f64 + 2.0))
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a window are small")]
    pub(super) fn estimate(&self) -> Estimate {
        let pairs = self.now.pairs + self.before.pairs;
        let impossible = (self.now.impossible + self.before.impossible) as f64;
        let chance_pairs = self.now.chance_pairs + self.before.chance_pairs;
        let chance_possible = self.now.chance_possible + self.before.chance_possible;
        let orphans = self.now.orphans + self.before.orphans;
        let possible = if pairs == 0 { 0.0 } else { 1.0 - impossible / pairs as f64 };
        // With one neighbour of each kind assumed, so that few samples never give the extremes.
        let chance = (chance_possible as f64 + 1.0) / (chance_pairs as f64 + 2.0);
        // What the pairs prove: each wrong one had this chance to show as impossible.
        let weight = pairs as f64 * (1.0 - chance);
        let weight = weight.max(self.weight_of_moments(pairs as f64, chance));
        let mistaken = self.mistaken() / pairs.max(1) as f64;
        let (mut precision, mut lower) = (0.0, 0.0);
        if weight > 0.0 && possible > 0.0 {
            precision = ((possible - chance) / (1.0 - chance) / possible - mistaken)
                .max(0.0)
                .min(1.0 - 1.0 / (weight + 1.0));
            // Upper bound (95 %) of a Poisson count; 3 for none.
            lower = (1.0 - (impossible + 3.0 + 2.0 * impossible.sqrt()) / weight - mistaken).max(0.0);
        }
        let speaking = lower >= self.bar
            && impossible <= self.tolerance * weight
            && self.recent.count_ones() < RECENT_IMPOSSIBLE;
        Estimate { pairs, possible, chance, orphans, precision, lower, speaking }
    }
}

/// The last few pairs of a model, to draw a neighbour's candidate from.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// When the candidates (calls) began.
    began: [u64; 3],
    next: usize,
    seen: usize,
}

impl Neighbours {
    /// Takes the candidate's begin in; gives that of the candidate three pairs ago.
    pub(super) fn swap(&mut self, began_ns: u64) -> Option<u64> {
        let slot = self.began.get_mut(self.next)?;
        let old = std::mem::replace(slot, began_ns);
        self.next = (self.next + 1) % 3;
        self.seen += 1;
        (self.seen > 3).then_some(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(calibrator: &mut Calibrator, pairs: u32, impossible_every: u32, chance_percent: u32) {
        for i in 0..pairs {
            calibrator.chance(i % 100 < chance_percent);
            calibrator.pair(impossible_every == 0 || i % impossible_every != 0);
        }
    }

    #[test]
    fn few_samples_are_not_known_yet() {
        let mut calibrator = Calibrator::new(0.995, 0.0003);
        feed(&mut calibrator, 900, 0, 50);
        assert_eq!(calibrator.speaks(), None);
        feed(&mut calibrator, 700, 0, 50);
        assert!(calibrator.speaks().unwrap() > 0.998);
    }

    #[test]
    fn chance_near_one_needs_many() {
        let mut calibrator = Calibrator::new(0.995, 0.0003);
        feed(&mut calibrator, 10_000, 0, 97);
        assert_eq!(calibrator.speaks(), None);
        feed(&mut calibrator, 20_000, 0, 97);
        assert!(calibrator.speaks().is_some());
    }

    #[test]
    fn the_wrong_models_of_the_measurements_stay_silent() {
        // e and c as measured: last in on aiohttp at 64, and first in first out between timers.
        let mut calibrator = Calibrator::new(0.995, 0.0003);
        feed(&mut calibrator, 100_000, 250, 98);
        assert_eq!(calibrator.speaks(), None);
        assert!(calibrator.estimate().precision < 0.85);
        let mut calibrator = Calibrator::new(0.995, 0.0003);
        feed(&mut calibrator, 100_000, 5, 60);
        assert_eq!(calibrator.speaks(), None);
    }

    #[test]
    fn a_change_of_the_program_silences_at_once_and_is_forgotten_in_time() {
        let mut calibrator = Calibrator::new(0.995, 0.0003);
        feed(&mut calibrator, 20_000, 0, 50);
        assert!(calibrator.speaks().is_some());
        calibrator.pair(false);
        calibrator.pair(false);
        assert_eq!(calibrator.speaks(), None);
        feed(&mut calibrator, 30_000, 0, 50);
        assert!(calibrator.speaks().is_some());
    }

    #[test]
    fn moments_without_a_candidate_prove_as_much_as_impossible_pairs_would() {
        let fed = |orphan: bool, disputed: Option<bool>, available: u32| {
            let mut calibrator = Calibrator::new(0.995, 0.0003);
            if orphan {
                calibrator.orphan();
            }
            if let Some(stands) = disputed {
                calibrator.disputed(stands);
            }
            for i in 0..1_300 {
                calibrator.moment(i % 100 < available);
                feed(&mut calibrator, 1, 0, 100);
            }
            calibrator.speaks().is_some()
        };
        assert!(fed(false, None, 10) && fed(false, Some(false), 10));
        assert!(!fed(true, None, 10), "a response came without a candidate");
        assert!(!fed(false, Some(true), 10), "another model says otherwise and may be right");
        assert!(!fed(false, None, 90), "there nearly always is a candidate");
    }

    #[test]
    fn responses_without_a_candidate_tell_of_others_that_found_a_wrong_one() {
        let fed = |orphans: u32, available: u32| {
            let mut calibrator = Calibrator::new(0.995, 0.0003);
            for i in 0..5_000 {
                if i % 100 < orphans {
                    calibrator.orphan();
                }
                calibrator.moment(i % 100 < available);
                feed(&mut calibrator, 1, 0, 0);
            }
            calibrator.speaks().is_some()
        };
        assert!(fed(0, 30) && fed(5, 0));
        assert!(!fed(5, 30) && !fed(50, 0));
    }

    #[test]
    fn neighbours_are_three_away() {
        let mut neighbours = Neighbours::default();
        let drawn: Vec<_> = (1..=5).map(|i| neighbours.swap(i)).collect();
        assert_eq!(drawn, [None, None, None, Some(1), Some(2)]);
    }
}
