//! Plaintext of TLS libraries: every request over TLS has its span on both sides, with the right path, and the server's span is the
//! child of its own client's. A path is asked for once, so a chunk on a wrong socket shows as a wrong parent, a missing span, or
//! one too many.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{SETTLE, check_count, until};
use crate::agent::{Agent, Options, Report};
use crate::apps::App;
use crate::certs::Certs;
use crate::proc::{Proc, capture};
use crate::runner::{Case, Context, full};
use crate::secure::{Protocol, Server, Speaker};
use crate::spans::Kind;
use crate::{paths, toolbox, traces};

const LIMIT: Duration = Duration::from_secs(60);
/// Requests of a client that counts.
fn requests() -> u64 {
    if full() { 20_000 } else { 1_000 }
}

pub(super) const NGINX: Server = Server::Nginx(Protocol::Https);
pub(super) const NODE: Server = Server::Node(Protocol::Https);
const NODE_CLIENT: Speaker = Speaker::Node(Protocol::Https);

pub(super) const CASES: &[Case] = &[
    Case { name: "tls/nginx_requests", seconds: 60, run: |c| both_sides(c, NGINX, Speaker::Requests, 16) },
    Case { name: "tls/nginx_aiohttp_64", seconds: 60, run: |c| both_sides(c, NGINX, Speaker::Aiohttp, 64) },
    Case { name: "tls/nginx_node_64", seconds: 60, run: |c| both_sides(c, NGINX, NODE_CLIENT, 64) },
    Case {
        name: "tls/threaded_requests",
        seconds: 60,
        run: |c| both_sides(c, Server::Threaded, Speaker::Requests, 16),
    },
    Case {
        name: "tls/asyncio_aiohttp_64",
        seconds: 60,
        run: |c| both_sides(c, Server::Asyncio, Speaker::Aiohttp, 64),
    },
    Case { name: "tls/node_node_64", seconds: 60, run: |c| both_sides(c, NODE, NODE_CLIENT, 64) },
    Case { name: "tls/node_requests", seconds: 60, run: |c| both_sides(c, NODE, Speaker::Requests, 16) },
    Case { name: "tls/commands", seconds: 60, run: commands },
    Case { name: "tls/one_connection_many_threads", seconds: 60, run: many_threads },
    Case { name: "tls/old_connections", seconds: 60, run: old_connections },
    Case { name: "tls/forks", seconds: 60, run: forks },
    Case { name: "tls/slow_reader", seconds: 60, run: slow_reader },
    Case { name: "tls/killed", seconds: 60, run: killed },
];

/// A server that answers `/leaf/N` with N.
pub(super) fn server(context: &Context, server: Server) -> Result<(App, Certs)> {
    let certs = Certs::make(&context.dir)?;
    let app = match server {
        NGINX => nginx(
            context,
            &certs,
            r"location ~ ^/leaf/(.*)$ { return 200 $1; } location / { return 200 ok; }",
        )?,
        _ => server.start(&context.dir, Some(&certs), None)?,
    };
    Ok((app, certs))
}

/// nginx with this in its server's block.
fn nginx(context: &Context, certs: &Certs, block: &str) -> Result<App> {
    let (port, dir) = (paths::free_port()?, context.dir.display().to_string());
    let conf = context.dir.join("tls.conf");
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {dir}/{name}; "))
        .collect();
    let (cert, key) = (certs.cert.display(), certs.key.display());
    std::fs::write(
        &conf,
        format!(
            "user root; daemon off; worker_processes 1; pid {dir}/tls.pid; error_log stderr crit;
            events {{ worker_connections 1024; }}
            http {{ access_log off; {temporary} sendfile on; keepalive_requests 1000000;
            server {{ listen 127.0.0.1:{port} ssl backlog=512; ssl_certificate {cert}; ssl_certificate_key {key};
            ssl_protocols TLSv1.2 TLSv1.3; {block} }} }}"
        ),
    )?;
    let mut command = Command::new(paths::need("nginx")?);
    command
        .arg("-c")
        .arg(&conf)
        .args(["-e", "stderr"])
        .env("OTEL_SERVICE_NAME", "nginx")
        .current_dir(&context.dir);
    let app = App { name: "nginx".into(), port, proc: Proc::start("nginx", &mut command, &context.dir)? };
    app.target().wait(LIMIT)?;
    Ok(app)
}

