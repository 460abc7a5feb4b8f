//! Comes in: a module, its version, a struct, a member. Goes out: the offset, if it was measured.
//!
//! The table is made by `cargo xtask go-offsets` from the debug information of real builds. A version between two measured ones
//! that agree counts as measured; a newer or older one, and one between two that differ, does not.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::version::Version;

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("offsets.txt")));

/// Name of the standard library in the table.
pub const STD: &str = "std";

/// Module, struct and member.
type Key = (Box<str>, Box<str>, Box<str>);
/// A version, and the offset from it on.
type Step = (Version, Option<u32>);

/// Measured offsets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// By module, the versions measured, in order.
    measured: HashMap<Box<str>, Vec<Version>>,
    /// By module, struct and member, the version from which on the offset is this one; none where there is no such member.
    members: HashMap<Key, Vec<Step>>,
}

/// What is known of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is here.
    At(u32),
    /// This version has no such member.
    Missing,
    /// This version was not measured.
    Unknown,
}

impl Table {
    /// The table that comes with the agent.
    pub fn own() -> &'static Self {
        &TABLE
    }

    /// Reads a table. Lines that make no sense are left out.
    pub fn parse(text: &str) -> Self {
        let mut table = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_ascii_whitespace();
            match (words.next(), words.next()) {
                (Some("measured"), Some(module)) => {
                    let mut versions: Vec<_> = words.filter_map(version).collect();
                    versions.sort_unstable();
                    table.measured.insert(module.into(), versions);
                }
                (Some(module), Some(path)) => {
                    let Some((strukt, member)) = path.rsplit_once('.') else { continue };
                    let steps = words.filter_map(|word| {
                        let (from, offset) = word.split_once('=')?;
                        let offset = if offset == "-" { None } else { Some(offset.parse().ok()?) };
                        Some((version(from)?, offset))
                    });
                    let key = (module.into(), strukt.into(), member.into());
                    table.members.insert(key, steps.collect());
                }
                _ => {}
            }
        }
        table
    }

    /// The offset of a member.
    pub fn offset(&self, module: &str, at: Version, strukt: &str, member: &str) -> Known {
        let Some(measured) = self.measured.get(module) else { return Known::Unknown };
        let next = measured.iter().find(|measured| **measured >= at);
        let last = measured.iter().rev().find(|measured| **measured <= at);
        let (Some(next), Some(last)) = (next, last) else { return Known::Unknown };
        match (self.step(module, *last, strukt, member), self.step(module, *next, strukt, member)) {
            (Some(before), Some(after)) if before == after => before.map_or(Known::Missing, Known::At),
            _ => Known::Unknown,
        }
    }

    fn step(&self, module: &str, at: Version, strukt: &str, member: &str) -> Option<Option<u32>> {
        let steps = self.members.get(&(module.into(), strukt.into(), member.into()))?;
        steps.iter().rev().find(|(from, _)| *from <= at).map(|(_, offset)| *offset)
    }

    /// First and last version measured of a module.
    pub fn span(&self, module: &str) -> Option<(Version, Version)> {
        let measured = self.measured.get(module)?;
        Some((*measured.first()?, *measured.last()?))
    }
}

fn version(text: &str) -> Option<Version> {
    Version::of_go(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# made by hand\nmeasured std 1.21.0 1.21.13 1.22.0 1.23.4\nstd runtime.g.goid 1.21.0=152 1.23.4=160\n\
                        std net/http.thing.late 1.21.0=- 1.22.0=8\nnonsense\nstd nodot 1.21.0=1\n";

    #[test]
    fn only_what_was_measured_is_known() {
        let table = Table::parse(TEXT);
        let of = |at, strukt, member| table.offset(STD, Version::of_go(at).unwrap(), strukt, member);
        assert_eq!(of("1.21.0", "runtime.g", "goid"), Known::At(152));
        assert_eq!(of("1.21.7", "runtime.g", "goid"), Known::At(152), "between two that agree");
        assert_eq!(of("1.22.5", "runtime.g", "goid"), Known::Unknown, "between two that differ");
        assert_eq!(of("1.23.4", "runtime.g", "goid"), Known::At(160));
        assert_eq!(of("1.23.5", "runtime.g", "goid"), Known::Unknown, "newer");
        assert_eq!(of("1.20.9", "runtime.g", "goid"), Known::Unknown, "older");
        assert_eq!(of("1.21.0", "runtime.g", "other"), Known::Unknown);
        assert_eq!(of("1.21.13", "net/http.thing", "late"), Known::Missing);
        assert_eq!(of("1.22.1", "net/http.thing", "late"), Known::At(8));
        assert_eq!(
            table.offset("other", Version::of_go("1.21.0").unwrap(), "runtime.g", "goid"),
            Known::Unknown
        );
        assert_eq!(
            table.span(STD).map(|(a, b)| (a.to_string(), b.to_string())),
            Some(("1.21.0".into(), "1.23.4".into()))
        );
    }

    #[test]
    fn the_own_table_is_whole() {
        let text = include_str!("offsets.txt");
        let table = Table::own();
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
        assert_eq!(lines, table.measured.len() + table.members.len(), "each line was understood");
        for ((module, strukt, member), steps) in &table.members {
            assert!(steps.is_sorted_by_key(|(from, _)| *from), "{strukt}.{member}");
            let first = table.measured[module].first();
            assert_eq!(
                steps.first().map(|(from, _)| from),
                first,
                "{strukt}.{member}: from the first one on"
            );
        }
    }
}
