//! Whom a request was sent to: authority, scheme and connection in, host, port and URL out.

use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;

use crate::attribute::Text;
use crate::conn::{Authority, ConnInfo, Endpoint};
use crate::span::redact;

/// The server as the client names it.
pub(super) struct Host {
    pub(super) address: Text,
    pub(super) port: Option<u16>,
    /// The port goes without saying.
    default_port: bool,
}

impl Host {
    /// From the authority; where there is none, from the server's end of the connection.
    pub(super) fn find(authority: Option<Rc<str>>, scheme: &str, is_server: bool, conn: &ConnInfo) -> Self {
        let usual = match scheme {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            _ => None,
        };
        if let Some((address, port)) = authority.and_then(|sent| named(sent, conn)) {
            let port = port.or(usual);
            return Self { address, port, default_port: port == usual };
        }
        let (endpoint, address) = if is_server {
            (&conn.local, conn.local_address())
        } else {
            (&conn.remote, conn.remote_address())
        };
        match (endpoint, address) {
            (Endpoint::Inet(at), Some(address)) => {
                let port = Some(at.port());
                let asked = conn.tls.as_ref().and_then(|tls| tls.server_name.clone());
                let address = asked.map_or_else(|| address.into(), Text::from);
                Self { address, port, default_port: port == usual }
            }
            _ => Self { address: "".into(), port: None, default_port: true },
        }
    }
}

/// Host and port of the authority that a request named; none if there is nothing in it.
fn named(sent: Rc<str>, conn: &ConnInfo) -> Option<(Text, Option<u16>)> {
    let known = &conn.texts.authority;
    if let Some(known) = known.get().filter(|known| known.sent == sent) {
        return Some((Arc::clone(&known.address).into(), known.port));
    }
    let authority = redact::authority(&sent);
    if authority.is_empty() {
        return None;
    }
    let (address, port) = split_port(authority);
    let address: Arc<str> = address.into();
    if authority.len() == sent.len() && known.get().is_none() {
        // Another thread cannot have been faster: spans are made on one.
        let _ = known.set(Authority { address: Arc::clone(&address), port, sent });
    }
    Some((address.into(), port))
}

/// Host and port of an authority; an IPv6 address without its brackets.
fn split_port(authority: &str) -> (&str, Option<u16>) {
    if let Some(rest) = authority.strip_prefix('[')
        && let Some((address, port)) = rest.split_once(']')
    {
        return (address, port.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match authority.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, port.parse().ok()),
        // No colon, or an address that lacks its brackets.
        _ => (authority, None),
    }
}

/// The URL of a client's request up to its path.
pub(super) fn begin_url(url: &mut String, scheme: &str, host: &Host) {
    url.push_str(scheme);
    url.push_str("://");
    if host.address.is_empty() {
        // A unix socket without a Host field.
        url.push_str("localhost");
    } else if host.address.contains(':') {
        url.push('[');
        url.push_str(&host.address);
        url.push(']');
    } else {
        url.push_str(&host.address);
    }
    if let Some(port) = host.port.filter(|_| !host.default_port) {
        // Writing to a String cannot fail.
        let _ = write!(url, ":{port}");
    }
}

/// The rest of it, without secrets.
pub(super) fn end_url(url: &mut String, path: &str, query: Option<&str>) {
    // The target of OPTIONS * has no place in a URL.
    if path != "*" {
        url.push_str(path);
    }
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        url.push('?');
        redact::push_query(url, query);
    }
}
