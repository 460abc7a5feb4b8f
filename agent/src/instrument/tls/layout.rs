//! Where an object keeps things, read from the code of the functions that give them out. What is read wrong here joins nothing:
//! the number at the place must equal one that was seen on a socket.

use std::collections::HashMap;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use crate::placement::Function;

/// Instructions looked at.
const REACH: usize = 64;
/// Offsets below this are the head of an object (type, version), never what is looked for.
const HEAD: u64 = 0x20;

/// Where the random number of a ClientHello is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Offset of a pointer to follow first.
    pub(super) through: Option<u16>,
    /// Offset of the number.
    pub(super) random: u16,
}

/// What a register points to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// The object.
    Object,
    /// What the pointer at this offset of the object points to.
    Behind(u16),
}

/// From the function that copies the number out: the first address that it makes from the object, or from something that the object
/// points to.
pub(super) fn of(function: &Function<'_>) -> Option<Layout> {
    let mut holds = HashMap::from([(Register::RDI, Holds::Object)]);
    let mut loaded = None;
    for line in lines(function) {
        let base = holds.get(&line.memory_base()).copied();
        let offset = u16::try_from(line.memory_displacement64()).ok();
        let uses_memory = (0..line.op_count()).any(|index| line.op_kind(index) == OpKind::Memory);
        if let (true, Some(base), Some(offset)) = (uses_memory, base, offset)
            && line.memory_index() == Register::None
        {
            let wide = line.op0_kind() == OpKind::Register && line.op0_register().is_gpr64();
            match base {
                Holds::Behind(through) => return Some(Layout { through: Some(through), random: offset }),
                Holds::Object if u64::from(offset) < HEAD && line.mnemonic() != Mnemonic::Lea => {}
                Holds::Object if line.mnemonic() == Mnemonic::Mov && wide => {
                    // A pointer, or the first bytes of the number: what becomes of it tells.
                    holds.insert(line.op0_register(), Holds::Behind(offset));
                    loaded = loaded.or(Some(offset));
                    continue;
                }
                Holds::Object => return Some(Layout { through: None, random: offset }),
            }
        }
        if line.op_count() == 0 || line.op0_kind() != OpKind::Register {
            continue;
        }
        let to = line.op0_register().full_register();
        let copied = line.mnemonic() == Mnemonic::Mov && line.op1_kind() == OpKind::Register;
        match (copied, holds.get(&line.op1_register()).copied()) {
            (true, Some(from)) => {
                holds.insert(to, from);
            }
            _ if line.mnemonic() == Mnemonic::Add && line.op1_kind() != OpKind::Register => {
                let by = u16::try_from(line.try_immediate(1).unwrap_or(0)).ok()?;
                match holds.get(&to) {
                    Some(Holds::Behind(through)) => {
                        return Some(Layout { through: Some(*through), random: by });
                    }
                    Some(Holds::Object) => return Some(Layout { through: None, random: by }),
                    None => {}
                }
            }
            _ if !matches!(line.mnemonic(), Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push) => {
                holds.remove(&to);
            }
            _ => {}
        }
    }
    loaded.map(|random| Layout { through: None, random })
}

/// From a function that gives out one number of 32 bits of the object: its offset in words, if that is all the function does.
pub(super) fn flag(function: &Function<'_>) -> Option<u16> {
    let mut found = None;
    for line in lines(function).take(4) {
        match line.mnemonic() {
            Mnemonic::Mov if line.op0_register() == Register::EAX && line.memory_base() == Register::RDI => {
                found = Some(line.memory_displacement64());
            }
            Mnemonic::Ret => break,
            Mnemonic::Xor if line.op0_register() == line.op1_register() => {}
            Mnemonic::Endbr64 | Mnemonic::Nop => {}
            _ => return None,
        }
    }
    let words = found.filter(|offset| *offset >= HEAD && offset % 4 == 0)? / 4;
    u16::try_from(words).ok().filter(|words| *words < 256)
}

