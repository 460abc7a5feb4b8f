//! Bad surroundings. In: mount, process id and user namespaces, a memory cgroup and limits of the test's own that spoil one thing
//! each. Out: spans all the same, or one sentence that names the thing, and the right exit code.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::bad_input::complaint;
use super::privileges::{Server, as_user, copy, ten_spans};
use super::until;
use crate::agent::{Agent, Options, once, once_under};
use crate::apps::{Kind, Setup};
use crate::cleanup::Undo;
use crate::paths;
use crate::proc::Proc;
use crate::runner::{Case, Context, skip};
use crate::sink::Sink;

pub(super) const CASES: &[Case] = &[
    Case { name: "environment/btf", seconds: 30, run: btf },
    Case { name: "environment/no_tracefs_no_bpffs", seconds: 60, run: no_tracefs_no_bpffs },
    Case { name: "environment/lockdown_in_doctor", seconds: 30, run: lockdown_in_doctor },
    Case { name: "environment/hazards_in_doctor", seconds: 30, run: hazards_in_doctor },
    Case { name: "environment/memory_limit", seconds: 60, run: memory_limit },
    Case { name: "environment/one_cpu", seconds: 60, run: one_cpu },
    Case { name: "environment/few_files", seconds: 60, run: few_files },
    Case { name: "environment/full_stderr", seconds: 60, run: full_stderr },
    Case { name: "environment/read_only", seconds: 60, run: read_only },
    Case { name: "environment/no_proc", seconds: 30, run: no_proc },
    Case { name: "environment/hidepid", seconds: 60, run: hidepid },
    Case { name: "environment/pid_namespace", seconds: 30, run: pid_namespace },
    Case { name: "environment/pid_namespace_host_proc", seconds: 60, run: pid_namespace_host_proc },
    Case { name: "environment/user_namespace", seconds: 30, run: user_namespace },
    Case { name: "environment/narrow", seconds: 30, run: narrow },
    Case { name: "environment/not_covered", seconds: 60, run: not_covered },
];

/// Not the agent's user.
const SERVER: u32 = 65_533;
const AGENT: u32 = 65_534;

/// A command that changes the mounts of a namespace of its own and then becomes another.
fn mounts(script: &str) -> Vec<String> {
    let script = format!("set -e; {script}; exec \"$@\"");
    ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"].map(str::to_owned).into()
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

/// Runs the agent on a process, in these surroundings, and expects a complaint.
fn refused(context: &Context, command: &[String], pid: u32, code: i32, word: &str) -> Result<()> {
    let pid = pid.to_string();
    let arguments = ["attach", "--pid", &pid, "--exporter", "none", "--duration", "1s"];
    let (found, _, stderr) =
        once_under(&context.dir, command, &copy(context)?, &arguments, Duration::from_secs(10))?;
    complaint(found, &stderr, &[code], word)
}

/// Runs the agent on a server, in these surroundings, and expects spans.
fn works(context: &Context, command: &[String]) -> Result<()> {
    let server = Server::start(&context.dir, SERVER)?;
    let options = Options::default().program(&copy(context)?).under(&words(command));
    let agent = Agent::attach(&context.dir, &[server.proc.pid()], &options)?;
    ten_spans(agent, &server).map(drop)
}

/// What `doctor --json` says in these surroundings.
fn doctor(context: &Context, command: &[String]) -> Result<Value> {
    let (code, stdout, stderr) =
        once_under(&context.dir, command, &copy(context)?, &["doctor", "--json"], Duration::from_secs(10))?;
    ensure!(code == Some(0), "doctor ended with {code:?}:\n{stderr}");
    serde_json::from_str(&stdout).with_context(|| stdout.clone())
}

fn finding<'a>(report: &'a Value, key: &str) -> Result<&'a Value> {
    let all = report.get("findings").and_then(Value::as_array).context("no findings")?;
    all.iter()
        .find(|one| one.get("key").and_then(Value::as_str) == Some(key))
        .with_context(|| format!("doctor does not name {key}"))
}

fn text<'a>(finding: &'a Value, key: &str) -> &'a str {
    finding.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// An empty file over the kernel's types.
fn btf(context: &Context) -> Result<()> {
    let empty = context.dir.join("empty");
    fs::write(&empty, "")?;
    let command = mounts(&format!("mount --bind {} /sys/kernel/btf/vmlinux", empty.display()));
    refused(context, &command, std::process::id(), 3, "type information")?;
    let report = doctor(context, &command)?;
    ensure!(text(finding(&report, "btf")?, "status") == "missing", "{report:#}");
    ensure!(report.get("works") == Some(&Value::Bool(false)), "{report:#}");
    Ok(())
}

