//! What the analysis of Go programs finds, against what the Go tools say: every release, stripped, movable, with C linked in.
//! Programs are built once and kept below `target/golang`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use spanwise_golang::{Binary, Found, Runtime};

use crate::paths;
use crate::runner::{Case, Context};

pub(super) const CASES: &[Case] = &[
    Case { name: "golang_analysis/releases", seconds: 300, run: releases },
    Case { name: "golang_analysis/ways_to_link", seconds: 300, run: ways_to_link },
];

/// Releases of Go, the empty one is that installed, and what they must say of `runtime.g`: goid, parentGoid.
const RELEASES: [(&str, u32, u32); 6] = [
    ("1.21.13", 152, 272),
    ("1.22.12", 152, 272),
    ("1.23.12", 160, 280),
    ("1.24.11", 160, 280),
    ("1.25.5", 152, 272),
    ("", 152, 280),
];

/// Functions that every one of the programs has.
const FUNCTIONS: [&str; 5] = [
    "main.main",
    "runtime.newproc1",
    "crypto/tls.(*Conn).Write",
    "net/http.(*persistConn).writeLoop",
    "net/http.HandlerFunc.ServeHTTP",
];

const PROGRAM: &str = r#"package main

import (
	"fmt"
	"net/http"
	"os"
)

func tiny(a int) int { return a + 1 }

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answer, err := http.DefaultClient.Do(r)
		fmt.Fprintln(w, answer, err, tiny(len(os.Args)))
	})
	fmt.Println(http.ListenAndServeTLS(os.Args[1], "cert", "key", nil))
}
"#;

/// Builds the program, unless it is there.
fn build(release: &str, name: &str, arguments: &[&str], cgo: bool, program: &str) -> Result<PathBuf> {
    let place = paths::root().join("target/golang/analysis").join(name);
    let output = place.join("program");
    let same = |file: &str, text: &str| fs::read_to_string(place.join(file)).is_ok_and(|held| held == text);
    let told = format!("{release} {arguments:?} {cgo}");
    if output.exists() && same("main.go", program) && same("told", &told) {
        return Ok(output);
    }
    fs::create_dir_all(&place)?;
    fs::write(place.join("main.go"), program)?;
    fs::write(place.join("go.mod"), "module example.org/program\n\ngo 1.21\n")?;
    let toolchain = if release.is_empty() { "local".into() } else { format!("go{release}") };
    let mut command = Command::new(paths::need("go")?);
    command.args(["build", "-buildvcs=false", "-o", "program"]).args(arguments).arg(".").current_dir(&place);
    command.env("GOTOOLCHAIN", toolchain).env("CGO_ENABLED", if cgo { "1" } else { "0" });
    let result = command.output().context("cannot run go")?;
    ensure!(result.status.success(), "{name}: {}", String::from_utf8_lossy(&result.stderr));
    fs::write(place.join("told"), told)?;
    Ok(output)
}

/// Addresses and sizes of functions, as the Go tools tell.
fn symbols(program: &Path) -> Result<BTreeMap<String, u64>> {
    let output = Command::new(paths::need("go")?).args(["tool", "nm"]).arg(program).output()?;
    let text = String::from_utf8(output.stdout)?;
    let lines = text.lines().filter_map(|line| {
        let mut words = line.trim_start().splitn(3, ' ');
        let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
        (kind.eq_ignore_ascii_case("t"))
            .then(|| Some((name.to_owned(), u64::from_str_radix(address, 16).ok()?)))?
    });
    Ok(lines.collect())
}

