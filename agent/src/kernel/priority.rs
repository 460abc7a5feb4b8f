//! The scheduling priority of the thread that empties the ring.
//!
//! What is traced goes first: usually all threads of the agent run as batch work, which never pushes another thread off its
//! core when it wakes. Only when a look at the ring finds it a good part full, because
//! every core is busy, is the thread made to run soon after it wakes; when the ring has been nearly empty for a while, it
//! steps back.

use spanwise_common::limits::RING_BYTES;

/// Priority under pressure (negative is sooner).
const SOON: libc::c_int = -10;
/// A look that finds so many bytes is late.
const MUCH: usize = RING_BYTES as usize / 32;
/// Looks in a row that find less before the thread steps back.
const CALM: u32 = 250;

/// Makes the calling thread, and those that it makes later, batch work.
pub fn step_back() {
    set_policy(libc::SCHED_BATCH);
}

/// Takes [`step_back`] back: what the calling thread starts now is not the agent's.
pub fn step_forward() {
    set_policy(libc::SCHED_OTHER);
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
                self.raised = set(SOON);
                set_policy(libc::SCHED_OTHER);
                // Without CAP_SYS_NICE it stays as it is, and a full ring is counted.
                self.refused = !self.raised;
            }
        } else if self.raised {
            self.calm += 1;
            if self.calm >= CALM {
                self.raised = false;
                self.calm = 0;
                set(0);
                set_policy(libc::SCHED_BATCH);
            }
        }
    }
}

fn set(nice: libc::c_int) -> bool {
    // SAFETY: no memory is involved; 0 names the calling thread.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, nice) == 0
    }
}

fn set_policy(policy: libc::c_int) {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters are alive during the call; 0 names the calling thread. Both policies are open to everyone, so a
    // failure (a sandbox that forbids the call) leaves things as they are.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        libc::sched_setscheduler(0, policy, &parameters);
    }
}
