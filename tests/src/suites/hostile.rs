//! Hostile bytes and hostile programs. In: garbage, endless heads, a protocol that is not HTTP, thousands of short processes.
//! Out: the agent lives, its memory is bounded, everything is counted, and good requests still give their spans.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::SETTLE;
use crate::agent::{Agent, Options};
use crate::apps::{Kind, Setup};
use crate::load::{Plan, Until, body};
use crate::paths;
use crate::proc::Proc;
use crate::runner::{Case, Context};
use crate::spans::Kind as Span;

pub(super) const CASES: &[Case] = &[
    Case { name: "hostile/garbage", seconds: 90, run: garbage },
    Case { name: "hostile/million_headers", seconds: 90, run: million_headers },
    Case { name: "hostile/not_http", seconds: 60, run: not_http },
    Case { name: "hostile/short_processes", seconds: 180, run: short_processes },
];

/// Most memory that the agent may have used, in KiB.
const MEMORY_KIB: u64 = 80 * 1_024;

/// A program that reads everything from each connection, answers now and then, and says what it is told to.
fn sink(context: &Context, mode: &str) -> Result<(Proc, u16)> {
    let port = paths::free_port()?;
    let mut command = Command::new(crate::toolbox::python()?);
    command.arg(paths::app("sink.py")).args([&port.to_string(), mode]).env("OTEL_SERVICE_NAME", "sink");
    let mut proc = Proc::start("sink", &mut command, &context.dir)?;
    proc.wait_line("ready", Duration::from_secs(10))?;
    Ok((proc, port))
}

/// It is alive, small, and still sees good requests of an HTTP server that it traces too.
fn still_good(context: &Context, agent: Agent, good: &crate::apps::App) -> Result<()> {
    Plan::new(good.target(), 4, Until::Requests(200), "/leaf/{n}").run()?.all_good()?;
    std::thread::sleep(SETTLE);
    let (_, highest) = agent.proc.memory_kib();
    let mut agent = agent;
    ensure!(agent.proc.poll()?.is_none(), "the agent ended:\n{}", agent.proc.tail());
    ensure!(highest < MEMORY_KIB, "the agent took {highest} KiB, {MEMORY_KIB} are allowed");
    let report = agent.stop()?;
    report.stats.check_balance()?;
    let found = report.spans.under(Span::Server, "/leaf/").count();
    ensure!(
        found == 200,
        "{found} spans of 200 good requests in {}\n{}",
        context.dir.display(),
        report.stats.table()
    );
    Ok(())
}

fn garbage(context: &Context) -> Result<()> {
    let good = Setup::new(Kind::Nginx, &context.dir).start()?;
    let (sink, port) = sink(context, "echo")?;
    let agent = Agent::attach(&context.dir, &[good.pids(), sink.pids()].concat(), &Options::default())?;
    let starts: [&[u8]; 8] = [
        b"",
        b"GET ",
        b"GET / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    ];
    for round in 0..40_u64 {
        for start in starts {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let bytes = [start, &body(round, 2_000)].concat();
            stream.write_all(&bytes)?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut back = Vec::new();
            stream.read_to_end(&mut back)?;
            ensure!(back == bytes, "the echo of garbage came back changed");
        }
    }
    // The same at a real server, which answers 400 or hangs up.
    for round in 0..200_u64 {
        let mut stream = TcpStream::connect(("127.0.0.1", good.port))?;
        let _ = stream.write_all(&body(round + 99, 500));
    }
    still_good(context, agent, &good)
}

fn million_headers(context: &Context) -> Result<()> {
    let good = Setup::new(Kind::Nginx, &context.dir).start()?;
    let (sink, port) = sink(context, "swallow")?;
    let agent = Agent::attach(&context.dir, &[good.pids(), sink.pids()].concat(), &Options::default())?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n")?;
    let block: Vec<u8> = (0..1_000).flat_map(|n| format!("X-Header-{n}: {n}\r\n").into_bytes()).collect();
    for _ in 0..1_000 {
        stream.write_all(&block)?;
    }
    stream.write_all(b"\r\n")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("the server did not answer a million headers")?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    still_good(context, agent, &good)
}

/// A program that speaks a line protocol on its sockets gives no spans, and costs nothing that grows.
fn not_http(context: &Context) -> Result<()> {
    let good = Setup::new(Kind::Nginx, &context.dir).start()?;
    let (sink, port) = sink(context, "foreign")?;
    let agent = Agent::attach(&context.dir, &[good.pids(), sink.pids()].concat(), &Options::default())?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    for number in 0..5_000 {
        // As memcached is spoken to.
        stream.write_all(format!("get {number:04}\r\n").as_bytes())?;
        let mut line = String::new();
        reader.read_line(&mut line)?;
        ensure!(line == "END\r\n", "{line}");
    }
    let none = agent.spans_so_far()?.all.iter().filter(|span| span.service() == "sink").count();
    ensure!(none == 0, "{none} spans of a protocol that is not read");
    still_good(context, agent, &good)
}

/// 10,000 children, each of which lives for a moment.
fn short_processes(context: &Context) -> Result<()> {
    let good = Setup::new(Kind::Nginx, &context.dir).start()?;
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "echo ready; sleep 1; n=0; while [ $n -lt 10000 ]; do (:); n=$((n+1)); done; echo done; sleep 60",
    ]);
    let mut shell = Proc::start("shell", &mut command, &context.dir)?;
    shell.wait_line("ready", Duration::from_secs(5))?;
    let agent = Agent::attach(&context.dir, &[good.pids(), shell.pids()].concat(), &Options::default())?;
    shell.wait_line("done", Duration::from_secs(120))?;
    still_good(context, agent, &good)
}
