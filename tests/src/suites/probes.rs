//! Probes on user code. In: a small C program (and one in Go) that calls functions when told to. Out: each call of a traced process is
//! seen exactly once, those of others never, whatever was loaded, replaced, deleted or hidden, and nothing is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{privileges, until};
use crate::agent::{Agent, Options, once};
use crate::bpf::Owned;
use crate::proc::capture;
use crate::runner::{Case, Context, skip};
use crate::told::{self, ANSWER, Told, trials};
use crate::{paths, toolbox};

pub(super) const CASES: &[Case] = &[
    Case { name: "probes/hits", seconds: 90, run: |context| hits(context, Kind::Links) },
    Case { name: "probes/hits_by_perf_events", seconds: 90, run: |context| hits(context, Kind::PerfEvents) },
    Case { name: "probes/results", seconds: 60, run: results },
    Case { name: "probes/caught_return", seconds: 60, run: |context| caught_return(context, Kind::Links) },
    Case {
        name: "probes/caught_return_by_perf_events",
        seconds: 60,
        run: |context| caught_return(context, Kind::PerfEvents),
    },
    Case { name: "probes/fork_and_exec", seconds: 60, run: fork_and_exec },
    Case { name: "probes/loaded_late", seconds: 60, run: loaded_late },
    Case { name: "probes/other_mount_namespace", seconds: 60, run: other_mount_namespace },
    Case { name: "probes/deleted", seconds: 60, run: deleted },
    Case { name: "probes/deleted_without_capability", seconds: 60, run: deleted_without_capability },
    Case { name: "probes/few_capabilities", seconds: 60, run: few_capabilities },
    Case { name: "probes/stack_growth", seconds: 120, run: stack_growth },
    Case { name: "probes/hundred", seconds: 60, run: |context| hundred(context, Kind::Links) },
    Case {
        name: "probes/hundred_by_perf_events",
        seconds: 90,
        run: |context| hundred(context, Kind::PerfEvents),
    },
    Case { name: "probes/listed", seconds: 60, run: listed },
    Case { name: "probes/listed_while_probed", seconds: 60, run: listed_while_probed },
];

/// Time to look at a library and attach.
const SEEN: Duration = Duration::from_millis(500);

/// How probes are attached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Links,
    PerfEvents,
}

fn options(kind: Kind, probes: &str) -> Options {
    let options = Options::default().env("SPANWISE_TEST_PROBES", probes);
    match kind {
        Kind::Links => options,
        Kind::PerfEvents => options.env("SPANWISE_FAULT", "helper:uprobe_multi"),
    }
}

fn compile(context: &Context, name: &str, source: &str, flags: &[&str]) -> Result<PathBuf> {
    told::compile(&context.dir, name, source, flags)
}

fn start(context: &Context, program: &Path) -> Result<Told> {
    Told::start(&context.dir, &mut Command::new(program))
}

fn program(context: &Context, name: &str) -> Result<PathBuf> {
    compile(context, name, "program.c", &["-O2"])
}

fn library(context: &Context, name: &str) -> Result<PathBuf> {
    compile(context, name, "library.c", &["-O2", "-fPIC", "-shared"])
}

fn expect(agent: &Agent, site: usize, what: &str, expected: (u64, u64)) -> Result<()> {
    let found = trials(agent)?.get(site).copied().unwrap_or_default();
    ensure!(
        found == expected,
        "{what}: {found:?} hits and their sum, {expected:?} expected\n{}",
        agent.proc.tail()
    );
    Ok(())
}

fn sum(count: u64) -> u64 {
    count * (count + 1) / 2
}

fn hits(context: &Context, kind: Kind) -> Result<()> {
    const CALLS: u64 = 1_000;
    for flags in
        [&["-O2"][..], &["-O0"], &["-O2", "-no-pie"], &["-O2", "-fcf-protection=full"], &["-O2", "-g"]]
    {
        let built = compile(context, "program", "program.c", flags)?;
        let mut traced = start(context, &built)?;
        let mut other = start(context, &built)?;
        let agent = Agent::attach(&context.dir, &traced.proc.pids(), &options(kind, "program:work"))?;
        other.tell("work 500")?;
        traced.tell(&format!("work {CALLS}"))?;
        other.tell("work 500")?;
        expect(&agent, 0, &format!("work of {flags:?}"), (CALLS, sum(CALLS)))?;
        let owned = Owned::by(agent.proc.pid())?;
        let report = agent.stop()?;
        report.stats.check_balance()?;
        let left = owned.links_left()?;
        ensure!(left.is_empty(), "left after the end: {left}");
        // The code is as it was: both work, and no breakpoint is in them.
        ensure!(traced.tell("work 10")? == sum(10) + 70, "the program adds up wrongly");
        for told in [&traced, &other] {
            ensure!(breakpoints(told.proc.pid(), &built)? == 0, "a breakpoint is left in {flags:?}");
        }
    }
    println!("    {CALLS} calls are {CALLS} hits in every build; other processes' calls are none");
    Ok(())
}

