//! What a VM boots: a kernel, and a first file system with just the modules that it needs to reach the host's root. In: a series
//! of kernels and Debian's archive. Out: two files below `target/vm`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use spanwise_tests::paths;
use spanwise_tests::proc::capture;

use super::archive::{Archive, Kernel, newest};
use super::scratch;

/// Modules without which there is no root; modprobe names those that they need.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
const BUSYBOX: &str = "/bin/busybox";

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// Its release, as `uname -r` says it.
    pub(super) release: String,
    /// Version of Debian's package.
    pub(super) package: String,
    /// The kernel.
    pub(super) kernel: PathBuf,
    /// The first file system.
    pub(super) initrd: PathBuf,
}

/// The newest kernel of a series, fetched unless it is here. Without the network the newest one that is here will do.
pub(super) fn get(series: &str, archive: &Archive, dir: &Path) -> Result<Image> {
    let kernels = dir.join("kernels");
    fs::create_dir_all(&kernels).with_context(|| format!("cannot make {}", kernels.display()))?;
    let here = || -> Vec<String> {
        let entries = fs::read_dir(&kernels).into_iter().flatten().flatten();
        entries.map(|entry| format!("linux-image-{}", entry.file_name().to_string_lossy())).collect()
    };
    let old = newest(here().iter().map(String::as_str), series);
    let release = match archive.newest(series)? {
        Some(kernel) if kernels.join(&kernel.release).exists() => kernel.release,
        Some(kernel) => {
            match fetch(&kernel, archive, &kernels) {
                Ok(()) => {
                    // Of a series only the newest is of use.
                    if let Some(old) = old.filter(|old| old.release != kernel.release) {
                        fs::remove_dir_all(kernels.join(old.release))?;
                    }
                    kernel.release
                }
                Err(error) => match old {
                    Some(old) => {
                        println!("vm: {error:#}; using {}, which is here", old.release);
                        old.release
                    }
                    None => return Err(error),
                },
            }
        }
        None => match old {
            Some(old) => old.release,
            None => bail!(
                "Debian's archive, as apt's configuration names it, has no kernel {series}: is the network there, and does the \
                 mirror have bullseye-security, bookworm-security and trixie-backports?"
            ),
        },
    };
    let folder = kernels.join(&release);
    let initrd = initrd(&folder)?;
    let package = fs::read_to_string(folder.join("package"))?;
    Ok(Image { release, package, kernel: folder.join("vmlinuz"), initrd })
}

/// Fetches a kernel and keeps of it what a VM needs: the rest is hundreds of megabytes.
fn fetch(kernel: &Kernel, archive: &Archive, kernels: &Path) -> Result<()> {
    println!("vm: fetching {}", kernel.packages.join(" and "));
    let whole = scratch(kernels.parent().unwrap_or(kernels))?;
    let mut version = String::new();
    for package in &kernel.packages {
        version = archive.unpack(package, whole.path())?;
    }
    // Since Debian 13 modules are below /usr only.
    let (short, long) = (whole.path().join("lib"), whole.path().join("usr/lib"));
    if !short.exists() {
        std::os::unix::fs::symlink("usr/lib", &short)?;
    }
    let places = [
        whole.path().join(format!("boot/vmlinuz-{}", kernel.release)),
        long.join(format!("modules/{}/vmlinuz", kernel.release)),
        short.join(format!("modules/{}/vmlinuz", kernel.release)),
    ];
    let vmlinuz = places.iter().find(|path| path.exists());
    let vmlinuz = vmlinuz.with_context(|| format!("the package of {} holds no kernel", kernel.release))?;
    // Whole or not at all: an interrupted run must not leave a half of it.
    let made = scratch(kernels.parent().unwrap_or(kernels))?;
    fs::copy(vmlinuz, made.path().join("vmlinuz"))?;
    modules(whole.path(), &kernel.release, &made.path().join("mod"))?;
    fs::write(made.path().join("package"), &version)?;
    fs::rename(made.keep(), kernels.join(&kernel.release))?;
    Ok(())
}

/// Copies the modules that are needed, unpacked, and writes their order.
fn modules(root: &Path, release: &str, into: &Path) -> Result<()> {
    fs::create_dir(into)?;
    if !root.join("lib/modules").join(release).join("modules.dep").exists() {
        capture(Command::new(paths::need("depmod")?).arg("-b").arg(root).arg(release))?;
    }
    let mut order: Vec<String> = Vec::new();
    for module in MODULES {
        let list = capture(Command::new(paths::need("modprobe")?).arg("-d").arg(root).args([
            "-S",
            release,
            "--show-depends",
            module,
        ]))
        .with_context(|| format!("kernel {release} has no module {module}"))?;
        // What is built in needs no file.
        for path in list.lines().filter_map(|line| line.trim().strip_prefix("insmod ")) {
            let path = path.trim();
            let (name, tool) = unpacker(path);
            if order.contains(&name) {
                continue;
            }
            let bytes = match tool {
                None => fs::read(path)?,
                Some(tool) => Command::new(paths::need(tool)?).args(["-dcq", path]).output()?.stdout,
            };
            ensure!(!bytes.is_empty(), "the module {path} cannot be unpacked");
            fs::write(into.join(&name), bytes)?;
            order.push(name);
        }
    }
    fs::write(into.join("order"), order.join("\n") + "\n")?;
    Ok(())
}

/// Name of a module's file once unpacked, and the tool that unpacks it.
fn unpacker(path: &str) -> (String, Option<&'static str>) {
    let name = path.rsplit('/').next().unwrap_or(path);
    for (end, tool) in [(".xz", "xz"), (".zst", "zstd")] {
        if let Some(short) = name.strip_suffix(end) {
            return (short.to_owned(), Some(tool));
        }
    }
    (name.to_owned(), None)
}

/// Writes the first file system: busybox, the modules and the first process's script. Takes no time, so it is made anew.
fn initrd(folder: &Path) -> Result<PathBuf> {
    let root = scratch(folder)?;
    for sub in ["bin", "proc", "sys", "dev", "host", "layer", "new", "mod"] {
        fs::create_dir(root.path().join(sub))?;
    }
    fs::copy(BUSYBOX, root.path().join("bin/busybox"))
        .with_context(|| format!("cannot copy {BUSYBOX}: run `cargo xtask setup`"))?;
    for entry in fs::read_dir(folder.join("mod"))? {
        let entry = entry?;
        fs::copy(entry.path(), root.path().join("mod").join(entry.file_name()))?;
    }
    let init = root.path().join("init");
    fs::write(&init, include_str!("init.sh"))?;
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    }
    let (made, packed) = (folder.join("initrd"), folder.join("initrd.new"));
    let names = capture(Command::new("find").arg(".").current_dir(root.path()))?;
    let mut cpio = Command::new(paths::need("cpio")?)
        .args(["-o", "-H", "newc", "--quiet"])
        .current_dir(root.path())
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&packed)?)
        .spawn()?;
    if let Some(mut input) = cpio.stdin.take() {
        use std::io::Write as _;
        input.write_all(names.as_bytes())?;
    }
    ensure!(cpio.wait()?.success(), "cpio could not pack the first file system of a VM");
    fs::rename(&packed, &made)?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_modules_are_told_by_their_names() {
        assert_eq!(unpacker("/lib/modules/6.1/kernel/fs/9p/9p.ko"), ("9p.ko".into(), None));
        assert_eq!(unpacker("/a/overlay.ko.xz"), ("overlay.ko".into(), Some("xz")));
        assert_eq!(unpacker("overlay.ko.zst"), ("overlay.ko".into(), Some("zstd")));
    }
}
