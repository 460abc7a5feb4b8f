//! From a transfer to a record: bursts, budgets, counters, ring.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_ringbuf_output};
use spanwise_common::config::proc;
use spanwise_common::conn::{State, verdict};
use spanwise_common::counters as count;
use spanwise_common::event::{Data, Direction, Header, Kind, Open, Task, flags, plane};
use spanwise_common::limits::{BUDGET_FRAMES, MAX_PAYLOAD};

use crate::conn::{self, Seqs, Stream};
use crate::frames;
use crate::golang;
use crate::gonet::routes;
use crate::maps::{CONNS, COUNTERS, EVENTS, SCRATCH};
use crate::read::{masked, word};
use crate::tls;
use crate::uring;
use crate::user::{Call, capture_transfer, place_transfer};

/// Every counter of this CPU.
pub type Counters = [u64; count::COUNT as usize];

/// Counters of this CPU.
#[inline(always)]
pub fn counters() -> Option<&'static mut Counters> {
    // SAFETY: per-CPU; a preempting program on the same CPU costs a count at worst.
    COUNTERS.get_ptr_mut(0).map(|p| unsafe { &mut *p })
}

/// Puts `size` bytes at `record` into the ring.
#[inline(always)]
pub fn output(record: *const u8, size: u32) -> bool {
    // SAFETY: the caller owns `size` bytes at `record`; the verifier checks it.
    unsafe {
        bpf_ringbuf_output(
            core::ptr::addr_of!(EVENTS) as *mut core::ffi::c_void,
            record as *mut core::ffi::c_void,
            u64::from(size),
            u64::from(BPF_RB_NO_WAKEUP),
        ) == 0
    }
}

/// Puts a record other than data into the ring and counts it.
#[inline(always)]
pub fn output_plain<T>(record: &T) {
    let sent = output((record as *const T).cast(), size_of::<T>() as u32);
    if let Some(counters) = counters() {
        let counter = if sent { count::SHIPPED_OTHER } else { count::RING_FULL };
        counters[counter as usize] += 1;
    }
}

/// Puts a data record of `size` bytes into the ring and counts it.
///
/// # Safety
/// `size` bytes at `record` must be the caller's.
#[inline(always)]
unsafe fn output_data(record: *const u8, size: u32, counters: &mut Counters) -> bool {
    let sent = output(record, size);
    if sent {
        counters[count::SHIPPED as usize] += 1;
    } else {
        counters[count::RING_FULL as usize] += 1;
        counters[count::RING_FULL_DATA as usize] += 1;
    }
    sent
}

/// A record's header for now and here.
#[inline(always)]
pub fn header(kind: Kind, size: usize, id: u64) -> Header {
    Header {
        kind: kind.0,
        flags: 0,
        size: size as u32,
        // SAFETY: no arguments.
        at_ns: unsafe { bpf_ktime_get_boot_ns() },
        tgid: (id >> 32) as u32,
        tid: id as u32,
    }
}

/// A transfer that completed, as a plane saw it.
#[derive(Clone, Copy)]
pub struct Transfer {
    /// Connection key.
    pub key: u64,
    /// Kernel address of the sock.
    pub sock: u64,
    /// What kind of stream.
    pub stream: Stream,
    /// Sequence numbers after the transfer (TCP).
    pub seqs: Seqs,
    /// Bytes moved, more than zero, or zero for the end of the stream.
    pub moved: u32,
    /// Direction.
    pub direction: Direction,
    /// Process and thread.
    pub id: u64,
    /// Bits of the process.
    pub bits: u32,
    /// Capture plane.
    pub plane: u8,
}

/// Accounts for a transfer and ships what its connection's budget allows.
#[inline(always)]
pub fn transfer(t: &Transfer, call: Option<Call>) -> Option<()> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: per-CPU scratch.
    unsafe {
        (*scratch).transfer = *t;
        (*scratch).call = match call {
            Some(call) => call,
            None => Call::NOTHING,
        };
    }
    // One after the other and not each within the last: Linux before 6.13 has 512 bytes of stack for all calls under way.
    let ready = tell_transfer();
    if t.bits & proc::RUSTLS != 0 && t.moved != 0 {
        tls::wire::rustls_moved();
    }
    if ready & ANSWERS != 0 {
        routes::route_of_transfer();
    }
    if ready & READY != 0 {
        send_record();
    }
    Some(())
}

/// Bits of what [`tell_transfer`] returns: a record stands in the scratch; it may be the beginning of an answer that has a route.
const READY: u32 = 1;
const ANSWERS: u32 = 2;

