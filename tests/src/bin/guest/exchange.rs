//! Requests and their spans. In: nginx before a Python server, and the exerciser. Out: a row for each family of sockets, and
//! for what only some planes can see.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use spanwise_tests::agent::{Agent, Report};
use spanwise_tests::apps::{App, Kind, Setup};
use spanwise_tests::load::Connection;
use spanwise_tests::paths;
use spanwise_tests::proc::Proc;
use spanwise_tests::spans::{Kind as Span, Spans};

use crate::{Row, State};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The servers that are traced, on one plane after the other: their connection is older than all agents but the first.
pub(crate) struct Apps {
    pub(crate) nginx: App,
    python: Proc,
}

/// What makes all other exchanges, once.
pub(crate) struct Exerciser(Proc);

/// What the exerciser did: by path, the sizes of the bodies of request and response; and what it could not.
#[derive(Default, Debug)]
pub(crate) struct Made {
    exchanges: BTreeMap<String, (u64, u64)>,
    skipped: Vec<String>,
}

impl Apps {
    /// Starts all and waits until they are ready.
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let port = paths::free_port()?;
        // Debian's own Python: the script needs nothing from PyPI.
        let mut python = Command::new(paths::need("python3")?);
        python.arg(paths::app("threaded.py")).arg(port.to_string());
        let mut python = Proc::start("python", &mut python, dir)?;
        python.wait_line("ready", PATIENCE)?;
        let mut nginx = Setup::new(Kind::Nginx, dir);
        nginx.downstream = Some(format!("127.0.0.1:{port}"));
        Ok(Self { nginx: nginx.start()?, python })
    }

    /// All processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids = self.nginx.pids();
        pids.push(self.python.pid());
        pids
    }
}

impl Exerciser {
    /// Starts it; it waits.
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let mut command = Command::new(paths::exerciser()?);
        let mut own = Proc::start("exerciser", command.env("SPANWISE_KEEP_STDIN", "1"), dir)?;
        own.wait_line("ready", PATIENCE)?;
        Ok(Self(own))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Lets it do all that it can.
    pub(crate) fn go(&mut self) -> Result<Made> {
        self.0.stdin().context("the exerciser has no standard input")?.write_all(b"go\n")?;
        self.0.wait_line("done", PATIENCE)?;
        // A transfer is told when its call returns, which may be after the other side has gone on.
        std::thread::sleep(Duration::from_secs(1));
        Made::read(&self.0.stdout())
    }
}

impl Made {
    fn read(text: &str) -> Result<Self> {
        let mut made = Self::default();
        for line in text.lines().filter(|line| line.starts_with('{')) {
            let value: Value = serde_json::from_str(line)?;
            if let Some(why) = value.get("skipped").and_then(Value::as_str) {
                made.skipped.push(why.to_owned());
                continue;
            }
            let number = |key: &str| value.get(key).and_then(Value::as_u64).context("a size is missing");
            let path = value.get("path").and_then(Value::as_str).context("a path is missing")?;
            made.exchanges.insert(path.to_owned(), (number("request")?, number("response")?));
        }
        ensure!(made.exchanges.len() > 100, "the exerciser made only {} exchanges", made.exchanges.len());
        Ok(made)
    }
}

/// A request through nginx to Python; the time from the agent's start to the span, without the time in between that was ours.
///
/// Hooks at the return of a function do not see calls that began before them: Python waits in one, on the connection that nginx
/// keeps to it. A first request wakes it, and does not count.
pub(crate) fn first_span(apps: &Apps, agent: &Agent, ready: Duration) -> Result<String> {
    let begin = Instant::now();
    for path in ["/work/6", "/work/7"] {
        let response = Connection::open(&apps.nginx.target())?.request("GET", path, b"")?;
        ensure!(response.status == 200 && response.body == b"ok\n", "nginx answered {response:?}");
    }
    agent.wait_spans(1, PATIENCE, |spans| spans.of(Span::Server).count())?;
    Ok(format!("{} ms", (ready + begin.elapsed()).as_millis()))
}

