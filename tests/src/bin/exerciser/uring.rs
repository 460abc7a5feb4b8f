//! The least of io_uring: one entry, one operation at a time. In: a socket and bytes. Out: how many were sent or received.
#![expect(unsafe_code, reason = "the rings are memory shared with the kernel")]

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use libc::{c_int, c_void};

const OP_SEND: u8 = 26;
const OP_RECV: u8 = 27;
const ENTER_GETEVENTS: u32 = 1;
const OFFSET_SQ: libc::off_t = 0;
const OFFSET_CQ: libc::off_t = 0x800_0000;
const OFFSET_SQES: libc::off_t = 0x1000_0000;

#[repr(C)]
#[derive(Default)]
struct SqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    resv1: u32,
    user_addr: u64,
}

#[repr(C)]
#[derive(Default)]
struct CqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    overflow: u32,
    cqes: u32,
    flags: u32,
    resv1: u32,
    user_addr: u64,
}

#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    sq_off: SqOffsets,
    cq_off: CqOffsets,
}

#[repr(C)]
#[derive(Default)]
struct Sqe {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    off: u64,
    addr: u64,
    len: u32,
    msg_flags: u32,
    user_data: u64,
    rest: [u64; 3],
}

#[repr(C)]
struct Cqe {
    user_data: u64,
    res: i32,
    flags: u32,
}

struct Mapping {
    start: *mut c_void,
    length: usize,
}

impl Mapping {
    fn new(fd: &OwnedFd, length: usize, offset: libc::off_t) -> Result<Self> {
        // SAFETY: a fresh shared mapping of the ring's memory, unmapped on drop.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("mmap of a ring");
        }
        Ok(Self { start, length })
    }

    fn at<T>(&self, offset: u32) -> *mut T {
        // SAFETY: offsets come from the kernel and lie within the mapping.
        unsafe { self.start.byte_add(offset as usize).cast() }
    }

    fn counter(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel puts an aligned 32-bit counter there; the mapping lives as long as self.
        unsafe { AtomicU32::from_ptr(self.at(offset)) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: start and length are those of the mapping that mmap made.
        unsafe { libc::munmap(self.start, self.length) };
    }
}

/// A ring.
pub(crate) struct Ring {
    fd: OwnedFd,
    params: Params,
    sq: Mapping,
    cq: Mapping,
    sqes: Mapping,
}

impl Ring {
    /// Makes one; an error where the kernel has none or does not allow it.
    pub(crate) fn new() -> Result<Self> {
        let mut params = Params::default();
        // SAFETY: a live io_uring_params, all zero but for what the kernel fills in.
        let raw = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4_u32, &raw mut params) };
        let raw = c_int::try_from(raw)?;
        if raw < 0 {
            return Err(std::io::Error::last_os_error()).context("io_uring_setup");
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let sq_length = params.sq_off.array as usize + params.sq_entries as usize * 4;
        let cq_length = params.cq_off.cqes as usize + params.cq_entries as usize * size_of::<Cqe>();
        let sqes_length = params.sq_entries as usize * size_of::<Sqe>();
        Ok(Self {
            sq: Mapping::new(&fd, sq_length, OFFSET_SQ)?,
            cq: Mapping::new(&fd, cq_length, OFFSET_CQ)?,
            sqes: Mapping::new(&fd, sqes_length, OFFSET_SQES)?,
            fd,
            params,
        })
    }

    /// Sends some of the bytes.
    pub(crate) fn send(&mut self, fd: c_int, bytes: &[u8]) -> Result<usize> {
        self.run(OP_SEND, fd, bytes.as_ptr() as u64, bytes.len()).context("io_uring send")
    }

    /// Receives some bytes.
    pub(crate) fn receive(&mut self, fd: c_int, buffer: &mut [u8]) -> Result<usize> {
        self.run(OP_RECV, fd, buffer.as_mut_ptr() as u64, buffer.len()).context("io_uring recv")
    }

    /// One operation, to its end. The bytes at `addr` are borrowed by the callers for as long as this runs.
    fn run(&mut self, opcode: u8, fd: c_int, addr: u64, length: usize) -> Result<usize> {
        let tail = self.sq.counter(self.params.sq_off.tail);
        let place = tail.load(Ordering::Relaxed) & (self.params.sq_entries - 1);
        let entry = Sqe { opcode, fd, addr, len: u32::try_from(length)?, user_data: 1, ..Sqe::default() };
        // SAFETY: `place` is below the number of entries; the kernel reads none before the tail moves.
        unsafe {
            self.sqes.at::<Sqe>(0).add(place as usize).write(entry);
            self.sq.at::<u32>(self.params.sq_off.array).add(place as usize).write(place);
        }
        tail.fetch_add(1, Ordering::Release);
        // SAFETY: no signal mask; the ring and the bytes live until the completion has come.
        let entered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd.as_raw_fd(),
                1_u32,
                1_u32,
                ENTER_GETEVENTS,
                ptr::null::<c_void>(),
                0_usize,
            )
        };
        if entered < 0 {
            return Err(std::io::Error::last_os_error()).context("io_uring_enter");
        }
        let head = self.cq.counter(self.params.cq_off.head);
        while head.load(Ordering::Relaxed) == self.cq.counter(self.params.cq_off.tail).load(Ordering::Acquire)
        {
            std::thread::yield_now();
        }
        let place = head.load(Ordering::Relaxed) & (self.params.cq_entries - 1);
        // SAFETY: the tail is past this entry, so the kernel has written it.
        let result = unsafe { (*self.cq.at::<Cqe>(self.params.cq_off.cqes).add(place as usize)).res };
        head.fetch_add(1, Ordering::Release);
        usize::try_from(result).map_err(|_| std::io::Error::from_raw_os_error(-result).into())
    }
}
