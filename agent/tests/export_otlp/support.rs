//! Spans to send, endpoints that behave and that do not, and a look at the accounts.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use spanwise::attribute::Value;
use spanwise::config::{Compression, Exporter, Otlp, OtlpProtocol};
use spanwise::export::{Exporters, Limits};
use spanwise::process::Service;
use spanwise::span::{Kind, Span, Status};
use spanwise::telemetry::Stage;

/// Small batches soon, so that a test sees several.
pub(crate) const LIMITS: Limits = Limits {
    batch_spans: 100,
    batch_bytes: 1024 * 1024,
    delay: Duration::from_millis(50),
    queue_bytes: 8 * 1024 * 1024,
};

/// Long enough for every test that is to end well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A span whose id says its number.
pub(crate) fn span(number: u64) -> Span {
    let id = (number % 3) as u32;
    let name = format!("service-{id}");
    let attributes = vec![("service.name".into(), Value::Str(name.clone().into()))];
    Span {
        trace_id: [7; 16],
        span_id: (number + 1).to_be_bytes(),
        parent_span_id: None,
        parent_is_remote: false,
        trace_flags: 1,
        trace_state: None,
        name: "GET /items/{id}".into(),
        kind: Kind::Server,
        start_unix_ns: 1_700_000_000_000_000_000,
        end_unix_ns: 1_700_000_000_001_000_000,
        common: None,
        attributes: vec![
            ("http.request.method".into(), Value::Str("GET".into())),
            ("url.path".into(), Value::Str(format!("/items/{number}").into())),
            ("http.response.status_code".into(), Value::Int(200)),
        ],
        status: Status::Unset,
        links: Vec::new(),
        service: Arc::new(Service { id, name: name.into(), attributes }),
    }
}

pub(crate) fn settings(protocol: OtlpProtocol, address: SocketAddr) -> Otlp {
    let path = if protocol == OtlpProtocol::Grpc { "" } else { "/v1/traces" };
    Otlp {
        endpoint: format!("http://{address}{path}"),
        protocol,
        headers: vec![("x-api-key".to_owned(), "secret".to_owned())],
        compression: Compression::None,
        timeout: Duration::from_secs(5),
        certificate: None,
        client_certificate: None,
        client_key: None,
    }
}

pub(crate) fn start(otlp: Otlp) -> Exporters {
    Exporters::start(&[Exporter::Otlp(otlp)], LIMITS).unwrap()
}

/// Hands over spans `0..count` in time order, ticking as the engine does.
pub(crate) fn send(exporters: &mut Exporters, count: u64) {
    for number in 0..count {
        exporters.span(&span(number));
        if number % 50 == 0 {
            exporters.tick(Instant::now());
        }
    }
    assert_balance(&exporters.stages());
}

/// Ticks until the first account says this.
pub(crate) fn tick_until(exporters: &mut Exporters, what: &str, done: impl Fn(&Stage) -> bool) {
    let began = Instant::now();
    loop {
        exporters.tick(Instant::now());
        let stages = exporters.stages();
        assert_balance(&stages);
        if done(&stages[0]) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not come about: {stages:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn assert_balance(stages: &[Stage]) {
    for stage in stages {
        assert!(stage.balances(), "{stage:?}");
    }
}

pub(crate) fn row(stage: &Stage, name: &str) -> u64 {
    stage.rows.iter().find(|row| row.1 == name).unwrap_or_else(|| panic!("no {name} in {stage:?}")).2
}

pub(crate) fn note(stage: &Stage, name: &str) -> u64 {
    stage.notes.iter().find(|note| note.0 == name).unwrap_or_else(|| panic!("no {name} in {stage:?}")).1
}

/// How often each span came, by its number.
pub(crate) fn numbers(requests: &[ExportTraceServiceRequest]) -> HashMap<u64, u32> {
    let mut seen = HashMap::new();
    for resource in requests.iter().flat_map(|request| &request.resource_spans) {
        let name = &resource.resource.as_ref().unwrap().attributes[0].value;
        for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
            let number = u64::from_be_bytes(span.span_id[..].try_into().unwrap()) - 1;
            assert!(format!("{name:?}").contains(&format!("service-{}", number % 3)), "{number} in {name:?}");
            *seen.entry(number).or_default() += 1;
        }
    }
    seen
}

pub(crate) fn assert_each_once(requests: &[ExportTraceServiceRequest], count: u64) {
    let seen = numbers(requests);
    assert_eq!(seen.len() as u64, count);
    assert!(seen.values().all(|times| *times == 1));
}

/// A request as an HTTP endpoint got it.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) line: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
}

impl Got {
    pub(crate) fn decode(&self) -> ExportTraceServiceRequest {
        let mut plain = Vec::new();
        let body = if self.headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
            flate2::read::GzDecoder::new(&self.body[..]).read_to_end(&mut plain).unwrap();
            &plain
        } else {
            &self.body
        };
        match self.headers["content-type"].as_str() {
            "application/json" => serde_json::from_slice(body).unwrap(),
            "application/x-protobuf" => ExportTraceServiceRequest::decode(&body[..]).unwrap(),
            other => panic!("content-type {other}"),
        }
    }
}

/// What an endpoint does with a request.
pub(crate) enum Reply {
    /// Status with reason, further header lines, body.
    Http(&'static str, String, Vec<u8>),
    /// These bytes, whatever they are, and the connection is closed.
    Raw(Vec<u8>),
    /// The head of a success and a body without end.
    Endless,
    /// Nothing, and the connection stays.
    Silence,
}

pub(crate) fn ok() -> Reply {
    Reply::Http("200 OK", "content-type: application/x-protobuf\r\n".to_owned(), Vec::new())
}

/// An HTTP endpoint that keeps what it got and answers as told, by the number of the request.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Endpoint {
    pub(crate) fn start(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), reply)
    }

    pub(crate) fn on(listener: TcpListener, reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let (kept, reply) = (got.clone(), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (kept, reply, stream) = (kept.clone(), reply.clone(), stream.unwrap());
                // An error is the client's end of the connection.
                std::thread::spawn(move || serve(stream, &kept, &*reply).unwrap_or(()));
            }
        });
        Self { address, got }
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    pub(crate) fn decoded(&self) -> Vec<ExportTraceServiceRequest> {
        self.got().iter().map(Got::decode).collect()
    }
}

fn serve(
    mut stream: TcpStream,
    kept: &Mutex<Vec<Got>>,
    reply: &dyn Fn(usize) -> Reply,
) -> std::io::Result<()> {
    loop {
        let Some(got) = read_request(&mut stream)? else { return Ok(()) };
        let index = {
            let mut kept = kept.lock().unwrap();
            kept.push(got);
            kept.len() - 1
        };
        match reply(index) {
            Reply::Http(status, headers, body) => {
                write!(stream, "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len())?;
                stream.write_all(&body)?;
            }
            Reply::Raw(bytes) => return stream.write_all(&bytes),
            Reply::Endless => {
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")?;
                loop {
                    stream.write_all(&[b'['; 65_536])?;
                }
            }
            Reply::Silence => {
                // Until the client goes.
                std::io::copy(&mut stream, &mut std::io::sink())?;
                return Ok(());
            }
        }
    }
}

pub(crate) fn read_request(stream: &mut impl Read) -> std::io::Result<Option<Got>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let line = lines.next().unwrap().to_owned();
    let pairs = lines.filter_map(|line| line.split_once(": "));
    let headers: HashMap<_, _> = pairs.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |len| len.parse().unwrap())];
    stream.read_exact(&mut body)?;
    Ok(Some(Got { line, headers, body, at: Instant::now() }))
}
