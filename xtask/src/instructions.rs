//! `instructions`: what a span costs where nothing can disturb the measurement. In: a recording, and valgrind. Out: instructions a
//! span, in all and by function.
//!
//! Times of a busy machine say nothing about a change of a few percent; counts of instructions are the same in every run. They
//! are not times: a cache miss counts as one, so what they find is to be confirmed by `bench`. The replay itself, which reads the
//! file twice, is part of it and the same before and after a change of the stages.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use spanwise_tests::sink::Sink;

use crate::run::{self, Options};

/// Of which stage a function is, by the module in its name.
const STAGES: [(&str, &str); 8] = [
    ("spanwise_protocol", "[4] parsers"),
    ("spanwise::kernel", "[1] kernel"),
    ("spanwise::conn", "[3] conn"),
    ("spanwise::session", "[4] session"),
    ("spanwise::span::correlate", "[5] correlate"),
    ("spanwise::span", "[5] span"),
    ("spanwise::export", "[7] export"),
    ("spanwise::", "the rest of the agent"),
];
const OTHER: &str = "libraries, allocator, copies";

/// The `instructions` task.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut options = Options::new(arguments);
    let top = options.number("--top", 30)?;
    let exporter = options.value("--exporter")?.unwrap_or_else(|| "otlp".into());
    let recording = options.value("--recording")?;
    let recording =
        recording.context("it needs --recording FILE; make one with `spanwise attach --record FILE`")?;
    options.finish()?;
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not installed, and nothing else counts instructions here");
        return Ok(());
    }
    let binary = run::build_agent("quick")?;
    let folder = tempfile::Builder::new().prefix("spanwise-instructions-").tempdir()?;
    let (profile, stats) = (folder.path().join("profile"), folder.path().join("stats.json"));
    let sink = Sink::start()?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet"]);
    valgrind.arg(format!("--callgrind-out-file={}", profile.display()));
    valgrind.arg(&binary).args(["replay", &recording, "--exporter", &exporter]);
    if exporter == "otlp" {
        valgrind.args(["--endpoint", &sink.endpoint(), "--protocol", "http/protobuf"]);
    }
    let status = valgrind.env("SPANWISE_STATS_JSON", &stats).status().context("cannot start valgrind")?;
    ensure!(status.success(), "the replay under valgrind ended with {status}");
    let spans = spans(&stats)?;
    let counts = own(&fs::read_to_string(&profile).context("valgrind left no profile")?);

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let each = |count: u64| count as f64 / spans as f64;
    let total = counts.values().sum();
    println!("{spans} spans, {:.0} instructions each with exporter {exporter}", each(total));
    let mut stages: HashMap<&str, u64> = HashMap::new();
    for (function, count) in &counts {
        *stages.entry(stage(function)).or_default() += count;
    }
    for table in
        [sorted(stages), sorted(counts.iter().map(|(name, count)| (name.as_str(), *count)).collect())]
    {
        println!();
        for (name, count) in table.into_iter().take(usize::try_from(top)?) {
            println!("{:>10.1}  {name}", each(count));
        }
    }
    Ok(())
}

fn sorted(counts: HashMap<&str, u64>) -> Vec<(&str, u64)> {
    let mut rows: Vec<_> = counts.into_iter().collect();
    rows.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    rows
}

fn stage(function: &str) -> &'static str {
    // "<spanwise::x::Y as core::z::Trait>::f" and the like are of the module that comes first.
    let first = STAGES.iter().filter_map(|(module, stage)| Some((function.find(module)?, *stage)));
    first.min_by_key(|(at, _)| *at).map_or(OTHER, |(_, stage)| stage)
}

/// Spans that the sampler kept.
fn spans(stats: &Path) -> Result<u64> {
    let text = fs::read_to_string(stats).context("the replay left no account")?;
    let account: serde_json::Value = serde_json::from_str(&text)?;
    let stages =
        account.get("stages").and_then(serde_json::Value::as_array).context("no stages in the account")?;
    let sampler = stages.iter().find(|stage| {
        stage.get("name").and_then(serde_json::Value::as_str).is_some_and(|name| name.starts_with("sample"))
    });
    let spans =
        sampler.and_then(|stage| stage.get("input")?.as_u64()).context("no sampler in the account")?;
    ensure!(spans > 0, "the recording has no span");
    Ok(spans)
}

/// Instructions of each function itself, from the file that callgrind writes: lines of cost under `fn=`, where a name stands at
/// its first use only, and the line after `calls=` is the cost of what was called.
fn own(profile: &str) -> HashMap<String, u64> {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut counts: HashMap<String, u64> = HashMap::new();
    let (mut function, mut called) = ("", false);
    for line in profile.lines() {
        if let Some((key, name)) = line.split_once('=') {
            let (number, text) = name.split_once(' ').unwrap_or((name, ""));
            match key {
                "fn" | "cfn" => {
                    if !text.is_empty() {
                        names.insert(number, text);
                    }
                    if key == "fn" {
                        function = names.get(number).copied().unwrap_or(number);
                    }
                }
                "calls" => called = true,
                _ => {}
            }
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok()).unwrap_or(0);
            if !std::mem::take(&mut called) {
                *counts.entry(function.to_owned()).or_default() += cost;
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile() {
        let profile = "events: Ir\nfn=(1) spanwise::span::build::build\n10 5\n+2 7\ncfn=(2) memcpy\ncalls=3 0\n12 90\n* 1\n\nfn=(2)\n4 90\n";
        let counts = own(profile);
        assert_eq!(counts.get("spanwise::span::build::build"), Some(&13));
        assert_eq!((counts.get("memcpy"), counts.len()), (Some(&90), 2));
    }

    #[test]
    fn stages_by_module() {
        for (function, expected) in [
            (
                "<spanwise_protocol::http1::Connection as spanwise_protocol::parser::Parser>::feed",
                "[4] parsers",
            ),
            ("spanwise::span::correlate::Correlator::signal", "[5] correlate"),
            ("core::ptr::drop_in_place<spanwise::span::model::Span>", "[5] span"),
            ("malloc", OTHER),
        ] {
            assert_eq!(stage(function), expected, "{function}");
        }
    }
}
