//! Servers whose bytes are encrypted or multiplexed, and how each is loaded. In: a name. Out: a running server, and the arguments
//! of h2load for it.

use std::path::Path;

use anyhow::Result;
use spanwise_tests::apps::App;
use spanwise_tests::certs::Certs;
use spanwise_tests::golang::{GoApp, Program};
use spanwise_tests::secure::{Protocol, Server};

/// What the load speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Https1,
    H2c,
    H2,
    Grpc,
}

impl Spoken {
    /// Connections, and requests at once on each.
    pub(super) fn shape(self) -> [u64; 2] {
        match self {
            Self::Http1 | Self::Https1 => [16, 1],
            Self::H2c | Self::H2 | Self::Grpc => [4, 10],
        }
    }

    pub(super) fn url(self, app: &App) -> String {
        let scheme = if matches!(self, Self::Https1 | Self::H2) { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", app.port)
    }

    pub(super) fn path(self) -> &'static str {
        if self == Self::Grpc { "/load.Work/U0" } else { "/" }
    }
}

/// A server under measurement.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) spoken: Spoken,
    /// Whether requests pass probes on user code.
    pub(super) probed: bool,
}

/// All of them.
pub(super) const ALL: [Subject; 7] = [
    Subject { name: "go-http", spoken: Spoken::Http1, probed: false },
    Subject { name: "go-https", spoken: Spoken::Https1, probed: true },
    Subject { name: "go-grpc", spoken: Spoken::Grpc, probed: true },
    Subject { name: "nginx-https", spoken: Spoken::Https1, probed: true },
    Subject { name: "node-https", spoken: Spoken::Https1, probed: true },
    Subject { name: "nginx-h2c", spoken: Spoken::H2c, probed: false },
    Subject { name: "nginx-h2", spoken: Spoken::H2, probed: true },
];

impl Subject {
    pub(super) fn start(&self, dir: &Path) -> Result<App> {
        let certs = Certs::make(dir)?;
        let secure = |server: Server| server.start_as(self.name, dir, Some(&certs), None);
        let web = || GoApp::new(Program::Web, "direct", dir).named(self.name);
        match self.name {
            "go-http" => web().start(),
            "go-https" => web().tls(&certs).start(),
            "go-grpc" => GoApp::new(Program::Rpc, "direct", dir).named(self.name).start(),
            "nginx-https" => secure(Server::Nginx(Protocol::Https)),
            "nginx-h2" => secure(Server::Nginx(Protocol::H2)),
            "nginx-h2c" => Server::Nginx(Protocol::H2c).start_as(self.name, dir, None, None),
            _ => secure(Server::Node(Protocol::Https)),
        }
    }
}
