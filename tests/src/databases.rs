//! PostgreSQL and Redis for the tests. In: a folder. Out: a server of our own on a port of our own with data of our own, loads,
//! and a digest of what it answers. Whatever the system runs as a service is neither used nor touched.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::certs::Certs;
use crate::load::{Target, body};
use crate::proc::{Proc, capture};
use crate::{paths, toolbox};

/// Longest time that a server may take to start.
const START: Duration = Duration::from_secs(20);
/// Connections of a load.
const CLIENTS: &str = "8";

/// What a load came to.
#[derive(Clone, Copy, Default, Debug)]
pub struct Load {
    /// Transactions or commands.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// A second.
    pub per_second: f64,
    /// Latency, in microseconds.
    pub p50_us: u32,
    /// See `p50_us`.
    pub p99_us: u32,
}

/// A PostgreSQL that runs as nobody, because it refuses root.
pub struct Postgres {
    /// Its first process.
    pub proc: Proc,
    port: u16,
    dir: PathBuf,
    /// Where its unix socket is: names of those have to be short.
    sockets: PathBuf,
    /// It takes TLS.
    tls: bool,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.proc.end();
        let _ = fs::remove_dir_all(&self.sockets);
    }
}

fn nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program);
    command.env_remove("PGDATA").env("HOME", "/nonexistent").current_dir("/");
    command
}

impl Postgres {
    /// Makes a cluster with the tables of pgbench and starts it.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, false)
    }

    /// The same with a certificate of its own: it grants TLS to clients that ask for it, as `url` and `waiting` make them do.
    pub fn start_tls(dir: &Path) -> Result<Self> {
        Self::start_with(dir, true)
    }

    fn start_with(dir: &Path, tls: bool) -> Result<Self> {
        let (port, data) = (paths::free_port()?, dir.join("postgres"));
        fs::create_dir_all(&data)?;
        std::os::unix::fs::chown(&data, Some(65_534), Some(65_534))?;
        // The folder of the test is root's alone; nobody has to get through it.
        capture(Command::new("chmod").arg("711").arg(dir))?;
        capture(
            nobody(&toolbox::postgres("initdb")?)
                .args(["-U", "bench", "-A", "trust", "-N", "--no-locale", "-E", "UTF8", "-D"])
                .arg(&data),
        )?;
        let sockets = std::env::temp_dir().join(format!("spanwise-pg-{port}"));
        fs::create_dir_all(&sockets)?;
        std::os::unix::fs::chown(&sockets, Some(65_534), Some(65_534))?;
        let mut command = nobody(&toolbox::postgres("postgres")?);
        command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        let socket = format!("unix_socket_directories={}", sockets.display());
        for setting in [socket.as_str(), "fsync=off", "shared_buffers=32MB", "autovacuum=off"] {
            command.args(["-c", setting]);
        }
        if tls {
            let certs = Certs::make(dir)?;
            for (file, name) in [(&certs.cert, "cert.pem"), (&certs.key, "key.pem")] {
                let own = data.join(name);
                fs::copy(file, &own)?;
                // It refuses a key that others may read.
                fs::set_permissions(&own, fs::Permissions::from_mode(0o600))?;
                std::os::unix::fs::chown(&own, Some(65_534), Some(65_534))?;
            }
            for setting in ["ssl=on", "ssl_cert_file=cert.pem", "ssl_key_file=key.pem"] {
                command.args(["-c", setting]);
            }
        }
        let proc = Proc::start("postgres", &mut command, dir)?;
        let this = Self { proc, port, dir: dir.to_owned(), sockets, tls };
        Target::tcp(port).wait(START).with_context(|| this.proc.tail())?;
        // It takes connections before it answers questions.
        let begin = Instant::now();
        while let Err(error) = capture(this.client("psql")?.args(["-X", "-c", "select 1", "postgres"])) {
            if begin.elapsed() > START {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        capture(this.client("pgbench")?.args(["-i", "-q", "-s", "1", "postgres"]))?;
        Ok(this)
    }

    /// Where programs find it.
    pub fn url(&self) -> String {
        let mode = self.ssl_mode();
        format!("postgres://bench@127.0.0.1:{}/postgres?sslmode={mode}", self.port)
    }

    fn ssl_mode(&self) -> &'static str {
        if self.tls { "require" } else { "disable" }
    }

    /// Command line of one of its clients that begins when a file is there, by TCP or by the unix socket.
    pub fn waiting(&self, program: &str, unix: bool, arguments: &str, start: &Path) -> Result<Command> {
        let program = toolbox::postgres(program)?;
        let host = if unix { self.sockets.as_path() } else { Path::new("127.0.0.1") };
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!(
            "while [ ! -e {} ]; do sleep 0.02; done; exec {} -h {} -p {} -U bench {arguments} postgres",
            start.display(),
            program.display(),
            host.display(),
            self.port
        ));
        command.current_dir(&self.dir);
        if self.tls {
            command.env("PGSSLMODE", self.ssl_mode());
        }
        Ok(command)
    }

    fn client(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(toolbox::postgres(program)?);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "bench"]).current_dir(&self.dir);
        Ok(command)
    }

    /// Reads by primary key for so many seconds.
    pub fn load(&self, seconds: u64) -> Result<Load> {
        let prefix = self.dir.join("pgbench-log");
        let mut command = self.client("pgbench")?;
        command.args(["-S", "-n", "-c", CLIENTS, "-T", &seconds.to_string(), "-l"]);
        command.arg(format!("--log-prefix={}", prefix.display())).arg("postgres");
        let text = capture(&mut command)?;
        let number = |start: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(start));
            let word =
                line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse().ok());
            word.with_context(|| format!("pgbench does not say `{start}`:\n{text}"))
        };
        let mut latencies = Vec::new();
        for entry in fs::read_dir(&self.dir)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("pgbench-log") {
                let log = fs::read_to_string(entry.path())?;
                let times = log.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<u32>().ok());
                latencies.extend(times);
                fs::remove_file(entry.path())?;
            }
        }
        latencies.sort_unstable();
        let place = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or(0);
        Ok(Load {
            requests: latencies.len() as u64,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count that was printed"
            )]
            failed: number("number of failed transactions: ")? as u64,
            per_second: number("tps = ")?,
            p50_us: place(50),
            p99_us: place(99),
        })
    }

    /// Of what it answers to one long and 300 short questions.
    pub fn digest(&self) -> Result<u64> {
        let file = self.dir.join("questions.sql");
        let mut questions = String::from("select * from pgbench_accounts order by aid limit 20000;\n");
        for n in 1..=300 {
            questions += &format!("select abalance, filler from pgbench_accounts where aid = {};\n", n * 331);
        }
        fs::write(&file, questions)?;
        let answer = capture(
            self.client("psql")?
                .args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-f"])
                .arg(&file)
                .arg("postgres"),
        )?;
        ensure!(answer.lines().count() == 20_300, "{} rows came of 20300", answer.lines().count());
        let mut hasher = DefaultHasher::new();
        answer.hash(&mut hasher);
        Ok(hasher.finish())
    }
}

