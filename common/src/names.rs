//! Names of maps and programs: the kernel cuts them to 15 bytes, so they must differ in those.

/// Ring buffer of records.
pub const EVENTS: &str = "EVENTS";
/// Process id to bits of `config::proc`.
pub const PROCS: &str = "PROCS";
/// Connection cookie to `conn::State`.
pub const CONNS: &str = "CONNS";
/// Connection cookie to `conn::Verdict`.
pub const VERDICTS: &str = "VERDICTS";
/// Number to `golang::Layout`.
pub const GO_LAYOUTS: &str = "GO_LAYOUTS";
/// Process id to `golang::Tls`.
pub const GO_TLS: &str = "GO_TLS";
/// Process id to `golang::Routes`.
pub const GO_ROUTES: &str = "GO_ROUTES";
/// Per-CPU counters.
pub const COUNTERS: &str = "COUNTERS";
/// Thread -> its call of a socket function. Used by plane `kprobe` only; elsewhere it has one entry.
pub const ENTERED: &str = "ENTERED";

/// Sites under test to hits.
pub const TRIAL: &str = "TRIAL";

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
    /// The same on kernels that hand over the result and not the completion.
    pub const URING_RESULT: &str = "uring_result";
    /// Plane `fentry`: one function returned.
    pub const FX_INET_SEND: &str = "fx_inet_send";
    /// Plane `fentry`: one function returned.
    pub const FX_INET_RECV: &str = "fx_inet_recv";
    /// Plane `fentry`: one function returned.
    pub const FX_INET6_SEND: &str = "fx_inet6_send";
    /// Plane `fentry`: one function returned.
    pub const FX_INET6_RECV: &str = "fx_inet6_recv";
    /// Plane `fentry`: one function returned.
    pub const FX_UNIX_SEND: &str = "fx_unix_send";
    /// Plane `fentry`: one function returned.
    pub const FX_UNIX_RECV: &str = "fx_unix_recv";
    /// Plane `fentry`: a page was sent by `sendfile` or `splice`.
    pub const FX_INET_PAGE: &str = "fx_inet_page";
    /// Plane `fentry`: a page was sent by `sendfile` or `splice`.
    pub const FX_UNIX_PAGE: &str = "fx_unix_page";
    /// Plane `fentry`: bytes left a socket by `splice`.
    pub const FX_TCP_SPLICE: &str = "fx_tcp_splice";
    /// Plane `fentry`: bytes left a socket by `splice`.
    pub const FX_UNIX_SPLICE: &str = "fx_unix_splice";
    /// Plane `kprobe`: a function is called.
    pub const KP_ENTER: &str = "kp_enter";
    /// Plane `kprobe`: a function with receive flags is called.
    pub const KP_ENTER_RECV: &str = "kp_enter_recv";
    /// Plane `kprobe`: a sending function returned.
    pub const KP_SENT: &str = "kp_sent";
    /// Plane `kprobe`: a receiving function returned.
    pub const KP_RECEIVED: &str = "kp_received";
    /// A process or thread was made.
    pub const PROC_FORK: &str = "proc_fork";
    /// A process replaced its program.
    pub const PROC_EXEC: &str = "proc_exec";
    /// A thread ended.
    pub const PROC_EXIT: &str = "proc_exit";
    /// A function of a TLS library is called.
    pub const TLS_ENTER: &str = "tls_enter";
    /// A function of a TLS library returns.
    pub const TLS_LEAVE: &str = "tls_leave";
    /// An object of a TLS library is made.
    pub const TLS_NEW: &str = "tls_new";
    /// An object of a TLS library is freed.
    pub const TLS_FREE: &str = "tls_free";
    /// rustls is about to encrypt a record.
    pub const RUSTLS_ENCRYPT: &str = "rustls_encrypt";
    /// rustls has encrypted a record.
    pub const RUSTLS_ENCRYPTED: &str = "rustls_encrypted";
    /// rustls is about to decrypt a record.
    pub const RUSTLS_DECRYPT: &str = "rustls_decrypt";
    /// rustls has decrypted a record.
    pub const RUSTLS_DECRYPTED: &str = "rustls_decrypted";
    /// Go's crypto/tls is about to encrypt a record.
    pub const GO_ENCRYPT: &str = "go_encrypt";
    /// Go's crypto/tls has decrypted a record.
    pub const GO_DECRYPT: &str = "go_decrypt";
    /// A goroutine of a Go program is about to make an HTTP/1 call.
    pub const GO_HTTP_CALL: &str = "go_http_call";
    /// A goroutine of a Go program is about to start another.
    pub const GO_STARTS: &str = "go_starts";
    /// A value passes a channel of a Go program.
    pub const GO_CHANNEL: &str = "go_channel";
    /// A goroutine of a Go program serves an HTTP/2 stream.
    pub const GO_SERVES: &str = "go_serves";
    /// A goroutine of a Go program makes a request by HTTP/2, which a child of it writes.
    pub const GO_H2_CALL: &str = "go_h2_call";
    /// A goroutine of a Go program makes an HTTP/2 stream that another will open.
    pub const GO_CALLS: &str = "go_calls";
    /// That stream is opened.
    pub const GO_OPENS: &str = "go_opens";
    /// A process looks for room in its memory.
    pub const CODE_MAPPED: &str = "code_mapped";
    /// A probe on user code that counts, for tests.
    pub const UP_TRIAL: &str = "up_trial";
}
