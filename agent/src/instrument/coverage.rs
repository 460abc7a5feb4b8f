//! What of a process's traffic is read beside plain sockets, and what is not. Comes in: a process. Goes out: the libraries whose
//! plaintext is read, and for each thing that is not read a sentence with the reason, and what to do. Nothing is attached.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use spanwise_common::config::proc;

use super::{Facts, Instrument, all, inside, look};
use crate::kernel::hazard::{Feature, Hazards};
use crate::kernel::mapping::Mapping;
use crate::placement::{Elf, Rules};
use crate::process::maps::{self, FileId, Mapped};
use crate::process::{Datagrams, Language, Proc, Process, QuicSockets};

/// Files whose findings are remembered.
const MOST_FILES: usize = 4096;
/// Larger files are not searched for a library inside.
const LARGEST: usize = 512 << 20;
/// Folders whose libraries come from a distribution: those use its TLS libraries and have none inside.
const USUAL: [&str; 4] = ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64"];

/// Something that is not read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Gap {
    /// Stable key, as in `tls.java`.
    pub key: &'static str,
    /// What is not read, and why.
    pub sentence: String,
    /// What to do about it.
    pub todo: &'static str,
}

/// What is read of a process, and what is not.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Coverage {
    /// Instruments that read its plaintext.
    pub tls: Vec<&'static str>,
    /// What is not read.
    pub not_covered: Vec<Gap>,
}

/// What one file tells.
#[derive(Debug, Default)]
struct Of {
    tls: Vec<&'static str>,
    gaps: Vec<Gap>,
}

/// Looks at processes, at each file once.
pub struct Coverages {
    instruments: Vec<Arc<dyn Instrument>>,
    rules: Rules,
    returns: bool,
    files: HashMap<(FileId, bool, Language), Of>,
    datagrams: QuicSockets,
}

impl Default for Coverages {
    fn default() -> Self {
        let returns = Hazards::look(&[Feature::ReturnProbesUnderSeccomp]);
        Self {
            instruments: all(),
            rules: Rules::of_environment(),
            returns: returns.allows(Feature::ReturnProbesUnderSeccomp).is_ok(),
            files: HashMap::new(),
            datagrams: QuicSockets::default(),
        }
    }
}

impl Coverages {
    /// Looks at a process. One that is gone has nothing to tell.
    pub fn of(&mut self, pid: u32) -> Coverage {
        let path = Path::new("/proc");
        let mut coverage = Coverage::default();
        let Ok(process) = Process::inspect(pid) else { return coverage };
        coverage.not_covered.extend(by_library(&process));
        let program = std::fs::metadata(path.join(pid.to_string()).join("exe"));
        let program = program.map(|about| std::os::unix::fs::MetadataExt::ino(&about)).ok();
        for one in maps::mapped(path, pid).unwrap_or_default() {
            let is_program = program == Some(one.id.inode);
            let of = self.file(path, &process, &one, is_program);
            coverage.tls.extend(&of.tls);
            coverage.not_covered.extend(of.gaps.iter().cloned());
        }
        coverage.not_covered.extend(http3(self.datagrams.of(&Proc::default(), pid)));
        coverage.tls.sort_unstable();
        coverage.tls.dedup();
        coverage.not_covered.sort();
        coverage.not_covered.dedup();
        coverage
    }

    fn file(&mut self, proc: &Path, process: &Process, one: &Mapped, is_program: bool) -> &Of {
        if self.files.len() >= MOST_FILES {
            self.files.clear();
        }
        let (instruments, rules, returns) = (&self.instruments, self.rules, self.returns);
        self.files.entry((one.id, is_program, process.language)).or_insert_with(|| {
            let facts = Facts { path: &one.path, is_program, language: process.language, rules, returns };
            examine(proc, process.tgid, one, &facts, instruments)
        })
    }
}

