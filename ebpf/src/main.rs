//! The BPF programs: hooks on socket transfers, TCP states, processes and io_uring.
//!
//! Comes in: what the kernel's tracepoints give. Goes out: the records of `spanwise_common::event`. Nothing here
//! knows a protocol; what to ship of a connection is its budget, and user space sets that.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod complete;
mod conn;
mod emit;
mod fentry;
mod follow;
mod frames;
mod golang;
mod gonet;
mod kprobe;
mod mapped;
mod maps;
mod offsets;
mod process;
mod read;
mod sock;
mod syscall;
mod tcp;
mod tls;
mod uprobe;
mod uring;
mod user;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
