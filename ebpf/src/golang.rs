//! The goroutine that runs on the current thread. Comes in: the saved user registers. Goes out: its id, who started it and with
//! which function; zeros where that is not certain.
//!
//! Go keeps the running goroutine in R14. Code that is not Go may keep anything there, and the scheduler its own goroutine, so it
//! is believed only if the stack pointer lies on its stack, or on the scheduler's stack of the thread that runs it.

use aya_ebpf::helpers::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_user, bpf_task_pt_regs,
};
use spanwise_common::config::feature;
use spanwise_common::event::{Data, Task};
use spanwise_common::golang::{LAYOUT_SHIFT, Layout};
use spanwise_common::offsets::MISSING;

use crate::maps::{GO_LAYOUTS, SCRATCH, Scratch};
use crate::offsets::{OFF_REGS_R14, OFF_REGS_SP, OFF_REGS_SS, OFF_TASK_FSBASE, OFF_TASK_STACK, has};
use crate::read::{direct, masked, probed, user_bytes, word};
use crate::user::STACK_SIZE;

/// The same, into the record under construction.
#[inline(always)]
pub fn task_of_record(data: &mut Data, bits: u32) {
    data.task = Task::default();
    if bits >> LAYOUT_SHIFT != 0 {
        task_into_scratch(bits);
    }
}

/// A global function: the verifier looks at it once, and not for every way to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn task_into_scratch(bits: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU scratch.
    let scratch = unsafe { &mut *scratch };
    let Some(layout) = GO_LAYOUTS.get((bits >> LAYOUT_SHIFT).wrapping_sub(1)) else { return 0 };
    match at_once(&mut scratch.goroutine, layout) {
        Some(found) => scratch.data.task = found,
        None => {
            scratch.goroutine[HIGH] = 0;
            scratch.data.task = task(bits);
        }
    }
    1
}

/// Bytes of `g` that are read at once: in every version that was measured, all members of a layout are among them.
const AT_ONCE: u32 = 320;
/// Words at the beginning of `g`: the bounds of its stack.
const LOW: usize = 0;
const HIGH: usize = 1;

/// The running goroutine with one read: R14 holds it, and the stack pointer lies on its stack. Nearly always so.
#[inline(always)]
fn at_once(goroutine: &mut [u64; 64], layout: &Layout) -> Option<Task> {
    let (g, sp) = registers()?;
    if g == 0 || g & 7 != 0 {
        return None;
    }
    // SAFETY: fewer bytes than the array has.
    if !unsafe { user_bytes(goroutine.as_mut_ptr().cast(), AT_ONCE, g) } {
        return None;
    }
    if goroutine[LOW] >= sp || sp > goroutine[HIGH] {
        return None;
    }
    let id = member(goroutine, layout.goid)?;
    let parent = if layout.parent == MISSING { 0 } else { member(goroutine, layout.parent)? };
    (id != 0).then_some(Task { id, parent, start: member(goroutine, layout.start)? })
}

/// A member of what was read at once.
#[inline(always)]
fn member(goroutine: &[u64; 64], offset: u32) -> Option<u64> {
    if offset >= AT_ONCE {
        return None;
    }
    // SAFETY: the mask keeps it among the 64 words.
    Some(unsafe { *goroutine.as_ptr().add(masked(offset >> 3, 63) as usize) })
}

/// As [`top_of_stack`], for the goroutine that [`task_into_scratch`] found for the record under construction.
#[inline(always)]
pub fn top_of_found(scratch: &Scratch, bits: u32, start: u64) -> Option<(u64, u64)> {
    let layout = GO_LAYOUTS.get((bits >> LAYOUT_SHIFT).wrapping_sub(1))?;
    match (scratch.goroutine[HIGH], member(&scratch.goroutine, layout.m)) {
        (high @ 1.., Some(thread)) => (scratch.data.task.start == start).then_some((high, thread)),
        _ => top_of_stack(bits, start),
    }
}

/// What runs on the thread, by the bits of its process. Processes that are not Go pay one comparison.
#[inline(always)]
pub fn task(bits: u32) -> Task {
    let mut task = Task::default();
    let number = bits >> LAYOUT_SHIFT;
    if number != 0 {
        running(number - 1, &mut task);
    }
    task
}

