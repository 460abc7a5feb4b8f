//! Feeds any bytes to what looks for places of probes: as machine code, as the code of a TLS library whose functions have names, and as
//! a file.
//!
//! `RUSTC_BOOTSTRAP=1 SPANWISE_BPF=stub cargo fuzz run placement -- -max_total_time=60`
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanwise::instrument::tls::{GnuTls, OpenSsl};
use spanwise::instrument::{Facts, Instrument, golang::Golang};
use spanwise::placement::{self, Abi, Elf, Function, Needs, Rules, Site, Value};
use spanwise::process::Language;

const ADDRESS: u64 = 0x1000;
const NAMES: [&str; 14] = [
    "SSL_read",
    "SSL_write",
    "SSL_read_ex",
    "SSL_write_ex",
    "SSL_do_handshake",
    "SSL_new",
    "SSL_free",
    "SSL_get_client_random",
    "SSL_is_server",
    "gnutls_record_recv",
    "gnutls_record_send2",
    "gnutls_init",
    "gnutls_deinit",
    "gnutls_session_get_random",
];

/// A site is in its function, where the file has it, and knows what was asked for.
fn check(site: &Site, from: u64, len: usize) {
    assert!(site.from_start < len as u64, "{site:?}");
    assert_eq!(site.address, from + site.from_start, "{site:?}");
    let _ = site.cookie(u16::MAX);
}

fn code(code: &[u8], jumped_to: &[u64]) {
    let function = Function { name: "f", address: ADDRESS, file_offset: 0x40, code, jumped_to };
    for abi in [Abi::SysV, Abi::Go] {
        for values in [&[][..], &[Value::Argument(0), Value::Argument(1)], &[Value::Result(0)]] {
            let needs = Needs { abi, values };
            for rules in [
                Rules::default(),
                Rules { nop5: true, ..Rules::default() },
                Rules { stepped: false, ..Rules::default() },
                Rules { naive: true, ..Rules::default() },
            ] {
                let sites = placement::after_call(&function, &|address| address % 2 == 0, &needs, rules);
                for site in
                    placement::entry(&function, &needs, rules).into_iter().chain(sites.into_iter().flatten())
                {
                    check(&site, ADDRESS, code.len());
                    assert_eq!(site.file_offset, 0x40 + site.from_start);
                    assert_eq!(site.places.len(), values.len());
                }
            }
            let _ = placement::returns(&function, &needs);
        }
    }
}

/// What attaching does with a file.
fn file(bytes: &[u8]) {
    let Ok(elf) = Elf::parse(bytes) else { return };
    let _ = (elf.first_code(), elf.build_id(), elf.has_symbols(), elf.section(".text"), elf.address(0x40));
    for (path, language, instrument) in [
        ("/usr/lib/libssl.so.3", Language::Cpp, &OpenSsl as &dyn Instrument),
        ("/usr/lib/libgnutls.so.30", Language::Cpp, &GnuTls),
        ("/usr/bin/app", Language::Go, &Golang),
    ] {
        let is_program = language == Language::Go;
        let facts = Facts { path, is_program, language, rules: Rules::default(), returns: true };
        let Ok(found) = instrument.look(&elf, &facts) else { continue };
        for wanted in found.probes.iter().chain(&found.later) {
            assert!(wanted.site.file_offset < bytes.len() as u64, "{:?}", wanted.site);
        }
    }
}

/// A library that has this code, divided among its functions.
fn library(code: &[u8]) -> Vec<u8> {
    const HEADER: usize = 64;
    let number = |file: &mut Vec<u8>, all: &[u64]| all.iter().for_each(|n| file.extend(n.to_le_bytes()));
    let each = (code.len() / NAMES.len()).max(1);
    let mut names = vec![0_u8];
    let mut symbols = vec![0_u8; 24];
    for (at, name) in NAMES.iter().enumerate() {
        symbols.extend((names.len() as u32).to_le_bytes());
        symbols.extend([0x12, 0, 1, 0]);
        number(&mut symbols, &[ADDRESS + (at * each) as u64, each as u64]);
        names.extend(name.bytes().chain([0]));
    }
    let begin = HEADER + 56;
    let symbols_at = begin + code.len();
    let names_at = symbols_at + symbols.len();
    let sections_at = names_at + names.len();
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
    number(&mut file, &[0, HEADER as u64, sections_at as u64]);
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 4, 0, 0, 0]);
    // One segment with code.
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    let len = code.len() as u64;
    number(&mut file, &[begin as u64, ADDRESS, ADDRESS, len, len, 0x1000]);
    file.extend(code);
    file.extend(&symbols);
    file.extend(&names);
    let mut section = |kind: u32, at: usize, len: usize, link: u32, each: u64| {
        file.extend([0; 4]);
        file.extend(kind.to_le_bytes());
        number(&mut file, &[0, if kind == 1 { ADDRESS } else { 0 }, at as u64, len as u64]);
        file.extend(link.to_le_bytes());
        file.extend([0; 4]);
        number(&mut file, &[1, each]);
    };
    section(0, 0, 0, 0, 0);
    section(1, begin, code.len(), 0, 0);
    section(11, symbols_at, symbols.len(), 3, 24);
    section(3, names_at, names.len(), 0, 0);
    file
}

fuzz_target!(|data: &[u8]| {
    let jumped_to: Vec<u64> = data.iter().take(4).map(|byte| ADDRESS + u64::from(*byte)).collect();
    code(data, &[]);
    code(data, &jumped_to);
    file(data);
    let whole = library(data);
    if data.len() > 1 << 10 {
        assert!(Elf::parse(&whole).is_ok_and(|elf| elf.functions(&NAMES).iter().all(Option::is_some)));
    }
    file(&whole);
    // And that with its structure damaged.
    let mut damaged = whole;
    for change in data.chunks_exact(3).take(8) {
        let at = usize::from(change[0]) << 8 | usize::from(change[1]);
        let len = damaged.len();
        damaged[at % len] = change[2];
    }
    file(&damaged);
});
