//! Values of single settings: durations, samplers, planes, whole numbers.

use std::time::Duration;

use super::error::ConfigError;
use super::said::Said;
use super::types::{PlaneChoice, RootSampler, Sampler};

/// A duration with its units: `500ms`, `10s`, `2m`, `1h`, `1m30s`. None if it is anything else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at_checked(letters)?;
        let number: u64 = number.parse().ok()?;
        let part = match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = after;
    }
    Some(total)
}

pub(super) fn duration(said: &Said) -> Result<Duration, ConfigError> {
    parse_duration(&said.value).filter(|d| !d.is_zero()).ok_or_else(|| {
        ConfigError::value(said, "it must be longer than zero, with its unit: 500ms, 10s, 2m, 1h or 1m30s")
    })
}

/// Milliseconds as OpenTelemetry's variables have them: a bare whole number.
pub(super) fn milliseconds(said: &Said) -> Result<Duration, ConfigError> {
    Ok(Duration::from_millis(positive(said, "a whole number of milliseconds above zero")?))
}

pub(super) fn positive(said: &Said, what: &str) -> Result<u64, ConfigError> {
    said.value
        .parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| ConfigError::value(said, format!("it must be {what}")))
}

pub(super) fn plane(said: &Said) -> Result<PlaneChoice, ConfigError> {
    match said.value.as_str() {
        "auto" => Ok(PlaneChoice::Auto),
        "sock" => Ok(PlaneChoice::Sock),
        "fentry" => Ok(PlaneChoice::Fentry),
        "kprobe" => Ok(PlaneChoice::Kprobe),
        "syscall" => Ok(PlaneChoice::Syscall),
        _ => Err(ConfigError::value(said, "it must be one of auto, sock, fentry, kprobe, syscall")),
    }
}

const SAMPLERS: &str = "it must be one of always_on, always_off, traceidratio, parentbased_always_on, \
                        parentbased_always_off, parentbased_traceidratio (a ratio is given as NAME=0.1)";

/// A sampler as `NAME` or `NAME=ARG`; `separate` is the argument where it has a variable of its own.
pub(super) fn sampler(said: &Said, separate: Option<&Said>) -> Result<Sampler, ConfigError> {
    let (name, inline) = match said.value.split_once('=') {
        Some((name, arg)) => (name.trim(), Some(arg.trim())),
        None => (said.value.as_str(), None),
    };
    let (parent_based, root_name) = match name.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, name),
    };
    let root = match root_name {
        "always_on" | "always_off" if inline.is_some() => {
            return Err(ConfigError::value(said, format!("{name} takes no argument")));
        }
        "always_on" => RootSampler::AlwaysOn,
        "always_off" => RootSampler::AlwaysOff,
        "traceidratio" => RootSampler::TraceIdRatio(match (inline, separate) {
            (Some(arg), _) => ratio(arg).ok_or_else(|| ConfigError::value(said, RATIO))?,
            (None, Some(arg)) => ratio(&arg.value).ok_or_else(|| ConfigError::value(arg, RATIO))?,
            (None, None) => 1.0,
        }),
        _ => return Err(ConfigError::value(said, SAMPLERS)),
    };
    Ok(if parent_based { Sampler::ParentBased(root) } else { Sampler::Root(root) })
}

const RATIO: &str = "the ratio must be a number from 0 to 1";

fn ratio(text: &str) -> Option<f64> {
    text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::said::Level;

    #[test]
    fn durations() {
        let ms = |text| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(ms("10s"), Some(10_000));
        assert_eq!(ms("1m30s"), Some(90_000));
        assert_eq!(ms(" 2h "), Some(7_200_000));
        for bad in [
            "",
            "10",
            "s",
            "10x",
            "1.5s",
            "-1s",
            "10 s",
            "99999999999999999999s",
            "9999999999999999999h",
            "1s5",
            "é",
        ] {
            assert_eq!(ms(bad), None, "{bad:?}");
        }
    }

    fn said(value: &str) -> Said {
        Said { origin: "--sampler".into(), value: value.into(), level: Level::Option }
    }

    #[test]
    fn samplers() {
        let ok = |text| sampler(&said(text), None).unwrap();
        assert_eq!(ok("always_off"), Sampler::Root(RootSampler::AlwaysOff));
        assert_eq!(ok("parentbased_always_on"), Sampler::ParentBased(RootSampler::AlwaysOn));
        assert_eq!(ok("traceidratio=0.25"), Sampler::Root(RootSampler::TraceIdRatio(0.25)));
        assert_eq!(ok("parentbased_traceidratio"), Sampler::ParentBased(RootSampler::TraceIdRatio(1.0)));
        let arg = Said { origin: "OTEL_TRACES_SAMPLER_ARG".into(), ..said("0.5") };
        assert_eq!(
            sampler(&said("traceidratio"), Some(&arg)).unwrap(),
            Sampler::Root(RootSampler::TraceIdRatio(0.5))
        );
        assert_eq!(
            sampler(&said("always_on"), Some(&arg)).unwrap(),
            Sampler::Root(RootSampler::AlwaysOn),
            "the variable is for samplers that use it"
        );
        for bad in [
            "",
            "jaeger_remote",
            "traceidratio=2",
            "traceidratio=-0.1",
            "traceidratio=NaN",
            "always_on=1",
            "traceidratio=",
        ] {
            assert!(sampler(&said(bad), None).is_err(), "{bad:?}");
        }
        let error = sampler(&said("traceidratio"), Some(&Said { value: "x".into(), ..arg })).unwrap_err();
        assert_eq!(
            error.to_string(),
            "OTEL_TRACES_SAMPLER_ARG is \"x\", but the ratio must be a number from 0 to 1"
        );
    }
}
