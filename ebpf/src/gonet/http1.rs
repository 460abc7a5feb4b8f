//! Go's HTTP/1 client: who makes the next call on a connection.
//!
//! `net/http` gives the bytes of a request to a goroutine of the connection, so the transfer does not tell whose it is. The method
//! `roundTrip` of a connection is called by the goroutine that wants the answer; its hand-off stands in the ring before the
//! transfer that it leads to.

use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use spanwise_common::event::{Handoff, Kind, handoff};

use super::conn::below;
use crate::emit::{header, output_plain};
use crate::golang;
use crate::uprobe::hit;

/// The running goroutine is about to call. Places: the client's connection; the cookie's own bits are the offset of the `net.Conn`
/// in it.
#[uprobe]
pub fn go_http_call(ctx: ProbeContext) -> u32 {
    let _ = calls(&ctx);
    0
}

#[inline(always)]
fn calls(ctx: &ProbeContext) -> Option<()> {
    let hit = hit(ctx)?;
    let (id, bits) = (hit.id, hit.bits);
    let client = hit.value(0)?;
    let mut found = [0u64; 2];
    below(client + u64::from(hit.own()), &mut found);
    let [key, sock] = found;
    let task = golang::task(bits);
    if sock == 0 || task.id == 0 {
        return None;
    }
    // Of a connection that no hook has seen yet, only the sock is known: its `Open` record tells it too.
    output_plain(&Handoff {
        header: header(Kind::HANDOFF, size_of::<Handoff>(), id),
        cookie: key,
        object: sock,
        task,
        stream: 0,
        what: handoff::CALLS,
        pad: [0; 3],
    });
    Some(())
}
