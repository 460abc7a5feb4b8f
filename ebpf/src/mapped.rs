//! A traced process may have loaded code: a library, later than at its start.
//!
//! match-proto: vm_unmapped_area(unsigned long addr, struct vm_unmapped_area_info *info)
//!
//! Comes in: a process looks for room in its memory. Goes out: a record, if its amount of code has changed since the last one, or
//! if the last one is a while ago (what is being mapped is not counted yet). The agent then reads what is mapped.

use aya_ebpf::helpers::bpf_get_current_task;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use spanwise_common::event::Kind;
use spanwise_common::limits::MAPPED_EVERY_NS;

use crate::complete::traced;
use crate::maps::{CODE, Code};
use crate::offsets::{OFF_MM_EXEC_VM, OFF_TASK_MM};
use crate::process::say;
use crate::read::probed;

#[btf_tracepoint(function = "vm_unmapped_area")]
pub fn code_mapped(_ctx: BtfTracePointContext) -> i32 {
    if let Some((id, _)) = traced() {
        let _ = look(id);
    }
    0
}

/// Tells of the process's code if it may be more than it was.
#[inline(always)]
pub fn look(id: u64) -> Option<()> {
    let tgid = (id >> 32) as u32;
    // SAFETY: helper reads of any address, and no arguments.
    let (pages, now) = unsafe {
        let mm = probed::<u64>(bpf_get_current_task(), &OFF_TASK_MM)?;
        (probed::<u64>(mm, &OFF_MM_EXEC_VM)?, bpf_ktime_get_boot_ns())
    };
    // SAFETY: copied at once.
    let known = unsafe { CODE.get(&tgid) }.copied();
    let more = known.is_none_or(|known| known.pages != pages);
    if !more && known.is_some_and(|known| now.wrapping_sub(known.at_ns) < MAPPED_EVERY_NS) {
        return None;
    }
    let _ = CODE.insert(&tgid, &Code { pages, at_ns: now }, 0);
    say(Kind::MAPPED, id, u32::from(more));
    Some(())
}
