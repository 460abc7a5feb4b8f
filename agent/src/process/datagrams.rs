//! UDP sockets of processes on the port of HTTP/3: `/proc/PID/net` of each network namespace, joined with `/proc/PID/fd`.

use std::collections::HashMap;

use super::procfs::Proc;
use super::sockets::descriptors;

/// The port of HTTPS, which HTTP/3 shares.
const PORT: u16 = 443;

/// How a process uses UDP port 443.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Datagrams {
    /// A socket is bound to it.
    pub bound: bool,
    /// A socket is connected to it elsewhere.
    pub connected: bool,
}

/// Sockets on the port by inode, read once for each network namespace.
#[derive(Debug, Default)]
pub struct QuicSockets {
    namespaces: HashMap<u64, HashMap<u64, Datagrams>>,
}

impl QuicSockets {
    /// What a process has open now.
    pub fn of(&mut self, proc: &Proc, pid: u32) -> Datagrams {
        let mut found = Datagrams::default();
        let Some(namespace) = proc.namespace(pid, "net") else { return found };
        let sockets = self.namespaces.entry(namespace).or_insert_with(|| sockets(proc, pid));
        // Most have none, and then nobody's descriptors are looked at.
        if sockets.is_empty() {
            return found;
        }
        for one in descriptors(proc, pid).filter_map(|inode| sockets.get(&inode)) {
            found.bound |= one.bound;
            found.connected |= one.connected;
        }
        found
    }
}

fn sockets(proc: &Proc, pid: u32) -> HashMap<u64, Datagrams> {
    let mut all = HashMap::new();
    for name in ["net/udp", "net/udp6"] {
        let text = std::fs::read(proc.path(pid, name)).unwrap_or_default();
        all.extend(String::from_utf8_lossy(&text).lines().filter_map(line));
    }
    all
}

/// A line of `net/udp` or `net/udp6`, if the port is at either end.
fn line(line: &str) -> Option<(u64, Datagrams)> {
    let mut fields = line.split_ascii_whitespace();
    let mut port = |skipped: usize| {
        let (_, port) = fields.nth(skipped)?.rsplit_once(':')?;
        u16::from_str_radix(port, 16).ok()
    };
    let (own, other) = (port(1)?, port(0)?);
    let inode = fields.nth(6)?.parse().ok()?;
    let found = Datagrams { bound: own == PORT, connected: other == PORT };
    (found != Datagrams::default()).then_some((inode, found))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn lines() {
        let bound = "  77: 00000000:01BB 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 x 0";
        assert_eq!(line(bound), Some((4711, Datagrams { bound: true, connected: false })));
        let connected = bound.replace(":01BB 00000000:0000", ":D431 0100007F:01BB");
        assert_eq!(line(&connected), Some((4711, Datagrams { bound: false, connected: true })));
        assert_eq!(line(&bound.replace("01BB", "0035")), None);
        let six = "  1: 00000000000000000000000001000000:01BB 00000000000000000000000000000000:0000 07 0:0 0:0 0 0 0 12 2";
        assert_eq!(line(six), Some((12, Datagrams { bound: true, connected: false })));
        for other in ["  sl  local_address rem_address   st tx_queue", "", "1: x", "1: :zz :1"] {
            assert_eq!(line(other), None, "{other}");
        }
    }

    #[test]
    fn this_process() {
        let here = || QuicSockets::default().of(&Proc::default(), std::process::id());
        assert_eq!(here(), Datagrams::default());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(here(), Datagrams::default(), "another port");
        socket.connect("127.0.0.1:443").unwrap();
        assert_eq!(here(), Datagrams { bound: false, connected: true });
    }
}
