//! A receiver of OTLP over HTTP/protobuf that only counts. In: what the agent exports. Out: how many spans came. Cheap, so that
//! measurements are about the agent; what spans hold is checked elsewhere.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

/// A running receiver. It takes connections until the process ends.
pub struct Sink {
    port: u16,
    spans: Arc<AtomicU64>,
}

impl Sink {
    /// Starts one.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
        let sink = Self { port: listener.local_addr()?.port(), spans: Arc::default() };
        let spans = Arc::clone(&sink.spans);
        std::thread::Builder::new().name("sink".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let spans = Arc::clone(&spans);
                // A connection that breaks is the agent's business: what did not come is not counted.
                std::thread::spawn(move || serve(stream, &spans));
            }
        })?;
        Ok(sink)
    }

    /// Its address for `--endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Spans that came so far.
    pub fn spans(&self) -> u64 {
        self.spans.load(Ordering::SeqCst)
    }
}

fn serve(stream: TcpStream, spans: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1 << 18, stream);
    while let Some(body) = request(&mut reader)? {
        spans.fetch_add(count(&body), Ordering::SeqCst);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
        reader.get_mut().write_all(answer)?;
    }
    Ok(())
}

/// The body of the next request; none at the end of the connection.
pub(crate) fn request(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let (mut length, mut chunked, mut line) = (0, false, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let lower = line.trim().to_ascii_lowercase();
        if lower.is_empty() {
            break;
        }
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
        chunked |= lower.starts_with("transfer-encoding:") && lower.contains("chunked");
    }
    if chunked { read_chunks(reader).map(Some) } else { read_exactly(reader, length).map(Some) }
}

fn read_exactly(reader: &mut impl BufRead, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_chunks(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        body.extend(read_exactly(reader, size)?);
        line.clear();
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Spans in an ExportTraceServiceRequest: field 1 (resources), in it 2 (scopes), in it 2 (spans).
pub(crate) fn count(request: &[u8]) -> u64 {
    fields(request, 1)
        .flat_map(|resource| fields(resource, 2))
        .map(|scope| fields(scope, 2).count() as u64)
        .sum()
}

/// The values of one length-delimited field of a protobuf message. Ends at the first thing that is malformed.
fn fields(mut message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            let key = varint(&mut message)?;
            let value = match key & 7 {
                0 => {
                    varint(&mut message)?;
                    continue;
                }
                1 => take(&mut message, 8)?,
                2 => {
                    let length = varint(&mut message)?;
                    take(&mut message, usize::try_from(length).ok()?)?
                }
                5 => take(&mut message, 4)?,
                _ => return None,
            };
            if key >> 3 == wanted && key & 7 == 2 {
                return Some(value);
            }
        }
    })
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (value, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(value)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(message, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Connection, Target};

    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
    }

    fn request() -> Vec<u8> {
        let span = field(2, b"\x0a\x01x");
        let scope = [field(1, b"name"), field(2, &[span.clone(), span.clone()].concat())].concat();
        // A scope is field 2 of a resource; the spans are field 2 of the scope.
        [field(1, &scope), field(1, &field(2, &span))].concat()
    }

    #[test]
    fn spans_are_counted() {
        assert_eq!(count(&request()), 3);
        assert_eq!(count(b"\xff\xff\xff"), 0);
    }

    #[test]
    fn a_post_is_answered_and_counted() {
        let sink = Sink::start().unwrap();
        let mut connection = Connection::open(&Target::tcp(sink.port)).unwrap();
        for _ in 0..2 {
            assert_eq!(connection.request("POST", "/v1/traces", &request()).unwrap().status, 200);
        }
        assert_eq!(sink.spans(), 6);
    }
}
