//! TLS libraries: where their plaintext passes, and where an object keeps the number of its handshake.
//!
//! Comes in: a library, or a program that has one inside. Goes out: probes at the beginning and the end of each function that
//! takes or gives plaintext. Reading and writing belong together: if one of them cannot be hooked, neither is.

mod exits;
mod gnutls;
mod layout;
mod openssl;
mod rustls;

pub use gnutls::GnuTls;
pub use openssl::OpenSsl;
pub use rustls::Rustls;
use spanwise_common::config::proc;
use spanwise_common::names::program;
use spanwise_common::place::{self, Place};
use spanwise_common::tls::{DIRECT, call};

use self::layout::Layout;
use super::{Facts, Found, Wanted};
use crate::placement::{self, Abi, Class, Elf, Function, Needs, Refusal, Site, Value};
use crate::process::Language;

/// What the probes run.
const PROGRAMS: &[&str] = &[program::TLS_ENTER, program::TLS_LEAVE, program::TLS_NEW, program::TLS_FREE];

/// A function of a library that is of interest.
struct Hooked {
    name: &'static str,
    /// Bits of `tls::call`.
    own: u16,
    /// Index of the argument that points to the count, if one does.
    count: Option<u8>,
}

const fn hooked(name: &'static str, own: u16, count: Option<u8>) -> Hooked {
    Hooked { name, own, count }
}

/// The functions of a kind of library.
struct Library {
    /// Of `event::library`.
    number: u8,
    functions: &'static [Hooked],
    /// Makes an object.
    new: &'static str,
    /// Frees an object.
    free: &'static str,
    /// Copies the random number of a ClientHello out of an object.
    random: &'static str,
    /// Tells whether an object is the server.
    server: Option<&'static str>,
}

impl Facts<'_> {
    /// Nothing changes stacks while a call of the library is under way. Node moves the encrypted bytes itself, so the library, whose
    /// file is its own, waits for nothing. What a JVM has loaded for Java is called on a thread's own stack: a virtual
    /// thread does not leave its carrier before native code has returned. Of libssl this is not known: other programs share its file.
    fn stays_on_its_stack(&self) -> bool {
        match self.language {
            Language::Nodejs => self.is_program,
            Language::Java => !self.is_program && !self.file_name().starts_with("libssl"),
            _ => false,
        }
    }
}

/// The probes of a call: one where it begins, one at each of its ends.
fn probes_of(
    function: &Function<'_>,
    hooked: &Hooked,
    own: u16,
    layout: Option<Layout>,
    facts: &Facts<'_>,
) -> Result<Vec<Wanted>, Refusal> {
    let moves = hooked.own & call::HANDSHAKE == 0;
    let buffer = moves && hooked.own & call::NO_BUFFER == 0;
    let arguments: Vec<u8> = [0].into_iter().chain(buffer.then_some(1)).chain(hooked.count).collect();
    let values: Vec<Value> = arguments.iter().copied().map(Value::Argument).collect();
    let entry = placement::entry(function, &Needs { abi: Abi::SysV, values: &values }, facts.rules)
        .or_else(|_| exits::start(function, &arguments, facts.rules))?;
    let ends = match exits::of(function, facts.rules) {
        Ok(ends) if moves && facts.stays_on_its_stack() => cheapest(function, ends, facts),
        Ok(ends) => ends,
        // Of a handshake the end can be done without, and programs may look at their stacks in it.
        Err(refusal) if !facts.returns || !moves => return Err(refusal),
        Err(_) => vec![by_return(function)?],
    };
    let cookie = entry.cookie(own);
    let mut wanted = vec![Wanted { program: program::TLS_ENTER, site: entry, cookie }];
    wanted.extend(ends.into_iter().map(|site| {
        let cookie = end_cookie(&site, own, layout);
        Wanted { program: program::TLS_LEAVE, site, cookie }
    }));
    Ok(wanted)
}

/// The return of a function, caught by the kernel.
fn by_return(function: &Function<'_>) -> Result<Site, Refusal> {
    placement::returns(function, &Needs { abi: Abi::SysV, values: &[Value::Result(0)] })
}

/// The ends that were found or, where one of them is single-stepped and it may be, the return, which costs a twelfth in a guest. For
/// functions that are known to end on the stack that they began on: the kernel kills a thread that comes back to a return that it
/// hooked, but took for one that was jumped out of, because the thread had called such a function on another stack meanwhile.
fn cheapest(function: &Function<'_>, ends: Vec<Site>, facts: &Facts<'_>) -> Vec<Site> {
    let dear = ends.iter().any(|site| site.class == Class::Stepped);
    if !dear || !facts.returns || facts.rules.naive {
        return ends;
    }
    match by_return(function) {
        Ok(mut site) if site.class == Class::Return => {
            site.why = "nothing that the kernel emulates comes just before its returns, and it ends on the stack that it began on"
                .to_owned();
            vec![site]
        }
        _ => ends,
    }
}