/// Bytes of the program's code in memory that differ from its file.
pub(super) fn breakpoints(pid: u32, file: &Path) -> Result<usize> {
    use std::os::unix::fs::FileExt as _;
    let on_disk = fs::read(file)?;
    let memory = fs::File::open(format!("/proc/{pid}/mem"))?;
    let name = file.to_string_lossy();
    let (mut differ, mut looked) = (0, 0);
    for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [range, mode, offset, _, _, path] = fields.as_slice() else { continue };
        if *path != name || !mode.contains('x') {
            continue;
        }
        let (start, end) = range.split_once('-').context("maps")?;
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        let offset = usize::from_str_radix(offset, 16)?;
        let mut code = vec![0; (end - start) as usize];
        memory.read_exact_at(&mut code, start)?;
        looked += code.len();
        differ += code.iter().zip(on_disk.iter().skip(offset)).filter(|(there, here)| there != here).count();
    }
    ensure!(looked > 0, "{name} is not mapped by process {pid}");
    Ok(differ)
}

/// Results of calls are seen where they end, with the caller's argument.
fn results(context: &Context) -> Result<()> {
    let built = program(context, "program")?;
    let mut told = start(context, &built)?;
    let agent = Agent::attach(&context.dir, &told.proc.pids(), &options(Kind::Links, "program:caller>work"))?;
    told.tell("caller 300")?;
    expect(&agent, 0, "results of work in caller", (300, sum(300) + 300 * 7))?;
    agent.stop()?;
    Ok(())
}

/// A return that is caught behind the first instruction, where the return address is on top of the stack still.
fn caught_return(context: &Context, kind: Kind) -> Result<()> {
    let built = compile(context, "sites", "sites.c", &["-O2"])?;
    let mut told = start(context, &built)?;
    let listed = told::listed(told.proc.pid(), "sites:site_marked-")?;
    let of = |key: &str| listed.pointer(&format!("/sites/0/{key}")).and_then(Value::as_str);
    ensure!(of("class") == Some("return"), "{listed:#}");
    ensure!(of("instruction").is_some_and(|text| text.starts_with("push")), "{listed:#}");
    let agent = Agent::attach(&context.dir, &told.proc.pids(), &options(kind, "sites:site_marked-"))?;
    told.tell("clock site_marked 300")?;
    expect(&agent, 0, "results of a marked function", (300, 300 * 7))?;
    agent.stop()?;
    told.tell("clock site_marked 10")?;
    Ok(())
}

fn fork_and_exec(context: &Context) -> Result<()> {
    let built = program(context, "program")?;
    let second = program(context, "second")?;
    let mut told = start(context, &built)?;
    let probes = "program:work,second:work";
    let agent = Agent::attach(&context.dir, &told.proc.pids(), &options(Kind::Links, probes))?;
    told.tell("fork 200")?;
    expect(&agent, 0, "calls of a child", (200, sum(200)))?;
    told.send(&format!("exec {}", second.display()))?;
    until(ANSWER, "another program", || told.proc.stdout().matches("ready").count() == 2)?;
    std::thread::sleep(SEEN);
    told.tell("work 100")?;
    expect(&agent, 1, "calls of the program that the process became", (100, sum(100)))?;
    // The first program is nobody's any more, so its probes go.
    let links = || Owned::by(agent.proc.pid()).map_or(0, |owned| owned.probes());
    until(Duration::from_secs(10), "the first program's probes going", || links() == 1)?;
    agent.stop()?;
    Ok(())
}

fn loaded_late(context: &Context) -> Result<()> {
    let (built, lib) = (program(context, "program")?, library(context, "libtrial_a.so")?);
    let mut told = start(context, &built)?;
    let probes = "libtrial_a:lib_work,libtrial_b:lib_work";
    let agent = Agent::attach(&context.dir, &told.proc.pids(), &options(Kind::Links, probes))?;
    // By now the agent has given up its privileges.
    told.tell(&format!("load {}", lib.display()))?;
    std::thread::sleep(SEEN);
    told.tell("lib 150")?;
    expect(&agent, 0, "a library that was loaded late", (150, sum(150)))?;
    // One that is used at once: a call each millisecond tells when it was found.
    let other = library(context, "libtrial_b.so")?;
    told.tell(&format!("now {} 400", other.display()))?;
    let before = trials(&agent)?.get(1).copied().unwrap_or_default().0;
    println!("    of 400 calls from the moment of loading, a millisecond apart, the last {before} were seen");
    ensure!(before > 0, "the library was not found within 400 calls");
    told.tell(&format!("load {}", other.display()))?;
    told.tell("lib 150")?;
    let after = trials(&agent)?.get(1).copied().unwrap_or_default().0;
    ensure!(after - before == 150, "{} of 150 calls were seen", after - before);
    agent.stop()?;
    Ok(())
}

