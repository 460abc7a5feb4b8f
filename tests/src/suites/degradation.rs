//! What this kernel lacks is taken away in turn. In: faults on purpose at the load boundary (`SPANWISE_FAULT`). Out: one sentence
//! for each, in the log and in `spanwise doctor`, and everything else works; where nothing can work, exit code 3 and why.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::agent::clean_environment;
use crate::paths;
use crate::proc::run;
use crate::runner::{Case, Context, skip};
use crate::spans::{Kind, Spans};

pub(super) const CASES: &[Case] = &[
    Case { name: "degradation/programs", seconds: 120, run: programs },
    Case { name: "degradation/offsets", seconds: 300, run: offsets },
    Case { name: "degradation/programs_on_user_code", seconds: 60, run: programs_on_user_code },
    Case { name: "degradation/helpers", seconds: 60, run: helpers },
    Case { name: "degradation/maps", seconds: 120, run: maps },
    Case { name: "degradation/planes", seconds: 120, run: planes },
    Case { name: "degradation/btf", seconds: 30, run: btf },
    Case { name: "degradation/hazards", seconds: 120, run: hazards },
];

const LIMIT: Duration = Duration::from_secs(60);
/// Of an agent or kernel that lacks what was asked for.
const NOT_POSSIBLE: i32 = 3;

/// One exchange over TCP and one over a unix socket, both ends in one process.
const EXCHANGES: &str = r#"
import socket, time
def exchange(client, server, path):
    client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: here\r\n\r\n")
    server.recv(4096)
    server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    client.recv(4096)
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
exchange(client, listener.accept()[0], b"/tcp")
exchange(*socket.socketpair(), b"/unix")
time.sleep(0.05)
"#;

/// How an agent went that was to trace the exchanges.
struct Outcome {
    code: Option<i32>,
    /// What it said before it began, a sentence a line.
    sentences: Vec<String>,
    stderr: String,
    spans: Spans,
}

impl Outcome {
    fn of(context: &Context, fault: &str, plane: &str) -> Result<Self> {
        Self::of_program(context, fault, plane, EXCHANGES)
    }

    fn of_program(context: &Context, fault: &str, plane: &str, program: &str) -> Result<Self> {
        let file: PathBuf = context.dir.join("spans.jsonl");
        let _ = std::fs::remove_file(&file);
        let mut agent = Command::new(paths::agent()?);
        clean_environment(&mut agent);
        agent.env("SPANWISE_FAULT", fault).current_dir(&context.dir);
        agent.args(["run", "--plane", plane, "--exporter", "file", "--file"]).arg(&file).arg("--");
        agent.arg(paths::need("python3")?).args(["-c", program]);
        let (status, _, stderr) = run("degraded", &mut agent, &context.dir, LIMIT)?;
        ensure!(!stderr.contains("panicked"), "the agent panicked with {fault}:\n{stderr}");
        let sentences =
            stderr.lines().filter_map(|line| line.strip_prefix("spanwise: ")).map(str::to_owned).collect();
        let spans = if file.exists() { Spans::read(&file)? } else { Spans::default() };
        Ok(Self { code: status.code(), sentences, stderr, spans })
    }

    /// Both ends of an exchange are there.
    fn has(&self, path: &str) -> bool {
        [Kind::Server, Kind::Client].iter().all(|kind| self.spans.of(*kind).any(|span| span.path() == path))
    }

    /// The sentences that hold a word.
    fn about(&self, word: &str) -> Vec<&String> {
        self.sentences.iter().filter(|sentence| sentence.contains(word)).collect()
    }

    /// One sentence holds the word, and the exchanges are seen.
    fn goes_on(&self, fault: &str, word: &str) -> Result<()> {
        ensure!(self.code == Some(0), "{fault}: exit code {:?}\n{}", self.code, self.stderr);
        ensure!(self.about(word).len() == 1, "{fault}: not one sentence on {word}:\n{}", self.stderr);
        ensure!(self.has("/tcp") && self.has("/unix"), "{fault}: spans are missing\n{}", self.stderr);
        Ok(())
    }

    /// It ends at once, with one sentence that holds the words.
    fn gives_up(&self, fault: &str, words: &[&str]) -> Result<()> {
        ensure!(self.code == Some(NOT_POSSIBLE), "{fault}: exit code {:?}\n{}", self.code, self.stderr);
        let [sentence] = self.sentences.as_slice() else {
            bail!("{fault}: not one sentence:\n{}", self.stderr);
        };
        for word in words {
            ensure!(sentence.contains(word), "{fault}: the sentence does not say `{word}`: {sentence}");
        }
        Ok(())
    }
}

