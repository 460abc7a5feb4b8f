//! Where things are. In: the environment. Out: paths of the workspace, the build folder, tools and free ports.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// Root of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The build folder.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Folder for what is fetched or built once for the tests.
pub fn cache() -> Result<PathBuf> {
    let dir = target().join("e2e");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// A program of the test applications.
pub fn app(name: &str) -> PathBuf {
    root().join("tests/apps").join(name)
}

static AGENT: OnceLock<PathBuf> = OnceLock::new();

/// From now on this is the agent. The first call counts.
pub fn use_agent(path: PathBuf) {
    let _ = AGENT.set(path);
}

/// The agent: the one that was named, or `SPANWISE_BIN`, or the newest build.
pub fn agent() -> Result<PathBuf> {
    if let Some(path) = AGENT.get() {
        return Ok(path.clone());
    }
    if let Some(path) = std::env::var_os("SPANWISE_BIN") {
        return Ok(path.into());
    }
    let built = ["release", "quick"].map(|profile| target().join(profile).join("spanwise"));
    built
        .into_iter()
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max()
        .map(|(_, path)| path)
        .with_context(|| {
            format!(
                "there is no agent under {}: build it with `cargo build --profile quick` or set SPANWISE_BIN",
                target().display()
            )
        })
}

/// The exerciser of system calls, built from this package.
pub fn exerciser() -> Result<PathBuf> {
    own_program("exerciser")
}

/// Our load client as a program that can be traced, built from this package.
pub fn client() -> Result<PathBuf> {
    own_program("client")
}

/// Server and client over rustls, built from this package.
pub fn rusty() -> Result<PathBuf> {
    own_program("rusty")
}

/// The maker of short-lived processes, built from this package.
pub fn churn() -> Result<PathBuf> {
    own_program("churn")
}

/// What measures a program that is not traced, built from this package.
pub fn untraced() -> Result<PathBuf> {
    own_program("untraced")
}

fn own_program(name: &str) -> Result<PathBuf> {
    ["quick", "debug"]
        .map(|profile| target().join(profile).join(name))
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("{name} is not built: run `cargo build -p spanwise-tests --bins`"))
}

/// Path of a program, as a shell would find it (with the places of system tools added).
pub fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// Path of a program that must be there.
pub fn need(name: &str) -> Result<PathBuf> {
    which(name).with_context(|| format!("`{name}` is not installed: run `cargo xtask setup`"))
}

/// A TCP port that nobody listens on.
pub fn free_port() -> Result<u16> {
    let port = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?.local_addr()?.port();
    if port == 0 {
        bail!("the kernel gave port 0");
    }
    Ok(port)
}
