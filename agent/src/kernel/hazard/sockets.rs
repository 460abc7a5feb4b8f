//! Whether a socket in a sockhash still tells how much it has to read. Tried with a connection of the agent to itself.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use super::raw::Map;
use super::trial::Trial;

const SENT: [u8; 100] = [b'.'; 100];
/// What the loopback device may take.
const PATIENCE: Duration = Duration::from_millis(20);

pub(super) fn trial() -> io::Result<Trial> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut reader = TcpStream::connect(listener.local_addr()?)?;
    let (mut writer, from) = listener.accept()?;
    if from != reader.local_addr()? {
        return Err(io::Error::other("somebody else connected to the port of the trial"));
    }
    // First without a map: a network that loses bytes is no finding.
    writer.write_all(&SENT)?;
    if !tells(&reader, SENT.len()) {
        return Err(io::Error::other("the loopback device does not deliver"));
    }
    io::Read::read_exact(&mut reader, &mut [0; SENT.len()])?;
    let map = Map::sockets()?;
    map.insert(1, reader.as_raw_fd())?;
    writer.write_all(&SENT)?;
    Ok(if tells(&reader, SENT.len()) { Trial::Sound } else { Trial::Harmful })
}

fn tells(socket: &TcpStream, wanted: usize) -> bool {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut waiting: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int to a live one.
        #[expect(unsafe_code, reason = "system call")]
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut waiting) };
        if result == 0 && usize::try_from(waiting) == Ok(wanted) {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