fn doctor(context: &Context, fault: &str) -> Result<Value> {
    let mut agent = Command::new(paths::agent()?);
    clean_environment(&mut agent);
    agent.args(["doctor", "--json"]).env("SPANWISE_FAULT", fault);
    let (status, said, errors) = run("doctor", &mut agent, &context.dir, LIMIT)?;
    ensure!(status.success(), "doctor failed with {fault}: {errors}");
    serde_json::from_str(&said).with_context(|| format!("doctor said: {said}"))
}

/// What doctor finds wrong, as (status, sentence).
fn wrong(report: &Value) -> Vec<(String, String)> {
    let text =
        |finding: &Value, key: &str| finding.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let findings = report.get("findings").and_then(Value::as_array);
    let all =
        findings.into_iter().flatten().map(|finding| (text(finding, "status"), text(finding, "sentence")));
    all.filter(|(status, _)| status != "ok").collect()
}

/// The usable planes, best first.
fn usable(report: &Value) -> Vec<&'static str> {
    let is = |plane: &&str| report.pointer(&format!("/planes/{plane}")) == Some(&Value::Bool(true));
    ["sock", "fentry", "kprobe", "syscall"].into_iter().filter(is).collect()
}

/// Programs beside the plane's own: only their feature goes.
fn programs(context: &Context) -> Result<()> {
    let whole = Outcome::of(context, "", "auto")?;
    ensure!(
        whole.code == Some(0) && whole.has("/tcp") && whole.has("/unix"),
        "nothing is seen:\n{}",
        whole.stderr
    );
    let report = doctor(context, "")?;
    let best = usable(&report).first().copied().context("no plane can be used")?;
    let loaded = report.get("verified_instructions").and_then(Value::as_object);
    let common = ["proc_fork", "proc_exec", "proc_exit", "tcp_state"];
    let own: &[&str] = match best {
        "sock" => &["tcp_splice", "uring_complete", "uring_result"],
        "fentry" => &["fx_inet6_send", "fx_inet6_recv", "fx_tcp_splice", "fx_unix_splice", "uring_result"],
        _ => &[],
    };
    for name in common.iter().chain(own) {
        // Of two forms of one program a kernel takes one.
        if loaded.is_some_and(|loaded| !loaded.is_empty() && !loaded.contains_key(*name)) {
            continue;
        }
        let fault = format!("program:{name}");
        let outcome = Outcome::of(context, &fault, "auto")?;
        outcome.goes_on(&fault, &format!("program {name} "))?;
        ensure!(
            outcome.sentences.len() == whole.sentences.len() + 1,
            "{fault}: more than one sentence was added:\n{}",
            outcome.stderr
        );
        let report = doctor(context, &fault)?;
        let said =
            wrong(&report).into_iter().filter(|(_, sentence)| sentence.contains(&format!("program {name} ")));
        ensure!(said.count() == 1, "doctor does not say it of {name}: {report:#}");
        ensure!(usable(&report).first() == Some(&best), "{fault} costs the plane");
    }
    Ok(())
}

/// Programs for probes on user code: doctor says each that does not load, and the agent says it of a file that would get one.
fn programs_on_user_code(context: &Context) -> Result<()> {
    let text = std::fs::read_to_string(paths::root().join("common/src/names.rs"))?;
    let quoted = text.lines().filter_map(|line| line.trim().strip_prefix("pub const ")?.split('"').nth(1));
    let names: Vec<&str> = quoted
        .filter(|name| ["tls_", "rustls_", "go_"].iter().any(|start| name.starts_with(start)))
        .collect();
    ensure!(names.len() > 12, "common/src/names.rs does not name the programs any more: {names:?}");
    // No program needs another one, so one at a time shows what all at once do.
    let faults: Vec<String> = names.iter().map(|name| format!("program:{name}")).collect();
    let report = doctor(context, &faults.join(","))?;
    let planes = usable(&report);
    ensure!(!planes.is_empty() && planes == usable(&doctor(context, "")?), "it costs a plane: {planes:?}");
    let said = wrong(&report);
    for name in names {
        let words = format!("program {name} does not load");
        let count = said.iter().filter(|(_, sentence)| sentence.contains(&words)).count();
        ensure!(count == 1, "doctor says of {name} {count} times that it does not load: {said:#?}");
    }
    let secure = format!("import ssl\n{EXCHANGES}time.sleep(1)\n");
    let outcome = Outcome::of_program(context, "program:tls_enter", "auto", &secure)?;
    outcome.goes_on("program:tls_enter", "no probes of openssl are attached: program tls_enter")
}

