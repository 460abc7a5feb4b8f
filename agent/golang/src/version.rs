//! Comes in: what a Go program says compiled it, or the version of a module. Goes out: a version that can be compared.

use std::fmt;

/// A released version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 1 of 1.24.3.
    pub major: u16,
    /// 24 of 1.24.3.
    pub minor: u16,
    /// 3 of 1.24.3.
    pub patch: u16,
}

impl Version {
    /// A version of Go: `go1.24.3`, with or without the `go`. Nothing for development versions, release candidates, experiments
    /// and the changed compilers of vendors: what they lay out differently is not known.
    pub fn of_go(text: &str) -> Option<Self> {
        Self::numbers(text.strip_prefix("go").unwrap_or(text))
    }

    /// A version of a module: `v1.64.0`. Nothing for pre-releases and commits.
    pub fn of_module(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v')?;
        Self::numbers(text.strip_suffix("+incompatible").unwrap_or(text))
    }

    fn numbers(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| {
            let digits = (1..=5).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        });
        let version =
            Self { major: parts.next()??, minor: parts.next()??, patch: parts.next().unwrap_or(Some(0))? };
        parts.next().is_none().then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let of = |text| Version::of_go(text).map(|version| version.to_string());
        assert_eq!(of("go1.24.3").as_deref(), Some("1.24.3"));
        assert_eq!(of("go1.20").as_deref(), Some("1.20.0"), "before 1.21 the first had no patch");
        for other in
            ["devel go1.27-a1b2c3 Mon Jan 1", "go1.26rc1", "go1.25.5 X:nocoverageredesign", "go1.24.3-vendor"]
        {
            assert_eq!(of(other), None, "{other}");
        }
        for broken in ["", "go", "go1", "go1.", "go1.2.3.4", "go1.-2", "go1.99999999", "go1.+2"] {
            assert_eq!(of(broken), None, "{broken}");
        }
        assert!(Version::of_go("1.9.7") < Version::of_go("1.10.0"));
        let module = |text| Version::of_module(text).map(|version| version.to_string());
        assert_eq!(module("v1.64.0").as_deref(), Some("1.64.0"));
        assert_eq!(module("v2.0.1+incompatible").as_deref(), Some("2.0.1"));
        for other in ["(devel)", "v0.0.0-20260527015227-08cc5374adb3", "v1.2.0-dev", "1.2.3"] {
            assert_eq!(module(other), None, "{other}");
        }
    }
}
