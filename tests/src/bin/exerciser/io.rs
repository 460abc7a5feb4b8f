//! The system calls. In: a socket, a way, bytes. Out: one HTTP message sent or received in that way.
#![expect(unsafe_code, reason = "this program exists to make system calls directly")]

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;

use anyhow::{Context, Result, bail};
use libc::{c_int, c_void, iovec};

use crate::uring::Ring;

/// How to send: the calls by their own names.
#[expect(clippy::enum_variant_names, reason = "calls are called by their names")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Send {
    Write,
    Writev,
    Send,
    Sendto,
    Sendmsg,
    Sendmmsg,
    Sendfile,
    Splice,
    /// Without blocking, into small buffers: partial writes and EAGAIN.
    Partial,
    Uring,
}

/// How to receive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receive {
    Read,
    Readv,
    Recv,
    Recvfrom,
    Recvmsg,
    Recvmmsg,
    /// Peek first, then read the head; splice the body.
    Splice,
    /// Peek at all, then receive it.
    Peek,
    Nonblocking,
    OneByte,
    Uring,
}

fn done(result: isize, call: &str) -> Result<usize> {
    usize::try_from(result).map_err(|_| std::io::Error::last_os_error()).with_context(|| call.to_owned())
}

fn vector(bytes: &[u8]) -> iovec {
    iovec { iov_base: bytes.as_ptr() as *mut c_void, iov_len: bytes.len() }
}

fn vector_mut(bytes: &mut [u8]) -> iovec {
    iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn header(vectors: &mut [iovec]) -> libc::msghdr {
    // SAFETY: all zeroes is a valid msghdr: no name, no vectors, no control data.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = vectors.len();
    header
}

/// Sends a head and a body.
pub(crate) fn send(way: Send, fd: c_int, head: &[u8], body: &[u8]) -> Result<()> {
    let whole = [head, body].concat();
    match way {
        Send::Write => all(&whole, |bytes| {
            // SAFETY: the slice is alive during the call.
            done(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) }, "write")
        }),
        Send::Send => all(&whole, |bytes| {
            // SAFETY: the slice is alive during the call.
            done(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), 0) }, "send")
        }),
        Send::Sendto => all(&whole, |bytes| {
            // SAFETY: the slice is alive during the call; there is no address.
            done(unsafe { libc::sendto(fd, bytes.as_ptr().cast(), bytes.len(), 0, ptr::null(), 0) }, "sendto")
        }),
        Send::Writev => in_vectors(&whole, |vectors| {
            let count = c_int::try_from(vectors.len())?;
            // SAFETY: the vectors point into a slice that is alive during the call.
            done(unsafe { libc::writev(fd, vectors.as_ptr(), count) }, "writev")
        }),
        Send::Sendmsg => in_vectors(&whole, |vectors| {
            let message = header(vectors);
            // SAFETY: the header points at vectors into a slice that is alive during the call.
            done(unsafe { libc::sendmsg(fd, &raw const message, 0) }, "sendmsg")
        }),
        Send::Sendmmsg => sendmmsg(fd, head, body),
        Send::Sendfile => {
            send(Send::Write, fd, head, &[])?;
            sendfile(fd, body)
        }
        Send::Splice => {
            send(Send::Write, fd, head, &[])?;
            splice_out(fd, body)
        }
        Send::Partial => all(&whole, |bytes| {
            // SAFETY: the slice is alive during the call.
            let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
            if would_block(sent) {
                wait(fd, libc::POLLOUT);
                return Ok(0);
            }
            done(sent, "send without blocking")
        }),
        Send::Uring => {
            let mut ring = Ring::new()?;
            all(&whole, |bytes| ring.send(fd, bytes))
        }
    }
}

/// Repeats a call that takes some of the bytes until it took all.
fn all(mut bytes: &[u8], mut call: impl FnMut(&[u8]) -> Result<usize>) -> Result<()> {
    while !bytes.is_empty() {
        let taken = call(bytes)?;
        bytes = bytes.get(taken..).context("more taken than given")?;
    }
    Ok(())
}

/// The same with three vectors, the first of them short, the second empty.
fn in_vectors(bytes: &[u8], mut call: impl FnMut(&mut [iovec]) -> Result<usize>) -> Result<()> {
    all(bytes, |bytes| {
        let (first, rest) = bytes.split_at(bytes.len().min(5));
        let (second, third) = rest.split_at(rest.len() / 2);
        call(&mut [vector(first), vector(&[]), vector(second), vector(third)])
    })
}