/// Where the stack of the running goroutine ends, above all that is on it, and the thread that runs it; only if it began with
/// this function.
#[inline(always)]
pub fn top_of_stack(bits: u32, start: u64) -> Option<(u64, u64)> {
    let layout = GO_LAYOUTS.get((bits >> LAYOUT_SHIFT).wrapping_sub(1))?;
    let g = current(layout)?;
    if word(g + u64::from(layout.start))? != start {
        return None;
    }
    Some((word(g + 8)?, word(g + u64::from(layout.m))?))
}

#[inline(never)]
fn running(number: u32, out: &mut Task) -> i32 {
    running_here(number, out);
    0
}

#[inline(always)]
fn running_here(number: u32, out: &mut Task) {
    if let Some(layout) = GO_LAYOUTS.get(number)
        && let Some(g) = current(layout)
    {
        *out = of(layout, g);
    }
}

/// [`task`], without a function that has stack of its own.
#[inline(always)]
pub fn task_here(bits: u32) -> Task {
    let mut task = Task::default();
    let number = bits >> LAYOUT_SHIFT;
    if number != 0 {
        running_here(number - 1, &mut task);
    }
    task
}

/// A goroutine whose struct is at an address.
#[inline(always)]
pub fn task_at(g: u64, bits: u32) -> Option<Task> {
    let layout = GO_LAYOUTS.get((bits >> LAYOUT_SHIFT).checked_sub(1)?)?;
    Some(of(layout, g))
}

#[inline(always)]
fn of(layout: &Layout, g: u64) -> Task {
    let member = |offset: u32| word(g + u64::from(offset)).unwrap_or(0);
    let parent = if layout.parent == MISSING { 0 } else { member(layout.parent) };
    Task { id: member(layout.goid), parent, start: member(layout.start) }
}

/// Address of the running goroutine.
#[inline(always)]
fn current(layout: &Layout) -> Option<u64> {
    let (r14, sp) = registers()?;
    if let Some(g) = verified(layout, r14, sp) {
        return Some(g);
    }
    // SAFETY: a helper read of any address.
    let base = unsafe { probed::<u64>(bpf_get_current_task(), &OFF_TASK_FSBASE)? };
    verified(layout, word(base.wrapping_sub(8))?, sp)
}

/// R14 and the stack pointer of the user's side.
#[inline(always)]
fn registers() -> Option<(u64, u64)> {
    // SAFETY: as in `user::Call`: typed loads of members, or helper reads of any address.
    unsafe {
        if has(feature::TASK_REGS) {
            let regs = bpf_task_pt_regs(bpf_get_current_task_btf()) as *const u8;
            return Some((direct::<u64>(regs, &OFF_REGS_R14)?, direct::<u64>(regs, &OFF_REGS_SP)?));
        }
        let stack = probed::<u64>(bpf_get_current_task(), &OFF_TASK_STACK)?;
        let regs = stack + STACK_SIZE - 8 - u64::from(OFF_REGS_SS.load());
        Some((probed::<u64>(regs, &OFF_REGS_R14)?, probed::<u64>(regs, &OFF_REGS_SP)?))
    }
}

/// The goroutine that a thread runs whose stack pointer is `sp`, if `g` is that goroutine or the scheduler's of the thread.
#[inline(always)]
fn verified(layout: &Layout, g: u64, sp: u64) -> Option<u64> {
    if g == 0 || g & 7 != 0 {
        return None;
    }
    let inside = on_stack_of(g, sp);
    if inside && word(g + u64::from(layout.goid))? != 0 {
        return Some(g);
    }
    // The thread is on its scheduler's stack: in C code, or in a part of the runtime that needs the room.
    let thread = word(g + u64::from(layout.m))?;
    let scheduler = word(thread)?;
    let running = word(thread + u64::from(layout.curg))?;
    let fits = if g == scheduler { inside } else { g == running && on_stack_of(scheduler, sp) };
    if !fits || running == 0 || word(running + u64::from(layout.m))? != thread {
        return None;
    }
    Some(running)
}

#[inline(always)]
fn on_stack_of(g: u64, sp: u64) -> bool {
    // SAFETY: a helper read of any address.
    match unsafe { bpf_probe_read_user(g as *const [u64; 2]) } {
        Ok([low, high]) => low < sp && sp <= high,
        Err(_) => false,
    }
}
