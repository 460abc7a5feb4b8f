//! Load. In: a target, how many connections, how fast, until when. Out: what was sent and what came back: counts, latencies,
//! a digest of the bytes. One thread a connection: blocking calls, one request at a time.

pub mod background;
pub mod client;
pub mod h2load;
pub mod wrk;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use background::Background;
pub use client::{Connection, Response};

/// Where requests go.
#[derive(Clone, Debug)]
pub enum Target {
    /// A TCP address, such as `127.0.0.1:80`.
    Tcp(String),
    /// A unix socket.
    Unix(PathBuf),
}

impl Target {
    /// A port on 127.0.0.1.
    pub fn tcp(port: u16) -> Self {
        Self::Tcp(format!("127.0.0.1:{port}"))
    }

    /// Waits until it takes connections.
    pub fn wait(&self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.probe() {
                Ok(()) => return Ok(()),
                Err(error) if start.elapsed() > limit => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn probe(&self) -> Result<()> {
        match self {
            Self::Tcp(address) => drop(std::net::TcpStream::connect(address)?),
            Self::Unix(path) => drop(std::os::unix::net::UnixStream::connect(path)?),
        }
        Ok(())
    }
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this many requests.
    Requests(u64),
    /// After this time.
    Time(Duration),
    /// When the flag is set.
    Flag(&'static AtomicBool),
}

/// A load.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to.
    pub target: Target,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// When to stop.
    pub until: Until,
    /// Requests a second over all connections, sent by the clock whatever the answers do; without it, each connection sends
    /// as soon as it has its answer.
    pub rate: Option<f64>,
    /// Path, in which `{n}` becomes the number of the request.
    pub path: String,
    /// Body of the requests: `{n}`-dependent bytes of this length. 0: a GET.
    pub body: usize,
    /// First number.
    pub first: u64,
}

impl Plan {
    /// Closed loop of GETs.
    pub fn new(target: Target, connections: usize, until: Until, path: &str) -> Self {
        Self { target, connections, until, rate: None, path: path.to_owned(), body: 0, first: 1 }
    }

    /// Runs it to its end.
    pub fn run(&self) -> Result<Outcome> {
        let next = AtomicU64::new(0);
        let start = Instant::now();
        let results: Vec<Result<Outcome>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..self.connections).map(|_| scope.spawn(|| self.connection(&next, start))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| bail!("a load thread panicked")))
                .collect()
        });
        let mut all = Outcome::default();
        for result in results {
            all.add(result.context("the load could not be run")?);
        }
        all.elapsed = start.elapsed();
        all.latencies_us.sort_unstable();
        Ok(all)
    }

    fn connection(&self, next: &AtomicU64, start: Instant) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut connection = Connection::open(&self.target)?;
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            #[expect(clippy::cast_precision_loss, reason = "numbers of requests are far below 2^52")]
            let due = self.rate.map(|rate| start + Duration::from_secs_f64(turn as f64 / rate));
            if self.over(turn, start, due) {
                return Ok(outcome);
            }
            if let Some(due) = due {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let number = self.first + turn;
            // Late sending counts as latency: the request was due then.
            let begin = due.unwrap_or_else(Instant::now);
            outcome.sent += 1;
            match self.exchange(&mut connection, number) {
                Ok(response) => outcome.answer(&response, begin.elapsed()),
                Err(error) => {
                    outcome.failed += 1;
                    if outcome.errors.len() < 5 {
                        outcome.errors.push(format!("request {number}: {error:#}"));
                    }
                    connection = Connection::open(&self.target)?;
                }
            }
        }
    }

    fn over(&self, turn: u64, start: Instant, due: Option<Instant>) -> bool {
        match self.until {
            Until::Requests(count) => turn >= count,
            Until::Time(limit) => due.unwrap_or_else(Instant::now) >= start + limit,
            Until::Flag(flag) => flag.load(Ordering::Relaxed),
        }
    }

    fn exchange(&self, connection: &mut Connection, number: u64) -> Result<Response> {
        let path = self.path.replace("{n}", &number.to_string());
        let body = body(number, self.body);
        connection.request(if self.body == 0 { "GET" } else { "POST" }, &path, &body)
    }
}

