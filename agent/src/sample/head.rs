//! The decision at the head of a trace, consistent: every node gives one trace the same answer.
//!
//! Comes in: trace id, upstream flags and `tracestate`. Goes out: a [`Decision`] and the span's `tracestate`.

use super::state;
use crate::config::{RootSampler, Sampler as Settings};
use crate::span::TraceId;
use crate::telemetry::{Flow, Stage};

/// The range of randomness and thresholds, 2^56.
const RANGE: u64 = 1 << 56;
/// Hex digits of a threshold beyond those that are all ones.
const PRECISION: u32 = 5;

/// Why a span is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum KeepReason {
    /// All are.
    AlwaysOn,
    /// The randomness of its trace is not below the threshold.
    Ratio,
    /// Upstream kept the trace.
    Upstream,
}

/// Why a span is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum DropReason {
    /// None is.
    AlwaysOff,
    /// The randomness of its trace is below the threshold.
    Ratio,
    /// Upstream did not keep the trace.
    Upstream,
}

/// What was decided, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Decision {
    /// Export the span.
    Keep(KeepReason),
    /// Do not.
    Drop(DropReason),
}

impl Decision {
    /// Whether the span is kept.
    pub fn is_keep(self) -> bool {
        matches!(self, Self::Keep(_))
    }
}

/// The sampler of this run, with its account.
#[derive(Clone, Debug)]
pub struct Sampler {
    settings: Settings,
    /// Traces with less randomness than this are dropped by the ratio.
    threshold: u64,
    threshold_text: Box<str>,
    input: u64,
    kept: [u64; 3],
    dropped: [u64; 3],
}

impl Sampler {
    /// By the settings.
    pub fn new(settings: Settings) -> Self {
        let (Settings::Root(root) | Settings::ParentBased(root)) = settings;
        let threshold = match root {
            RootSampler::AlwaysOn => 0,
            RootSampler::AlwaysOff => RANGE,
            RootSampler::TraceIdRatio(share) => threshold(share),
        };
        let threshold_text = threshold_text(threshold).into();
        Self { settings, threshold, threshold_text, input: 0, kept: [0; 3], dropped: [0; 3] }
    }

    /// Decides for one span and counts it. `upstream` is the trace flags that came with the request, `trace_state`
    /// the `tracestate` that came with them.
    pub fn decide(
        &mut self,
        trace_id: &TraceId,
        upstream: Option<u8>,
        trace_state: Option<&str>,
    ) -> Decision {
        let decision = self.judge(trace_id, upstream, trace_state);
        self.input += 1;
        let slot = match decision {
            Decision::Keep(reason) => self.kept.get_mut(reason as usize),
            Decision::Drop(reason) => self.dropped.get_mut(reason as usize),
        };
        if let Some(slot) = slot {
            *slot += 1;
        }
        decision
    }

    fn judge(&self, trace_id: &TraceId, upstream: Option<u8>, trace_state: Option<&str>) -> Decision {
        let root = match (self.settings, upstream) {
            (Settings::ParentBased(_), Some(flags)) if flags & 1 == 1 => {
                return Decision::Keep(KeepReason::Upstream);
            }
            (Settings::ParentBased(_), Some(_)) => return Decision::Drop(DropReason::Upstream),
            (Settings::ParentBased(root), None) | (Settings::Root(root), _) => root,
        };
        match root {
            RootSampler::AlwaysOn => Decision::Keep(KeepReason::AlwaysOn),
            RootSampler::AlwaysOff => Decision::Drop(DropReason::AlwaysOff),
            RootSampler::TraceIdRatio(_) if randomness(trace_id, trace_state) >= self.threshold => {
                Decision::Keep(KeepReason::Ratio)
            }
            RootSampler::TraceIdRatio(_) => Decision::Drop(DropReason::Ratio),
        }
    }

    /// The threshold to write as `th`, where this decision was made by one of ours.
    pub fn threshold(&self, decision: Decision) -> Option<&str> {
        (decision == Decision::Keep(KeepReason::Ratio)).then_some(&*self.threshold_text)
    }

    /// The `tracestate` of a kept span: what came, with our threshold where it was ours that decided. An incoming
    /// `rv` is never touched.
    pub fn trace_state(&self, decision: Decision, incoming: Option<&str>) -> Option<Box<str>> {
        match (decision, incoming) {
            (Decision::Keep(KeepReason::Ratio), _) => {
                Some(state::with_threshold(incoming, &self.threshold_text))
            }
            // Upstream's threshold does not hold any more where all are kept.
            (Decision::Keep(KeepReason::AlwaysOn), Some(text)) if state::has_threshold(text) => {
                Some(state::with_threshold(incoming, "0"))
            }
            _ => incoming.map(Into::into),
        }
    }

