//! Who gave a goroutine its work: values that pass channels. Wanted only in programs where goroutines that live on (workers of a
//! pool) make calls that nothing else explains.
//!
//! Direct hand-over is hooked where two goroutines meet, `runtime.send` and `runtime.recv`; values that lie in a buffer are hooked
//! where they are copied, at the calls of `runtime.typedmemmove`. A value passes one such place (two where it lay in a buffer),
//! whether by a statement or by a `select`.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use spanwise_common::golang::channel;
use spanwise_common::names::program;

use super::{Lack, Program};
use crate::instrument::{Facts, Found, Need, Wanted};
use crate::placement::{self, Abi, Function, Needs, Value};

const SEND: &str = "runtime.send";
const RECV: &str = "runtime.recv";
const CHANSEND: &str = "runtime.chansend";
const CHANRECV: &str = "runtime.chanrecv";
const SELECT: &str = "runtime.selectgo";
const COPY: &str = "runtime.typedmemmove";

pub(super) const FUNCTIONS: [&str; 6] = [SEND, RECV, CHANSEND, CHANRECV, SELECT, COPY];

/// Instructions before a call that prepare it.
const BEFORE: usize = 24;

/// Adds what tells who gave work to whom: all of it or nothing, because half of the hand-overs would be given to the wrong one.
pub(super) fn look(program: &Program<'_, '_>, facts: &Facts<'_>, found: &mut Found) {
    match passes(program, facts) {
        Ok(wanted) => found.later.extend(wanted.into_iter().map(|wanted| (Need::HandOffs, wanted))),
        Err(lack) => lack.tell(found),
    }
}

fn passes(program: &Program<'_, '_>, facts: &Facts<'_>) -> Result<Vec<Wanted>, Lack> {
    let copy = program.address(COPY).ok_or_else(|| strange(COPY))?;
    // Where a channel keeps its type is read from the code that copies it.
    let send = program.function(CHANSEND)?;
    let kind =
        copies(&send, copy)?.first().map(|(copied, ..)| copied.kind).ok_or_else(|| strange(CHANSEND))?;
    let mut wanted = Vec::new();
    for (name, what) in [(SEND, channel::GIVE), (RECV, channel::FETCH)] {
        let function = program.function(name)?;
        let values = [Value::Argument(0), Value::Argument(1)];
        let site = placement::entry(&function, &Needs { abi: Abi::Go, values: &values }, facts.rules)?;
        let cookie = site.cookie(own(what, kind));
        wanted.push(Wanted { program: program::GO_CHANNEL, site, cookie });
    }
    for (name, puts, takes) in [(CHANSEND, 1, 0), (CHANRECV, 0, 1), (SELECT, 1, 1)] {
        let function = program.function(name)?;
        let mut known = [0, 0];
        for (copied, site) in copies(&function, copy)? {
            if copied.kind != kind {
                return Err(strange(name));
            }
            let what = if copied.into { channel::PUT } else { channel::TAKE };
            if let Some(count) = known.get_mut(usize::from(!copied.into)) {
                *count += 1;
            }
            let cookie = site.cookie(own(what, kind));
            wanted.push(Wanted { program: program::GO_CHANNEL, site, cookie });
        }
        if known != [puts, takes] {
            return Err(strange(name));
        }
    }
    Ok(wanted)
}

fn own(what: u16, kind: u32) -> u16 {
    what << channel::WHAT_SHIFT | (kind as u16 & channel::TYPE)
}

fn strange(name: &str) -> Lack {
    Lack::Said(format!(
        "{name} copies values in a way that is not known: who gave a goroutine its work is not followed"
    ))
}

/// A copy of a value into a channel's buffer, or out of it.
struct Copied {
    into: bool,
    /// Offset of `hchan.elemtype`.
    kind: u32,
}

/// The calls that copy values, in a function that has both kinds or one.
fn copies(function: &Function<'_>, copy: u64) -> Result<Vec<(Copied, placement::Site)>, Lack> {
    let values = [Value::Argument(0), Value::Argument(1), Value::Argument(2)];
    let needs = Needs { abi: Abi::Go, values: &values };
    let sites = placement::at_call(function, &|address| address == copy, &needs)?;
    let decoder = Decoder::with_ip(64, function.code, function.address, DecoderOptions::NONE);
    let lines: Vec<Instruction> = decoder.into_iter().collect();
    let mut found = Vec::with_capacity(sites.len());
    for site in sites {
        let end = lines.iter().position(|line| line.ip() == site.address).unwrap_or(0);
        let before = lines.get(end.saturating_sub(BEFORE)..end).unwrap_or_default();
        let copied = copied(before).ok_or_else(|| strange(function.name))?;
        found.push((copied, site));
    }
    Ok(found)
}

