//! Go programs: plaintext of crypto/tls, and which goroutine works for which HTTP/2 stream.
//!
//! Comes in: uprobes at instructions that the agent chose, which are single-fire and cheap. Goes out: `Plain` and `Handoff`
//! records. The connection is read from the program's own structs, down to the file descriptor, and is exact or not given.

pub mod conn;
pub mod http1;
pub mod maps;
pub mod starts;
pub mod streams;
pub mod tls;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_get_attach_cookie;
use aya_ebpf::programs::ProbeContext;

use crate::complete::traced;

/// Process and thread, the bits of the process and the probe's cookie, if the process is traced.
#[inline(always)]
fn hooked(ctx: &ProbeContext) -> Option<(u64, u32, u64)> {
    let (id, bits) = traced()?;
    // SAFETY: the program's own context.
    Some((id, bits, unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }))
}