/// Neither is needed.
fn no_tracefs_no_bpffs(context: &Context) -> Result<()> {
    let hide = ["/sys/kernel/tracing", "/sys/kernel/debug", "/sys/fs/bpf"]
        .map(|path| format!("if [ -d {path} ]; then mount -t tmpfs none {path}; fi"))
        .join("; ");
    works(context, &mounts(&hide))
}

/// The mode as the kernel would show it. That a kernel in this mode refuses the programs, no test can show without one.
fn lockdown_in_doctor(context: &Context) -> Result<()> {
    if !Path::new("/sys/kernel/security").is_dir() {
        return skip("this kernel has no securityfs");
    }
    for (mode, status) in
        [("none integrity [confidentiality]", "missing"), ("none [integrity] confidentiality", "ok")]
    {
        let command = mounts(&format!(
            "mount -t tmpfs none /sys/kernel/security; echo '{mode}' > /sys/kernel/security/lockdown"
        ));
        let report = doctor(context, &command)?;
        let lockdown = finding(&report, "lockdown")?;
        ensure!(text(lockdown, "status") == status, "{lockdown:#}");
        ensure!(report.get("works") == Some(&Value::Bool(status == "ok")), "{report:#}");
        let writing = finding(&report, "hazard.user_memory_write")?;
        ensure!(text(writing, "status") == "refused", "{writing:#}");
    }
    Ok(())
}

/// The rows of docs/hazards.md.
const HAZARDS: [&str; 8] = [
    "hazard.kernel_memory",
    "hazard.user_memory_write",
    "hazard.sockmap",
    "hazard.uretprobe_seccomp",
    "hazard.uprobe_nop5",
    "hazard.uprobe_multi_pid",
    "hazard.trampoline",
    "hazard.perf_event",
];

/// Each row is there, in both forms and in the document, and says why and what to do where it refuses.
fn hazards_in_doctor(context: &Context) -> Result<()> {
    let report = doctor(context, &[])?;
    let (_, shown, _) = once(&context.dir, &["doctor"], Duration::from_secs(10))?;
    let document = fs::read_to_string(paths::root().join("docs/hazards.md"))?;
    for key in HAZARDS {
        let row = finding(&report, key)?;
        let (status, sentence, todo) = (text(row, "status"), text(row, "sentence"), text(row, "todo"));
        println!("    {key}: {status}");
        ensure!(status == "ok" || (status == "refused" && !todo.is_empty()), "{row:#}");
        ensure!(!sentence.is_empty() && shown.contains(sentence), "not in the text: {row:#}");
        ensure!(document.contains(&format!("`{key}`")), "docs/hazards.md does not have {key}");
        // As root every trial gives an answer.
        ensure!(!sentence.contains("not tried") && !sentence.contains("could not be tried"), "{row:#}");
    }
    Ok(())
}

/// A memory cgroup below that of this process.
struct Memory {
    path: PathBuf,
    _undo: Undo,
}

impl Memory {
    fn new(bytes: u64) -> Result<Option<Self>> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let below = |root: &str, path: &str| PathBuf::from(format!("{root}{}", path.trim_end_matches('/')));
        let first = own.lines().find_map(|line| line.split_once(":memory:")).map(|(_, path)| path);
        let (parent, limit) = match first {
            Some(path) => (below("/sys/fs/cgroup/memory", path), "memory.limit_in_bytes"),
            None => {
                let path = own.lines().find_map(|line| line.strip_prefix("0::")).context("no cgroup")?;
                (below("/sys/fs/cgroup", path), "memory.max")
            }
        };
        let path = parent.join(format!("spanwise-e2e-{}", std::process::id()));
        if fs::create_dir(&path).is_err() {
            return Ok(None);
        }
        let gone = path.clone();
        let undo = Undo::new(move || {
            // The kernel needs a moment after the last process of it has ended.
            let removed = until(Duration::from_secs(2), "removing", || fs::remove_dir(&gone).is_ok());
            if removed.is_err() {
                eprintln!("cannot remove the cgroup {}", gone.display());
            }
        });
        let this = Self { path, _undo: undo };
        Ok(fs::write(this.path.join(limit), bytes.to_string()).is_ok().then_some(this))
    }
}

/// Maps count against the agent's cgroup: one that is too small is named, whether the kernel refuses a map or the program.
fn memory_limit(context: &Context) -> Result<()> {
    let Some(memory) = Memory::new(12 << 20)? else {
        return skip("no memory cgroup can be made below this one");
    };
    let script = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", memory.path.display());
    let command: Vec<String> = ["sh", "-c", &script, "sh"].map(str::to_owned).into();
    refused(context, &command, std::process::id(), 3, "memory limit")
}