/// Looks at a file as the instruments would, and for a library inside that none of them reads.
fn examine(
    proc: &Path,
    pid: u32,
    one: &Mapped,
    facts: &Facts<'_>,
    instruments: &[Arc<dyn Instrument>],
) -> Of {
    let mut of = Of::default();
    let wanted = instruments.iter().any(|instrument| instrument.wants(facts));
    let search = may_hold_one(facts);
    if !wanted && !search {
        return of;
    }
    let Ok(file) = maps::open(proc, pid, one) else { return of };
    for (name, result) in look(&file, facts, instruments).by {
        let (notes, reads) = match result {
            Ok(found) => {
                let refused = found.refusals.iter().map(ToString::to_string);
                let tls = refused.filter(|refusal| refusal.starts_with("crypto/tls."));
                (
                    found.notes.iter().cloned().chain(tls).collect(),
                    found.bits & (proc::TLS | proc::GO_TLS) != 0,
                )
            }
            Err(why) => (vec![why], false),
        };
        of.tls.extend(reads.then_some(name));
        of.gaps.extend(notes.into_iter().map(|note| Gap {
            key: key(name),
            sentence: format!("{}: {}.", one.path, note.trim_end_matches('.')),
            todo: "See spanwise ps --probes PID for what is read of it.",
        }));
    }
    if search && of.tls.is_empty() {
        of.gaps.extend(Mapping::of(&file).ok().and_then(|mapping| unread(&one.path, mapping.bytes())));
    }
    of
}

/// The key of what an instrument has to say.
fn key(instrument: &str) -> &'static str {
    match instrument {
        "openssl" => "tls.openssl",
        "gnutls" => "tls.gnutls",
        "rustls" => "tls.rustls",
        "go" => "go",
        _ => "probes",
    }
}

/// Whether a file may have a TLS library inside: a program, or a library that came with one. Go programs have their own, and the
/// instrument for Go speaks for it.
fn may_hold_one(facts: &Facts<'_>) -> bool {
    if facts.is_program {
        return facts.language != Language::Go;
    }
    let (folder, name) = facts.path.rsplit_once('/').unwrap_or_default();
    let known = ["libssl", "libgnutls", "libnss", "libmbedtls", "libwolfssl", "libs2n"];
    name.contains(".so") && !USUAL.contains(&folder) && !known.iter().any(|known| name.starts_with(known))
}

/// Libraries that name their functions as OpenSSL does.
const LIKE_OPENSSL: [&str; 4] = ["OpenSSL", "BoringSSL", "aws-lc", "LibreSSL"];

/// What is to be said of a file that no instrument reads plaintext of.
fn unread(path: &str, bytes: &[u8]) -> Option<Gap> {
    let library = inside::library(bytes.get(..LARGEST).unwrap_or(bytes))?;
    let elf = Elf::parse(bytes).ok();
    // Some programs are stripped of all but what they export.
    let like_openssl = LIKE_OPENSSL.contains(&library);
    let named = elf.as_ref().is_some_and(|elf| match like_openssl {
        true => elf.functions(&["SSL_read"]).iter().any(Option::is_some),
        false => elf.has_symbols(),
    });
    let elsewhere =
        "Use a build with the system's libssl, trace the other end, or end TLS in a proxy before it.";
    let (why, todo) = match (named, like_openssl) {
        (true, true) => ("it is not looked for in files of this kind", elsewhere),
        (true, false) => ("no probe knows its functions", elsewhere),
        (false, _) => (
            "its functions have no names (the file is stripped)",
            "Use a build that keeps its symbols, or one with the system's libssl.",
        ),
    };
    let sentence = format!("{path} has {library} inside, whose plaintext is not read: {why}.");
    Some(Gap { key: "tls.inside", sentence, todo })
}

