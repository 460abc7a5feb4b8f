//! An OTLP endpoint that lies. In: 1,000 spans for an endpoint that rejects some, answers nonsense, refuses, asks to wait, breaks
//! off, or never answers. Out: every span counted for what became of it, and an agent that ends in its time.

use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::agent::{Agent, Options};
use crate::apps::{Kind, Setup};
use crate::load::{Plan, Until};
use crate::runner::{Case, Context};
use crate::sink::{count, request};
use crate::stats::Stage;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "liar/rejects_some",
        seconds: 60,
        run: |context| case(context, Lie::Rejects(3), |stage, met| stage.row(REJECTED) == 3 * met.requests()),
    },
    Case {
        name: "liar/rejects_more_than_there_are",
        seconds: 60,
        run: |context| case(context, Lie::Rejects(1 << 40), |stage, _| stage.row(REJECTED) == SPANS),
    },
    Case {
        name: "liar/garbage",
        seconds: 60,
        run: |context| {
            case(context, Lie::Garbage, |stage, met| not_understood(stage, met) && met.spans() == SPANS)
        },
    },
    Case {
        name: "liar/bad_request",
        seconds: 60,
        // Sent once each: what is refused for good is not sent again.
        run: |context| {
            case(context, Lie::Refuses, |stage, met| stage.row(REFUSED) == SPANS && met.spans() == SPANS)
        },
    },
    Case { name: "liar/busy_once", seconds: 60, run: |context| case(context, Lie::BusyOnce, waited) },
    Case {
        name: "liar/busy",
        seconds: 60,
        // Not asked again and again, not even when the agent is to end: four may have been under way.
        run: |context| {
            case(context, Lie::Busy, |stage, met| {
                stage.row(STOPPED) == SPANS && (1..=4).contains(&met.requests())
            })
        },
    },
    Case {
        name: "liar/breaks_off_in_the_body",
        seconds: 60,
        run: |context| {
            case(context, Lie::ShortBody, |stage, met| not_understood(stage, met) && met.spans() == SPANS)
        },
    },
    Case {
        name: "liar/breaks_off_in_the_head",
        seconds: 60,
        run: |context| {
            case(context, Lie::ShortHead, |stage, _| stage.row(STOPPED) == SPANS && stage.note("retries") > 0)
        },
    },
    Case {
        name: "liar/hangs",
        seconds: 60,
        run: |context| case(context, Lie::Hangs, |stage, _| stage.row(STOPPED) == SPANS),
    },
];

const SPANS: u64 = 1_000;
/// Time that the agent gives its exporters at the end, and some for the rest.
const END: Duration = Duration::from_millis(3_000);
/// What `Lie::BusyOnce` asks for.
const WAIT: Duration = Duration::from_secs(1);

const TAKEN: &str = "acknowledged";
const REJECTED: &str = "rejected in part by the endpoint";
const REFUSED: &str = "refused by the endpoint";
const STOPPED: &str = "not sent before the stop";

/// What the endpoint does with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lie {
    /// Success, but so many spans were rejected.
    Rejects(u64),
    /// Success, with a body that is no answer.
    Garbage,
    /// 400.
    Refuses,
    /// 503 and Retry-After for the first, then success.
    BusyOnce,
    /// 503 and Retry-After of an hour.
    Busy,
    /// Success, but the connection ends in the body.
    ShortBody,
    /// The connection ends in the first line.
    ShortHead,
    /// No answer at all.
    Hangs,
}

/// What the endpoint met: time and spans of each request.
#[derive(Clone, Default)]
struct Met(Arc<Mutex<Vec<(Instant, u64)>>>);

impl Met {
    fn add(&self, spans: u64) -> usize {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((Instant::now(), spans));
        all.len()
    }

    fn all(&self) -> Vec<(Instant, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn requests(&self) -> u64 {
        self.all().len() as u64
    }

    fn spans(&self) -> u64 {
        self.all().iter().map(|met| met.1).sum()
    }
}

/// The status said success, so nothing is sent again, but somebody is told.
fn not_understood(stage: &Stage, met: &Met) -> bool {
    stage.row(TAKEN) == SPANS && stage.note("answers not understood") == met.requests()
}

/// All came in the end, and what came after the first answer did not come before the time was over.
fn waited(stage: &Stage, met: &Met) -> bool {
    let all = met.all();
    let Some((first, _)) = all.first() else { return false };
    // A few requests may be under way when the first is answered.
    let late = all.iter().filter(|(time, _)| *time >= *first + WAIT).count();
    let early = all.iter().filter(|(time, _)| (*first + WAIT / 4..*first + WAIT).contains(time)).count();
    stage.row(TAKEN) == SPANS && stage.note("retries") > 0 && late > 0 && early == 0
}

fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    to.push(u8::try_from(value).unwrap_or(0));
}