fn would_block(result: isize) -> bool {
    result < 0 && std::io::Error::last_os_error().kind() == std::io::ErrorKind::WouldBlock
}

fn wait(fd: c_int, events: libc::c_short) {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one live pollfd.
    unsafe { libc::poll(&raw mut poll, 1, 5_000) };
}

fn sendmmsg(fd: c_int, head: &[u8], body: &[u8]) -> Result<()> {
    let (mut first, mut second) = ([vector(head)], [vector(body)]);
    let mut messages =
        [&mut first, &mut second].map(|vectors| libc::mmsghdr { msg_hdr: header(vectors), msg_len: 0 });
    // SAFETY: both headers point at vectors into slices that are alive during the call.
    let sent = unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), 2, 0) };
    let lengths: usize = messages.iter().map(|message| message.msg_len as usize).sum();
    if sent != 2 || lengths != head.len() + body.len() {
        bail!("sendmmsg sent {sent} messages, {lengths} bytes: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

fn sendfile(fd: c_int, body: &[u8]) -> Result<()> {
    // SAFETY: a constant name; the descriptor is owned from here on.
    let raw = unsafe { libc::memfd_create(c"body".as_ptr(), libc::MFD_CLOEXEC) };
    if raw < 0 {
        return Err(std::io::Error::last_os_error()).context("memfd_create");
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let file = unsafe { OwnedFd::from_raw_fd(raw) };
    // The file's bytes are written without a socket; only sendfile touches one.
    let mut writer = std::fs::File::from(file);
    std::io::Write::write_all(&mut writer, body)?;
    let mut offset: libc::off_t = 0;
    while usize::try_from(offset)? < body.len() {
        // SAFETY: both descriptors are open, the offset is alive.
        let sent = unsafe { libc::sendfile(fd, writer.as_raw_fd(), &raw mut offset, body.len()) };
        done(sent, "sendfile")?;
    }
    Ok(())
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: pipe2 writes two descriptors into the array of two.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(std::io::Error::last_os_error()).context("pipe2");
    }
    let [read_end, write_end] = ends;
    // SAFETY: both descriptors were just made and belong to nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(read_end), OwnedFd::from_raw_fd(write_end)) })
}

fn splice(from: c_int, to: c_int, length: usize) -> Result<usize> {
    // SAFETY: no offsets; both descriptors are open.
    done(unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), length, 0) }, "splice")
}

fn splice_out(fd: c_int, body: &[u8]) -> Result<()> {
    let (read_end, write_end) = pipe()?;
    for part in body.chunks(16_384) {
        send_to_pipe(&write_end, part)?;
        let mut left = part.len();
        while left > 0 {
            left -= splice(read_end.as_raw_fd(), fd, left)?;
        }
    }
    Ok(())
}

fn send_to_pipe(pipe: &OwnedFd, bytes: &[u8]) -> Result<()> {
    all(bytes, |bytes| {
        // SAFETY: the slice is alive during the call.
        done(unsafe { libc::write(pipe.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) }, "write to a pipe")
    })
}

/// Receives one message; gives its head and the length of its body.
pub(crate) fn receive(way: Receive, fd: c_int) -> Result<(Vec<u8>, usize)> {
    if way == Receive::Splice {
        return receive_spliced(fd);
    }
    let mut ring = if way == Receive::Uring { Some(Ring::new()?) } else { None };
    let mut bytes = Vec::new();
    let mut buffer = vec![0; if way == Receive::OneByte { 1 } else { 8_192 }];
    loop {
        if let Some((head, body)) = ends(&bytes)?
            && bytes.len() == head + body
        {
            bytes.truncate(head);
            return Ok((bytes, body));
        }
        let got = match ring.as_mut() {
            Some(ring) => ring.receive(fd, &mut buffer)?,
            None => some(way, fd, &mut buffer)?,
        };
        if got == 0 {
            bail!("the connection ended after {} bytes", bytes.len());
        }
        bytes.extend(buffer.get(..got).context("more received than there is room for")?);
    }
}

/// Lengths of head and body, once the head is whole.
fn ends(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(bytes.get(..at).unwrap_or_default()).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).context("no length")?;
    Ok(Some((at + 4, length.parse()?)))
}

