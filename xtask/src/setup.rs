//! `setup`: what building and testing need. In: the state of the machine. Out: missing Debian packages, the BPF toolchain
//! and bpf-linker installed; nothing done when all is there.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use spanwise_tests::cleanup::Undo;
use spanwise_tests::paths;
use spanwise_tests::proc::capture;

use crate::run::{self, Options};

const LINKER: &str = "0.13.0";
const GO_MODULE: &str = "golang.org/toolchain@v0.0.1-go1.25.5.linux-amd64";
/// Oldest Rust under /usr that builds the BPF side.
const RUST_MINOR: u32 = 95;
const LLVM: &str = "/usr/lib/llvm-22";

/// How one finds out that something is there.
enum Seen {
    /// A program on the PATH.
    Program(&'static str),
    /// A file.
    File(&'static str),
    /// A compiler or cargo of Rust 1.95 or newer: a distribution's first one may be years older.
    Rust(&'static str),
    /// A Python module can be imported.
    Python(&'static str),
}

/// Debian package, what shows that it is not needed, and what it is for.
const PACKAGES: &[(&str, Seen, &str)] = &[
    (
        "rustc-web",
        Seen::Rust("/usr/bin/rustc"),
        "a Rust compiler whose sources can be had, to build the BPF side",
    ),
    ("cargo-web", Seen::Rust("/usr/bin/cargo"), "the cargo that goes with it"),
    ("rust-web-src", Seen::File("/usr/lib/rustlib/src/rust/library/core/Cargo.toml"), "those sources"),
    ("llvm-22-dev", Seen::File("/usr/lib/llvm-22/bin/llvm-config"), "LLVM, for bpf-linker"),
    ("libpolly-22-dev", Seen::File("/usr/lib/llvm-22/lib/libPolly.a"), "LLVM, for bpf-linker"),
    ("zlib1g-dev", Seen::File("/usr/include/zlib.h"), "to build bpf-linker"),
    ("libzstd-dev", Seen::File("/usr/include/zstd.h"), "to build bpf-linker"),
    ("libxml2-dev", Seen::File("/usr/include/libxml2/libxml/xmlversion.h"), "to build bpf-linker"),
    ("gcc", Seen::Program("cc"), "to link"),
    ("libc6-dev", Seen::File("/usr/include/stdlib.h"), "to link"),
    ("nginx-light", Seen::Program("nginx"), "a server to trace"),
    ("wrk", Seen::Program("wrk"), "the load generator"),
    ("curl", Seen::Program("curl"), "a client to trace"),
    ("wget", Seen::Program("wget"), "a client to trace, with GnuTLS"),
    ("gnutls-bin", Seen::Program("gnutls-cli"), "a client to trace, with GnuTLS"),
    ("nghttp2-client", Seen::Program("h2load"), "load and a client of HTTP/2"),
    ("nghttp2-server", Seen::Program("nghttpd"), "a server of HTTP/2 to trace"),
    ("python3", Seen::Program("python3"), "applications to trace"),
    ("python3-venv", Seen::Python("ensurepip, venv"), "a folder of its own for what comes from PyPI"),
    ("nodejs", Seen::Program("node"), "applications to trace"),
    ("bpftool", Seen::Program("bpftool"), "to see what is left in the kernel, and what BPF costs"),
    ("iproute2", Seen::Program("ip"), "network namespaces for the tests"),
    ("nftables", Seen::Program("nft"), "address translation for the tests"),
    // The server is among its tools; the package `redis-server` would start a service.
    ("redis-tools", Seen::Program("redis-check-rdb"), "a server that does not speak HTTP"),
    ("postgresql-15", Seen::File("/usr/lib/postgresql/15/bin/initdb"), "a server that does not speak HTTP"),
    ("util-linux", Seen::Program("setpriv"), "to run the agent without privileges in a test"),
    ("qemu-system-x86", Seen::Program("qemu-system-x86_64"), "other kernels, in VMs"),
    // The package of the same program that needs libraries would not do.
    ("busybox-static", Seen::File("/var/lib/dpkg/info/busybox-static.list"), "the first programs in a VM"),
    ("cpio", Seen::Program("cpio"), "to pack a VM's first file system"),
    ("kmod", Seen::Program("modprobe"), "to find the modules that a VM needs"),
    ("xz-utils", Seen::Program("xz"), "to unpack modules"),
    ("zstd", Seen::Program("zstd"), "to unpack modules"),
];

/// The `setup` task.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    Options::new(arguments).finish()?;
    let done = [packages()?, go()?, toolchain()?, linker()?];
    if done.contains(&true) {
        println!("setup: done");
    } else {
        println!("setup: everything is there");
    }
    Ok(())
}

fn there(seen: &Seen) -> bool {
    match seen {
        Seen::Program(name) => paths::which(name).is_some(),
        Seen::File(path) => Path::new(path).exists(),
        Seen::Rust(path) => capture(Command::new(path).arg("--version"))
            .is_ok_and(|version| rust_minor(&version).is_some_and(|minor| minor >= RUST_MINOR)),
        Seen::Python(modules) => {
            capture(Command::new("python3").args(["-c", &format!("import {modules}")])).is_ok()
        }
    }
}

fn packages() -> Result<bool> {
    let missing: Vec<_> = PACKAGES.iter().filter(|(_, seen, _)| !there(seen)).collect();
    let names: Vec<&str> = missing.iter().map(|(name, ..)| *name).collect();
    for (name, _, why) in &missing {
        println!("setup: installing {name}: {why}");
    }
    apt(&names)?;
    Ok(!names.is_empty())
}

fn apt(names: &[&str]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    if paths::which("apt-get").is_none() {
        bail!(
            "there is no apt-get on this machine, so nothing can be installed: install what these packages of Debian hold by \
             hand: {}",
            names.join(" ")
        );
    }
    run::need_root(&format!("installing {}", names.join(", ")))?;
    let _quiet = no_services()?;
    run::run(Command::new("apt-get").args(["update", "-qq"]))?;
    run::run(
        Command::new("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(names)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .context(
        "apt-get could not install what is missing; on Debian 12 compiler and LLVM come from bookworm-security, so that must be \
         among its sources",
    )
}

/// While this is held, packages that bring a service (PostgreSQL) do not start it: the tests run servers of their own.
fn no_services() -> Result<Option<Undo>> {
    const POLICY: &str = "/usr/sbin/policy-rc.d";
    if Path::new(POLICY).exists() {
        // Somebody decided already.
        return Ok(None);
    }
    std::fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
    std::fs::set_permissions(POLICY, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(Some(Undo::new(|| {
        if let Err(error) = std::fs::remove_file(POLICY) {
            eprintln!("cannot remove {POLICY}, which keeps packages from starting services: {error}");
        }
    })))
}

/// Go is taken as installed when it is new enough to fetch others by itself (1.21); else one is fetched as a module.
fn go() -> Result<bool> {
    let have = |go: &Path| {
        capture(Command::new(go).arg("version").env("GOTOOLCHAIN", "local"))
            .ok()
            .and_then(|text| go_minor(&text))
    };
    let private = paths::cache()?.join("go/bin/go");
    if private.exists() || paths::which("go").is_some_and(|go| have(&go).is_some_and(|minor| minor >= 21)) {
        return Ok(false);
    }
    if paths::which("go").is_none() {
        println!("setup: installing golang-go: applications to trace, and the OpenTelemetry Collector");
        apt(&["golang-go"])?;
    }
    println!("setup: fetching {GO_MODULE}: the collector needs a newer Go than the installed one");
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("go.mod"), "module fetch\n")?;
    let mut download = Command::new("go");
    download.args(["mod", "download", "-json", GO_MODULE]).current_dir(dir.path()).env("GOFLAGS", "-mod=mod");
    let answer: serde_json::Value = serde_json::from_str(&capture(&mut download)?)?;
    let folder = answer.get("Dir").and_then(serde_json::Value::as_str).context("go named no folder")?;
    // Modules are stored without their executable bits.
    run::run(
        Command::new("chmod")
            .args(["-R", "+x"])
            .args(["bin", "pkg/tool"].map(|sub| format!("{folder}/{sub}"))),
    )?;
    std::os::unix::fs::symlink(folder, paths::cache()?.join("go"))?;
    Ok(true)
}

/// The N of "rustc 1.N.P (...)".
fn rust_minor(version: &str) -> Option<u32> {
    version.split_whitespace().nth(1)?.strip_prefix("1.")?.split('.').next()?.parse().ok()
}

/// The N of "go version go1.N.P".
fn go_minor(version: &str) -> Option<u32> {
    version.split_whitespace().find_map(|word| word.strip_prefix("go1."))?.split('.').next()?.parse().ok()
}

fn toolchain() -> Result<bool> {
    if paths::which("rustup").is_none() {
        // The build then takes the cargo of the PATH, which must be the one with sources.
        if let Some(cargo) = paths::which("cargo").filter(|path| path != Path::new("/usr/bin/cargo")) {
            println!(
                "setup: there is no rustup, and the cargo in use is {}, without the sources that the BPF side needs: build \
                 with `PATH=/usr/bin:$PATH cargo build --release`",
                cargo.display()
            );
        }
        return Ok(false);
    }
    // A name that leads nowhere any more is given again.
    if capture(Command::new("rustup").args(["run", "debian-bpf", "rustc", "--version"])).is_ok() {
        return Ok(false);
    }
    println!("setup: naming the compiler under /usr `debian-bpf`, for the BPF side");
    run::run(Command::new("rustup").args(["toolchain", "link", "debian-bpf", "/usr"]))?;
    Ok(true)
}

/// The bpf-linker that programs find on this PATH, as it names itself ("bpf-linker 0.13.0").
fn linker_on(path: &OsStr) -> Option<String> {
    let found = std::env::split_paths(path).map(|dir| dir.join("bpf-linker")).find(|file| file.is_file())?;
    Some(capture(Command::new(found).arg("--version")).unwrap_or_default().trim().to_owned())
}

fn is_wanted(version: &str) -> bool {
    version.split_whitespace().any(|word| word == LINKER)
}

fn linker() -> Result<bool> {
    let found = linker_on(&run::path_with_tools());
    let missing = !found.as_deref().is_some_and(is_wanted);
    if missing {
        let instead = match found.as_deref() {
            None => String::new(),
            Some("") => ", in place of one that does not run".to_owned(),
            Some(other) => format!(", in place of {other}"),
        };
        println!("setup: installing bpf-linker {LINKER}{instead}: it links the BPF side (a minute or two)");
        // Also over one that cargo did not install.
        run::run(
            run::cargo()
                .args(["install", "bpf-linker", "--version", LINKER, "--locked", "--force"])
                .args(["--no-default-features", "--features", "llvm-22"])
                .env("LLVM_PREFIX", LLVM)
                .env("LIBRARY_PATH", format!("{LLVM}/lib")),
        )?;
    }
    // The tasks put cargo's folder in front; a build by hand takes what its own PATH has.
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !linker_on(&path).as_deref().is_some_and(is_wanted) {
        println!(
            "setup: your PATH does not lead to bpf-linker {LINKER}: build with `PATH={}:$PATH cargo build --release`",
            run::cargo_home().join("bin").display()
        );
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_says_what_it_is_for() {
        for (name, _, why) in PACKAGES {
            assert!(!why.is_empty(), "{name}");
        }
    }

    #[test]
    fn go_versions_are_read() {
        assert_eq!(go_minor("go version go1.19.8 linux/amd64"), Some(19));
        assert_eq!(go_minor("go version go1.26 linux/amd64"), Some(26));
        assert_eq!(go_minor("nonsense"), None);
    }

    #[test]
    fn rust_versions_are_read() {
        assert_eq!(rust_minor("rustc 1.96.0 (ac68faa20 2026-01-01) (built from a source tarball)"), Some(96));
        assert_eq!(rust_minor("cargo 1.63.0"), Some(63));
        assert_eq!(rust_minor("rustc"), None);
    }

    #[test]
    fn the_linker_on_a_path_is_asked_for_its_version() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bpf-linker");
        assert_eq!(linker_on(dir.path().as_os_str()), None);
        std::fs::write(&file, "#!/bin/sh\necho bpf-linker 0.9.5\n").unwrap();
        assert_eq!(linker_on(dir.path().as_os_str()).as_deref(), Some(""), "it cannot be run yet");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let version = linker_on(dir.path().as_os_str()).unwrap();
        assert!(version == "bpf-linker 0.9.5" && !is_wanted(&version) && is_wanted("bpf-linker 0.13.0"));
    }

    #[test]
    fn absence_is_seen() {
        assert!(!there(&Seen::Program("no-such-program-here")));
        assert!(!there(&Seen::File("/no/such/file")));
        assert!(there(&Seen::Program("sh")));
    }
}
