//! Offsets of kernel struct members, resolved by the agent from the running kernel's BTF and given to the BPF
//! programs as one frozen global each (rustc emits no CO-RE relocations; docs/adr/0003).

/// Value of an offset whose member this kernel does not have: the feature that needs it is off.
pub const MISSING: u32 = u32::MAX;

macro_rules! offsets {
    ($($(#[doc = $doc:literal])+ $global:ident = $strukt:literal . $member:literal;)*) => {
        /// One offset: name of the global, struct and (dotted) member path.
        #[derive(Clone, Copy, Debug)]
        pub struct Wanted {
            /// Name of the global in the BPF object.
            pub global: &'static str,
            /// Kernel struct.
            pub strukt: &'static str,
            /// Member path, anonymous members skipped.
            pub member: &'static str,
        }
        /// Every offset the BPF programs use.
        pub const WANTED: &[Wanted] = &[
            $(Wanted { global: stringify!($global), strukt: $strukt, member: $member }),*
        ];
    };
}

offsets! {
    /// Address family.
    OFF_SK_FAMILY = "sock_common"."skc_family";
    /// TCP state.
    OFF_SK_STATE = "sock_common"."skc_state";
    /// Local IPv4 address.
    OFF_SK_RCV_SADDR = "sock_common"."skc_rcv_saddr";
    /// Remote IPv4 address.
    OFF_SK_DADDR = "sock_common"."skc_daddr";
    /// Local port, host order.
    OFF_SK_NUM = "sock_common"."skc_num";
    /// Remote port, network order.
    OFF_SK_DPORT = "sock_common"."skc_dport";
    /// Local IPv6 address.
    OFF_SK_V6_RCV_SADDR = "sock_common"."skc_v6_rcv_saddr";
    /// Remote IPv6 address.
    OFF_SK_V6_DADDR = "sock_common"."skc_v6_daddr";
    /// Identity of a socket, zero until somebody asked for it.
    OFF_SK_COOKIE = "sock_common"."skc_cookie";
    /// Network namespace.
    OFF_SK_NET = "sock_common"."skc_net.net";
    /// Inode number of a network namespace.
    OFF_NET_INUM = "net"."ns.inum";
    /// Socket type.
    OFF_SK_TYPE = "sock"."sk_type";
    /// Protocol.
    OFF_SK_PROTOCOL = "sock"."sk_protocol";
    /// Directions that the program gave up: 1 for what comes in, 2 for what goes out.
    OFF_SK_SHUTDOWN = "sock"."sk_shutdown";
    /// Socket a sock belongs to.
    OFF_SK_SOCKET = "sock"."sk_socket";
    /// Next sequence number to be written by the application.
    OFF_TP_WRITE_SEQ = "tcp_sock"."write_seq";
    /// Next sequence number to be read by the application.
    OFF_TP_COPIED_SEQ = "tcp_sock"."copied_seq";
    /// First unacknowledged sequence number.
    OFF_TP_SND_UNA = "tcp_sock"."snd_una";
    /// Next expected sequence number.
    OFF_TP_RCV_NXT = "tcp_sock"."rcv_nxt";
    /// Bytes acknowledged by the peer.
    OFF_TP_BYTES_ACKED = "tcp_sock"."bytes_acked";
    /// Bytes received.
    OFF_TP_BYTES_RECEIVED = "tcp_sock"."bytes_received";
    /// The other end of a unix socket.
    OFF_UNIX_PEER = "unix_sock"."peer";
    /// Open files of a task.
    OFF_TASK_FILES = "task_struct"."files";
    /// io_uring state of a task (not null once it has used io_uring).
    OFF_TASK_IO_URING = "task_struct"."io_uring";
    /// Kernel stack of a task; saved registers are at its other end.
    OFF_TASK_STACK = "task_struct"."stack";
    /// Thread group of a task.
    OFF_TASK_TGID = "task_struct"."tgid";
    /// Memory of a task.
    OFF_TASK_MM = "task_struct"."mm";
    /// Pages of memory that can be executed.
    OFF_MM_EXEC_VM = "mm_struct"."exec_vm";
    /// Signal state shared by a thread group.
    OFF_TASK_SIGNAL = "task_struct"."signal";
    /// Exit code of a task.
    OFF_TASK_EXIT_CODE = "task_struct"."exit_code";
    /// Threads of a group that still live.
    OFF_SIGNAL_LIVE = "signal_struct"."live";
    /// File table of a files_struct.
    OFF_FILES_FDT = "files_struct"."fdt";
    /// File pointers of a file table.
    OFF_FDT_FD = "fdtable"."fd";
    /// Size of a file table.
    OFF_FDT_MAX = "fdtable"."max_fds";
    /// Private data of a file (the socket, for sockets).
    OFF_FILE_PRIVATE = "file"."private_data";
    /// Number of an inode: identity of a socket where no cookie can be had.
    OFF_INODE_INO = "inode"."i_ino";
    /// Inode beside a socket.
    OFF_SOCKET_INODE = "socket_alloc"."vfs_inode";
    /// Sock of a socket.
    OFF_SOCKET_SK = "socket"."sk";
    /// File of a socket.
    OFF_SOCKET_FILE = "socket"."file";
    /// Number and arguments of the system call, as saved on entry.
    OFF_REGS_ORIG_AX = "pt_regs"."orig_ax";
    /// First argument.
    OFF_REGS_DI = "pt_regs"."di";
    /// Second argument.
    OFF_REGS_SI = "pt_regs"."si";
    /// Third argument.
    OFF_REGS_DX = "pt_regs"."dx";
    /// Fourth argument.
    OFF_REGS_R10 = "pt_regs"."r10";
    /// Goroutine in Go programs.
    OFF_REGS_R14 = "pt_regs"."r14";
    /// Stack pointer: lies on the stack of the running goroutine.
    OFF_REGS_SP = "pt_regs"."sp";
    /// Base of thread-local memory, below which Go keeps the goroutine where C code may have changed R14.
    OFF_TASK_FSBASE = "task_struct"."thread.fsbase";
    /// Code segment: tells 32-bit code.
    OFF_REGS_CS = "pt_regs"."cs";
    /// Stack segment: the last of the saved registers.
    OFF_REGS_SS = "pt_regs"."ss";
    /// Opcode of an io_uring request.
    OFF_KIOCB_OPCODE = "io_kiocb"."opcode";
    /// File of an io_uring request.
    OFF_KIOCB_FILE = "io_kiocb"."file";
    /// Result of an io_uring completion.
    OFF_CQE_RES = "io_uring_cqe"."res";
    /// Buffer of an io_uring send or receive.
    OFF_IO_SR_BUF = "io_sr_msg"."buf";
}
