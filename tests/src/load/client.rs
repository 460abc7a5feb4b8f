//! A small HTTP/1.1 client. In: a target and requests. Out: whole answers. It writes each request with one call, so that a
//! request is one message, and it understands lengths, chunks and answers that end with the connection.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Target;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection that stays open between requests.
pub struct Connection {
    reader: BufReader<Box<dyn Stream>>,
    host: String,
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Header lines, as they came.
    pub headers: Vec<String>,
    /// Its body, with chunks joined.
    pub body: Vec<u8>,
}

impl Response {
    /// A digest of all that matters: status, headers but for the date, body.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.status.hash(&mut hasher);
        for line in &self.headers {
            if !line.to_ascii_lowercase().starts_with("date:") {
                line.hash(&mut hasher);
            }
        }
        self.body.hash(&mut hasher);
        hasher.finish()
    }

    /// Value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Connection {
    /// Opens one.
    pub fn open(target: &Target) -> Result<Self> {
        let (stream, host): (Box<dyn Stream>, String) = match target {
            Target::Tcp(address) => {
                let stream =
                    TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                (Box::new(stream), address.clone())
            }
            Target::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .with_context(|| format!("cannot connect to {}", path.display()))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                (Box::new(stream), "localhost".into())
            }
        };
        Ok(Self { reader: BufReader::with_capacity(1 << 16, stream), host })
    }

    /// Sends a request and reads its answer.
    pub fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Response> {
        self.request_with(method, path, "", body)
    }

    /// The same with more header lines (each with its CRLF).
    pub fn request_with(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Result<Response> {
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}", self.host).into_bytes();
        if !body.is_empty() {
            bytes.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(body);
        self.raw(&bytes)?;
        self.response(method == "HEAD")
    }

    /// Sends bytes as they are, with one call where the kernel takes them at once.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.reader.get_mut().write_all(bytes).context("cannot send")
    }

    /// Reads one answer.
    pub fn response(&mut self, head_only: bool) -> Result<Response> {
        let status_line = self.line()?;
        let status = status_line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1)?.parse().ok())
            .with_context(|| format!("not an answer: `{status_line}`"))?;
        let mut response = Response { status, headers: Vec::new(), body: Vec::new() };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            response.headers.push(line);
        }
        if head_only || status == 204 || status == 304 || (100..200).contains(&status) {
            return Ok(response);
        }
        if response.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            response.body = self.chunks()?;
        } else if let Some(length) = response.header("content-length") {
            response.body = self.exactly(length.parse().context("bad Content-Length")?)?;
        } else {
            self.reader.read_to_end(&mut response.body)?;
        }
        Ok(response)
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                .with_context(|| format!("bad chunk size `{line}`"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size)?);
            self.line()?;
        }
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes).context("the answer's body is cut short")?;
        Ok(bytes)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        if self.reader.read_until(b'\n', &mut line).context("no answer")? == 0 {
            bail!("the server closed the connection");
        }
        while line.last().is_some_and(|byte| b"\r\n".contains(byte)) {
            line.pop();
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}
