//! `go-offsets`: layouts of Go structs. In: releases of Go and of modules, and the members wanted (`agent/golang/src/wanted.txt`).
//! Out: `agent/golang/src/offsets.txt`, measured in the debug information of small programs built with each of them.
//!
//! The releases are the first and the last one (that resolves) of each minor one: where both agree, so do those between. A
//! module's layout may depend on the compiler: each is built with the oldest and the newest one, which must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use spanwise_golang::{Binary, Version, wanted};
use spanwise_tests::paths;

use crate::run::{self, Options};

/// Releases of Go; the installed one joins them and need not be here.
const RELEASES: [&str; 13] = [
    "1.21.0", "1.21.13", "1.22.0", "1.22.12", "1.23.0", "1.23.12", "1.24.0", "1.24.11", "1.25.0", "1.25.5",
    "1.26.0", "1.27.0", "1.27.3",
];

/// A module, a program that uses what is wanted of it, its versions, each with what it needs beside it.
struct Module {
    name: &'static str,
    program: &'static str,
    /// Versions, each with the oldest compiler of [`RELEASES`] that takes it.
    versions: &'static [(&'static str, &'static str)],
}

const MODULES: [Module; 5] = [
    Module {
        name: "golang.org/x/net",
        program: include_str!("offsets/xnet.go.txt"),
        versions: &[
            ("0.17.0", "1.21.13"),
            ("0.21.0", "1.21.13"),
            ("0.25.0", "1.21.13"),
            ("0.30.0", "1.21.13"),
            ("0.34.0", "1.21.13"),
            ("0.38.0", "1.23.12"),
            ("0.43.0", "1.23.12"),
            ("0.47.0", "1.24.11"),
            ("0.50.0", "1.24.11"),
            ("0.56.0", "1.25.5"),
            ("0.62.0", "1.26.0"),
        ],
    },
    Module {
        name: "google.golang.org/grpc",
        program: include_str!("offsets/grpc.go.txt"),
        versions: &[
            ("1.56.3", "1.21.13"),
            ("1.58.3", "1.21.13"),
            ("1.60.1", "1.21.13"),
            ("1.62.2", "1.21.13"),
            ("1.63.2", "1.21.13"),
            ("1.64.1", "1.21.13"),
            ("1.65.0", "1.21.13"),
            ("1.66.3", "1.21.13"),
            ("1.67.3", "1.21.13"),
            ("1.68.2", "1.22.12"),
            ("1.69.4", "1.22.12"),
            ("1.70.0", "1.22.12"),
            ("1.72.2", "1.23.12"),
            ("1.74.2", "1.23.12"),
            ("1.76.0", "1.24.11"),
            ("1.77.0", "1.24.11"),
            ("1.78.0", "1.24.11"),
            ("1.79.3", "1.24.11"),
            ("1.80.0", "1.24.11"),
            ("1.81.1", "1.25.5"),
            ("1.82.0", "1.25.5"),
            ("1.82.1", "1.25.5"),
            ("1.83.0", "1.25.5"),
            ("1.83.1", "1.25.5"),
            ("1.83.2", "1.25.5"),
            ("1.85.0", "1.26.0"),
        ],
    },
    Module {
        name: "github.com/gin-gonic/gin",
        program: include_str!("offsets/gin.go.txt"),
        versions: &[
            ("1.7.0", "1.21.13"),
            ("1.7.7", "1.21.13"),
            ("1.8.1", "1.21.13"),
            ("1.9.1", "1.21.13"),
            ("1.10.1", "1.21.13"),
            ("1.11.0", "1.23.12"),
            ("1.12.0", "1.25.5"),
        ],
    },
    Module {
        name: "github.com/labstack/echo/v4",
        program: include_str!("offsets/echo.go.txt"),
        versions: &[
            ("4.10.2", "1.21.13"),
            ("4.11.4", "1.21.13"),
            ("4.12.0", "1.21.13"),
            ("4.13.4", "1.23.12"),
            ("4.15.4", "1.25.5"),
            ("4.16.0", "1.25.5"),
        ],
    },
    Module {
        name: "github.com/go-chi/chi/v5",
        program: include_str!("offsets/chi.go.txt"),
        versions: &[
            ("5.0.0", "1.21.13"),
            ("5.0.8", "1.21.13"),
            ("5.0.12", "1.21.13"),
            ("5.1.0", "1.21.13"),
            ("5.2.3", "1.23.12"),
            ("5.3.2", "1.25.5"),
            ("5.5.0", "1.25.5"),
        ],
    },
];

const STD_PROGRAM: &str = include_str!("offsets/std.go.txt");

/// Offsets of one build: none where the struct is there and the member is not.
type Measured = BTreeMap<(&'static str, &'static str), Option<u32>>;