/// Per-CPU counters are summed over every CPU, although the agent may use one.
fn one_cpu(context: &Context) -> Result<()> {
    works(context, &["taskset", "--cpu-list", "0"].map(str::to_owned))
}

/// The fewest that it needs, and one sentence with fewer.
fn few_files(context: &Context) -> Result<()> {
    let limited = |count: u32| -> Vec<String> { vec!["prlimit".into(), format!("--nofile={count}:{count}")] };
    works(context, &limited(256))?;
    refused(context, &limited(8), std::process::id(), 3, "ulimit -n")
}

/// What the agent says can't be written anywhere, as on a full disk: it goes on.
fn full_stderr(context: &Context) -> Result<()> {
    let command = ["sh", "-c", "SPANWISE_LOG=debug exec \"$@\" 2>/dev/full", "sh"].map(str::to_owned);
    works(context, &command)
}

/// Everything read-only: spans go to the network, a file is refused.
fn read_only(context: &Context) -> Result<()> {
    let server = Server::start(&context.dir, SERVER)?;
    let everything = "while read -r _ path _; do mount -o remount,bind,ro \"$path\" 2>/dev/null || true; done < /proc/self/mounts";
    let command = mounts(everything);
    let program = copy(context)?;
    let pid = server.proc.pid().to_string();
    let file = context.dir.join("traces.jsonl");
    let path = file.to_string_lossy();
    let arguments = ["attach", "--pid", &pid, "--file", &path, "--duration", "1s"];
    let (code, _, stderr) =
        once_under(&context.dir, &command, &program, &arguments, Duration::from_secs(10))?;
    complaint(code, &stderr, &[2], "Read-only file system")?;

    let sink = Sink::start()?;
    let (first, rest) = command.split_first().context("no command")?;
    let mut agent = Command::new(first);
    agent.args(rest).arg(&program);
    agent.args(["attach", "--pid", &pid, "--duration", "6s", "--endpoint", &sink.endpoint()]);
    crate::agent::clean_environment(&mut agent);
    let mut agent = Proc::start("spanwise", &mut agent, &context.dir)?;
    // No ready file can be written, so it is asked until it answers.
    until(Duration::from_secs(5), "a span", || server.ask(1).is_ok() && sink.spans() > 0)
        .with_context(|| agent.tail())?;
    agent.signal(libc::SIGTERM)?;
    ensure!(agent.wait(Duration::from_secs(5))?.code() == Some(0), "{}", agent.tail());
    Ok(())
}

fn no_proc(context: &Context) -> Result<()> {
    refused(context, &mounts("mount -t tmpfs none /proc"), std::process::id(), 3, "/proc is not mounted")
}

/// Processes of others are hidden from an agent that may not look at them.
fn hidepid(context: &Context) -> Result<()> {
    let server = Server::start(&context.dir, SERVER)?;
    let hide = mounts("mount -t proc -o hidepid=2 proc /proc");
    let with = |capabilities: &[&str]| [hide.clone(), as_user(AGENT, capabilities)].concat();
    refused(context, &with(&["bpf", "perfmon"]), server.proc.pid(), 3, "hidepid")?;
    drop(server);
    works(context, &with(&["bpf", "perfmon", "sys_ptrace", "dac_read_search"]))
}

fn pid_namespace(context: &Context) -> Result<()> {
    let command = ["unshare", "--pid", "--fork", "--mount-proc"].map(str::to_owned);
    refused(context, &command, 1, 3, "mean something else")?;
    let report = doctor(context, &command)?;
    ensure!(text(finding(&report, "pid_namespace")?, "status") == "missing", "{report:#}");
    Ok(())
}

/// Its own ids are others, but `/proc` shows the host's: attaching works, starting a program is refused.
fn pid_namespace_host_proc(context: &Context) -> Result<()> {
    let command = ["unshare", "--pid", "--fork", "--kill-child=SIGTERM"].map(str::to_owned);
    let program = copy(context)?;
    let (code, _, stderr) =
        once_under(&context.dir, &command, &program, &["run", "--", "true"], Duration::from_secs(10))?;
    complaint(code, &stderr, &[3], "spanwise attach")?;
    let server = Server::start(&context.dir, SERVER)?;
    // The signal of the harness would end `unshare`, not the agent: it ends by itself.
    let options = Options::default().program(&program).under(&words(&command)).arg(&["--duration", "2s"]);
    let agent = Agent::attach(&context.dir, &[server.proc.pid()], &options)?;
    server.ask(10)?;
    let report = agent.finish(Duration::from_secs(10))?;
    let found = report.spans.of(crate::spans::Kind::Server).count();
    ensure!(found == 10, "{found} server spans of 10\n{}", report.stats.table());
    Ok(())
}

