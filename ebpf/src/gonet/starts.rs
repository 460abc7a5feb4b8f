//! A goroutine starts another: told once of each that does, so that those it starts are known to descend from it, and from whom it
//! descends itself. Attached only where a starter was missed.

use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use spanwise_common::event::{Handoff, Kind, handoff};

use super::maps::{GO_TOLD, Teller};
use crate::emit::{header, output_plain};
use crate::golang;
use crate::uprobe::hit;

/// The running goroutine is about to start another.
#[uprobe]
pub fn go_starts(ctx: ProbeContext) -> u32 {
    let _ = starts(&ctx);
    0
}

#[inline(always)]
fn starts(ctx: &ProbeContext) -> Option<()> {
    let hit = hit(ctx)?;
    let (id, bits) = (hit.id, hit.bits);
    let task = golang::task(bits);
    if task.id == 0 {
        return None;
    }
    let teller = Teller { task: task.id, tgid: id >> 32 };
    // SAFETY: only asked whether it is there.
    if unsafe { GO_TOLD.get(&teller) }.is_some() {
        return None;
    }
    let _ = GO_TOLD.insert(&teller, &1, 0);
    output_plain(&Handoff {
        header: header(Kind::HANDOFF, size_of::<Handoff>(), id),
        cookie: 0,
        object: 0,
        task,
        stream: 0,
        what: handoff::STARTS,
        pad: [0; 3],
    });
    Some(())
}
