//! What the kernel allows the agent. In: a running agent, the servers, a cgroup of version 2, the kernel's lockdown. Out: rows for
//! an agent that may use one processor, one that the kernel kills for want of memory under load, one that is refused memory from the
//! start, and one on a kernel that lets nobody look into it. The last cannot be undone, so it comes last of all.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use spanwise_tests::agent::{Agent, once_under};
use spanwise_tests::load::{Background, Connection, Plan, Until};
use spanwise_tests::memory::{self, Memory};
use spanwise_tests::paths;
use spanwise_tests::proc::capture;
use spanwise_tests::spans::Kind;
use spanwise_tests::traces::{Snapshot, on_process};

use crate::exchange::Apps;
use crate::kernel::release;
use crate::objects::Objects;
use crate::processors::pin;
use crate::{Row, State};

const PATIENCE: Duration = Duration::from_secs(60);
/// Requests a second of the load.
const RATE: f64 = 40.0;
/// Memory that is less than the agent needs to start.
const TOO_LITTLE: u64 = 12 << 20;
const ONE: &str = "cpuset of one processor";
const KILLED: &str = "killed for memory under load";

/// A cgroup with the controllers for memory and processors.
fn group() -> Result<Memory> {
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory +cpuset")
        .context("this kernel has no controllers for memory and processors in cgroups of version 2")?;
    Memory::below_own("spanwise-e2e-guest")
}

/// What becomes of this agent, which traces the servers. `clean` and `before` are from before its start.
pub(crate) fn examine(agent: Agent, before: &Objects, clean: &Snapshot, apps: &Apps) -> Vec<Row> {
    let group = match group() {
        Ok(group) => group,
        Err(error) => {
            return [ONE, KILLED].map(|name| Row::new(name, State::Fault, format!("{error:#}"))).into();
        }
    };
    let one = Row::of(ONE, confined(&agent, &group, apps).map(|()| String::new()));
    let killed = killed(agent, &group, apps).and_then(|good| {
        Objects::wait_gone(before)?;
        let left = clean.left();
        ensure!(left.is_empty(), "left on the machine: {left}");
        println!("killed for memory: {good} requests, none failed");
        Ok(String::new())
    });
    vec![one, Row::of(KILLED, killed)]
}

/// On the second processor alone it sees what is served on both.
fn confined(agent: &Agent, group: &Memory, apps: &Apps) -> Result<()> {
    group.confine("1")?;
    group.take(agent.proc.pid())?;
    let status = fs::read_to_string(format!("/proc/{}/status", agent.proc.pid()))?;
    ensure!(
        status.lines().any(|line| line.starts_with("Cpus_allowed_list:") && line.ends_with("\t1")),
        "the agent may use another processor than the second"
    );
    for processor in ["0", "1"] {
        pin(&apps.pids(), processor)?;
        let path = format!("/static/{processor}");
        let answer = Connection::open(&apps.nginx.target())?.request("GET", &path, b"")?;
        ensure!(answer.status == 404, "nginx answered {answer:?}");
        agent
            .wait_spans(1, PATIENCE, |spans| {
                spans.of(Kind::Server).filter(|span| span.path() == path).count()
            })
            .with_context(|| format!("what is served on processor {processor}"))?;
    }
    pin(&apps.pids(), "0,1")
}

/// The kernel kills it while requests go on, none of which fails. How many there were.
fn killed(mut agent: Agent, group: &Memory, apps: &Apps) -> Result<u64> {
    let mut plan = Plan::new(apps.nginx.target(), 2, Until::Requests(0), "/leaf/{n}");
    plan.rate = Some(RATE);
    let load = Background::start(plan);
    std::thread::sleep(Duration::from_millis(500));
    group.limit(1 << 20)?;
    agent.proc.signal(libc::SIGUSR1)?;
    let status = agent.proc.wait(PATIENCE).context("the agent lives on 1 MiB of memory")?;
    ensure!(memory::was_killed(status), "it ended with {status}:\n{}", agent.proc.tail());
    ensure!(group.kills()? > 0, "it was not the kernel's memory limit that killed it");
    std::thread::sleep(Duration::from_secs(1));
    let outcome = load.finish()?.all_good()?;
    ensure!(outcome.good > 20, "only {} requests were made", outcome.good);
    for pid in apps.pids() {
        let marks = on_process(pid);
        ensure!(marks.is_empty(), "process {pid} of a server: {marks}");
    }
    Ok(outcome.good)
}

/// What is refused from the start.
pub(crate) fn refusals(apps: &Apps, dir: &Path) -> Vec<Row> {
    let mut rows = vec![Row::of("too little memory to start", little(apps, dir))];
    // Later kernels count maps against the cgroup's memory.
    if release().is_ok_and(|release| release.starts_with("5.10.")) {
        rows.push(Row::of("too little locked memory", unlocked(apps, dir)));
    }
    rows.push(lockdown(apps, dir));
    rows
}

/// Maps are refused, and the agent may not raise the limit.
fn unlocked(apps: &Apps, dir: &Path) -> Result<String> {
    let without = ["--bounding-set=-sys_resource", "--inh-caps=-sys_resource"];
    let under = [["prlimit", "--memlock=65536:65536", "setpriv"].as_slice(), &without].concat();
    let under: Vec<String> = under.into_iter().map(str::to_owned).collect();
    let said = sentence(&under, apps, dir, &["locked memory is limited to 65536 bytes"])?;
    println!("too little locked memory: {said}");
    Ok(String::new())
}

fn little(apps: &Apps, dir: &Path) -> Result<String> {
    let group = group()?;
    group.limit(TOO_LITTLE)?;
    let said = sentence(&group.enter(), apps, dir, &["memory limit", "12 MiB"])?;
    println!("too little memory: {said}");
    Ok(String::new())
}

/// An agent that ends at once, with the code for "this machine lacks something" and one sentence with these words.
fn sentence(under: &[String], apps: &Apps, dir: &Path, words: &[&str]) -> Result<String> {
    let pid = apps.nginx.proc.pid().to_string();
    // Of one plane fewer programs are tried.
    let arguments = ["attach", "--pid", &pid, "--plane", "syscall", "--exporter", "none", "--duration", "1s"];
    let before = Objects::now()?;
    let (code, _, said) = once_under(dir, under, &paths::agent()?, &arguments, PATIENCE)?;
    let said = said.trim().trim_start_matches("spanwise: ");
    ensure!(code == Some(3), "it ended with {code:?}: {said}");
    ensure!(words.iter().all(|word| said.contains(word)), "it does not name {}: {said}", words.join(", "));
    ensure!(said.lines().count() == 1, "it is not one sentence: {said}");
    Objects::wait_gone(&before)?;
    Ok(said.to_owned())
}

/// The kernel keeps its memory to itself.
fn lockdown(apps: &Apps, dir: &Path) -> Row {
    const FEATURE: &str = "lockdown=confidentiality";
    const MODE: &str = "/sys/kernel/security/lockdown";
    if !Path::new(MODE).exists() {
        let mount = ["-t", "securityfs", "securityfs", "/sys/kernel/security"];
        drop(capture(Command::new("mount").args(mount)));
    }
    if fs::write(MODE, "confidentiality").is_err() {
        return Row::new(FEATURE, State::Gap, "this kernel was built without lockdown");
    }
    match sentence(&[], apps, dir, &["lockdown", "confidentiality"]) {
        Ok(said) => Row::new(FEATURE, State::Gap, said),
        Err(error) => Row::new(FEATURE, State::Fault, format!("{error:#}")),
    }
}