/// As in a container: a file system that only the program's mount namespace has.
fn other_mount_namespace(context: &Context) -> Result<()> {
    let built = compile(context, "program", "program.c", &["-O2", "-static", "-DNO_LIBRARIES"])?;
    let room = context.dir.join("room");
    fs::create_dir(&room)?;
    let script = format!(
        "mount -t tmpfs tmpfs {room} && mkdir {room}/bin && cp {built} {room}/bin/inside && exec chroot {room} /bin/inside",
        room = room.display(),
        built = built.display()
    );
    let mut command = Command::new(paths::need("unshare")?);
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    let mut told = Told::start(&context.dir, &mut command)?;
    ensure!(!room.join("bin/inside").exists(), "the file system is seen from outside");
    let agent = Agent::attach(&context.dir, &told.proc.pids(), &options(Kind::Links, "inside:work"))?;
    told.tell("work 100")?;
    expect(&agent, 0, "a program in another mount namespace", (100, sum(100)))?;
    agent.stop()?;
    Ok(())
}

fn deleted(context: &Context) -> Result<()> {
    let (built, lib) = (program(context, "program")?, library(context, "libtrial.so")?);
    let mut told = start(context, &built)?;
    told.tell(&format!("load {}", lib.display()))?;
    fs::remove_file(&built)?;
    fs::remove_file(&lib)?;
    // Another file in its place is not taken for it.
    fs::write(&lib, "not a library")?;
    let probes = "program:work,libtrial:lib_work";
    let agent = Agent::attach(&context.dir, &told.proc.pids(), &options(Kind::Links, probes))?;
    told.tell("work 100")?;
    told.tell("lib 50")?;
    expect(&agent, 0, "a program without a name", (100, sum(100)))?;
    expect(&agent, 1, "a library without a name", (50, sum(50)))?;
    agent.stop()?;
    Ok(())
}

/// Without `CAP_CHECKPOINT_RESTORE` a library that was deleted cannot be opened: it is named, and the program has its probes.
fn deleted_without_capability(context: &Context) -> Result<()> {
    let (built, lib) = (program(context, "program")?, library(context, "libtrial.so")?);
    let mut told = start(context, &built)?;
    told.tell(&format!("load {}", lib.display()))?;
    fs::remove_file(&lib)?;
    let user = privileges::as_user(65_534, &privileges::SET);
    let user: Vec<&str> = user.iter().map(String::as_str).collect();
    let copy = privileges::copy(context)?;
    let options = options(Kind::Links, "program:work,libtrial:lib_work").program(&copy).under(&user);
    let agent = Agent::attach(&context.dir, &told.proc.pids(), &options)?;
    told.tell("work 100")?;
    told.tell("lib 50")?;
    expect(&agent, 0, "the program", (100, sum(100)))?;
    let said = agent.stop()?.stderr;
    let sentences = said.lines().filter(|line| line.contains("CAP_CHECKPOINT_RESTORE"));
    let named: Vec<_> = sentences.filter(|line| line.contains("libtrial.so")).collect();
    ensure!(named.len() == 1, "it does not say once what is lost:\n{said}");
    Ok(())
}

/// With the four documented capabilities, also for what is loaded once they have been given up.
fn few_capabilities(context: &Context) -> Result<()> {
    if paths::which("setpriv").is_none() {
        return skip("setpriv is not installed");
    }
    let (built, lib) = (program(context, "program")?, library(context, "libtrial.so")?);
    let mut told = start(context, &built)?;
    let probes = "program:work,libtrial:lib_work";
    let user = privileges::as_user(65_534, &privileges::SET);
    let user: Vec<&str> = user.iter().map(String::as_str).collect();
    let copy = privileges::copy(context)?;
    let options = options(Kind::Links, probes).program(&copy).under(&user);
    let agent = Agent::attach(&context.dir, &told.proc.pids(), &options)?;
    told.tell("work 100")?;
    expect(&agent, 0, "a program of root, watched by a user", (100, sum(100)))?;
    told.tell(&format!("load {}", lib.display()))?;
    std::thread::sleep(SEEN);
    told.tell("lib 50")?;
    expect(&agent, 1, "a library that was loaded after privileges were given up", (50, sum(50)))?;
    agent.stop()?;
    Ok(())
}

