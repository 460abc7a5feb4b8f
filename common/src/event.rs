//! Records of the ring buffer. Every record begins with a [`Header`]; its `kind` tells which struct it is.

use crate::limits::TAIL;

/// Value of [`Header::kind`]. An integer newtype: a kind from a newer kernel side must not be undefined behaviour.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind(pub u16);

impl Kind {
    /// A connection is seen for the first time: [`Open`].
    pub const OPEN: Self = Self(1);
    /// A transfer completed: [`Data`], followed by `captured` payload bytes.
    pub const DATA: Self = Self(2);
    /// A connection changed towards its end: [`Close`].
    pub const CLOSE: Self = Self(3);
    /// A traced process made a child: [`Process`], `other` is the child's process id.
    pub const FORK: Self = Self(4);
    /// A traced process replaced its program: [`Process`].
    pub const EXEC: Self = Self(5);
    /// The last thread of a traced process ended: [`Process`], `other` is the exit code.
    pub const EXIT: Self = Self(6);
    /// Plaintext passed a TLS library: [`Plain`], followed by `captured` payload bytes.
    pub const PLAIN: Self = Self(7);
    /// It became known which connection a library's object uses: [`Join`].
    pub const JOIN: Self = Self(8);
    /// A task hands work to a connection, or takes it from one: [`Handoff`].
    pub const HANDOFF: Self = Self(9);
    /// A traced process may have loaded more code: [`Process`].
    pub const MAPPED: Self = Self(10);
    /// The pattern that matched the request whose answer begins with the transfer that is told next: [`Route`], followed by
    /// `len` bytes of it.
    pub const ROUTE: Self = Self(11);
}

/// First bytes of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// What follows: one of [`Kind`].
    pub kind: u16,
    /// Bits whose meaning depends on the kind: [`flags`].
    pub flags: u16,
    /// Bytes of the whole record, header and payload included.
    pub size: u32,
    /// `CLOCK_BOOTTIME` in nanoseconds at the hook.
    pub at_ns: u64,
    /// Process (thread group) in the initial pid namespace.
    pub tgid: u32,
    /// Thread in the initial pid namespace.
    pub tid: u32,
}

/// Bits of [`Header::flags`] of a [`Data`] record.
pub mod flags {
    /// Not all bytes of the transfer are in the payload.
    pub const CUT: u16 = 1 << 0;
    /// The bytes have no user buffer (sendfile, splice) or the hook cannot reach it: counted only.
    pub const NO_BUFFER: u16 = 1 << 1;
    /// The user page was not present; nothing could be read.
    pub const FAULT: u16 = 1 << 2;
    /// The peer will send no more: a read returned zero.
    pub const EOF: u16 = 1 << 3;
    /// More segments than `MAX_IOVEC`: the rest was not looked at.
    pub const MORE_SEGMENTS: u16 = 1 << 4;
    /// First transfer of a burst: the direction changed on this connection.
    pub const BURST_START: u16 = 1 << 5;
    /// `seq` is a counter kept since the connection was first seen, not the kernel's sequence number.
    pub const COUNTED_SEQ: u16 = 1 << 6;
    /// Bytes left the socket before this transfer, and no hook saw them (splice).
    pub const UNSEEN: u16 = 1 << 7;
    /// The end of what was read is known (of [`Close`](super::Close)).
    pub const HAS_RECEIVED: u16 = 1 << 8;
    /// `cipher` is known (of [`Plain`](super::Plain)).
    pub const HAS_CIPHER: u16 = 1 << 9;
    /// The object was seen from its first byte: `seq` counts from there (of [`Plain`](super::Plain)).
    pub const FROM_START: u16 = 1 << 10;
    /// The payload is pieces of the transfer (see [`PIECE`](super::PIECE)).
    pub const PIECES: u16 = 1 << 11;
    /// In a `Join`: the connection has an object already, and this one is another name of it.
    pub const SAME: u16 = 1 << 12;
    /// The process gave up both directions, as `close` does: nothing that still comes is read (of [`Close`](super::Close)).
    pub const GIVEN_UP: u16 = 1 << 13;
    /// `tail` tells where the next frame begins (of [`Data`](super::Data)): how many bytes behind the first one, and a number of the walk over
    /// frames that says so, both in four bytes of the host's order. What one walk says is right for all of it, or wrong.
    pub const AHEAD: u16 = 1 << 14;
}

