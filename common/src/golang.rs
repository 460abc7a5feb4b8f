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

/// What leads from the goroutine of a server's connection to the pattern that its request was matched with.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Routes {
    /// Address of the function that a server starts for each connection.
    pub start: u64,
    /// Where that keeps the `net/http.conn`: so many bytes below the top of the stack.
    pub slot: u32,
    /// `conn.rwc`, an interface.
    pub transport: u32,
    /// `conn.curReq`: pointer to a `response`.
    pub current: u32,
    /// `response.req`: pointer to the request.
    pub request: u32,
    /// `Request.Pattern`, a string; in Go 1.22 `Request.pat`, a pointer to a struct that begins with one; `offsets::MISSING` before.
    pub pattern: u32,
    /// Not zero: it is a pointer.
    pub indirect: u32,
    /// `Server.Handler`, an interface.
    pub handler: u32,
    /// `Request.ctx`, an interface.
    pub context: u32,
    /// Where the goroutine calls the server's handler: so many bytes below the top of the stack; zero if that is not known.
    pub called: u32,
    /// Always zero.
    pub pad: u32,
    /// `m.p`: the processor that the thread holds; zero in system calls.
    pub processor: u32,
    /// `m.oldp`: the processor that the thread held before the system call.
    pub processor_before: u32,
    /// Routers of other packages, which the server calls.
    pub routers: [Router; ROUTERS],
}

/// The part of [`Routes`] that is needed where a server's connection is known and `net/http` itself matched the request.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Way {
    /// `conn.curReq`.
    pub current: u16,
    /// `response.req`.
    pub request: u16,
    /// `Request.Pattern`, or `Request.pat`.
    pub pattern: u16,
    /// [`way`].
    pub bits: u16,
}

/// Bits of [`Way::bits`].
pub mod way {
    /// The pattern is reached by a pointer.
    pub const POINTER: u16 = 1 << 0;
    /// The server's handler is a router that is known.
    pub const ROUTER: u16 = 1 << 1;
}

/// Routers that a program may have.
pub const ROUTERS: usize = 3;

/// A router that keeps what it knows of a request in a pool, where it stays when the request has been served: found there, and
/// recognised by a pointer that no other request has.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Router {
    /// Address of its `ServeHTTP`; zero where there is no router.
    pub serve: u64,
    /// Its pool, a struct or a pointer to one.
    pub pool: u32,
    /// The pointer that recognises the request is in a struct that this member points to; `offsets::MISSING` if it is in what the
    /// pool holds.
    pub through: u32,
    /// That pointer, the second word of an interface.
    pub mark: u32,
    /// The pattern: a string, or a list of them.
    pub pattern: u32,
    /// [`router`].
    pub bits: u32,
    /// Words of the stack that its `ServeHTTP` takes, at most [`MAX_FRAME`].
    pub frame: u32,
}

/// Words of a function's stack that are looked at.
pub const MAX_FRAME: u32 = 32;

/// Bits of [`Router::bits`].
pub mod router {
    /// The pool is a pointer.
    pub const POOL_POINTER: u32 = 1 << 0;
    /// The mark is the context of the request, and not its response.
    pub const BY_CONTEXT: u32 = 1 << 1;
    /// The pattern is a list.
    pub const LIST: u32 = 1 << 2;
}

/// What every version that was measured has at the same place; the agent checks it against its table.
pub mod fixed {
    /// `net.TCPConn.conn.fd`, `netFD.pfd`, `http2responseWriter.rws`, `http2responseWriterState.stream`, `net/http.conn.server`,
    /// `net/http.response.conn`, `net/http.pattern.str`, `sync.Pool.local`, `poolLocalInternal.private`, `poolChain.head`,
    /// `poolDequeue.headTail`, `runtime.p.id`: the first member.
    pub const FIRST: u64 = 0;
    /// `sync.poolLocalInternal.shared`.
    pub const SHARED: u64 = 16;
    /// Size of `sync.poolLocal`, which is made so that each has cache lines of its own.
    pub const POOL_LOCAL: u64 = 128;
    /// `sync.poolDequeue.vals`.
    pub const VALUES: u64 = 8;
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
const _: () = assert!(size_of::<Router>() == 32);
const _: () = assert!(size_of::<Routes>() == 56 + 32 * ROUTERS);
