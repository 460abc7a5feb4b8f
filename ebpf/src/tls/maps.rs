//! Maps of the TLS hooks: key, value, who writes, who reads, bound.

use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use spanwise_common::limits::{
    MAX_CALLS, MAX_CIPHERS, MAX_CONNS, MAX_CRYPTING, MAX_HELLOS, MAX_OBJECTS, MAX_TAGS,
};

/// A call of a library function under way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LibraryCall {
    /// Address of the object.
    pub object: u64,
    /// Address of the plaintext.
    pub buffer: u64,
    /// Where the library puts the count.
    pub count: u64,
    /// Stack pointer of the call: what it does itself is below.
    pub sp: u64,
    /// When it began.
    pub at_ns: u64,
    /// Bits of `tls::call`.
    pub own: u16,
    /// One while the call is under way.
    pub live: u16,
    /// Zero.
    pub pad: u32,
}

/// Thread -> its call of a TLS library, or its last one. Written by the uprobes, asked by the socket hooks of processes with the
/// bit `TLS`.
#[map]
pub static CALLS: LruHashMap<u64, LibraryCall> = LruHashMap::with_max_entries(MAX_CALLS, 0);

/// Address of an object in its process.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Address {
    /// Address.
    pub pointer: u64,
    /// Process.
    pub tgid: u32,
    /// Zero; one if the "pointer" is a connection's key.
    pub pad: u32,
}

/// What is known of an object.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Object {
    /// Its identity in records; another one after it went on with another connection.
    pub id: u64,
    /// The connection below it, zero while that is not known.
    pub cookie: u64,
    /// First bytes of the random number that joined it, zero if a transfer did.
    pub random: u64,
    /// Plaintext bytes that went in.
    pub sent: u32,
    /// Plaintext bytes that came out.
    pub received: u32,
    /// Bytes of the current burst.
    pub burst: u32,
    /// Bytes a burst may ship when the process writes.
    pub budget_send: u32,
    /// The same when it reads.
    pub budget_recv: u32,
    /// Bits of `object::bit`.
    pub bits: u32,
    /// Sequence number behind the last record that began to come in: the next one begins there.
    pub next: u32,
    /// Sequence number behind the first record that the current write sent.
    pub sent_end: u32,
    /// Records that began to come in since plaintext last came out.
    pub records: u32,
    /// Direction of the last chunk, 255 before the first.
    pub last: u8,
    /// What user space decided: one of `conn::verdict`.
    pub verdict: u8,
    /// Bursts so far, wrapping.
    pub bursts: u16,
}

/// Object -> what is known of it. Written here only.
#[map]
pub static OBJECTS: LruHashMap<Address, Object> = LruHashMap::with_max_entries(MAX_OBJECTS, 0);

/// A ClientHello, by half of its random number, in one process and direction.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Hello {
    /// Sixteen of its 32 random bytes.
    pub random: [u64; 2],
    /// Process.
    pub tgid: u32,
    /// `Direction` of the transfer.
    pub direction: u32,
}

/// Where a ClientHello was seen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Seen {
    /// Connection, zero if it was seen on several.
    pub cookie: u64,
    /// One if it was the first of its direction.
    pub from_start: u64,
}

/// ClientHello -> connection. Written by the socket hooks of processes with the bit `TLS`.
#[map]
pub static HELLOS: LruHashMap<Hello, Seen> = LruHashMap::with_max_entries(MAX_HELLOS, 0);

/// A record that a thread encrypts or decrypts.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Crypting {
    /// Address of the cipher.
    pub cipher: u64,
    /// Number of the record under this cipher.
    pub number: u64,
    /// When it began.
    pub at_ns: u64,
    /// Address of the encrypted bytes, when decrypting.
    pub at: u64,
    /// How many they are.
    pub len: u64,
    /// The last eight of them.
    pub tag: u64,
    /// First words of the message; when decrypting, the first is the type in the record's header, zero if there is none.
    pub message: [u64; 5],
}

/// Thread -> the record that it encrypts or decrypts with rustls, or tried to. Written and read by the uprobes.
#[map]
pub static CRYPTING: LruHashMap<u64, Crypting> = LruHashMap::with_max_entries(MAX_CRYPTING, 0);

/// What is known of one direction of a connection of rustls, under one key.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Cipher {
    /// The connection, zero while that is not known.
    pub cookie: u64,
    /// Number that the next record has.
    pub next: u64,
    /// Sequence number of the connection behind the last record; valid if `has_end`.
    pub end: u32,
    /// Bytes of all records that were made, wrapping.
    pub total: u32,
    /// Not zero if `end` is known.
    pub has_end: u32,
    /// Zero.
    pub pad: u32,
}

/// Cipher -> what is known of it. Written by the uprobes, and by the socket hooks of processes with the bit `RUSTLS`.
#[map]
pub static CIPHERS: LruHashMap<Address, Cipher> = LruHashMap::with_max_entries(MAX_CIPHERS, 0);

/// The last bytes of a record, in one process and direction.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tag {
    /// Half of the authentication tag.
    pub tag: u64,
    /// Process.
    pub tgid: u32,
    /// `Direction` of the record.
    pub direction: u32,
}

/// Where a record comes from.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tagged {
    /// Of one that is sent, the address of its cipher; of one that was received, the connection.
    pub what: u64,
    /// Of one that was received: sequence number behind it.
    pub end: u32,
    /// Of one that is sent: bytes that its cipher had made with it. Of one that was received: not zero if `end` is known.
    pub total: u32,
}

/// Record -> where it comes from: those that a cipher made and no socket has sent yet, and those that a socket received and no cipher
/// has opened yet. Written and read by the uprobes and by the socket hooks of processes with the bit `RUSTLS`.
#[map]
pub static TAGS: LruHashMap<Tag, Tagged> = LruHashMap::with_max_entries(MAX_TAGS, 0);

/// Connection -> sequence number of the beginning of the next record that will be received. Written and read by the socket hooks
/// of processes with the bit `RUSTLS`.
#[map]
pub static BOUNDARIES: LruHashMap<u64, u32> = LruHashMap::with_max_entries(MAX_CONNS, 0);
