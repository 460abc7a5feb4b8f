//! The HTTP/1 client of net/http: bytes of a request are written by a goroutine of the connection. One hit for each call, by the
//! goroutine that waits for its answer.
//!
//! Servers need none: a goroutine serves a connection, and reads and writes it.

use spanwise_common::names::program;
use spanwise_common::place::{self, Place};

use super::{Lack, Program, moved, short};
use crate::instrument::{Facts, Found, Wanted};
use crate::placement::{self, Abi, Needs, Value};

/// What is called for each request, on the connection that was chosen for it.
const CALL: &str = "net/http.(*persistConn).roundTrip";
const CLIENT: &str = "net/http.persistConn";

pub(super) const FUNCTIONS: [&str; 1] = [CALL];

/// Adds what tells who calls.
pub(super) fn look(program: &Program<'_, '_>, facts: &Facts<'_>, found: &mut Found) {
    match calls(program, facts) {
        Ok(wanted) => found.probes.push(wanted),
        Err(lack) => lack.tell(found),
    }
}

fn calls(program: &Program<'_, '_>, facts: &Facts<'_>) -> Result<Wanted, Lack> {
    let function = program.function(CALL)?;
    program.expect_sockets()?;
    let conn = short(program.binary.offset(CLIENT, "conn")?, u16::MAX);
    let conn = conn.ok_or_else(|| moved(&program.binary.info.compiler, CLIENT, "conn"))?;
    let needs = Needs { abi: Abi::Go, values: &[Value::Argument(0)] };
    let site = placement::entry(&function, &needs, facts.rules)?;
    let client = site.places.first().copied().unwrap_or(Place::NOWHERE);
    let cookie = place::cookie([client, Place::NOWHERE, Place::NOWHERE], conn);
    Ok(Wanted { program: program::GO_HTTP_CALL, site, cookie })
}
