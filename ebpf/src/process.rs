//! Processes are followed by events: a child of a traced process is traced from its first instruction.
//!
//! match-proto: sched_process_fork(struct task_struct *parent, struct task_struct *child)
//! match-proto: sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
//! match-proto: sched_process_exit(struct task_struct *p, ...)

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use spanwise_common::config::proc;
use spanwise_common::counters as count;
use spanwise_common::event::{Kind, Process};

use crate::emit::{counters, header, output_plain};
use crate::maps::PROCS;
use crate::offsets::*;
use crate::read::direct;

/// Puts a record about a process into the ring.
#[inline(always)]
pub fn say(kind: Kind, id: u64, other: u32) {
    let comm = bpf_get_current_comm().unwrap_or([0; 16]);
    output_plain(&Process { header: header(kind, size_of::<Process>(), id), other, pad: 0, comm });
}

#[btf_tracepoint(function = "sched_process_fork")]
pub fn proc_fork(ctx: BtfTracePointContext) -> i32 {
    let _ = forked(&ctx);
    0
}

#[inline(always)]
fn forked(ctx: &BtfTracePointContext) -> Option<()> {
    let id = bpf_get_current_pid_tgid();
    let parent = (id >> 32) as u32;
    // SAFETY: copied at once.
    let bits = *unsafe { PROCS.get(&parent) }?;
    if bits & proc::FOLLOW == 0 {
        return None;
    }
    let child: *const u8 = ctx.arg(1);
    // SAFETY: `child` is a trusted task pointer for the verifier.
    let child = unsafe { direct::<u32>(child, &OFF_TASK_TGID)? };
    if child == parent {
        return None; // a thread
    }
    let inherited = bits | proc::TRACE;
    if PROCS.insert(&child, &inherited, 0).is_err() {
        counters()?[count::PROC_FULL as usize] += 1;
        return None;
    }
    say(Kind::FORK, id, child);
    Some(())
}

#[btf_tracepoint(function = "sched_process_exec")]
pub fn proc_exec(_ctx: BtfTracePointContext) -> i32 {
    let id = bpf_get_current_pid_tgid();
    let tgid = (id >> 32) as u32;
    // SAFETY: copied at once.
    if let Some(bits) = unsafe { PROCS.get(&tgid) }.copied() {
        // What was known of the old program does not hold for the new one.
        let kept = bits & (proc::TRACE | proc::FOLLOW);
        if kept != bits {
            let _ = PROCS.insert(&tgid, &kept, 0);
        }
        say(Kind::EXEC, id, 0);
    }
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
pub fn proc_exit(ctx: BtfTracePointContext) -> i32 {
    let _ = exited(&ctx);
    0
}

#[inline(always)]
fn exited(ctx: &BtfTracePointContext) -> Option<()> {
    let id = bpf_get_current_pid_tgid();
    let tgid = (id >> 32) as u32;
    // SAFETY: only asked whether it is there.
    unsafe { PROCS.get(&tgid) }?;
    let task: *const u8 = ctx.arg(0);
    // SAFETY: `task` is a trusted task pointer for the verifier; a walk from it is fault-handled.
    unsafe {
        let signal = direct::<*const u8>(task, &OFF_TASK_SIGNAL)?;
        if direct::<i32>(signal, &OFF_SIGNAL_LIVE)? != 0 {
            return None; // other threads go on
        }
        let code = direct::<u32>(task, &OFF_TASK_EXIT_CODE).unwrap_or(0);
        let _ = PROCS.remove(&tgid);
        say(Kind::EXIT, id, code);
    }
    Some(())
}
