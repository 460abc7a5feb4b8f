//! Sizes and bounds that both sides rely on.

/// Largest payload of one data record. A power of two, so that the verifier can follow a mask.
pub const MAX_PAYLOAD: usize = 8192;
/// Bytes of a burst shipped while nothing is known of the connection, in either direction.
pub const BUDGET_UNKNOWN: u32 = 4096;
/// Bytes of a burst shipped on an HTTP connection towards the server (request heads carry cookies and context).
pub const BUDGET_REQUEST: u32 = 4096;
/// Bytes of a burst shipped on an HTTP connection towards the client (status line and framing headers).
pub const BUDGET_RESPONSE: u32 = 1024;
/// Bytes of a burst shipped when a head has been longer than its budget on this connection.
pub const BUDGET_LONG_HEAD: u32 = 8192;
/// Bytes of each transfer shipped on a connection of frames (HTTP/2): heads may stand anywhere.
pub const BUDGET_FRAMES: u32 = 8192;
/// Bodies of frames up to this length are shipped with the frame (they may be several messages of a call).
pub const MAX_SMALL_BODY: u32 = 256;
/// Segments of a scatter/gather list that are looked at in one transfer.
pub const MAX_IOVEC: usize = 32;
/// Bytes of the end of a transfer that travel with every record: enough to see `0\r\n\r\n`.
pub const TAIL: usize = 8;
/// Capacity of the ring buffer in bytes (power of two, multiple of the page size).
pub const RING_BYTES: u32 = 8 * 1024 * 1024;
/// Connections whose state the kernel side keeps (least recently used go first).
pub const MAX_CONNS: u32 = 16 * 1024;
/// A process that maps memory is looked at again after this time, even if it has no more code than before.
pub const MAPPED_EVERY_NS: u64 = 50_000_000;
/// Sites that the program for tests can tell apart.
pub const MAX_TRIALS: u32 = 256;
/// Processes traced at once.
pub const MAX_PROCS: u32 = 16 * 1024;
/// Objects of TLS libraries whose state the kernel side keeps (least recently used go first).
pub const MAX_OBJECTS: u32 = 16 * 1024;
/// Random numbers of ClientHellos that are kept until an object is found that has them (least recently used go first).
pub const MAX_HELLOS: u32 = 16 * 1024;
/// Longest pattern of a route that is told, or longest part of one.
pub const MAX_ROUTE: usize = 128;
/// Parts of a pattern (routers within routers) that are told.
pub const MAX_ROUTE_PARTS: u8 = 4;
/// Go processes whose layouts of `crypto/tls`, and of servers, the kernel side keeps.
pub const MAX_GO: u32 = 2 * 1024;
/// Streams of Go clients between their making and their opening (least recently used go first).
pub const MAX_GO_STREAMS: u32 = 16 * 1024;
/// Threads whose call of a TLS library is kept (least recently used go first).
pub const MAX_CALLS: u32 = 16 * 1024;
/// Ciphers of rustls, two for each connection and more while it begins (least recently used go first).
pub const MAX_CIPHERS: u32 = 16 * 1024;
/// Threads whose encryption or decryption of a record is kept (least recently used go first).
pub const MAX_CRYPTING: u32 = 4 * 1024;
/// Records of rustls on their way between cipher and socket (least recently used go first).
pub const MAX_TAGS: u32 = 4 * 1024;
/// Goroutines that start others and were told of.
pub const MAX_GO_STARTERS: u32 = 4096;
/// Places in buffers of Go channels that hold a value whose sender is known (least recently used go first).
pub const MAX_GO_SLOTS: u32 = 16 * 1024;