/// What is copied, by the members of the channel that are read last: its type for the call, and the index that the place in the
/// buffer is found by.
fn copied(before: &[Instruction]) -> Option<Copied> {
    let sets = |line: &Instruction| {
        line.mnemonic() == Mnemonic::Mov
            && line.op0_kind() == OpKind::Register
            && line.op0_register().is_gpr64()
    };
    // The first argument is loaded, perhaps into another register first.
    let mut register = Register::RAX;
    let of_type = before.iter().rev().find(|line| {
        if !sets(line) || line.op0_register() != register {
            return false;
        }
        if line.op1_kind() == OpKind::Register {
            register = line.op1_register();
        }
        line.op1_kind() == OpKind::Memory
    })?;
    let channel = of_type.memory_base();
    let kind = u32::try_from(of_type.memory_displacement64()).ok()?;
    if !channel::TYPES.contains(&kind) || of_type.memory_index() != Register::None {
        return None;
    }
    let index = before.iter().rev().find_map(|line| {
        let of_channel = sets(line)
            && line.op1_kind() == OpKind::Memory
            && line.memory_base() == channel
            && line.memory_index() == Register::None;
        let from = u32::try_from(line.memory_displacement64()).ok()?.checked_sub(kind)?;
        (of_channel && matches!(from, channel::SENDX | channel::RECVX)).then_some(from)
    })?;
    Some(Copied { into: index == channel::SENDX, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(code: &[u8]) -> Vec<Instruction> {
        Decoder::with_ip(64, code, 0x1000, DecoderOptions::NONE).into_iter().collect()
    }

    #[test]
    fn into_the_buffer() {
        // chansend of Go 1.26: mov rbx,[rcx+30h]; mov rax,[rcx+28h]; movzx edx,word [rcx+18h]; imul rbx,rdx;
        // add rbx,[rcx+10h]; mov rcx,[rsp+78h]
        let code = [
            0x48, 0x8b, 0x59, 0x30, 0x48, 0x8b, 0x41, 0x28, 0x0f, 0xb7, 0x51, 0x18, 0x48, 0x0f, 0xaf, 0xda,
            0x48, 0x03, 0x59, 0x10, 0x48, 0x8b, 0x4c, 0x24, 0x78,
        ];
        let copied = copied(&read(&code)).unwrap();
        assert!(copied.into);
        assert_eq!(copied.kind, 40);
    }

    #[test]
    fn out_of_the_buffer_by_another_register() {
        // chanrecv of Go 1.21: mov rbx,[rax+30h]; movzx ecx,word [rax+18h]; imul rbx,rcx; add rbx,[rax+10h];
        // mov [rsp+38h],rbx; mov rsi,[rax+20h]; mov rcx,rbx; mov rbx,rdx; mov rax,rsi
        let code = [
            0x48, 0x8b, 0x58, 0x30, 0x0f, 0xb7, 0x48, 0x18, 0x48, 0x0f, 0xaf, 0xd9, 0x48, 0x03, 0x58, 0x10,
            0x48, 0x89, 0x5c, 0x24, 0x38, 0x48, 0x8b, 0x70, 0x20, 0x48, 0x89, 0xd9, 0x48, 0x89, 0xd3, 0x48,
            0x89, 0xf0,
        ];
        let copied = copied(&read(&code)).unwrap();
        assert!(!copied.into);
        assert_eq!(copied.kind, 32);
    }

    #[test]
    fn what_is_not_known_is_left() {
        // The type at another place: mov rbx,[rcx+40h]; mov rax,[rcx+38h].
        assert!(copied(&read(&[0x48, 0x8b, 0x59, 0x40, 0x48, 0x8b, 0x41, 0x38])).is_none());
        // No index: mov rax,[rcx+28h].
        assert!(copied(&read(&[0x48, 0x8b, 0x41, 0x28])).is_none());
    }
}
