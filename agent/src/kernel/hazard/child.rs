//! Trials in a child process of the agent's own, which may die of them.

use std::io;
use std::time::{Duration, Instant};

use super::trial::Trial;

/// What a child may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::kernel) enum End {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// A child process that is gone when this is dropped.
pub(in crate::kernel) struct Child {
    pid: libc::pid_t,
    ended: bool,
}

impl Child {
    /// Makes a process that runs `work`, which may make system calls and touch nothing else (other threads hold locks).
    pub(in crate::kernel) fn start(work: impl FnOnce() -> u8) -> io::Result<Self> {
        // SAFETY: the child calls only what `work` is allowed to, and ends without returning.
        #[expect(unsafe_code, reason = "system call")]
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                // SAFETY: system calls of a process of its own: it leaves no core, and ends with its parent.
                #[expect(unsafe_code, reason = "system call")]
                unsafe {
                    libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                    libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                    let code = work();
                    libc::_exit(i32::from(code))
                }
            }
            pid => Ok(Self { pid, ended: false }),
        }
    }

    pub(super) fn pid(&self) -> libc::pid_t {
        self.pid
    }

    pub(in crate::kernel) fn wait(mut self) -> io::Result<End> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut status = 0;
            // SAFETY: the status is a live int, and the child is ours.
            #[expect(unsafe_code, reason = "system call")]
            let pid = unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) };
            if pid == self.pid {
                self.ended = true;
                return Ok(if libc::WIFSIGNALED(status) {
                    End::Signal(libc::WTERMSIG(status))
                } else {
                    End::Code(libc::WEXITSTATUS(status))
                });
            }
            if pid < 0 {
                return Err(io::Error::last_os_error());
            }
            if Instant::now() > until {
                return Err(io::Error::other("the child process of the trial did not end"));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            // SAFETY: the child is ours and not waited for, so its id is still its own.
            #[expect(unsafe_code, reason = "system call")]
            unsafe {
                libc::kill(self.pid, libc::SIGKILL);
                libc::waitpid(self.pid, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// The call that ends a return probe (Linux 6.11, x86-64).
const URETPROBE: libc::c_long = 335;
/// An error that the call itself never gives.
const MARK: u32 = libc::EXFULL as u32;

/// Makes the call that only the kernel's own trampoline may make. A kernel that has it kills whoever does.
fn call() -> u8 {
    // SAFETY: no arguments; the worst it does is end this process.
    #[expect(unsafe_code, reason = "system call")]
    let result = unsafe { libc::syscall(URETPROBE) };
    if result == 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap_or(255) as u8 }
}

/// The same under a filter that refuses that call and no other.
fn call_under_filter() -> u8 {
    let statement =
        |code: u32, yes: u8, no: u8, k: u32| libc::sock_filter { code: code as u16, jt: yes, jf: no, k };
    let mut code = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, URETPROBE as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | MARK),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: the program is alive during the call and as long as it says.
    #[expect(unsafe_code, reason = "system call")]
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { call() } else { 255 }
}

/// Whether a return probe survives in a process whose filter does not know the call that ends it. No probe is needed: a
/// kernel that lets the call pass every filter kills the caller, one that does not gives the filter's error.
pub(super) fn return_probes() -> io::Result<Trial> {
    if cfg!(not(target_arch = "x86_64")) {
        return Ok(Trial::Absent);
    }
    let bare = Child::start(call)?.wait()?;
    if bare == End::Code(libc::ENOSYS) {
        return Ok(Trial::Absent);
    }
    match Child::start(call_under_filter)?.wait()? {
        End::Signal(libc::SIGILL) => Ok(Trial::Sound),
        End::Code(code) if code == MARK as i32 => Ok(Trial::Harmful),
        other => Err(io::Error::other(format!("the trial ended in an unknown way ({bare:?}, {other:?})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_children() {
        assert_eq!(Child::start(|| 7).unwrap().wait().unwrap(), End::Code(7));
        let killed = Child::start(|| {
            // SAFETY: ends this process, which is the child.
            #[expect(unsafe_code, reason = "system call")]
            unsafe {
                libc::raise(libc::SIGKILL);
            }
            0
        });
        assert_eq!(killed.unwrap().wait().unwrap(), End::Signal(libc::SIGKILL));
    }

    #[test]
    fn a_child_that_hangs_is_given_up_and_gone() {
        let child = Child::start(|| {
            loop {
                std::hint::spin_loop();
            }
        })
        .unwrap();
        let pid = child.pid();
        assert!(child.wait().is_err());
        assert!(!std::path::Path::new("/proc").join(pid.to_string()).exists());
    }
}
