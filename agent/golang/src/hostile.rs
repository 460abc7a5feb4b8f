//! Tests: a program made by hand, whole, damaged and cut. Nothing panics, and nothing is found that is not there.

use proptest::prelude::*;

use crate::{Binary, BuildInfo, Found, Function, GoError, Runtime, Unknown, wanted};

/// A movable program of one page: code, a build block, a table of two functions, debug information of a release that is not in
/// the table of offsets.
fn small() -> Vec<u8> {
    let mut file = vec![0_u8; 0x2000];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &[3, 0, 62, 0, 1]);
    put(24, &words(&[0x400, 64, 0xc00]));
    put(54, &[56, 0, 2, 0, 64, 0, 6, 0, 5, 0]);
    put(64, &words(&[1 | 7 << 32, 0, 0x10000, 0, 0x2000, 0x2000, 0x1000]));
    put(120, &words(&[2 | 6 << 32, 0xb00, 0x10b00, 0, 48, 48, 8]));
    // The loader's list, and one relocation: the start of the text in the function table.
    put(0xb00, &words(&[7, 0x10b80, 8, 24, 0, 0]));
    put(0xb80, &words(&[0x10610, 8, 0x10400]));
    put(0x500, b"\xff Go buildinf:\x08\x02");
    let list = "0123456789abcdefpath\texample.org/small\nmod\texample.org/small\t(devel)\n\
                dep\texample.org/other\tv1.2.3\th1:x\n=>\texample.org/fork\tv1.2.4\tx\n0123456789abcdef";
    put(0x520, b"\x09go1.99.77");
    put(0x52a, &[list.len() as u8 | 0x80, (list.len() >> 7) as u8]);
    put(0x52c, list.as_bytes());
    // The function table: two functions, and a name that has no function.
    put(0x5f8, &words(&[0xffff_fff1 | 1 << 48 | 8 << 56, 2, 0, 0, 72, 112, 112, 112, 120]));
    put(0x5f8 + 72, b"main.main\0main.other\0main.inside\0");
    let entries = 0x5f8 + 120;
    put(entries, &[0, 0, 0, 0, 20, 0, 0, 0, 0x40, 0, 0, 0, 30, 0, 0, 0, 0x90]);
    put(entries + 34, &[10]);
    put(0xa00, b"\0.go.buildinfo\0.gopclntab\0.debug_info\0.debug_abbrev\0");
    let mut info = vec![4, 0, 0, 0, 0, 0, 8, 1];
    for (strukt, members) in [
        (
            "runtime.g",
            &[
                ("goid", 152),
                ("parentGoid", 280),
                ("gopc", 288),
                ("startpc", 304),
                ("m", 48),
                ("labels", 352),
            ][..],
        ),
        ("runtime.m", &[("curg", 184), ("g0", 0)][..]),
    ] {
        info.push(2);
        info.extend([strukt.as_bytes(), b"\0"].concat());
        for (member, offset) in members {
            info.push(3);
            info.extend([member.as_bytes(), b"\0"].concat());
            info.extend([*offset as u8 | 0x80, (offset >> 7) as u8]);
        }
        info.push(0);
    }
    info.push(0);
    put(0x1000, &(info.len() as u32).to_le_bytes());
    put(0x1004, &info);
    // Unit with children; struct with children and a name; member with a name and a place.
    let abbreviations = [1, 0x11, 1, 0, 0, 2, 0x13, 1, 3, 8, 0, 0, 3, 0xd, 0, 3, 8, 0x38, 0xf, 0, 0, 0];
    put(0x1800, &abbreviations);
    put(0xc40, &words(&[1 | 1 << 32, 0, 0x10500, 0x500, 0xf8]));
    put(0xc80, &words(&[15 | 1 << 32, 0, 0x105f8, 0x5f8, 0x200]));
    put(0xcc0, &words(&[26 | 1 << 32, 0, 0, 0x1000, info.len() as u64 + 4]));
    put(0xd00, &words(&[38 | 1 << 32, 0, 0, 0x1800, abbreviations.len() as u64]));
    put(0xd40, &words(&[3 << 32, 0, 0, 0xa00, 0x80]));
    file
}

