//! Least privilege. In: an agent that is another user with a few capabilities, or root that gives them up. Out: spans with the
//! documented set, the documented sentence or loss without one of it, nothing left over on any thread once the probes are live,
//! and everything for the program that `run` starts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::bad_input::complaint;
use super::{SETTLE, until};
use crate::agent::{Agent, Options, Report, once_under};
use crate::load::{Connection, Target};
use crate::paths;
use crate::proc::Proc;
use crate::runner::{Case, Context};
use crate::sink::Sink;
use crate::spans::Kind as Span;

pub(super) const CASES: &[Case] = &[
    Case { name: "privileges/other_user", seconds: 60, run: other_user },
    Case { name: "privileges/own_user", seconds: 60, run: own_user },
    Case { name: "privileges/without_bpf", seconds: 30, run: |context| without(context, "bpf", "CAP_BPF;") },
    Case {
        name: "privileges/without_perfmon",
        seconds: 30,
        run: |context| without(context, "perfmon", "CAP_PERFMON;"),
    },
    Case {
        name: "privileges/without_sys_ptrace",
        seconds: 30,
        run: |context| without(context, "sys_ptrace", "CAP_SYS_PTRACE;"),
    },
    Case { name: "privileges/without_dac_read_search", seconds: 60, run: without_dac_read_search },
    Case { name: "privileges/threads", seconds: 60, run: threads },
    Case { name: "privileges/exec_is_followed", seconds: 60, run: exec_is_followed },
    Case { name: "privileges/no_seccomp", seconds: 60, run: no_seccomp },
    Case { name: "privileges/run_gives_all", seconds: 60, run: run_gives_all },
    Case { name: "privileges/run_ends_other_user", seconds: 60, run: run_ends_other_user },
    Case { name: "privileges/names_under_the_filter", seconds: 60, run: names_under_the_filter },
    Case { name: "privileges/tls_under_the_filter", seconds: 60, run: tls_under_the_filter },
];

/// The documented set (docs/privileges.md).
pub(super) const SET: [&str; 4] = ["bpf", "perfmon", "sys_ptrace", "dac_read_search"];
/// Who the agent is, and who its targets are.
const AGENT: u32 = 65_534;
const OTHER: u32 = 65_533;
/// Bits of what is kept, as `/proc` shows them.
const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_NICE: u64 = 1 << 23;
const CHECKPOINT_RESTORE: u64 = 1 << 40;
/// What is kept of all that root has.
const BY_ROOT: u64 = SYS_PTRACE | DAC_READ_SEARCH | SYS_NICE | CHECKPOINT_RESTORE;

/// A command that becomes another as this user with these capabilities and no others.
pub(super) fn as_user(user: u32, capabilities: &[&str]) -> Vec<String> {
    let list: String = ["-all".to_owned()]
        .into_iter()
        .chain(capabilities.iter().map(|name| format!("+{name}")))
        .collect::<Vec<_>>()
        .join(",");
    let user = user.to_string();
    let mut command: Vec<String> =
        ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"].map(str::to_owned).into();
    for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        command.extend([set.to_owned(), list.clone()]);
    }
    command
}

