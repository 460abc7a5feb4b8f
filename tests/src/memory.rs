//! Memory. In: a process, a limit. Out: a memory cgroup of our own, below the one that we are in, that holds it; how much
//! memory a process has over time, and whether that is flat.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cleanup::Undo;

/// A memory cgroup, removed when this is dropped (what is in it must have ended by then).
pub struct Memory {
    path: PathBuf,
    second: bool,
    _undo: Undo,
}

impl Memory {
    /// Makes one below the cgroup that this process is in, of either version.
    pub fn below_own(name: &str) -> Result<Self> {
        let (parent, second) = own_group()?;
        let path = parent.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let remove = path.clone();
        let undo = Undo::new(move || {
            // What was killed may take a moment to leave it.
            for _ in 0..100 {
                if fs::remove_dir(&remove).is_ok() || !remove.exists() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            eprintln!("cannot remove the cgroup {}", remove.display());
        });
        let this = Self { path, second, _undo: undo };
        let limit = this.path.join(this.limit_file());
        ensure!(limit.exists(), "there is no {}", limit.display());
        Ok(this)
    }

    fn limit_file(&self) -> &'static str {
        if self.second { "memory.max" } else { "memory.limit_in_bytes" }
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path.join(file);
        fs::write(&path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
    }

    /// Moves a process into it. What it has already is not counted here.
    pub fn take(&self, pid: u32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Limits it.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        self.write(self.limit_file(), &bytes.to_string())
    }

    /// Lets what is in it run on these processors only (version 2, where the controller is there).
    pub fn confine(&self, processors: &str) -> Result<()> {
        self.write("cpuset.cpus", processors)
    }

    /// A command that enters it and becomes another, whose words follow.
    pub fn enter(&self) -> Vec<String> {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.path.display());
        ["sh", "-c", &script, "sh"].map(str::to_owned).into()
    }

    /// How often the kernel killed something because of the limit.
    pub fn kills(&self) -> Result<u64> {
        let file = if self.second { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.path.join(file))?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        count.with_context(|| format!("{file} does not say how often it killed"))
    }
}

/// Where our memory cgroup is, and whether it is of version 2.
fn own_group() -> Result<(PathBuf, bool)> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounted = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (place, found, options) = (words.next()?, words.next()?, words.next()?);
            let fits = found == kind && (option.is_empty() || options.split(',').any(|word| word == option));
            fits.then(|| PathBuf::from(place))
        })
    };
    let group = |fits: &dyn Fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            fits(controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let first = group(&|controllers| controllers.split(',').any(|word| word == "memory"));
    if let (Some(path), Some(mount)) = (first, mounted("cgroup", "memory")) {
        return below(&mount, &path).map(|path| (path, false));
    }
    match (group(&str::is_empty), mounted("cgroup2", "")) {
        (Some(path), Some(mount)) => below(&mount, &path).map(|path| (path, true)),
        _ => bail!("no memory cgroup is mounted"),
    }
}

fn below(mount: &Path, path: &str) -> Result<PathBuf> {
    let whole = mount.join(path);
    ensure!(whole.is_dir(), "our cgroup {} cannot be seen", whole.display());
    Ok(whole)
}

/// Whether SIGKILL ended it.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGKILL)
}

/// Memory in use at moments that follow each other.
#[derive(Clone, Default, Debug)]
pub struct Course(Vec<u64>);

impl Course {
    /// One more moment.
    pub fn add(&mut self, kib: u64) {
        self.0.push(kib);
    }

    /// First and last, in KiB, each the mean of a tenth (at least one).
    pub fn ends(&self) -> (u64, u64) {
        let part = (self.0.len() / 10).max(1);
        let mean = |values: &[u64]| values.iter().sum::<u64>() / (values.len() as u64).max(1);
        let first = self.0.get(..part.min(self.0.len())).unwrap_or_default();
        let last = self.0.get(self.0.len().saturating_sub(part)..).unwrap_or_default();
        (mean(first), mean(last))
    }

    /// Fails if the last is more than so many percent above the first.
    pub fn flat(&self, what: &str, percent: u64) -> Result<()> {
        let (first, last) = self.ends();
        ensure!(self.0.len() > 1, "{what}: memory was looked at {} times", self.0.len());
        ensure!(
            last * 100 <= first * (100 + percent),
            "{what}: memory grew from {first} to {last} KiB, {percent} % are allowed: {:?}",
            self.0
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn courses_are_flat_or_not() {
        let course = |values: &[u64]| Course(values.to_vec());
        course(&[100, 300, 105]).flat("x", 5).unwrap();
        course(&[100, 90]).flat("x", 5).unwrap();
        assert!(course(&[100, 106]).flat("x", 5).is_err());
        assert!(course(&[100]).flat("x", 5).is_err());
        assert!(Course::default().flat("x", 5).is_err());
    }
}
