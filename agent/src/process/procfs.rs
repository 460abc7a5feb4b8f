//! Reads `/proc`, each file with a bound.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest command line and environment that is looked at.
const LONGEST: u64 = 1 << 20;

/// A mounted `/proc`.
#[derive(Clone, Debug)]
pub struct Proc {
    root: PathBuf,
}

impl Default for Proc {
    fn default() -> Self {
        Self::at("/proc")
    }
}

/// The fields of `/proc/PID/stat` that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) comm: Box<str>,
    pub(super) state: char,
    pub(super) parent: u32,
    pub(super) flags: u64,
    pub(super) start_ticks: u64,
}

impl Proc {
    /// A `/proc` that is mounted elsewhere (or made for a test).
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Path of something below `/proc/PID`.
    pub(super) fn path(&self, pid: u32, name: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(name)
    }

    /// A file of the kernel as a whole, such as `sys/kernel/hostname`, without blanks around it.
    pub(super) fn global(&self, name: &str) -> io::Result<String> {
        Ok(std::fs::read_to_string(self.root.join(name))?.trim().to_owned())
    }

    /// Ids of all processes (not of their other threads).
    pub(super) fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids: Vec<u32> = std::fs::read_dir(&self.root)?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        pids.sort_unstable();
        Ok(pids)
    }

    pub(super) fn stat(&self, pid: u32) -> io::Result<Stat> {
        let text = self.bytes(pid, "stat")?;
        parse_stat(&String::from_utf8_lossy(&text))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its stat file has another form"))
    }

    /// A line of `/proc/PID/status`.
    pub(super) fn status(&self, pid: u32, key: &str) -> io::Result<Option<String>> {
        let text = self.bytes(pid, "status")?;
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name == key).then(|| value.trim().to_owned())
        }))
    }

    pub(super) fn bytes(&self, pid: u32, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path(pid, name))?.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Arguments of a process; empty if it has none or hides them.
    pub(super) fn cmdline(&self, pid: u32) -> Vec<Box<str>> {
        let bytes = self.bytes(pid, "cmdline").unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        text.trim_end_matches('\0').split('\0').filter(|_| !text.is_empty()).map(Into::into).collect()
    }

    /// Values of some variables in the environment the process started with.
    pub(super) fn variables<const N: usize>(&self, pid: u32, names: [&str; N]) -> [Option<String>; N] {
        let bytes = self.bytes(pid, "environ").unwrap_or_default();
        names.map(|name| {
            bytes.split(|b| *b == 0).find_map(|entry| {
                let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
                let value = std::str::from_utf8(value).ok()?.trim();
                (!value.is_empty()).then(|| value.to_owned())
            })
        })
    }

    /// Calls `see` with each file that is mapped, line after line, repeats included.
    pub(super) fn mapped(&self, pid: u32, mut see: impl FnMut(&str)) -> io::Result<()> {
        let mut reader = BufReader::new(File::open(self.path(pid, "maps"))?);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            if let Some(at) = text.find('/') {
                see(text.get(at..).unwrap_or_default().trim_end());
            }
            line.clear();
        }
        Ok(())
    }

    /// Inode number of a namespace of a process.
    pub(super) fn namespace(&self, pid: u32, name: &str) -> Option<u64> {
        namespace_inode(&std::fs::read_link(self.path(pid, "ns").join(name)).ok()?)
    }
}

/// `pid:[4026531836]` -> 4026531836.
fn namespace_inode(link: &Path) -> Option<u64> {
    let text = link.to_str()?;
    text.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name may hold anything, brackets and blanks included: the last one closes it.
    let (head, tail) = text.rsplit_once(')')?;
    let (_, comm) = head.split_once('(')?;
    let mut fields = tail.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let flags = fields.nth(4)?.parse().ok()?;
    let start_ticks = fields.nth(12)?.parse().ok()?;
    Some(Stat { comm: comm.into(), state, parent, flags, start_ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_nasty_name() {
        let text = "77 (a) R 1 (b)) S 42 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 10";
        assert_eq!(
            parse_stat(text),
            Some(Stat {
                comm: "a) R 1 (b)".into(),
                state: 'S',
                parent: 42,
                flags: 4_194_560,
                start_ticks: 98_765
            })
        );
        assert_eq!(parse_stat("77 (a) R"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn this_process() {
        let (proc, pid) = (Proc::default(), std::process::id());
        let stat = proc.stat(pid).unwrap();
        assert!(stat.start_ticks > 0 && stat.parent > 0);
        assert!(proc.pids().unwrap().contains(&pid));
        assert_eq!(proc.status(pid, "Tgid").unwrap(), Some(pid.to_string()));
        let mut seen = false;
        proc.mapped(pid, |path| seen |= path.contains("libc.so")).unwrap();
        assert!(seen);
        assert!(proc.namespace(pid, "pid").is_some());
        let argument = std::env::args().next().unwrap();
        assert_eq!(proc.cmdline(pid)[0].as_ref(), argument);
        let [path, nothing] = proc.variables(pid, ["PATH", "PAT"]);
        assert_eq!((path, nothing), (std::env::var("PATH").ok(), None));
    }
}
