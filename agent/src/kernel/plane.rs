//! Which capture planes this kernel can do, by feature and never by version.

use spanwise_common::config::feature;
use spanwise_common::names::program;

use super::host::{Host, URING_HOOK, Uring};
use super::offsets;
use crate::config::PlaneChoice;

/// A way to see socket transfers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plane {
    /// Typed tracepoints `sock_send_length` and `sock_recv_length`.
    Sock,
    /// Trampolines at the exits of socket functions.
    Fentry,
    /// Breakpoints at entries and exits of the same functions.
    Kprobe,
    /// The typed tracepoint `sys_exit`.
    Syscall,
}

/// A program, the tracepoint or function it hooks, and what is lost without it.
pub type Companion = (&'static str, &'static str, &'static str);

impl Plane {
    /// All of them, best first.
    pub const ALL: [Self; 4] = [Self::Sock, Self::Fentry, Self::Kprobe, Self::Syscall];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sock => "sock",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Syscall => "syscall",
        }
    }

    /// What `--plane` has to say for it.
    pub fn choice(self) -> PlaneChoice {
        match self {
            Self::Sock => PlaneChoice::Sock,
            Self::Fentry => PlaneChoice::Fentry,
            Self::Kprobe => PlaneChoice::Kprobe,
            Self::Syscall => PlaneChoice::Syscall,
        }
    }

    /// Programs without which the plane is none, with what each hooks. A program may stand there for several functions; what
    /// hooks entries comes before what hooks returns.
    pub fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Sock => {
                &[(program::SOCK_SEND, "sock_send_length"), (program::SOCK_RECV, "sock_recv_length")]
            }
            Self::Fentry => {
                &[(program::FX_INET_SEND, "inet_sendmsg"), (program::FX_INET_RECV, "inet_recvmsg")]
            }
            Self::Kprobe => &[
                (program::KP_ENTER, "inet_sendmsg"),
                (program::KP_ENTER_RECV, "inet_recvmsg"),
                (program::KP_SENT, "inet_sendmsg"),
                (program::KP_RECEIVED, "inet_recvmsg"),
            ],
            Self::Syscall => &[(program::SYS_EXIT, "sys_exit")],
        }
    }

    /// Programs that only this plane uses and that it can do without.
    pub fn companions(self) -> &'static [Companion] {
        match self {
            Self::Sock => SOCK_COMPANIONS,
            Self::Fentry => FENTRY_COMPANIONS,
            Self::Kprobe => KPROBE_COMPANIONS,
            Self::Syscall => &[],
        }
    }

    /// Whether the plane sees what io_uring moves.
    pub fn sees_uring(self) -> bool {
        self != Self::Syscall
    }

    /// A program and a function to try the kind of hook on, before the plane is chosen: one that is seldom called.
    pub fn trial(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Fentry => Some((program::FX_UNIX_SPLICE, "unix_stream_splice_read")),
            Self::Kprobe => Some((program::KP_ENTER, "unix_stream_splice_read")),
            Self::Sock | Self::Syscall => None,
        }
    }

    /// Why this kernel cannot do the plane, as far as its types tell; none if they do not say no.
    pub fn obstacle(self, host: &Host) -> Option<String> {
        let (function, there): (_, fn(&Host, &str) -> bool) = match self {
            Self::Sock | Self::Syscall => ("typed tracepoint", Host::has_tracepoint),
            Self::Fentry | Self::Kprobe => ("function", Host::has_function),
        };
        if let Some((_, missing)) = self.programs().iter().find(|(_, hook)| !there(host, hook)) {
            return Some(format!("this kernel has no {function} {missing}"));
        }
        if self == Self::Fentry && !host.has_safe_trampolines() {
            return Some(
                "hazard.trampoline: this kernel frees trampolines while they are in use, which can crash it (mended in Linux 5.12 and 5.10.28)"
                    .to_owned(),
            );
        }
        let lacking = self.members(host).find(|global| host.lacks(global))?;
        let reason = host.offsets.reasons.iter().zip(&host.offsets.missing);
        reason.filter(|(_, wanted)| wanted.global == lacking).map(|(reason, _)| reason.to_string()).next()
    }

    /// Members without which the plane is none.
    fn members(self, host: &Host) -> impl Iterator<Item = &'static str> {
        const SOCKET: &[&str] = &["OFF_SOCKET_SK"];
        const INODE: &[&str] = &["OFF_SK_SOCKET", "OFF_INODE_INO", "OFF_SOCKET_INODE"];
        const DESCRIPTOR: &[&str] = &[
            "OFF_TASK_FILES",
            "OFF_FILES_FDT",
            "OFF_FDT_FD",
            "OFF_FDT_MAX",
            "OFF_FILE_PRIVATE",
            "OFF_SOCKET_FILE",
        ];
        const STACK: &[&str] = &["OFF_TASK_STACK", "OFF_REGS_SS"];
        let typed = matches!(self, Self::Sock | Self::Fentry);
        let by_inode = !typed || host.features & feature::COOKIE == 0;
        let from_stack = self != Self::Syscall && host.features & feature::TASK_REGS == 0;
        let needs = [
            (self != Self::Sock, SOCKET),
            (by_inode, INODE),
            (self == Self::Syscall, DESCRIPTOR),
            (from_stack, STACK),
        ];
        needs.into_iter().filter(|(needed, _)| *needed).flat_map(|(_, members)| members).copied()
    }
}

