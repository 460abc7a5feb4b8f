//! Faults on purpose, for tests: what this kernel shall seem not to have.
//!
//! Comes in: `SPANWISE_FAULT`, a list such as `program:tcp_state,offset:OFF_SK_NET`. Goes out: the answer to "shall this one
//! fail?", asked where the kernel would say no. Without the variable nothing fails on purpose.

/// The variable.
pub const VARIABLE: &str = "SPANWISE_FAULT";

const FORM: &str = "a list of btf, program:NAME, hook:NAME, map:NAME, offset:NAME, helper:NAME, hazard:NAME";

/// What fails on purpose.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Faults {
    btf: bool,
    named: Vec<(Kind, String)>,
}

/// What can fail by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A program is refused by the verifier.
    Program,
    /// A tracepoint or function is not in the kernel.
    Hook,
    /// A map is refused.
    Map,
    /// A member is not in the kernel's types.
    Offset,
    /// A helper function is not there.
    Helper,
    /// A feature does harm here.
    Hazard,
}

impl Faults {
    /// From the environment.
    pub fn from_env() -> Result<Self, String> {
        Self::parse(&std::env::var(VARIABLE).unwrap_or_default())
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut faults = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let kind = match word.split_once(':') {
                None if word == "btf" => {
                    faults.btf = true;
                    continue;
                }
                Some(("program", _)) => Kind::Program,
                Some(("hook", _)) => Kind::Hook,
                Some(("map", _)) => Kind::Map,
                Some(("offset", _)) => Kind::Offset,
                Some(("helper", _)) => Kind::Helper,
                Some(("hazard", _)) => Kind::Hazard,
                _ => return Err(format!("{VARIABLE} (for tests only) has `{word}`; it must be {FORM}")),
            };
            let name = word.split_once(':').map_or("", |(_, name)| name);
            faults.named.push((kind, name.to_owned()));
        }
        Ok(faults)
    }

    /// Whether the kernel's types shall be unknown.
    pub fn btf(&self) -> bool {
        self.btf
    }

    /// Whether this one shall fail.
    pub fn has(&self, kind: Kind, name: &str) -> bool {
        self.named.iter().any(|(k, n)| *k == kind && n == name)
    }

    /// Names of one kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &str> {
        self.named.iter().filter(move |(k, _)| *k == kind).map(|(_, name)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let faults = Faults::parse("btf, program:tcp_state,offset:OFF_A,offset:OFF_B").unwrap();
        assert!(faults.btf());
        assert!(faults.has(Kind::Program, "tcp_state") && !faults.has(Kind::Map, "tcp_state"));
        assert_eq!(faults.of(Kind::Offset).collect::<Vec<_>>(), ["OFF_A", "OFF_B"]);
        assert_eq!(Faults::parse("").unwrap(), Faults::default());
        assert!(Faults::parse("programme:x").unwrap_err().contains("it must be"));
    }
}
