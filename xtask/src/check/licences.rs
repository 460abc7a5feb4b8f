//! Licences of what we link. In: `cargo deny` where it is installed, else `cargo metadata`. Out: success, or the packages
//! whose licence `deny.toml` does not allow.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use spanwise_tests::paths;
use spanwise_tests::proc::capture;

use crate::run;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// Every package has a licence that `deny.toml` allows, and comes from the registry or from this workspace.
pub(super) fn check() -> Result<()> {
    if paths::which("cargo-deny").is_some() {
        return run::run(run::cargo().args(["deny", "--workspace", "check", "licenses", "bans", "sources"]));
    }
    let allowed =
        allowed(&fs::read_to_string(paths::root().join("deny.toml")).context("cannot read deny.toml")?)?;
    let mut command = run::cargo();
    let text = capture(command.args(["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata is not as expected")?;
    let broken: Vec<String> =
        metadata.packages.iter().filter_map(|package| fault(package, &allowed)).collect();
    if broken.is_empty() { Ok(()) } else { bail!("\n  {}", broken.join("\n  ")) }
}

fn fault(package: &Package, allowed: &BTreeSet<String>) -> Option<String> {
    let name = format!("{} {}", package.name, package.version);
    if package.source.as_deref().is_some_and(|source| !source.starts_with("registry+")) {
        return Some(format!("{name}: comes from {}", package.source.as_deref().unwrap_or_default()));
    }
    match package.license.as_deref() {
        None => Some(format!("{name}: says no licence")),
        Some(text) if acceptable(text, allowed) => None,
        Some(text) => Some(format!("{name}: {text}: not allowed by deny.toml")),
    }
}

/// The list `allow = [...]` of deny.toml.
fn allowed(text: &str) -> Result<BTreeSet<String>> {
    let list = text
        .split_once("\nallow = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .context("deny.toml has no `allow = [...]`")?
        .0;
    let found: BTreeSet<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    if found.is_empty() { bail!("deny.toml allows no licence") } else { Ok(found) }
}

/// Whether an SPDX expression can be met with allowed licences only. `/` is the old way to write OR.
fn acceptable(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = either(&words, &mut at, allowed);
    met && at == words.len()
}

fn either(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = both(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= both(words, at, allowed);
    }
    met
}

fn both(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, allowed);
    }
    met
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let met = either(words, at, allowed);
        *at += 1;
        return met;
    }
    if words.get(*at) == Some(&"WITH") {
        let whole = format!("{word} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
        return allowed.contains(&whole) || allowed.contains(*word);
    }
    allowed.contains(*word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meets(expression: &str) -> bool {
        acceptable(expression, &["MIT", "Apache-2.0", "Unicode-3.0"].map(String::from).into())
    }

    #[test]
    fn expressions_are_understood() {
        assert!(meets("MIT"));
        assert!(meets("MIT/Apache-2.0"));
        assert!(meets("GPL-3.0 OR MIT"));
        assert!(meets("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(meets("Apache-2.0 WITH LLVM-exception OR GPL-2.0"));
        assert!(!meets("GPL-3.0"));
        assert!(!meets("MIT AND GPL-3.0"));
        assert!(!meets("(MIT OR Apache-2.0) AND GPL-3.0"));
        assert!(!meets(""));
    }

    #[test]
    fn the_list_is_read() {
        let list = allowed("[licenses]\nallow = [\n  \"MIT\",\n  \"ISC\",\n]\n").unwrap();
        assert_eq!(list.into_iter().collect::<Vec<_>>(), ["ISC", "MIT"]);
        assert!(allowed("[licenses]\n").is_err());
    }

    #[test]
    fn a_package_from_elsewhere_is_refused() {
        let package = Package {
            name: "x".into(),
            version: "1".into(),
            license: Some("MIT".into()),
            source: Some("git+ssh://somewhere/x".into()),
        };
        assert!(fault(&package, &["MIT".to_owned()].into()).is_some());
    }
}