/// Programs beside the planes: name, tracepoint, and what is lost without it.
pub const COMPANIONS: &[Companion] = &[
    (program::PROC_FORK, "sched_process_fork", "children of traced processes are not traced"),
    (program::PROC_EXEC, "sched_process_exec", "a program started by a traced process keeps its old name"),
    (program::PROC_EXIT, "sched_process_exit", "the end of a process is found by looking, a little later"),
    (
        program::TCP_STATE,
        "inet_sock_set_state",
        "responses that end with their connection end late, and aborted requests are found late",
    ),
    (program::CODE_MAPPED, "vm_unmapped_area", "libraries that a program loads late are found late"),
];

/// Programs that are attached when they are first needed, because every process of the node pays for them.
pub const ON_DEMAND: &[&str] = &[program::TCP_SPLICE, program::CODE_MAPPED];

/// Programs that only plane `sock` uses.
pub const SOCK_COMPANIONS: &[Companion] =
    &[(program::TCP_SPLICE, "tcp_rcv_space_adjust", "bytes that leave a socket by splice are noticed late")];

const NO_IPV6: &str = "connections over IPv6 are not seen";
const NO_UNIX: &str = "unix sockets are not seen";
const NO_PAGES: &str =
    "bytes sent by sendfile and splice are not seen, so responses made of them have no end";
const NO_SPLICE: &str = "bytes that leave a socket by splice are not seen";

/// Programs of plane `fentry` that it can do without.
const FENTRY_COMPANIONS: &[Companion] = &[
    (program::FX_INET6_SEND, "inet6_sendmsg", NO_IPV6),
    (program::FX_INET6_RECV, "inet6_recvmsg", NO_IPV6),
    (program::FX_UNIX_SEND, "unix_stream_sendmsg", NO_UNIX),
    (program::FX_UNIX_RECV, "unix_stream_recvmsg", NO_UNIX),
    (program::FX_INET_PAGE, "inet_sendpage", NO_PAGES),
    (program::FX_UNIX_PAGE, "unix_stream_sendpage", NO_PAGES),
    (program::FX_TCP_SPLICE, "tcp_splice_read", NO_SPLICE),
    (program::FX_UNIX_SPLICE, "unix_stream_splice_read", NO_SPLICE),
];

/// Functions of plane `kprobe` that it can do without.
const KPROBE_COMPANIONS: &[Companion] = &[
    (program::KP_ENTER, "inet6_sendmsg", NO_IPV6),
    (program::KP_SENT, "inet6_sendmsg", NO_IPV6),
    (program::KP_ENTER_RECV, "inet6_recvmsg", NO_IPV6),
    (program::KP_RECEIVED, "inet6_recvmsg", NO_IPV6),
    (program::KP_ENTER, "unix_stream_sendmsg", NO_UNIX),
    (program::KP_SENT, "unix_stream_sendmsg", NO_UNIX),
    (program::KP_ENTER_RECV, "unix_stream_recvmsg", NO_UNIX),
    (program::KP_RECEIVED, "unix_stream_recvmsg", NO_UNIX),
    (program::KP_ENTER, "inet_sendpage", NO_PAGES),
    (program::KP_SENT, "inet_sendpage", NO_PAGES),
    (program::KP_ENTER, "unix_stream_sendpage", NO_PAGES),
    (program::KP_SENT, "unix_stream_sendpage", NO_PAGES),
    (program::KP_ENTER, "tcp_splice_read", NO_SPLICE),
    (program::KP_RECEIVED, "tcp_splice_read", NO_SPLICE),
    (program::KP_ENTER, "unix_stream_splice_read", NO_SPLICE),
    (program::KP_RECEIVED, "unix_stream_splice_read", NO_SPLICE),
];

/// Functions that newer kernels do without: there, what went through them goes through functions that are hooked anyway.
pub const OLDER: &[&str] = &["inet_sendpage", "unix_stream_sendpage"];

/// What the completions of io_uring cost when they are not seen.
pub const NO_URING: &str = "bytes moved by io_uring are counted but not read";

/// The program that watches the completions of io_uring.
pub fn uring(host: &Host) -> Option<(&'static str, &'static str)> {
    let name = match host.uring()? {
        Uring::Entry => program::URING_COMPLETE,
        Uring::Result => program::URING_RESULT,
    };
    Some((name, URING_HOOK))
}

/// Every tracepoint and function that some program hooks.
pub fn hooks() -> impl Iterator<Item = &'static str> {
    let planes = Plane::ALL.into_iter();
    let own = planes.clone().flat_map(|plane| plane.programs().iter().map(|(_, hook)| *hook));
    let theirs = planes.flat_map(|plane| plane.companions().iter().map(|(_, hook, _)| *hook));
    let others = COMPANIONS.iter().map(|(_, hook, _)| *hook);
    own.chain(theirs).chain(others).chain([URING_HOOK])
}

/// The planes to try, best first.
pub fn candidates(asked: PlaneChoice) -> impl Iterator<Item = Plane> {
    Plane::ALL.into_iter().filter(move |plane| asked == PlaneChoice::Auto || asked == plane.choice())
}

/// Why nothing at all can be captured, if so: a member that every plane needs is missing.
pub fn hopeless(host: &Host) -> Option<String> {
    let lost = host.offsets.missing.iter().zip(&host.offsets.reasons);
    lost.filter(|(wanted, _)| offsets::is_essential(wanted.global))
        .map(|(wanted, reason)| format!("{reason}: {}", offsets::cost_of_missing(wanted.global)))
        .next()
}