fn user_namespace(context: &Context) -> Result<()> {
    let command = ["unshare", "--user", "--map-root-user"].map(str::to_owned);
    refused(context, &command, std::process::id(), 3, "user namespace")
}

/// A 32-bit program that only waits: `pause` in a loop.
fn narrow_program() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const CODE: [u8; 9] = [0xb8, 0x1d, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7];
    const HEADERS: u32 = 52 + 32;
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let halves = |file: &mut Vec<u8>, all: &[u16]| all.iter().for_each(|n| file.extend(n.to_le_bytes()));
    let words = |file: &mut Vec<u8>, all: &[u32]| all.iter().for_each(|n| file.extend(n.to_le_bytes()));
    // An executable for the 386.
    halves(&mut file, &[2, 3]);
    words(&mut file, &[1, BASE + HEADERS, 52, 0, 0]);
    halves(&mut file, &[52, 32, 1, 0, 0, 0]);
    let length = HEADERS + CODE.len() as u32;
    words(&mut file, &[1, 0, BASE, BASE, length, length, 5, 4096]);
    file.extend(CODE);
    file
}

fn narrow(context: &Context) -> Result<()> {
    let path = context.dir.join("narrow");
    fs::write(&path, narrow_program())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let Ok(narrow) = Proc::start("narrow-target", &mut Command::new(&path), &context.dir) else {
        return skip("this kernel runs no 32-bit programs");
    };
    let (code, _, stderr) = once(
        &context.dir,
        &["attach", "--pid", &narrow.pid().to_string(), "--exporter", "none"],
        Duration::from_secs(10),
    )?;
    complaint(code, &stderr, &[2], "32-bit")?;
    complaint(code, &stderr, &[2], "narrow")
}

/// Has a UDP socket on port 443, in a network of its own, and NSS's part for TLS where there is one; says which.
const QUIC: &str = "
import ctypes, socket, time
bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
bound.bind(('0.0.0.0', 443))
try:
    ctypes.CDLL('libssl3.so')
    nss = 'nss'
except OSError:
    nss = ''
print('ready', nss, flush=True)
time.sleep(60)
";

/// What is not captured is said of the process, with the reason and what to do, by `ps` and by `doctor`, as text and as JSON.
fn not_covered(context: &Context) -> Result<()> {
    let mut command = Command::new("unshare");
    command.arg("--net").arg(paths::need("python3")?).args(["-c", QUIC]);
    let mut quic = Proc::start("quic", &mut command, &context.dir)?;
    let said = quic.wait_line("ready", Duration::from_secs(10))?;
    let mut expected = vec![(quic.pid(), "http3")];
    expected.extend(said.ends_with("nss").then_some((quic.pid(), "tls.nss")));
    let java = Kind::Java.available().then(|| Setup::new(Kind::Java, &context.dir).start()).transpose()?;
    expected.extend(java.iter().map(|java| (java.proc.pid(), "tls.java")));
    let limit = Duration::from_secs(20);
    let (_, listed, _) = once(&context.dir, &["ps", "--json"], limit)?;
    let listed: Value = serde_json::from_str(&listed).with_context(|| listed.clone())?;
    let (_, text_of_ps, _) = once(&context.dir, &["ps"], limit)?;
    let report = doctor(context, &[])?;
    let (_, text_of_doctor, _) = once(&context.dir, &["doctor"], limit)?;
    let rows = listed.get("processes").and_then(Value::as_array).context("no processes")?;
    for (pid, key) in expected {
        println!("    {pid}: {key}");
        let row = rows.iter().find(|row| row.get("pid") == Some(&Value::from(pid)));
        let gaps = row.and_then(|row| row.get("not_covered")).and_then(Value::as_array);
        let gap = gaps.into_iter().flatten().find(|gap| text(gap, "key") == key);
        let gap = gap.with_context(|| format!("ps does not say {key} of {pid}: {row:?}"))?;
        let (sentence, todo) = (text(gap, "sentence"), text(gap, "todo"));
        ensure!(!sentence.is_empty() && !todo.is_empty(), "{gap:#}");
        ensure!(text_of_ps.contains(sentence) && text_of_ps.contains(todo), "{key} in:\n{text_of_ps}");
        let finding = finding(&report, key)?;
        ensure!(text(finding, "status") == "limited" && text(finding, "todo") == todo, "{finding:#}");
        ensure!(text_of_doctor.contains(sentence), "{key} in:\n{text_of_doctor}");
    }
    drop(quic);
    let (_, listed, _) = once(&context.dir, &["ps", "--json"], limit)?;
    ensure!(!listed.contains("\"http3\""), "http3 is said of nobody:\n{listed}");
    Ok(())
}
