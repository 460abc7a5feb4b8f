//! Packages of Debian, fetched beside the system's own apt and unpacked, never installed. In: the mirrors. Out: names of
//! packages, the newest kernel of a series, folders with what a package holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use spanwise_tests::proc::capture;

use super::mirror::Mirrors;

/// Suites that have the kernels, and the emulator: whether of security updates.
const SUITES: &[(&str, bool)] = &[
    ("bullseye-security", true),
    ("bookworm-security", true),
    ("trixie-backports", false),
    ("bookworm-backports", false),
];
/// How old the lists of packages may be.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Our own view of Debian's archive.
pub(super) struct Archive {
    dir: PathBuf,
}

impl Archive {
    /// Opens it in this folder; fetches the lists of packages unless they are of today.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let archive = Self { dir: dir.to_owned() };
        let mirrors = Mirrors::of_system()?;
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(sub)).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let mut text = String::new();
        for (suite, security) in SUITES {
            let uri = if *security { &mirrors.security } else { &mirrors.main };
            text += &format!("deb [signed-by={KEYS}] {uri} {suite} main\n");
        }
        let (list, stamp) = (dir.join("sources.list"), dir.join("updated"));
        let fresh = fs::read_to_string(&list).is_ok_and(|old| old == text)
            && fs::metadata(&stamp)
                .and_then(|data| data.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH));
        if !fresh {
            fs::write(&list, text)?;
            println!("vm: asking Debian's archive which kernels there are");
            match capture(archive.apt("apt-get").args(["update", "-qq"])) {
                Ok(_) => fs::write(&stamp, "")?,
                // One suite may be gone, or the network; what is known from before may do.
                Err(error) => println!("vm: not all lists of packages could be fetched: {error:#}"),
            }
        }
        Ok(archive)
    }

    /// A command of apt that sees our lists only, and nothing of what is installed.
    fn apt(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        let path = |sub: &str| self.dir.join(sub).display().to_string();
        for option in [
            format!("Dir::Etc::sourcelist={}", path("sources.list")),
            "Dir::Etc::sourceparts=-".into(),
            "Dir::State::status=/dev/null".into(),
            format!("Dir::State::lists={}", path("lists")),
            format!("Dir::Cache={}", path("cache")),
            "APT::Sandbox::User=root".into(),
            // An old release's lists stop being renewed one day. Their signatures are checked all the same.
            "Acquire::Check-Valid-Until=false".into(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    /// The newest kernel of a series; none if the lists have none.
    pub(super) fn newest(&self, series: &str) -> Result<Option<Kernel>> {
        let mut names = Vec::new();
        for start in ["linux-image-", "linux-binary-"] {
            let text = capture(self.apt("apt-cache").args(["pkgnames", start]))?;
            names.extend(text.lines().map(str::to_owned));
        }
        Ok(newest(names.iter().map(String::as_str), series))
    }

    /// Fetches a package (or `NAME/SUITE`) and unpacks it into a folder. Returns its version.
    pub(super) fn unpack(&self, package: &str, into: &Path) -> Result<String> {
        let folder = super::scratch(&self.dir)?;
        capture(self.apt("apt-get").args(["download", "-qq", package]).current_dir(folder.path()))
            .with_context(|| format!("cannot fetch the package {package}"))?;
        let file = fs::read_dir(folder.path())?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|end| end == "deb"))
            .with_context(|| format!("apt fetched no file for {package}"))?;
        fs::create_dir_all(into)?;
        capture(Command::new("dpkg-deb").arg("-x").arg(&file).arg(into))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match name.split('_').nth(1) {
            Some(version) => Ok(version.replace("%3a", ":")),
            None => bail!("the package file {name} has no version in its name"),
        }
    }
}

/// A kernel of the archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kernel {
    /// Its release, as `uname -r` says it.
    pub(super) release: String,
    /// Packages with its image and its modules.
    pub(super) packages: Vec<String>,
}

