//! Traces that an agent might leave on a machine beside programs, maps and links. In: the file systems of the kernel before and
//! after, the kernel's log, a traced process. Out: what is new and should not be.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::proc::capture;

/// Cgroups with our name, pinned BPF objects, and events in tracefs.
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// As it is now.
    pub fn now() -> Self {
        let mut found = BTreeSet::new();
        walk(Path::new("/sys/fs/cgroup"), 6, &mut |path| {
            let ours = path.file_name().is_some_and(|name| name.to_string_lossy().contains("spanwise"));
            // Those of the tests themselves come and go.
            if ours && !path.to_string_lossy().contains("spanwise-e2e-") {
                found.insert(format!("cgroup {}", path.display()));
            }
        });
        walk(Path::new("/sys/fs/bpf"), 4, &mut |path| {
            found.insert(format!("pin {}", path.display()));
        });
        for tracefs in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
            for file in ["dynamic_events", "kprobe_events", "uprobe_events"] {
                let text = fs::read_to_string(Path::new(tracefs).join(file)).unwrap_or_default();
                found.extend(text.lines().map(|line| format!("{file} {line}")));
            }
            walk(&Path::new(tracefs).join("instances"), 1, &mut |path| {
                found.insert(format!("tracing instance {}", path.display()));
            });
        }
        Self(found)
    }

    /// What is there now and was not then, in words; empty when nothing is.
    pub fn left(&self) -> String {
        Self::now().0.difference(&self.0).map(|what| format!("{what}; ")).collect()
    }
}

fn walk(dir: &Path, depth: u32, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir || dir.starts_with("/sys/fs/bpf") {
            visit(&path);
        }
        if is_dir && depth > 1 {
            walk(&path, depth - 1, visit);
        }
    }
}

/// Marks that tracing leaves on a process: a tracer, or the page that uprobes are run from. In words; empty when there are none.
pub fn on_process(pid: u32) -> String {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let mut words = String::new();
    if read("status").lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0")) {
        words += "it has a tracer; ";
    }
    if read("maps").contains("[uprobes]") {
        words += "it has a page for uprobes; ";
    }
    words
}

/// The kernel's log from a moment on.
pub struct KernelLog {
    last: f64,
}

/// What the kernel says when something is wrong with the kernel. (An out-of-memory kill of a test is not.)
const TROUBLE: &[&str] = &[
    "BUG:",
    "WARNING:",
    "Oops",
    "general protection",
    "soft lockup",
    "hard LOCKUP",
    "rcu: INFO",
    "blocked for more than",
    "refcount_t",
    "kernel panic",
    "page allocation failure",
];

impl KernelLog {
    /// From now on; none where it cannot be read.
    pub fn from_now() -> Option<Self> {
        let lines = read().ok()?;
        Some(Self { last: lines.last().map_or(0.0, |line| line.0) })
    }

    /// Lines that tell of trouble.
    pub fn trouble(&self) -> Result<Vec<String>> {
        let bad = |text: &str| TROUBLE.iter().any(|word| text.contains(word));
        Ok(read()?
            .into_iter()
            .filter(|(time, text)| *time > self.last && bad(text))
            .map(|(_, text)| text)
            .collect())
    }
}

fn read() -> Result<Vec<(f64, String)>> {
    let text = capture(Command::new("dmesg").arg("--raw"))?;
    Ok(text.lines().filter_map(line).collect())
}

/// `<6>[   12.345678] text`.
fn line(line: &str) -> Option<(f64, String)> {
    let (stamp, text) = line.split_once('[')?.1.split_once(']')?;
    Some((stamp.trim().parse().ok()?, text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let (time, text) = line("<4>[   12.500000] WARNING: CPU: 0 [x]").unwrap();
        assert!((time - 12.5).abs() < 1e-9 && text == "WARNING: CPU: 0 [x]");
        assert!(line("no stamp").is_none());
    }

    #[test]
    fn nothing_is_new_at_once() {
        assert_eq!(Snapshot(Snapshot::now().0).left(), "");
        assert_eq!(on_process(std::process::id()), "");
    }
}
