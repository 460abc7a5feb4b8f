//! The BPF object inside the binary.

/// Bytes with the alignment that an ELF reader wants.
#[repr(C, align(32))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/spanwise-ebpf")));

/// The object; empty in builds made with `SPANWISE_BPF=stub`.
pub fn bytes() -> &'static [u8] {
    &OBJECT.0
}

/// Whether this build carries the BPF programs.
pub fn is_present() -> bool {
    !bytes().is_empty()
}
