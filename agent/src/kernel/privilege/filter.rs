//! The system call filter: the list of [`super::calls`] as a classic BPF program, for all threads at once.

use std::io;

use super::calls::{NEWEST, RULES, Rule};

#[cfg(target_arch = "x86_64")]
const MACHINE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const MACHINE: u32 = 0xC000_00B7;

/// Bit of calls of the x32 kind, which have numbers of their own.
const X32: u32 = 0x4000_0000;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const NO_SUCH_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// Offsets in the kernel's `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Offset of the low half of an argument (both machines are little-endian).
fn argument(index: u32) -> u32 {
    16 + 8 * index
}

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn give(what: u32) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, what)
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Skips `yes` instructions if the condition holds, `no` if not.
fn jump(condition: u32, k: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | condition | libc::BPF_K) as u16, jt: yes, jf: no, k }
}

/// The program. What this run needs beside the list comes first: the first rule for a call is the one that counts.
pub(super) fn program(beside: &[Rule]) -> Vec<libc::sock_filter> {
    let mut code = vec![
        load(ARCHITECTURE),
        jump(libc::BPF_JEQ, MACHINE, 1, 0),
        give(REFUSE),
        load(NUMBER),
        // The next two together: numbers of the x32 kind are refused, new ones do not exist.
        jump(libc::BPF_JGE, X32, 0, 1),
        give(REFUSE),
        jump(libc::BPF_JGT, NEWEST, 0, 1),
        give(NO_SUCH_CALL),
    ];
    for rule in beside.iter().chain(RULES) {
        one(&mut code, rule);
    }
    code.push(give(REFUSE));
    code
}

fn one(code: &mut Vec<libc::sock_filter>, rule: &Rule) {
    let mut judged = Vec::new();
    let number = match rule {
        Rule::Any(number) => {
            judged.push(give(ALLOW));
            number
        }
        Rule::Unknown(number) => {
            judged.push(give(NO_SUCH_CALL));
            number
        }
        Rule::OneOf(number, index, values) => {
            judged.push(load(argument(*index)));
            for value in *values {
                judged.push(jump(libc::BPF_JEQ, *value, 0, 1));
                judged.push(give(ALLOW));
            }
            judged.push(give(REFUSE));
            number
        }
        Rule::Has(number, index, bits) => {
            judged.push(load(argument(*index)));
            judged.extend([jump(libc::BPF_JSET, *bits, 0, 1), give(ALLOW), give(REFUSE)]);
            number
        }
        Rule::Lacks(number, index, bits) => {
            judged.push(load(argument(*index)));
            judged.extend([jump(libc::BPF_JSET, *bits, 1, 0), give(ALLOW), give(REFUSE)]);
            number
        }
    };
    // Numbers are small and lists of values short.
    code.push(jump(libc::BPF_JEQ, *number as u32, 0, judged.len() as u8));
    code.extend(judged);
}

