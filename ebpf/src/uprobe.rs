//! Registers and values at a site, and a program that counts.
//!
//! Comes in: the registers at the site, and the cookie that says where the wanted values are. Goes out: process and thread of a
//! traced process, and those values. A probe sits in a file and is hit by every process that maps it: what is not traced
//! leaves after one look-up.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_get_attach_cookie, bpf_ktime_get_ns};
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use spanwise_common::place::{self, Place};

use crate::complete::traced;
use crate::maps::TRIAL;
use crate::read::user_bytes;

/// A probe of a traced process was hit. Its goroutine, in Go programs, is register 14.
pub struct Hit<'a> {
    /// Process and thread, as the kernel gives them: also the key of what belongs to the thread.
    pub id: u64,
    /// Bits of the process.
    pub bits: u32,
    /// What the instrument said of the site.
    pub cookie: u64,
    context: &'a ProbeContext,
}

/// The hit, if the process is traced.
#[inline(always)]
pub fn hit(context: &ProbeContext) -> Option<Hit<'_>> {
    let (id, bits) = traced()?;
    // SAFETY: the context is the program's own.
    let cookie = unsafe { bpf_get_attach_cookie(context.as_ptr()) };
    Some(Hit { id, bits, cookie, context })
}

/// Reads a saved register: a load from the context at a fixed place, which the compiler must not fold with others.
macro_rules! saved {
    ($context:expr, $offset:literal) => {{
        let value: u64;
        // SAFETY: a load from the program's context, whose layout is fixed; the verifier checks it.
        unsafe {
            core::arch::asm!(
                concat!("{value} = *(u64 *)({context} + ", $offset, ")"),
                context = in(reg) $context,
                value = out(reg) value,
                options(nostack, readonly),
            );
        }
        value
    }};
}

impl Hit<'_> {
    /// A register by its number in machine code.
    #[inline(always)]
    pub fn register(&self, number: u16) -> u64 {
        let context = self.context.as_ptr();
        match number {
            0 => saved!(context, 80),
            1 => saved!(context, 88),
            2 => saved!(context, 96),
            3 => saved!(context, 40),
            4 => saved!(context, 152),
            5 => saved!(context, 32),
            6 => saved!(context, 104),
            7 => saved!(context, 112),
            8 => saved!(context, 72),
            9 => saved!(context, 64),
            10 => saved!(context, 56),
            11 => saved!(context, 48),
            12 => saved!(context, 24),
            13 => saved!(context, 16),
            14 => saved!(context, 8),
            _ => saved!(context, 0),
        }
    }

    /// One of the values that the instrument wanted, by its index.
    #[inline(always)]
    pub fn value(&self, index: u32) -> Option<u64> {
        self.at(place::place(self.cookie, index))
    }

    /// What stands at a place.
    #[inline(always)]
    pub fn at(&self, Place(place): Place) -> Option<u64> {
        if place & Place::STACK == 0 {
            return (place != Place::NOWHERE.0).then(|| self.register(place));
        }
        let mut value = 0_u64;
        let at = self.register(4).wrapping_add(u64::from(place & !Place::STACK) * 8);
        // SAFETY: eight bytes of room.
        unsafe { user_bytes((&raw mut value).cast(), 8, at) }.then_some(value)
    }

    /// The instrument's own bits of the cookie.
    #[inline(always)]
    pub fn own(&self) -> u16 {
        place::own(self.cookie)
    }
}

/// For tests and measurements: counts hits by the instrument's own bits, and adds up the first value.
#[uprobe]
pub fn up_trial(context: ProbeContext) -> u32 {
    let _ = tried(&context);
    0
}

#[inline(always)]
fn tried(context: &ProbeContext) -> Option<()> {
    let hit = hit(context)?;
    let slot = TRIAL.get_ptr_mut(u32::from(hit.own()))?;
    let value = hit.value(0).unwrap_or(0);
    // SAFETY: an element of the map, and no arguments.
    unsafe {
        add(&raw mut (*slot).hits, 1);
        add(&raw mut (*slot).sum, value);
        (*slot).at_ns = bpf_ktime_get_ns();
    }
    Some(())
}

/// Adds to a number that several processors add to.
#[inline(always)]
unsafe fn add(to: *mut u64, value: u64) {
    // SAFETY: the caller's number; the verifier checks it.
    unsafe {
        core::arch::asm!("lock *(u64 *)({to} + 0) += {value}", to = in(reg) to, value = in(reg) value);
    }
}
