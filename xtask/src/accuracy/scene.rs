//! What is measured, and how it is set. In: a program, how many requests, how many at once. Out: running servers, what calls whom,
//! and a load that waits.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use spanwise_tests::apps::{App, Kind, Setup};
use spanwise_tests::certs::Certs;
use spanwise_tests::clients::Client;
use spanwise_tests::golang::{GoApp, Program};
use spanwise_tests::load::{Plan, Until};
use spanwise_tests::secure::{Protocol, Server};

/// Longest random time in which what is called answers.
const DELAY_MS: u32 = 10;
/// Longest time that a client may take.
const LIMIT: Duration = Duration::from_secs(240);

/// A program.
#[derive(Clone, Copy)]
pub(super) enum Measured {
    /// One of the small servers.
    App(Kind),
    /// The Go program `web`, in a mode, by a release of Go.
    Go(&'static str, Option<&'static str>),
    /// The same with TLS on both sides.
    GoTls(&'static str),
    /// Three servers of gRPC in a row; the calls of the first two count.
    Rpc {
        /// A goroutine of the handler calls, and not its own.
        child: bool,
        /// With TLS everywhere.
        tls: bool,
    },
    /// A server that speaks TLS on both sides.
    Secure(Server),
}

/// Program, calls that each of its requests makes.
const PROGRAMS: &[(Kind, u64)] = &[
    (Kind::Threaded, 1),
    (Kind::Gunicorn, 1),
    (Kind::Java, 1),
    (Kind::Nginx, 1),
    (Kind::Node("callback"), 1),
    (Kind::Node("before"), 1),
    (Kind::Node("all"), 3),
    (Kind::Node("both"), 1),
    (Kind::Asyncio("direct"), 1),
    (Kind::Asyncio("before"), 1),
    (Kind::Asyncio("both"), 1),
    (Kind::Go("direct"), 1),
    (Kind::Go("child"), 1),
    (Kind::Go("both"), 1),
];
/// Program, calls that each of its requests makes.
const OTHERS: &[(Measured, u64)] = &[
    (Measured::Go("direct", None), 1),
    (Measured::Go("child", None), 1),
    (Measured::Go("grandchild", None), 1),
    (Measured::Go("errgroup", None), 5),
    (Measured::Go("pool", None), 1),
    (Measured::Go("proxy", None), 1),
    (Measured::Go("timer", None), 1),
    (Measured::Go("both", None), 1),
    (Measured::Go("child", Some("1.21.13")), 1),
    (Measured::GoTls("direct"), 1),
    (Measured::GoTls("child"), 1),
    (Measured::GoTls("grandchild"), 1),
    (Measured::GoTls("errgroup"), 5),
    (Measured::GoTls("pool"), 1),
    (Measured::GoTls("proxy"), 1),
    (Measured::Rpc { child: false, tls: false }, 1),
    (Measured::Rpc { child: true, tls: false }, 1),
    (Measured::Rpc { child: false, tls: true }, 1),
    (Measured::Secure(Server::Threaded), 1),
    (Measured::Secure(Server::Asyncio), 1),
    (Measured::Secure(Server::Node(Protocol::Https)), 1),
];

/// What one thread serves one request at a time needs no warming up; there is little to get wrong, and it takes long.
const WARM_ALONE: u64 = 300;
/// Requests after which the agent knows a program, where it can: a few seconds of load.
const WARM: u64 = 3_000;
/// The same where only the order of an event loop's turns tells, and many requests are open.
const WARM_IN_ORDER: u64 = 9_000;

/// All of them that this machine has what it needs for, and the calls that each of their requests makes.
pub(super) fn all() -> impl Iterator<Item = (Measured, u64)> {
    let apps = PROGRAMS.iter().filter(|(kind, _)| kind.available());
    apps.map(|(kind, calls)| (Measured::App(*kind), *calls)).chain(OTHERS.iter().copied())
}

impl Measured {
    pub(super) fn name(self) -> String {
        match self {
            Self::App(kind) => kind.name(),
            Self::Go(mode, None) => format!("go-web-{mode}"),
            Self::Go(mode, Some(go)) => format!("go{go}-web-{mode}"),
            Self::GoTls(mode) => format!("go-tls-{mode}"),
            Self::Rpc { child, tls } => {
                format!("rpc{}{}", if tls { "-tls" } else { "" }, if child { "-child" } else { "" })
            }
            Self::Secure(server) => server.name(),
        }
    }

    /// Requests at once.
    pub(super) fn at_once(self) -> &'static [usize] {
        match self {
            Self::App(_) | Self::Secure(_) => &[1, 8, 64],
            Self::Go(..) | Self::GoTls(_) | Self::Rpc { .. } => &[1, 8, 64, 256],
        }
    }

