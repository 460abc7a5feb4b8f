//! Rules about the sources that no lint knows. In: folders of Rust files. Out: success, or the lines that break a rule.
//! A scan of text is enough: modules are named by `crate::STAGE`, and comments and strings that do so are rare.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The stages of the data flow, in its order. A stage may import from itself and from those before it.
const STAGES: [&str; 8] = ["kernel", "process", "instrument", "conn", "session", "span", "sample", "export"];
/// Modules on top of the stages: no stage may import them.
const TOP: [&str; 2] = ["cli", "pipeline"];
const LONGEST: usize = 800;

/// No stage imports from a later one, and none from the top.
pub(super) fn stages(source: &Path) -> Result<()> {
    let mut broken = Vec::new();
    for (own, stage) in STAGES.iter().enumerate() {
        let mut files = rust_files(&source.join(stage))?;
        let single = source.join(format!("{stage}.rs"));
        files.extend(single.exists().then_some(single));
        for file in files {
            let text = read(&file)?;
            for (number, line) in text.lines().enumerate() {
                if let Some(module) = modules_in(line).into_iter().find(|module| is_later(module, own)) {
                    broken.push(format!(
                        "{}:{}: `{stage}` imports from `{module}`",
                        file.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    report(broken)
}

fn is_later(module: &str, own: usize) -> bool {
    TOP.contains(&module) || STAGES.iter().position(|stage| *stage == module).is_some_and(|at| at > own)
}

/// First modules named after `crate::` in a line of code, braces included.
fn modules_in(line: &str) -> Vec<&str> {
    let code = line.split("//").next().unwrap_or_default();
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let list = rest.strip_prefix('{').map_or(rest, |inner| inner);
        let items = if rest.starts_with('{') { top_level_items(list) } else { vec![list] };
        for item in items {
            let name = item.trim_start();
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            found.extend(name.get(..end).filter(|name| !name.is_empty()));
        }
    }
    found
}

/// The parts of a brace list, without what nested braces hold.
fn top_level_items(list: &str) -> Vec<&str> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.extend(list.get(start..at));
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.extend(list.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    items.extend(list.get(start..));
    items
}

/// The parsers know neither the kernel contract nor the agent, nor a clock, nor I/O.
pub(super) fn parsers(package: &Path) -> Result<()> {
    let manifest = read(&package.join("Cargo.toml"))?;
    let mut broken = Vec::new();
    let mut section = "";
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        }
        let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
        if section == "[dependencies]" && ["spanwise", "spanwise-common", "tokio", "aya"].contains(&name) {
            broken.push(format!("Cargo.toml: the parsers depend on `{name}`"));
        }
    }
    for file in rust_files(&package.join("src"))? {
        for (number, line) in read(&file)?.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in ["std::fs", "std::net", "std::io", "Instant::now", "SystemTime::now", "std::thread"] {
                if code.contains(word) {
                    broken.push(format!("{}:{}: the parsers use {word}", file.display(), number + 1));
                }
            }
        }
    }
    report(broken)
}

/// No source file is so long that it must be about several things.
pub(super) fn lengths(root: &Path) -> Result<()> {
    let mut broken = Vec::new();
    for folder in ["common", "ebpf", "agent", "xtask", "tests"] {
        for file in rust_files(&root.join(folder))? {
            let lines = read(&file)?.lines().count();
            if lines > LONGEST {
                broken.push(format!("{}: {lines} lines, {LONGEST} are allowed", file.display()));
            }
        }
    }
    report(broken)
}

fn report(broken: Vec<String>) -> Result<()> {
    if broken.is_empty() { Ok(()) } else { bail!("\n  {}", broken.join("\n  ")) }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Rust files below a folder, build folders left out. A folder that is not there has none.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !folder.exists() {
        return Ok(found);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                found.extend(rust_files(&path)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_every_form() {
        assert_eq!(modules_in("use crate::span::model::Span;"), ["span"]);
        assert_eq!(
            modules_in("use crate::{conn::Info, export::{file, otlp}, config};"),
            ["conn", "export", "config"]
        );
        assert_eq!(modules_in("let a = crate::cli::run(crate::conn::X);"), ["cli", "conn"]);
        assert!(modules_in("// use crate::export::File;").is_empty());
    }

    fn tree(file: &str, text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        dir
    }

    #[test]
    fn importing_a_later_stage_is_refused() {
        let dir = tree("conn/mod.rs", "use crate::kernel::Event;\nuse crate::session::Exchange;\n");
        let message = stages(dir.path()).unwrap_err().to_string();
        assert!(message.contains("conn/mod.rs:2: `conn` imports from `session`"), "{message}");
    }

    #[test]
    fn importing_the_top_is_refused() {
        assert!(stages(tree("export/mod.rs", "use crate::pipeline;\n").path()).is_err());
    }

    #[test]
    fn importing_an_earlier_stage_or_a_neutral_module_is_fine() {
        stages(
            tree("span/mod.rs", "use crate::session::Exchange;\nuse crate::config::types::Sampler;\n").path(),
        )
        .unwrap();
    }

    #[test]
    fn a_parser_with_a_clock_is_refused() {
        let dir = tree("src/lib.rs", "fn f() { std::time::Instant::now(); }\n");
        fs::write(dir.path().join("Cargo.toml"), "[dependencies]\nmemchr = \"2\"\n").unwrap();
        assert!(parsers(dir.path()).is_err());
    }

    #[test]
    fn a_parser_that_knows_the_kernel_contract_is_refused() {
        let dir = tree("src/lib.rs", "");
        fs::write(dir.path().join("Cargo.toml"), "[dependencies]\nspanwise-common.workspace = true\n")
            .unwrap();
        assert!(parsers(dir.path()).is_err());
    }

    #[test]
    fn long_files_are_refused() {
        lengths(tree("tests/src/a.rs", &"\n".repeat(LONGEST)).path()).unwrap();
        assert!(lengths(tree("tests/src/a.rs", &"\n".repeat(LONGEST + 1)).path()).is_err());
    }
}
