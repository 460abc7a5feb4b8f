//! The Go programs under `tests/apps/go`. In: which one, built how and by which Go, what it serves and calls. Out: a program
//! kept in the build folder under a hash of its sources, and a running server that is ready.
//!
//! `web` calls from `/work/N` to `/leaf/N` in one of these modes: direct, child, grandchild, errgroup (five calls, `/leaf/N/1`
//! to `/leaf/N/5`), pool (64 workers behind a channel), queue (the same with a buffer and `select`), list (behind a mutex), proxy
//! (httputil.ReverseProxy), timer, both (a sleep before and after the call). `rpc` calls from `/load.Work/WN` to `/load.Work/LN` (or `WN` with `-next W`) in one of: direct, child. `data` asks
//! PostgreSQL and Redis before it calls, with net/http or gin (`-framework gin`). `routers` answers by gin, echo or chi. What else they take is in their main.go.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::apps::App;
use crate::certs::Certs;
use crate::clients::Client;
use crate::proc::{Proc, capture};
use crate::{paths, toolbox};

const START: Duration = Duration::from_secs(20);

/// The oldest release of Go whose programs are read.
pub const OLDEST: &str = "1.21.13";

/// One of the programs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Program {
    /// net/http, HTTP/1 and HTTP/2, in clear and with TLS.
    Web,
    /// grpc-go.
    Rpc,
    /// pgx, database/sql, go-redis, gin.
    Data,
    /// gin, echo, chi.
    Routers,
}

/// How it is built.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Variant {
    /// Static, with symbols and DWARF.
    #[default]
    Plain,
    /// Without symbols and DWARF (`-s -w`).
    Stripped,
    /// Position-independent.
    Pie,
    /// Linked with libc.
    Cgo,
}

/// A program to build.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Build {
    /// Which.
    pub program: Program,
    /// How.
    pub variant: Variant,
    /// By which release of Go, such as `1.21.13`; `None` is the installed one. `Data` and `Routers` need 1.24.
    pub go: Option<&'static str>,
}

impl Build {
    /// With the installed Go, with symbols.
    pub fn new(program: Program) -> Self {
        Self { program, variant: Variant::Plain, go: None }
    }

    /// The program, built when its sources, or how to build it, have changed.
    pub fn path(&self) -> Result<PathBuf> {
        let name = match self.program {
            Program::Web => "web",
            Program::Rpc => "rpc",
            Program::Data => "data",
            Program::Routers => "routers",
        };
        let source = paths::app("go").join(name);
        let go = toolbox::go()?;
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        if self.go.is_none() {
            capture(Command::new(&go).arg("version").current_dir(&source))?.hash(&mut hasher);
        }
        let mut files: Vec<PathBuf> = fs::read_dir(&source)?.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files {
            fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?.hash(&mut hasher);
        }
        let folder = paths::cache()?.join("go-programs");
        let built = folder.join(format!("{name}-{:016x}", hasher.finish()));
        if built.exists() {
            return Ok(built);
        }
        fs::create_dir_all(&folder)?;
        let mut command = Command::new(go);
        command.args(["build", "-buildvcs=false"]).current_dir(&source);
        command.env("CGO_ENABLED", if self.variant == Variant::Cgo { "1" } else { "0" });
        match self.variant {
            Variant::Plain => {}
            Variant::Stripped => drop(command.arg("-ldflags=-s -w")),
            Variant::Pie => drop(command.arg("-buildmode=pie")),
            Variant::Cgo => drop(command.args(["-tags", "netcgo"])),
        }
        if let Some(version) = self.go {
            command.env("GOTOOLCHAIN", format!("go{version}"));
            // The newest grpc-go needs a newer Go.
            if self.program == Program::Rpc {
                command.arg("-modfile=old.mod");
            }
        }
        // Whole or not at all: another run may be building the same.
        let half = folder.join(format!("{name}-{}.half", std::process::id()));
        capture(command.arg("-o").arg(&half).arg("."))
            .with_context(|| format!("cannot build tests/apps/go/{name}"))?;
        fs::rename(&half, &built)?;
        Ok(built)
    }
}

