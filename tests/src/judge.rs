//! Are the parents right? In: spans whose paths carry the number of the request they belong to. Out: right, wrong, abstained
//! and missing, and how sure the agent was.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::spans::{Kind, Span, Spans};

/// The verdict over a set of spans.
#[derive(Clone, Default, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Spans that were expected.
    pub expected: u64,
    /// With the right parent.
    pub right: u64,
    /// With a parent that is not theirs.
    pub wrong: u64,
    /// Without a parent.
    pub abstained: u64,
    /// Of those, with a link to a likely one.
    pub linked: u64,
    /// Not there at all.
    pub missing: u64,
    /// More than were expected.
    pub surplus: u64,
    /// Mean confidence where a parent was claimed.
    pub estimated: Option<f64>,
    /// How often each source was claimed, and how often it was right.
    pub sources: BTreeMap<String, (u64, u64)>,
    /// The first few wrong ones.
    #[serde(skip)]
    pub examples: Vec<String>,
}

impl Verdict {
    /// Share of claimed parents that are right.
    pub fn precision(&self) -> Option<f64> {
        let claimed = self.right + self.wrong;
        (claimed > 0).then(|| ratio(self.right, claimed))
    }

    /// Share of the expected that is right.
    pub fn right_share(&self) -> f64 {
        ratio(self.right, self.expected)
    }

    /// Share of the expected that is wrong.
    pub fn wrong_share(&self) -> f64 {
        ratio(self.wrong, self.expected)
    }

    /// In a line, for messages.
    pub fn line(&self) -> String {
        format!(
            "{} expected: {} right, {} wrong, {} abstained ({} with a link), {} missing, {} surplus {}",
            self.expected,
            self.right,
            self.wrong,
            self.abstained,
            self.linked,
            self.missing,
            self.surplus,
            self.examples.join("; ")
        )
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "numbers of requests are far below 2^52")]
    let ratio = part as f64 / whole.max(1) as f64;
    ratio
}

/// Calls (client spans) of one service for requests `from..=to`, each of which makes `calls` of them.
/// The parent must be the same service's server span of the same request.
pub fn calls(spans: &Spans, service: &str, from: u64, to: u64, calls: u64) -> Verdict {
    judge(spans, spans.at(Kind::Client, service), from, to, calls, |span, parent| {
        parent.kind == Kind::Server && parent.service() == span.service()
    })
}

/// Server spans of one service whose client is traced too. The parent must be a client span of the same request.
pub fn served(spans: &Spans, service: &str, from: u64, to: u64, calls: u64) -> Verdict {
    judge(spans, spans.at(Kind::Server, service), from, to, calls, |span, parent| {
        parent.kind == Kind::Client && parent.path() == span.path()
    })
}

fn judge<'a>(
    spans: &'a Spans,
    which: impl Iterator<Item = &'a Span>,
    from: u64,
    to: u64,
    calls: u64,
    fits: impl Fn(&Span, &Span) -> bool,
) -> Verdict {
    let mut verdict = Verdict { expected: (to + 1).saturating_sub(from) * calls, ..Verdict::default() };
    let mut sure = Vec::new();
    for span in which {
        let Some(number) = span.request_number().filter(|number| (from..=to).contains(number)) else {
            continue;
        };
        if span.parent.is_empty() {
            verdict.abstained += 1;
            verdict.linked += u64::from(!span.links.is_empty());
            continue;
        }
        sure.extend(span.confidence());
        let parent = spans.parent(span);
        let right =
            parent.is_some_and(|parent| parent.request_number() == Some(number) && fits(span, parent));
        let source = verdict.sources.entry(span.source().to_owned()).or_default();
        source.0 += 1;
        if right {
            source.1 += 1;
            verdict.right += 1;
        } else {
            verdict.wrong += 1;
            if verdict.examples.len() < 3 {
                let name = parent.map_or("a span that does not exist".into(), |parent| {
                    format!("{:?} {} {}", parent.kind, parent.service(), parent.path())
                });
                verdict.examples.push(format!(
                    "{:?} {} under {name} by {}",
                    span.kind,
                    span.path(),
                    span.source()
                ));
            }
        }
    }
    let found = verdict.right + verdict.wrong + verdict.abstained;
    verdict.missing = verdict.expected.saturating_sub(found);
    verdict.surplus = found.saturating_sub(verdict.expected);
    #[expect(clippy::cast_precision_loss, reason = "numbers of spans are far below 2^52")]
    let mean = (!sure.is_empty()).then(|| sure.iter().sum::<f64>() / sure.len() as f64);
    verdict.estimated = mean;
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spans::tests::line;

    #[test]
    fn verdicts() {
        let text = line("a", 2, 1, 0, "/work/1", 1.0)
            + &line("a", 2, 2, 0, "/work/2", 1.0)
            + &line("a", 3, 11, 1, "/leaf/1", 0.9)
            + &line("a", 3, 12, 1, "/leaf/2", 0.7)
            + &line("a", 3, 13, 0, "/leaf/3", 0.0)
            + &line("a", 3, 15, 99, "/leaf/4", 0.8)
            + &line("b", 2, 21, 11, "/leaf/1", 1.0)
            + &line("b", 2, 22, 1, "/leaf/2", 1.0)
            + &line("a", 3, 16, 0, "/leaf/99", 0.8);
        let spans = Spans::parse(&text).unwrap();
        let calls = calls(&spans, "a", 1, 5, 1);
        assert_eq!(
            (calls.right, calls.wrong, calls.abstained, calls.missing),
            (1, 2, 1, 1),
            "{}",
            calls.line()
        );
        assert!((calls.estimated.unwrap() - 0.8).abs() < 1e-9);
        assert!((calls.precision().unwrap() - 1.0 / 3.0).abs() < 1e-9);
        let served = served(&spans, "b", 1, 2, 1);
        assert_eq!((served.right, served.wrong), (1, 1), "{}", served.line());
    }

    #[test]
    fn surplus_is_seen() {
        let text = line("a", 3, 1, 0, "/leaf/1", 1.0) + &line("a", 3, 2, 0, "/leaf/1", 1.0);
        assert_eq!(calls(&Spans::parse(&text).unwrap(), "a", 1, 1, 1).surplus, 1);
    }
}
