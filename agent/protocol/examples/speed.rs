//! Prints what one exchange costs: `cargo run --release -p spanwise-protocol --example speed`.
#![allow(missing_docs, reason = "an example")]

use std::hint::black_box;
use std::time::Instant;

use spanwise_protocol::http1::Connection;
use spanwise_protocol::{Flow, Input, Parser};

const REQUEST: &[u8] = b"GET /api/v1/orders/48151?expand=items&limit=20 HTTP/1.1\r\n\
Host: orders.shop.svc.cluster.local:8080\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: application/json\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
Connection: keep-alive\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.26.0\r\nDate: Sat, 21 Nov 2026 10:00:00 GMT\r\n\
Content-Type: application/json; charset=utf-8\r\nContent-Length: 4096\r\nConnection: keep-alive\r\n\
Vary: Accept-Encoding\r\nCache-Control: no-store\r\nX-Request-Id: 5f0c9f4c2d\r\n\r\n";

fn main() {
    const ROUNDS: u32 = 500_000;
    let mut best = f64::MAX;
    for _ in 0..5 {
        let mut connection = Connection::default();
        let mut items = 0u64;
        let begin = Instant::now();
        for _ in 0..ROUNDS {
            let mut sink = |item| {
                black_box(&item);
                items += 1;
            };
            connection.feed(
                Flow::Request,
                Input::Bytes { bytes: black_box(REQUEST), burst_start: true },
                &mut sink,
            );
            connection.feed(
                Flow::Response,
                Input::Bytes { bytes: black_box(RESPONSE), burst_start: true },
                &mut sink,
            );
            connection.feed(Flow::Response, Input::Hole { len: 4096, tail: b"\"id\": 1}" }, &mut sink);
        }
        assert_eq!(items, 6 * u64::from(ROUNDS));
        best = best.min(begin.elapsed().as_nanos() as f64 / f64::from(ROUNDS));
    }
    println!("{best:.0} ns for an exchange ({} + {} bytes of heads)", REQUEST.len(), RESPONSE.len());
}