/// A Redis without files.
pub struct Redis {
    /// Its process.
    pub proc: Proc,
    port: u16,
    /// Commands of each kind that take about a second.
    second: u64,
}

impl Redis {
    /// Starts it, and finds out how fast it is.
    pub fn start(dir: &Path) -> Result<Self> {
        let port = paths::free_port()?;
        let mut command = Command::new(toolbox::redis_server()?);
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        let proc = Proc::start("redis", command.current_dir(dir), dir)?;
        let mut this = Self { proc, port, second: 20_000 };
        Target::tcp(port).wait(START).with_context(|| this.proc.tail())?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate of thousands")]
        let second = this.load(1)?.per_second as u64;
        this.second = second.max(1_000);
        Ok(this)
    }

    /// Where programs find it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sets and gets for about so many seconds.
    pub fn load(&self, seconds: u64) -> Result<Load> {
        let count = (self.second * seconds / 2).max(1_000);
        let mut command = Command::new(paths::need("redis-benchmark")?);
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-c",
            CLIENTS,
            "-n",
            &count.to_string(),
        ]);
        let text = capture(command.args(["-t", "set,get", "--csv"]))?;
        let mut load = Load::default();
        let mut time = 0.0;
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let each = count as f64;
        for line in text.lines().skip(1) {
            let fields: Vec<f64> =
                line.split(',').skip(1).filter_map(|field| field.trim_matches('"').parse().ok()).collect();
            let [rate, _, _, p50, _, p99, _] = fields.as_slice() else {
                bail!("redis-benchmark said something unexpected: {text}")
            };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a latency")]
            let us = |ms: &f64| (ms * 1_000.0) as u32;
            load.p50_us = load.p50_us.max(us(p50));
            load.p99_us = load.p99_us.max(us(p99));
            load.requests += count;
            time += each / rate.max(1.0);
        }
        ensure!(load.requests == 2 * count, "redis-benchmark did not run two tests: {text}");
        load.per_second = 2.0 * each / time.max(1e-9);
        Ok(load)
    }

    /// Of what it answers to 1,000 sets and gets, each answer also compared with what it must be.
    pub fn digest(&self) -> Result<u64> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut hasher = DefaultHasher::new();
        for n in 0..1_000_u64 {
            let value = body(n, usize::try_from(1 + n * 17 % 9_000)?);
            let mut set = format!("*3\r\n$3\r\nSET\r\n$5\r\nk{n:04}\r\n${}\r\n", value.len()).into_bytes();
            set.extend(&value);
            set.extend(b"\r\n");
            stream.write_all(&set)?;
            let mut line = String::new();
            reader.read_line(&mut line)?;
            ensure!(line == "+OK\r\n", "SET was answered `{}`", line.trim());
            stream.write_all(format!("*2\r\n$3\r\nGET\r\n$5\r\nk{n:04}\r\n").as_bytes())?;
            line.clear();
            reader.read_line(&mut line)?;
            ensure!(line == format!("${}\r\n", value.len()), "GET was answered `{}`", line.trim());
            let mut answer = vec![0; value.len() + 2];
            reader.read_exact(&mut answer)?;
            ensure!(
                answer.strip_suffix(b"\r\n") == Some(&value[..]),
                "the value of k{n:04} is not what was set"
            );
            answer.hash(&mut hasher);
        }
        Ok(hasher.finish())
    }
}
