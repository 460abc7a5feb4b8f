//! `bench --only probes`: what a probe costs by the instruction under it. In: a program with one function for each kind of
//! instruction, and a clock. Out: a table of nanoseconds a hit: the program of the probe alone, and the whole trap, also as a part of
//! what it costs on `cmp`, with which Go's functions begin and where other tracers put theirs; and hits a call while stacks grow.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use spanwise_tests::agent::{Agent, Options};
use spanwise_tests::bpf::{self, Owned};
use spanwise_tests::cleanup;
use spanwise_tests::paths;
use spanwise_tests::proc::capture;
use spanwise_tests::told::{Told, compile, listed, trials};
use spanwise_tests::toolbox;

/// With a `-` the return of the function is hooked, by a trap at its first instruction.
const FUNCTIONS: [&str; 12] = [
    "site_cmp",
    "site_sub",
    "site_mov",
    "site_endbr64",
    "site_ret",
    "site_push",
    "site_nop",
    "site_jcc",
    "site_jmp",
    "site_call",
    "site_push-",
    "site_sub-",
];
const CALLS: u64 = 20_000;
/// Goroutines whose stacks have to grow.
const GROWING: u64 = 1_000;

/// An instruction.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) instruction: String,
    pub(super) class: String,
    pub(super) hits_per_call: f64,
    /// Nanoseconds of the probe's program.
    pub(super) program: f64,
    /// Nanoseconds of everything.
    pub(super) trap: f64,
}

/// What a hit of a probe on such an instruction takes: that of the same kind of instruction, else the dearest of its class.
pub(super) fn trap_of(rows: &[Row], instruction: &str, class: &str) -> Option<f64> {
    let kind = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    let like = rows.iter().find(|row| row.class == class && kind(&row.instruction) == kind(instruction));
    let classed = rows.iter().filter(|row| row.class == class).map(|row| row.trap);
    like.map(|row| row.trap).or_else(|| classed.max_by(f64::total_cmp))
}

/// Prints the table.
pub(super) fn main(rounds: u64) -> Result<Vec<Row>> {
    let folder = tempfile::Builder::new().prefix("spanwise-bench-").tempdir()?;
    cleanup::add_folder(folder.path());
    let built = compile(folder.path(), "sites", "sites.c", &["-O2"])?;
    let mut rows = Vec::new();
    for function in FUNCTIONS {
        let mut told = Told::start(folder.path(), &mut Command::new(&built))?;
        let how = if function.ends_with('-') { "" } else { "+" };
        let wanted = format!("sites:{function}{how}");
        let line = format!("clock {} {CALLS}", function.trim_end_matches('-'));
        let options = Options::default().env("SPANWISE_TEST_PROBES", &wanted);
        let (mut bare, mut probed) = (u64::MAX, u64::MAX);
        let (mut hits, mut program) = (0.0, f64::INFINITY);
        for _ in 0..rounds {
            bare = bare.min(told.tell(&line)?);
            let agent = Agent::attach(folder.path(), &[told.proc.pid()], &options)?;
            probed = probed.min(told.tell(&line)?);
            hits = per(trials(&agent)?.first().map_or(0, |site| site.0), CALLS);
            // Measuring the programs costs something by itself, so it has a turn of its own.
            let measuring = bpf::measure()?;
            let owned = Owned::by(agent.proc.pid())?;
            let before = owned.costs()?.get("up_trial").copied().unwrap_or_default();
            told.tell(&line)?;
            let after = owned.costs()?.get("up_trial").copied().unwrap_or_default();
            drop(measuring);
            program = program.min(per(after.1 - before.1, (after.0 - before.0).max(1)));
            agent.stop()?;
        }
        let (instruction, class) = site(told.proc.pid(), &wanted)?;
        rows.push(Row {
            instruction,
            class,
            hits_per_call: hits,
            program,
            trap: per(probed.saturating_sub(bare), CALLS),
        });
    }
    let first = rows.first().map_or(1.0, |row| row.trap);
    println!(
        "\n{:<20} {:<8} {:>9} {:>11} {:>9} {:>12}",
        "instruction", "class", "hits/call", "program, ns", "trap, ns", "of cmp's"
    );
    for row in &rows {
        let Row { instruction, class, hits_per_call, program, trap } = row;
        println!(
            "{instruction:<20} {class:<8} {hits_per_call:>9.3} {program:>11.0} {trap:>9.0} {:>12.3}",
            trap / first
        );
    }
    ensure!(rows.iter().all(|row| row.hits_per_call == 1.0), "a site is not hit once a call");
    Ok(rows)
}

/// Hits a call of a Go function whose stack has to grow, where we put the probe and at the first instruction: the runtime starts
/// such a function again.
pub(super) fn growth() -> Result<[f64; 2]> {
    let folder = tempfile::Builder::new().prefix("spanwise-bench-").tempdir()?;
    cleanup::add_folder(folder.path());
    let built = folder.path().join("growth");
    let mut build = Command::new(toolbox::go()?);
    build.args(["build", "-buildvcs=false", "-o"]).arg(&built).arg(".");
    capture(build.current_dir(paths::app("probes").join("growth"))).context("cannot build growth")?;
    let hits = |placement: &str| -> Result<f64> {
        let mut told = Told::start(folder.path(), &mut Command::new(&built))?;
        let options = Options::default().env("SPANWISE_TEST_PROBES", "growth:main.large");
        let options = options.env("SPANWISE_PLACEMENT", placement);
        let agent = Agent::attach(folder.path(), &[told.proc.pid()], &options)?;
        told.tell(&GROWING.to_string())?;
        let hits = trials(&agent)?.first().map_or(0, |site| site.0);
        agent.stop()?;
        Ok(per(hits, GROWING))
    };
    let both = [hits("")?, hits("naive")?];
    println!(
        "hits a call of a Go function whose stack has to grow: {:.3}, at its first instruction {:.3}",
        both[0], both[1]
    );
    ensure!(both[0] == 1.0, "a Go function whose stack has to grow is hit {} times a call", both[0]);
    Ok(both)
}

/// What `ps --probes` says of the one site.
fn site(pid: u32, wanted: &str) -> Result<(String, String)> {
    let trial = listed(pid, wanted)?;
    let text = |key: &str| {
        let value = trial.pointer(&format!("/sites/0/{key}")).and_then(Value::as_str);
        value.map(str::to_owned).with_context(|| format!("no site for {wanted}: {trial}"))
    };
    Ok((text("instruction")?, text("class")?))
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a few calls")]
fn per(total: u64, count: u64) -> f64 {
    total as f64 / count as f64
}
