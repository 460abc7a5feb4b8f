//! What user space sets before load: frozen globals, which the verifier treats as constants.

/// Bits of the `FEATURES` global: what the kernel side may use.
pub mod feature {
    /// Read the goroutine from the saved user registers of processes marked as Go.
    pub const GOROUTINE: u32 = 1 << 0;
    /// `bpf_get_socket_cookie` can be had in typed hooks (Linux 5.12): sockets are known by their cookie, else by inode.
    pub const COOKIE: u32 = 1 << 1;
    /// `bpf_skc_to_tcp_sock` can be had (Linux 5.9): members of a TCP socket are loaded directly, else by helper.
    pub const TCP_CAST: u32 = 1 << 2;
    /// `bpf_get_current_task_btf` and `bpf_task_pt_regs` can be had (Linux 5.15): saved registers are loaded directly, else
    /// from the top of the task's kernel stack.
    pub const TASK_REGS: u32 = 1 << 3;
    /// A program watches the completions of io_uring: its transfers may wait for them.
    pub const URING: u32 = 1 << 4;
}

/// Bits of a value in the `PROCS` map.
pub mod proc {
    /// Capture this process's socket transfers.
    pub const TRACE: u32 = 1 << 0;
    /// Children inherit `TRACE` (and this bit).
    pub const FOLLOW: u32 = 1 << 1;
    /// The program is Go: user R14 holds the running goroutine. Where that can be read, the highest eight bits are the number of
    /// its `golang::Layout`, from 1.
    pub const GO: u32 = 1 << 2;
    /// Hooks on TLS libraries are placed in this process: transfers look for the call that they run in.
    pub const TLS: u32 = 1 << 3;
    /// The program has rustls inside: transfers look for its records.
    pub const RUSTLS: u32 = 1 << 4;
    /// The program serves HTTP and keeps the pattern of a request where the kernel side can find it.
    pub const ROUTES: u32 = 1 << 5;
    /// Hooks on Go's `crypto/tls` are placed in this process. They find the connection themselves, so transfers look for nothing.
    pub const GO_TLS: u32 = 1 << 6;
}
