//! GnuTLS: `wget`, mail programs, `curl` in one of its builds.

use spanwise_common::event::library;
use spanwise_common::tls::call::{HANDSHAKE, RECV, WIDE};

use super::{Hooked, Library, hooked, look};
use crate::instrument::{Facts, Found, Instrument};
use crate::placement::Elf;

const FUNCTIONS: &[Hooked] = &[
    hooked("gnutls_record_recv", RECV | WIDE, None),
    hooked("gnutls_record_recv_seq", RECV | WIDE, None),
    // `gnutls_record_send` goes on as this one.
    hooked("gnutls_record_send2", WIDE, None),
    hooked("gnutls_handshake", HANDSHAKE, None),
];

pub(super) const LIBRARY: Library = Library {
    number: library::GNUTLS,
    functions: FUNCTIONS,
    new: "gnutls_init",
    free: "gnutls_deinit",
    random: "gnutls_session_get_random",
    server: None,
};

/// Finds GnuTLS.
pub struct GnuTls;

impl Instrument for GnuTls {
    fn name(&self) -> &'static str {
        "gnutls"
    }

    fn programs(&self) -> &'static [&'static str] {
        super::PROGRAMS
    }

    fn wants(&self, facts: &Facts<'_>) -> bool {
        facts.file_name().starts_with("libgnutls.so")
    }

    fn loaded_late(&self) -> &'static [&'static str] {
        &["libgnutls.so"]
    }

    fn look(&self, elf: &Elf<'_>, facts: &Facts<'_>) -> Result<Found, String> {
        Ok(look(&LIBRARY, elf, facts))
    }
}