    /// How many spans each kept one stands for, by the ratio of this sampler.
    pub fn adjusted_count(&self) -> f64 {
        if self.threshold >= RANGE { 0.0 } else { RANGE as f64 / (RANGE - self.threshold) as f64 }
    }

    /// The account.
    pub fn stage(&self) -> Stage {
        let [always_on, ratio, upstream] = self.kept;
        let [always_off, below, upstream_not] = self.dropped;
        let rows = vec![
            (Flow::Out, "kept: always on", always_on),
            (Flow::Out, "kept: by ratio", ratio),
            (Flow::Out, "kept: upstream sampled", upstream),
            (Flow::Drop, "sampled out: always off", always_off),
            (Flow::Drop, "sampled out: by ratio", below),
            (Flow::Drop, "sampled out: upstream did not sample", upstream_not),
        ];
        Stage { name: "sample: spans", input: self.input, rows, notes: Vec::new() }
    }
}

/// The randomness of a trace: what its root said, or the low 56 bits of the id.
fn randomness(trace_id: &TraceId, trace_state: Option<&str>) -> u64 {
    trace_state
        .and_then(state::randomness)
        .unwrap_or_else(|| (u128::from_be_bytes(*trace_id) as u64) & (RANGE - 1))
}

/// The threshold of a share, (1 - share) * 2^56, rounded to a few digits so that its text is short.
fn threshold(share: f64) -> u64 {
    if share.is_nan() || share <= 0.0 {
        return RANGE;
    }
    if share >= 1.0 {
        return 0;
    }
    let kept = (share * RANGE as f64).round() as u64;
    // A share beyond what 56 bits can say is taken up to the smallest that they can.
    let exact = RANGE - kept.clamp(1, RANGE);
    // Leading digits f carry nothing; precision counts from where they end.
    let ones = (exact << 8).leading_ones() / 4;
    let digits = ones + PRECISION;
    if digits >= 14 {
        return exact;
    }
    let unit = 1u64 << (4 * (14 - digits));
    let rounded = (exact + unit / 2) & !(unit - 1);
    // Rounding up to "none" is not what was asked for.
    if rounded < RANGE { rounded } else { exact }
}

