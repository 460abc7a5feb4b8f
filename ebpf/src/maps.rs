//! Every map: key, value, who writes, who reads, bound.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use spanwise_common::conn::{Serving, State, Verdict};
use spanwise_common::counters::COUNT;
use spanwise_common::event::Data;
use spanwise_common::golang::{Layout, MAX_LAYOUTS};
use spanwise_common::limits::{MAX_CONNS, MAX_PAYLOAD, MAX_PROCS, MAX_TRIALS, RING_BYTES};

use crate::emit::Transfer;
use crate::user::{Call, Place};

/// Records for user space. Written by every program, read by the agent, which polls: no wake-ups.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Process id -> bits of `config::proc`. Written by the agent and by `proc_fork`; the first thing every hook asks.
#[map]
pub static PROCS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_PROCS, 0);

/// Connection -> state. Written here only. Least recently used go first, so old unix connections, whose close no
/// hook tells, cannot fill it.
#[map]
pub static CONNS: LruHashMap<u64, State> = LruHashMap::with_max_entries(MAX_CONNS, 0);

/// Connection -> what user space decided. Written by the agent, asked at the start of a burst.
#[map]
pub static VERDICTS: LruHashMap<u64, Verdict> = LruHashMap::with_max_entries(MAX_CONNS, 0);

/// Number -> where a version of Go keeps its goroutines. Written by the agent; a process's bits name its entry.
#[map]
pub static GO_LAYOUTS: Array<Layout> = Array::with_max_entries(MAX_LAYOUTS, 0);

/// One slot: every counter of this CPU, summed by the agent.
#[map]
pub static COUNTERS: PerCpuArray<[u64; COUNT as usize]> = PerCpuArray::with_max_entries(1, 0);

/// A record under construction. Twice the payload, so that a masked offset plus a masked length stay inside.
#[repr(C)]
pub struct Scratch {
    /// Header of the record.
    pub data: Data,
    /// Its payload.
    pub payload: [u8; MAX_PAYLOAD * 2],
    /// Scatter/gather list of the system call: base and length of each segment.
    pub iov: [[u64; 2]; 64],
    /// Last bytes of the transfer, with room for a masked offset.
    pub tail: [u8; 24],
    /// State of the walk over the segments. In memory and not in registers, so that every turn of the loop looks
    /// the same to the verifier and it need not try all their combinations.
    pub walk: Walk,
    /// State of the walk over frames, in memory for the same reason.
    pub stride: Stride,
    /// State of a connection that is seen for the first time.
    pub fresh: State,
    /// The transfer that is told.
    pub transfer: Transfer,
    /// The system call that it happened in.
    pub call: Call,
    /// Where its bytes are.
    pub place: Place,
    /// State of the walk over the records of rustls in it.
    pub passing: Passing,
    /// First words of the running goroutine, with room for a masked number of a word.
    pub goroutine: [u64; 64],
    /// What is known of the goroutine that serves the transfer's connection.
    pub serving: Serving,
}

/// A walk over the TLS records of a transfer.
#[repr(C)]
pub struct Passing {
    /// Address of the next byte.
    pub address: u64,
    /// Address of the scatter/gather list, zero if there is none.
    pub list: u64,
    /// Position of the transfer's first byte.
    pub first: u32,
    /// Bytes left of the piece.
    pub together: u32,
    /// Bytes of the transfer that are done.
    pub done: u32,
    /// The next piece.
    pub piece: u32,
}

/// A walk over the frames of a transfer.
#[repr(C)]
pub struct Stride {
    /// Address of the scatter/gather list.
    pub list: u64,
    /// Address of the next byte.
    pub base: u64,
    /// Frame header, as far as it was seen.
    pub head: [u8; 32],
    /// Segments of the list, all ones for a single buffer, zero for nothing.
    pub count: u32,
    /// The next segment.
    pub index: u32,
    /// Bytes left of the segment.
    pub avail: u32,
    /// Position in the transfer.
    pub at: u32,
    /// Bytes the transfer moved.
    pub moved: u32,
    /// Bytes of the frame to copy.
    pub keep: u32,
    /// Bytes of the frame to leave out behind them.
    pub skip: u32,
    /// Bytes of the frame header that were seen.
    pub have: u32,
    /// Where the current piece begins in the payload.
    pub mark: u32,
    /// Where the payload ends.
    pub out: u32,
    /// Bytes left out behind the current piece.
    pub skipped: u32,
    /// Flags found.
    pub found: u32,
    /// Why the direction's place within frames is not known behind this, bits.
    pub lost: u32,
    /// Zero if the transfer follows what was walked over last.
    pub follows: u32,
    /// Bits of the process.
    pub process: u32,
    /// Where the current record begins in the transfer.
    pub start: u32,
    /// Bytes of the current frame that are left; number of the walk that knows, zero if none does.
    pub left: u32,
    pub walk: u32,
    /// Bytes of a frame header that were seen, and these.
    pub part: u32,
    pub first: [u8; 4],
    /// The current frame is of a body.
    pub body: u32,
}

/// A walk over the segments of a scatter/gather list.
#[repr(C)]
pub struct Walk {
    /// Bytes copied so far.
    pub captured: u32,
    /// Position in the transfer.
    pub at: u32,
    /// Flags found.
    pub found: u32,
    /// Bytes the transfer moved.
    pub moved: u32,
    /// Bytes wanted.
    pub want: u32,
    /// Where the tail begins.
    pub tail_from: u32,
}

/// One record under construction for each CPU.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Position in the message vector of a sendmmsg or recvmmsg under way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Vector {
    /// User address of the vector.
    pub base: u64,
    /// Messages of it that are done.
    pub index: u32,
    /// Always zero.
    pub pad: u32,
}

/// Thread -> its message vector. Written by the hooks; bounded, least recently used go first.
#[map]
pub static VECTORS: LruHashMap<u64, Vector> = LruHashMap::with_max_entries(1024, 0);

/// A call of a socket function under way, on plane `kprobe`: at its return the arguments are gone.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Entered {
    /// Kernel address of the socket.
    pub socket: u64,
    /// Flags of the receive.
    pub asked: u32,
    /// Always zero.
    pub pad: u32,
}

/// Thread -> its call of a socket function. Written and emptied by the hooks of plane `kprobe`; bounded by the threads that
/// wait on sockets, least recently used go first. Loaded with one entry for every other plane.
#[map]
pub static ENTERED: LruHashMap<u64, Entered> = LruHashMap::with_max_entries(16 * 1024, 0);

/// A transfer of io_uring whose buffer is not known before its completion.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Pending {
    /// Connection key.
    pub key: u64,
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Bytes moved.
    pub len: u32,
    /// When.
    pub at_ns: u64,
}

/// Connection and direction (bit 0) -> transfer that waits for its completion.
#[map]
pub static URING: LruHashMap<u64, Pending> = LruHashMap::with_max_entries(4096, 0);

/// How much code a process has.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Code {
    /// Pages that can be executed, when last told.
    pub pages: u64,
    /// When it was last told.
    pub at_ns: u64,
}

/// Process -> its code. Written here; bounded by the processes that are traced, least recently used go first.
#[map]
pub static CODE: LruHashMap<u32, Code> = LruHashMap::with_max_entries(4096, 0);

/// Hits of a site under test.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Trial {
    /// How often it was hit.
    pub hits: u64,
    /// Sum of the first value.
    pub sum: u64,
    /// When it was last hit.
    pub at_ns: u64,
}

/// Site under test -> hits. Empty unless a test asks for it.
#[map]
pub static TRIAL: Array<Trial> = Array::with_max_entries(MAX_TRIALS, 0);
