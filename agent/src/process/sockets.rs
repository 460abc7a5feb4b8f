//! Listening sockets of processes: `/proc/PID/net` of each network namespace, joined with `/proc/PID/fd`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::procfs::Proc;

/// Descriptors of a process that are looked at for sockets that it may have closed.
const MOST_DESCRIPTORS: usize = 4096;

/// Listening sockets by inode, read once for each network namespace.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    namespaces: HashMap<u64, HashMap<u64, String>>,
}

impl Listeners {
    /// Addresses a process listens on, such as `127.0.0.1:80` or `unix:/run/x`.
    pub(super) fn of(&mut self, proc: &Proc, pid: u32) -> Vec<String> {
        let Some(namespace) = proc.namespace(pid, "net") else { return Vec::new() };
        let sockets = self.namespaces.entry(namespace).or_insert_with(|| listening(proc, pid));
        let mut found: Vec<String> =
            descriptors(proc, pid).filter_map(|inode| sockets.get(&inode).cloned()).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Inodes of the sockets that a process has open.
pub(super) fn descriptors(proc: &Proc, pid: u32) -> impl Iterator<Item = u64> {
    std::fs::read_dir(proc.path(pid, "fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| inode_of(&std::fs::read_link(entry.ok()?.path()).ok()?))
}

/// The inode of a descriptor that is a socket, by its link.
fn inode_of(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Which of these unix sockets a process surely does not hold any more: they are neither among its descriptors nor, for the case that
/// another process holds them, in the list of its network. Of a process that cannot be looked at, or has too many, nothing is sure.
pub fn closed_sockets(proc: &Proc, pid: u32, inodes: &[u64]) -> Vec<u64> {
    let mut missing = inodes.to_vec();
    let Ok(entries) = std::fs::read_dir(proc.path(pid, "fd")) else { return Vec::new() };
    for (count, entry) in entries.enumerate() {
        if missing.is_empty() || count >= MOST_DESCRIPTORS {
            return Vec::new();
        }
        // One that closes meanwhile has no link any more, and is none that is asked for: those are quiet.
        let Ok(link) = entry.and_then(|entry| std::fs::read_link(entry.path())) else { continue };
        if let Some(inode) = inode_of(&link) {
            missing.retain(|wanted| *wanted != inode);
        }
    }
    let Ok(text) = std::fs::read(proc.path(pid, "net/unix")) else { return Vec::new() };
    for line in String::from_utf8_lossy(&text).lines().skip(1) {
        if let Some(inode) = line.split_ascii_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok())
        {
            missing.retain(|wanted| *wanted != inode);
        }
    }
    missing
}

fn listening(proc: &Proc, pid: u32) -> HashMap<u64, String> {
    let read = |name: &str| {
        std::fs::read(proc.path(pid, name))
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    };
    let (v4, v6, unix) = (read("net/tcp"), read("net/tcp6"), read("net/unix"));
    v4.lines().chain(v6.lines()).filter_map(inet_line).chain(unix.lines().filter_map(unix_line)).collect()
}

/// A line of `net/tcp` or `net/tcp6`, if the socket listens.
fn inet_line(line: &str) -> Option<(u64, String)> {
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.rsplit_once(':')?;
    let listens = fields.nth(1)? == "0A";
    let inode = fields.nth(5)?.parse().ok()?;
    listens.then(|| {
        Some((inode, SocketAddr::new(address_of(address)?, u16::from_str_radix(port, 16).ok()?).to_string()))
    })?
}

/// An address as the kernel prints it: words of network bytes, each as a number of this machine.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let bytes: Vec<u8> = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)))
        }
        _ => None,
    }
}

/// A line of `net/unix`, if the socket is a stream that accepts connections.
fn unix_line(line: &str) -> Option<(u64, String)> {
    let mut fields = line.split_ascii_whitespace();
    let (flags, kind) = (fields.nth(3)?, fields.next()?);
    let inode = fields.nth(1)?.parse().ok()?;
    // __SO_ACCEPTCON and SOCK_STREAM.
    let listens = u32::from_str_radix(flags, 16).ok()? & 0x1_0000 != 0 && kind == "0001";
    listens.then(|| (inode, format!("unix:{}", fields.next().unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let v4 = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x";
        assert_eq!(inet_line(v4), Some((4711, "127.0.0.1:8080".into())));
        assert_eq!(inet_line(&v4.replace(" 0A ", " 01 ")), None);
        let v6 = "  1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 12 1";
        assert_eq!(inet_line(v6), Some((12, "[::1]:80".into())));
        assert_eq!(inet_line("  sl  local_address rem_address   st"), None);
        let unix = "ffff8: 00000002 00000000 00010000 0001 01 31415 /run/x.sock";
        assert_eq!(unix_line(unix), Some((31_415, "unix:/run/x.sock".into())));
        assert_eq!(unix_line(&unix.replace("00010000", "00000000")), None);
        assert_eq!(unix_line("Num       RefCount Protocol Flags    Type St Inode Path"), None);
    }

    #[test]
    fn sockets_that_were_closed() {
        use std::os::fd::AsRawFd;
        use std::os::unix::net::UnixStream;
        let (proc, own) = (Proc::default(), std::process::id());
        let inode = |stream: &UnixStream| {
            let link = format!("/proc/self/fd/{}", stream.as_raw_fd());
            inode_of(&std::fs::read_link(link).unwrap()).unwrap()
        };
        let (one, two) = UnixStream::pair().unwrap();
        let inodes = [inode(&one), inode(&two)];
        assert!(closed_sockets(&proc, own, &inodes).is_empty());
        drop(two);
        assert_eq!(closed_sockets(&proc, own, &inodes), [inodes[1]]);
        // Of who is not there nothing is known.
        assert!(closed_sockets(&proc, u32::MAX, &inodes).is_empty());
    }

    #[test]
    fn this_process() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let six = std::net::TcpListener::bind("[::1]:0");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let found = Listeners::default().of(&Proc::default(), std::process::id());
        assert!(found.contains(&tcp.local_addr().unwrap().to_string()), "{found:?}");
        assert!(found.contains(&format!("unix:{}", path.display())), "{found:?}");
        if let Ok(six) = six {
            assert!(found.contains(&six.local_addr().unwrap().to_string()), "{found:?}");
        }
    }
}