/// Hex without zeros at the end.
fn threshold_text(threshold: u64) -> String {
    let text = format!("{threshold:014x}");
    let text = text.trim_end_matches('0');
    if text.is_empty() { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ratio(share: f64) -> Sampler {
        Sampler::new(Settings::Root(RootSampler::TraceIdRatio(share)))
    }

    fn id(number: u64) -> TraceId {
        // splitmix64, twice
        let mix = |mut z: u64| {
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            u128::from(z ^ (z >> 31))
        };
        let next = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mix(next) << 64 | mix(next ^ 0xdead_beef)).to_be_bytes()
    }

    #[test]
    fn texts_of_well_known_shares() {
        for (share, text) in
            [(1.0, "0"), (0.5, "8"), (0.25, "c"), (0.75, "4"), (0.125, "e"), (0.01, "fd70a4"), (0.1, "e6666")]
        {
            assert_eq!(ratio(share).threshold(Decision::Keep(KeepReason::Ratio)), Some(text), "{share}");
        }
        assert_eq!(threshold_text(threshold(2f64.powi(-56))), "ffffffffffffff");
        assert_eq!(threshold_text(threshold(1e-30)), "ffffffffffffff");
    }

    #[test]
    fn what_is_no_share_keeps_none_or_all() {
        for share in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
            assert_eq!(ratio(share).decide(&[0xff; 16], None, None), Decision::Drop(DropReason::Ratio));
        }
        for share in [1.0, 2.0, f64::INFINITY] {
            assert_eq!(ratio(share).decide(&[0; 16], None, None), Decision::Keep(KeepReason::Ratio));
        }
    }

    #[test]
    fn counts_are_unbiased() {
        for share in [0.5, 0.3, 0.1, 0.01] {
            let mut sampler = ratio(share);
            let total = 200_000u64;
            let kept = (0..total).filter(|n| sampler.decide(&id(*n), None, None).is_keep()).count() as f64;
            let estimate = kept * sampler.adjusted_count();
            // Four standard deviations.
            let bound = 4.0 * ((1.0 - share) / share * total as f64).sqrt();
            assert!((estimate - total as f64).abs() < bound, "{share}: {estimate} of {total}");
            assert!(sampler.stage().balances());
        }
    }

    #[test]
    fn randomness_of_the_root_is_honoured() {
        let mut sampler = ratio(0.5);
        assert!(sampler.decide(&[0; 16], None, Some("ot=rv:ffffffffffffff")).is_keep());
        assert!(!sampler.decide(&[0xff; 16], None, Some("ot=rv:00000000000000")).is_keep());
        assert!(sampler.decide(&[0xff; 16], None, Some("ot=rv:nonsense")).is_keep());
    }

    #[test]
    fn parent_based_honours_upstream() {
        let mut sampler = Sampler::new(Settings::ParentBased(RootSampler::TraceIdRatio(0.5)));
        let (low, high) = ([0; 16], [0xff; 16]);
        assert_eq!(sampler.decide(&low, Some(1), None), Decision::Keep(KeepReason::Upstream));
        assert_eq!(sampler.decide(&high, Some(2), None), Decision::Drop(DropReason::Upstream));
        assert_eq!(sampler.decide(&high, None, None), Decision::Keep(KeepReason::Ratio));
        assert_eq!(sampler.decide(&low, None, None), Decision::Drop(DropReason::Ratio));
        let mut off = Sampler::new(Settings::ParentBased(RootSampler::AlwaysOff));
        assert_eq!(off.decide(&low, Some(3), None), Decision::Keep(KeepReason::Upstream));
        assert_eq!(off.decide(&low, None, None), Decision::Drop(DropReason::AlwaysOff));
        let mut on = Sampler::new(Settings::Root(RootSampler::AlwaysOn));
        assert_eq!(on.decide(&low, Some(0), None), Decision::Keep(KeepReason::AlwaysOn));
        let stage = sampler.stage();
        assert!(stage.balances() && off.stage().balances() && on.stage().balances());
        assert!(stage.rows.contains(&(Flow::Drop, "sampled out: upstream did not sample", 1)));
    }

    #[test]
    fn trace_state_says_who_decided() {
        let sampler = ratio(0.25);
        let (ours, theirs) = (Decision::Keep(KeepReason::Ratio), Decision::Keep(KeepReason::Upstream));
        assert_eq!(sampler.trace_state(ours, None).as_deref(), Some("ot=th:c"));
        let incoming = Some("a=b,ot=th:8;rv:00000000000001");
        assert_eq!(sampler.trace_state(ours, incoming).as_deref(), Some("ot=th:c;rv:00000000000001,a=b"));
        assert_eq!(sampler.trace_state(theirs, incoming).as_deref(), incoming);
        assert_eq!(sampler.trace_state(theirs, None), None);
        assert_eq!(sampler.threshold(theirs), None);
        let all = Decision::Keep(KeepReason::AlwaysOn);
        assert_eq!(sampler.trace_state(all, Some("a=b")).as_deref(), Some("a=b"));
        assert_eq!(sampler.trace_state(all, Some("ot=th:8,a=b")).as_deref(), Some("ot=th:0,a=b"));
    }

    proptest! {
        #[test]
        fn one_trace_one_answer_and_less_is_part_of_more(id: [u8; 16], a in 0.0f64..=1.0, b in 0.0f64..=1.0) {
            let keep = |share: f64| ratio(share).decide(&id, None, None).is_keep();
            prop_assert_eq!(keep(a), keep(a));
            // Only the low 56 bits count.
            let mut other = id;
            other[..9].fill(0);
            prop_assert_eq!(keep(a), ratio(a).decide(&other, Some(1), None).is_keep());
            // What a small share keeps, a larger one keeps too.
            let (less, more) = (a.min(b), a.max(b));
            prop_assert!(!keep(less) || keep(more));
        }

        #[test]
        fn the_text_is_the_threshold(share in 0.0f64..=1.0) {
            let sampler = ratio(share);
            prop_assume!(sampler.threshold < RANGE);
            let text = sampler.threshold(Decision::Keep(KeepReason::Ratio)).unwrap();
            prop_assert!((1..=14).contains(&text.len()));
            prop_assert_eq!(u64::from_str_radix(&format!("{text:0<14}"), 16).unwrap(), sampler.threshold);
            let p = 1.0 / sampler.adjusted_count();
            prop_assert!((p - share).abs() <= share * 0.001 + 1e-5, "{} for {}", p, share);
        }

        #[test]
        fn any_trace_state_is_survived(text in ".{0,600}", list in "(ot=)?[a-z=;:,0-9 ]{0,600}") {
            for text in [text, list] {
                let mut sampler = ratio(0.5);
                let decision = sampler.decide(&[0xff; 16], None, Some(&text));
                if let Some(out) = sampler.trace_state(decision, Some(&text)) {
                    prop_assert!(out.len() <= text.len().max(512) + 8);
                }
            }
        }
    }
}
