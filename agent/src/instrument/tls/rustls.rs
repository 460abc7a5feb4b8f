//! rustls: programs in Rust that name its ciphers.
//!
//! Comes in: a program. Goes out: probes at the beginning and the end of every cipher's `encrypt` and `decrypt`. They are called
//! through a table and never put into their callers, whoever made the cipher (ring, aws-lc, others) and whatever reads and
//! writes the sockets. Each is called once for a record, with itself, the message, and the number of the record; the result is
//! written where the first, hidden argument points, and its address is given back.

use spanwise_common::config::proc;
use spanwise_common::names::program;

use super::{by_return, cheapest, exits};
use crate::instrument::{Facts, Found, Instrument, Wanted};
use crate::placement::{self, Abi, Elf, Function, Needs, Refusal, Rules, Value};
use crate::process::Language;

/// Ciphers of one program that are looked for.
const MOST: usize = 64;
/// Arguments: the cipher, the message, the number of the record. Before them comes the address of the result.
const ARGUMENTS: [u8; 3] = [1, 2, 3];
/// What stands in programs with rustls, whether or not they have names: the paths of its source in messages of failures.
const SOURCE: &[u8] = b"/rustls-0.";
/// Versions whose messages are understood.
const UNDERSTOOD: [&[u8]; 3] = [b"21.", b"22.", b"23."];

/// What a function does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Does {
    Encrypt,
    Decrypt,
}

/// What a function of this name does, in either way to make names: `rustls..crypto..cipher..MessageEncrypter$GT$7encrypt17h…E`,
/// `6rustls6crypto6cipher16MessageEncrypter7encrypt`.
fn does(name: &str) -> Option<Does> {
    // The ones that always fail.
    if !name.contains("rustls") || name.contains("InvalidMessage") {
        return None;
    }
    let named = |legacy: &str, v0: &str| name.contains(legacy) || name.ends_with(v0) || inside(name, v0);
    if named("MessageEncrypter$GT$7encrypt17h", "16MessageEncrypter7encrypt") {
        return Some(Does::Encrypt);
    }
    named("MessageDecrypter$GT$7decrypt17h", "16MessageDecrypter7decrypt").then_some(Does::Decrypt)
}

/// A name with something behind it that the compiler adds (`.llvm.…`, the crate that needs it).
fn inside(name: &str, part: &str) -> bool {
    name.split_once(part).is_some_and(|(_, rest)| rest.starts_with('.') || rest.starts_with('C'))
}

/// The probes of one function.
fn probes_of(function: &Function<'_>, does: Does, facts: &Facts<'_>) -> Result<Vec<Wanted>, Refusal> {
    let (begins, ends) = match does {
        Does::Encrypt => (program::RUSTLS_ENCRYPT, program::RUSTLS_ENCRYPTED),
        Does::Decrypt => (program::RUSTLS_DECRYPT, program::RUSTLS_DECRYPTED),
    };
    let values = ARGUMENTS.map(Value::Argument);
    let entry = placement::entry(function, &Needs { abi: Abi::SysV, values: &values }, facts.rules)
        .or_else(|_| exits::start(function, &ARGUMENTS, facts.rules))?;
    // The guard of the stack, where there is one, comes before the result is complete.
    let only_returns = Rules { naive: true, ..facts.rules };
    // A cipher computes: it waits for nothing, calls nobody back, and ends on the stack that it began on.
    let exits = match exits::of(function, only_returns) {
        Ok(exits) => cheapest(function, exits, facts),
        Err(refusal) if !facts.returns => return Err(refusal),
        Err(_) => vec![by_return(function)?],
    };
    let wanted = |program, site: placement::Site| {
        let cookie = site.cookie(0);
        Wanted { program, site, cookie }
    };
    Ok(std::iter::once(wanted(begins, entry))
        .chain(exits.into_iter().map(|site| wanted(ends, site)))
        .collect())
}

/// Where the version begins of each rustls in the file.
fn versions<'a>(elf: &Elf<'a>) -> impl Iterator<Item = &'a [u8]> {
    let text = elf.section(".rodata").map_or(&[][..], |(_, bytes)| bytes);
    let behind = memchr::memmem::find_iter(text, SOURCE).filter_map(|at| text.get(at + SOURCE.len()..));
    // A program may hold the same words for another purpose, as this one does.
    behind.filter(|version| version.first().is_some_and(u8::is_ascii_digit))
}

fn is_understood(version: &[u8]) -> bool {
    UNDERSTOOD.iter().any(|understood| version.starts_with(understood))
}

fn look(elf: &Elf<'_>, facts: &Facts<'_>) -> Found {
    let mut found = Found::default();
    let functions = elf.functions_where(&|name| does(name).is_some(), MOST);
    if functions.is_empty() {
        if versions(elf).next().is_some() {
            let why = if elf.has_symbols() { "does not name its ciphers" } else { "has no symbols" };
            found.notes.push(format!(
                "rustls is in it, but the program {why}: its plaintext is not captured (build it with strip = \"none\")"
            ));
        }
        return found;
    }
    if versions(elf).any(|version| !is_understood(version)) {
        found.notes.push(
            "it has a rustls of another version than 0.21 to 0.23: of that one only records laid out as those of 0.23 are captured, the others counted"
                .to_owned(),
        );
    }
    let mut probes = Vec::new();
    let (mut encrypt, mut decrypt) = (false, false);
    for function in &functions {
        let Some(does) = does(function.name) else { continue };
        match probes_of(function, does, facts) {
            Ok(wanted) => {
                *(if does == Does::Encrypt { &mut encrypt } else { &mut decrypt }) = true;
                probes.extend(wanted);
            }
            Err(refusal) => found.refusals.push(refusal),
        }
    }
    if !encrypt || !decrypt {
        found
            .notes
            .push("its plaintext is not captured: encrypting or decrypting cannot be hooked".to_owned());
        return found;
    }
    found.probes = probes;
    found.bits = proc::TLS | proc::RUSTLS;
    found
}