/// Bytes that depend on the number of the request.
pub fn body(number: u64, length: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// What a load came to.
#[derive(Clone, Default, Debug)]
pub struct Outcome {
    /// Requests sent.
    pub sent: u64,
    /// Answers with a status of 2xx or 3xx.
    pub good: u64,
    /// Other answers.
    pub bad: u64,
    /// Requests without a whole answer.
    pub failed: u64,
    /// What went wrong, the first few.
    pub errors: Vec<String>,
    /// Latency of each answer, in microseconds, sorted.
    pub latencies_us: Vec<u32>,
    /// Bytes of bodies that came back.
    pub bytes: u64,
    /// Order-free digest of the answers (the Date header left out).
    pub digest: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl Outcome {
    fn answer(&mut self, response: &Response, latency: Duration) {
        if (200..400).contains(&response.status) {
            self.good += 1;
        } else {
            self.bad += 1;
        }
        self.bytes += response.body.len() as u64;
        self.digest = self.digest.wrapping_add(response.digest());
        self.latencies_us.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.good += other.good;
        self.bad += other.bad;
        self.failed += other.failed;
        self.errors.extend(other.errors);
        self.errors.truncate(10);
        self.latencies_us.extend(other.latencies_us);
        self.bytes += other.bytes;
        self.digest = self.digest.wrapping_add(other.digest);
    }

    /// Latency below which this share of the answers lies, in microseconds.
    pub fn percentile_us(&self, share: f64) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a length is a place in it"
        )]
        let place = (self.latencies_us.len() as f64 * share) as usize;
        let last = self.latencies_us.len().saturating_sub(1);
        self.latencies_us.get(place.min(last)).copied().unwrap_or(0)
    }

    /// Answers a second.
    pub fn per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "numbers of requests are far below 2^52")]
        let answers = (self.good + self.bad) as f64;
        answers / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Fails unless every request had a good answer.
    pub fn all_good(self) -> Result<Self> {
        if self.failed + self.bad > 0 {
            bail!(
                "of {} requests {} failed and {} had a bad status: {}",
                self.sent,
                self.failed,
                self.bad,
                self.errors.join("; ")
            );
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Answers every request of one connection after the other, in turn with a length, chunked, and 503.
    fn server() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut writer = stream;
                    let mut turn = 0;
                    loop {
                        let (mut length, mut line) = (0, String::new());
                        while line != "\r\n" {
                            line.clear();
                            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                                return;
                            }
                            if let Some(value) = line.strip_prefix("Content-Length: ") {
                                length = value.trim().parse().unwrap();
                            }
                        }
                        let mut body = vec![0; length];
                        reader.read_exact(&mut body).unwrap();
                        let answer = [
                            "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 3\r\n\r\nabc",
                            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: t\r\n\r\n",
                        ][turn % 2];
                        turn += 1;
                        writer.write_all(answer.as_bytes()).unwrap();
                    }
                });
            }
        });
        port
    }

    #[test]
    fn every_request_is_counted_and_answered() {
        let mut plan = Plan::new(Target::tcp(server()), 4, Until::Requests(100), "/x/{n}");
        let outcome = plan.run().unwrap().all_good().unwrap();
        assert_eq!((outcome.sent, outcome.good, outcome.bytes), (100, 100, 300));
        assert_eq!(outcome.latencies_us.len(), 100);
        plan.body = 1000;
        plan.run().unwrap().all_good().unwrap();
    }

    #[test]
    fn an_open_loop_keeps_its_rate() {
        let mut plan = Plan::new(Target::tcp(server()), 2, Until::Time(Duration::from_millis(500)), "/");
        plan.rate = Some(200.0);
        let outcome = plan.run().unwrap().all_good().unwrap();
        assert_eq!(outcome.sent, 100);
        assert!(outcome.elapsed >= Duration::from_millis(490), "{:?}", outcome.elapsed);
    }

    #[test]
    fn bodies_depend_on_the_number() {
        assert_eq!(body(7, 100), body(7, 100));
        assert_ne!(body(7, 100), body(8, 100));
        assert_eq!(body(1, 13).len(), 13);
    }

    #[test]
    fn percentiles() {
        let outcome = Outcome { latencies_us: (1..=100).collect(), ..Outcome::default() };
        assert_eq!(outcome.percentile_us(0.5), 51);
        assert_eq!(outcome.percentile_us(1.0), 100);
        assert_eq!(Outcome::default().percentile_us(0.5), 0);
    }
}
