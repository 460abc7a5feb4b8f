//! Real functions, and anything else.

use proptest::prelude::*;
use spanwise_common::place::Place;

use super::*;

/// What compilers made, as a disassembler shows it: Go 1.26, gcc 12 with and without optimisation and with `-fcf-protection`, and
/// OpenSSL 3 of Debian.
const FUNCTIONS: &str = include_str!("tests/functions.txt");

struct Fixture {
    name: &'static str,
    address: u64,
    code: Vec<u8>,
}

impl Fixture {
    fn of(name: &'static str) -> Self {
        let mut lines = FUNCTIONS.lines().skip_while(|line| *line != format!("== {name}")).skip(1).peekable();
        let number = |line: &str| u64::from_str_radix(line.split(':').next().unwrap(), 16).unwrap();
        let address = number(lines.peek().unwrap_or_else(|| panic!("{name} is not there")));
        let hex = |word: &str| (word.len() == 2).then(|| u8::from_str_radix(word, 16).ok()).flatten();
        let mut code = Vec::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            assert_eq!(number(line), address + code.len() as u64, "{name}: {line}");
            let (_, rest) = line.split_once(": ").unwrap();
            code.extend(rest.get(..33).unwrap_or(rest).split(' ').map_while(hex));
        }
        Self { name, address, code }
    }

    fn function(&self) -> Function<'_> {
        Function {
            name: self.name,
            address: self.address,
            file_offset: 0x1000,
            code: &self.code,
            jumped_to: &[],
        }
    }

    fn abi(&self) -> Abi {
        if self.name.starts_with("go") { Abi::Go } else { Abi::SysV }
    }

    fn entry(&self, values: &[Value]) -> Result<Site, Refusal> {
        entry(&self.function(), &Needs { abi: self.abi(), values }, Rules::default())
    }
}

const FIRST: &[Value] = &[Value::Argument(0)];
const TWO: &[Value] = &[Value::Argument(0), Value::Argument(1)];

#[test]
fn entries() {
    let (rax, rbx, rdi, rsi) = (Place(0), Place(3), Place(7), Place(6));
    for (name, from_start, instruction, class, places) in [
        // After the stack check, so that the stack growing does not pass it twice.
        ("go126 small", 10, "push rbp", Class::Push, [rax, rbx]),
        ("go126 big", 10, "push rbp", Class::Push, [rax, rbx]),
        ("go126 pick", 10, "push rbp", Class::Push, [rax, rbx]),
        // Nothing but arithmetic.
        ("go126 leaf", 0, "lea rcx,[rax...]", Class::Stepped, [rax, rbx]),
        ("gcc_o2 simple", 2, "js +0x20", Class::Jump, [rdi, rsi]),
        ("gcc_o2 keeps", 0, "push r12", Class::Push, [rdi, rsi]),
        ("gcc_o2 tiny", 0, "lea rax,[rdi...]", Class::Stepped, [rdi, rsi]),
        // The only jump is the loop's.
        ("gcc_o2 spin", 0, "xor edx,edx", Class::Stepped, [rdi, rsi]),
        // The jump by a table is taken with another stack pointer, so it does not lead here.
        ("gcc_o2 table", 7, "ja +0xa2", Class::Jump, [rdi, rsi]),
        ("gcc_o0 simple", 0, "push rbp", Class::Push, [rdi, rsi]),
        ("gcc_o0 keeps", 0, "push rbp", Class::Push, [rdi, rsi]),
        // Behind endbr64, which is single-stepped.
        ("gcc_cet keeps", 4, "push r12", Class::Push, [rdi, rsi]),
        ("openssl SSL_read", 0x16, "js +0x47", Class::Jump, [rdi, rsi]),
    ] {
        let site = Fixture::of(name).entry(TWO).unwrap();
        assert_eq!(
            (site.from_start, site.instruction.as_str(), site.class, site.places.as_slice()),
            (from_start, instruction, class, &places[..]),
            "{name}: {}",
            site.why
        );
        assert_eq!(site.file_offset, 0x1000 + from_start, "{name}");
    }
}

#[test]
fn what_is_not_wanted_need_not_be_known() {
    let fixture = Fixture::of("gcc_o2 simple");
    // Overwritten behind the jump, so only the jump will do; without it being wanted too.
    assert_eq!(fixture.entry(&[Value::Argument(1)]).unwrap().from_start, 2);
    assert_eq!(fixture.entry(&[]).unwrap().from_start, 2);
    let needs = Needs { abi: Abi::SysV, values: &[Value::Argument(9)] };
    let refusal = entry(&fixture.function(), &needs, Rules::default()).unwrap_err();
    assert_eq!(refusal.to_string(), "gcc_o2 simple: a wanted value is not passed in a register");
}