/// `ExportTraceServiceResponse { partial_success { rejected_spans, error_message } }`.
fn partial(rejected: u64) -> Vec<u8> {
    let mut inner = vec![0x08];
    varint(rejected, &mut inner);
    inner.extend(b"\x12\x07too old");
    let mut outer = vec![0x0a];
    varint(inner.len() as u64, &mut outer);
    outer.extend(inner);
    outer
}

fn start(lie: Lie, met: Met) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let met = met.clone();
            // A connection that breaks is the agent's business.
            std::thread::spawn(move || serve(stream, lie, &met));
        }
    });
    Ok(endpoint)
}

fn serve(stream: TcpStream, lie: Lie, met: &Met) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1 << 18, stream);
    while let Some(body) = request(&mut reader)? {
        let number = met.add(count(&body));
        let success = |body: &[u8], length: usize| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length:";
            [format!("{head} {length}\r\n\r\n").as_bytes(), body].concat()
        };
        let busy = |after: u64| {
            format!("HTTP/1.1 503 Busy\r\nRetry-After: {after}\r\nContent-Length: 0\r\n\r\n").into_bytes()
        };
        let answer = match lie {
            Lie::Rejects(rejected) => {
                let answer = partial(rejected);
                success(&answer, answer.len())
            }
            Lie::Garbage => success(b"\xff\xff<html>hello</html>", 20),
            Lie::Refuses => b"HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\nno".to_vec(),
            Lie::BusyOnce if number == 1 => busy(WAIT.as_secs()),
            Lie::BusyOnce => success(b"", 0),
            Lie::Busy => busy(3_600),
            Lie::ShortBody => success(b"\x0a", 50),
            Lie::ShortHead => b"HTTP/1.1 20".to_vec(),
            Lie::Hangs => {
                std::thread::sleep(Duration::from_secs(60));
                return Ok(());
            }
        };
        reader.get_mut().write_all(&answer)?;
        if matches!(lie, Lie::ShortBody | Lie::ShortHead) {
            return Ok(());
        }
    }
    Ok(())
}

fn case(context: &Context, lie: Lie, right: fn(&Stage, &Met) -> bool) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let met = Met::default();
    let endpoint = start(lie, met.clone())?;
    let options = Options::default()
        .without_file()
        .arg(&["--exporter", "otlp", "--endpoint", &endpoint, "--protocol", "http/protobuf"])
        .env("OTEL_BSP_SCHEDULE_DELAY", "100");
    let agent = Agent::attach(&context.dir, &app.pids(), &options)?;
    Plan::new(app.target(), 4, Until::Requests(SPANS), "/leaf/{n}").run()?.all_good()?;
    std::thread::sleep(Duration::from_millis(600) + if lie == Lie::BusyOnce { WAIT } else { Duration::ZERO });
    let report = agent.stop()?;
    report.stats.check_balance()?;
    let stage = report.stats.stages.iter().find(|stage| stage.name.starts_with("export otlp"));
    let stage = stage.context("the account has no exporter")?;
    println!("    {} requests came with {} spans; {:?}", met.requests(), met.spans(), stage.rows);
    ensure!(stage.input == SPANS, "{} spans for {SPANS} requests\n{}", stage.input, report.stats.table());
    ensure!(right(stage, &met), "not counted as it was:\n{}{:?}", report.stats.table(), stage.notes);
    ensure!(report.stopped_after < END, "it took {:?} to end", report.stopped_after);
    // Somebody is told, in a line or (where the stop came before the time-out) in the table, but not in thousands.
    let told = report.stderr.contains("127.0.0.1") || report.stderr.contains(STOPPED);
    ensure!(lie == Lie::BusyOnce || told, "nothing is said:\n{}", report.stderr);
    ensure!(report.stderr.len() < 20_000, "it says so in {} bytes", report.stderr.len());
    Ok(())
}
