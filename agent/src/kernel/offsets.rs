//! The offsets that the BPF programs need, from the running kernel.
//!
//! Comes in: BTF. Goes out: a value for every global of [`spanwise_common::offsets::WANTED`], `MISSING` where
//! this kernel has no such member, so that the feature which needs it is off and can say why.

use spanwise_common::offsets::{MISSING, WANTED, Wanted};

use super::btf::{Btf, OffsetError};

/// What [`resolve`] found.
#[derive(Clone, Debug)]
pub struct Offsets {
    /// Every global with its value, in the order of `WANTED`; `MISSING` for those in `missing`.
    pub values: Vec<(&'static str, u32)>,
    /// Members that this kernel does not have (or has as a bit field, or at several places).
    pub missing: Vec<&'static Wanted>,
    /// A sentence for each of `missing`, in the same order.
    pub reasons: Vec<OffsetError>,
}

impl Offsets {
    /// Takes a member away, as if this kernel did not have it.
    pub fn lose(&mut self, global: &str) {
        let Some(wanted) = WANTED.iter().find(|wanted| wanted.global == global) else { return };
        if self.get(global).is_none() {
            return;
        }
        for (name, value) in &mut self.values {
            if *name == global {
                *value = MISSING;
            }
        }
        self.missing.push(wanted);
        self.reasons.push(OffsetError::NoMember(wanted.strukt.into(), wanted.member.into()));
    }

    /// One sentence for each member that this kernel does not have: why, and what is lost.
    pub fn losses(&self) -> impl Iterator<Item = String> + '_ {
        self.missing
            .iter()
            .zip(&self.reasons)
            .map(|(wanted, reason)| format!("{reason}: {}", cost_of_missing(wanted.global)))
    }

    /// Value of one global, if this kernel has the member.
    pub fn get(&self, global: &str) -> Option<u32> {
        self.values.iter().find(|(name, _)| *name == global).map(|(_, v)| *v).filter(|v| *v != MISSING)
    }
}

/// Looks every wanted member up.
pub fn resolve(btf: &Btf) -> Offsets {
    let mut offsets = Offsets { values: Vec::with_capacity(WANTED.len()), missing: vec![], reasons: vec![] };
    for wanted in WANTED {
        let value = btf.member(wanted.strukt, wanted.member).unwrap_or_else(|reason| {
            offsets.missing.push(wanted);
            offsets.reasons.push(reason);
            MISSING
        });
        offsets.values.push((wanted.global, value));
    }
    offsets
}

/// What is lost without a member: the sentence `doctor` and the loader give for it.
pub fn cost_of_missing(global: &str) -> &'static str {
    match global {
        "OFF_SK_RCV_SADDR" | "OFF_SK_DADDR" | "OFF_SK_NUM" | "OFF_SK_DPORT" => {
            "addresses and ports of connections are not known"
        }
        "OFF_SK_V6_RCV_SADDR" | "OFF_SK_V6_DADDR" => "IPv6 addresses are not known",
        "OFF_SK_NET" | "OFF_NET_INUM" => {
            "network namespaces cannot be told apart, so equal addresses of two containers may be confused"
        }
        "OFF_TP_SND_UNA" | "OFF_TP_BYTES_ACKED" | "OFF_TP_BYTES_RECEIVED" => {
            "connections have no name that both ends know, so client and server spans are not joined by it"
        }
        "OFF_SK_STATE" | "OFF_TP_RCV_NXT" | "OFF_TP_WRITE_SEQ" | "OFF_TP_COPIED_SEQ" => {
            "TCP connections are not captured, only unix sockets"
        }
        "OFF_SK_SHUTDOWN" => "a call that its client gives up lasts until the server's answer is refused",
        "OFF_UNIX_PEER" => "the two ends of a unix socket are not joined",
        "OFF_TASK_IO_URING" | "OFF_KIOCB_OPCODE" | "OFF_KIOCB_FILE" | "OFF_IO_SR_BUF" | "OFF_CQE_RES"
        | "OFF_SK_COOKIE" => "bytes moved by io_uring are not read",
        "OFF_TASK_FILES" | "OFF_FILES_FDT" | "OFF_FDT_FD" | "OFF_FDT_MAX" | "OFF_FILE_PRIVATE"
        | "OFF_SOCKET_FILE" => {
            "sockets are not found by their descriptors: plane syscall does not work, and programs that use io_uring are not captured"
        }
        "OFF_SOCKET_SK" => "only plane sock works, and bytes moved by io_uring are not read",
        "OFF_SK_SOCKET" | "OFF_INODE_INO" | "OFF_SOCKET_INODE" => {
            "sockets are not known by their inodes: planes kprobe and syscall do not work"
        }
        "OFF_TASK_STACK" | "OFF_REGS_SS" => {
            "nothing can be captured on kernels before Linux 5.15, where registers are read from the stack"
        }
        "OFF_TASK_MM" | "OFF_MM_EXEC_VM" => "libraries that a program loads late are found late",
        "OFF_TASK_TGID" => "children of traced processes are not traced",
        "OFF_TASK_SIGNAL" | "OFF_SIGNAL_LIVE" => "the end of a process is found by looking, a little later",
        "OFF_TASK_EXIT_CODE" => "exit codes of processes are not known",
        "OFF_REGS_R14" => {
            "goroutines are not known, so calls of Go programs find their parents by thread only"
        }
        "OFF_REGS_SP" => "plaintext of TLS libraries is not captured, and goroutines are not known",
        "OFF_TASK_FSBASE" => "goroutines in C code are not known",
        _ => NOTHING,
    }
}

