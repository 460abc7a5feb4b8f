//! The applications that are traced. In: a kind, a port, where the next server is. Out: a running server that is ready.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::load::Target;
use crate::proc::Proc;
use crate::{paths, toolbox};

/// Longest time that an application may take to start.
const START: Duration = Duration::from_secs(20);

/// A kind of application. Where there is a mode, the application's own help says what it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// nginx: `/` answers at once, `/work/` goes upstream.
    Nginx,
    /// Python, a thread per connection.
    Threaded,
    /// gunicorn with threads.
    Gunicorn,
    /// aiohttp.
    Asyncio(&'static str),
    /// Node.
    Node(&'static str),
    /// Go.
    Go(&'static str),
    /// The JDK's server with a thread pool.
    Java,
}

impl Kind {
    /// Name of it, also its service name where it has an environment of its own.
    pub fn name(self) -> String {
        match self {
            Self::Nginx => "nginx".into(),
            Self::Threaded => "python-threaded".into(),
            Self::Gunicorn => "gunicorn".into(),
            Self::Asyncio(mode) => format!("asyncio-{mode}"),
            Self::Node(mode) => format!("node-{mode}"),
            Self::Go(mode) => format!("go-{mode}"),
            Self::Java => "java".into(),
        }
    }

    /// Whether this machine has what it needs.
    pub fn available(self) -> bool {
        match self {
            Self::Java => paths::which("java").is_some(),
            _ => true,
        }
    }
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    /// What kind.
    pub kind: Kind,
    /// Name of it; its output files and its service are called so.
    pub name: String,
    /// The next server, as `127.0.0.1:PORT` or, for nginx, `unix:PATH`.
    pub downstream: Option<String>,
    /// The unix socket that gunicorn listens on, in place of a port.
    pub socket: Option<PathBuf>,
    /// Longest random delay of `/leaf/`.
    pub delay_ms: u32,
    /// Folder for its files.
    pub dir: &'a Path,
}

impl<'a> Setup<'a> {
    /// One of this kind, with nothing behind it.
    pub fn new(kind: Kind, dir: &'a Path) -> Self {
        Self { kind, name: kind.name(), downstream: None, socket: None, delay_ms: 0, dir }
    }

    /// Calls this application.
    pub fn calling(mut self, next: &App) -> Self {
        self.downstream = Some(next.address());
        self
    }

    /// Calls what listens on this unix socket (nginx only).
    pub fn calling_socket(mut self, socket: &Path) -> Self {
        self.downstream = Some(format!("unix:{}", socket.display()));
        self
    }

    /// Listens on this unix socket (gunicorn only).
    pub fn on_socket(mut self, socket: &Path) -> Self {
        self.socket = Some(socket.to_owned());
        self
    }

    /// With another name.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// `/leaf/` takes a random time of at most this.
    pub fn delayed(mut self, milliseconds: u32) -> Self {
        self.delay_ms = milliseconds;
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Result<App> {
        let port = paths::free_port()?;
        let mut command = self.command(port)?;
        command.env("OTEL_SERVICE_NAME", &self.name).current_dir(self.dir);
        let mut proc = Proc::start(&self.name, &mut command, self.dir)?;
        if self.kind != Kind::Nginx {
            proc.wait_line("ready", START)?;
        }
        let app = App { name: self.name, port, proc };
        self.socket
            .map_or_else(|| app.target(), Target::Unix)
            .wait(START)
            .with_context(|| format!("{} takes no connections:\n{}", app.name, app.proc.tail()))?;
        Ok(app)
    }

    fn command(&self, port: u16) -> Result<Command> {
        let port_text = port.to_string();
        let url = self.downstream.as_ref().map(|address| format!("http://{address}"));
        let delay = self.delay_ms.to_string();
        let mut command;
        match self.kind {
            Kind::Nginx => {
                command = Command::new(paths::need("nginx")?);
                let listen = format!("127.0.0.1:{port}");
                let upstream = self.downstream.as_deref().unwrap_or("127.0.0.1:1");
                command.arg("-c").arg(nginx_conf(self.dir, &self.name, &listen, upstream)?);
                command.args(["-e", "stderr"]);
            }
            Kind::Threaded => {
                command = Command::new(toolbox::python()?);
                command.arg(paths::app("threaded.py")).args([&port_text, "--delay-ms", &delay]);
                command.args(url.iter().flat_map(|url| ["--downstream", url]));
            }
            Kind::Gunicorn => {
                command = Command::new(toolbox::python()?);
                command.args([
                    "-m",
                    "gunicorn",
                    "--workers",
                    "1",
                    "--threads",
                    "64",
                    "--worker-class",
                    "gthread",
                ]);
                command.args([
                    "--keep-alive",
                    "75",
                    "--worker-connections",
                    "512",
                    "--config",
                    "python:gunicorn_ready",
                ]);
                let tcp = || format!("127.0.0.1:{port}");
                let bind = self.socket.as_ref().map_or_else(tcp, |path| format!("unix:{}", path.display()));
                command.args(["--bind", &bind, "wsgi:application"]);
                command.env("PYTHONPATH", paths::app("")).env("PYTHONDONTWRITEBYTECODE", "1");
                command.env("DOWNSTREAM", url.unwrap_or_default());
            }
            Kind::Asyncio(mode) => {
                command = Command::new(toolbox::python()?);
                command.arg(paths::app("asyncio_app.py")).args([&port_text, "--mode", mode]);
                command.args(url.iter().flat_map(|url| ["--downstream", url]));
            }
            Kind::Node(mode) => {
                command = Command::new(paths::need("node")?);
                command.arg(paths::app("app.js")).args([&port_text, &url.unwrap_or_default(), mode]);
            }
            Kind::Go(mode) => {
                command = Command::new(toolbox::goapp()?);
                command.args(["-port", &port_text, "-mode", mode, "-delay-ms", &delay]);
                command.args(url.iter().flat_map(|url| ["-downstream", url]));
            }
            Kind::Java => {
                command = Command::new(paths::need("java")?);
                command.arg(paths::app("App.java")).arg(&port_text).args(url);
            }
        }
        Ok(command)
    }
}

/// Writes the configuration of an nginx, and its static file of 100,000 bytes.
pub fn nginx_conf(dir: &Path, name: &str, listen: &str, upstream: &str) -> Result<std::path::PathBuf> {
    nginx_conf_with(dir, name, listen, upstream, "")
}

/// The same with more lines in the server's block, for TLS.
pub fn nginx_conf_with(dir: &Path, name: &str, listen: &str, upstream: &str, more: &str) -> Result<PathBuf> {
    let own = dir.join(format!("{name}.d"));
    fs::create_dir_all(own.join("static/static"))?;
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| u8::try_from(n * 31 % 251).unwrap_or(0)).collect();
    fs::write(own.join("static/static/file"), bytes)?;
    let text = fs::read_to_string(paths::app("nginx.conf")).context("cannot read tests/apps/nginx.conf")?;
    let text = text
        .replace("@DIR@", &own.to_string_lossy())
        .replace("@LISTEN@", listen)
        .replace("@TLS@", more)
        .replace("@UPSTREAM@", upstream);
    let path = own.join("nginx.conf");
    // Workers would give up root, and then not reach the files.
    fs::write(&path, format!("user root;\n{text}"))?;
    Ok(path)
}

/// A running application.
pub struct App {
    /// Its name.
    pub name: String,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Its processes.
    pub proc: Proc,
}

impl App {
    /// Its address.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// As a target of load.
    pub fn target(&self) -> Target {
        Target::tcp(self.port)
    }

    /// All its processes.
    pub fn pids(&self) -> Vec<u32> {
        self.proc.pids()
    }
}

/// All processes of several applications.
pub fn pids(apps: &[&App]) -> Vec<u32> {
    apps.iter().flat_map(|app| app.pids()).collect()
}