/// The `go-offsets` task.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let mut options = Options::new(arguments);
    let write = options.flag("--write");
    let only = options.value("--only")?;
    options.finish()?;
    let file = paths::root().join("agent/golang/src/offsets.txt");
    let before = fs::read_to_string(&file)?;
    let wanted = |module: &str| only.as_deref().is_none_or(|only| module.contains(only));
    let work = paths::root().join("target/golang/offsets");
    let mut text = String::from(
        "# Offsets of struct members, from the debug information of real builds: made by `cargo xtask go-offsets --write`.\n\
         # `measured` lists the versions built; a member has its offset from the first version named on (`-`: no such member).\n",
    );
    let installed = installed()?;
    let mut builds = Vec::new();
    let mut releases = RELEASES.to_vec();
    releases.push(&installed);
    releases.sort_by_key(|release| Version::of_go(release));
    releases.dedup();
    for release in releases.into_iter().filter(|_| wanted("std")) {
        let toolchain = if release == installed { "local".into() } else { format!("go{release}") };
        let place = work.join(format!("std-{release}"));
        let program = build(&place, &toolchain, STD_PROGRAM, &[])?;
        builds.push((release.to_owned(), measure("std", &program)?));
        println!("go-offsets: std {release}");
    }
    if wanted("std") {
        rows(&mut text, "std", &builds)?;
    } else {
        text.push_str(&held(&before, "std"));
    }
    for module in &MODULES {
        if !wanted(module.name) {
            text.push_str(&held(&before, module.name));
            continue;
        }
        let mut builds = Vec::new();
        for (version, oldest) in module.versions {
            let mut results = Vec::new();
            for compiler in [*oldest, installed.as_str()] {
                let toolchain = if compiler == installed { "local".into() } else { format!("go{compiler}") };
                let place = work.join(format!("{}-{version}-{compiler}", module.name.replace('/', "-")));
                let program =
                    build(&place, &toolchain, module.program, &[format!("{}@v{version}", module.name)])?;
                results.push(measure(module.name, &program)?);
            }
            let [one, other] = results.as_slice() else { bail!("two compilers") };
            if one != other {
                bail!("{} {version} is laid out differently by {oldest} and {installed}", module.name);
            }
            builds.push(((*version).to_owned(), one.clone()));
            println!("go-offsets: {} {version}", module.name);
        }
        rows(&mut text, module.name, &builds)?;
    }
    if write {
        return fs::write(&file, text).context("cannot write the table");
    }
    if before != text {
        bail!("the table is not what was measured: run `cargo xtask go-offsets --write`");
    }
    Ok(())
}

/// The lines of a module as the table has them.
fn held(table: &str, module: &str) -> String {
    let of_module = |line: &&str| {
        let mut words = line.split(' ');
        let first = words.next();
        first == Some(module) || first == Some("measured") && words.next() == Some(module)
    };
    table.lines().filter(of_module).map(|line| format!("{line}\n")).collect()
}

/// The release that is installed.
fn installed() -> Result<String> {
    let output = Command::new("go").args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output();
    let text = String::from_utf8(output.context("cannot run go")?.stdout)?;
    text.trim().strip_prefix("go").map(str::to_owned).context("go does not tell its version")
}

/// Builds a program, unless it was built before.
fn build(place: &Path, toolchain: &str, program: &str, modules: &[String]) -> Result<PathBuf> {
    let output = place.join("program");
    if output.exists() && fs::read_to_string(place.join("main.go")).is_ok_and(|text| text == program) {
        return Ok(output);
    }
    fs::create_dir_all(place)?;
    fs::write(place.join("main.go"), program)?;
    let _ = fs::remove_file(place.join("go.sum"));
    fs::write(place.join("go.mod"), "module example.org/offsets\n\ngo 1.21\n")?;
    let go = |arguments: &[&str]| -> Result<()> {
        let mut command = Command::new("go");
        command.args(arguments).current_dir(place).env("GOTOOLCHAIN", toolchain).env("GOFLAGS", "-mod=mod");
        run::run(command.env("CGO_ENABLED", "0"))
    };
    for module in modules {
        go(&["get", module])?;
    }
    go(&["build", "-buildvcs=false", "-o", "program", "."])?;
    Ok(output)
}

fn measure(module: &str, program: &Path) -> Result<Measured> {
    let binary = Binary::open(program)?;
    let of_module: Vec<_> = wanted().filter(|(of, ..)| *of == module).collect();
    let structs: BTreeSet<&str> = of_module.iter().map(|(_, strukt, _)| *strukt).collect();
    let structs: Vec<&str> = structs.into_iter().collect();
    let members = binary.debug_members(&structs).context("the program has no debug information")?;
    let known = of_module.iter().filter(|(_, strukt, _)| members.has(strukt));
    Ok(known.map(|(_, strukt, member)| ((*strukt, *member), members.offset(strukt, member))).collect())
}

/// The lines of one module: a new step wherever the offset changes.
fn rows(text: &mut String, module: &str, builds: &[(String, Measured)]) -> Result<()> {
    let versions: Vec<&str> = builds.iter().map(|(version, _)| version.as_str()).collect();
    writeln!(text, "measured {module} {}", versions.join(" "))?;
    for (_, strukt, member) in wanted().filter(|(of, ..)| *of == module) {
        let mut steps = Vec::new();
        let mut last = None;
        for (version, measured) in builds {
            // A struct that a version does not have has no members either.
            let offset = measured.get(&(strukt, member)).copied().flatten();
            if last != Some(offset) {
                let shown = offset.map_or("-".into(), |offset| offset.to_string());
                steps.push(format!("{version}={shown}"));
                last = Some(offset);
            }
        }
        if steps.iter().all(|step| step.ends_with("=-")) {
            bail!(
                "{strukt}.{member} of {module} was found in no build: is it spelt right, and used by the program?"
            );
        }
        writeln!(text, "{module} {strukt}.{member} {}", steps.join(" "))?;
    }
    Ok(())
}
