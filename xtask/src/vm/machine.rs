//! A VM. In: a kernel and a command. Out: what the command wrote, its exit code, and the files that it left in a folder that the
//! guest and we share. The guest sees the host's files, read-only, at the same paths.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use spanwise_tests::proc::{Proc, capture, last_lines};
use spanwise_tests::{cleanup, paths};

use super::archive::Archive;
use super::image::Image;

const QEMU: &str = "qemu-system-x86_64";
/// Older ones can corrupt instructions that the kernel steps over (7.2 with a thread for each processor: a Go program with
/// uprobes crashed in five of five tries; with 10.0 never).
const OLDEST: u32 = 10;

/// An emulator that can be used.
pub(super) struct Qemu {
    program: PathBuf,
    /// Folders with its firmware, if it is not installed.
    firmware: Vec<PathBuf>,
    /// Its version.
    pub(super) version: String,
}

impl Qemu {
    /// The installed one if it is new enough; else one of Debian's backports, unpacked in this folder. Its libraries are the
    /// installed one's.
    pub(super) fn get(archive: &Archive, dir: &Path) -> Result<Self> {
        let installed = paths::need(QEMU)?;
        let version = version(&capture(Command::new(&installed).arg("--version"))?);
        if major(&version).is_some_and(|major| major >= OLDEST) {
            return Ok(Self { program: installed, firmware: vec![], version });
        }
        let root = dir.join("qemu");
        if !root.exists() {
            println!(
                "vm: fetching qemu from backports: the installed {version} has faults that programs would be blamed for"
            );
            let made = super::scratch(dir)?;
            for package in ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"] {
                archive.unpack(&format!("{package}/bookworm-backports"), made.path())?;
            }
            fs::rename(made.keep(), &root)?;
        }
        let program = root.join("usr/bin").join(QEMU);
        let firmware = ["usr/share/qemu", "usr/share/seabios"].map(|sub| root.join(sub)).to_vec();
        let text = capture(Command::new(&program).arg("--version")).context(
            "the qemu of Debian's backports does not run here; install qemu 10 or newer yourself, and it will be used",
        )?;
        Ok(Self { program, firmware, version: self::version(&text) })
    }
}

/// The version in "QEMU emulator version 7.2.18 (Debian ...)".
fn version(text: &str) -> String {
    let mut words = text.split_whitespace().skip_while(|word| *word != "version");
    words.nth(1).unwrap_or("of unknown version").to_owned()
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// What a command in a VM came to.
pub(super) struct Ended {
    /// Its exit code.
    pub(super) code: i32,
    /// What it wrote.
    pub(super) output: String,
    /// The folder that was shared; gone when this is dropped.
    pub(super) folder: tempfile::TempDir,
}

/// Boots, runs a line of shell, and ends.
pub(super) fn run(qemu: &Qemu, image: &Image, command: &str, limit: Duration) -> Result<Ended> {
    let folder = tempfile::Builder::new().prefix("spanwise-vm-").tempdir()?;
    cleanup::add_folder(folder.path());
    let file = |name: &str| folder.path().join(name);
    fs::write(file("command"), command)?;
    fs::write(file("guest.sh"), include_str!("guest.sh"))?;
    let mut line = Command::new(&qemu.program);
    // No acceleration: it would need a host that lets virtual machines run, and an emulator is the same everywhere. Its time
    // is that of instructions (2 ns each), so that a host that is busy with other things makes it slow and nothing else: by
    // the host's time, threads would stand still for longer than the agent waits for anything.
    line.args(["-M", "q35", "-accel", "tcg,thread=single,tb-size=1024", "-icount", "shift=1,sleep=on"]);
    line.args(["-cpu", "max", "-smp", "2", "-m", "3G"]);
    line.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"]);
    for folder in &qemu.firmware {
        line.arg("-L").arg(folder);
    }
    line.args(["-chardev", &format!("file,id=console,path={}", file("console").display())]);
    line.args(["-serial", "chardev:console"]);
    line.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initrd);
    line.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr"]);
    line.args(["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"]);
    let share = "security_model=none,multidevs=remap";
    line.args(["-virtfs", &format!("local,path=/,mount_tag=host,readonly=on,{share}")]);
    line.args(["-virtfs", &format!("local,path={},mount_tag=vm,{share}", folder.path().display())]);
    let mut machine = Proc::start("qemu", &mut line, folder.path())?;
    let waited = machine.wait(limit);
    machine.end();
    let read = |name: &str| {
        let bytes = fs::read(file(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let output = read("out");
    let Ok(code) = read("code").trim().parse() else {
        let how =
            if waited.is_err() { format!("did not end within {limit:?}") } else { "ended early".to_owned() };
        bail!(
            "the VM with {} {how}; it wrote:\n{}{}its console ends:\n{}",
            image.release,
            last_lines(&output, 30),
            machine.tail(),
            last_lines(&read("console"), 25)
        );
    };
    Ok(Ended { code, output, folder })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let old = version("QEMU emulator version 7.2.18 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright\n");
        assert_eq!((old.as_str(), major(&old)), ("7.2.18", Some(7)));
        assert_eq!(major(&version("QEMU emulator version 10.0.2 (Debian 1)")), Some(10));
        assert_eq!(major(&version("nonsense")), None);
    }
}
