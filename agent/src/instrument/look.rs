//! Looking at one file. Comes in: the open file, what is known of it, the instruments. Goes out: what each instrument found.

use std::fs::File;
use std::sync::Arc;

use super::{Facts, Found, Instrument};
use crate::kernel::mapping::Mapping;
use crate::placement::Elf;

/// What was found in a file.
#[derive(Debug, Default)]
pub struct Findings {
    /// What one instrument found, by its name. Instruments that do not want the file are not here.
    pub by: Vec<(&'static str, Result<Found, String>)>,
    /// Address as linked, and offset in the file, of the first code: by them it is known how far a process moved it.
    pub first_code: Option<(u64, u64)>,
    /// The file's build id.
    pub build_id: Option<Vec<u8>>,
}

impl Findings {
    /// How far a process has moved the file, which has this offset mapped at this address.
    #[must_use]
    pub fn moved(&self, start: u64, offset: u64) -> u64 {
        self.first_code
            .map_or(0, |(address, at)| start.wrapping_sub(address.wrapping_add(offset.wrapping_sub(at))))
    }

    /// Whether anything is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let empty = |found: &Found| found.probes.is_empty() && found.bits == 0 && found.values.is_empty();
        self.by.iter().all(|(_, result)| result.as_ref().map_or(true, empty))
    }
}

/// Looks at a file with every instrument that wants it.
#[must_use]
pub fn look(file: &File, facts: &Facts<'_>, instruments: &[Arc<dyn Instrument>]) -> Findings {
    let wanting: Vec<_> = instruments.iter().filter(|instrument| instrument.wants(facts)).collect();
    let mut findings = Findings::default();
    if wanting.is_empty() {
        return findings;
    }
    let mapping = match Mapping::of(file) {
        Ok(mapping) => mapping,
        Err(error) => {
            let why = format!("the file cannot be read ({error})");
            findings.by = wanting.iter().map(|one| (one.name(), Err(why.clone()))).collect();
            return findings;
        }
    };
    match Elf::parse(mapping.bytes()) {
        Ok(elf) => {
            findings.first_code = elf.first_code();
            findings.build_id = elf.build_id().map(<[u8]>::to_vec);
            findings.by = wanting.iter().map(|one| (one.name(), one.look(&elf, facts))).collect();
        }
        Err(error) => {
            let why = error.to_string();
            findings.by = wanting.iter().map(|one| (one.name(), Err(why.clone()))).collect();
        }
    }
    findings
}