/// One call.
fn some(way: Receive, fd: c_int, buffer: &mut [u8]) -> Result<usize> {
    let (start, length) = (buffer.as_mut_ptr().cast::<c_void>(), buffer.len());
    match way {
        Receive::Read | Receive::OneByte => {
            // SAFETY: the buffer is alive during the call and `length` long.
            done(unsafe { libc::read(fd, start, length) }, "read")
        }
        // SAFETY: as above.
        Receive::Recv => done(unsafe { libc::recv(fd, start, length, 0) }, "recv"),
        Receive::Recvfrom => {
            // SAFETY: as above; no address is asked for.
            done(
                unsafe { libc::recvfrom(fd, start, length, 0, ptr::null_mut(), ptr::null_mut()) },
                "recvfrom",
            )
        }
        Receive::Readv => {
            let (first, second) = buffer.split_at_mut(length.min(7));
            let vectors = [vector_mut(first), vector_mut(second)];
            // SAFETY: the vectors point into a buffer that is alive during the call.
            done(unsafe { libc::readv(fd, vectors.as_ptr(), 2) }, "readv")
        }
        Receive::Recvmsg => {
            let (first, second) = buffer.split_at_mut(length.min(7));
            let mut vectors = [vector_mut(first), vector_mut(second)];
            let mut message = header(&mut vectors);
            // SAFETY: the header points at vectors into a buffer that is alive during the call.
            done(unsafe { libc::recvmsg(fd, &raw mut message, 0) }, "recvmsg")
        }
        Receive::Recvmmsg => recvmmsg(fd, buffer),
        Receive::Peek => {
            // SAFETY: as for read.
            let seen = done(unsafe { libc::recv(fd, start, length, libc::MSG_PEEK) }, "peek")?;
            // SAFETY: as for read; no more is asked for than was seen.
            done(unsafe { libc::recv(fd, start, seen, 0) }, "recv after peek")
        }
        Receive::Nonblocking => loop {
            // SAFETY: as for read.
            let got = unsafe { libc::recv(fd, start, length, libc::MSG_DONTWAIT) };
            if !would_block(got) {
                return done(got, "recv without blocking");
            }
            wait(fd, libc::POLLIN);
        },
        Receive::Splice | Receive::Uring => bail!("these have a loop of their own"),
    }
}

/// Two messages are asked for, into two halves of which the first is filled before the second is begun.
fn recvmmsg(fd: c_int, buffer: &mut [u8]) -> Result<usize> {
    let (first, second) = buffer.split_at_mut(64);
    let (mut first, mut second) = ([vector_mut(first)], [vector_mut(second)]);
    let mut messages =
        [&mut first, &mut second].map(|vectors| libc::mmsghdr { msg_hdr: header(vectors), msg_len: 0 });
    // SAFETY: both headers point at vectors into a buffer that is alive during the call.
    let got = unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), 2, libc::MSG_WAITFORONE, ptr::null_mut()) };
    if got < 0 {
        return Err(std::io::Error::last_os_error()).context("recvmmsg");
    }
    Ok(messages.iter().take(usize::try_from(got)?).map(|message| message.msg_len as usize).sum())
}

fn receive_spliced(fd: c_int) -> Result<(Vec<u8>, usize)> {
    let mut buffer = vec![0_u8; 4_096];
    let (head, body) = loop {
        // SAFETY: the buffer is alive during the call and as long as said.
        let seen = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_PEEK) };
        let seen = done(seen, "peek")?;
        if seen == 0 {
            bail!("the connection ended");
        }
        if let Some(lengths) = ends(buffer.get(..seen).unwrap_or_default())? {
            break lengths;
        }
    };
    buffer.truncate(head);
    // SAFETY: the buffer is alive during the call and `head` long; that much was seen.
    done(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), head) }, "read")?;
    let (read_end, write_end) = pipe()?;
    let (mut left, mut sink) = (body, vec![0_u8; 65_536]);
    while left > 0 {
        let moved = splice(fd, write_end.as_raw_fd(), left)?;
        if moved == 0 {
            bail!("the connection ended with {left} bytes of the body to come");
        }
        // SAFETY: the sink is alive during the call and holds what a pipe holds.
        let drained =
            unsafe { libc::read(read_end.as_raw_fd(), sink.as_mut_ptr().cast(), moved.min(sink.len())) };
        done(drained, "read")?;
        left -= moved;
    }
    Ok((buffer, body))
}

/// Makes the send buffer as small as the kernel allows.
pub(crate) fn small_buffers(socket: &OwnedFd) -> Result<()> {
    let size: c_int = 4_608;
    // SAFETY: a live integer of the stated size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const size).cast(),
            libc::socklen_t::try_from(size_of::<c_int>())?,
        )
    };
    done(isize::try_from(result)?, "setsockopt")?;
    Ok(())
}
