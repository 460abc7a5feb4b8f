//! The scheduling priority of the thread that empties the ring.
//!
//! What is traced goes first: usually all threads of the agent run as batch work, which never pushes another thread off its
//! core when it wakes. Only when a look at the ring finds it a good part full, because
//! every core is busy, is the thread made to run soon after it wakes; when the ring has been nearly empty for a while, it
//! steps back.

use spanwise_common::limits::RING_BYTES;

/// Priority under pressure (negative is sooner).
const SOON: i32 = -10;
/// Length of a turn of batch work: the shortest that the kernel allows, so that what wakes on this core waits no longer. (Long
/// turns were tried, since shorter ones may push them off: the tail of the server's latency was ten times longer.)
const SHORT_TURN_NS: u64 = 100_000;
/// A look that finds so many bytes is late.
const MUCH: usize = RING_BYTES as usize / 32;
/// Looks in a row that find less before the thread steps back.
const CALM: u32 = 250;

/// Makes the calling thread, and those that it makes later, batch work.
pub fn step_back() {
    // SAFETY: no memory is involved; 0 names the calling thread.
    #[expect(unsafe_code, reason = "system call")]
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // Whoever started the agent nicer than usual gets it nicer than usual.
    set_policy(libc::SCHED_BATCH, nice.max(0), SHORT_TURN_NS);
}

/// Priority of the calling thread.
#[derive(Default)]
pub struct Priority {
    raised: bool,
    refused: bool,
    calm: u32,
}

impl Priority {
    /// Takes note of how much a look at the ring found.
    pub fn found(&mut self, bytes: usize) {
        if bytes >= MUCH {
            self.calm = 0;
            if !self.raised && !self.refused {
                self.raised = set_policy(libc::SCHED_OTHER, SOON, 0);
                // Without CAP_SYS_NICE it stays as it is, and a full ring is counted.
                self.refused = !self.raised;
            }
        } else if self.raised {
            self.calm += 1;
            if self.calm >= CALM {
                self.raised = false;
                self.calm = 0;
                step_back();
            }
        }
    }
}

/// The kernel's `struct sched_attr`, first version.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Sets policy, priority and, since Linux 6.12, the length of a turn in nanoseconds (0: as usual).
fn set_policy(policy: libc::c_int, nice: i32, turn_ns: u64) -> bool {
    let attributes = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: policy as u32,
        flags: 0,
        nice,
        priority: 0,
        runtime: turn_ns,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the attributes are alive during the call and as long as they say; 0 names the calling thread.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) == 0
    }
}
