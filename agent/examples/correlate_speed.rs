//! Prints what the correlator costs for each exchange: `cargo run --release --example correlate_speed`.
#![expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "small counts")]
#![expect(clippy::indexing_slicing, reason = "tables of its own")]

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use spanwise::conn::{ConnInfo, Endpoint, MessageName, Texts};
use spanwise::process::Service;
use spanwise::session::{Edge, Exchange, ExchangeKey, Outcome, Side, Signal, Task};
use spanwise::span::correlate::{Correlator, Settings};
use spanwise_protocol::message::{Request, Response};

const CONNECTIONS: usize = 64;
const REQUESTS: u64 = 1_000_000;
/// Time between requests: 50,000 a second.
const PACE_NS: u64 = 20_000;

struct Bench {
    correlator: Correlator,
    service: Arc<Service>,
    servers: Vec<Rc<ConnInfo>>,
    clients: Vec<Rc<ConnInfo>>,
    next: u64,
}

fn conn(number: usize, port: u16, server: bool) -> Rc<ConnInfo> {
    let near = SocketAddr::from(([127, 0, 0, 1], port));
    let far = SocketAddr::from(([127, 0, 0, 1], 10_000 + number as u16));
    let (local, remote) = if server { (near, far) } else { (far, near) };
    let (local, remote) = (Endpoint::Inet(local), Endpoint::Inet(remote));
    Rc::new(ConnInfo {
        cookie: number as u64,
        local,
        remote,
        names: None,
        sock: 0,
        peer_sock: 0,
        netns: 1,
        texts: Texts::default(),
        tls: None,
    })
}

impl Bench {
    fn new() -> Self {
        Self {
            correlator: Correlator::new(Settings::default()),
            service: Arc::new(Service { id: 1, name: "app".into(), attributes: Vec::new() }),
            servers: (0..CONNECTIONS).map(|number| conn(number, 80, true)).collect(),
            clients: (0..CONNECTIONS).map(|number| conn(1_000 + number, 81, false)).collect(),
            next: 1,
        }
    }

    fn begin(&mut self, side: Side, task: Task, line: usize, position: u64, at_ns: u64) -> Exchange {
        let conn = match side {
            Side::Server => &self.servers[line],
            Side::Client => &self.clients[line],
        };
        let base = line as u32 * 2 + u32::from(side == Side::Client);
        let message =
            Some(MessageName { request_base: base, response_base: !base, position: position as u32 });
        let key = ExchangeKey(self.next);
        self.next += 1;
        let edge = Edge::Began { conn: Rc::clone(conn), message };
        self.correlator.signal(Signal { key, side, task, at_ns, edge });
        Exchange {
            key,
            side,
            task,
            service: Arc::clone(&self.service),
            conn: Rc::clone(conn),
            message,
            request: Request::default(),
            rpc: None,
            db: None,
            reset: None,
            route: None,
            response: Some(Response::default()),
            request_body: 0,
            response_body: 0,
            began_ns: at_ns,
            answered_ns: at_ns,
            ended_ns: at_ns,
            outcome: Outcome::Complete,
        }
    }

    fn complete(&mut self, mut exchange: Exchange, at_ns: u64) {
        let edge = Edge::Answer { first: true, last: true };
        let Exchange { key, side, task, .. } = exchange;
        self.correlator.signal(Signal { key, side, task, at_ns, edge });
        exchange.ended_ns = at_ns;
        self.correlator.finish(exchange);
    }

    /// Requests with `calls` calls each, `open` of them at once, on one thread or on one for each; ns an exchange.
    fn run(mut self, calls: usize, open: usize, threads: bool) -> f64 {
        let started = cpu_ns();
        let mut ring: Vec<Option<(Exchange, Vec<Exchange>)>> = (0..open).map(|_| None).collect();
        let (mut given, mut now) = (0_u64, 1_000_000_000_u64);
        for i in 0..REQUESTS {
            let line = i as usize % open;
            let who = Task { tgid: 1, tid: if threads { 10 + line as u32 } else { 1 }, task: 0 };
            if let Some((request, made)) = ring[line].take() {
                for call in made {
                    now += 1_000;
                    self.complete(call, now);
                }
                now += 1_000;
                self.complete(request, now);
            }
            now += PACE_NS - 1_000 * (calls as u64 + 1);
            let request = self.begin(Side::Server, who, line, i, now);
            let made = (0..calls)
                .map(|call| self.begin(Side::Client, who, line, i * 8 + call as u64, now))
                .collect();
            ring[line] = Some((request, made));
            if i % 250 == 0 {
                self.correlator.tick(now);
                self.correlator.drain(&mut |_, _| given += 1);
            }
        }
        let took = cpu_ns() - started;
        self.correlator.flush();
        self.correlator.drain(&mut |_, _| given += 1);
        println!("  in memory at the end: {:?}", self.correlator.stage().rows);
        took / given as f64
    }
}

/// CPU time of this thread: the machine may be busy otherwise.
fn cpu_ns() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(f64::NAN)
}

fn main() {
    for (what, calls, open, threads) in [
        ("server only, 64 open, one thread each", 0, 64, true),
        ("server only, 64 open, one loop", 0, 64, false),
        ("one call each, 64 open, one thread each", 1, 64, true),
        ("one call each, 64 open, one loop", 1, 64, false),
        ("three calls each, 64 open, one loop", 3, 64, false),
    ] {
        let ns = Bench::new().run(calls, open, threads);
        println!("{what}: {ns:.0} ns of CPU an exchange");
    }
}