/// Bytes before each piece of a payload of pieces: its length, and how many bytes behind it were left out, both in four
/// bytes of the host's order.
pub const PIECE: u32 = 8;

/// Direction of a transfer, as the traced process sees it.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Direction(pub u8);

impl Direction {
    /// The process wrote.
    pub const SEND: Self = Self(0);
    /// The process read.
    pub const RECV: Self = Self(1);
}

/// A connection seen for the first time.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// What every record begins with.
    pub header: Header,
    /// Identity on this host, unique since boot.
    pub cookie: u64,
    /// What the connection is and between whom.
    pub info: crate::conn::Info,
}

/// What runs on a thread, where the runtime has something below threads (goroutines). All zero where there is none.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Task {
    /// Identity, unique in the process while the process lives.
    pub id: u64,
    /// The task that started it, zero where unknown.
    pub parent: u64,
    /// Address of the function it was started with, zero where unknown.
    pub start: u64,
}

/// A completed transfer; `captured` payload bytes follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// What every record begins with.
    pub header: Header,
    /// Identity of the connection on this host.
    pub cookie: u64,
    /// What runs on the thread.
    pub task: Task,
    /// Sequence number of the first byte of the transfer in its direction.
    pub seq: u32,
    /// Bytes the transfer moved.
    pub len: u32,
    /// Payload bytes in this record: the first ones of the transfer.
    pub captured: u32,
    /// [`Direction`].
    pub direction: u8,
    /// Capture plane: [`plane`].
    pub plane: u8,
    /// Bytes valid in `tail`.
    pub tail_len: u8,
    /// Bytes behind the payload: the pattern that matched the request whose answer begins with this transfer, zero if there is
    /// none or a [`Route`] tells it. At most [`MAX_ROUTE`](crate::limits::MAX_ROUTE).
    pub route: u8,
    /// Last bytes of the transfer, or what [`flags::AHEAD`] says.
    pub tail: [u8; TAIL],
}

/// Values of [`Data::plane`].
pub mod plane {
    /// Socket tracepoints with typed arguments.
    pub const SOCK: u8 = 1;
    /// System call exits.
    pub const SYSCALL: u8 = 2;
    /// io_uring completions.
    pub const URING: u8 = 3;
    /// Exits of socket functions, by trampoline.
    pub const FENTRY: u8 = 4;
    /// Exits of socket functions, by kretprobe.
    pub const KPROBE: u8 = 5;
}

/// A TCP connection left the state ESTABLISHED, or its socket went away.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Close {
    /// What every record begins with.
    pub header: Header,
    /// Identity of the connection on this host.
    pub cookie: u64,
    /// TCP state before.
    pub old_state: u32,
    /// TCP state after.
    pub new_state: u32,
    /// Sequence number behind the last byte that the process read; valid with `HAS_RECEIVED`.
    pub received: u32,
    /// Zero.
    pub pad: u32,
}

/// Plaintext that a TLS library gave to, or took from, the program; `captured` payload bytes follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// What every record begins with; its flags are those of [`Data`].
    pub header: Header,
    /// Identity of the library's connection object on this host while it lives; bit 63 is set, so it is never a cookie.
    pub object: u64,
    /// The connection below it, zero while that is not known.
    pub cookie: u64,
    /// What runs on the thread.
    pub task: Task,
    /// Position of the first byte in the object's plaintext of this direction, since the object was first seen.
    pub seq: u32,
    /// Bytes of plaintext.
    pub len: u32,
    /// Payload bytes in this record: the first ones.
    pub captured: u32,
    /// Sequence number of the connection behind the last encrypted byte that carried it; valid with `HAS_CIPHER`. The same at
    /// both ends, also on connections older than the agent.
    pub cipher: u32,
    /// [`Direction`].
    pub direction: u8,
    /// Library: [`library`].
    pub library: u8,
    /// Bytes valid in `tail`.
    pub tail_len: u8,
    /// Always zero.
    pub pad: [u8; 5],
    /// Last bytes of the plaintext.
    pub tail: [u8; TAIL],
}

