//! What is in the kernel. In: a process, and bpftool. Out: the programs, maps and links that the process holds, what they cost,
//! what they weigh, and which of them are still there when it is gone. Other processes may use BPF meanwhile: only what the
//! one process holds is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cleanup::Undo;
use crate::proc::capture;
use crate::sys::BpfKind;
use crate::{paths, sys};

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Ids of what one process holds. The kernel gives an id only once.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Owned {
    programs: BTreeSet<u64>,
    maps: BTreeSet<u64>,
    links: BTreeSet<u64>,
    /// Of the programs.
    names: BTreeMap<u64, String>,
}

impl Owned {
    /// By a running process: what its descriptors are, and the maps of its programs.
    pub fn by(pid: u32) -> Result<Self> {
        let folder = format!("/proc/{pid}/fdinfo");
        let mut owned = Self::default();
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))? {
            // A descriptor may be closed meanwhile.
            owned.take(&fs::read_to_string(entry?.path()).unwrap_or_default());
        }
        for program in show("prog")?.iter().filter(|item| owned.programs.contains(&id(item))) {
            let maps = program.get("map_ids").and_then(Value::as_array);
            owned.maps.extend(maps.into_iter().flatten().filter_map(Value::as_u64));
            let name = program.get("name").and_then(Value::as_str).unwrap_or_default();
            owned.names.insert(id(program), name.to_owned());
        }
        Ok(owned)
    }

    /// Whether a program of this name is among them.
    pub fn has_program(&self, name: &str) -> bool {
        self.names.values().any(|found| found == name)
    }

    /// The ids in the description of a descriptor.
    fn take(&mut self, description: &str) {
        for line in description.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let Ok(value) = value.trim().parse() else { continue };
            match key {
                "prog_id" => self.programs.insert(value),
                "map_id" => self.maps.insert(value),
                "link_id" => self.links.insert(value),
                _ => false,
            };
        }
    }

    /// How many programs there are.
    pub fn programs(&self) -> usize {
        self.programs.len()
    }

    /// Which of them are still in the kernel, in words; empty when none are. Asks for the ids only: what opens them to describe
    /// them, as bpftool does, keeps them from going.
    pub fn left(&self) -> Result<String> {
        let mut words = self.links_left()?;
        for (what, kind, ids) in
            [("prog", BpfKind::Program, &self.programs), ("map", BpfKind::Map, &self.maps)]
        {
            for id in still(kind, ids)? {
                let name = self.names.get(&id).filter(|_| kind == BpfKind::Program);
                words += &format!("{what} {id} {}; ", name.map_or("", String::as_str));
            }
        }
        Ok(words)
    }

    /// The same for the links alone. Without links no program runs; programs and maps go once the kernel knows that nobody is
    /// inside them, which takes it longer the busier it is.
    pub fn links_left(&self) -> Result<String> {
        let left = still(BpfKind::Link, &self.links)?;
        Ok(left.into_iter().map(|id| format!("link {id}; ")).collect())
    }

    /// Runs and run time of the programs: name to (runs, nanoseconds).
    pub fn costs(&self) -> Result<BTreeMap<String, (u64, u64)>> {
        let mut costs = BTreeMap::new();
        for item in show("prog")?.iter().filter(|item| self.programs.contains(&id(item))) {
            let number = |key: &str| item.get(key).and_then(Value::as_u64).unwrap_or(0);
            let name = item.get("name").and_then(Value::as_str).unwrap_or("unnamed").to_owned();
            let entry: &mut (u64, u64) = costs.entry(name).or_default();
            entry.0 += number("run_cnt");
            entry.1 += number("run_time_ns");
        }
        Ok(costs)
    }

    /// The maps, by name.
    pub fn maps(&self) -> Result<Vec<Map>> {
        let number = |item: &Value, key: &str| {
            let value = item.get(key);
            value.and_then(|v| v.as_u64().or_else(|| v.as_str()?.parse().ok())).unwrap_or(0)
        };
        let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let mut maps: Vec<Map> = show("map")?
            .iter()
            .filter(|item| self.maps.contains(&id(item)))
            .map(|item| Map {
                name: text(item, "name"),
                kind: text(item, "type"),
                key: number(item, "bytes_key"),
                value: number(item, "bytes_value"),
                entries: number(item, "max_entries"),
                bytes: number(item, "bytes_memlock"),
            })
            .collect();
        maps.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(maps)
    }

    /// Links that hold probes of user code.
    pub fn probes(&self) -> usize {
        let is_probe = |link: &&Value| {
            link.get("type").and_then(Value::as_str) == Some("uprobe_multi")
                || link.get("type").and_then(Value::as_u64) == Some(12)
        };
        let all = show("link").unwrap_or_default();
        all.iter().filter(|link| self.links.contains(&id(link))).filter(is_probe).count()
    }

    /// The values of an array, in words of eight bytes.
    pub fn dump(&self, name: &str) -> Result<Vec<Vec<u64>>> {
        let maps = show("map")?;
        let named = |item: &&Value| item.get("name").and_then(Value::as_str) == Some(name);
        let map = maps.iter().filter(named).find(|item| self.maps.contains(&id(item)));
        let map = map.with_context(|| format!("the process has no map {name}"))?;
        let number = id(map).to_string();
        let text =
            capture(Command::new(paths::need("bpftool")?).args(["--json", "map", "dump", "id", &number]))?;
        let entries: Value = serde_json::from_str(&text).context("bpftool said something unexpected")?;
        let byte = |value: &Value| u8::from_str_radix(value.as_str()?.trim_start_matches("0x"), 16).ok();
        let words = |entry: &Value| -> Option<Vec<u64>> {
            let bytes: Vec<u8> = entry.get("value")?.as_array()?.iter().filter_map(byte).collect();
            Some(
                bytes
                    .chunks_exact(8)
                    .filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?)))
                    .collect(),
            )
        };
        Ok(entries.as_array().into_iter().flatten().filter_map(words).collect())
    }

    /// Memory of the maps, in bytes.
    pub fn map_bytes(&self) -> Result<u64> {
        let weight = |item: &Value| {
            let bytes = item.get("bytes_memlock")?;
            bytes.as_u64().or_else(|| bytes.as_str()?.parse().ok())
        };
        Ok(show("map")?.iter().filter(|item| self.maps.contains(&id(item))).filter_map(weight).sum())
    }
}

