//! Connected pairs of sockets. In: a family. Out: the client's and the server's end.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use anyhow::{Context, Result};

use crate::io;

/// Address family.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Tcp4,
    Tcp6,
    Mapped,
    Unix,
}

impl Family {
    pub(crate) const ALL: [Self; 4] = [Self::Tcp4, Self::Tcp6, Self::Mapped, Self::Unix];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp4 => "tcp4",
            Self::Tcp6 => "tcp6",
            Self::Mapped => "mapped",
            Self::Unix => "unix",
        }
    }
}

/// Connects a client to a server, with small send buffers if asked.
pub(crate) fn connect(family: Family, small: bool) -> Result<(OwnedFd, OwnedFd)> {
    let (client, server) = match family {
        Family::Unix => unix()?,
        Family::Tcp4 => tcp("127.0.0.1:0", None)?,
        Family::Tcp6 => tcp("[::1]:0", None)?,
        // The listener takes both; the client writes its IPv4 address as an IPv6 one.
        Family::Mapped => tcp("[::]:0", Some(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 1)))?,
    };
    if small {
        io::small_buffers(&client)?;
        io::small_buffers(&server)?;
    }
    Ok((client, server))
}

fn tcp(listen: &str, to: Option<Ipv6Addr>) -> Result<(OwnedFd, OwnedFd)> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    let mut address = listener.local_addr()?;
    if let Some(to) = to {
        address = SocketAddr::new(to.into(), address.port());
    }
    let client = TcpStream::connect(address)?;
    let (server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    Ok((client.into(), server.into()))
}

fn unix() -> Result<(OwnedFd, OwnedFd)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path)?;
    let client = UnixStream::connect(&path)?;
    let (server, _) = listener.accept()?;
    Ok((client.into(), server.into()))
}