/// Every kernel member in turn: the sentence tells what is lost, and no more is lost.
fn offsets(context: &Context) -> Result<()> {
    let list = std::fs::read_to_string(paths::root().join("common/src/offsets.rs"))?;
    let globals: Vec<&str> = list
        .lines()
        .filter_map(|line| line.trim().split_once(" = \"").map(|(name, _)| name))
        .filter(|name| name.starts_with("OFF_"))
        .collect();
    ensure!(globals.len() > 30, "the list of offsets is not where it was: {globals:?}");
    let mut given_up = 0;
    for global in &globals {
        let fault = format!("offset:{global}");
        let outcome = Outcome::of(context, &fault, "auto")?;
        let said = outcome.about(" of this kernel has no member ");
        let [sentence] = said.as_slice() else {
            // A member that this kernel lacks anyway has its sentence already.
            bail!("{fault}: not one sentence:\n{}", outcome.stderr);
        };
        if sentence.ends_with("cannot be captured") {
            outcome.gives_up(&fault, &["has no member"])?;
            given_up += 1;
            continue;
        }
        ensure!(outcome.code == Some(0), "{fault}: exit code {:?}\n{}", outcome.code, outcome.stderr);
        let only_unix = sentence.contains("TCP connections are not captured");
        ensure!(outcome.has("/tcp") != only_unix, "{fault}: the TCP exchange\n{}", outcome.stderr);
        ensure!(outcome.has("/unix"), "{fault}: the unix exchange is not seen\n{}", outcome.stderr);
    }
    println!("    {} members, without {given_up} of them nothing can be captured", globals.len());
    Ok(())
}

/// Helpers of newer kernels: the older way gives the same.
fn helpers(context: &Context) -> Result<()> {
    const HELPERS: [&str; 3] = ["bpf_get_socket_cookie", "bpf_skc_to_tcp_sock", "bpf_task_pt_regs"];
    for name in HELPERS {
        let fault = format!("helper:{name}");
        Outcome::of(context, &fault, "auto")?.goes_on(&fault, name)?;
        let report = doctor(context, &fault)?;
        ensure!(
            wrong(&report).iter().any(|(_, sentence)| sentence.contains(name)),
            "doctor does not say {name}"
        );
    }
    // Of programs on user code: what is in clear is seen all the same.
    const COOKIE: &str = "bpf_get_attach_cookie";
    let fault = format!("helper:{COOKIE}");
    Outcome::of(context, &fault, "auto")?.goes_on(&fault, COOKIE)?;
    ensure!(
        wrong(&doctor(context, &fault)?).iter().any(|(_, sentence)| sentence.contains(COOKIE)),
        "doctor does not say {COOKIE}"
    );
    let all = HELPERS.map(|name| format!("helper:{name}")).join(",");
    Outcome::of(context, &all, "auto")?.goes_on(&all, "bpf_task_pt_regs")
}

/// The maps of the BPF object, as docs/memory.md lists them (`governor/maps` holds that against the kernel).
fn all_maps() -> Result<Vec<String>> {
    let text = std::fs::read_to_string(paths::root().join("docs/memory.md"))?;
    let (table, _) = text.split_once("## In the agent").context("docs/memory.md has no two tables")?;
    let names = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    Ok(names.filter(|name| !name.starts_with('.')).map(str::to_owned).collect())
}

/// A map that one feature fills costs that feature; the others are needed by all programs that see transfers.
fn maps(context: &Context) -> Result<()> {
    const NEEDED: [&str; 10] = [
        "EVENTS",
        "CONNS",
        "VERDICTS",
        "PROCS",
        "ENTERED",
        "VECTORS",
        "TRIAL",
        "SCRATCH",
        "GO_LAYOUTS",
        "COUNTERS",
    ];
    let all = all_maps()?;
    ensure!(all.len() > 20 && NEEDED.iter().all(|name| all.iter().any(|one| one == name)), "{all:?}");
    let mut alone = 0;
    for name in &all {
        let fault = format!("map:{name}");
        let outcome = Outcome::of(context, &fault, "auto")?;
        if NEEDED.contains(&name.as_str()) {
            outcome.gives_up(&fault, &[&format!("`{name}`"), "nothing can be captured"])?;
            ensure!(outcome.spans.all.is_empty(), "{fault}: spans without a map");
            continue;
        }
        alone += 1;
        outcome.goes_on(&fault, &format!("map {name} cannot be made"))?;
    }
    for (name, cost) in [("URING", "io_uring"), ("OBJECTS", "what they encrypt is not read")] {
        let words = format!("map {name} cannot be made");
        let said = wrong(&doctor(context, &format!("map:{name}"))?);
        let said: Vec<_> = said.iter().filter(|(_, sentence)| sentence.contains(&words)).collect();
        ensure!(
            said.len() == 1 && said.iter().all(|(_, one)| one.contains(cost)),
            "doctor of {name}: {said:?}"
        );
    }
    println!("    {} maps, {alone} of which cost one feature only", all.len());
    Ok(())
}

