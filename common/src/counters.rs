//! Counters of the kernel side: one per-CPU array, indexed by these constants.
//!
//! `SEEN = SHIPPED + COUNTED_ONLY + IGNORED + RING_FULL + UNREADABLE...`: the agent prints the table and checks the sum.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident = $index:literal, $label:literal;)*) => {
        $($(#[doc = $doc])+ pub const $name: u32 = $index;)*
        /// Number of counters.
        pub const COUNT: u32 = [$($index),*].len() as u32;
        /// Label of each counter, in index order.
        pub const LABELS: [&str; COUNT as usize] = [$($label),*];
    };
}

counters! {
    /// Transfers of traced processes on stream sockets.
    SEEN = 0, "transfers seen";
    /// Data records put into the ring.
    SHIPPED = 1, "data records shipped";
    /// Transfers on connections that user space asked to ignore.
    IGNORED = 2, "transfers on ignored connections";
    /// Records (of any kind) for which the ring had no room.
    RING_FULL = 3, "records refused by a full ring";
    /// Data records among those.
    RING_FULL_DATA = 4, "data records refused by a full ring";
    /// Reads that move nothing of the stream: MSG_PEEK, MSG_OOB, MSG_ERRQUEUE.
    PEEKED = 5, "peeks";
    /// Transfers that failed or moved nothing (EAGAIN and the like).
    EMPTY = 6, "transfers that moved nothing";
    /// Connections that found no room in the connection map.
    CONN_FULL = 7, "connections refused by a full map";
    /// Data records whose payload could not be read (page not present).
    FAULT = 8, "payloads not readable";
    /// Bytes moved by traced processes on stream sockets.
    BYTES = 9, "bytes moved";
    /// Bytes shipped as payload.
    BYTES_SHIPPED = 10, "bytes shipped";
    /// Processes that found no room in the process map.
    PROC_FULL = 11, "processes refused by a full map";
    /// Records other than data put into the ring.
    SHIPPED_OTHER = 12, "other records shipped";
    /// Transfers on sockets that are neither TCP nor unix streams.
    OTHER_SOCKETS = 13, "transfers on other sockets";
    /// Transfers of io_uring that wait for their completion, which knows the buffer.
    URING_WAITED = 14, "io_uring transfers that waited";
    /// Those whose completion came, or that were told without.
    URING_TOLD = 15, "io_uring transfers told";
    /// Calls whose return the kernel's kretprobe missed (plane `kprobe`).
    RETURNS_MISSED = 16, "returns missed by kretprobes";
    /// Calls that found no room to wait for their return (plane `kprobe`).
    CALLS_FULL = 17, "calls refused by a full map";
    /// Transfers on connections whose plaintext comes from a library.
    ENCRYPTED = 18, "transfers on encrypted connections";
    /// Chunks of plaintext that passed hooked libraries in traced processes.
    PLAIN_SEEN = 19, "plaintext chunks seen";
    /// Records of them put into the ring.
    PLAIN_SHIPPED = 20, "plaintext chunks shipped";
    /// Chunks on connections that user space asked to ignore.
    PLAIN_IGNORED = 21, "plaintext chunks on ignored connections";
    /// Chunks for which the ring had no room.
    PLAIN_FULL = 22, "plaintext chunks refused by a full ring";
    /// Chunks of objects whose connection is not known.
    PLAIN_UNJOINED = 23, "plaintext chunks of unknown connections";
    /// Chunks of objects that found no room in their map.
    PLAIN_CROWDED = 24, "plaintext chunks of objects refused by a full map";
    /// Calls of a library inside another call of it (TLS in TLS): the outer one is not followed.
    PLAIN_NESTED = 25, "library calls inside library calls";
    /// Objects that went on with another connection.
    TLS_MOVED = 26, "library objects that changed their connection";
    /// Bytes of plaintext in the chunks seen.
    PLAIN_BYTES = 27, "plaintext bytes seen";
}