/// Puts the record in the scratch into the ring. A global function, as the next.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn send_record() -> u32 {
    let (Some(scratch), Some(counters)) = (SCRATCH.get_ptr_mut(0), counters()) else { return 0 };
    // SAFETY: per-CPU scratch; the mask keeps the size within it.
    unsafe {
        let captured = (*scratch).data.captured;
        let size = masked((*scratch).data.header.size, 2 * MAX_PAYLOAD as u32 - 1);
        if output_data(scratch.cast(), size, counters) {
            counters[count::BYTES_SHIPPED as usize] += u64::from(captured);
        }
    }
    1
}

/// Accounts for the transfer in the scratch and puts its record together. A global function: the verifier looks at it once, and not for
/// every way to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_transfer() -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // In place: a copy would take too much of the stack. Nothing here writes to it.
    // SAFETY: per-CPU scratch.
    tell(unsafe { &(*scratch).transfer }).unwrap_or(0)
}

#[inline(always)]
fn tell(t: &Transfer) -> Option<u32> {
    let counters = counters()?;
    counters[count::SEEN as usize] += 1;
    counters[count::BYTES as usize] += u64::from(t.moved);
    let Some((state, fresh)) = conn::lookup(t.key, t.sock) else {
        counters[count::CONN_FULL as usize] += 1;
        return None;
    };
    if fresh {
        tell_open();
    }
    if t.bits & proc::TLS != 0 && t.moved != 0 {
        tls::records::inside_library();
    }
    let starts = state.last != t.direction.0;
    if starts {
        state.last = t.direction.0;
        state.bursts = state.bursts.wrapping_add(1);
        // A verdict is worth a look while there is none, after a burst that was cut, and now and then.
        if state.verdict == verdict::UNKNOWN
            || state.burst >= state.budget_recv.min(state.budget_send)
            || state.bursts % 64 == 0
        {
            conn::refresh_verdict(t.key, state);
        }
        state.burst = 0;
    }
    let before = state.received;
    if t.stream == Stream::Tcp
        && t.plane == plane::SOCK
        && t.direction == Direction::SEND
        && before != 0
        && t.seqs.copied != before
        && !conn::is_ignored(state)
        // While one thread sends another may be between a receive and its hook, and what it received is not unseen. So only the
        // thread that reads tells; for others the next receive does. On HTTP/2 threads change too often to tell them apart.
        && state.reader == t.id as u32
        && state.verdict != verdict::HTTP2
        && read_unseen(t.key, t.id, before, t.seqs.copied) != 0
    {
        state.received = t.seqs.copied;
    }
    let seq = sequence(t, state);
    if conn::is_ignored(state) {
        counters[count::IGNORED as usize] += 1;
        return None;
    }
    if state.verdict == verdict::ENCRYPTED {
        counters[count::ENCRYPTED as usize] += 1;
        return None;
    }
    // Of the first burst of the client, which may be the second of all.
    if state.verdict == verdict::UNKNOWN && starts && state.bursts <= 2 {
        recognise_preface();
    }
    // A receive that does not begin where the last one ended: what came between left the socket elsewhere.
    let unseen = t.direction == Direction::RECV && before != 0 && t.moved != 0 && seq != before;
    if state.verdict == verdict::HTTP2 && t.moved != 0 {
        let bits = u32::from(starts) | u32::from(unseen) << 1;
        frames::ship_transfer(seq, bits);
        return None;
    }
    prepare(t, state, seq, starts, unseen, counters)
}

/// Sequence number of the transfer's first byte.
#[inline(always)]
fn sequence(t: &Transfer, state: &mut State) -> u32 {
    let send = t.direction == Direction::SEND;
    match t.stream {
        Stream::Tcp if send => t.seqs.write.wrapping_sub(t.moved),
        Stream::Tcp => {
            // For `splice`, which tells where it came to but not how far it went.
            state.received = t.seqs.copied;
            state.reader = t.id as u32;
            t.seqs.copied.wrapping_sub(t.moved)
        }
        Stream::Unix => {
            let counter = if send { &mut state.sent } else { &mut state.received };
            let first = *counter;
            *counter = first.wrapping_add(t.moved);
            first
        }
    }
}