/// Every hazard, as if it did harm here: it is refused by its name, and no other is.
fn hazards(context: &Context) -> Result<()> {
    const KEYS: [&str; 7] = [
        "kernel_memory",
        "sockmap",
        "uretprobe_seccomp",
        "uprobe_nop5",
        "uprobe_multi_pid",
        "trampoline",
        "perf_event",
    ];
    let refused = |report: &Value| -> Vec<String> {
        let text =
            |one: &Value, key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let findings = report.get("findings").and_then(Value::as_array).into_iter().flatten();
        findings.filter(|one| text(one, "status") == "refused").map(|one| text(one, "key")).collect()
    };
    let usual = refused(&doctor(context, "")?);
    // No feature needs another one, so two halves show what one after the other would.
    let (some, others) = KEYS.split_at(KEYS.len() / 2);
    for half in [some, others] {
        let faults: Vec<String> = half.iter().map(|key| format!("hazard:{key}")).collect();
        let keys: Vec<String> = half.iter().map(|key| format!("hazard.{key}")).collect();
        let now = refused(&doctor(context, &faults.join(","))?);
        for key in keys.iter().chain(&usual) {
            ensure!(now.contains(key), "{key} is not refused with {faults:?}: {now:?}");
        }
        let more = now.iter().find(|key| !keys.contains(key) && !usual.contains(key));
        ensure!(more.is_none(), "{faults:?} refuses {more:?}, too");
    }
    // What uses such a feature goes without, and says so; the rest works.
    Outcome::of(context, "hazard:trampoline", "fentry")?.gives_up(
        "hazard:trampoline",
        &["plane fentry cannot be used", "hazard.trampoline", "--plane auto"],
    )?;
    let secure = format!("import ssl\n{EXCHANGES}");
    for (fault, key) in [
        ("hazard:uretprobe_seccomp", "hazard.uretprobe_seccomp"),
        ("helper:uprobe_multi,hazard:perf_event", "hazard.perf_event"),
    ] {
        Outcome::of_program(context, fault, "auto", &secure)?.goes_on(fault, key)?;
    }
    Ok(())
}

/// A program of a plane is refused: the next plane takes over, and a plane that was asked for by name is refused by name.
fn planes(context: &Context) -> Result<()> {
    let planes = usable(&doctor(context, "")?);
    let own = |plane: &str| match plane {
        "sock" => "program:sock_recv",
        "fentry" => "program:fx_inet_send",
        "kprobe" => "program:kp_sent",
        _ => "program:sys_exit_io",
    };
    ensure!(!planes.is_empty(), "no plane can be used");
    let mut faults: Vec<&str> = Vec::new();
    for (at, plane) in planes.iter().enumerate() {
        let fault = own(plane);
        Outcome::of(context, fault, plane)?
            .gives_up(fault, &[&format!("plane {plane} cannot be used"), "--plane auto"])?;
        faults.push(fault);
        let all = faults.join(",");
        let report = doctor(context, &all)?;
        let outcome = Outcome::of(context, &all, "auto")?;
        match planes.get(at + 1) {
            Some(next) => {
                ensure!(
                    report.get("best_plane") == Some(&Value::from(*next)),
                    "doctor does not go on to {next}"
                );
                ensure!(
                    outcome.code == Some(0) && outcome.has("/tcp") && outcome.has("/unix"),
                    "{all}: {}",
                    outcome.stderr
                );
            }
            None => {
                ensure!(
                    report.get("works") == Some(&Value::Bool(false)),
                    "doctor says that it works: {report:#}"
                );
                outcome.gives_up(&all, &["nothing can be captured", plane])?;
            }
        }
    }
    if planes.len() == 1 {
        return skip("this kernel can do one plane only");
    }
    Ok(())
}

fn btf(context: &Context) -> Result<()> {
    Outcome::of(context, "btf", "auto")?
        .gives_up("btf", &["nothing can be captured", "CONFIG_DEBUG_INFO_BTF"])?;
    let report = doctor(context, "btf")?;
    ensure!(report.get("works") == Some(&Value::Bool(false)), "doctor says that it works without types");
    let said = wrong(&report).into_iter().any(|(_, sentence)| sentence.contains("/sys/kernel/btf/vmlinux"));
    ensure!(said, "doctor does not say what is missing: {report:#}");
    Ok(())
}
