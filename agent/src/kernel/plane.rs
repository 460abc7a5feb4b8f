//! Which capture planes this kernel can do, by feature and never by version.

use spanwise_common::names::program;

use super::btf::Btf;
use crate::config::PlaneChoice;

/// A way to see socket transfers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plane {
    /// Typed tracepoints `sock_send_length` and `sock_recv_length`.
    Sock,
    /// The typed tracepoint `sys_exit`.
    Syscall,
}

impl Plane {
    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sock => "sock",
            Self::Syscall => "syscall",
        }
    }

    /// Programs that make the plane, with the tracepoint each hooks.
    pub fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Sock => {
                &[(program::SOCK_SEND, "sock_send_length"), (program::SOCK_RECV, "sock_recv_length")]
            }
            Self::Syscall => &[(program::SYS_EXIT, "sys_exit")],
        }
    }

    /// Why this kernel cannot do the plane; none if it can.
    pub fn obstacle(self, btf: &Btf) -> Option<String> {
        let (_, missing) =
            self.programs().iter().find(|(_, hook)| btf.type_id_of_tracepoint(hook).is_none())?;
        Some(format!("this kernel has no typed tracepoint {missing}"))
    }
}

/// Programs beside the planes: name, tracepoint, and what is lost without it.
pub const COMPANIONS: &[(&str, &str, &str)] = &[
    (program::PROC_FORK, "sched_process_fork", "children of traced processes are not traced"),
    (program::PROC_EXEC, "sched_process_exec", "a program started by a traced process keeps its old name"),
    (program::PROC_EXIT, "sched_process_exit", "the end of a process is found by looking, a little later"),
    (
        program::TCP_STATE,
        "inet_sock_set_state",
        "responses that end with their connection end late, and aborted requests are found late",
    ),
];

/// Programs of plane `sock` that are attached when they are first needed, because every process of the node pays for them.
pub const ON_DEMAND: &[&str] = &[program::TCP_SPLICE];

/// Programs that only plane `sock` uses.
pub const SOCK_COMPANIONS: &[(&str, &str, &str)] = &[
    (program::URING_COMPLETE, "io_uring_complete", "bytes moved by io_uring are counted but not read"),
    (program::TCP_SPLICE, "tcp_rcv_space_adjust", "bytes that leave a socket by splice are noticed late"),
];

/// The plane to use, or why what was asked for cannot be had.
pub fn choose(asked: PlaneChoice, btf: &Btf) -> Result<Plane, String> {
    let only = |plane: Plane| match plane.obstacle(btf) {
        None => Ok(plane),
        Some(why) => Err(format!("plane {} cannot be used: {why}; use --plane auto", plane.name())),
    };
    match asked {
        PlaneChoice::Sock => only(Plane::Sock),
        PlaneChoice::Syscall => only(Plane::Syscall),
        PlaneChoice::Fentry => {
            Err("plane fentry is not part of this release; use --plane auto, which takes sock or syscall".to_owned())
        }
        PlaneChoice::Auto => only(Plane::Sock).or_else(|sock| {
            only(Plane::Syscall).map_err(|_| {
                format!("no capture plane can be used: {sock}; a kernel with BTF and CONFIG_FTRACE_SYSCALLS is needed")
            })
        }),
    }
}
