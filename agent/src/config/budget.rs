//! What the agent may use: a share of a core and bytes of memory.

use super::error::ConfigError;
use super::said::Said;

/// Cores that the agent and its programs may take unless said otherwise; docs/adr/0008-governor.md says why.
const CORES: f64 = 1.0;
/// Resident memory unless said otherwise.
const MEMORY: u64 = 256 << 20;
/// Less cannot be measured well.
const LEAST_CORES: f64 = 0.005;
/// More than its few threads could take. It also catches 50 where 50% was meant.
const MOST_CORES: f64 = 16.0;
/// The agent needs more than this when there is nothing to do.
const LEAST_MEMORY: u64 = 8 << 20;

/// Bounds of what the agent may use; none where it may use what it wants.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Budgets {
    /// CPU time, in cores: 0.5 is half of one.
    pub cores: Option<f64>,
    /// Resident memory in bytes.
    pub memory: Option<u64>,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { cores: Some(CORES), memory: Some(MEMORY) }
    }
}

/// A share of a core: `0.5`, `50%`, or `off`.
pub(super) fn cores(said: &Said) -> Result<Option<f64>, ConfigError> {
    let text = said.value.trim();
    if text == "off" {
        return Ok(None);
    }
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim_end().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    match share {
        Ok(share) if (LEAST_CORES..=MOST_CORES).contains(&share) => Ok(Some(share)),
        _ => Err(ConfigError::value(
            said,
            "it must be a share of one core such as 0.5 or 50%, from 0.5% to 16 cores, or off",
        )),
    }
}

/// Bytes with a suffix: `256MiB`, or `off`.
pub(super) fn memory(said: &Said) -> Result<Option<u64>, ConfigError> {
    let text = said.value.trim();
    if text == "off" {
        return Ok(None);
    }
    match bytes(text) {
        Some(bytes) if bytes >= LEAST_MEMORY => Ok(Some(bytes)),
        _ => Err(ConfigError::value(
            said,
            "it must be a number of bytes such as 256MiB, 1GiB or 300MB, at least 8MiB, or off",
        )),
    }
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(digits)?;
    let unit: u64 = match suffix.trim_start() {
        "" | "B" => 1,
        "K" | "Ki" | "KiB" => 1 << 10,
        "M" | "Mi" | "MiB" => 1 << 20,
        "G" | "Gi" | "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::said::Level;

    fn said(value: &str) -> Said {
        Said { origin: "--max-x".into(), value: value.into(), level: Level::Option }
    }

    #[test]
    fn shares_of_a_core() {
        for (text, share) in [("0.5", 0.5), ("50%", 0.5), (" 2 ", 2.0), ("0.5 %", 0.005), ("150%", 1.5)] {
            assert_eq!(cores(&said(text)), Ok(Some(share)), "{text}");
        }
        assert_eq!(cores(&said("off")), Ok(None));
        for bad in ["", "0", "-1", "NaN", "inf", "0.001", "half", "50", "%", "1e9%"] {
            assert!(cores(&said(bad)).is_err(), "{bad}");
        }
        let error = cores(&said("much")).unwrap_err().to_string();
        assert!(error.starts_with("--max-x is \"much\", but it must be a share of one core"), "{error}");
    }

    #[test]
    fn sizes() {
        const MIB: u64 = 1 << 20;
        for (text, size) in [
            ("256MiB", 256 * MIB),
            ("256 MiB", 256 * MIB),
            ("256M", 256 * MIB),
            ("64Mi", 64 * MIB),
            ("1G", 1024 * MIB),
            ("8192KiB", 8 * MIB),
            ("300MB", 300_000_000),
            ("100000000", 100_000_000),
        ] {
            assert_eq!(memory(&said(text)), Ok(Some(size)), "{text}");
        }
        assert_eq!(memory(&said("off")), Ok(None));
        for bad in [
            "",
            "MiB",
            "1",
            "7MiB",
            "-5MiB",
            "1.5GiB",
            "10TiB",
            "256mib",
            "99999999999999999999",
            "99999999999G",
        ] {
            assert!(memory(&said(bad)).is_err(), "{bad}");
        }
    }
}