    /// Requests before those that count.
    pub(super) fn warm(self, at_once: usize) -> u64 {
        match (self, at_once) {
            (_, 1) => WARM_ALONE,
            (Self::App(Kind::Asyncio(_)) | Self::Secure(Server::Asyncio), 64) => WARM_IN_ORDER,
            // Who started whom is known from the first request on.
            (Self::Go(mode, _) | Self::GoTls(mode), _) if mode != "pool" && mode != "grandchild" => 0,
            (Self::Rpc { .. }, _) => 0,
            _ => WARM,
        }
    }
}

/// A load that waits.
pub(super) enum Load {
    /// By our own client, in clear.
    Plan(Box<Plan>),
    /// By a program.
    Client(Client),
}

impl Load {
    /// Every request must be answered well.
    pub(super) fn run(&mut self) -> Result<()> {
        match self {
            Self::Plan(plan) => drop(plan.run()?.all_good()?),
            Self::Client(client) => drop(client.run(LIMIT)?),
        }
        Ok(())
    }
}

/// Running servers and the load on the first.
pub(super) struct Scene {
    apps: Vec<App>,
    /// Their names: each calls the next.
    pub(super) services: Vec<String>,
    pub(super) load: Load,
}

impl Scene {
    pub(super) fn set(kind: Measured, dir: &Path, at_once: usize, requests: u64) -> Result<Self> {
        let name = kind.name();
        let web = |mode: &str, name: &str| GoApp::new(Program::Web, mode, dir).named(name);
        match kind {
            Measured::App(of) => {
                let leaf = Setup::new(Kind::Go("direct"), dir).named("leaf").delayed(DELAY_MS).start()?;
                let app = Setup::new(of, dir).calling(&leaf).start()?;
                Ok(Self::in_clear(vec![app, leaf], at_once, requests))
            }
            Measured::Go(mode, go) => {
                let leaf = Setup::new(Kind::Go("direct"), dir).named("leaf").delayed(DELAY_MS).start()?;
                let app = go.into_iter().fold(web(mode, &name), GoApp::by).calling(&leaf).start()?;
                Ok(Self::in_clear(vec![app, leaf], at_once, requests))
            }
            Measured::GoTls(_) | Measured::Secure(_) => {
                let certs = Certs::make(dir)?;
                let leaf = web("direct", "leaf").delayed(DELAY_MS).tls(&certs).start()?;
                let app = match kind {
                    Measured::GoTls(mode) => {
                        web(mode, &name).tls(&certs).calling_tls(&leaf, &certs).start()?
                    }
                    Measured::Secure(server) => {
                        server.start(dir, Some(&certs), Some((&leaf, Protocol::Https)))?
                    }
                    _ => anyhow::bail!("{name} has no TLS"),
                };
                let client = GoApp::client_of(Program::Web, requests, 1, at_once, dir)?;
                let client = client.arg(&["-path", "/work/{n}"]).calling_tls(&app, &certs).start_client()?;
                Ok(Self::by(client, vec![app, leaf]))
            }
            Measured::Rpc { child, tls } => {
                let certs = tls.then(|| Certs::make(dir)).transpose()?;
                let server = |name: &str, next: Option<&App>| {
                    let mode = if child { "child" } else { "direct" };
                    let app = GoApp::new(Program::Rpc, mode, dir).named(name);
                    let app = certs.iter().fold(app, GoApp::tls);
                    match (next, &certs) {
                        (None, _) => app,
                        (Some(next), None) => app.calling(next),
                        (Some(next), Some(certs)) => app.calling_tls(next, certs),
                    }
                };
                let leaf = server("leaf", None).delayed(DELAY_MS).start()?;
                let middle = server("middle", Some(&leaf)).start()?;
                let front = server("front", Some(&middle)).arg(&["-next", "W"]).start()?;
                // Eight calls at once on each connection, and more from 64 on.
                let connections = (at_once / 8).clamp(1, 8);
                let client =
                    GoApp::client_of(Program::Rpc, requests, connections, at_once / connections, dir)?;
                let client = client.arg(&["-kinds", "W"]);
                let client = match &certs {
                    None => client.calling(&front),
                    Some(certs) => client.calling_tls(&front, certs),
                };
                Ok(Self::by(client.start_client()?, vec![front, middle, leaf]))
            }
        }
    }

    fn in_clear(apps: Vec<App>, at_once: usize, requests: u64) -> Self {
        let target = apps.first().map_or_else(|| spanwise_tests::load::Target::tcp(0), App::target);
        let plan = Plan::new(target, at_once, Until::Requests(requests), "/work/{n}");
        let services = apps.iter().map(|app| app.name.clone()).collect();
        Self { apps, services, load: Load::Plan(Box::new(plan)) }
    }

    fn by(client: Client, apps: Vec<App>) -> Self {
        let services = apps.iter().map(|app| app.name.clone()).collect();
        Self { apps, services, load: Load::Client(client) }
    }

    /// All processes of the servers; the client is not traced.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.apps.iter().flat_map(App::pids).collect()
    }
}
