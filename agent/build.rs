//! Builds the BPF object and hands its path to the agent.
//!
//! `SPANWISE_BPF=stub` writes an empty object instead: for checks, lints and host tests, which load nothing.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain, build_ebpf};

fn main() -> Result<()> {
    println!("cargo::rerun-if-env-changed=SPANWISE_BPF");
    println!("cargo::rerun-if-env-changed=SPANWISE_BPF_TOOLCHAIN");
    println!("cargo::rerun-if-changed=../common/src");
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR not set")?);
    if env::var("SPANWISE_BPF").as_deref() == Ok("stub") {
        return fs::write(out.join("spanwise-ebpf"), []).context("writing the stub object");
    }
    if let Some(linker) = find_in_path("bpf-linker") {
        println!("cargo::rerun-if-changed={}", linker.display());
    }
    // The BPF target needs unstable features of the compiler. Set here and not in the environment, so that the
    // crates of the agent itself are still compiled as plain stable Rust.
    // SAFETY: a build script has one thread at this point.
    #[expect(unsafe_code, reason = "set_var is unsafe since edition 2024")]
    unsafe {
        env::set_var("RUSTC_BOOTSTRAP", "1");
    }
    let toolchain = env::var("SPANWISE_BPF_TOOLCHAIN").unwrap_or_else(|_| "debian-bpf".to_owned());
    // A workspace of its own: another target, another lock file.
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR not set")?)
        .join("../ebpf")
        .canonicalize()
        .context("finding the ebpf folder")?;
    env::set_current_dir(&root).context("entering the ebpf folder")?;
    let root_dir = root.to_str().context("the path of the ebpf folder is not UTF-8")?;
    let package = Package { name: "spanwise-ebpf", root_dir, no_default_features: false, features: &[] };
    build_ebpf([package], Toolchain::Custom(&toolchain))
        .context("building the BPF programs (`cargo xtask setup` installs what this needs)")
}

fn find_in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}