/// What the language and the loaded libraries tell.
fn by_library(process: &Process) -> Vec<Gap> {
    let mut gaps = Vec::new();
    if process.language == Language::Java {
        gaps.push(Gap {
            key: "tls.java",
            sentence: "What Java encrypts itself (JSSE) is not read: the JVM compiles that code as it runs, where no probe stays."
                .to_owned(),
            todo: "Use OpenSSL or BoringSSL from Java (netty-tcnative, Tomcat Native), trace the other end, or end TLS in a proxy before it.",
        });
    }
    let has = |name: &str| process.libraries.contains(&name);
    // Programs load the rest of NSS for other things too; this part is TLS.
    if has("libssl3 (NSS)") {
        gaps.push(Gap {
            key: "tls.nss",
            sentence: "What NSS (libssl3.so) encrypts is not read: no probe knows its functions.".to_owned(),
            todo: "Trace the other end, or end TLS in a proxy before it.",
        });
    }
    for name in ["libmbedtls", "libwolfssl", "libs2n"].into_iter().filter(|name| has(name)) {
        gaps.push(Gap {
            key: "tls.library",
            sentence: format!("What {name} encrypts is not read: no probe knows its functions."),
            todo: "Trace the other end, or end TLS in a proxy before it.",
        });
    }
    gaps
}

/// What UDP sockets tell.
fn http3(seen: Datagrams) -> Option<Gap> {
    let how = match (seen.bound, seen.connected) {
        (false, false) => return None,
        (true, _) => "is bound to",
        (false, true) => "is connected to",
    };
    Some(Gap {
        key: "http3",
        sentence: format!("A UDP socket {how} port 443: HTTP/3 (QUIC) is not captured, only TCP is."),
        todo: "Switch HTTP/3 off at one of the two ends: they then speak HTTP/2 over TCP.",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_say_so() {
        assert_eq!(http3(Datagrams::default()), None);
        let said = |bound, connected| http3(Datagrams { bound, connected }).unwrap().sentence;
        assert!(said(true, false).contains("is bound to port 443"));
        assert!(said(false, true).contains("is connected to port 443"));
    }

    #[test]
    fn a_library_inside_is_named_with_the_reason() {
        let text = b"CLIENT_HANDSHAKE_TRAFFIC_SECRET BoringSSL";
        let gap = unread("/opt/app", text).unwrap();
        assert_eq!(gap.key, "tls.inside");
        assert!(gap.sentence.contains("/opt/app has BoringSSL inside") && gap.sentence.contains("stripped"));
        assert_eq!(unread("/opt/app", b"OpenSSL 3.0"), None);
        // A program with symbols (this one) that names other functions than those of the library that it has inside.
        let mut program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let said = |bytes: &[u8]| unread("/opt/app", bytes).unwrap().sentence;
        assert!(said(&program).contains("rustls inside") && said(&program).contains("no probe knows"));
        let others = memchr::memmem::find_iter(&program, "rustls").collect::<Vec<_>>();
        for at in others {
            program[at..at + 6].copy_from_slice(b"RUSTLS");
        }
        let like_openssl = said(&program);
        assert!(LIKE_OPENSSL.iter().any(|name| like_openssl.contains(name)), "{like_openssl}");
        assert!(like_openssl.contains("stripped"), "{like_openssl}");
    }

    #[test]
    fn where_a_library_may_be_inside() {
        let may = |path, is_program, language| {
            may_hold_one(&Facts { path, is_program, language, rules: Rules::default(), returns: true })
        };
        assert!(may("/usr/bin/deno", true, Language::Rust));
        assert!(!may("/usr/bin/caddy", true, Language::Go));
        assert!(may("/tmp/libnetty_tcnative_linux_x86_6412.so", false, Language::Java));
        assert!(!may("/usr/lib/x86_64-linux-gnu/libcurl.so.4", false, Language::Cpp));
        assert!(!may("/opt/wheels/libssl-8ae2.so.3", false, Language::Python));
        assert!(!may("/opt/data.jar", false, Language::Java));
    }
}
