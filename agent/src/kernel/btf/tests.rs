//! Hand-made blobs, damaged blobs, and the running kernel's own file.

use super::*;

/// Builds BTF as a compiler would.
#[derive(Default)]
struct Blob {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Blob {
    fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }
    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        at
    }
    fn push(&mut self, name: &str, info: u32, size_or_type: u32, extra: &[u32]) -> u32 {
        let name = self.string(name);
        for word in [name, info, size_or_type].iter().chain(extra) {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
        self.count += 1;
        self.count
    }
    fn int(&mut self, name: &str, bytes: u32, bits: u32) -> u32 {
        self.push(name, INT << 24, bytes, &[bits])
    }
    fn one(&mut self, kind: u32, name: &str, target: u32) -> u32 {
        self.push(name, kind << 24, target, &[])
    }
    fn group(&mut self, kind: u32, flag: u32, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let words: Vec<u32> =
            members.iter().flat_map(|(name, ty, bits)| [self.string(name), *ty, *bits]).collect();
        self.push(name, kind << 24 | flag << 31 | members.len() as u32, size, &words)
    }
    fn strukt(&mut self, name: &str, members: &[(&str, u32, u32)]) -> u32 {
        self.group(STRUCT, 0, name, 64, members)
    }
    fn finish(self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC.to_ne_bytes());
        out.extend_from_slice(&[1, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [24, 0, types, types, strings] {
            out.extend_from_slice(&u32::to_ne_bytes(word));
        }
        out.extend(self.types);
        out.extend(self.strings);
        out
    }
    fn parse(self) -> Btf {
        Btf::parse(self.finish()).unwrap()
    }
}

#[test]
fn plain_nested_and_anonymous_members() {
    let mut b = Blob::new();
    let int = b.int("int", 4, 32);
    let ns = b.strukt("ns_common", &[("ops", int, 0), ("inum", int, 32)]);
    let alias = b.one(TYPEDEF, "ns_t", ns);
    let constant = b.one(CONST, "", alias);
    let deep = b.group(UNION, 0, "", 8, &[("deep", int, 32), ("other", int, 0)]);
    let anon = b.strukt("", &[("a", int, 0), ("", deep, 64)]);
    b.strukt("net", &[("count", int, 0), ("ns", constant, 64), ("", anon, 128)]);
    let btf = b.parse();
    assert_eq!(btf.offset_of("net", "count"), Some(0));
    assert_eq!(btf.offset_of("net", "ns"), Some(8));
    assert_eq!(btf.offset_of("net", "ns.inum"), Some(12), "through a typedef and a qualifier");
    assert_eq!(btf.offset_of("net", "a"), Some(16));
    assert_eq!(btf.offset_of("net", "deep"), Some(16 + 8 + 4), "two anonymous levels");
    assert_eq!(btf.member("net", "absent"), Err(OffsetError::NoMember("net".into(), "absent".into())));
    assert_eq!(btf.member("nat", "count"), Err(OffsetError::NoStruct("nat".into())));
    assert_eq!(btf.offset_of("net", "count.more"), None, "an integer has no members");
    assert_eq!(btf.offset_of("net", ""), None);
}

#[test]
fn a_path_does_not_pass_through_a_pointer() {
    let mut b = Blob::new();
    let int = b.int("int", 4, 32);
    let inner = b.strukt("inner", &[("x", int, 32)]);
    let pointer = b.one(PTR, "", inner);
    b.strukt("outer", &[("p", pointer, 64)]);
    let btf = b.parse();
    assert_eq!(btf.offset_of("outer", "p"), Some(8));
    assert_eq!(btf.offset_of("outer", "p.x"), None);
}

#[test]
fn bit_fields_of_both_encodings_have_no_offset() {
    let mut b = Blob::new();
    let int = b.int("int", 4, 32);
    let narrow = b.int("unsigned int", 4, 8);
    b.group(STRUCT, 1, "new", 8, &[("bits", int, 8 << 24), ("whole", int, 32)]);
    b.strukt("old", &[("bits", narrow, 0), ("odd", int, 3), ("whole", int, 32)]);
    let btf = b.parse();
    for (strukt, member) in [("new", "bits"), ("old", "bits"), ("old", "odd")] {
        assert_eq!(
            btf.member(strukt, member),
            Err(OffsetError::Bitfield(strukt.into(), member.into())),
            "{strukt}.{member}"
        );
    }
    assert_eq!(btf.offset_of("new", "whole"), Some(4));
    assert_eq!(btf.offset_of("old", "whole"), Some(4));
}

#[test]
fn of_two_structs_of_one_name_the_one_with_the_member_counts() {
    let mut b = Blob::new();
    let int = b.int("int", 4, 32);
    b.strukt("twice", &[("x", int, 0), ("only_here", int, 32)]);
    b.strukt("twice", &[("x", int, 64), ("same", int, 96)]);
    b.strukt("twice", &[("same", int, 96)]);
    let btf = b.parse();
    assert_eq!(btf.offset_of("twice", "only_here"), Some(4));
    assert_eq!(btf.offset_of("twice", "same"), Some(12), "equal offsets do not contradict each other");
    assert_eq!(btf.member("twice", "x"), Err(OffsetError::Ambiguous("twice".into(), "x".into())));
}

#[test]
fn tracepoint_arguments() {
    let mut b = Blob::new();
    let int = b.int("int", 4, 32);
    let sock = b.strukt("sock", &[("sk_type", int, 0)]);
    let sock = b.one(PTR, "", sock);
    let constant = b.one(CONST, "", 0);
    let void = b.one(PTR, "", constant);
    let proto = b.push("", FUNC_PROTO << 24 | 3, 0, &[0, void, 0, sock, 0, int]);
    let proto = b.one(PTR, "", proto);
    let id = b.one(TYPEDEF, "btf_trace_thing", proto);
    b.one(TYPEDEF, "btf_trace_odd", int);
    let btf = b.parse();
    assert_eq!(btf.tracepoint_params("thing").unwrap(), ["void *", "sock *", "int"]);
    assert_eq!(btf.type_id_of_tracepoint("thing"), Some(id));
    assert_eq!(btf.tracepoint_params("odd"), None);
    assert_eq!(btf.tracepoint_params("absent"), None);
    assert!(btf.has_type(Kind::Typedef, "btf_trace_thing") && !btf.has_type(Kind::Func, "btf_trace_thing"));
}

#[test]
fn endless_types_end() {
    let mut b = Blob::new();
    b.one(TYPEDEF, "loop", 1);
    b.strukt("self", &[("", 2, 0), ("m", 1, 0)]);
    b.one(PTR, "", 3);
    let proto = b.push("", FUNC_PROTO << 24 | 1, 0, &[0, 3]);
    let proto = b.one(PTR, "", proto);
    b.one(TYPEDEF, "btf_trace_loop", proto);
    let btf = b.parse();
    assert_eq!(btf.offset_of("self", "absent"), None);
    assert_eq!(btf.offset_of("self", "m.x"), None);
    assert!(btf.tracepoint_params("loop").unwrap()[0].contains('?'));
}

#[test]
fn damage_is_an_error() {
    let mut b = Blob::new();
    let int = b.int("int", 4, 32);
    b.strukt("net", &[("count", int, 0), ("ns", int, 64)]);
    let good = b.finish();
    for cut in 0..good.len() {
        assert!(Btf::parse(good[..cut].to_vec()).is_err(), "cut at {cut}");
    }
    for at in 0..good.len() {
        for value in [0, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            if let Ok(btf) = Btf::parse(bad) {
                // Whatever it says, it says it without a panic.
                let _ = (btf.member("net", "ns"), btf.member("net", "count"), btf.tracepoint_params("net"));
            }
        }
    }
    let mut swapped = good.clone();
    swapped[..2].reverse();
    assert!(matches!(Btf::parse(swapped), Err(BtfError::NotBtf)));
    let mut b = Blob::new();
    b.one(31, "future", 0);
    assert!(matches!(Btf::parse(b.finish()), Err(BtfError::UnknownKind { kind: 31, id: 1 })));
}

proptest::proptest! {
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(proptest::num::u8::ANY, 0..300), types in 0u32..300) {
        let mut data = Vec::new();
        data.extend_from_slice(&MAGIC.to_ne_bytes());
        data.extend_from_slice(&[1, 0]);
        let strings = (noise.len() as u32).saturating_sub(types);
        for word in [24, 0, types, types, strings] {
            data.extend_from_slice(&u32::to_ne_bytes(word));
        }
        data.extend(noise);
        if let Ok(btf) = Btf::parse(data) {
            let _ = btf.member("a", "b.c");
        }
    }
}

/// Only where the kernel shows its BTF; but there nothing may be missing.
#[test]
fn running_kernel() {
    if !Path::new(VMLINUX).exists() {
        return;
    }
    let start = std::time::Instant::now();
    let btf = Btf::from_kernel().unwrap();
    let took = start.elapsed();
    for (strukt, member) in
        [("tcp_sock", "write_seq"), ("sock_common", "skc_daddr"), ("task_struct", "files"), ("socket", "sk")]
    {
        btf.member(strukt, member).unwrap();
    }
    assert_eq!(btf.offset_of("sock_common", "skc_daddr"), Some(0), "it has stood first since it exists");
    assert!(btf.has_type(Kind::Struct, "task_struct"));
    assert!(btf.has_type(Kind::Func, "tcp_sendmsg"));
    let params = btf.tracepoint_params("inet_sock_set_state").unwrap();
    assert_eq!(params.get(1).map(String::as_str), Some("sock *"), "{params:?}");
    // 30 ms is for a release build; this one is not optimised and the machine may be busy.
    assert!(took.as_millis() < 1500, "took {took:?}");
}
