//! Prints what one span costs: `cargo run --profile quick -p spanwise --example span_speed`.
#![allow(missing_docs, reason = "an example")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spanwise::conn::{ConnInfo, Endpoint, Texts};
use spanwise::process::Service;
use spanwise::session::{Exchange, ExchangeKey, Outcome, Side, Task};
use spanwise::span::build::{Conventions, build};
use spanwise::span::clock::Clock;
use spanwise::span::{Decision, ParentSource};
use spanwise_protocol::message::{Request, Response, Version};

fn main() {
    const ROUNDS: usize = 200;
    const BATCH: usize = 1000;
    let endpoint = |port| Endpoint::Inet(SocketAddr::from(([10, 244, 17, 203], port)));
    for side in [Side::Server, Side::Client] {
        let exchange = Exchange {
            key: ExchangeKey(7),
            side,
            task: Task { tgid: 1, tid: 2, task: 0 },
            service: Arc::new(Service { id: 1, name: "shop".into(), attributes: Vec::new() }),
            conn: Rc::new(ConnInfo {
                cookie: 1,
                local: endpoint(8080),
                remote: endpoint(51234),
                names: None,
                sock: 0,
                peer_sock: 0,
                netns: 0,
                texts: Texts::default(),
                tls: None,
            }),
            message: None,
            request: Request {
                method: "GET".into(),
                path: "/api/v1/orders/48151".into(),
                query: Some("expand=items&limit=20".into()),
                authority: Some("orders.shop.svc.cluster.local:8080".into()),
                version: Version::Http11,
                user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Firefox/128.0".into()),
                ..Request::default()
            },
            rpc: None,
            db: None,
            reset: None,
            route: None,
            response: Some(Response { status: 200, version: Version::Http11, ..Response::default() }),
            request_body: 0,
            response_body: 4096,
            began_ns: 1_000,
            answered_ns: 1_500,
            ended_ns: 3_000,
            outcome: Outcome::Complete,
        };
        let decision = Decision {
            trace_id: [1; 16],
            span_id: [2; 8],
            parent_span_id: None,
            parent_is_remote: false,
            trace_flags: 3,
            trace_state: None,
            source: ParentSource::Only,
            confidence: 1.0,
            links: Vec::new(),
            upstream_flags: None,
            parent_key: None,
        };
        let clock = Clock::now();
        let mut best = Duration::MAX;
        for _ in 0..ROUNDS {
            let work: Vec<_> = (0..BATCH).map(|_| (exchange.clone(), decision.clone())).collect();
            let mut spans = Vec::with_capacity(BATCH);
            let begin = Instant::now();
            spans.extend(
                work.into_iter()
                    .map(|(exchange, decision)| build(exchange, decision, &clock, Conventions::default())),
            );
            best = best.min(begin.elapsed());
            black_box(spans);
        }
        println!("{side:?}: {} ns a span", best.as_nanos() / BATCH as u128);
    }
}
