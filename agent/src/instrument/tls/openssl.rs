//! OpenSSL 1.1 and 3, and its descendants that kept the names (BoringSSL, aws-lc, LibreSSL): as a library, or inside a program
//! (Node) or a library (netty-tcnative) that names its functions.

use spanwise_common::event::library;
use spanwise_common::tls::call::{BY_POINTER, HANDSHAKE, NO_BUFFER, RECV, WIDE};

use super::{Hooked, Library, hooked, look};
use crate::instrument::{Facts, Found, Instrument};
use crate::placement::Elf;
use crate::process::Language;

const FUNCTIONS: &[Hooked] = &[
    hooked("SSL_read", RECV, None),
    hooked("SSL_read_ex", RECV | BY_POINTER, Some(3)),
    hooked("SSL_read_early_data", RECV | BY_POINTER, Some(3)),
    hooked("SSL_write", 0, None),
    hooked("SSL_write_ex", BY_POINTER, Some(3)),
    hooked("SSL_write_ex2", BY_POINTER, Some(4)),
    hooked("SSL_write_early_data", BY_POINTER, Some(3)),
    hooked("SSL_sendfile", NO_BUFFER | WIDE, None),
    hooked("SSL_do_handshake", HANDSHAKE, None),
];

pub(super) const LIBRARY: Library = Library {
    number: library::OPENSSL,
    functions: FUNCTIONS,
    new: "SSL_new",
    free: "SSL_free",
    random: "SSL_get_client_random",
    server: Some("SSL_is_server"),
};

/// In the name of Netty's library for Java, which carries BoringSSL. What moved Netty's classes put its own name before that.
const CARRIER: &str = "netty_tcnative";

/// Finds OpenSSL.
pub struct OpenSsl;

impl Instrument for OpenSsl {
    fn name(&self) -> &'static str {
        "openssl"
    }

    fn programs(&self) -> &'static [&'static str] {
        super::PROGRAMS
    }

    fn wants(&self, facts: &Facts<'_>) -> bool {
        // A Go program has a library of its own, and Java and Python keep theirs in files.
        let may_hold_it =
            facts.is_program && !matches!(facts.language, Language::Go | Language::Java | Language::Python);
        let name = facts.file_name();
        let carries_it = name.contains(".so") && name.contains(CARRIER);
        may_hold_it || carries_it || name.starts_with("libssl.so") || name.starts_with("libssl-")
    }

    fn loaded_late(&self) -> &'static [&'static str] {
        &["libssl.so"]
    }

    fn look(&self, elf: &Elf<'_>, facts: &Facts<'_>) -> Result<Found, String> {
        Ok(look(&LIBRARY, elf, facts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Rules;

    #[test]
    fn which_files_are_opened() {
        let wants = |path: &str, is_program, language| {
            OpenSsl.wants(&Facts { path, is_program, language, rules: Rules::default(), returns: true })
        };
        assert!(wants("/usr/bin/node", true, Language::Nodejs));
        assert!(!wants("/usr/bin/caddy", true, Language::Go));
        for name in ["libssl.so.1.1", "libssl-3a880ada.so.1.1", "libnetty_tcnative_linux_x86_6431.so"] {
            assert!(wants(&format!("/tmp/{name}"), false, Language::Java), "{name}");
        }
        let shaded = "/tmp/libio_grpc_netty_shaded_netty_tcnative_linux_x86_647.so";
        assert!(wants(shaded, false, Language::Java));
        for name in ["libssl3.so", "libnetty_transport_native_epoll_x86_647.so", "netty_tcnative.jar"] {
            assert!(!wants(&format!("/tmp/{name}"), false, Language::Java), "{name}");
        }
    }
}