/// A copy of the agent that every user can run, in a folder that every user can write to.
pub(super) fn copy(context: &Context) -> Result<PathBuf> {
    let copy = context.dir.join("spanwise");
    fs::copy(paths::agent()?, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(&context.dir, fs::Permissions::from_mode(0o1777))?;
    Ok(copy)
}

/// A Python that every user can run: one in root's home folder is of no use.
pub(super) fn python() -> Result<PathBuf> {
    let system = PathBuf::from("/usr/bin/python3");
    if system.exists() { Ok(system) } else { paths::need("python3") }
}

/// A server of some user.
pub(super) struct Server {
    pub(super) proc: Proc,
    pub(super) target: Target,
}

impl Server {
    /// Calls itself `named` in its environment.
    pub(super) fn start(dir: &Path, user: u32) -> Result<Self> {
        let port = paths::free_port()?;
        let command = as_user(user, &[]);
        let (first, rest) = command.split_first().context("no command")?;
        let mut server = Command::new(first);
        server.args(rest).arg(python()?);
        server.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory", "/sys/kernel"]);
        server.arg(port.to_string()).env("OTEL_SERVICE_NAME", "named").current_dir("/");
        let proc = Proc::start("server", &mut server, dir)?;
        let target = Target::tcp(port);
        target.wait(Duration::from_secs(20)).with_context(|| proc.tail())?;
        Ok(Self { proc, target })
    }

    /// Makes so many requests, each on a connection of its own (the server speaks HTTP/1.0).
    pub(super) fn ask(&self, count: usize) -> Result<()> {
        for _ in 0..count {
            let response = Connection::open(&self.target)?.request("GET", "/", b"")?;
            ensure!(response.status == 200, "{response:?}");
        }
        Ok(())
    }
}

/// Asks the server, and expects a span for each request and nothing unexplained.
pub(super) fn ten_spans(agent: Agent, server: &Server) -> Result<Report> {
    server.ask(10)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    let found = report.spans.of(Span::Server).count();
    ensure!(found == 10, "{found} server spans of 10\n{}{}", report.stderr, report.stats.table());
    Ok(report)
}

fn names(report: &Report) -> Vec<&str> {
    let mut names: Vec<_> = report.spans.of(Span::Server).map(crate::spans::Span::service).collect();
    names.dedup();
    names
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

fn other_user(context: &Context) -> Result<()> {
    let server = Server::start(&context.dir, OTHER)?;
    let command = as_user(AGENT, &SET);
    let options = Options::default().program(&copy(context)?).under(&words(&command));
    let agent = Agent::attach(&context.dir, &[server.proc.pid()], &options)?;
    let status = fs::read_to_string(format!("/proc/{}/status", agent.proc.pid()))?;
    ensure!(status.contains(&format!("Uid:\t{AGENT}\t{AGENT}")), "the agent is somebody else:\n{status}");
    let report = ten_spans(agent, &server)?;
    ensure!(names(&report) == ["named"], "{:?}\n{}", names(&report), report.stderr);
    ensure!(!report.stderr.contains("CAP_"), "it misses something:\n{}", report.stderr);
    Ok(())
}

/// For processes of the agent's own user two capabilities are enough.
fn own_user(context: &Context) -> Result<()> {
    let server = Server::start(&context.dir, AGENT)?;
    let command = as_user(AGENT, &["bpf", "perfmon"]);
    let options = Options::default().program(&copy(context)?).under(&words(&command));
    let agent = Agent::attach(&context.dir, &[server.proc.pid()], &options)?;
    let report = ten_spans(agent, &server)?;
    ensure!(names(&report) == ["named"], "{:?}\n{}", names(&report), report.stderr);
    ensure!(!report.stderr.contains("CAP_"), "it misses something:\n{}", report.stderr);
    Ok(())
}

fn all_but(name: &str) -> Vec<String> {
    as_user(AGENT, &SET.into_iter().filter(|one| *one != name).collect::<Vec<_>>())
}

fn refused(context: &Context, command: &[String], pid: u32, word: &str) -> Result<()> {
    let pid = pid.to_string();
    let arguments = ["attach", "--pid", &pid, "--exporter", "none", "--duration", "1s"];
    let (code, _, stderr) =
        once_under(&context.dir, command, &copy(context)?, &arguments, Duration::from_secs(10))?;
    complaint(code, &stderr, &[3], word)
}

fn without(context: &Context, name: &str, word: &str) -> Result<()> {
    let server = Server::start(&context.dir, OTHER)?;
    refused(context, &all_but(name), server.proc.pid(), &format!("lacks {word}"))
}

/// Spans come, under the name of the program; what only its user may read is refused.
fn without_dac_read_search(context: &Context) -> Result<()> {
    let server = Server::start(&context.dir, OTHER)?;
    let command = all_but("dac_read_search");
    let options = Options::default().program(&copy(context)?).under(&words(&command));
    let agent = Agent::attach(&context.dir, &[server.proc.pid()], &options)?;
    let report = ten_spans(agent, &server)?;
    ensure!(names(&report) != ["named"], "the environment of another user was read");
    ensure!(
        report.stderr.contains("lacks CAP_DAC_READ_SEARCH") && report.stderr.contains("OTEL_SERVICE_NAME"),
        "it does not say what is lost:\n{}",
        report.stderr
    );
    let hidden = context.dir.join("hidden");
    fs::copy(paths::need("sleep")?, &hidden)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::chown(&hidden, Some(OTHER), Some(OTHER))?;
    let user = as_user(OTHER, &[]);
    let (first, rest) = user.split_first().context("no command")?;
    let hidden = Proc::start("hidden", Command::new(first).args(rest).arg(&hidden).arg("60"), &context.dir)?;
    let exe = format!("/proc/{}/exe", hidden.pid());
    until(Duration::from_secs(5), "the hidden program", || {
        fs::read_link(&exe).is_ok_and(|path| path.ends_with("hidden"))
    })?;
    refused(context, &command, hidden.pid(), "lacks CAP_DAC_READ_SEARCH;")?;
    // With it the same program can be attached to.
    let options = options_with_all(context)?;
    Agent::attach(&context.dir, &[hidden.pid()], &options)?.stop().map(drop)
}

fn options_with_all(context: &Context) -> Result<Options> {
    Ok(Options::default().program(&copy(context)?).under(&words(&as_user(AGENT, &SET))))
}

/// What a thread has: name, permitted and effective capabilities, whether it can gain any, and the filter's mode.
#[derive(Debug)]
struct Task {
    /// It reads the ring and looks at processes, or attaches probes.
    looks: bool,
    permitted: u64,
    effective: u64,
    ambient: u64,
    sealed: bool,
    filtered: bool,
}

fn tasks(pid: u32) -> Result<Vec<Task>> {
    let mut tasks = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        // One that has ended meanwhile has nothing.
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"))
                .with_context(|| format!("no {name}"))
        };
        let bits = |name: &str| -> Result<u64> { Ok(u64::from_str_radix(field(name)?, 16)?) };
        tasks.push(Task {
            looks: entry.file_name().to_str() == Some(&pid.to_string()) || field("Name")? == "instruments",
            permitted: bits("CapPrm")?,
            effective: bits("CapEff")?,
            ambient: bits("CapAmb")?,
            sealed: field("NoNewPrivs")? == "1",
            filtered: field("Seccomp")? == "2",
        });
    }
    Ok(tasks)
}

