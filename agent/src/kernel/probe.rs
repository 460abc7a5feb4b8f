//! Which helper functions this kernel has for typed hooks, and for user code: each is tried with the smallest program that calls it.
//!
//! Comes in: the id of a tracepoint's type, for typed hooks. Goes out: whether the verifier took the program. Nothing is attached.

use std::io;

/// `bpf_attr` of `BPF_PROG_LOAD`, up to what is needed here.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
    attach_prog_fd: u32,
    pad: u32,
}

const _: () = assert!(size_of::<Load>() == 120);

const BPF_PROG_LOAD: libc::c_long = 5;
const TYPE_KPROBE: u32 = 2;
const TYPE_TRACING: u32 = 26;
const ATTACH_RAW_TP: u32 = 23;

/// One instruction: opcode, registers, offset, immediate.
const fn instruction(opcode: u8, dst: u8, src: u8, off: u16, imm: u32) -> u64 {
    opcode as u64 | (dst as u64) << 8 | (src as u64) << 12 | (off as u64) << 16 | (imm as u64) << 32
}

/// `r1 = first argument of the hook`.
const ARGUMENT: u64 = instruction(0x79, 1, 1, 0, 0);
/// `r1 = r0`.
const PASS_ON: u64 = instruction(0xbf, 1, 0, 0, 0);
/// `r0 = 0`.
const ZERO: u64 = instruction(0xb7, 0, 0, 0, 0);
const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);

const fn call(helper: u32) -> u64 {
    instruction(0x85, 0, 0, 0, helper)
}

const SOCKET_COOKIE: u32 = 46;
const SKC_TO_TCP_SOCK: u32 = 137;
const CURRENT_TASK_BTF: u32 = 158;
const ATTACH_COOKIE: u32 = 174;
const TASK_PT_REGS: u32 = 175;

/// Whether `bpf_get_socket_cookie` can be called on a hook whose first argument is a sock.
pub(super) fn socket_cookie(hook: u32) -> bool {
    loads(hook, &[ARGUMENT, call(SOCKET_COOKIE), ZERO, EXIT])
}

/// Whether `bpf_skc_to_tcp_sock` can be called on a hook whose first argument is a sock.
pub(super) fn tcp_cast(hook: u32) -> bool {
    loads(hook, &[ARGUMENT, call(SKC_TO_TCP_SOCK), ZERO, EXIT])
}

/// Whether `bpf_get_current_task_btf` and `bpf_task_pt_regs` can be called.
pub(super) fn task_registers(hook: u32) -> bool {
    loads(hook, &[call(CURRENT_TASK_BTF), PASS_ON, call(TASK_PT_REGS), ZERO, EXIT])
}

/// Whether `bpf_get_attach_cookie` can be called by a program on user code, which is loaded like one on functions of the kernel.
pub(super) fn attach_cookie() -> bool {
    accepted(&Load { prog_type: TYPE_KPROBE, ..Load::default() }, &[call(ATTACH_COOKIE), ZERO, EXIT])
}

fn loads(hook: u32, program: &[u64]) -> bool {
    let typed = Load {
        prog_type: TYPE_TRACING,
        expected_attach_type: ATTACH_RAW_TP,
        attach_btf_id: hook,
        ..Load::default()
    };
    accepted(&typed, program)
}

fn accepted(kind: &Load, program: &[u64]) -> bool {
    match load(kind, program) {
        Ok(()) => true,
        // Before Linux 5.11 programs count as locked memory, and so do those of others.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            raise_locked_memory();
            load(kind, program).is_ok()
        }
        Err(_) => false,
    }
}

fn load(kind: &Load, program: &[u64]) -> io::Result<()> {
    let attr = Load {
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..*kind
    };
    // SAFETY: `attr` and what it points to are alive during the call, and as long as it says.
    #[expect(unsafe_code, reason = "system call")]
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<Load>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel just made, owned by nobody else.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        libc::close(fd as libc::c_int)
    };
    Ok(())
}

fn raise_locked_memory() {
    let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `all` is alive during the call. Where it is refused the next load fails too, and says so.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const all)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_laid_out_as_the_kernel_wants_them() {
        assert_eq!(ARGUMENT.to_le_bytes(), [0x79, 0x11, 0, 0, 0, 0, 0, 0]);
        assert_eq!(PASS_ON.to_le_bytes(), [0xbf, 0x01, 0, 0, 0, 0, 0, 0]);
        assert_eq!(call(175).to_le_bytes(), [0x85, 0, 0, 0, 175, 0, 0, 0]);
    }

    #[test]
    fn a_hook_that_is_none_takes_no_program() {
        assert!(!socket_cookie(0));
    }
}
