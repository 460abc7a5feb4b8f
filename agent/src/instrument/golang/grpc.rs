//! grpc-go. A server starts a goroutine (or wakes one) for each stream: one hit, by the one that serves it. A client's streams are
//! made by the caller and opened by the goroutine that writes all frames of the connection: one hit each.

use spanwise_common::golang::path;
use spanwise_common::names::program;
use spanwise_common::place::{self, Place};
use spanwise_golang::Unknown;

use super::{Lack, Program, moved, short};
use crate::instrument::{Facts, Found, Wanted};
use crate::placement::{self, Abi, Needs, Value};

const MODULE: &str = "google.golang.org/grpc";
const HANDLE: &str = "google.golang.org/grpc.(*Server).handleStream";
const MAKE: &str = "google.golang.org/grpc/internal/transport.(*http2Client).newStream";
const MAKES: &str = "google.golang.org/grpc/internal/transport.(*http2Client).NewStream";
const OPEN: &str = "google.golang.org/grpc/internal/transport.(*loopyWriter).originateStream";
/// From 1.82 on.
const OPENS: &str = "google.golang.org/grpc/internal/transport.(*loopyWriter).clientHeaderHandler";
/// Only where `Stream.wq` is a pointer.
const QUOTA: &str = "google.golang.org/grpc/internal/transport.newWriteQuota";

/// Functions that are looked for.
pub(super) const FUNCTIONS: [&str; 6] = [HANDLE, MAKE, MAKES, OPEN, OPENS, QUOTA];

/// Adds what tells who serves a stream and who made it.
pub(super) fn look(program: &Program<'_, '_>, facts: &Facts<'_>, found: &mut Found) {
    match serves(program, facts) {
        Ok(wanted) => found.probes.push(wanted),
        Err(lack) => lack.tell(found),
    }
    match calls(program, facts) {
        Ok(wanted) => found.probes.extend(wanted),
        Err(lack) => lack.tell(found),
    }
}

fn member(program: &Program<'_, '_>, strukt: &str, name: &str) -> Result<u32, Unknown> {
    let strukt = format!("google.golang.org/grpc/internal/transport.{strukt}");
    program.binary.module_offset(MODULE, &strukt, name)
}

/// How many pointers lead from a stream of one side to what both sides have in common: none where it is the first member of it, or
/// the same.
fn pointers(program: &Program<'_, '_>, side: &str, second: &str) -> Result<u16, Lack> {
    match member(program, side, second) {
        // The second member of a struct that begins with a pointer.
        Ok(8) => Ok(1),
        Ok(_) | Err(Unknown::Missing { .. }) => Ok(0),
        Err(unknown) => Err(unknown.into()),
    }
}

fn serves(program: &Program<'_, '_>, facts: &Facts<'_>) -> Result<Wanted, Lack> {
    let function = program.function(HANDLE)?;
    program.expect_sockets()?;
    let follow = pointers(program, "ServerStream", "st")?;
    let conn = short(member(program, "http2Server", "conn")?, u16::MAX);
    let number = short(member(program, "Stream", "id")?, path::OFFSET);
    let (Some(conn), Some(number)) = (conn, number) else { return Err(moved(MODULE, "Stream", "id")) };
    // The server, the transport (an interface), the stream.
    let values = [Value::Argument(2), Value::Argument(3)];
    let site = placement::entry(&function, &Needs { abi: Abi::Go, values: &values }, facts.rules)?;
    let at = |index: usize| site.places.get(index).copied().unwrap_or(Place::NOWHERE);
    let cookie = place::cookie([at(0), at(1), Place(conn)], number | follow << path::FOLLOW_SHIFT);
    Ok(Wanted { program: program::GO_SERVES, site, cookie })
}

fn calls(program: &Program<'_, '_>, facts: &Facts<'_>) -> Result<Vec<Wanted>, Lack> {
    let makes = program.function(MAKES)?;
    // The writer, the stream as it knows it, the head; or the writer and the head, a client's own.
    let (open, argument, head) = match program.function(OPEN) {
        Ok(open) => (open, 2, "headerFrame"),
        Err(_) => (program.function(OPENS)?, 1, "clientHeaders"),
    };
    let Some(make) = program.address(MAKE) else {
        return Err(Lack::Said(format!(
            "{MAKE}: the compiler has put it into its caller: callers of streams are not known"
        )));
    };
    program.expect_sockets()?;
    let follow = pointers(program, "ClientStream", "ct")?;
    let last = if program.has(QUOTA) { path::LAST } else { 0 };
    let conn = short(member(program, "http2Client", "conn")?, u16::MAX);
    let quota = short(member(program, "Stream", "wq")?, path::OFFSET);
    let number = short(member(program, head, "streamID")?, u16::MAX);
    let named = short(member(program, head, "wq")?, u16::MAX);
    let (Some(conn), Some(quota), Some(number), Some(named)) = (conn, quota, number, named) else {
        return Err(moved(MODULE, "Stream", "wq"));
    };
    let values = [Value::Argument(0), Value::Result(0)];
    let needs = Needs { abi: Abi::Go, values: &values };
    let mut wanted = Vec::new();
    for site in placement::after_call(&makes, &|address| address == make, &needs, facts.rules)? {
        let at = |index: usize| site.places.get(index).copied().unwrap_or(Place::NOWHERE);
        let own = quota | follow << path::FOLLOW_SHIFT | last;
        let cookie = place::cookie([at(0), at(1), Place(conn)], own);
        wanted.push(Wanted { program: program::GO_CALLS, site, cookie });
    }
    let needs = Needs { abi: Abi::Go, values: &[Value::Argument(argument)] };
    let site = placement::entry(&open, &needs, facts.rules)?;
    let at = site.places.first().copied().unwrap_or(Place::NOWHERE);
    let cookie = place::cookie([at, Place(number), Place(named)], 0);
    wanted.push(Wanted { program: program::GO_OPENS, site, cookie });
    Ok(wanted)
}
