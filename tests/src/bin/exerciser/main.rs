//! Makes HTTP exchanges by every family of system calls, over every family of sockets. In: a line on standard input, which
//! starts it (so that an agent can attach first). Out: a JSON line per request with its path and sizes, then "done"; it
//! ends when its standard input does. Both ends are threads of this process.

mod io;
mod pair;
mod uring;

use std::io::{BufRead as _, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context, Result, bail};

use io::{Receive, Send};
use pair::Family;

/// A way to send and the way in which the other side receives.
const WAYS: &[(&str, Send, Receive)] = &[
    ("write", Send::Write, Receive::Read),
    ("writev", Send::Writev, Receive::Readv),
    ("send", Send::Send, Receive::Recv),
    ("sendto", Send::Sendto, Receive::Recvfrom),
    ("sendmsg", Send::Sendmsg, Receive::Recvmsg),
    ("sendmmsg", Send::Sendmmsg, Receive::Recvmmsg),
    ("sendfile", Send::Sendfile, Receive::Read),
    ("splice", Send::Splice, Receive::Splice),
    ("peek", Send::Write, Receive::Peek),
    ("partial", Send::Partial, Receive::Nonblocking),
    ("byte", Send::Write, Receive::OneByte),
    ("uring", Send::Uring, Receive::Uring),
];

/// A request and the answer to it.
struct Exchange {
    path: String,
    /// Bytes of the head to send first, on their own; 0 for none.
    split: usize,
    request_body: usize,
    response_body: usize,
}

fn main() -> Result<()> {
    println!("ready");
    let mut input = std::io::stdin().lock();
    input.read_line(&mut String::new())?;
    let mut number = 0;
    for family in Family::ALL {
        for (name, send, receive) in WAYS {
            number += 1;
            if *send == Send::Uring
                && let Err(error) = uring::Ring::new()
            {
                println!("{}", serde_json::json!({"skipped": format!("io_uring: {error:#}")}));
                continue;
            }
            let big = if *send == Send::Partial { 200_000 } else { 0 };
            let exchange = Exchange {
                path: format!("/case/{name}-{}", family.name()),
                split: 0,
                request_body: 3_000 + number + big,
                response_body: 5_000 + number + big,
            };
            case(family, *send, *receive, &[exchange])
                .with_context(|| format!("{name} {}", family.name()))?;
        }
        let path = |at: usize| format!("/split/{}/{at:02}", family.name());
        let head = request_head(&path(0), 1);
        let splits: Vec<Exchange> = (1..head.len())
            .map(|split| Exchange { path: path(split), split, request_body: 1, response_body: 7 })
            .collect();
        case(family, Send::Write, Receive::Read, &splits)
            .with_context(|| format!("split {}", family.name()))?;
    }
    println!("done");
    // The agent is to see the end of the connections before the end of the process.
    input.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// One connection: the server answers on another thread, in the same way.
fn case(family: Family, send: Send, receive: Receive, exchanges: &[Exchange]) -> Result<()> {
    let (client, server) = pair::connect(family, send == Send::Partial)?;
    std::thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let result = serve(&server, send, receive, exchanges);
            drop(server);
            result
        });
        let asked = ask(&client, send, receive, exchanges);
        drop(client);
        match answers.join() {
            Ok(answered) => answered.and(asked),
            Err(_) => bail!("the server's thread panicked"),
        }
    })?;
    for exchange in exchanges {
        println!(
            "{}",
            serde_json::json!({"path": exchange.path, "request": exchange.request_body, "response": exchange.response_body})
        );
    }
    Ok(())
}

fn request_head(path: &str, body: usize) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: exerciser\r\nContent-Length: {body}\r\n\r\n").into_bytes()
}

fn ask(socket: &OwnedFd, send: Send, receive: Receive, exchanges: &[Exchange]) -> Result<()> {
    let fd = socket.as_raw_fd();
    for exchange in exchanges {
        let head = request_head(&exchange.path, exchange.request_body);
        let (first, rest) = head.split_at(exchange.split.min(head.len()));
        if !first.is_empty() {
            io::send(Send::Write, fd, first, &[])?;
            // Long enough for the other side to read it on its own.
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        io::send(send, fd, rest, &vec![b'q'; exchange.request_body])?;
        let (head, body) = io::receive(receive, fd)?;
        if !head.starts_with(b"HTTP/1.1 200") || body != exchange.response_body {
            bail!("{}: answered {body} bytes, {} were due", exchange.path, exchange.response_body);
        }
    }
    Ok(())
}

fn serve(socket: &OwnedFd, send: Send, receive: Receive, exchanges: &[Exchange]) -> Result<()> {
    let fd = socket.as_raw_fd();
    for exchange in exchanges {
        let (head, body) = io::receive(receive, fd)?;
        if !head.starts_with(format!("POST {} ", exchange.path).as_bytes()) || body != exchange.request_body {
            bail!(
                "{}: another request came, or {body} bytes instead of {}",
                exchange.path,
                exchange.request_body
            );
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", exchange.response_body);
        io::send(send, fd, head.as_bytes(), &vec![b'a'; exchange.response_body])?;
    }
    Ok(())
}