/// The newest kernel of a series (`6.1`, or `7` for any 7.x) among names of packages.
///
/// The kernel is in `linux-image-*`, and since 7.x in three packages: itself, its modules, and what is built in. Those of other flavours and for debugging, and those
/// that are not signed, do not count: one kernel of a series is enough, and that is the one people run.
pub(super) fn newest<'a>(names: impl Iterator<Item = &'a str>, series: &str) -> Option<Kernel> {
    let series = series.trim_end_matches(".x");
    let mut best: Option<(Vec<u64>, bool, &str)> = None;
    for name in names {
        let (release, split) = match (name.strip_prefix("linux-binary-"), name.strip_prefix("linux-image-")) {
            (Some(release), _) => (release, true),
            (_, Some(release)) => (release, false),
            _ => continue,
        };
        let rest = release.strip_prefix(series);
        let of_series = rest.is_some_and(|rest| rest.starts_with(['.', '-']));
        let mut words = release.split('-');
        let odd = words.any(|word| {
            ["cloud", "rt", "unsigned", "dbg"].contains(&word)
                || word.starts_with("rc")
                || word.contains("~rc")
        });
        if !of_series || odd || !release.ends_with("-amd64") {
            continue;
        }
        // A meta package has no number after its series.
        let numbers = numbers(release);
        if numbers.len() <= series.split('.').count() {
            continue;
        }
        let candidate = (numbers, split, release);
        if best.as_ref().is_none_or(|best| candidate > *best) {
            best = Some(candidate);
        }
    }
    let (_, split, release) = best?;
    let parts: &[&str] =
        if split { &["linux-binary", "linux-modules", "linux-base"] } else { &["linux-image"] };
    Some(Kernel {
        release: release.to_owned(),
        packages: parts.iter().map(|part| format!("{part}-{release}")).collect(),
    })
}

/// The numbers in a release, without those of the architecture's name.
fn numbers(release: &str) -> Vec<u64> {
    let release = release.trim_end_matches("-amd64");
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(series: &str, names: &[&str]) -> Option<String> {
        newest(names.iter().copied(), series).map(|kernel| kernel.packages.join(" "))
    }

    #[test]
    fn the_highest_number_is_the_newest() {
        let names =
            ["linux-image-5.10.0-9-amd64", "linux-image-5.10.0-46-amd64", "linux-image-5.10.0-30-amd64"];
        assert_eq!(chosen("5.10", &names).as_deref(), Some("linux-image-5.10.0-46-amd64"));
    }

    #[test]
    fn a_series_is_not_another_that_starts_alike() {
        let names =
            ["linux-image-6.12.117+deb12-amd64", "linux-image-6.1.0-56-amd64", "linux-image-6.1-amd64"];
        assert_eq!(chosen("6.1", &names).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(chosen("6.12", &names).as_deref(), Some("linux-image-6.12.117+deb12-amd64"));
        assert_eq!(chosen("6.18", &names), None);
        assert_eq!(chosen("6.1", &["linux-image-6.1-amd64"]), None, "a meta package");
    }

    #[test]
    fn flavours_do_not_count() {
        let names = [
            "linux-image-6.1.0-57-cloud-amd64",
            "linux-image-6.1.0-57-rt-amd64",
            "linux-image-6.1.0-57-amd64-unsigned",
            "linux-image-6.1.0-57-amd64-dbg",
            "linux-image-6.1.0-57-arm64",
            "linux-image-6.1.0-rc9-amd64",
            "linux-image-6.1.0-3-amd64",
        ];
        assert_eq!(chosen("6.1", &names).as_deref(), Some("linux-image-6.1.0-3-amd64"));
    }

    #[test]
    fn a_kernel_in_three_packages_is_one() {
        let names = [
            "linux-image-7.3.4+deb13-amd64",
            "linux-binary-7.3.4+deb13-amd64",
            "linux-binary-7.2.13+deb13-amd64",
            "linux-image-7.0.9+deb13-amd64",
        ];
        let all =
            "linux-binary-7.3.4+deb13-amd64 linux-modules-7.3.4+deb13-amd64 linux-base-7.3.4+deb13-amd64";
        assert_eq!(chosen("7", &names).as_deref(), Some(all));
        assert_eq!(chosen("7.x", &names).as_deref(), Some(all));
        assert_eq!(chosen("7.0", &names).as_deref(), Some("linux-image-7.0.9+deb13-amd64"));
    }
}
