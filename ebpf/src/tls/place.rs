//! Reads the places of a probe's cookie from the registers at the probe.

use aya_ebpf::bindings::pt_regs;
use spanwise_common::place::Place;

use crate::read::user_bytes;

/// What stands at a place.
#[inline(always)]
pub fn value(regs: *const pt_regs, place: Place) -> Option<u64> {
    if place.0 & Place::STACK != 0 {
        let slot = u64::from(place.0 & !Place::STACK) * 8;
        // SAFETY: a load from the program's context.
        let sp = unsafe { core::ptr::read_volatile(&raw const (*regs).rsp) };
        return word(sp + slot);
    }
    macro_rules! register {
        ($($number:literal => $name:ident,)*) => {
            match place.0 {
                // SAFETY: a load from the program's context, at an offset known to the verifier.
                $($number => Some(unsafe { core::ptr::read_volatile(&raw const (*regs).$name) }),)*
                _ => None,
            }
        };
    }
    register!(
        0 => rax, 1 => rcx, 2 => rdx, 3 => rbx, 4 => rsp, 5 => rbp, 6 => rsi, 7 => rdi,
        8 => r8, 9 => r9, 10 => r10, 11 => r11, 12 => r12, 13 => r13, 14 => r14, 15 => r15,
    )
}

/// Eight bytes of user memory.
#[inline(always)]
pub fn word(address: u64) -> Option<u64> {
    let mut word = 0u64;
    // SAFETY: eight bytes into eight bytes.
    unsafe { user_bytes((&raw mut word).cast(), 8, address) }.then_some(word)
}