/// Each of the paths has one span of this kind, and no other path has one.
pub(super) fn once_each(report: &Report, kind: Kind, service: &str, paths: &BTreeSet<String>) -> Result<()> {
    let mut found = BTreeSet::new();
    for span in report.spans.at(kind, service) {
        ensure!(paths.contains(span.path()), "{service}: a span that nobody asked for: {span:?}");
        ensure!(found.insert(span.path().to_owned()), "{service}: a second span of {}", span.path());
        ensure!(
            span.get("http.request.method") == Some("GET")
                && span.number("http.response.status_code") == Some(200),
            "{service}: a span is not as it should be: {span:?}"
        );
    }
    check_count(service, found.len() as u64, paths.len() as u64, 0, report)?;
    let missing: Vec<_> = paths.difference(&found).take(3).collect();
    ensure!(
        missing.is_empty(),
        "{service}: no spans of {missing:?} and others, of {} spans\n{}",
        report.spans.all.len(),
        report.stats.table()
    );
    Ok(())
}

/// No span of the server is the child of another client's span than the one of the same path, and nearly all are the child of that:
/// a client's thread that is held up for long between its write and the end of the library's call tells too late.
pub(super) fn own_parents(report: &Report, service: &str) -> Result<()> {
    let (mut all, mut roots) = (0_usize, 0_usize);
    for span in report.spans.at(Kind::Server, service) {
        let parent = report.spans.parent(span);
        ensure!(
            parent.is_none_or(|parent| parent.path() == span.path() && parent.kind == Kind::Client),
            "{service}: the parent of {span:?} is {parent:?}\n{}",
            report.stats.table()
        );
        ensure!(
            parent.is_some() || span.parent.is_empty(),
            "{service}: a parent that is not there: {span:?}"
        );
        all += 1;
        roots += usize::from(parent.is_none());
        ensure!(span.get("url.scheme") == Some("https"), "{service}: {span:?}");
        ensure!(
            matches!(span.get("tls.protocol.version"), Some("1.2" | "1.3")),
            "{service}: the handshake was seen: {span:?}"
        );
    }
    println!("    {service}: {} of {all} spans have their parent", all - roots);
    ensure!(roots * 100 <= all, "{service}: {roots} of {all} have none\n{}", report.stats.table());
    Ok(())
}

/// Nothing passed a library that could not be joined, and nothing encrypted was left over.
pub(super) fn all_joined(report: &Report) -> Result<()> {
    for label in ["plaintext chunks of unknown connections", "library objects that changed their connection"]
    {
        ensure!(
            report.stats.kernel.get(label).is_none_or(|count| *count == 0),
            "{label}\n{}",
            report.stats.table()
        );
    }
    Ok(())
}

/// The name of a client's service.
fn name_of(speaker: Speaker) -> &'static str {
    match speaker {
        Speaker::Node(_) => "node-client",
        Speaker::Requests => "requests-client",
        Speaker::Aiohttp => "aiohttp-client",
        Speaker::Httpx => "httpx-client",
        Speaker::Rpc => "grpcio-client",
    }
}

pub(super) fn paths_of(requests: u64) -> BTreeSet<String> {
    (1..=requests).map(|number| format!("/leaf/{number}")).collect()
}

