//! Names of maps and programs: the kernel cuts them to 15 bytes, so they must differ in those.

/// Ring buffer of records.
pub const EVENTS: &str = "EVENTS";
/// Process id to bits of `config::proc`.
pub const PROCS: &str = "PROCS";
/// Connection cookie to `conn::State`.
pub const CONNS: &str = "CONNS";
/// Connection cookie to `conn::Verdict`.
pub const VERDICTS: &str = "VERDICTS";
/// Per-CPU counters.
pub const COUNTERS: &str = "COUNTERS";

/// Programs, as functions of the BPF object.
pub mod program {
    /// Plane `sock`: a send completed.
    pub const SOCK_SEND: &str = "sock_send";
    /// Plane `sock`: a receive completed.
    pub const SOCK_RECV: &str = "sock_recv";
    /// A TCP socket changed its state.
    pub const TCP_STATE: &str = "tcp_state";
    /// Plane `sock`: bytes left a TCP socket by `splice`.
    pub const TCP_SPLICE: &str = "tcp_splice";
    /// Plane `syscall`: a system call of the read/write/send/recv families returned.
    pub const SYS_EXIT: &str = "sys_exit_io";
    /// An io_uring request completed.
    pub const URING_COMPLETE: &str = "uring_complete";
    /// A process or thread was made.
    pub const PROC_FORK: &str = "proc_fork";
    /// A process replaced its program.
    pub const PROC_EXEC: &str = "proc_exec";
    /// A thread ended.
    pub const PROC_EXIT: &str = "proc_exit";
}