/// The request to nginx gives three spans: nginx's two, and Python's under the second by the connection they share.
pub(crate) fn chain(report: &Report) -> Result<String> {
    let spans = &report.spans;
    let python = spans
        .at(Span::Server, "threaded")
        .find(|span| span.path() == "/work/7")
        .with_context(|| format!("no span of Python:\n{}", spans.sample()))?;
    let call = spans.parent(python).context("Python's span has no parent")?;
    ensure!(
        call.kind == Span::Client && call.service() == "nginx" && python.source() == "peer",
        "Python's span is under {:?} of {} by {}",
        call.kind,
        call.service(),
        python.source()
    );
    ensure!(spans.at(Span::Server, "nginx").any(|span| span.path() == "/work/7"), "nginx has no server span");
    for span in [python, call] {
        ensure!(
            span.get("http.request.method") == Some("GET")
                && span.number("http.response.status_code") == Some(200)
                && span.path() == "/work/7",
            "wrong span: {span:?}"
        );
    }
    report.stats.check_balance()?;
    Ok(String::new())
}

/// A feature that a row is made of: its name, and whether an exchange with this path is of it.
type Feature = (&'static str, fn(&str) -> bool);

const FEATURES: [Feature; 6] = [
    ("TCP over IPv4", |path| plain(path) && path.contains("tcp4")),
    ("TCP over IPv6", |path| plain(path) && (path.contains("tcp6") || path.contains("mapped"))),
    ("unix sockets", |path| plain(path) && path.contains("unix")),
    ("message vectors", |path| path.starts_with("/case/sendmmsg-")),
    ("splice", |path| path.starts_with("/case/splice-")),
    ("io_uring", |path| path.starts_with("/case/uring-")),
];

/// What every plane must see.
fn plain(path: &str) -> bool {
    !["/case/sendmmsg-", "/case/splice-", "/case/uring-"].iter().any(|special| path.starts_with(special))
}

/// Whether the README says that the plane does not see it.
fn may_be_unseen(plane: &str, path: &str) -> bool {
    match plane {
        "syscall" => path.contains("/uring-") || path.contains("/sendmmsg-"),
        "sock" => path == "/case/splice-unix",
        // A plane that is not known here says it by not showing it, as long as it is nothing plain.
        _ => !plain(path),
    }
}

/// A row for each feature. An exchange is judged by the try that shows it best.
pub(crate) fn rows(plane: &str, made: &Made, tries: &[Report]) -> Vec<Row> {
    let tries: Vec<&Spans> = tries.iter().map(|report| &report.spans).collect();
    FEATURES.iter().map(|(name, belongs)| row(name, belongs, plane, made, &tries)).collect()
}

fn row(name: &'static str, belongs: &fn(&str) -> bool, plane: &str, made: &Made, tries: &[&Spans]) -> Row {
    let paths: Vec<_> = made.exchanges.iter().filter(|(path, _)| belongs(path)).collect();
    if paths.is_empty() {
        let why = made.skipped.first().map_or("not exercised", String::as_str);
        return Row::new(name, if name == "io_uring" { State::Gap } else { State::Fault }, why);
    }
    let mut faults = Vec::new();
    let mut unseen = Vec::new();
    for (path, sizes) in &paths {
        let mut wrong = None;
        let seen = tries.iter().any(|spans| {
            wrong = exchange(path, **sizes, spans).err();
            wrong.is_none()
        });
        match wrong {
            _ if seen => {}
            Some(error) if !may_be_unseen(plane, path) => faults.push(format!("{path}: {error}")),
            _ => unseen.push(*path),
        }
    }
    if !faults.is_empty() {
        let shown = faults.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
        return Row::new(name, State::Fault, format!("{} of {}: {shown}", faults.len(), paths.len()));
    }
    if unseen.len() == paths.len() {
        return Row::new(name, State::Gap, "not seen on this plane");
    }
    if !unseen.is_empty() {
        let families: Vec<&str> = unseen.iter().filter_map(|path| path.rsplit('-').next()).collect();
        return Row::new(name, State::Gap, format!("not seen on this plane over {}", families.join(", ")));
    }
    Row::new(name, State::Ok, "")
}

/// An exchange has one server span and one client span, with its sizes, the one under the other.
fn exchange(path: &str, sizes: (u64, u64), spans: &Spans) -> Result<()> {
    for kind in [Span::Server, Span::Client] {
        let found: Vec<_> = spans.of(kind).filter(|span| span.path() == path).collect();
        let [span] = found.as_slice() else { anyhow::bail!("{} {kind:?} spans", found.len()) };
        let size = |key: &str| span.number(key).unwrap_or(0);
        let seen = (size("http.request.body.size"), size("http.response.body.size"));
        ensure!(seen == sizes, "{kind:?} span with sizes {seen:?}, not {sizes:?}");
        ensure!(span.get("http.request.method") == Some("POST"), "{kind:?} span with another method");
        ensure!(span.number("http.response.status_code") == Some(200), "{kind:?} span with another status");
        if kind == Span::Server {
            let parent = spans.parent(span).context("the server span has no parent")?;
            ensure!(
                parent.kind == Span::Client && parent.path() == path,
                "the server span has a wrong parent"
            );
            ensure!(span.source() == "peer", "the parent was found by `{}`", span.source());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: u8, id: u64, parent: u64, path: &str) -> String {
        let parent = if parent == 0 { String::new() } else { format!("{parent:016x}") };
        let text = |key: &str, value: &str| serde_json::json!({"key": key, "value": {"stringValue": value}});
        let span = serde_json::json!({
            "traceId": format!("{:032x}", 7), "spanId": format!("{id:016x}"), "parentSpanId": parent, "name": "POST",
            "kind": kind, "startTimeUnixNano": "1", "endTimeUnixNano": "2",
            "attributes": [
                text("url.path", path), text("http.request.method", "POST"), text("http.response.status_code", "200"),
                text("http.request.body.size", "3"), text("http.response.body.size", "5"),
                text("spanwise.parent.source", "peer"),
            ],
        });
        serde_json::json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).to_string() + "\n"
    }

    fn made(paths: &[&str]) -> Made {
        let exchanges = paths.iter().map(|path| ((*path).to_owned(), (3, 5))).collect();
        Made { exchanges, skipped: vec!["io_uring: refused".into()] }
    }

    fn judged(plane: &str, feature: &str, paths: &[&str], seen: &str) -> (State, String) {
        let spans = Spans::parse(&(line(3, 1, 0, seen) + &line(2, 2, 1, seen))).unwrap();
        let (name, belongs) = FEATURES.iter().find(|(name, _)| *name == feature).unwrap();
        let row = row(name, belongs, plane, &made(paths), &[&Spans::default(), &spans]);
        (row.state, row.note)
    }

    #[test]
    fn what_is_plain_must_be_seen() {
        let paths = ["/case/write-tcp4", "/case/splice-unix", "/case/uring-tcp4"];
        assert_eq!(judged("new", "TCP over IPv4", &paths, "/case/write-tcp4").0, State::Ok);
        assert_eq!(judged("new", "TCP over IPv4", &paths, "/case/other").0, State::Fault);
        assert_eq!(
            judged("new", "TCP over IPv6", &paths, "/case/write-tcp4").0,
            State::Fault,
            "not exercised"
        );
    }

    #[test]
    fn what_a_plane_cannot_see_is_a_gap_only_there() {
        let paths = ["/case/uring-tcp4", "/case/splice-unix", "/case/splice-tcp4"];
        assert_eq!(judged("syscall", "io_uring", &paths, "/").0, State::Gap);
        assert_eq!(judged("sock", "io_uring", &paths, "/").0, State::Fault);
        let (state, note) = judged("sock", "splice", &paths, "/case/splice-tcp4");
        assert_eq!((state, note.as_str()), (State::Gap, "not seen on this plane over unix"));
        assert_eq!(judged("sock", "splice", &paths, "/case/splice-unix").0, State::Fault);
        let (state, note) = judged("sock", "io_uring", &["/case/write-tcp4"], "/");
        assert_eq!((state, note.as_str()), (State::Gap, "io_uring: refused"));
    }
}