/// A map, as the kernel describes it.
#[derive(Clone, Debug)]
pub struct Map {
    /// Its name.
    pub name: String,
    /// Its type, such as `lru_hash`.
    pub kind: String,
    /// Bytes of a key.
    pub key: u64,
    /// Bytes of a value (for each CPU).
    pub value: u64,
    /// Most entries.
    pub entries: u64,
    /// Memory that the kernel counts for it.
    pub bytes: u64,
}

/// Whether the kernel measures programs right now: somebody does it, or two runs at once put it back in the wrong order.
pub fn is_measured() -> Result<bool> {
    let value = fs::read_to_string(STATS).with_context(|| format!("cannot read {STATS}"))?;
    Ok(value.trim() != "0")
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

/// Which of these are in the kernel.
fn still(kind: BpfKind, ids: &BTreeSet<u64>) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for id in ids {
        let exists = sys::bpf_exists(kind, u32::try_from(*id)?);
        if exists.with_context(|| format!("cannot ask the kernel for {kind:?} {id}"))? {
            found.push(*id);
        }
    }
    Ok(found)
}

fn id(item: &Value) -> u64 {
    item.get("id").and_then(Value::as_u64).unwrap_or(u64::MAX)
}

fn show(what: &str) -> Result<Vec<Value>> {
    let text = capture(Command::new(paths::need("bpftool")?).args(["--json", what, "show"]))?;
    let value: Value = serde_json::from_str(&text).context("bpftool said something unexpected")?;
    Ok(value.as_array().cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::Owned;

    #[test]
    fn descriptors_are_read() {
        let mut owned = Owned::default();
        owned.take(
            "pos:\t0\nflags:\t02\nlink_type:\traw_tracepoint\nlink_id:\t7\nprog_tag:\tab\nprog_id:\t12\n",
        );
        owned.take("map_type:\t27\nmap_id:\t9\n");
        owned.take("pos:\t0\n");
        assert_eq!(format!("{owned:?}"), "Owned { programs: {12}, maps: {9}, links: {7}, names: {} }");
    }
}