fn both_sides(context: &Context, of: Server, speaker: Speaker, connections: usize) -> Result<()> {
    let (app, certs) = server(context, of)?;
    let mut client = speaker.start(&app, requests(), [connections, 1], Some(&certs), &context.dir)?;
    let service = name_of(speaker);
    let agent = Agent::attach(&context.dir, &[app.pids(), client.pids()].concat(), &Options::default())?;
    let sent = client.run(LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    println!("    {}: {sent} requests of {service} over {connections} connections", app.name);
    once_each(&report, Kind::Server, &app.name, &paths_of(sent))?;
    once_each(&report, Kind::Client, service, &paths_of(sent))?;
    own_parents(&report, &app.name)?;
    all_joined(&report)
}

/// Programs that live for one request: curl (OpenSSL), wget and gnutls-cli (GnuTLS).
fn commands(context: &Context) -> Result<()> {
    let (app, certs) = server(context, NGINX)?;
    let base = Protocol::Https.url(app.port);
    let ca = certs.ca.display();
    let [curl, wget, gnutls] = ["curl", "wget", "gnutls-cli"].map(paths::need);
    let (curl, wget, gnutls) =
        (curl?.display().to_string(), wget?.display().to_string(), gnutls?.display().to_string());
    let script = format!(
        "sleep 1
        for i in 1 2 3; do {curl} -s --http1.1 --cacert {ca} -o /dev/null {base}/leaf/$i; done
        for i in 4 5 6; do {wget} -q --ca-certificate={ca} -O /dev/null {base}/leaf/$i; done
        printf 'GET /leaf/7 HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' |
            {gnutls} --x509cafile={ca} -p {} localhost > gnutls.log 2>&1
        sleep 0.5",
        app.port
    );
    let path = context.dir.join("commands.sh");
    std::fs::write(&path, script)?;
    let served = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    let own = context.dir.join("run");
    std::fs::create_dir_all(&own)?;
    let agent = Agent::run(&own, &["bash", &path.display().to_string()], &Options::default())?;
    let asked = agent.finish(LIMIT)?;
    std::thread::sleep(SETTLE);
    let served = served.stop()?;
    once_each(&served, Kind::Server, &app.name, &paths_of(7))?;
    for (service, numbers) in [("curl", 1..=3), ("wget", 4..=6), ("gnutls-cli", 7..=7)] {
        let paths = numbers.map(|number| format!("/leaf/{number}")).collect();
        once_each(&asked, Kind::Client, service, &paths)?;
    }
    let named = |span: &&crate::spans::Span| span.get("tls.client.server_name") == Some("localhost");
    ensure!(asked.spans.of(Kind::Client).filter(named).count() == 7, "the name in the ClientHello is told");
    Ok(())
}

/// A Python program of the test, with arguments; says `ready`, and `done` at its end.
fn python(context: &Context, name: &str, script: &str, arguments: &[&str]) -> Result<Proc> {
    let path = context.dir.join(format!("{name}.py"));
    std::fs::write(&path, script)?;
    let mut command = Command::new(toolbox::python()?);
    command.arg(&path).args(arguments).env("OTEL_SERVICE_NAME", name).env("SPANWISE_KEEP_STDIN", "1");
    command.current_dir(&context.dir);
    let mut proc = Proc::start(name, &mut command, &context.dir)?;
    proc.wait_line("ready", LIMIT)?;
    Ok(proc)
}

/// Threads that take turns on one connection, while each has another one of its own.
const MANY_THREADS: &str = r#"
import http.client, ssl, sys, threading
port, ca = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=ca)
connect = lambda: http.client.HTTPSConnection("localhost", port, context=context)
shared, turn, good = connect(), threading.Lock(), []
def get(connection, number):
    connection.request("GET", f"/leaf/{number}")
    good.append(connection.getresponse().read() == str(number).encode())
def run(thread):
    own = connect()
    for i in range(25):
        with turn:
            get(shared, thread * 50 + 2 * i + 1)
        get(own, thread * 50 + 2 * i + 2)
print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
print("done", len(good), sum(good), flush=True)
sys.stdin.readline()
"#;

fn many_threads(context: &Context) -> Result<()> {
    let (app, certs) = server(context, NODE)?;
    let (port, ca) = (app.port.to_string(), certs.ca.display().to_string());
    let mut client = python(context, "many-threads", MANY_THREADS, &[&port, &ca])?;
    let agent = Agent::attach(&context.dir, &[app.pids(), client.pids()].concat(), &Options::default())?;
    go(&mut client)?;
    let done = client.wait_line("done", LIMIT)?;
    ensure!(done == "done 400 400", "{done}");
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    once_each(&report, Kind::Server, &app.name, &paths_of(400))?;
    once_each(&report, Kind::Client, "many-threads", &paths_of(400))?;
    own_parents(&report, &app.name)?;
    all_joined(&report)
}

fn go(proc: &mut Proc) -> Result<()> {
    use std::io::Write as _;
    Ok(proc.stdin().context("the client has no standard input")?.write_all(b"go\n")?)
}

/// Connections that are made and used before the agent comes.
const OLD_CONNECTIONS: &str = r#"
import http.client, ssl, sys
port, ca = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=ca)
made = [http.client.HTTPSConnection("localhost", port, context=context) for _ in range(16)]
def get(connection, path, expected):
    connection.request("GET", path)
    return connection.getresponse().read() == expected
good = all(get(connection, "/leaf/0", b"0") for connection in made)
print("ready", good, flush=True)
sys.stdin.readline()
good = [get(made[n % 16], f"/leaf/{n}", str(n).encode()) for n in range(1, 321)]
print("done", len(good), sum(good), flush=True)
sys.stdin.readline()
"#;

