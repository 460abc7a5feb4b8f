//! What the `h2` crate sends, client and server: its own frames, its own header blocks, many streams at once.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may")]

mod common;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use common::{Driver, Q, R, Step, burst, more};
use http::{HeaderMap, HeaderValue, Request, Response};
use spanwise_protocol::http2::Connection;
use spanwise_protocol::message::Head;
use spanwise_protocol::{Flow, What};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

type Log = Arc<Mutex<Vec<(Flow, Vec<u8>)>>>;

/// One end, whose writes are written down.
struct Recorded {
    inner: DuplexStream,
    flow: Flow,
    log: Log,
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(len)) = written {
            let flow = self.flow;
            self.log.lock().unwrap().push((flow, bytes[..len].to_vec()));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The n-th call: path, bytes asked, status, bytes answered, code.
fn call(n: u32) -> (String, usize, u16, usize, u32) {
    let status = [200, 404, 500][n as usize % 3];
    (format!("/s.{}/M{n}", n % 4), (n as usize * 37) % 900, status, (n as usize * 911) % 20_000, n % 17)
}

fn message(len: usize) -> Bytes {
    [&[0][..], &(len as u32).to_be_bytes(), &vec![7; len]].concat().into()
}

async fn serve(io: Recorded) {
    let mut server = h2::server::handshake(io).await.unwrap();
    while let Some(accepted) = server.accept().await {
        let (request, mut respond) = accepted.unwrap();
        tokio::spawn(async move {
            let n: u32 = request.headers()["x-number"].to_str().unwrap().parse().unwrap();
            let (.., status, len, code) = call(n);
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            let response = Response::builder()
                .status(status)
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            let mut stream = respond.send_response(response, false).unwrap();
            stream.send_data(message(len), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from(code));
            stream.send_trailers(trailers).unwrap();
        });
    }
}

/// What moves when so many calls are made, up to fifty at once.
fn recorded(calls: u32, buffer: usize) -> Vec<(Flow, Vec<u8>)> {
    let log = Log::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (a, b) = tokio::io::duplex(buffer);
        let server = tokio::spawn(serve(Recorded { inner: b, flow: R, log: Arc::clone(&log) }));
        let io = Recorded { inner: a, flow: Q, log: Arc::clone(&log) };
        let (client, connection) = h2::client::handshake(io).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut next = 0;
        while next < calls {
            let mut tasks = Vec::new();
            for n in next..calls.min(next + 50) {
                let mut client = client.clone().ready().await.unwrap();
                let (path, len, ..) = call(n);
                let request = Request::post(format!("http://host{path}"))
                    .header("content-type", "application/grpc")
                    .header("user-agent", format!("agent/{}", n % 3))
                    .header("x-number", n)
                    .body(())
                    .unwrap();
                let (response, mut stream) = client.send_request(request, false).unwrap();
                stream.send_data(message(len), true).unwrap();
                tasks.push(tokio::spawn(async move {
                    let mut body = response.await.unwrap().into_body();
                    while let Some(data) = body.data().await {
                        let data = data.unwrap();
                        body.flow_control().release_capacity(data.len()).unwrap();
                    }
                    body.trailers().await.unwrap().unwrap()
                }));
            }
            next += 50;
            for task in tasks {
                task.await.unwrap();
            }
        }
        drop(client);
        driver.await.unwrap().unwrap();
        server.await.unwrap();
    });
    std::mem::take(&mut *log.lock().unwrap())
}

/// Checks what is told of a conversation, and gives the number of calls that were told in full.
fn check(steps: &[Step], calls: u32) -> u32 {
    let mut driver = Driver::<Connection>::default();
    steps.iter().for_each(|step| driver.step(step));
    let mut paths = HashMap::new();
    let mut full = 0;
    for (_, item) in &driver.items {
        // Streams are numbered in the order of the calls.
        let n = (item.exchange.max(1) - 1) / 2;
        let (path, asked, status, answered, code) = call(n);
        match (item.flow, &item.what) {
            (_, What::Head(Head::Request(request))) => {
                assert!(*request.path == *path || request.path.is_empty(), "{request:?} is not {path}");
                assert!(*request.method == *"POST" || request.method.is_empty());
                assert!(request.authority.as_deref().is_none_or(|name| name == "host"));
                assert!(request.user_agent.as_deref().is_none_or(|name| name == format!("agent/{}", n % 3)));
                paths.insert(n, !request.path.is_empty());
            }
            (_, What::Head(Head::Response(response))) => {
                assert!(response.status == status || response.status == 0, "{response:?} of {n}");
            }
            (Flow::Request, What::Rpc(part)) if !part.truncated => {
                assert_eq!((part.messages, part.bytes), (1, asked as u64));
            }
            (Flow::Response, What::Rpc(part)) => {
                assert!(part.status.is_none_or(|told| told == code));
                if !part.truncated {
                    assert_eq!((part.messages, part.bytes), (1, answered as u64));
                    full += u32::from(part.status == Some(code) && paths.get(&n) == Some(&true));
                }
            }
            _ => {}
        }
    }
    assert!(full <= calls);
    full
}

#[test]
fn everything_is_told_however_it_is_split() {
    for buffer in [1000, 60_000] {
        let all = recorded(120, buffer);
        let whole: Vec<Step> = all.iter().map(|(flow, bytes)| burst(*flow, bytes)).collect();
        assert_eq!(check(&whole, 120), 120);
        for size in [1, 9, 10, 4096] {
            let split: Vec<Step> = all
                .iter()
                .flat_map(|(flow, bytes)| bytes.chunks(size).map(|part| more(*flow, part)))
                .collect();
            assert_eq!(check(&split, 120), 120, "{size}");
        }
    }
}

#[test]
fn nothing_wrong_is_told_of_what_is_seen_in_part() {
    let all = recorded(120, 60_000);
    for lost in (0..60).step_by(5) {
        // Every 61st transfer is lost.
        let steps: Vec<Step> = all
            .iter()
            .enumerate()
            .map(|(at, (flow, bytes))| {
                if at % 61 == lost {
                    Step::Hole(*flow, bytes.len() as u64, Vec::new())
                } else {
                    burst(*flow, bytes)
                }
            })
            .collect();
        check(&steps, 120);
    }
    for late in 0..10 {
        let steps: Vec<Step> = all.iter().skip(late * 11).map(|(flow, bytes)| burst(*flow, bytes)).collect();
        check(&steps, 120);
    }
}
