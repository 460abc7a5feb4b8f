//! What is in the kernel. In: bpftool. Out: ids of programs, maps and links, what programs cost, what maps weigh.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cleanup::Undo;
use crate::paths;
use crate::proc::capture;

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Ids of all programs, maps and links.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    programs: BTreeSet<u64>,
    maps: BTreeSet<u64>,
    links: BTreeSet<u64>,
}

impl Loaded {
    /// Now.
    pub fn now() -> Result<Self> {
        let ids = |what: &str| -> Result<BTreeSet<u64>> {
            Ok(show(what)?.iter().filter_map(|item| item.get("id")?.as_u64()).collect())
        };
        Ok(Self { programs: ids("prog")?, maps: ids("map")?, links: ids("link")? })
    }

    /// What is there now and was not `before`, in words; empty when nothing is.
    pub fn beyond(&self, before: &Self) -> String {
        let new = |what: &str, now: &BTreeSet<u64>, then: &BTreeSet<u64>| {
            let more: Vec<String> = now.difference(then).map(u64::to_string).collect();
            if more.is_empty() { String::new() } else { format!("{what} {} ", more.join(", ")) }
        };
        new("programs", &self.programs, &before.programs)
            + &new("maps", &self.maps, &before.maps)
            + &new("links", &self.links, &before.links)
    }

    /// How many programs and links there are.
    pub fn count(&self) -> usize {
        self.programs.len() + self.links.len()
    }
}

/// Runs and run time of programs loaded since `before`: name to (runs, nanoseconds).
pub fn costs_since(before: &Loaded) -> Result<BTreeMap<String, (u64, u64)>> {
    let mut costs = BTreeMap::new();
    for item in show("prog")? {
        let number = |key: &str| item.get(key).and_then(Value::as_u64);
        if number("id").is_some_and(|id| !before.programs.contains(&id)) {
            let name = item.get("name").and_then(Value::as_str).unwrap_or("unnamed").to_owned();
            let entry: &mut (u64, u64) = costs.entry(name).or_default();
            entry.0 += number("run_cnt").unwrap_or(0);
            entry.1 += number("run_time_ns").unwrap_or(0);
        }
    }
    Ok(costs)
}

/// Memory of maps made since `before`, in bytes.
pub fn map_bytes_since(before: &Loaded) -> Result<u64> {
    let weight = |item: &Value| {
        let id = item.get("id")?.as_u64()?;
        let bytes = item.get("bytes_memlock")?;
        let bytes = bytes.as_u64().or_else(|| bytes.as_str()?.parse().ok())?;
        (!before.maps.contains(&id)).then_some(bytes)
    };
    Ok(show("map")?.iter().filter_map(weight).sum())
}

/// Makes the kernel measure programs until this is dropped.
pub fn measure() -> Result<Undo> {
    let before = fs::read_to_string(STATS).with_context(|| format!("cannot read {STATS}"))?;
    fs::write(STATS, "1").with_context(|| format!("cannot write {STATS}"))?;
    Ok(Undo::new(move || {
        if let Err(error) = fs::write(STATS, before.trim()) {
            eprintln!("cannot set {STATS} back to {}: {error}", before.trim());
        }
    }))
}

fn show(what: &str) -> Result<Vec<Value>> {
    let text = capture(Command::new(paths::need("bpftool")?).args(["--json", what, "show"]))?;
    let value: Value = serde_json::from_str(&text).context("bpftool said something unexpected")?;
    Ok(value.as_array().cloned().unwrap_or_default())
}