/// Builds what the suites start, so that no case waits for the compiler: minutes the first time, nothing later.
pub fn prepare() -> Result<()> {
    for program in [Program::Web, Program::Rpc, Program::Data, Program::Routers] {
        Build::new(program).path()?;
    }
    Build { program: Program::Rpc, variant: Variant::Stripped, go: Some(OLDEST) }.path()?;
    Ok(())
}

/// A server to start.
#[derive(Clone, Debug)]
pub struct GoApp<'a> {
    build: Build,
    name: String,
    dir: &'a Path,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl<'a> GoApp<'a> {
    /// A server of this mode, with nothing behind it.
    pub fn new(program: Program, mode: &str, dir: &'a Path) -> Self {
        let (arguments, name) = match program {
            Program::Data => (vec!["-framework".into(), mode.into()], format!("go-data-{mode}")),
            Program::Routers => (vec!["-framework".into(), mode.into()], format!("go-{mode}")),
            Program::Web => (vec!["-mode".into(), mode.into()], format!("go-{mode}")),
            Program::Rpc => (vec!["-mode".into(), mode.into()], format!("go-rpc-{mode}")),
        };
        Self { build: Build::new(program), name, dir, arguments, environment: Vec::new() }
    }

    /// Built in another way.
    pub fn built(mut self, variant: Variant) -> Self {
        self.build.variant = variant;
        self
    }

    /// Built by another release of Go.
    pub fn by(mut self, go: &'static str) -> Self {
        self.build.go = Some(go);
        self
    }

    /// With another name; its output files and its service are called so.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// More arguments.
    pub fn arg(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// One more variable, such as `GODEBUG`.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Serves TLS.
    pub fn tls(self, certs: &Certs) -> Self {
        let (cert, key) = (certs.cert.display().to_string(), certs.key.display().to_string());
        self.arg(&["-cert", &cert, "-key", &key])
    }

    /// Serves, and calls by, HTTP/2 (`Web` only).
    pub fn http2(self) -> Self {
        self.arg(&["-http", "2"])
    }

    /// What carries the number answers after a random time of at most this.
    pub fn delayed(self, milliseconds: u32) -> Self {
        self.arg(&["-delay-ms", &milliseconds.to_string()])
    }

    /// Calls this server in clear.
    pub fn calling(self, next: &App) -> Self {
        let address = next.address();
        if self.build.program == Program::Rpc {
            return self.arg(&["-downstream", &address]);
        }
        self.arg(&["-downstream", &format!("http://{address}")])
    }

    /// Calls this server with TLS.
    pub fn calling_tls(self, next: &App, certs: &Certs) -> Self {
        let ca = certs.ca.display().to_string();
        let address = format!("localhost:{}", next.port);
        let address = if self.build.program == Program::Rpc { address } else { format!("https://{address}") };
        self.arg(&["-downstream", &address, "-ca", &ca])
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Result<App> {
        let port = paths::free_port()?;
        let mut command = self.command()?;
        command.args(["-port", &port.to_string()]);
        let mut proc = Proc::start(&self.name, &mut command, self.dir)?;
        proc.wait_line("ready", START)?;
        Ok(App { name: self.name, port, proc })
    }

    /// Starts it as a client (see [`Self::client_of`]).
    pub fn start_client(self) -> Result<Client> {
        let mut command = self.command()?;
        Client::start(&self.name, &mut command, self.dir)
    }

    /// A client that makes so many requests, so many at once over so many connections (`Rpc` and HTTP/2) or, with HTTP/1, over
    /// as many as it makes at once.
    pub fn client_of(
        program: Program,
        requests: u64,
        connections: usize,
        streams: usize,
        dir: &'a Path,
    ) -> Result<Self> {
        let client =
            Self::new(program, "client", dir).named(&format!("go-{program:?}-client").to_lowercase());
        let (requests, connections_text) = (requests.to_string(), connections.to_string());
        let client = client.arg(&["-requests", &requests, "-connections", &connections_text]);
        Ok(match program {
            Program::Web => client.arg(&["-at-once", &(connections * streams).to_string()]),
            Program::Rpc => client.arg(&["-streams", &streams.to_string()]),
            Program::Data | Program::Routers => bail!("this program is no client"),
        })
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(self.build.path()?);
        command.args(&self.arguments).envs(self.environment.iter().cloned());
        command.env("OTEL_SERVICE_NAME", &self.name).current_dir(self.dir);
        Ok(command)
    }
}