#[test]
fn dear_sites_can_be_forbidden_and_naive_ones_asked_for() {
    let fixture = Fixture::of("gcc_o2 tiny");
    let needs = Needs { abi: Abi::SysV, values: FIRST };
    let cheap = Rules { stepped: false, ..Rules::default() };
    assert!(matches!(entry(&fixture.function(), &needs, cheap), Err(Refusal::Dear(_))));
    let naive = Rules { naive: true, ..Rules::default() };
    let fixture = Fixture::of("go126 small");
    let site = entry(&fixture.function(), &Needs { abi: Abi::Go, values: FIRST }, naive).unwrap();
    assert_eq!((site.from_start, site.class), (0, Class::Stepped));
    let callee = |to| to == 0x499260;
    let needs = Needs { abi: Abi::Go, values: &[Value::Result(0)] };
    let sites = after_call(&fixture.function(), &callee, &needs, naive).unwrap();
    assert_eq!((sites[0].class, sites[0].from_start), (Class::Stepped, 0x65));
}

/// Address that the first direct call of a function calls.
fn first_callee(fixture: &Fixture) -> u64 {
    let listing = decode::Listing::of(&fixture.function()).unwrap();
    let is_call = |line: &&iced_x86::Instruction| line.flow_control() == iced_x86::FlowControl::Call;
    listing.lines.iter().find(is_call).unwrap().near_branch_target()
}

#[test]
fn after_calls() {
    let values = [Value::Result(0), Value::Argument(0)];
    let sites = |name| {
        let fixture = Fixture::of(name);
        let callee = first_callee(&fixture);
        let needs = Needs { abi: fixture.abi(), values: &values };
        after_call(&fixture.function(), &|to| to == callee, &needs, Rules::default())
    };
    let found = sites("gcc_o2 simple");
    // Nothing but arithmetic, and the argument is gone; so only the result can be wanted.
    assert_eq!(found.map(|_| ()), Err(Refusal::ValuesGone("gcc_o2 simple".into())));
    // What follows the second call is where others jump to.
    assert_eq!(sites("gcc_o2 keeps"), Err(Refusal::NotOnce("gcc_o2 keeps".into())));
    let fixture = Fixture::of("openssl SSL_read");
    let callee = first_callee(&fixture);
    let needs = Needs { abi: Abi::SysV, values: &[Value::Result(0)] };
    let found = after_call(&fixture.function(), &|to| to == callee, &needs, Rules::default()).unwrap();
    assert_eq!((found.len(), found[0].instruction.as_str(), found[0].places[0]), (1, "jle +0x2a", Place(0)));
    let found = sites("go126 loop").unwrap();
    // Nothing cheap before the loop joins; the argument is where Go keeps it over calls.
    assert_eq!((found.len(), found[0].class), (1, Class::Stepped), "{found:?}");
    assert_eq!(found[0].places, [Place(0), Place::stack(0x30).unwrap()]);
}

#[test]
fn calls_themselves() {
    let fixture = Fixture::of("go126 loop");
    let callee = first_callee(&fixture);
    let values = [Value::Argument(0), Value::Argument(2)];
    let needs = Needs { abi: Abi::Go, values: &values };
    let sites = at_call(&fixture.function(), &|to| to == callee, &needs).unwrap();
    assert!(!sites.is_empty());
    for site in sites {
        assert_eq!(
            (site.class, site.places),
            (Class::Call, vec![Place(0), Place(1)]),
            "{}",
            site.instruction
        );
    }
    let refusal = at_call(&fixture.function(), &|_| false, &needs).unwrap_err();
    assert!(matches!(refusal, Refusal::NoCall(_)));
    let needs = Needs { abi: Abi::Go, values: &[Value::Result(0)] };
    let refusal = at_call(&fixture.function(), &|to| to == callee, &needs).unwrap_err();
    assert!(matches!(refusal, Refusal::ValuesGone(_)));
}

#[test]
fn a_slot_whose_address_is_given_away_holds_nothing_for_certain() {
    let fixture = Fixture::of("gcc_o2 escapes");
    let callee = first_callee(&fixture);
    let needs = Needs { abi: Abi::SysV, values: &[Value::Result(0), Value::Argument(1)] };
    let sites = after_call(&fixture.function(), &|to| to == callee, &needs, Rules::default()).unwrap();
    assert_eq!(sites.len(), 2);
    for site in sites {
        assert_eq!(site.places, [Place(0), Place(3)], "{}", site.instruction);
    }
}

#[test]
fn calls_that_are_not_there() {
    let fixture = Fixture::of("gcc_o2 keeps");
    let needs = Needs { abi: Abi::SysV, values: &[] };
    let refusal = after_call(&fixture.function(), &|_| false, &needs, Rules::default()).unwrap_err();
    assert!(matches!(refusal, Refusal::NoCall(_)));
}

