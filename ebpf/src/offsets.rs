//! Load-time globals: offsets of kernel struct members (set by the agent from BTF) and settings.
//!
//! One frozen global each: the verifier knows its value, so a branch on `MISSING` costs nothing at run time.

use aya_ebpf::Global;
use spanwise_common::offsets::MISSING;

macro_rules! globals {
    ($($name:ident),* $(,)?) => {
        $(#[unsafe(no_mangle)] pub static $name: Global<u32> = Global::new(MISSING);)*
    };
}

globals!(
    OFF_SK_FAMILY,
    OFF_SK_STATE,
    OFF_SK_RCV_SADDR,
    OFF_SK_DADDR,
    OFF_SK_NUM,
    OFF_SK_DPORT,
    OFF_SK_V6_RCV_SADDR,
    OFF_SK_V6_DADDR,
    OFF_SK_COOKIE,
    OFF_SK_NET,
    OFF_NET_INUM,
    OFF_SK_TYPE,
    OFF_SK_PROTOCOL,
    OFF_SK_SHUTDOWN,
    OFF_SK_SOCKET,
    OFF_TP_WRITE_SEQ,
    OFF_TP_COPIED_SEQ,
    OFF_TP_SND_UNA,
    OFF_TP_RCV_NXT,
    OFF_TP_BYTES_ACKED,
    OFF_TP_BYTES_RECEIVED,
    OFF_UNIX_PEER,
    OFF_TASK_FILES,
    OFF_TASK_IO_URING,
    OFF_TASK_STACK,
    OFF_TASK_TGID,
    OFF_TASK_MM,
    OFF_MM_EXEC_VM,
    OFF_TASK_SIGNAL,
    OFF_TASK_EXIT_CODE,
    OFF_SIGNAL_LIVE,
    OFF_FILES_FDT,
    OFF_FDT_FD,
    OFF_FDT_MAX,
    OFF_FILE_PRIVATE,
    OFF_INODE_INO,
    OFF_SOCKET_INODE,
    OFF_SOCKET_SK,
    OFF_SOCKET_FILE,
    OFF_REGS_ORIG_AX,
    OFF_REGS_DI,
    OFF_REGS_SI,
    OFF_REGS_DX,
    OFF_REGS_R10,
    OFF_REGS_R14,
    OFF_REGS_SP,
    OFF_TASK_FSBASE,
    OFF_REGS_CS,
    OFF_REGS_SS,
    OFF_KIOCB_OPCODE,
    OFF_KIOCB_FILE,
    OFF_CQE_RES,
    OFF_IO_SR_BUF,
);

/// Bits of `spanwise_common::config::feature`.
#[unsafe(no_mangle)]
pub static FEATURES: Global<u32> = Global::new(0);

/// Whether the kernel side may use a feature. Frozen: the verifier never looks at the branch that is off, so that it may call
/// helpers that this kernel does not have.
#[inline(always)]
pub fn has(feature: u32) -> bool {
    FEATURES.load() & feature != 0
}
