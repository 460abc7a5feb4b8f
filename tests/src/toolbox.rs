//! What the applications need and no Debian package brings. In: PyPI and Go modules, fetched once. Out: paths of a Python
//! with its packages, of an old OpenSSL, of the Go application and of the OpenTelemetry Collector, all kept in the build folder.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::paths;
use crate::proc::capture;

const PYPI: [&str; 9] = [
    "aiohttp==3.13.2",
    "asyncpg==0.32.0",
    "grpcio==1.85.1",
    "gunicorn==23.0.0",
    "httpx[http2]==0.28.1",
    "psycopg[binary]==3.3.9",
    "psycopg2-binary==2.9.13",
    "redis==8.1.0",
    "requests==2.34.2",
];
/// The last one that carries OpenSSL 1.1 for Python 3.11.
const OPENSSL_1_1: &str = "psycopg2-binary==2.9.5";
const COLLECTOR: &str = "v0.155.0";

/// A Python interpreter that has aiohttp, grpcio, gunicorn, httpx and requests, and clients of PostgreSQL and Redis.
pub fn python() -> Result<PathBuf> {
    let dir = paths::cache()?.join("venv");
    let python = dir.join("bin/python");
    let mark = dir.join(PYPI.join(" ").replace('=', "-"));
    if !mark.exists() {
        capture(Command::new(paths::need("python3")?).args(["-m", "venv", "--clear"]).arg(&dir)).context(
            "cannot make a Python environment (is python3-venv installed? run `cargo xtask setup`)",
        )?;
        capture(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--no-input"]).args(PYPI))
            .context("cannot install packages with pip")?;
        fs::write(&mark, "")?;
    }
    Ok(python)
}

/// A folder with the libssl and libcrypto of OpenSSL 1.1.1, which distributions no longer have: a package for Python brought its own.
pub fn openssl_1_1() -> Result<PathBuf> {
    let dir = paths::cache()?.join("openssl-1.1");
    let libraries = dir.join("psycopg2_binary.libs");
    let mark = dir.join("complete");
    if !mark.exists() {
        let python = python()?;
        fs::create_dir_all(&dir)?;
        let mut fetch = Command::new(&python);
        fetch.args(["-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--only-binary", ":all:"]);
        // Of these versions, whatever Python runs here.
        fetch.args(["--python-version", "3.11", "--platform", "manylinux_2_17_x86_64", "--dest"]).arg(&dir);
        capture(fetch.arg(OPENSSL_1_1)).context("cannot fetch OpenSSL 1.1 with pip")?;
        let wheel = fs::read_dir(&dir)?.flatten().map(|entry| entry.path());
        let wheel = wheel.filter(|path| path.extension().is_some_and(|end| end == "whl")).max();
        let wheel = wheel.context("pip has fetched no wheel with OpenSSL 1.1")?;
        capture(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&dir))
            .context("cannot unpack OpenSSL 1.1")?;
        fs::write(&mark, "")?;
    }
    Ok(libraries)
}

/// A program of PostgreSQL, the newest that is installed. Debian keeps them off the PATH.
pub fn postgres(program: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let path = entry.path().join("bin").join(program);
        path.exists().then_some((version, path))
    });
    let newest = found.max().map(|(_, path)| path);
    newest.with_context(|| format!("PostgreSQL's `{program}` is not installed: run `cargo xtask setup`"))
}

/// The Redis server. Debian's `redis-tools` holds it under the name of one of its tools, without the service that the package
/// `redis-server` starts; what it is called decides what it does.
pub fn redis_server() -> Result<PathBuf> {
    if let Some(installed) = paths::which("redis-server") {
        return Ok(installed);
    }
    let link = paths::cache()?.join("redis-server");
    if !link.exists() {
        let tool = paths::need("redis-check-rdb")?;
        std::os::unix::fs::symlink(&tool, &link)
            .with_context(|| format!("cannot make {} a link to {}", link.display(), tool.display()))?;
    }
    Ok(link)
}

/// The Go compiler: the one that setup fetched, or the installed one.
pub fn go() -> Result<PathBuf> {
    let own = paths::cache()?.join("go/bin/go");
    if own.exists() { Ok(own) } else { paths::need("go") }
}

/// The Go application, built.
pub fn goapp() -> Result<PathBuf> {
    let built = paths::cache()?.join("goapp");
    let source = paths::app("goapp");
    let changed = fs::metadata(source.join("main.go"))?.modified()?;
    if fs::metadata(&built).and_then(|data| data.modified()).is_ok_and(|time| time > changed) {
        return Ok(built);
    }
    capture(Command::new(go()?).arg("build").arg("-o").arg(&built).arg(".").current_dir(&source))
        .context("cannot build tests/apps/goapp")?;
    Ok(built)
}

/// A real OpenTelemetry Collector with an OTLP receiver and the debug exporter.
pub fn collector() -> Result<PathBuf> {
    let dir = paths::cache()?.join(format!("collector-{COLLECTOR}"));
    let built = dir.join("out/otelcol");
    if built.exists() {
        return Ok(built);
    }
    fs::create_dir_all(&dir)?;
    let builder = format!("go.opentelemetry.io/collector/cmd/builder@{COLLECTOR}");
    capture(Command::new(go()?).args(["install", &builder]).env("GOBIN", &dir))
        .context("cannot build the collector's builder")?;
    let manifest = format!(
        "dist:\n  name: otelcol\n  output_path: ./out\n  version: {version}\n\
         receivers:\n  - gomod: go.opentelemetry.io/collector/receiver/otlpreceiver {COLLECTOR}\n\
         processors:\n  - gomod: go.opentelemetry.io/collector/processor/batchprocessor {COLLECTOR}\n\
         exporters:\n  - gomod: go.opentelemetry.io/collector/exporter/debugexporter {COLLECTOR}\n",
        version = COLLECTOR.trim_start_matches('v'),
    );
    fs::write(dir.join("builder.yaml"), manifest)?;
    let mut command = Command::new(dir.join("builder"));
    command.args(["--config", "builder.yaml"]).current_dir(&dir);
    let go_dir = go()?.parent().map(PathBuf::from).unwrap_or_default();
    let path = std::env::join_paths(
        [go_dir].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    capture(command.env("PATH", path)).context("cannot build the collector")?;
    Ok(built)
}