/// Waits until every thread has given up what it should; gives how many there are.
fn given_up(pid: u32, kept: u64, filtered: bool) -> Result<usize> {
    let is_right = |task: &Task| {
        let kept = if task.looks { kept } else { 0 };
        (task.permitted, task.effective, task.ambient) == (kept, kept, 0)
            && task.sealed
            && task.filtered == filtered
    };
    let done = until(Duration::from_secs(2), "giving up privileges", || {
        tasks(pid).is_ok_and(|tasks| tasks.iter().all(is_right))
    });
    let tasks = tasks(pid)?;
    if let Err(error) = done {
        bail!("{error}: {:#?}", tasks.iter().filter(|task| !is_right(task)).collect::<Vec<_>>());
    }
    Ok(tasks.len())
}

fn threads(context: &Context) -> Result<()> {
    let server = Server::start(&context.dir, OTHER)?;
    let sink = Sink::start()?;
    let options = Options::default().arg(&["--exporter", "console", "--endpoint", &sink.endpoint()]);
    let agent = Agent::attach(&context.dir, &[server.proc.pid()], &options)?;
    let threads = given_up(agent.proc.pid(), BY_ROOT, true)?;
    ensure!(threads >= 5, "{threads} threads: the exporters' are not among them");
    let report = ten_spans(agent, &server)?;
    ensure!(sink.spans() == 10, "{} spans were exported of 10\n{}", sink.spans(), report.stderr);
    ensure!(!report.stderr.contains("privilege"), "{}", report.stderr);
    Ok(())
}

/// A program that a traced process starts after the privileges are gone is looked at all the same: its environment says how it
/// is called.
fn exec_is_followed(context: &Context) -> Result<()> {
    let port = paths::free_port()?;
    let go = context.dir.join("go");
    copy(context)?;
    let command = as_user(OTHER, &[]);
    let (first, rest) = command.split_first().context("no command")?;
    let script = format!(
        "while ! [ -e {go} ]; do sleep 0.05; done; OTEL_SERVICE_NAME=later {python} -m http.server --bind 127.0.0.1 --directory /sys/kernel {port} & wait",
        go = go.display(),
        python = python()?.display()
    );
    let shell =
        Proc::start("shell", Command::new(first).args(rest).args(["sh", "-c", &script]), &context.dir)?;
    let agent = Agent::attach(&context.dir, &[shell.pid()], &Options::default())?;
    given_up(agent.proc.pid(), BY_ROOT, true)?;
    fs::write(&go, "")?;
    let target = Target::tcp(port);
    target.wait(Duration::from_secs(20)).with_context(|| shell.tail())?;
    let response = Connection::open(&target)?.request("GET", "/", b"")?;
    ensure!(response.status == 200, "{response:?}");
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    let found = report.spans.at(Span::Server, "later").filter(|span| span.path() == "/").count();
    ensure!(found == 1, "{found} spans of `later`\n{}{}", report.spans.sample(), report.stats.table());
    Ok(())
}

