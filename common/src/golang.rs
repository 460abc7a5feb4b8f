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

/// Offsets in `crypto/tls.Conn` of the program of a process.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// `conn`, an interface.
    pub conn: u32,
    /// `vers`, 16 bits.
    pub version: u32,
    /// `cipherSuite`, 16 bits.
    pub suite: u32,
    /// `out`: what encrypts, a struct inside the connection.
    pub out: u32,
    /// `rawInput`: encrypted bytes that were read and not yet taken apart, a `bytes.Buffer`.
    pub raw: u32,
    /// `bytes.Buffer.off`.
    pub off: u32,
}

/// What every version that was measured has at the same place; the agent checks it against its table.
pub mod fixed {
    /// `net.TCPConn.conn.fd`, `netFD.pfd`, `http2responseWriter.rws`, `http2responseWriterState.stream`: the first member.
    pub const FIRST: u64 = 0;
    /// `internal/poll.FD.Sysfd`.
    pub const SYSFD: usize = 16;
    /// `internal/poll.FD.IsStream`.
    pub const IS_STREAM: usize = 48;
    /// `internal/poll.FD.ZeroReadIsEOF`.
    pub const ZERO_READ_IS_EOF: usize = 49;
    /// `internal/poll.FD.isFile`.
    pub const IS_FILE: usize = 50;
}

/// Bits of a probe's cookie that are its own, where a number is read from a struct that is reached by pointers.
pub mod path {
    /// Offset of the number.
    pub const OFFSET: u16 = 0xfff;
    /// Lowest bit of how many pointers to follow before.
    pub const FOLLOW_SHIFT: u32 = 12;
    /// How many there can be.
    pub const FOLLOW: u16 = 3;
    /// What is reached is a pointer to what is wanted, in place of it.
    pub const LAST: u16 = 1 << 15;
}

/// Offsets in the runtime's `hchan` and `sudog` that no version has moved, and bits of the cookie of a probe on channels.
pub mod channel {
    /// Words of `hchan` that are read: up to `recvx`.
    pub const WORDS: usize = 8;
    /// `hchan.dataqsiz`, in words.
    pub const ROOM: usize = 1;
    /// `hchan.buf`, in words.
    pub const BUFFER: usize = 2;
    /// `hchan.elemsize`, in words; 16 bits.
    pub const SIZE: usize = 3;
    /// From `hchan.elemtype` to `hchan.sendx`, in bytes.
    pub const SENDX: u32 = 8;
    /// From `hchan.elemtype` to `hchan.recvx`, in bytes.
    pub const RECVX: u32 = 16;
    /// Places that `hchan.elemtype` has been at.
    pub const TYPES: [u32; 2] = [32, 40];
    /// The cookie's own bits: the offset of `hchan.elemtype`.
    pub const TYPE: u16 = 0xff;
    /// The cookie's own bits: what is hooked.
    pub const WHAT_SHIFT: u32 = 8;
    /// A value goes to a receiver that waits.
    pub const GIVE: u16 = 0;
    /// A receiver comes to a sender that waits.
    pub const FETCH: u16 = 1;
    /// A value goes into the buffer.
    pub const PUT: u16 = 2;
    /// A value comes out of the buffer.
    pub const TAKE: u16 = 3;
}

const _: () = assert!(size_of::<Layout>() == 24);
const _: () = assert!(size_of::<Tls>() == 24);