/// The cookie of a call's end: where the result is, and where the object keeps its number.
fn end_cookie(site: &Site, own: u16, layout: Option<Layout>) -> u64 {
    let result = site.places.first().copied().unwrap_or(Place::NOWHERE);
    let (random, through) =
        layout.map_or((0, DIRECT), |layout| (layout.random, layout.through.unwrap_or(DIRECT)));
    place::cookie([result, Place(random), Place(through)], own)
}

/// Looks for a library's functions in a file.
fn look(library: &Library, elf: &Elf<'_>, facts: &Facts<'_>) -> Found {
    let mut found = Found::default();
    let names: Vec<&str> = library.functions.iter().map(|hooked| hooked.name).collect();
    let functions = elf.functions(&names);
    if functions.iter().all(Option::is_none) {
        return found;
    }
    let [random, new, free, server] =
        [Some(library.random), Some(library.new), Some(library.free), library.server]
            .map(|name| elf.functions(&[name?]).into_iter().next().flatten());
    let layout = random.and_then(|function| layout::of(&function));
    let server = server.and_then(|function| layout::flag(&function)).unwrap_or(0);
    let mut probes = Vec::new();
    let (mut reads, mut writes) = (false, false);
    for (function, hooked) in functions.iter().zip(library.functions) {
        let Some(function) = function else { continue };
        let own =
            hooked.own | u16::from(library.number) << call::LIBRARY_SHIFT | server << call::SERVER_SHIFT;
        match probes_of(function, hooked, own, layout, facts) {
            Ok(wanted) => {
                if hooked.own & call::HANDSHAKE == 0 {
                    *(if hooked.own & call::RECV != 0 { &mut reads } else { &mut writes }) = true;
                }
                probes.extend(wanted);
            }
            Err(refusal) => found.refusals.push(refusal),
        }
    }
    if !reads || !writes {
        found.notes.push("its plaintext is not captured: reading or writing cannot be hooked".to_owned());
        return found;
    }
    for (function, program) in [(new, program::TLS_NEW), (free, program::TLS_FREE)] {
        let Some(function) = function else { continue };
        let needs = Needs { abi: Abi::SysV, values: &[Value::Argument(0)] };
        match placement::entry(&function, &needs, facts.rules)
            .or_else(|_| exits::start(&function, &[0], facts.rules))
        {
            Ok(site) => {
                let cookie = site.cookie(0);
                probes.push(Wanted { program, site, cookie });
            }
            Err(refusal) => found.refusals.push(refusal),
        }
    }
    if layout.is_none() {
        found.notes.push(
            "where its objects keep their random numbers is not clear: programs that move the encrypted bytes themselves are not captured"
                .to_owned(),
        );
    }
    found.probes = probes;
    found.bits = proc::TLS;
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Rules;

    const NODE: &str = "/usr/bin/node";
    const FACTS: Facts<'_> = Facts {
        path: "",
        is_program: false,
        language: Language::Cpp,
        rules: Rules { nop5: false, stepped: true, naive: false },
        returns: true,
    };

    fn look_with(path: &str, library: &Library, facts: Facts<'_>) -> Option<Found> {
        let bytes = std::fs::read(path).ok()?;
        let elf = Elf::parse(&bytes).unwrap();
        Some(look(library, &elf, &Facts { path, ..facts }))
    }

    fn look_at(path: &str, library: &Library) -> Option<Found> {
        look_with(path, library, FACTS)
    }

    fn ends_of(found: &Found, name: &str) -> Vec<Class> {
        let of = |probe: &&Wanted| probe.site.function == name && probe.program == program::TLS_LEAVE;
        found.probes.iter().filter(of).map(|probe| probe.site.class).collect()
    }

    /// A function whose only end is a return that nothing comes before: push rbp; mov rbp, rsp; mov eax, edx; pop rbp; ret.
    const PLAIN: [u8; 8] = [0x55, 0x48, 0x89, 0xe5, 0x89, 0xd0, 0x5d, 0xc3];

    #[test]
    fn the_return_is_hooked_only_where_nothing_can_change_the_stack_meanwhile() {
        let function =
            |code| Function { name: "SSL_read", address: 0x1000, file_offset: 0, code, jumped_to: &[] };
        let classes = |facts: Facts<'_>| {
            let probes =
                probes_of(&function(&PLAIN), &openssl::LIBRARY.functions[0], 0, None, &facts).unwrap();
            probes
                .iter()
                .map(|probe| (probe.program, probe.site.class, probe.site.from_start))
                .collect::<Vec<_>>()
        };
        let node = Facts { is_program: true, language: Language::Nodejs, ..FACTS };
        let hooked = [(program::TLS_ENTER, Class::Push, 0), (program::TLS_LEAVE, Class::Return, 0)];
        let stepped = [(program::TLS_ENTER, Class::Push, 0), (program::TLS_LEAVE, Class::Stepped, 7)];
        assert_eq!(classes(node), hooked);
        // What a JVM has loaded, unless others may have it too.
        let jni =
            Facts { path: "/tmp/libnetty_tcnative_linux_x86_6431.so", language: Language::Java, ..FACTS };
        assert_eq!(classes(jni), hooked);
        assert_eq!(classes(Facts { path: "/usr/lib/libssl.so.3", ..jni }), stepped);
        // A library that Node has loaded; another program; a kernel on which return probes kill; a comparison.
        assert_eq!(classes(Facts { is_program: false, ..node }), stepped);
        assert_eq!(classes(Facts { language: Language::Cpp, ..node }), stepped);
        assert_eq!(classes(Facts { returns: false, ..node }), stepped);
        let naive = Rules { naive: true, ..Rules::default() };
        assert_eq!(classes(Facts { rules: naive, ..node }), stepped);
        // sub rsp, 8; mov eax, edx; add rsp, 8; ret: the trap at the first instruction would be as dear.
        const SUB: [u8; 11] = [0x48, 0x83, 0xec, 8, 0x89, 0xd0, 0x48, 0x83, 0xc4, 8, 0xc3];
        let dear = cheapest(&function(&SUB), exits::of(&function(&SUB), node.rules).unwrap(), &node);
        assert_eq!(dear.iter().map(|site| site.class).collect::<Vec<_>>(), [Class::Stepped]);
        assert_eq!(by_return(&function(&SUB)).unwrap().class, Class::SteppedReturn);
    }

    #[test]
    fn nothing_in_node_is_single_stepped() {
        let facts = Facts { is_program: true, language: Language::Nodejs, ..FACTS };
        let Some(found) = look_with(NODE, &openssl::LIBRARY, facts) else { return };
        for probe in &found.probes {
            assert_ne!(probe.site.class, Class::Stepped, "{:?}", probe.site);
        }
        for name in ["SSL_read", "SSL_write", "SSL_read_ex", "SSL_write_ex"] {
            assert_eq!(ends_of(&found, name), [Class::Return], "{name}");
        }
    }

    #[test]
    fn the_libraries_of_this_machine_have_every_probe() {
        for (path, library) in [
            ("/usr/lib/x86_64-linux-gnu/libssl.so.3", &openssl::LIBRARY),
            (NODE, &openssl::LIBRARY),
            ("/usr/lib/x86_64-linux-gnu/libgnutls.so.30", &gnutls::LIBRARY),
        ] {
            let Some(found) = look_at(path, library) else { continue };
            let ends = |name: &str, program: &str| {
                found
                    .probes
                    .iter()
                    .filter(|probe| probe.site.function == name && probe.program == program)
                    .count()
            };
            for hooked in library.functions.iter().filter(|hooked| hooked.own & call::HANDSHAKE == 0) {
                if found.probes.iter().any(|probe| probe.site.function == hooked.name) {
                    assert_eq!(ends(hooked.name, program::TLS_ENTER), 1, "{path}: {}", hooked.name);
                    assert!(ends(hooked.name, program::TLS_LEAVE) >= 1, "{path}: {}", hooked.name);
                }
            }
            assert_eq!(ends(library.free, program::TLS_FREE), 1, "{path}");
            assert_eq!(ends(library.new, program::TLS_NEW), 1, "{path}");
            for name in ["SSL_read", "SSL_write", "gnutls_record_recv", "gnutls_record_send2"] {
                let wanted = library.functions.iter().any(|hooked| hooked.name == name);
                assert_eq!(
                    ends(name, program::TLS_ENTER),
                    usize::from(wanted),
                    "{path}: {name} of {:?}",
                    found.refusals
                );
            }
            assert_eq!(found.bits, proc::TLS, "{path}: {:?}", found.notes);
            assert!(found.notes.is_empty(), "{path}: {:?}", found.notes);
        }
    }
}