/// All functions are where the Go tools say; asking by address gives the name back.
fn check_functions(name: &str, program: &Path, symbols: &BTreeMap<String, u64>) -> Result<()> {
    let binary = Binary::open(program)?;
    let found = binary.find(&FUNCTIONS);
    for function in FUNCTIONS {
        let Some(Found::Function(place)) = found.get(function) else {
            anyhow::bail!("{name}: {function} is {:?}", found.get(function))
        };
        let said = symbols.get(function).with_context(|| format!("go tool nm does not list {function}"))?;
        ensure!(place.address == *said, "{name}: {function} is at {:#x}, not {said:#x}", place.address);
        for inside in [place.address, place.address + place.size - 1] {
            let back = binary.name_of(inside).map(|(name, _)| name);
            ensure!(
                back.as_deref() == Some(function),
                "{name}: {inside:#x} is in {back:?}, not in {function}"
            );
        }
        let code = binary.code(*place).context("no code")?;
        let mut file = fs::read(program)?.split_off(usize::try_from(place.offset)?);
        file.truncate(usize::try_from(place.size)?);
        ensure!(code == file, "{name}: {function} has other code");
    }
    ensure!(
        binary.find(&["main.none"]).get("main.none") == Some(&Found::Absent),
        "{name}: what is not there"
    );
    ensure!(binary.find(&["main.tiny"]).get("main.tiny") == Some(&Found::Inlined), "{name}: what is inlined");
    ensure!(binary.name_of(1).is_none() && binary.name_of(u64::MAX).is_none(), "{name}: addresses outside");
    Ok(())
}

fn releases(_: &Context) -> Result<()> {
    for (release, goid, parent) in RELEASES {
        let name = if release.is_empty() { "installed" } else { release };
        let plain = build(release, name, &[], false, PROGRAM)?;
        let symbols = symbols(&plain)?;
        check_functions(name, &plain, &symbols)?;
        let stripped = build(release, &format!("{name}-stripped"), &["-ldflags=-s -w"], false, PROGRAM)?;
        // The Go tools know no names there, but the code is the same.
        check_functions(&format!("{name} stripped"), &stripped, &symbols)?;
        for program in [&plain, &stripped] {
            let binary = Binary::open(program)?;
            let runtime = Runtime::of(&binary)?;
            ensure!((runtime.goid, runtime.parent_goid) == (goid, Some(parent)), "{name}: {runtime:?}");
            ensure!(release.is_empty() || *runtime.version == *format!("go{release}"), "{name}: {runtime:?}");
            ensure!(&*binary.info.path == "example.org/program", "{name}: {:?}", binary.info);
        }
        println!("    {name}: {} functions", Binary::open(&plain)?.functions().unwrap_or_default());
    }
    Ok(())
}

fn ways_to_link(_: &Context) -> Result<()> {
    // With C linked in, another linker puts the parts together.
    let with_c = PROGRAM.replacen(
        "package main\n",
        "package main\n\n// int one(void) { return 1; }\nimport \"C\"\n",
        1,
    );
    let with_c = with_c.replace("tiny(len(os.Args)))", "tiny(int(C.one())))");
    for (release, short) in [("1.21.13", "1.21"), ("1.25.5", "1.25"), ("", "installed")] {
        let ways: [(&str, &[&str], bool, &str); 6] = [
            ("pie", &["-buildmode=pie"], false, PROGRAM),
            ("c", &[], true, &with_c),
            ("c-pie", &["-buildmode=pie"], true, &with_c),
            ("c-static", &["-ldflags=-linkmode external -extldflags -static"], true, &with_c),
            ("external", &["-ldflags=-linkmode=external"], true, PROGRAM),
            ("external-pie", &["-buildmode=pie", "-ldflags=-linkmode=external"], true, PROGRAM),
        ];
        for (way, arguments, cgo, program) in ways {
            let name = format!("{short}-{way}");
            let plain = build(release, &name, arguments, cgo, program)?;
            let symbols = symbols(&plain)?;
            check_functions(&name, &plain, &symbols).with_context(|| name.clone())?;
            Runtime::of(&Binary::open(&plain)?)?;
            // What `strip` leaves, and what remains when even the section headers are gone.
            let bare = plain.with_file_name("bare");
            let strip = Command::new(paths::need("strip")?).arg("-o").arg(&bare).arg(&plain).status()?;
            ensure!(strip.success(), "strip {name}");
            check_functions(&format!("{name} stripped"), &bare, &symbols)?;
            let mut bytes = fs::read(&bare)?;
            for (at, len) in [(40, 8), (58, 2), (60, 2), (62, 2)] {
                bytes.get_mut(at..at + len).context("a short file")?.fill(0);
            }
            let headless = plain.with_file_name("headless");
            fs::write(&headless, bytes)?;
            let headless_name = format!("{name} without section headers");
            check_functions(&headless_name, &headless, &symbols).context(headless_name)?;
        }
        println!("    {short}: movable, with C, static, linked by another linker; each also stripped");
    }
    Ok(())
}