/// A Go function that the runtime starts again on a larger stack is hit once.
fn stack_growth(context: &Context) -> Result<()> {
    const GOROUTINES: u64 = 1_000;
    let built = context.dir.join("growth");
    let mut build = Command::new(toolbox::go()?);
    build.arg("build").arg("-o").arg(&built).arg(".").current_dir(paths::app("probes").join("growth"));
    capture(&mut build).context("cannot build tests/apps/probes/growth")?;
    let run = |naive: bool| -> Result<(u64, u64)> {
        let mut told = start(context, &built)?;
        let mut options = options(Kind::Links, "growth:main.large");
        if naive {
            options = options.env("SPANWISE_PLACEMENT", "naive");
        }
        let agent = Agent::attach(&context.dir, &told.proc.pids(), &options)?;
        told.tell(&GOROUTINES.to_string())?;
        let found = trials(&agent)?.first().copied().unwrap_or_default();
        agent.stop()?;
        Ok(found)
    };
    let (placed, naive) = (run(false)?, run(true)?);
    println!(
        "    {GOROUTINES} calls: {} hits where it is placed, {} at the first instruction",
        placed.0, naive.0
    );
    ensure!(placed == (GOROUTINES, sum(GOROUTINES)), "{placed:?}");
    ensure!(naive.0 > GOROUTINES, "no stack had to grow, so this test shows nothing");
    Ok(())
}

/// A hundred probes are there, and gone within a second.
fn hundred(context: &Context, kind: Kind) -> Result<()> {
    let built = program(context, "program")?;
    let mut told = start(context, &built)?;
    let list: Vec<String> = names().map(|name| format!("program:{name}")).collect();
    let mut agent = Agent::attach(&context.dir, &told.proc.pids(), &options(kind, &list.join(",")))?;
    told.tell("many")?;
    let found = trials(&agent)?;
    ensure!(found.iter().take(100).all(|site| *site == (1, 1)), "{:?}", found.get(..100));
    let owned = Owned::by(agent.proc.pid())?;
    let since = Instant::now();
    agent.proc.signal(libc::SIGTERM)?;
    until(Duration::from_secs(20), "100 probes going", || {
        owned.links_left().is_ok_and(|left| left.is_empty())
    })?;
    let took = since.elapsed();
    agent.proc.wait(Duration::from_secs(10))?;
    println!(
        "    100 probes by {} were gone after {} ms",
        if kind == Kind::Links { "one link" } else { "perf events" },
        took.as_millis()
    );
    // The kernel takes perf events away one by one, and waits each time.
    ensure!(kind == Kind::PerfEvents || took < Duration::from_secs(1), "it took {took:?}");
    ensure!(told.tell("work 5")? == sum(5) + 35, "the program adds up wrongly");
    Ok(())
}

/// Names of the hundred functions.
fn names() -> impl Iterator<Item = String> {
    (1..=10).flat_map(|ten| (0..10).map(move |one| format!("f{ten}{one}")))
}

fn listed(context: &Context) -> Result<()> {
    let built = program(context, "program")?;
    let told = start(context, &built)?;
    let trial = told::listed(told.proc.pid(), "program:work,program:nothing")?;
    let of = |pointer: &str| trial.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    ensure!(of("/sites/0/function") == "work" && !of("/sites/0/why").is_empty(), "{trial:#}");
    ensure!(of("/refusals/0") == "nothing: the file names no such function", "{trial:#}");
    ensure!(
        Owned::by(told.proc.pid())?.programs() == 0 && breakpoints(told.proc.pid(), &built)? == 0,
        "something was attached"
    );
    let (code, _, stderr) = once(&context.dir, &["ps", "--probes", "4194304"], ANSWER)?;
    ensure!(code == Some(2) && stderr.contains("there is no process 4194304"), "{code:?} {stderr}");
    Ok(())
}

/// A large file is mapped to be read; the breakpoints of probes that are on it are not taken for its code.
fn listed_while_probed(context: &Context) -> Result<()> {
    const LARGE: u64 = 20 << 20;
    let built = program(context, "program")?;
    fs::OpenOptions::new().write(true).open(&built)?.set_len(LARGE)?;
    let mut told = start(context, &built)?;
    let probes = "program:work,program:caller>work";
    let before = told::listed(told.proc.pid(), probes)?;
    let agent = Agent::attach(&context.dir, &told.proc.pids(), &options(Kind::Links, probes))?;
    told.tell("work 100")?;
    expect(&agent, 0, "a large program", (100, sum(100)))?;
    let probed = told::listed(told.proc.pid(), probes)?;
    ensure!(before == probed, "without probes {before:#}, with them {probed:#}");
    ensure!(before.pointer("/sites/1").is_some(), "{before:#}");
    agent.stop()?;
    Ok(())
}