/// Finds rustls.
pub struct Rustls;

impl Instrument for Rustls {
    fn name(&self) -> &'static str {
        "rustls"
    }

    fn programs(&self) -> &'static [&'static str] {
        &[
            program::RUSTLS_ENCRYPT,
            program::RUSTLS_ENCRYPTED,
            program::RUSTLS_DECRYPT,
            program::RUSTLS_DECRYPTED,
        ]
    }

    fn wants(&self, facts: &Facts<'_>) -> bool {
        facts.is_program && facts.language == Language::Rust
    }

    fn look(&self, elf: &Elf<'_>, facts: &Facts<'_>) -> Result<Found, String> {
        Ok(look(elf, facts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Class;

    #[test]
    fn a_cipher_ends_at_its_hooked_return_where_that_is_cheap() {
        // push rbp; mov rax, rdi; pop rbp; ret
        let pushes: &[u8] = &[0x55, 0x48, 0x89, 0xf8, 0x5d, 0xc3];
        // sub rsp, 8; jne 0; mov rax, rdi; add rsp, 8; ret
        let subtracts: &[u8] = &[0x48, 0x83, 0xec, 8, 0x75, 0, 0x48, 0x89, 0xf8, 0x48, 0x83, 0xc4, 8, 0xc3];
        let ends = |code, returns, rules| {
            let function = Function { name: "f", address: 0x1000, file_offset: 0, code, jumped_to: &[] };
            let facts = Facts { path: "", is_program: true, language: Language::Rust, rules, returns };
            let probes = probes_of(&function, Does::Encrypt, &facts).unwrap();
            probes.iter().map(|probe| (probe.site.class, probe.site.from_start)).collect::<Vec<_>>()
        };
        let rules = Rules::default();
        assert_eq!(ends(pushes, true, rules), [(Class::Push, 0), (Class::Return, 0)]);
        assert_eq!(ends(pushes, false, rules), [(Class::Push, 0), (Class::Stepped, 5)]);
        assert_eq!(
            ends(pushes, true, Rules { naive: true, ..rules }),
            [(Class::Push, 0), (Class::Stepped, 5)]
        );
        assert_eq!(ends(subtracts, true, rules), [(Class::Jump, 4), (Class::Stepped, 13)]);
    }

    #[test]
    fn versions_that_are_understood() {
        for (version, understood) in
            [("21.12/src", true), ("22.4/src", true), ("23.46/src", true), ("20.9/src", false)]
        {
            assert_eq!(is_understood(version.as_bytes()), understood, "{version}");
        }
        assert!(!is_understood(b"2"));
    }

    #[test]
    fn ciphers_are_known_by_their_names() {
        let encrypt = [
            "_ZN111_$LT$rustls..crypto..ring..tls13..Tls13MessageEncrypter$u20$as$u20$rustls..crypto..cipher..MessageEncrypter$GT$7encrypt17had69d5082b5f1098E",
            "_ZN109_$LT$rustls..crypto..aws_lc_rs..tls13..GcmMessageEncrypter$u20$as$u20$rustls..crypto..cipher..MessageEncrypter$GT$7encrypt17h82900d87c093820eE.llvm.12",
            "_RNvXs5_NtNtNtCs1_6rustls6crypto4ring5tls13NtB5_21Tls13MessageEncrypterNtNtB9_6cipher16MessageEncrypter7encrypt",
            "_RNvXs5_NtNtNtCs1_6rustls6crypto4ring5tls13NtB5_21Tls13MessageEncrypterNtNtB9_6cipher16MessageEncrypter7encryptCs2_3app",
        ];
        for name in encrypt {
            assert_eq!(does(name), Some(Does::Encrypt), "{name}");
            let other = name.replace("Encrypter", "Decrypter").replace("7encrypt", "7decrypt");
            assert_eq!(does(&other), Some(Does::Decrypt), "{other}");
        }
        for name in [
            "_ZN108_$LT$rustls..crypto..cipher..InvalidMessageEncrypter$u20$as$u20$rustls..crypto..cipher..MessageEncrypter$GT$7encrypt17h6d06755975fc9be7E",
            "_ZN111_$LT$rustls..crypto..ring..tls13..Tls13MessageEncrypter$u20$as$u20$rustls..crypto..cipher..MessageEncrypter$GT$21encrypted_payload_len17h4c28b9571eff867aE",
            "_RNvXs5_NtNtNtCs1_6rustls6crypto4ring5tls13NtB5_21Tls13MessageEncrypterNtNtB9_6cipher16MessageEncrypter21encrypted_payload_len",
            "main",
        ] {
            assert_eq!(does(name), None, "{name}");
        }
    }
}