fn old_connections(context: &Context) -> Result<()> {
    let (app, certs) = server(context, NGINX)?;
    let (port, ca) = (app.port.to_string(), certs.ca.display().to_string());
    let mut client = python(context, "old-connections", OLD_CONNECTIONS, &[&port, &ca])?;
    let agent = Agent::attach(&context.dir, &[app.pids(), client.pids()].concat(), &Options::default())?;
    go(&mut client)?;
    let done = client.wait_line("done", LIMIT)?;
    ensure!(done == "done 320 320", "{done}");
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    once_each(&report, Kind::Server, &app.name, &paths_of(320))?;
    once_each(&report, Kind::Client, "old-connections", &paths_of(320))?;
    for span in report.spans.at(Kind::Server, &app.name) {
        let parent = report.spans.parent(span);
        ensure!(
            parent.is_some_and(|parent| parent.path() == span.path()),
            "{span:?} is a child of {parent:?}"
        );
        ensure!(span.get("tls.protocol.version").is_none(), "the handshake was not seen: {span:?}");
    }
    all_joined(&report)
}

/// A server that forks for every connection: objects of its children have the same addresses.
const FORKS: &str = r#"
import http.server, socketserver, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        data = self.path.split("/")[2].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_):
        pass
class Server(socketserver.ForkingMixIn, http.server.HTTPServer):
    max_children = 64
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
"#;

fn forks(context: &Context) -> Result<()> {
    let certs = Certs::make(&context.dir)?;
    let port = paths::free_port()?;
    let (cert, key) = (certs.cert.display().to_string(), certs.key.display().to_string());
    let proc = python(context, "forks", FORKS, &[&port.to_string(), &cert, &key])?;
    let app = App { name: "forks".to_owned(), port, proc };
    let mut client = Speaker::Requests.start(&app, 200, [8, 1], Some(&certs), &context.dir)?;
    let agent = Agent::attach(&context.dir, &[app.pids(), client.pids()].concat(), &Options::default())?;
    let sent = client.run(LIMIT)?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    once_each(&report, Kind::Server, &app.name, &paths_of(sent))?;
    once_each(&report, Kind::Client, name_of(Speaker::Requests), &paths_of(sent))?;
    own_parents(&report, &app.name)
}

/// Bytes of a body that does not fit into any buffer.
const LARGE: usize = 8 * 1024 * 1024;

/// A large body to a client that reads slowly: writes that are cut short, and begun again.
fn slow_reader(context: &Context) -> Result<()> {
    let certs = Certs::make(&context.dir)?;
    std::fs::write(context.dir.join("large"), vec![b'x'; LARGE])?;
    let app =
        nginx(context, &certs, &format!("ssl_conf_command Options KTLS; root {};", context.dir.display()))?;
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    let size = capture(
        Command::new(paths::need("curl")?)
            .args([
                "-s",
                "--http1.1",
                "--limit-rate",
                "4M",
                "-o",
                "/dev/null",
                "-w",
                "%{size_download}",
                "--cacert",
            ])
            .arg(&certs.ca)
            .arg(format!("{}/large", Protocol::Https.url(app.port))),
    )?;
    ensure!(size.trim() == LARGE.to_string(), "curl read {size} bytes");
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    let sizes: Vec<_> = report
        .spans
        .at(Kind::Server, &app.name)
        .map(|span| (span.path().to_owned(), span.number("http.response.body.size")))
        .collect();
    ensure!(
        sizes == [("/large".to_owned(), Some(LARGE as u64))],
        "{sizes:?} and not {LARGE} bytes\n{}",
        report.stats.table()
    );
    all_joined(&report)
}

/// The agent is killed in the middle: the server goes on, and no probe is left in it.
fn killed(context: &Context) -> Result<()> {
    let (app, certs) = server(context, NGINX)?;
    let agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
    let get = |number: u64| {
        capture(
            Command::new(paths::need("curl")?)
                .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"])
                .arg(&certs.ca)
                .arg(format!("{}/leaf/{number}", Protocol::Https.url(app.port))),
        )
    };
    ensure!(get(1)? == "200", "with the agent");
    agent.proc.signal(libc::SIGKILL)?;
    let mut agent = agent;
    agent.proc.wait(LIMIT)?;
    for number in 2..12 {
        ensure!(get(number)? == "200", "after the agent was killed");
    }
    until(Duration::from_secs(5), "the end of every probe", || {
        app.pids().into_iter().all(|pid| !traces::on_process(pid).contains("tracer"))
    })?;
    Ok(())
}
