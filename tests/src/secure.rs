//! Servers and clients that speak TLS, HTTP/2 or gRPC, other than in Go. In: which one, its certificates, the next server. Out:
//! a running server, or a client that waits, both ready.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::apps::{App, nginx_conf_with};
use crate::certs::Certs;
use crate::clients::Client;
use crate::proc::Proc;
use crate::{paths, toolbox};

const START: Duration = Duration::from_secs(20);

/// What is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// HTTP/1.1 over TLS.
    Https,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/2 in clear, with prior knowledge.
    H2c,
}

impl Protocol {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::H2 => "h2",
            Self::H2c => "h2c",
        }
    }

    /// Base URL of a server on this port.
    pub fn url(self, port: u16) -> String {
        match self {
            Self::H2c => format!("http://127.0.0.1:{port}"),
            Self::Https | Self::H2 => format!("https://localhost:{port}"),
        }
    }

    /// As `network.protocol.version` has it.
    pub fn version(self) -> &'static str {
        match self {
            Self::Https => "1.1",
            Self::H2 | Self::H2c => "2",
        }
    }
}

/// A server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Server {
    /// nginx (OpenSSL); calls nobody.
    Nginx(Protocol),
    /// Node (its own OpenSSL).
    Node(Protocol),
    /// Python's http.server with `ssl`, a thread per connection; calls with requests.
    Threaded,
    /// aiohttp, over BIO pairs.
    Asyncio,
    /// grpcio; with TLS if there are certificates.
    Rpc,
    /// nghttpd (OpenSSL), which serves files of its folder.
    Nghttpd(Protocol),
}

impl Server {
    /// Its name, also its service name.
    pub fn name(self) -> String {
        match self {
            Self::Nginx(protocol) => format!("nginx-{}", protocol.name()),
            Self::Node(protocol) => format!("node-{}", protocol.name()),
            Self::Threaded => "python-threaded-https".into(),
            Self::Asyncio => "python-asyncio-https".into(),
            Self::Rpc => "python-rpc".into(),
            Self::Nghttpd(protocol) => format!("nghttpd-{}", protocol.name()),
        }
    }

    /// Starts it and waits until it is ready.
    pub fn start(self, dir: &Path, certs: Option<&Certs>, next: Option<(&App, Protocol)>) -> Result<App> {
        self.start_as(&self.name(), dir, certs, next)
    }

    /// The same with another name.
    pub fn start_as(
        self,
        name: &str,
        dir: &Path,
        certs: Option<&Certs>,
        next: Option<(&App, Protocol)>,
    ) -> Result<App> {
        let port = paths::free_port()?;
        let port_text = port.to_string();
        let mut command;
        match self {
            Self::Nginx(protocol) => {
                command = Command::new(paths::need("nginx")?);
                let listen = match protocol {
                    Protocol::Https => format!("127.0.0.1:{port} ssl"),
                    Protocol::H2 => format!("127.0.0.1:{port} ssl http2"),
                    Protocol::H2c => format!("127.0.0.1:{port} http2"),
                };
                let tls = certs.map_or_else(String::new, |certs| {
                    let (cert, key) = (certs.cert.display(), certs.key.display());
                    format!("ssl_certificate {cert}; ssl_certificate_key {key};")
                });
                command.arg("-c").arg(nginx_conf_with(dir, name, &listen, "127.0.0.1:1", &tls)?);
                command.args(["-e", "stderr"]);
            }
            Self::Node(protocol) => {
                command = Command::new(paths::need("node")?);
                command.arg(paths::app("secure.js")).args(["server", &port_text, protocol.name()]);
                match certs {
                    Some(certs) => command.arg(&certs.cert).arg(&certs.key),
                    None => command.args(["", ""]),
                };
            }
            Self::Threaded | Self::Asyncio => {
                let kind = if self == Self::Threaded { "threaded" } else { "asyncio" };
                command = Command::new(toolbox::python()?);
                command.arg(paths::app("secure.py")).args(["server", &port_text, kind]);
                let certs = certs.context("this server has no mode without TLS")?;
                command.arg(&certs.cert).arg(&certs.key);
            }
            Self::Rpc => {
                command = Command::new(toolbox::python()?);
                command.arg(paths::app("rpc.py")).args(["server", &port_text]);
                if let Some(certs) = certs {
                    command.arg(&certs.cert).arg(&certs.key);
                }
            }
            Self::Nghttpd(protocol) => {
                command = Command::new(paths::need("nghttpd")?);
                command.args(["-a", "127.0.0.1", "-d"]).arg(dir).arg(&port_text);
                match (protocol, certs) {
                    (Protocol::H2, Some(certs)) => command.arg(&certs.key).arg(&certs.cert),
                    _ => command.arg("--no-tls"),
                };
            }
        }
        if let Some((next, protocol)) = next {
            command.arg(protocol.url(next.port));
            command.args(certs.iter().map(|certs| &certs.ca));
        }
        command.env("OTEL_SERVICE_NAME", name).current_dir(dir);
        let mut proc = Proc::start(name, &mut command, dir)?;
        if !matches!(self, Self::Nginx(_) | Self::Nghttpd(_)) {
            proc.wait_line("ready", START)?;
        }
        let app = App { name: name.to_owned(), port, proc };
        app.target()
            .wait(START)
            .with_context(|| format!("{name} takes no connections:\n{}", app.proc.tail()))?;
        Ok(app)
    }
}

/// A client; each asks for `/leaf/1` to `/leaf/REQUESTS`, but for gRPC, which calls every method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaker {
    /// Node.
    Node(Protocol),
    /// Python's requests: a thread per connection.
    Requests,
    /// aiohttp.
    Aiohttp,
    /// httpx: HTTP/2 over TLS, one connection.
    Httpx,
    /// grpcio.
    Rpc,
}

impl Speaker {
    /// Starts it. Without certificates it speaks in clear.
    pub fn start(
        self,
        server: &App,
        requests: u64,
        [connections, streams]: [usize; 2],
        certs: Option<&Certs>,
        dir: &Path,
    ) -> Result<Client> {
        let (name, script, kind, protocol) = match self {
            Self::Node(protocol) => ("node-client", "secure.js", protocol.name(), protocol),
            Self::Requests => ("requests-client", "secure.py", "requests", Protocol::Https),
            Self::Aiohttp => ("aiohttp-client", "secure.py", "aiohttp", Protocol::Https),
            Self::Httpx => ("httpx-client", "secure.py", "httpx", Protocol::H2),
            Self::Rpc => ("grpcio-client", "rpc.py", "", Protocol::H2c),
        };
        let python = script.ends_with(".py");
        let mut command = Command::new(if python { toolbox::python()? } else { paths::need("node")? });
        command.arg(paths::app(script)).arg("client");
        if self == Self::Rpc {
            let host = if certs.is_some() { "localhost" } else { "127.0.0.1" };
            command.arg(format!("{host}:{}", server.port));
        } else {
            command.arg(protocol.url(server.port)).arg(kind);
        }
        command.arg(requests.to_string());
        if python && self != Self::Rpc {
            command.arg((connections * streams).to_string());
        } else {
            command.args([connections.to_string(), streams.to_string()]);
        }
        command.args(certs.iter().map(|certs| &certs.ca));
        command.env("OTEL_SERVICE_NAME", name).current_dir(dir);
        Client::start(name, &mut command, dir)
    }
}
