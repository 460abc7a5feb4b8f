//! What this kernel has, looked at once: types, offsets, helpers. Comes in: the running kernel (and faults on purpose). Goes
//! out: answers for the planes, values for the globals of the programs, and a sentence for each lack.

use spanwise_common::config::feature;

use super::btf::{Btf, BtfError};
use super::fault::{Faults, Kind};
use super::offsets::{self, Offsets};
use super::probe;

/// A hook that every kernel with IPv4 has and whose first argument is a sock: helpers are tried on it.
const SOCK_HOOK: &str = "inet_sock_set_state";
/// Tracepoint of io_uring's completions.
pub const URING_HOOK: &str = "io_uring_complete";
/// Without this function trampolines are freed while tasks may be inside them, which crashes the kernel.
const SAFE_TRAMPOLINES: &str = "__bpf_tramp_image_put_rcu";

/// A helper function: its name, feature, and what it costs not to have it.
struct Helper {
    name: &'static str,
    bit: u32,
    works: fn(u32) -> bool,
    cost: &'static str,
}

const HELPERS: &[Helper] = &[
    Helper {
        name: "bpf_get_socket_cookie",
        bit: feature::COOKIE,
        works: probe::socket_cookie,
        cost: "sockets are known by inode, so the end of some connections is noticed late",
    },
    Helper {
        name: "bpf_skc_to_tcp_sock",
        bit: feature::TCP_CAST,
        works: probe::tcp_cast,
        cost: "members of TCP sockets are copied instead of loaded, which takes a little longer",
    },
    Helper {
        name: "bpf_task_pt_regs",
        bit: feature::TASK_REGS,
        works: probe::task_registers,
        cost: "arguments of system calls are copied from the stack, which takes a little longer",
    },
];

/// What a kernel has.
#[derive(Debug)]
pub struct Host {
    btf: Btf,
    faults: Faults,
    /// Places of kernel struct members.
    pub offsets: Offsets,
    /// Bits of [`feature`] that the programs may use.
    pub features: u32,
    /// One sentence for each helper that is not there.
    pub helpers: Vec<String>,
}

impl Host {
    /// Looks at the running kernel.
    pub fn look(faults: Faults) -> Result<Self, BtfError> {
        let btf = if faults.btf() { Err(BtfError::Missing) } else { Btf::from_kernel() }?;
        let mut offsets = offsets::resolve(&btf);
        for global in faults.of(Kind::Offset) {
            offsets.lose(global);
        }
        let (mut features, mut helpers) = (0, Vec::new());
        let hook = btf.type_id_of_tracepoint(SOCK_HOOK).unwrap_or(0);
        for helper in HELPERS {
            if !faults.has(Kind::Helper, helper.name) && (helper.works)(hook) {
                features |= helper.bit;
            } else {
                helpers.push(format!(
                    "this kernel has no helper {} for typed hooks: {}",
                    helper.name, helper.cost
                ));
            }
        }
        Ok(Self { btf, faults, offsets, features, helpers })
    }

    /// The kernel's types.
    pub fn btf(&self) -> &Btf {
        &self.btf
    }

    /// What shall fail on purpose.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Whether there is a typed tracepoint.
    pub fn has_tracepoint(&self, name: &str) -> bool {
        !self.faults.has(Kind::Hook, name) && self.btf.type_id_of_tracepoint(name).is_some()
    }

    /// Whether there is a function that can be hooked.
    pub fn has_function(&self, name: &str) -> bool {
        !self.faults.has(Kind::Hook, name) && self.btf.type_id_of_function(name).is_some()
    }

    /// Whether the kernel keeps a trampoline until nobody is in it any more.
    pub fn has_safe_trampolines(&self) -> bool {
        !self.faults.has(Kind::Hazard, "trampoline") && keeps_trampolines(&self.btf)
    }

    /// What the completion of io_uring hands over.
    pub fn uring(&self) -> Option<Uring> {
        if !self.has_tracepoint(URING_HOOK) {
            return None;
        }
        // The first one is the tracer's own.
        let params = self.btf.tracepoint_params(URING_HOOK)?;
        match params.get(2..).unwrap_or_default() {
            [request, entry, ..] if request == "void *" && entry == "io_uring_cqe *" => Some(Uring::Entry),
            [request, _, result, ..] if request == "void *" && result == "int" => Some(Uring::Result),
            _ => None,
        }
    }

    /// Whether a member is missing.
    pub fn lacks(&self, global: &str) -> bool {
        self.offsets.get(global).is_none()
    }
}

/// Whether a kernel with these types keeps a trampoline until nobody is in it any more.
pub(super) fn keeps_trampolines(btf: &Btf) -> bool {
    btf.type_id_of_function(SAFE_TRAMPOLINES).is_some()
}

/// Forms of the tracepoint `io_uring_complete`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Uring {
    /// Request and completion entry.
    Entry,
    /// Request, user data and result.
    Result,
}