/// Puts the filter on every thread of the process, for good. They must have given up gaining privileges.
pub(super) fn install(beside: &[Rule]) -> io::Result<()> {
    let mut code = program(beside);
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // Without SPEC_ALLOW, kernels before 5.16 slow down every thread that has a filter.
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: the program is alive during the call and as long as it says; the kernel copies it.
    #[expect(unsafe_code, reason = "system call")]
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    match result {
        0 => Ok(()),
        thread if thread > 0 => {
            Err(io::Error::other(format!("thread {thread} has a filter that the others do not have")))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::calls::beside;
    use super::*;

    /// What the program says to a call: an interpreter of the few instructions that it is made of.
    fn judge(code: &[libc::sock_filter], machine: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [0_u8; 64];
        data[..4].copy_from_slice(&number.to_le_bytes());
        data[4..8].copy_from_slice(&machine.to_le_bytes());
        for (index, argument) in arguments.iter().enumerate() {
            data[16 + 8 * index..24 + 8 * index].copy_from_slice(&argument.to_le_bytes());
        }
        let (mut at, mut a) = (0, 0_u32);
        loop {
            let now = code[at];
            at += 1;
            let class = u32::from(now.code) & 7;
            if class == libc::BPF_RET {
                return now.k;
            } else if class == libc::BPF_LD {
                let from = now.k as usize;
                a = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
            } else {
                let holds = match u32::from(now.code) & 0xf0 {
                    libc::BPF_JEQ => a == now.k,
                    libc::BPF_JGT => a > now.k,
                    libc::BPF_JGE => a >= now.k,
                    libc::BPF_JSET => a & now.k != 0,
                    other => panic!("instruction {other}"),
                };
                at += usize::from(if holds { now.jt } else { now.jf });
            }
        }
    }

    fn call(number: libc::c_long, arguments: [u64; 6]) -> u32 {
        judge(&program(&[]), MACHINE, number as u32, arguments)
    }

    #[test]
    fn what_is_allowed_and_what_not() {
        for allowed in [libc::SYS_read, libc::SYS_futex, libc::SYS_exit_group, libc::SYS_getrandom] {
            assert_eq!(call(allowed, [0; 6]), ALLOW, "{allowed}");
        }
        let refused = [
            libc::SYS_execve,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_process_vm_readv,
            libc::SYS_perf_event_open,
            libc::SYS_init_module,
            libc::SYS_mount,
            libc::SYS_setuid,
            libc::SYS_capset,
            libc::SYS_seccomp,
            libc::SYS_io_uring_setup,
            libc::SYS_pidfd_getfd,
            libc::SYS_kill,
            libc::SYS_unshare,
            libc::SYS_setns,
        ];
        for number in refused {
            assert_eq!(call(number, [0; 6]), REFUSE, "{number}");
        }
        assert_eq!(call(libc::SYS_clone3, [0; 6]), NO_SUCH_CALL);
        assert_eq!(call(NEWEST as libc::c_long + 1, [0; 6]), NO_SUCH_CALL);
    }

    #[test]
    fn arguments_count() {
        let with = |index: usize, value: u64| {
            let mut arguments = [0; 6];
            arguments[index] = value;
            arguments
        };
        assert_eq!(call(libc::SYS_bpf, with(0, 1)), ALLOW, "look-up");
        assert_eq!(call(libc::SYS_bpf, with(0, 5)), REFUSE, "program load");
        assert_eq!(call(libc::SYS_clone, with(0, 0x3d0f00)), ALLOW, "a thread");
        assert_eq!(call(libc::SYS_clone, with(0, 17)), REFUSE, "a process");
        assert_eq!(call(libc::SYS_mprotect, with(2, 3)), ALLOW);
        assert_eq!(call(libc::SYS_mprotect, with(2, 7)), REFUSE);
        assert_eq!(call(libc::SYS_socket, with(0, 2)), ALLOW, "IPv4");
        assert_eq!(call(libc::SYS_socket, with(0, 17)), REFUSE, "raw packets");
        assert_eq!(call(libc::SYS_ioctl, with(1, 0x5412)), REFUSE, "typing into a terminal");
        assert_eq!(judge(&program(&beside(true, None)), MACHINE, libc::SYS_kill as u32, with(1, 15)), ALLOW);
        assert_eq!(judge(&program(&beside(true, None)), MACHINE, libc::SYS_kill as u32, with(1, 10)), REFUSE);
    }

    /// The kernel reads the program as the interpreter does.
    #[test]
    fn the_kernel_takes_it() {
        use crate::kernel::hazard::{Child, End};
        let child = Child::start(|| {
            // SAFETY: system calls of a process of its own, with arguments that are valid or not looked at.
            #[expect(unsafe_code, reason = "system calls")]
            unsafe {
                let errno = || *libc::__errno_location();
                let path = c"/bin/true".as_ptr();
                let mut wrong = 0;
                wrong |= u8::from(install(&[]).is_err());
                wrong |= u8::from(libc::getppid() <= 0) << 1;
                libc::syscall(libc::SYS_execve, path, 0, 0);
                wrong |= u8::from(errno() != libc::EPERM) << 2;
                libc::syscall(libc::SYS_clone3, 0, 0);
                wrong |= u8::from(errno() != libc::ENOSYS) << 3;
                libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
                wrong |= u8::from(errno() != libc::EPERM) << 4;
                wrong |= u8::from(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) < 0) << 5;
                libc::fork();
                wrong |= u8::from(errno() != libc::EPERM) << 6;
                libc::kill(libc::getppid(), 0);
                wrong |= u8::from(errno() != libc::EPERM) << 7;
                wrong
            }
        });
        assert_eq!(child.unwrap().wait().unwrap(), End::Code(0));
    }

    #[test]
    fn other_kinds_of_calls_are_refused() {
        let code = program(&beside(true, None));
        assert_eq!(judge(&code, 0x4000_0003, 4, [0; 6]), REFUSE, "32-bit write");
        assert_eq!(judge(&code, MACHINE, X32 + 1, [0; 6]), REFUSE, "x32 write");
        assert!(code.len() < 4096, "{} instructions", code.len());
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut seen = std::collections::HashSet::new();
        for rule in RULES {
            let (Rule::Any(number)
            | Rule::OneOf(number, ..)
            | Rule::Has(number, ..)
            | Rule::Lacks(number, ..)
            | Rule::Unknown(number)) = rule;
            assert!(seen.insert(number), "{number}");
        }
    }
}
