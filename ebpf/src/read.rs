//! Reading kernel and user memory.

use aya_ebpf::Global;
use aya_ebpf::helpers::{bpf_probe_read_kernel, generated};
use spanwise_common::offsets::MISSING;

/// Reads a member through a pointer that the verifier knows the type of: one load, no helper.
///
/// The offset is a frozen global, so the verifier checks the access against the kernel's own type information.
#[inline(always)]
pub unsafe fn direct<T: Copy>(base: *const u8, offset: &Global<u32>) -> Option<T> {
    let offset = offset.load();
    if offset == MISSING {
        return None;
    }
    // SAFETY: the verifier proves that `base + offset` is a member of the pointed-to type, or patches in a
    // fault-handled load.
    Some(unsafe { core::ptr::read_volatile(base.add(offset as usize).cast::<T>()) })
}

/// Reads a member through an address that the verifier knows nothing of.
#[inline(always)]
pub unsafe fn probed<T>(base: u64, offset: &Global<u32>) -> Option<T> {
    let offset = offset.load();
    if offset == MISSING || base == 0 {
        return None;
    }
    // SAFETY: the helper handles any address.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// Copies `len` bytes of kernel memory at `base + offset` to `dst`.
#[inline(always)]
pub unsafe fn probed_bytes<const N: usize>(base: u64, offset: &Global<u32>, dst: &mut [u8; N]) -> bool {
    let offset = offset.load();
    if offset == MISSING || base == 0 {
        return false;
    }
    // SAFETY: the helper handles any source address; the destination is a whole array.
    unsafe {
        generated::bpf_probe_read_kernel(
            dst.as_mut_ptr().cast(),
            N as u32,
            (base + u64::from(offset)) as *const core::ffi::c_void,
        ) == 0
    }
}

/// Copies `len` bytes of user memory. False when a page is not present.
#[inline(always)]
pub unsafe fn user_bytes(dst: *mut u8, len: u32, src: u64) -> bool {
    // SAFETY: the caller bounds `len` by the room at `dst`; the verifier checks it.
    unsafe { generated::bpf_probe_read_user(dst.cast(), len, src as *const core::ffi::c_void) == 0 }
}

/// Keeps the low bits of a value in a way that the compiler can't optimise away before the verifier sees it.
#[inline(always)]
pub fn masked(value: u32, mask: u32) -> u32 {
    let mut value = u64::from(value);
    let mask = u64::from(mask);
    // SAFETY: plain arithmetic.
    unsafe { core::arch::asm!("{v} &= {m}", v = inout(reg) value, m = in(reg) mask) };
    value as u32
}

/// Eight bytes of user memory.
#[inline(always)]
pub fn word(address: u64) -> Option<u64> {
    let mut word = 0u64;
    // SAFETY: eight bytes into eight bytes.
    unsafe { user_bytes((&raw mut word).cast(), 8, address) }.then_some(word)
}
