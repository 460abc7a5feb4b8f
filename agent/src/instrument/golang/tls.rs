//! crypto/tls: one hit for each record that is sent, and one for each that is read.

use spanwise_common::config::proc;
use spanwise_common::golang::Tls;
use spanwise_common::names::{self, program};

use super::{Lack, Program};
use crate::instrument::{Facts, Found, Wanted};
use crate::placement::{self, Abi, Needs, Value};

const ENCRYPT: &str = "crypto/tls.(*halfConn).encrypt";
const DECRYPT: &str = "crypto/tls.(*halfConn).decrypt";
const READ: &str = "crypto/tls.(*Conn).readRecordOrCCS";

/// Functions that are looked for.
pub(super) const FUNCTIONS: [&str; 3] = [ENCRYPT, DECRYPT, READ];

/// Adds what captures plaintext, if the program uses TLS.
pub(super) fn look(program: &Program<'_, '_>, facts: &Facts<'_>, found: &mut Found) {
    match probes(program, facts) {
        Ok((probes, layout)) => {
            found.probes.extend(probes);
            found.bits |= proc::GO_TLS;
            found.values.push((names::GO_TLS, Box::new(move |_| bytes(&layout))));
        }
        Err(lack) => lack.tell(found),
    }
}

fn probes(program: &Program<'_, '_>, facts: &Facts<'_>) -> Result<(Vec<Wanted>, Tls), Lack> {
    let encrypt = program.function(ENCRYPT)?;
    let read = program.function(READ)?;
    let decrypt = program.function(DECRYPT)?.address;
    program.expect_sockets()?;
    program.expect(&[("bytes.Buffer", "buf", 0)])?;
    let member = |name| program.binary.offset("crypto/tls.Conn", name);
    let layout = Tls {
        conn: member("conn")?,
        version: member("vers")?,
        suite: member("cipherSuite")?,
        out: member("out")?,
        raw: member("rawInput")?,
        off: program.binary.offset("bytes.Buffer", "off")?,
    };
    // The record with its header, and the plaintext.
    let values = [Value::Argument(0), Value::Argument(1), Value::Argument(4)];
    let site = placement::entry(&encrypt, &Needs { abi: Abi::Go, values: &values }, facts.rules)?;
    let cookie = site.cookie(0);
    let mut wanted = vec![Wanted { program: program::GO_ENCRYPT, site, cookie }];
    // The connection; plaintext, its length, and its type.
    let values = [Value::Argument(0), Value::Result(0), Value::Result(1), Value::Result(3)];
    let needs = Needs { abi: Abi::Go, values: &values };
    let sites = placement::after_call(&read, &|address| address == decrypt, &needs, facts.rules)?;
    for site in sites {
        let kind = site.places.get(3).map_or(0, |place| place.0);
        let cookie = site.cookie(kind);
        wanted.push(Wanted { program: program::GO_DECRYPT, site, cookie });
    }
    Ok((wanted, layout))
}

/// What the map holds for a process.
fn bytes(layout: &Tls) -> Vec<u8> {
    let Tls { conn, version, suite, out, raw, off } = *layout;
    [conn, version, suite, out, raw, off].iter().flat_map(|offset| offset.to_ne_bytes()).collect()
}
