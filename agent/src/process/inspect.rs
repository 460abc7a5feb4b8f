//! One process: what it is, or why it cannot be traced.

use std::io;
use std::path::{Path, PathBuf};

use super::container::container_id;
use super::elf;
use super::language::{Libraries, language};
use super::procfs::Proc;
use super::service::Language;

/// Kernel thread (`PF_KTHREAD` in the kernel's `sched.h`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Why a process cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is no such process.
    #[error("there is no process {0}; `spanwise ps` lists those that can be traced")]
    Gone(u32),
    /// The id is that of a thread.
    #[error("{tid} is a thread of process {tgid}; give the process's id")]
    Thread {
        /// The thread.
        tid: u32,
        /// Its process.
        tgid: u32,
    },
    /// It belongs to the kernel.
    #[error("process {0} ({1}) is a thread of the kernel and runs no program")]
    Kernel(u32, Box<str>),
    /// It has ended.
    #[error("process {0} ({1}) has ended and only waits for its parent to take note")]
    Zombie(u32, Box<str>),
    /// It runs 32-bit code.
    #[error("process {0} ({1}) runs 32-bit code, which is not supported; use a 64-bit build of the program")]
    Narrow(u32, Box<str>),
    /// Not allowed to look.
    #[error(
        "not permitted to look at process {0}; that takes root, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, and some hosts protect a process even from those"
    )]
    NotPermitted(u32),
    /// Something else.
    #[error("cannot look at process {pid}: {source}")]
    Read {
        /// The process.
        pid: u32,
        /// What happened.
        source: io::Error,
    },
}

