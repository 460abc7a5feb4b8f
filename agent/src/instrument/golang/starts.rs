//! Who starts goroutines: wanted only in programs where goroutines that do no transfer themselves start others that do. One hit for
//! each `go` statement.

use spanwise_common::names::program;
use spanwise_common::place::{self, Place};

use super::{Lack, Program};
use crate::instrument::{Facts, Found, Need, Wanted};
use crate::placement::{self, Abi, Needs};

/// What a `go` statement calls, in the goroutine that it stands in.
const START: &str = "runtime.newproc";

pub(super) const FUNCTIONS: [&str; 1] = [START];

/// Adds what tells who starts others.
pub(super) fn look(program: &Program<'_, '_>, facts: &Facts<'_>, found: &mut Found) {
    match starts(program, facts) {
        Ok(wanted) => found.later.push((Need::Starters, wanted)),
        Err(lack) => lack.tell(found),
    }
}

fn starts(program: &Program<'_, '_>, facts: &Facts<'_>) -> Result<Wanted, Lack> {
    let function = program.function(START)?;
    let site = placement::entry(&function, &Needs { abi: Abi::Go, values: &[] }, facts.rules)?;
    let cookie = place::cookie([Place::NOWHERE; 3], 0);
    Ok(Wanted { program: program::GO_STARTS, site, cookie })
}
