//! What BPF objects the whole kernel holds. In: system calls that list ids, and bpftool for names. Out: programs, maps and
//! links, those that came and those that stay. In a VM nobody else loads any, so what is new is the agent's, or what it left.
#![expect(unsafe_code, reason = "ids of BPF objects are listed by a system call that no library wraps")]

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use spanwise_tests::paths;
use spanwise_tests::proc::capture;

/// Kind of object, as bpftool calls it, and the number of bpf(2)'s command that gives the next id.
const KINDS: [(&str, libc::c_long); 3] = [("prog", 11), ("map", 12), ("link", 31)];

/// Kinds and ids of objects.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Objects(BTreeSet<(&'static str, u32)>);

/// What the commands that give the next id take and return.
#[repr(C)]
struct Next {
    start: u32,
    next: u32,
    flags: u32,
}

impl Objects {
    /// Those there are now.
    pub(crate) fn now() -> Result<Self> {
        let mut objects = Self::default();
        for (kind, command) in KINDS {
            let mut at = Next { start: 0, next: 0, flags: 0 };
            loop {
                // SAFETY: the command reads and writes one live struct of the size that it is told.
                let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut at, size_of::<Next>()) };
                if result != 0 {
                    let error = std::io::Error::last_os_error();
                    ensure!(
                        error.raw_os_error() == Some(libc::ENOENT),
                        "cannot list the {kind}s of the kernel: {error}"
                    );
                    break;
                }
                objects.0.insert((kind, at.next));
                at.start = at.next;
            }
        }
        Ok(objects)
    }

    /// Without those that were there before.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        self.0.retain(|object| !before.0.contains(object));
        self
    }

    /// Words of these objects of one kind, such as their names.
    fn words(&self, kind: &str, word: &str) -> Result<Vec<String>> {
        let text = capture(Command::new(paths::need("bpftool")?).args(["--json", kind, "show"]))?;
        let value: Value = serde_json::from_str(&text).context("bpftool said something unexpected")?;
        let id = |item: &Value| item.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        let ours =
            |item: &&Value| self.0.iter().any(|(own, number)| *own == kind && Some(*number) == id(item));
        let items = value.as_array().into_iter().flatten().filter(ours);
        Ok(items.map(|item| item.get(word).and_then(Value::as_str).unwrap_or_default().to_owned()).collect())
    }

    /// Names of the programs.
    pub(crate) fn programs(&self) -> Result<Vec<String>> {
        self.words("prog", "name")
    }

    /// Whether there is a ring buffer.
    pub(crate) fn has_ring(&self) -> Result<bool> {
        Ok(self.words("map", "type")?.iter().any(|kind| kind == "ringbuf"))
    }

    /// Waits until nothing is there that was not there before: the kernel frees programs a moment after their last use.
    pub(crate) fn wait_gone(before: &Self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let left = Self::now()?.since(before);
            if left.0.is_empty() {
                return Ok(());
            }
            if begin.elapsed() > Duration::from_secs(20) {
                let ids: Vec<String> = left.0.iter().map(|(kind, id)| format!("{kind} {id}")).collect();
                bail!("left in the kernel: {} (programs {})", ids.join(", "), left.programs()?.join(", "));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_told_from_what_was_there() {
        let before = Objects([("map", 1), ("prog", 2)].into());
        let now = Objects([("map", 1), ("prog", 1), ("map", 2)].into());
        assert_eq!(now.clone().since(&before), Objects([("prog", 1), ("map", 2)].into()));
        assert_eq!(before.clone().since(&before), Objects::default());
    }
}
