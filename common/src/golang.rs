//! Where the Go runtime keeps what the kernel side reads of a goroutine. The agent knows it by the program's version of Go.

/// Layouts known at once: an index must fit into the bits above [`LAYOUT_SHIFT`].
pub const MAX_LAYOUTS: u32 = 64;
/// Place of the layout's number in the bits of a process (`config::proc`): zero for a process whose goroutines are not read.
pub const LAYOUT_SHIFT: u32 = 24;

/// Offsets in the runtime's structs `g` (a goroutine) and `m` (a thread). The bounds of the stack are the first two words of `g`,
/// the goroutine of the scheduler is the first word of `m`, in every version.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Layout {
    /// `g.m`: the thread that runs it.
    pub m: u32,
    /// `m.curg`: the goroutine that the thread runs.
    pub curg: u32,
    /// `g.goid`.
    pub goid: u32,
    /// `g.parentGoid`; `offsets::MISSING` before Go 1.21.
    pub parent: u32,
    /// `g.startpc`.
    pub start: u32,
    /// Always zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<Layout>() == 24);