/// A process that can be traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id on the host.
    pub tgid: u32,
    /// Process id of the parent.
    pub parent: u32,
    /// When it started, in clock ticks since boot: with the id it names a process for good.
    pub start_ticks: u64,
    /// The kernel's short name for it.
    pub comm: Box<str>,
    /// Program file, as the process itself sees its path.
    pub exe: PathBuf,
    /// Whether the program file has been replaced or removed since the start.
    pub deleted: bool,
    /// Arguments. They may hold secrets: never exported.
    pub cmdline: Vec<Box<str>>,
    /// Current directory, if it may be looked at.
    pub cwd: Option<PathBuf>,
    /// `OTEL_SERVICE_NAME` of its environment.
    pub otel_service_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES` of its environment.
    pub otel_resource_attributes: Option<String>,
    /// Inode of its process id namespace.
    pub pid_namespace: Option<u64>,
    /// Its process id in that namespace.
    pub inner_tgid: u32,
    /// Id of its container.
    pub container: Option<Box<str>>,
    /// Language of the program.
    pub language: Language,
    /// Libraries of interest it has loaded so far.
    pub libraries: Vec<&'static str>,
}

impl Process {
    /// Looks at a running process.
    pub fn inspect(tgid: u32) -> Result<Self, InspectError> {
        Self::inspect_in(&Proc::default(), tgid)
    }

    /// [`Self::inspect`] with `/proc` elsewhere.
    pub fn inspect_in(proc: &Proc, tgid: u32) -> Result<Self, InspectError> {
        let fail = |source: io::Error| match source.kind() {
            // ESRCH: it ended while it was looked at.
            io::ErrorKind::NotFound => InspectError::Gone(tgid),
            _ if source.raw_os_error() == Some(libc::ESRCH) => InspectError::Gone(tgid),
            io::ErrorKind::PermissionDenied => InspectError::NotPermitted(tgid),
            _ => InspectError::Read { pid: tgid, source },
        };
        let stat = proc.stat(tgid).map_err(fail)?;
        let group = proc.status(tgid, "Tgid").map_err(fail)?.and_then(|text| text.parse().ok());
        if let Some(group) = group.filter(|group| *group != tgid) {
            return Err(InspectError::Thread { tid: tgid, tgid: group });
        }
        if stat.flags & KERNEL_THREAD != 0 {
            return Err(InspectError::Kernel(tgid, stat.comm));
        }
        if matches!(stat.state, 'Z' | 'X') {
            return Err(InspectError::Zombie(tgid, stat.comm));
        }
        let link = std::fs::read_link(proc.path(tgid, "exe")).map_err(fail)?;
        let (exe, deleted) = undelete(&link);
        // Opened through the link itself: it works in other mount namespaces and after the file is gone.
        let found = elf::look(&proc.path(tgid, "exe")).map_err(fail)?;
        if found.narrow {
            return Err(InspectError::Narrow(tgid, stat.comm));
        }
        let mut libraries = Libraries::default();
        proc.mapped(tgid, |path| libraries.see(path)).map_err(fail)?;
        let [otel_service_name, otel_resource_attributes] =
            proc.variables(tgid, ["OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"]);
        let cgroup = proc.bytes(tgid, "cgroup").unwrap_or_default();
        let inner = proc.status(tgid, "NSpid").map_err(fail)?;
        let inner = inner.and_then(|ids| ids.split_ascii_whitespace().last()?.parse().ok());
        Ok(Self {
            tgid,
            parent: stat.parent,
            start_ticks: stat.start_ticks,
            comm: stat.comm,
            language: language(found, &exe, &libraries),
            exe,
            deleted,
            cmdline: proc.cmdline(tgid),
            cwd: std::fs::read_link(proc.path(tgid, "cwd")).ok(),
            otel_service_name,
            otel_resource_attributes,
            pid_namespace: proc.namespace(tgid, "pid"),
            inner_tgid: inner.unwrap_or(tgid),
            container: container_id(&String::from_utf8_lossy(&cgroup)).map(Into::into),
            libraries: libraries.names(),
        })
    }

    /// File name of the program; of a program that has no file, the kernel's name for it.
    pub fn exe_name(&self) -> &str {
        let name = self.exe.file_name().and_then(|name| name.to_str());
        name.filter(|name| !name.starts_with("memfd:")).unwrap_or(&self.comm)
    }
}

/// The kernel marks the path of a removed file.
fn undelete(link: &Path) -> (PathBuf, bool) {
    match link.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(text) => (text.into(), true),
        None => (link.into(), false),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn this_process() {
        let process = Process::inspect(std::process::id()).unwrap();
        assert_eq!(process.language, Language::Rust);
        assert_eq!(process.exe, std::env::current_exe().unwrap());
        assert_eq!(process.cwd, std::env::current_dir().ok());
        assert!(!process.deleted);
    }

    #[test]
    fn a_child_that_ends_is_a_zombie_and_then_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while Proc::default().stat(pid).unwrap().state != 'Z' {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert!(matches!(Process::inspect(pid), Err(InspectError::Zombie(p, _)) if p == pid));
        child.wait().unwrap();
        assert!(matches!(Process::inspect(pid), Err(InspectError::Gone(p)) if p == pid));
    }

    #[test]
    fn a_thread_is_not_a_process() {
        let (send, receive) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let link = fs::read_link("/proc/thread-self").unwrap();
            send.send(link.file_name().unwrap().to_str().unwrap().parse::<u32>().unwrap()).unwrap();
            let _ = stopped.recv();
        });
        let tid = receive.recv().unwrap();
        let tgid = std::process::id();
        assert!(
            matches!(Process::inspect(tid), Err(InspectError::Thread { tid: t, tgid: g }) if (t, g) == (tid, tgid))
        );
        drop(stop);
        thread.join().unwrap();
    }

    /// A made-up process, as far as the kernel's files tell.
    fn fake(flags: u64, exe: &[u8]) -> (tempfile::TempDir, Proc) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("7");
        fs::create_dir_all(dir.join("ns")).unwrap();
        fs::write(dir.join("stat"), format!("7 (old) S 3 7 7 0 -1 {flags} 1 2 3 4 5 6 7 8 20 0 1 0 55 1 1"))
            .unwrap();
        fs::write(dir.join("status"), "Name:\told\nTgid:\t7\nNSpid:\t7\t1\n").unwrap();
        fs::write(dir.join("maps"), "00-01 r-xp 0 00:00 1 /lib/libpython3.9.so\n02-03 rw-p 0 00:00 0 \n")
            .unwrap();
        fs::write(dir.join("cmdline"), "old\0--secret\0\0").unwrap();
        fs::write(dir.join("environ"), "A=b\0OTEL_SERVICE_NAME=shop\0").unwrap();
        fs::write(dir.join("cgroup"), format!("0::/docker/{}\n", "a".repeat(64))).unwrap();
        std::os::unix::fs::symlink("pid:[4026532000]", dir.join("ns/pid")).unwrap();
        let program = root.path().join("old (deleted)");
        fs::write(&program, exe).unwrap();
        std::os::unix::fs::symlink(&program, dir.join("exe")).unwrap();
        let proc = Proc::at(root.path());
        (root, proc)
    }

    #[test]
    fn everything_is_read() {
        let (root, proc) = fake(0, b"not elf");
        let process = Process::inspect_in(&proc, 7).unwrap();
        assert_eq!((process.parent, process.start_ticks, process.inner_tgid), (3, 55, 1));
        assert_eq!((process.exe.clone(), process.deleted), (root.path().join("old"), true));
        assert_eq!(process.cmdline, ["old".into(), "--secret".into()] as [Box<str>; 2]);
        assert_eq!(process.otel_service_name.as_deref(), Some("shop"));
        assert_eq!(process.pid_namespace, Some(4_026_532_000));
        assert_eq!(process.container.as_deref(), Some("a".repeat(64).as_str()));
        assert_eq!(process.language, Language::Python);
        assert_eq!(process.libraries, ["libpython"]);
    }

    #[test]
    fn refusals() {
        let (_root, proc) = fake(KERNEL_THREAD, b"");
        assert!(matches!(Process::inspect_in(&proc, 7), Err(InspectError::Kernel(7, _))));
        let (_root, proc) = fake(0, b"\x7fELF\x01");
        let error = Process::inspect_in(&proc, 7).unwrap_err();
        assert!(matches!(error, InspectError::Narrow(7, _)));
        assert!(error.to_string().contains("32-bit") && error.to_string().contains("old"), "{error}");
        assert!(matches!(Process::inspect_in(&proc, 8), Err(InspectError::Gone(8))));
    }
}
