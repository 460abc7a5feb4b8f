//! For tests and measurements: counts the calls of named functions. On only with `SPANWISE_TEST_PROBES` in the environment.
//!
//! Its value is a list, separated by commas, of `FILE:FUNCTION`, where the file's name begins so; the first argument is wanted.
//! `FILE:FUNCTION+` wants nothing, `FILE:FUNCTION-` its return, hooked, with the result, `FILE:FUNCTION>CALLEE` a place after each call of the other function, with its result and the
//! first argument. The sites are numbered in the order of the list.

use spanwise_common::limits::MAX_TRIALS;
use spanwise_common::names::program;

use super::{Facts, Found, Instrument, Wanted};
use crate::placement::{self, Abi, Elf, Needs, Refusal, Site, Value};
use crate::process::Language;

struct Asked {
    file: String,
    function: String,
    callee: Option<String>,
    argument: bool,
    returns: bool,
}

/// Counts calls.
pub(super) struct Trial(Vec<Asked>);

impl Trial {
    /// If the environment asks for it.
    pub(super) fn of_environment() -> Option<Self> {
        let text = std::env::var("SPANWISE_TEST_PROBES").ok()?;
        Some(Self(text.split(',').filter_map(asked).take(MAX_TRIALS as usize).collect()))
    }
}

fn asked(text: &str) -> Option<Asked> {
    let (file, function) = text.split_once(':')?;
    let (function, callee) = match function.split_once('>') {
        Some((function, callee)) => (function, Some(callee.to_owned())),
        None => (function, None),
    };
    let argument = !function.ends_with('+');
    let returns = function.ends_with('-');
    let function = function.trim_end_matches(['+', '-']).into();
    Some(Asked { file: file.into(), function, callee, argument, returns })
}

impl Asked {
    fn sites(&self, elf: &Elf<'_>, facts: &Facts<'_>) -> Result<Vec<Site>, Refusal> {
        let abi = if facts.language == Language::Go { Abi::Go } else { Abi::SysV };
        let absent = |name: &str| Refusal::Absent(name.to_owned());
        let names = [self.function.as_str(), self.callee.as_deref().unwrap_or_default()];
        let found = elf.functions(&names);
        let function = found.first().copied().flatten().ok_or_else(|| absent(&self.function))?;
        match &self.callee {
            Some(callee) => {
                let callee = found.get(1).copied().flatten().ok_or_else(|| absent(callee))?.address;
                let needs = Needs { abi, values: &[Value::Result(0), Value::Argument(0)] };
                placement::after_call(&function, &|to| to == callee, &needs, facts.rules)
            }
            None if self.returns => {
                placement::returns(&function, &Needs { abi, values: &[Value::Result(0)] })
                    .map(|site| vec![site])
            }
            None => {
                let values: &[Value] = if self.argument { &[Value::Argument(0)] } else { &[] };
                placement::entry(&function, &Needs { abi, values }, facts.rules).map(|site| vec![site])
            }
        }
    }
}

impl Instrument for Trial {
    fn name(&self) -> &'static str {
        "trial"
    }

    fn programs(&self) -> &'static [&'static str] {
        &[program::UP_TRIAL]
    }

    fn comes_late(&self) -> bool {
        true
    }

    fn wants(&self, facts: &Facts<'_>) -> bool {
        self.0.iter().any(|asked| facts.file_name().starts_with(&asked.file))
    }

    fn look(&self, elf: &Elf<'_>, facts: &Facts<'_>) -> Result<Found, String> {
        let mut found = Found::default();
        for (number, asked) in self.0.iter().enumerate() {
            if !facts.file_name().starts_with(&asked.file) {
                continue;
            }
            match asked.sites(elf, facts) {
                Ok(sites) => found.probes.extend(sites.into_iter().map(|site| {
                    let cookie = site.cookie(number as u16);
                    Wanted { program: program::UP_TRIAL, site, cookie }
                })),
                Err(refusal) => found.refusals.push(refusal),
            }
        }
        Ok(found)
    }
}
