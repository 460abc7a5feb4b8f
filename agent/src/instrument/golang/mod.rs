//! Go programs: plaintext of crypto/tls, and the goroutines that work for streams of HTTP/2.
//!
//! Comes in: a program file. Goes out: a few probes, each at a cheap instruction that is passed once a call, also where the stack
//! grows; never at a return. Structs are read at offsets that were measured or that the program's debug information tells;
//! where neither knows, the feature is left out with a sentence.

mod channels;
mod grpc;
mod http1;
mod http2;
mod routes;
mod starts;
mod tls;

use std::collections::HashMap;

use spanwise_golang::{Binary, Found as Looked, Unknown};

use super::{Facts, Found, Instrument};
use crate::placement::{Elf, Function, Refusal};
use crate::process::Language;

/// Go programs.
pub struct Golang;

impl Instrument for Golang {
    fn name(&self) -> &'static str {
        "go"
    }

    fn programs(&self) -> &'static [&'static str] {
        use spanwise_common::names::program::{
            GO_CALLS, GO_CHANNEL, GO_DECRYPT, GO_ENCRYPT, GO_H2_CALL, GO_HTTP_CALL, GO_OPENS, GO_SERVES,
            GO_STARTS,
        };
        &[
            GO_ENCRYPT,
            GO_DECRYPT,
            GO_HTTP_CALL,
            GO_H2_CALL,
            GO_SERVES,
            GO_CALLS,
            GO_OPENS,
            GO_STARTS,
            GO_CHANNEL,
        ]
    }

    fn wants(&self, facts: &Facts<'_>) -> bool {
        facts.is_program && facts.language == Language::Go
    }

    fn look(&self, elf: &Elf<'_>, facts: &Facts<'_>) -> Result<Found, String> {
        let binary = Binary::read(Box::new(elf.data())).map_err(|error| error.to_string())?;
        let mut names: Vec<&str> = Vec::new();
        names.extend(tls::FUNCTIONS);
        names.extend(http1::FUNCTIONS);
        names.extend(starts::FUNCTIONS);
        names.extend(channels::FUNCTIONS);
        names.extend(
            http2::KINDS.iter().flat_map(|kind| kind.calls.iter().chain([&kind.serves, &kind.writes])),
        );
        names.extend(grpc::FUNCTIONS);
        names.extend(routes::functions());
        let program = Program { elf, functions: binary.find(&names), binary: &binary };
        let mut found = Found::default();
        if binary.functions().is_none() {
            found.notes.push("its table of functions was not found: traced at socket level only".to_owned());
            return Ok(found);
        }
        tls::look(&program, facts, &mut found);
        http1::look(&program, facts, &mut found);
        starts::look(&program, facts, &mut found);
        channels::look(&program, facts, &mut found);
        http2::look(&program, facts, &mut found);
        grpc::look(&program, facts, &mut found);
        routes::look(&program, &mut found);
        found.notes.dedup();
        Ok(found)
    }
}

/// A program that is looked at.
struct Program<'a, 'e> {
    elf: &'e Elf<'a>,
    binary: &'e Binary<'a>,
    functions: HashMap<&'static str, Looked>,
}

/// Why something gets no probe.
enum Lack {
    /// The program does not use it.
    Unused,
    /// There is no place.
    Refused(Refusal),
    /// A layout is not known.
    Unknown(Unknown),
    /// A sentence.
    Said(String),
}

impl From<Refusal> for Lack {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Unknown> for Lack {
    fn from(unknown: Unknown) -> Self {
        Self::Unknown(unknown)
    }
}

impl Lack {
    /// Says it.
    fn tell(self, found: &mut Found) {
        match self {
            Self::Unused => {}
            Self::Refused(refusal) => found.refusals.push(refusal),
            Self::Unknown(unknown) => found.notes.push(unknown.to_string()),
            Self::Said(said) => found.notes.push(said),
        }
    }
}

impl<'a> Program<'a, '_> {
    /// A function of the program.
    fn function(&self, name: &'static str) -> Result<Function<'a>, Lack> {
        match self.functions.get(name) {
            Some(Looked::Function(at)) => {
                let function = self.elf.function(name, at.address, at.size);
                function.ok_or_else(|| Refusal::NoCode(name.to_owned()).into())
            }
            Some(Looked::Inlined) => Err(Lack::Said(format!(
                "{name}: the compiler has put it into its callers, where it cannot be hooked"
            ))),
            _ => Err(Lack::Unused),
        }
    }

    /// Whether a function is called by its name somewhere.
    fn has(&self, name: &str) -> bool {
        !matches!(self.functions.get(name), None | Some(Looked::Absent))
    }

    /// Where a function is.
    fn address(&self, name: &str) -> Option<u64> {
        match self.functions.get(name) {
            Some(Looked::Function(at)) => Some(at.address),
            _ => None,
        }
    }

    /// Fails unless members of the standard library are where the kernel side expects them.
    fn expect(&self, members: &[(&str, &str, u64)]) -> Result<(), Lack> {
        for (strukt, member, wanted) in members {
            if u64::from(self.binary.offset(strukt, member)?) != *wanted {
                return Err(moved(&self.binary.info.compiler, strukt, member));
            }
        }
        Ok(())
    }

    /// The same for the way from a `net.Conn` down to its descriptor.
    fn expect_sockets(&self) -> Result<(), Lack> {
        use spanwise_common::golang::fixed;
        self.expect(&[
            ("net.TCPConn", "conn", fixed::FIRST),
            ("net.conn", "fd", fixed::FIRST),
            ("net.netFD", "pfd", fixed::FIRST),
            ("internal/poll.FD", "Sysfd", fixed::SYSFD as u64),
            ("internal/poll.FD", "IsStream", fixed::IS_STREAM as u64),
            ("internal/poll.FD", "ZeroReadIsEOF", fixed::ZERO_READ_IS_EOF as u64),
            ("internal/poll.FD", "isFile", fixed::IS_FILE as u64),
        ])
    }
}

/// A member is not where all measured versions have it.
fn moved(of: &str, strukt: &str, member: &str) -> Lack {
    Lack::Said(format!(
        "{of} has {strukt}.{member} at a place that is not expected: what needs it is not captured"
    ))
}

/// An offset for the bits of a cookie.
fn short(offset: u32, most: u16) -> Option<u16> {
    u16::try_from(offset).ok().filter(|offset| *offset <= most)
}
