//! The kernel as a whole. In: its files, `spanwise doctor`, its log. Out: rows that no plane has a part in.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use spanwise_tests::agent;
use spanwise_tests::proc::capture;

use crate::plane::Seen;
use crate::{Row, State};

/// Words of a kernel that found a fault in itself.
const ALARMS: [&str; 10] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "general protection fault",
    "Call Trace:",
    "unable to handle",
    "hung_task",
    "blocked for more than",
    "KASAN",
    "UBSAN",
];

/// Its release, as `uname -r` says it.
pub(crate) fn release() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

/// Seconds since it began, by its own clock.
pub(crate) fn uptime() -> String {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

/// Its type information.
pub(crate) fn btf() -> Row {
    match fs::metadata("/sys/kernel/btf/vmlinux") {
        Ok(_) => Row::new("BTF", State::Ok, ""),
        Err(_) => Row::new("BTF", State::Gap, "built without CONFIG_DEBUG_INFO_BTF"),
    }
}

/// What `spanwise doctor --json` says.
pub(crate) fn doctor(dir: &Path) -> Result<Value> {
    let (code, stdout, stderr) = agent::once(dir, &["doctor", "--json"], Duration::from_secs(240))?;
    ensure!(code == Some(0), "`spanwise doctor` ended with {code:?}:\n{stderr}");
    serde_json::from_str(&stdout).context("`spanwise doctor --json` is not JSON")
}

/// Whether the agent's ring buffer could be made.
pub(crate) fn ring_buffer(seen: &[Seen]) -> Row {
    if seen.iter().any(|seen| seen.ring_buffer) {
        Row::new("ring buffer", State::Ok, "")
    } else {
        Row::new("ring buffer", State::Fault, "no plane made one")
    }
}

/// Whether doctor is right, and what it finds lacking.
pub(crate) fn doctor_row(doctor: &Value, seen: &[Seen]) -> Row {
    Row::of("doctor", judge(doctor, seen))
}

fn judge(doctor: &Value, seen: &[Seen]) -> Result<String> {
    let planes = doctor.get("planes").and_then(Value::as_object).context("doctor names no planes")?;
    for (name, usable) in planes {
        let loaded =
            seen.iter().find(|seen| seen.plane == *name).is_some_and(|seen| !seen.programs.is_empty());
        ensure!(
            usable.as_bool() == Some(loaded),
            "doctor says of plane {name} that it {}, but it {}",
            if loaded { "does not work" } else { "works" },
            if loaded { "does" } else { "does not" }
        );
    }
    let programs = |name: &str| seen.iter().find(|seen| seen.plane == name).map(|seen| &seen.programs);
    let best = doctor.get("best_plane").and_then(Value::as_str);
    if let (Some(best), Some(auto)) = (best, programs("auto")) {
        ensure!(
            programs(best) == Some(auto),
            "doctor names plane {best} as the best, but auto took another one"
        );
    }
    let findings = doctor.get("findings").and_then(Value::as_array).context("doctor has no findings")?;
    let word = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    // What a kernel has no hook or helper for is a gap; a program that its verifier does not like is a fault of the program.
    if let Some(refused) =
        findings.iter().find(|item| word(item, "sentence").contains("the kernel refuses it"))
    {
        bail!("doctor says: {}", word(refused, "sentence"));
    }
    let lacking: Vec<String> = findings
        .iter()
        .filter(|item| word(item, "status") != "ok")
        .map(|item| format!("{} {}", word(item, "key"), word(item, "status")))
        .collect();
    Ok(format!("plane {}; {}", best.unwrap_or("none"), lacking.join(", ")))
}

/// The kernel's log up to some moment.
pub(crate) struct Log(usize);

impl Log {
    /// Up to now: booting in an emulator is not our subject.
    pub(crate) fn now() -> Result<Self> {
        Ok(Self(capture(&mut Command::new("dmesg"))?.lines().count()))
    }

    /// Whether anything alarming was added since.
    pub(crate) fn row(&self) -> Row {
        let lines = capture(&mut Command::new("dmesg")).map(|text| alarms(&text, self.0));
        match lines {
            Ok(lines) if lines.is_empty() => Row::new("kernel log", State::Ok, ""),
            Ok(lines) => Row::new("kernel log", State::Fault, lines.join(" / ")),
            Err(error) => Row::new("kernel log", State::Fault, format!("{error:#}")),
        }
    }
}

/// Alarming lines of a log after the first `from`. That the kernel kills for want of memory, and tells from where, is no alarm.
fn alarms(log: &str, from: usize) -> Vec<String> {
    let mut killing = false;
    let lines = log.lines().skip(from).filter(|line| {
        let was = killing;
        killing = (was || line.contains("invoked oom-killer:")) && !line.contains("Killed process");
        !was && ALARMS.iter().any(|word| line.contains(word))
    });
    lines.take(8).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_of_the_boot_do_not_count() {
        let log = "[1] WARNING: CPU: 0 PID: 1 at boot\n[2] fine\n[3] BUG: kernel NULL pointer dereference\n[4] fine";
        assert_eq!(alarms(log, 1), ["[3] BUG: kernel NULL pointer dereference"]);
        assert!(alarms(log, 3).is_empty());
        let killed =
            "a invoked oom-killer: gfp\nCall Trace:\nMemory cgroup out of memory: Killed process 7 (a)\n";
        assert!(alarms(killed, 0).is_empty());
        assert_eq!(alarms(&format!("{killed}Call Trace:"), 0), ["Call Trace:"]);
    }

    fn seen(plane: &str, programs: &[&str]) -> Seen {
        let programs = programs.iter().map(|name| (*name).to_owned()).collect();
        Seen { plane: plane.into(), programs, ring_buffer: true, rows: vec![] }
    }

    #[test]
    fn a_doctor_that_is_wrong_is_found() {
        let doctor = serde_json::json!({
            "best_plane": "sock", "planes": {"sock": true, "fentry": false},
            "findings": [{"key": "lockdown", "status": "limited"}, {"key": "btf", "status": "ok"}],
        });
        let good = [seen("auto", &["a"]), seen("sock", &["a"]), seen("fentry", &[])];
        assert_eq!(judge(&doctor, &good).unwrap(), "plane sock; lockdown limited");
        let works = [seen("auto", &["a"]), seen("sock", &["a"]), seen("fentry", &["b"])];
        assert!(judge(&doctor, &works).unwrap_err().to_string().contains("fentry that it does not work"));
        let other = [seen("auto", &["b"]), seen("sock", &["a"]), seen("fentry", &[])];
        assert!(judge(&doctor, &other).is_err());
    }
}