const NOTHING: &str = "socket transfers cannot be captured";

/// Whether nothing can be captured without this member.
pub fn is_essential(global: &str) -> bool {
    cost_of_missing(global) == NOTHING
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::kernel::btf::VMLINUX;

    /// A blob with a string section of one byte and no types.
    fn empty() -> Btf {
        let mut data = vec![0; 25];
        data[..2].copy_from_slice(&0xeb9f_u16.to_ne_bytes());
        data[2] = 1;
        data[4..8].copy_from_slice(&24_u32.to_ne_bytes());
        data[20..24].copy_from_slice(&1_u32.to_ne_bytes());
        Btf::parse(data).unwrap()
    }

    #[test]
    fn a_kernel_without_the_types_gives_missing_for_each() {
        let offsets = resolve(&empty());
        assert_eq!(offsets.values.len(), WANTED.len());
        assert_eq!(offsets.missing.len(), WANTED.len());
        assert!(offsets.values.iter().all(|(_, value)| *value == MISSING));
        assert_eq!(offsets.get("OFF_TASK_FILES"), None);
        assert_eq!(offsets.reasons[0].to_string(), "this kernel has no struct sock_common");
    }

    #[test]
    fn running_kernel() {
        if !Path::new(VMLINUX).exists() {
            return;
        }
        let btf = Btf::from_kernel().unwrap();
        let offsets = resolve(&btf);
        // These are optional by the kernel's configuration or version; all others every kernel with BTF has.
        let optional =
            ["OFF_SK_NET", "OFF_TASK_IO_URING", "OFF_KIOCB_OPCODE", "OFF_KIOCB_FILE", "OFF_IO_SR_BUF"];
        let register = |global: &str| cfg!(not(target_arch = "x86_64")) && global.starts_with("OFF_REGS_");
        let lost: Vec<_> = offsets
            .missing
            .iter()
            .zip(&offsets.reasons)
            .filter(|(w, _)| !optional.contains(&w.global) && !register(w.global))
            .map(|(_, reason)| reason.to_string())
            .collect();
        assert!(lost.is_empty(), "{lost:#?}");
        assert_eq!(offsets.get("OFF_SK_DADDR"), Some(0));
        #[cfg(target_arch = "x86_64")]
        {
            // The layout of saved registers is fixed by the entry code.
            assert_eq!(offsets.get("OFF_REGS_R14"), Some(8));
            assert_eq!(offsets.get("OFF_REGS_DI"), Some(112));
            assert_eq!(offsets.get("OFF_REGS_ORIG_AX"), Some(120));
        }
    }
}