fn lines<'a>(function: &Function<'a>) -> impl Iterator<Item = Instruction> + use<'a> {
    Decoder::with_ip(64, function.code, function.address, DecoderOptions::NONE).into_iter().take(REACH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(code: &[u8]) -> Function<'_> {
        Function { name: "f", address: 0x1000, file_offset: 0, code, jumped_to: &[] }
    }

    #[test]
    fn the_number_in_the_object_and_behind_a_pointer() {
        // cmp rdx, rax; lea rsi, [rdi+0x160]; ret
        let direct = [0x48, 0x39, 0xc2, 0x48, 0x8d, 0xb7, 0x60, 1, 0, 0, 0xc3];
        assert_eq!(of(&function(&direct)), Some(Layout { through: None, random: 0x160 }));
        // mov rax, [rdi+0xa8]; movdqu xmm0, [rax+0xb8]; ret
        let behind = [0x48, 0x8b, 0x87, 0xa8, 0, 0, 0, 0xf3, 0x0f, 0x6f, 0x80, 0xb8, 0, 0, 0, 0xc3];
        assert_eq!(of(&function(&behind)), Some(Layout { through: Some(0xa8), random: 0xb8 }));
        // mov rcx, rdi; mov rax, [rcx+0x160]; mov [rsi], rax; ret: a copy of the number itself
        let loaded = [0x48, 0x89, 0xf9, 0x48, 0x8b, 0x81, 0x60, 1, 0, 0, 0x48, 0x89, 0x06, 0xc3];
        assert_eq!(of(&function(&loaded)), Some(Layout { through: None, random: 0x160 }));
        assert_eq!(of(&function(&[0xc3])), None);
        assert_eq!(of(&function(&[])), None);
    }

    #[test]
    fn boringssl_keeps_it_behind_a_pointer() {
        // Of netty-tcnative 2.0.65: push rbp; mov rbp, rsp; push rbx; mov ebx, 32; sub rsp, 8; test rdx, rdx; je; mov rax, rsi;
        // mov rsi, [rdi+0x30]; cmp rdx, 32; cmovbe rbx, rdx; mov rdi, rax; mov rdx, rbx; add rsi, 0x30; call memcpy
        let old = [
            0x55, 0x48, 0x89, 0xe5, 0x53, 0xbb, 0x20, 0, 0, 0, 0x48, 0x83, 0xec, 8, 0x48, 0x85, 0xd2, 0x74,
            0x1e, 0x48, 0x89, 0xf0, 0x48, 0x8b, 0x77, 0x30, 0x48, 0x83, 0xfa, 0x20, 0x48, 0x0f, 0x46, 0xda,
            0x48, 0x89, 0xc7, 0x48, 0x89, 0xda, 0x48, 0x83, 0xc6, 0x30, 0xe8, 0x9f, 0x4e, 0xfe, 0xff,
        ];
        // Of 2.0.74, from the length on: cmp rdx, 32; mov rdi, [rdi+0x30]; cmovb rax, rdx; lea rcx, [rdi+0x30]
        let new =
            [0x48, 0x83, 0xfa, 0x20, 0x48, 0x8b, 0x7f, 0x30, 0x48, 0x0f, 0x42, 0xc2, 0x48, 0x8d, 0x4f, 0x30];
        for code in [&old[..], &new] {
            assert_eq!(of(&function(code)), Some(Layout { through: Some(0x30), random: 0x30 }), "{code:x?}");
        }
    }

    #[test]
    fn a_flag_is_a_load_and_nothing_else() {
        assert_eq!(flag(&function(&[0x8b, 0x47, 0x38, 0x31, 0xff, 0xc3])), Some(14));
        // Shifted out of a word: mov eax, [rdi+0x38]; shr eax, 3; ret
        assert_eq!(flag(&function(&[0x8b, 0x47, 0x38, 0xc1, 0xe8, 3, 0xc3])), None);
        assert_eq!(flag(&function(&[0x31, 0xc0, 0xc3])), None);
    }
}
