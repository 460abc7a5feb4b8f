//! HTTP/2 in net/http and golang.org/x/net. In a server one goroutine reads all frames of a connection and starts another for each
//! stream: one hit, by the one that serves it. In a client a child of the caller writes the request's head, and says itself whose
//! child it is; one hit, by the caller, says whose child that is, which may do nothing else that is seen.

use spanwise_common::golang::path;
use spanwise_common::names::program;
use spanwise_common::place::{self, Place};
use spanwise_golang::{STD, Unknown};

use super::{Lack, Program, moved, short};
use crate::instrument::{Facts, Found, Wanted};
use crate::placement::{self, Abi, Needs, Value};

/// An implementation.
pub(super) struct Kind {
    /// The module that it is in.
    module: &'static str,
    /// The function that a stream's goroutine begins with.
    pub(super) serves: &'static str,
    /// The functions by which a request is made, the innermost first: a version has some of them.
    pub(super) calls: &'static [&'static str],
    /// The function that the child of the caller begins with. Where it is not, what is called so only passes requests on to
    /// another implementation.
    pub(super) writes: &'static str,
    server: &'static str,
    writer: &'static str,
    state: &'static str,
    stream: &'static str,
}

pub(super) const KINDS: [Kind; 3] = [
    Kind {
        module: STD,
        serves: "net/http.(*http2serverConn).runHandler",
        calls: &["net/http.(*http2ClientConn).roundTrip", "net/http.(*http2ClientConn).RoundTrip"],
        writes: "net/http.(*http2clientStream).doRequest",
        server: "net/http.http2serverConn",
        writer: "net/http.http2responseWriter",
        state: "net/http.http2responseWriterState",
        stream: "net/http.http2stream",
    },
    // Go 1.27 and later.
    Kind {
        module: STD,
        serves: "net/http/internal/http2.(*serverConn).runHandler",
        calls: &["net/http/internal/http2.(*ClientConn).roundTrip"],
        writes: "net/http/internal/http2.(*clientStream).doRequest",
        server: "net/http/internal/http2.serverConn",
        writer: "net/http/internal/http2.responseWriter",
        state: "net/http/internal/http2.responseWriterState",
        stream: "net/http/internal/http2.stream",
    },
    Kind {
        module: "golang.org/x/net",
        serves: "golang.org/x/net/http2.(*serverConn).runHandler",
        calls: &[
            "golang.org/x/net/http2.(*ClientConn).internalRoundTrip",
            "golang.org/x/net/http2.(*ClientConn).roundTrip",
            "golang.org/x/net/http2.(*ClientConn).RoundTrip",
        ],
        writes: "golang.org/x/net/http2.(*clientStream).doRequest",
        server: "golang.org/x/net/http2.serverConn",
        writer: "golang.org/x/net/http2.responseWriter",
        state: "golang.org/x/net/http2.responseWriterState",
        stream: "golang.org/x/net/http2.stream",
    },
];

/// Adds what tells who serves a stream, and who makes one.
pub(super) fn look(program: &Program<'_, '_>, facts: &Facts<'_>, found: &mut Found) {
    for result in KINDS.iter().flat_map(|kind| [serves(program, kind, facts), calls(program, kind, facts)]) {
        match result {
            Ok(wanted) => found.probes.push(wanted),
            Err(lack) => lack.tell(found),
        }
    }
}

fn calls(program: &Program<'_, '_>, kind: &Kind, facts: &Facts<'_>) -> Result<Wanted, Lack> {
    if !program.has(kind.writes) {
        return Err(Lack::Unused);
    }
    let mut lack = Lack::Unused;
    let function = kind.calls.iter().find_map(|name| program.function(name).map_err(|why| lack = why).ok());
    let function = function.ok_or(lack)?;
    let site =
        placement::entry(&function, &Needs { abi: Abi::Go, values: &[Value::Argument(0)] }, facts.rules)?;
    let cookie = site.cookie(0);
    Ok(Wanted { program: program::GO_H2_CALL, site, cookie })
}

fn member(program: &Program<'_, '_>, kind: &Kind, strukt: &str, name: &str) -> Result<u32, Unknown> {
    match kind.module {
        STD => program.binary.offset(strukt, name),
        module => program.binary.module_offset(module, strukt, name),
    }
}

fn serves(program: &Program<'_, '_>, kind: &Kind, facts: &Facts<'_>) -> Result<Wanted, Lack> {
    let function = program.function(kind.serves)?;
    program.expect_sockets()?;
    let member = |strukt: &str, name: &str| member(program, kind, strukt, name);
    for (strukt, name) in [(kind.writer, "rws"), (kind.state, "stream")] {
        if member(strukt, name)? != 0 {
            return Err(moved(kind.module, strukt, name));
        }
    }
    let conn = short(member(kind.server, "conn")?, u16::MAX);
    let number = short(member(kind.stream, "id")?, path::OFFSET);
    let (Some(conn), Some(number)) = (conn, number) else {
        return Err(moved(kind.module, kind.server, "conn"));
    };
    let values = [Value::Argument(0), Value::Argument(1)];
    let site = placement::entry(&function, &Needs { abi: Abi::Go, values: &values }, facts.rules)?;
    let at = |index: usize| site.places.get(index).copied().unwrap_or(Place::NOWHERE);
    let cookie = place::cookie([at(0), at(1), Place(conn)], number | 2 << path::FOLLOW_SHIFT);
    Ok(Wanted { program: program::GO_SERVES, site, cookie })
}
