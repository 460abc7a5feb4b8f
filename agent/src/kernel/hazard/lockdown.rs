//! The kernel's lockdown mode.

use std::fs::read_to_string;

/// How far the kernel keeps root out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lockdown {
    /// Not at all.
    None,
    /// Nobody changes the kernel, nor memory of processes by BPF.
    Integrity,
    /// Nobody reads the kernel's memory either.
    Confidentiality,
}

impl Lockdown {
    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::Integrity, Self::Confidentiality].into_iter().find(|mode| mode.name() == name)
    }
}

/// The mode as the kernel shows it; where that is not mounted, as it was asked for at boot.
pub fn lockdown() -> Option<Lockdown> {
    let read = |path| read_to_string(path).ok();
    let shown =
        read("/sys/kernel/security/lockdown").as_deref().and_then(chosen).and_then(Lockdown::from_name);
    shown.or_else(|| asked(&read("/proc/cmdline")?).and_then(Lockdown::from_name))
}

fn asked(cmdline: &str) -> Option<&str> {
    cmdline.split_ascii_whitespace().filter_map(|word| word.strip_prefix("lockdown=")).next_back()
}

/// `none [integrity] confidentiality` -> integrity.
fn chosen(text: &str) -> Option<&str> {
    Some(text.split_once('[')?.1.split_once(']')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(chosen("none [integrity] confidentiality"), Some("integrity"));
        assert_eq!(chosen("none"), None);
        assert_eq!(asked("ro lockdown=none quiet lockdown=integrity"), Some("integrity"));
        assert_eq!(asked("ro"), None);
        assert_eq!(Lockdown::from_name("confidentiality"), Some(Lockdown::Confidentiality));
        assert_eq!(Lockdown::from_name("else"), None);
    }
}