fn no_seccomp(context: &Context) -> Result<()> {
    let server = Server::start(&context.dir, OTHER)?;
    for options in
        [Options::default().arg(&["--no-seccomp"]), Options::default().env("SPANWISE_NO_SECCOMP", "true")]
    {
        let agent = Agent::attach(&context.dir, &[server.proc.pid()], &options)?;
        given_up(agent.proc.pid(), BY_ROOT, false)?;
        ten_spans(agent, &server)?;
    }
    Ok(())
}

/// The lines of these files that concern privileges and limits.
const FACTS: &str = "grep -hE '^(Cap|NoNewPrivs|Seccomp:|Max (open files|locked memory))' /proc/self/status /proc/self/limits";

/// The program gets what whoever started the agent has, also if that is not everything.
fn run_gives_all(context: &Context) -> Result<()> {
    let program = copy(context)?;
    for command in [Vec::new(), as_user(AGENT, &["bpf", "perfmon", "net_raw"])] {
        let mut bare = match command.split_first() {
            Some((first, rest)) => {
                let mut bare = Command::new(first);
                bare.args(rest).arg("sh");
                bare
            }
            None => Command::new("sh"),
        };
        let expected = crate::proc::capture(bare.args(["-c", FACTS]))?;
        ensure!(expected.lines().count() >= 8, "{expected}");
        let script = format!("sleep 0.3; {FACTS}");
        let options = Options::default().program(&program).under(&words(&command));
        let report =
            Agent::run(&context.dir, &["sh", "-c", &script], &options)?.finish(Duration::from_secs(20))?;
        ensure!(
            report.stdout == expected,
            "the program has\n{}instead of\n{expected}{}",
            report.stdout,
            report.stderr
        );
    }
    Ok(())
}

/// A program that has become another user is still asked to end.
fn run_ends_other_user(context: &Context) -> Result<()> {
    let command = as_user(OTHER, &[]);
    let mut all = words(&command);
    all.extend(["sleep", "47"]);
    let options = Options::default().arg(&["--duration", "700ms"]);
    // Its end would end the whole group: it is looked at before.
    let mut agent = Agent::run(&context.dir, &all, &options)?.proc;
    let group = agent.pids();
    ensure!(group.len() == 2, "the agent and its program are {group:?}");
    agent.wait(Duration::from_secs(10))?;
    let left: Vec<_> = group.iter().filter(|pid| Path::new("/proc").join(pid.to_string()).exists()).collect();
    ensure!(left.is_empty(), "{left:?} of {group:?} run on:\n{}", agent.tail());
    Ok(())
}

/// Host names are looked up after the filter is on, in threads that are made then.
fn names_under_the_filter(context: &Context) -> Result<()> {
    let server = Server::start(&context.dir, OTHER)?;
    let sink = Sink::start()?;
    let endpoint = sink.endpoint().replace("127.0.0.1", "localhost");
    let agent = Agent::attach(
        &context.dir,
        &[server.proc.pid()],
        &Options::default().arg(&["--endpoint", &endpoint]),
    )?;
    given_up(agent.proc.pid(), BY_ROOT, true)?;
    let report = ten_spans(agent, &server)?;
    ensure!(sink.spans() == 10, "{} spans of 10 came\n{}", sink.spans(), report.stderr);
    Ok(())
}

/// Takes OTLP over TLS and says how many bytes came in each request.
const TLS_SERVER: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print("got", len(body), self.path, flush=True)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
"#;

fn tls_under_the_filter(context: &Context) -> Result<()> {
    let Some(openssl) = paths::which("openssl") else {
        return crate::runner::skip("openssl is not installed");
    };
    let (key, certificate) = (context.dir.join("key.pem"), context.dir.join("cert.pem"));
    let mut make = Command::new(openssl);
    make.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]);
    make.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    make.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    crate::proc::capture(make.arg("-keyout").arg(&key).arg("-out").arg(&certificate))?;
    let port = paths::free_port()?;
    let mut command = Command::new(python()?);
    command.args(["-c", TLS_SERVER, &port.to_string()]).arg(&certificate).arg(&key);
    let mut receiver = Proc::start("tls-receiver", &mut command, &context.dir)?;
    receiver.wait_line("ready", Duration::from_secs(10))?;
    let server = Server::start(&context.dir, OTHER)?;
    let endpoint = format!("https://localhost:{port}");
    let options = Options::default()
        .arg(&["--endpoint", &endpoint])
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", &certificate.to_string_lossy());
    let agent = Agent::attach(&context.dir, &[server.proc.pid()], &options)?;
    let report = ten_spans(agent, &server)?;
    receiver.wait_line("got", Duration::from_secs(5)).with_context(|| report.stderr.clone())?;
    ensure!(report.stats.drops() == 0, "spans were lost:\n{}", report.stats.table());
    Ok(())
}