/// Asks everything there is to ask.
fn ask(bytes: Vec<u8>) -> Result<(), GoError> {
    let len = bytes.len() as u64;
    let binary = Binary::read(Box::new(bytes))?;
    let found = binary.find(&["main.main", "main.other", "main.inside"]);
    assert_eq!(found.len(), 3);
    for place in found.values() {
        if let Found::Function(function) = place {
            assert!(function.offset < len);
            binary.code(*function);
        }
    }
    for address in [0, 0x10400, 0x10440, 0x1048f, u64::MAX] {
        binary.name_of(address);
    }
    for (module, strukt, member) in wanted() {
        let _ = binary.module_offset(module, strukt, member);
    }
    let _ = Runtime::of(&binary);
    Ok(())
}

#[test]
fn a_whole_one() {
    let binary = Binary::read(Box::new(small())).unwrap();
    assert_eq!((&*binary.info.compiler, &*binary.info.path), ("go1.99.77", "example.org/small"));
    assert_eq!(binary.info.module("example.org/small"), Some("(devel)"));
    assert_eq!(binary.info.module("example.org/other"), None, "replaced");
    assert_eq!(binary.info.module("example.org/fork"), Some("v1.2.4"));
    let main = Function { address: 0x10400, size: 0x40, offset: 0x400 };
    let other = Function { address: 0x10440, size: 0x50, offset: 0x440 };
    let found = binary.find(&["main.main", "main.other", "main.inside", "main.none"]);
    assert_eq!(found["main.main"], Found::Function(main));
    assert_eq!(found["main.other"], Found::Function(other));
    assert_eq!(found["main.inside"], Found::Inlined);
    assert_eq!(found["main.none"], Found::Absent);
    assert_eq!(binary.name_of(0x10440), Some(("main.other".into(), other)));
    assert_eq!(binary.name_of(0x1043f), Some(("main.main".into(), main)));
    assert_eq!(binary.name_of(0x10490), None, "behind the last one");
    assert_eq!(binary.name_of(0x103ff), None, "before the first one");
    let runtime = Runtime::of(&binary).unwrap();
    assert_eq!(
        (runtime.goid, runtime.parent_goid, runtime.start_pc),
        (152, Some(280), 304),
        "from debug information"
    );
    assert_eq!(BuildInfo::default().version(), None);
}

#[test]
fn an_unknown_compiler_without_debug_information_is_said() {
    let mut file = small();
    file[0xcc0..0xd00].fill(0);
    let binary = Binary::read(Box::new(file)).unwrap();
    let error = Runtime::of(&binary).unwrap_err();
    assert!(matches!(error, Unknown::Compiler { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("go1.99.77") && text.contains("socket level"), "{text}");
    let error = binary.module_offset("example.org/fork", "a.b", "c").unwrap_err().to_string();
    assert!(error.contains("example.org/fork v1.2.4"), "{error}");
}

/// A part of the file that is said to lie beyond its end.
#[test]
fn parts_beyond_the_end_hold_no_functions() {
    let mut file = small();
    (file[101], file[2961]) = (1, 12);
    file.truncate(2968);
    ask(file).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn damaged(changes in proptest::collection::vec((0_usize..0x2000, any::<u8>()), 0..6), words in
        proptest::collection::vec((0_usize..0x3ff, any::<u64>()), 0..2), cut in 0_usize..0x4000)
    {
        let mut file = small();
        for (at, byte) in changes {
            file[at] = byte;
        }
        for (at, word) in words {
            file[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
        file.truncate(cut);
        let _ = ask(file);
    }

    #[test]
    fn made_up(tail in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut file = small();
        let len = tail.len();
        // Headers, tables or debug information: one of them made up.
        for at in [16, 0x500, 0x5f8, 0x1000, 0x1800] {
            let held: Vec<u8> = file[at..at + len].to_vec();
            file[at..at + len].copy_from_slice(&tail);
            let _ = ask(file.clone());
            file[at..at + len].copy_from_slice(&held);
        }
    }
}
