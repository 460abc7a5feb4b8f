//! Maps of the hooks on Go programs: key, value, who writes, who reads, bound.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LruHashMap};
use spanwise_common::event::Task;
use spanwise_common::golang::{Routes, Tls};
use spanwise_common::limits::{MAX_GO, MAX_GO_SLOTS, MAX_GO_STARTERS, MAX_GO_STREAMS};

/// Process id -> offsets in its `crypto/tls.Conn`. Written by the agent.
#[map]
pub static GO_TLS: HashMap<u32, Tls> = HashMap::with_max_entries(MAX_GO, 0);

/// Process id -> what leads to the pattern of a request in its servers. Written by the agent.
#[map]
pub static GO_ROUTES: HashMap<u32, Routes> = HashMap::with_max_entries(MAX_GO, 0);

/// Address of something that stands for a stream, in its process.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Stream {
    /// Address.
    pub pointer: u64,
    /// Process.
    pub tgid: u32,
    /// Zero.
    pub pad: u32,
}

/// Who made a stream, on which connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Caller {
    /// The connection.
    pub cookie: u64,
    /// The goroutine.
    pub task: Task,
}

/// Stream that was made and is not open yet -> who made it. Written and emptied by the hooks.
#[map]
pub static GO_STREAMS: LruHashMap<Stream, Caller> = LruHashMap::with_max_entries(MAX_GO_STREAMS, 0);

/// A goroutine of a process.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Teller {
    /// Its id.
    pub task: u64,
    /// Process.
    pub tgid: u64,
}

/// Goroutine that starts others and was told of. Written by the hook; bounded, least recently used go first and are told again.
#[map]
pub static GO_TOLD: LruHashMap<Teller, u64> = LruHashMap::with_max_entries(MAX_GO_STARTERS, 0);

/// Who put a value into the buffer of a channel.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Putter {
    /// The goroutine.
    pub task: Task,
    /// When.
    pub at_ns: u64,
}

/// Place in the buffer of a channel -> who put the value there that it holds. Written and emptied by the hooks; bounded, least
/// recently put go first, and then nobody knows whom the value came from.
#[map]
pub static GO_SLOTS: LruHashMap<Stream, Putter> = LruHashMap::with_max_entries(MAX_GO_SLOTS, 0);