/// Puts the record together.
#[inline(always)]
fn prepare(
    t: &Transfer,
    state: &mut State,
    seq: u32,
    starts: bool,
    unseen: bool,
    counters: &mut Counters,
) -> Option<u32> {
    // SAFETY: per-CPU scratch.
    let scratch = unsafe { &mut *SCRATCH.get_ptr_mut(0)? };
    let budget = if t.direction == Direction::SEND { state.budget_send } else { state.budget_recv };
    let mut want = budget.saturating_sub(state.burst);
    if want > t.moved {
        want = t.moved;
    }
    if want >= MAX_PAYLOAD as u32 {
        want = MAX_PAYLOAD as u32 - 1;
    }
    let mut bits = 0;
    let mut captured = 0;
    scratch.data.tail_len = 0;
    if t.moved == 0 {
        bits |= flags::EOF;
    } else {
        place_transfer();
        captured = masked(capture_transfer(want), MAX_PAYLOAD as u32 - 1);
        bits |= scratch.walk.found as u16;
    }
    if t.bits & proc::TLS != 0 && captured != 0 && scratch.payload[0] == tls::hello::HANDSHAKE {
        tls::hello::note_hello(captured, seq);
    }
    if captured < t.moved {
        bits |= flags::CUT;
    }
    if bits & flags::FAULT != 0 {
        counters[count::FAULT as usize] += 1;
    }
    if starts {
        bits |= flags::BURST_START;
    }
    if t.stream == Stream::Unix {
        bits |= flags::COUNTED_SEQ;
    } else if unseen {
        bits |= flags::UNSEEN;
    }
    let size = size_of::<Data>() as u32 + captured;
    let data = &mut scratch.data;
    data.header = header(Kind::DATA, 0, t.id);
    data.header.flags = bits;
    data.header.size = size;
    data.cookie = t.key;
    golang::task_of_record(data, t.bits);
    data.seq = seq;
    data.len = t.moved;
    data.captured = captured;
    data.direction = t.direction.0;
    data.plane = t.plane;
    data.route = 0;
    state.burst = state.burst.saturating_add(t.moved);
    if t.bits & proc::ROUTES != 0 && t.direction == Direction::SEND && t.moved != 0 {
        scratch.serving = state.serving;
        return Some(READY | ANSWERS);
    }
    Some(READY)
}

/// A connection that begins with the preface of HTTP/2 ships frames from there on: user space would say so too late, and what
/// its heads refer to would be lost. A global function: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn recognise_preface() -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU scratch.
    let (t, call) = unsafe { (&(*scratch).transfer, &(*scratch).call) };
    let Some(state) = CONNS.get_ptr_mut(&t.key) else { return 0 };
    if let Some((address, len)) = tls::records::first_bytes(call, t.moved)
        && len >= 8
        && word(address) == Some(u64::from_ne_bytes(*b"PRI * HT"))
    {
        // SAFETY: map values stay valid while the program runs.
        let state = unsafe { &mut *state };
        state.verdict = verdict::HTTP2;
        state.budget_send = BUDGET_FRAMES;
        state.budget_recv = BUDGET_FRAMES;
    }
    1
}

/// Bytes were read from the socket where no hook looks: told before what is written next.
#[inline(never)]
fn read_unseen(key: u64, id: u64, before: u32, copied: u32) -> i32 {
    let len = copied.wrapping_sub(before);
    // What io_uring read is told when it completes.
    if len > 1 << 30 || uring::is_waiting(key, Direction::RECV) {
        return 0;
    }
    let mut data = Data {
        header: header(Kind::DATA, size_of::<Data>(), id),
        cookie: key,
        task: Task::default(),
        seq: before,
        len,
        captured: 0,
        direction: Direction::RECV.0,
        plane: plane::SOCK,
        tail_len: 0,
        route: 0,
        tail: [0; 8],
    };
    data.header.flags = flags::NO_BUFFER | flags::CUT | flags::UNSEEN;
    let Some(counters) = counters() else { return 0 };
    counters[count::SEEN as usize] += 1;
    counters[count::BYTES as usize] += u64::from(len);
    // SAFETY: all of the record.
    unsafe { output_data((&raw const data).cast(), size_of::<Data>() as u32, counters) };
    1
}

/// Tells of the connection of the transfer in the scratch. A global function: its record would take too much of the caller's stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_open() -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU scratch.
    let (key, id) = unsafe { ((*scratch).transfer.key, (*scratch).transfer.id) };
    let Some(state) = CONNS.get_ptr_mut(&key) else { return 0 };
    // SAFETY: map values stay valid while the program runs.
    let info = unsafe { (*state).info };
    output_plain(&Open { header: header(Kind::OPEN, size_of::<Open>(), id), cookie: key, info });
    1
}
