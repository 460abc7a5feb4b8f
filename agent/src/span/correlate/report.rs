//! What the stage says about itself: the account of exchanges, and how well each model does in each process.

use super::calibrator::{Calibrator, Estimate};
use super::{Correlator, Process};
use crate::span::ParentSource;
use crate::telemetry::{Flow, Stage};

/// Counts of the stage since it began.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) finished: u64,
    pub(super) drained: u64,
    /// By [`slot`].
    pub(super) sources: [u64; SOURCES.len()],
    pub(super) unknown: u64,
    pub(super) not_tracked: u64,
    pub(super) held_too_many: u64,
    pub(super) held_too_long: u64,
    pub(super) broken_chains: u64,
    pub(super) traces_full: u64,
    pub(super) processes_forgotten: u64,
    pub(super) threads_crowded: u64,
    pub(super) calls_crowded: u64,
    pub(super) lingering_crowded: u64,
    pub(super) contradictions: u64,
    pub(super) starters_unknown: u64,
    pub(super) hand_overs: u64,
    pub(super) by_hand_over: u64,
    pub(super) jobs_mixed: u64,
    pub(super) told_by_other_end: u64,
    pub(super) learnt: u64,
}

const SOURCES: [(ParentSource, &str); 12] = [
    (ParentSource::Root, "parent: root"),
    (ParentSource::Wire, "parent: wire"),
    (ParentSource::Peer, "parent: peer"),
    (ParentSource::Goroutine, "parent: goroutine"),
    (ParentSource::Only, "parent: only"),
    (ParentSource::Thread, "parent: thread"),
    (ParentSource::LastIn, "parent: last in"),
    (ParentSource::FirstInFirstOut, "parent: first in first out"),
    (ParentSource::StartOrder, "parent: start order"),
    (ParentSource::InOrder, "parent: in order"),
    (ParentSource::Chain, "parent: chain"),
    (ParentSource::Abstained, "parent: abstained"),
];

impl Counters {
    pub(super) fn source(&mut self, source: ParentSource) {
        let slot = SOURCES.iter().position(|(known, _)| *known == source);
        if let Some(count) = slot.and_then(|slot| self.sources.get_mut(slot)) {
            *count += 1;
        }
    }
}

/// How one model does in one process.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelReport {
    /// Process (thread group) id.
    pub tgid: u32,
    /// Name of the model.
    pub model: &'static str,
    /// The source that its spans carry.
    pub source: ParentSource,
    /// Its score. For `thread`, pairs are requests that kept to their thread, orphans are counter-evidence; for
    /// `goroutine`, calls that were given a request and tasks that outlived theirs; for
    /// `only`, orphans are calls outside of requests.
    pub estimate: Estimate,
}

impl std::fmt::Display for ModelReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Estimate { pairs, possible, chance, orphans, precision, lower, speaking } = self.estimate;
        write!(
            f,
            "model {} of process {}: {pairs} pairs, possible {possible:.5}, by chance {chance:.3}, without a candidate \
             {orphans}, precision {precision:.4}, at least {lower:.4}: {}",
            self.model,
            self.tgid,
            if speaking { "speaks" } else { "silent" }
        )
    }
}

impl Correlator {
    /// The account: in = out + held.
    pub fn stage(&self) -> Stage {
        let c = &self.counters;
        let mut notes: Vec<(&'static str, u64)> =
            SOURCES.iter().zip(c.sources).map(|((_, name), count)| (*name, count)).collect();
        notes.extend([
            ("finished without a beginning", c.unknown),
            ("not correlated: too many open", c.not_tracked),
            ("decided early: too many held", c.held_too_many),
            ("decided early: held too long", c.held_too_long),
            ("new root: chain of parents did not end", c.broken_chains),
            ("new root: trace full or too old", c.traces_full),
            ("abstained: models contradict each other", c.contradictions),
            ("calls of a task whose starter is unknown", c.starters_unknown),
            ("values handed over between tasks", c.hand_overs),
            ("parent: goroutine, by a hand-over", c.by_hand_over),
            ("tasks that got work of several requests at once", c.jobs_mixed),
            ("fields unknown at one end, told by the other", c.told_by_other_end),
            ("calls that waited until their model was proven", c.learnt),
            ("processes forgotten early", c.processes_forgotten),
            ("threads forgotten early", c.threads_crowded),
            ("calls beyond the bound of one request", c.calls_crowded),
            ("calls forgotten before their server's end", c.lingering_crowded),
            ("exchanges in memory", self.nodes.len() as u64),
            ("ends waiting for the other end", self.joiner.len() as u64),
        ]);
        Stage {
            name: "correlate: exchanges",
            input: c.finished,
            rows: vec![
                (Flow::Out, "decided", c.drained),
                (Flow::Held, "decided, not taken yet", self.out.len() as u64),
                (Flow::Held, "waiting for a parent or its trace id", self.held as u64),
            ],
            notes,
        }
    }

    /// Every model of every process that serves requests.
    pub fn explain(&self) -> Vec<ModelReport> {
        let serving =
            self.processes.iter().map(|(_, process)| process).filter(|process| process.open.begun > 0);
        serving.flat_map(report).collect()
    }
}

fn report(process: &Process) -> [ModelReport; 10] {
    let scored = |model, source, calibrator: &Calibrator| ModelReport {
        tgid: process.tgid,
        model,
        source,
        estimate: calibrator.estimate(),
    };
    let (nested, against) = process.thread.figures();
    let plain = |model, source, pairs, orphans, confidence: Option<f64>| ModelReport {
        tgid: process.tgid,
        model,
        source,
        estimate: Estimate {
            pairs,
            possible: 1.0,
            chance: 0.0,
            orphans,
            precision: confidence.unwrap_or(0.0),
            lower: 0.0,
            speaking: confidence.is_some(),
        },
    };
    let lineage = process.lineage.as_deref();
    let figures = lineage.map(|lineage| lineage.figures).unwrap_or_default();
    let (named, outlived) = (figures.named, figures.against);
    let spoken = lineage.filter(|_| named > 0).map(super::lineage::Lineage::confidence);
    let orphans = process.background.orphans();
    [
        plain("thread", ParentSource::Thread, nested, against, process.thread.speaks()),
        plain("goroutine", ParentSource::Goroutine, named, outlived, spoken),
        plain("only", ParentSource::Only, 0, orphans, (!process.thread.disciplined()).then_some(0.95)),
        scored("last in", ParentSource::LastIn, &process.last_in.calibrator),
        scored(
            "first in, first out",
            ParentSource::FirstInFirstOut,
            &process.first_in_first_out.plain.calibrator,
        ),
        scored(
            "first in, first out, where overtaken",
            ParentSource::FirstInFirstOut,
            &process.first_in_first_out.mixed,
        ),
        scored("start order", ParentSource::StartOrder, &process.start_order.calibrator),
        scored("in order", ParentSource::InOrder, &process.in_order.calibrator),
        scored("chain: sibling", ParentSource::Chain, &process.sibling.calibrator),
        scored("chain: next", ParentSource::Chain, &process.next.calibrator),
    ]
}