#[test]
fn never_a_return_probe_in_go() {
    let fixture = Fixture::of("go126 small");
    let needs = Needs { abi: Abi::Go, values: &[Value::Result(0)] };
    assert!(matches!(returns(&fixture.function(), &needs), Err(Refusal::ReturnInGo(_))));
    let fixture = Fixture::of("gcc_o2 keeps");
    let needs = Needs { abi: Abi::SysV, values: &[Value::Result(0)] };
    let site = returns(&fixture.function(), &needs).unwrap();
    assert!(site.returns() && site.from_start == 0 && site.places == [Place(0)]);
}

#[test]
fn a_return_is_caught_where_the_stack_is_untouched_and_the_trap_is_cheap() {
    let caught = |code: &[u8], jumped_to: &[u64]| {
        let needs = Needs { abi: Abi::SysV, values: &[Value::Result(0)] };
        let site = returns(&by_hand(code, jumped_to), &needs).unwrap();
        (site.class, site.from_start)
    };
    // endbr64; push rbx; pop rbx; ret
    let marked = [0xf3, 0x0f, 0x1e, 0xfa, 0x53, 0x5b, 0xc3];
    assert_eq!(caught(&marked, &[]), (Class::Return, 4));
    // Somebody comes in behind the push.
    assert_eq!(caught(&marked, &[0x1005]), (Class::Return, 4));
    // Somebody comes in before it.
    assert_eq!(caught(&marked, &[0x1004]), (Class::SteppedReturn, 0));
    // sub rsp, 8; push rbx; pop rbx; add rsp, 8; ret: the push is too late.
    let late = [0x48, 0x83, 0xec, 8, 0x53, 0x5b, 0x48, 0x83, 0xc4, 8, 0xc3];
    assert_eq!(caught(&late, &[]), (Class::SteppedReturn, 0));
    // test rdi, rdi; je +1; push rbx; pop rbx... a jump that every call passes, before a push that not every call passes.
    let branch = [0x48, 0x85, 0xff, 0x74, 0x02, 0x53, 0x5b, 0xc3];
    assert_eq!(caught(&branch, &[]), (Class::Return, 3));
    // push rbx; pop rbx; jne -4; ret: it begins anew, and would be caught twice.
    let again = [0x53, 0x5b, 0x75, 0xfc, 0xc3];
    let needs = Needs { abi: Abi::SysV, values: &[] };
    assert!(matches!(returns(&by_hand(&again, &[]), &needs), Err(Refusal::NotOnce(_))));
}

fn by_hand<'a>(code: &'a [u8], jumped_to: &'a [u64]) -> Function<'a> {
    Function { name: "f", address: 0x1000, file_offset: 0, code, jumped_to }
}

fn entry_of(code: &[u8], jumped_to: &[u64], rules: Rules) -> Result<Site, Refusal> {
    entry(&by_hand(code, jumped_to), &Needs { abi: Abi::SysV, values: FIRST }, rules)
}

#[test]
fn what_the_kernel_refuses() {
    let cheap = Rules { stepped: false, ..Rules::default() };
    // cs js +0; ret: the prefix.
    let refusal = entry_of(&[0x2e, 0x78, 0x00, 0xc3], &[], cheap).unwrap_err();
    assert!(matches!(refusal, Refusal::Dear(_)), "{refusal}");
    // lock inc dword [rdi]; jmp $: nothing that ever ends.
    assert!(entry_of(&[0xf0, 0xff, 0x07, 0xeb, 0xfe], &[], cheap).is_err());
    // A five-byte nop on a kernel where it is dangerous, then push; ret.
    let code = [0x0f, 0x1f, 0x44, 0x00, 0x00, 0x57, 0x5f, 0xc3];
    assert_eq!(entry_of(&code, &[], Rules::default()).unwrap().class, Class::Push);
    let brave = Rules { nop5: true, ..Rules::default() };
    assert_eq!(entry_of(&code, &[], brave).unwrap().class, Class::Nop5);
    // The same nop and nothing else.
    let refusal = entry_of(&[0x0f, 0x1f, 0x44, 0x00, 0x00], &[], Rules::default()).unwrap_err();
    assert!(matches!(refusal, Refusal::Unsafe(..)), "{refusal}");
    // Nothing but a breakpoint.
    assert!(entry_of(&[0xcc], &[], Rules::default()).is_err());
}

#[test]
fn a_function_with_a_second_door_is_not_counted_by_its_first() {
    // push rdi; pop rdi; push rsi; pop rsi; ret, entered at +2 as well: rdi is not known to be the argument any more.
    let code = [0x57, 0x5f, 0x56, 0x5e, 0xc3];
    assert_eq!(entry_of(&code, &[], Rules::default()).unwrap().from_start, 0);
    // Entered behind it, every call that comes by the front passes it.
    assert!(entry_of(&code, &[0x1002], Rules::default()).is_ok());
    assert!(matches!(entry_of(&code, &[0x1000], Rules::default()), Err(Refusal::NotOnce(_))));
}