/// Values of [`Plain::library`].
pub mod library {
    /// OpenSSL and its descendants (BoringSSL, aws-lc, LibreSSL).
    pub const OPENSSL: u8 = 1;
    /// GnuTLS.
    pub const GNUTLS: u8 = 2;
    /// rustls.
    pub const RUSTLS: u8 = 3;
    /// Go's crypto/tls.
    pub const GO: u8 = 4;
}

/// It became known which connection is below a library's object.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Join {
    /// What every record begins with.
    pub header: Header,
    /// The object, as in [`Plain`].
    pub object: u64,
    /// The connection.
    pub cookie: u64,
}

/// A task hands work to a connection that another task writes, or takes work from one that another task reads.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Handoff {
    /// What every record begins with.
    pub header: Header,
    /// The connection, zero where only `object` is known.
    pub cookie: u64,
    /// The runtime's object that stands for connection, stream or message; zero where there is none.
    pub object: u64,
    /// Who hands over or takes.
    pub task: Task,
    /// HTTP/2 stream, zero where there is none.
    pub stream: u32,
    /// One of [`handoff`].
    pub what: u8,
    /// Always zero.
    pub pad: [u8; 3],
}

/// Values of [`Handoff::what`].
pub mod handoff {
    /// The task is the caller of the next request on this connection (or of this stream).
    pub const CALLS: u8 = 1;
    /// The task serves the request of this stream.
    pub const SERVES: u8 = 2;
    /// The object given by the caller (`CALLS` with this object) is this stream of this connection.
    pub const NAMES: u8 = 3;
    /// The task is about to start another one.
    pub const STARTS: u8 = 4;
    /// The task (zero if it is not known) gave a value to the task whose id is the cookie, over a channel of the type `object`;
    /// `stream` tells how long ago, in units of [`AGE_NS`]. The thread is that of either.
    pub const GIVES: u8 = 5;
    /// Unit of the time that a value lay in a buffer.
    pub const AGE_NS: u64 = 256;
}

/// A pattern that a request was matched with, or a part of it; `len` bytes follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// What every record begins with.
    pub header: Header,
    /// The connection, or the library's object that the answer is given to.
    pub cookie: u64,
    /// Position of the answer's first byte, as [`Data`] or [`Plain`] have it.
    pub seq: u32,
    /// Bytes of the pattern, at most [`MAX_ROUTE`](crate::limits::MAX_ROUTE).
    pub len: u16,
    /// Number of the part, from zero: a pattern is all of its parts, one after the other.
    pub part: u8,
    /// How many parts there are.
    pub parts: u8,
}

/// Something happened to a process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// What every record begins with.
    pub header: Header,
    /// The child of a fork, the exit code of an exit, whether there surely is more code.
    pub other: u32,
    /// Always zero.
    pub pad: u32,
    /// The kernel's name of the thread, zero-terminated: what is left of a process that is gone when we look.
    pub comm: [u8; 16],
}

const _: () = assert!(size_of::<Header>() == 24);
const _: () = assert!(size_of::<Open>() == 32 + size_of::<crate::conn::Info>());
const _: () = assert!(size_of::<Data>() == 80);
const _: () = assert!(size_of::<Close>() == 48);
const _: () = assert!(size_of::<Plain>() == 96);
const _: () = assert!(size_of::<Join>() == 40);
const _: () = assert!(size_of::<Handoff>() == 72);
const _: () = assert!(size_of::<Route>() == 40);
const _: () = assert!(size_of::<Process>() == 48);