#[test]
fn a_jump_that_is_passed_by_some_is_not_taken() {
    // test edi,edi; je +2 -> over the push; push rdi; pop rdi; ret
    let code = [0x85, 0xff, 0x74, 0x02, 0x57, 0x5f, 0xc3];
    let site = entry_of(&code, &[], Rules::default()).unwrap();
    assert_eq!((site.from_start, site.class), (2, Class::Jump));
    // A loop around everything that is cheap: dec edi; jne -4; ret
    let site = entry_of(&[0x31, 0xc0, 0xff, 0xcf, 0x75, 0xfc, 0xc3], &[], Rules::default()).unwrap();
    assert_eq!((site.from_start, site.class), (0, Class::Stepped));
}

/// The libraries of this machine: what is chosen is what it says it is.
#[test]
fn whole_libraries() {
    for path in ["/usr/lib/x86_64-linux-gnu/libssl.so.3", "/usr/lib/x86_64-linux-gnu/libc.so.6"] {
        let Ok(bytes) = std::fs::read(path) else { continue };
        let elf = Elf::parse(&bytes).unwrap();
        assert!(elf.moves() && elf.build_id().is_some());
        let all = elf.functions_where(&|_| true, usize::MAX);
        assert!(all.len() > 300, "{path}: {}", all.len());
        let (mut cheap, mut dear) = (0, 0);
        for function in &all {
            let Ok(site) = entry(function, &Needs { abi: Abi::SysV, values: FIRST }, Rules::default()) else {
                continue;
            };
            let at = site.from_start as usize;
            let byte = function.code[at];
            let first = if byte == 0x41 { function.code[at + 1] } else { byte };
            match site.class {
                Class::Push => assert!((0x50..0x58).contains(&first), "{site:?}"),
                Class::Jump => assert!(
                    matches!(byte, 0x70..=0x7f | 0xeb | 0xe9)
                        || byte == 0x0f && function.code[at + 1] & 0xf0 == 0x80,
                    "{site:?}"
                ),
                Class::Call => assert_eq!(byte, 0xe8, "{site:?}"),
                Class::Nop => assert_eq!(byte, 0x90, "{site:?}"),
                Class::Stepped => {}
                other => panic!("{other:?}: {site:?}"),
            }
            assert_eq!(elf.offset(site.address), Some(site.file_offset), "{site:?}");
            // Short ones that read a field have nothing cheap in them.
            if function.code.len() < 48 {
                continue;
            }
            *(if site.class == Class::Stepped { &mut dear } else { &mut cheap }) += 1;
        }
        println!("{path}: {} functions, {cheap} cheap, {dear} single-stepped", all.len());
        assert!(cheap > 2 * dear, "{path}: {cheap} cheap, {dear} dear");
    }
}

proptest! {
    #[test]
    fn any_bytes_as_a_function(code in prop::collection::vec(any::<u8>(), 0..300), doors in prop::collection::vec(0x1000_u64..0x1130, 0..3), go: bool) {
        let function = by_hand(&code, &doors);
        let abi = if go { Abi::Go } else { Abi::SysV };
        if let Ok(site) = entry(&function, &Needs { abi, values: TWO }, Rules::default()) {
            prop_assert!((site.from_start as usize) < code.len());
            prop_assert_eq!(site.places.len(), 2);
        }
        drop(after_call(&function, &|_| true, &Needs { abi, values: &[Value::Result(0)] }, Rules::default()));
        drop(returns(&function, &Needs { abi, values: &[] }));
    }

    #[test]
    fn any_bytes_as_a_file(mut bytes in prop::collection::vec(any::<u8>(), 0..600), header: bool) {
        if header && bytes.len() >= 64 {
            bytes[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0");
        }
        if let Ok(elf) = Elf::parse(&bytes) {
            drop(elf.functions_where(&|_| true, 100));
            let _ = (elf.build_id(), elf.offset(0x1000), elf.address(0), elf.section(".text"), elf.has_symbols(), elf.first_code());
        }
    }

    /// Code of a real function with a few bytes changed.
    #[test]
    fn damaged_functions(which in 0_usize..4, changes in prop::collection::vec((0_usize..300, any::<u8>()), 0..6)) {
        let names = ["go126 small", "gcc_o2 table", "openssl SSL_read", "gcc_o0 keeps"];
        let mut fixture = Fixture::of(names[which]);
        for (at, byte) in changes {
            if let Some(place) = fixture.code.get_mut(at) {
                *place = byte;
            }
        }
        drop(fixture.entry(TWO));
    }
}
