//! An exchange and the decision on its parent in, a span by the stable HTTP conventions out, or by those of remote procedure calls or
//! of databases.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use spanwise_protocol::message::{Request, Rpc, RpcSystem, Version};

use super::clock::Clock;
use super::model::{Decision, Kind, ParentSource, Span, Status};
use super::{redact, route, semconv as key};
use crate::attribute::{Attribute, Text, Value};
use crate::conn::{Authority, ConnInfo, Endpoint};
use crate::session::{Exchange, Outcome, Side};

mod db;
mod rpc;

/// Attributes that a span has at most, nearly.
const USUAL: usize = 20;

/// Which names are written beside those of the present conventions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conventions {
    /// Remote procedure calls also as up to 1.37.
    pub old_rpc_names: bool,
}

/// Makes the span of an exchange. Both are used up: their texts move into the span.
pub fn build(exchange: Exchange, decision: Decision, clock: &Clock, conventions: Conventions) -> Span {
    build_in(Vec::with_capacity(USUAL), exchange, decision, clock, conventions)
}

/// The same with the attributes in this list, which is emptied first: that of the span before can be used again.
pub fn build_in(
    mut list: Vec<Attribute>,
    mut exchange: Exchange,
    decision: Decision,
    clock: &Clock,
    conventions: Conventions,
) -> Span {
    list.clear();
    let server = exchange.side == Side::Server;
    let (start_unix_ns, end_unix_ns) = clock.interval(exchange.began_ns, exchange.ended_ns);
    let mut attributes = Attributes(list);
    // An answer may tell that it was a call where the request's fields could not be decoded.
    let answered = exchange.rpc.as_ref().map(|_| Rpc { system: RpcSystem::Grpc, timeout_ns: None });
    // Connect is HTTP to the last: its method is the path, its status that of HTTP, and what more it has stands in bodies.
    let call = exchange.request.rpc.or(answered).filter(|call| call.system != RpcSystem::Connect);
    let (name, error) = if let Some(seen) = exchange.db.take() {
        let (name, error) = db::describe(&mut attributes, &exchange, *seen);
        attributes.network(&exchange);
        attributes.encryption(&exchange);
        attributes.host(Host::find(None, "", server, &exchange.conn));
        (name, error)
    } else if let Some(call) = call {
        let (name, error) = rpc::describe(&mut attributes, &exchange, call, conventions.old_rpc_names);
        attributes.network(&exchange);
        attributes.encryption(&exchange);
        let Request { authority, scheme, .. } = exchange.request;
        let scheme = scheme.as_deref().unwrap_or_else(|| scheme_of(&exchange.conn));
        attributes.host(Host::find(authority, scheme, server, &exchange.conn));
        (name, error)
    } else {
        let error = error(&exchange);
        let name = attributes.method(&exchange.request.method);
        attributes.message(&exchange);
        attributes.network(&exchange);
        attributes.encryption(&exchange);
        let name = attributes.route(name, exchange.route.as_deref().filter(|_| server));
        attributes.target(server, exchange.request, &exchange.conn);
        (name, error)
    };
    let status = if error.is_some() { Status::Error } else { Status::Unset };
    if let Some(error) = error {
        attributes.text(key::ERROR_TYPE, error);
    }
    attributes.text(key::PARENT_SOURCE, source(decision.source));
    attributes.push(key::PARENT_CONFIDENCE, Value::Double(decision.confidence));
    Span {
        trace_id: decision.trace_id,
        span_id: decision.span_id,
        parent_span_id: decision.parent_span_id,
        parent_is_remote: decision.parent_is_remote,
        trace_flags: decision.trace_flags,
        trace_state: decision.trace_state,
        name,
        kind: if server { Kind::Server } else { Kind::Client },
        start_unix_ns,
        end_unix_ns,
        attributes: attributes.0,
        status,
        links: decision.links,
        service: exchange.service,
    }
}

/// Value of `spanwise.parent.source`.
pub const fn source(source: ParentSource) -> &'static str {
    match source {
        ParentSource::Root => "root",
        ParentSource::Wire => "wire",
        ParentSource::Peer => "peer",
        ParentSource::Goroutine => "goroutine",
        ParentSource::Only => "only",
        ParentSource::Thread => "thread",
        ParentSource::LastIn => "last_in",
        ParentSource::FirstInFirstOut => "first_in_first_out",
        ParentSource::StartOrder => "start_order",
        ParentSource::InOrder => "in_order",
        ParentSource::Chain => "chain",
        ParentSource::Abstained => "abstained",
    }
}

/// Value of `error.type`, if the exchange failed as its side sees it: a server is not to blame for 4xx.
fn error(exchange: &Exchange) -> Option<Text> {
    let status = exchange.response.as_ref().map_or(0, |response| response.status);
    let first = if exchange.side == Side::Server { 500 } else { 400 };
    if (first..600).contains(&status) {
        return Some(match status {
            400 => "400".into(),
            404 => "404".into(),
            500 => "500".into(),
            502 => "502".into(),
            503 => "503".into(),
            504 => "504".into(),
            _ => status.to_string().into(),
        });
    }
    unanswered(exchange)
}

/// Value of `error.type` of an exchange that was broken off.
fn unanswered(exchange: &Exchange) -> Option<Text> {
    match exchange.outcome {
        Outcome::Aborted => {}
        Outcome::Foreign => return Some(Text::Constant(key::NO_HTTP)),
        _ => return None,
    }
    Some(exchange.reset.map_or(Text::Constant(key::CONNECTION_CLOSED), key::reset))
}

/// The scheme of a request that does not say its own.
fn scheme_of(conn: &ConnInfo) -> &'static str {
    if conn.tls.is_some() { "https" } else { "http" }
}

struct Attributes(Vec<Attribute>);

impl Attributes {
    fn push(&mut self, key: &'static str, value: Value) {
        self.0.push((Cow::Borrowed(key), value));
    }

    fn text(&mut self, key: &'static str, text: impl Into<Text>) {
        self.push(key, Value::Str(text.into()));
    }

    fn int(&mut self, key: &'static str, int: impl TryInto<i64>) {
        self.push(key, Value::Int(int.try_into().unwrap_or(i64::MAX)));
    }

    /// The method; gives the name of the span, which no request can make grow in number.
    fn method(&mut self, method: &str) -> &'static str {
        let Some(known) = key::known_method(method) else {
            self.text(key::HTTP_REQUEST_METHOD, key::METHOD_OTHER);
            // Empty: it was not decoded.
            if !method.is_empty() {
                self.text(key::HTTP_REQUEST_METHOD_ORIGINAL, method.to_owned());
            }
            return "HTTP";
        };
        self.text(key::HTTP_REQUEST_METHOD, known);
        known
    }

    /// The pattern that the server matched; gives the name of the span.
    fn route(&mut self, method: &'static str, pattern: Option<&str>) -> Cow<'static, str> {
        let Some(path) = pattern.and_then(route::path) else { return Cow::Borrowed(method) };
        self.text(key::HTTP_ROUTE, path.to_owned());
        Cow::Owned(format!("{method} {path}"))
    }

    /// Status, sizes, and how much of the exchange was seen.
    fn message(&mut self, exchange: &Exchange) {
        let Exchange { request, response, outcome, .. } = exchange;
        self.text(key::NETWORK_PROTOCOL_VERSION, request.version.as_str());
        // Behind a cut head it is not known where the body begins, and zero may mean that its end was not seen.
        if !request.truncated && (exchange.request_body > 0 || request.content_length == Some(0)) {
            self.int(key::HTTP_REQUEST_BODY_SIZE, exchange.request_body);
        }
        if let Some(response) = response {
            // Zero: it was not decoded.
            if response.status != 0 {
                self.int(key::HTTP_RESPONSE_STATUS_CODE, response.status);
            }
            if !response.truncated && *outcome == Outcome::Complete {
                self.int(key::HTTP_RESPONSE_BODY_SIZE, exchange.response_body);
            }
        }
        self.seen(exchange);
    }

    /// How much of the exchange was seen.
    fn seen(&mut self, exchange: &Exchange) {
        let Exchange { request, response, outcome, .. } = exchange;
        let cut = request.truncated || response.as_ref().is_some_and(|response| response.truncated);
        self.how_much(*outcome, response.is_some(), cut);
    }

    /// The same, of whatever protocol: whether an answer was read, and whether a head was cut.
    fn how_much(&mut self, outcome: Outcome, answered: bool, cut: bool) {
        let incomplete = match outcome {
            Outcome::Gap | Outcome::Headless => Some("gap"),
            Outcome::Unfinished => Some("unfinished"),
            Outcome::Complete | Outcome::Upgraded if !answered => Some("response_head"),
            Outcome::Complete | Outcome::Upgraded | Outcome::Aborted | Outcome::Foreign => None,
        };
        if let Some(reason) = incomplete {
            self.text(key::INCOMPLETE, reason);
        }
        if cut {
            self.push(key::TRUNCATED, Value::Bool(true));
        }
    }

    /// The other end of the connection.
    fn network(&mut self, exchange: &Exchange) {
        let Endpoint::Inet(peer) = exchange.conn.remote else {
            self.text(key::NETWORK_TRANSPORT, "unix");
            return;
        };
        if let Some(address) = exchange.conn.remote_address() {
            if exchange.side == Side::Server {
                self.text(key::CLIENT_ADDRESS, Arc::clone(&address));
            }
            self.text(key::NETWORK_PEER_ADDRESS, address);
        }
        self.int(key::NETWORK_PEER_PORT, peer.port());
    }

    /// What is known of the connection's encryption.
    fn encryption(&mut self, exchange: &Exchange) {
        let Some(tls) = &exchange.conn.tls else { return };
        if let Some(version) = tls.version_name() {
            self.text(key::TLS_PROTOCOL_VERSION, version);
        }
        if let Some(protocol) = tls.next_protocol(exchange.request.version == Version::Http2) {
            self.text(key::TLS_NEXT_PROTOCOL, protocol.to_owned());
        }
        if let Some(name) = &tls.server_name {
            self.text(key::TLS_CLIENT_SERVER_NAME, name.clone());
        }
    }

    /// What was asked of whom.
    fn target(&mut self, is_server: bool, request: Request, conn: &ConnInfo) {
        let Request { method, path, query, authority, scheme, user_agent, .. } = request;
        let scheme = scheme.map_or(Text::Constant(scheme_of(conn)), Text::from);
        let host = Host::find(authority, &scheme, is_server, conn);
        let tunnel = &*method == "CONNECT";
        if is_server {
            // Empty: it was not decoded.
            if !tunnel && !path.is_empty() {
                self.text(key::URL_PATH, path);
                if let Some(query) = query.filter(|query| !query.is_empty()) {
                    self.text(key::URL_QUERY, redact::query(&query));
                }
            }
            self.text(key::URL_SCHEME, scheme);
            if let Some(agent) = user_agent {
                self.text(key::USER_AGENT_ORIGINAL, agent);
            }
        } else if !tunnel {
            self.text(key::URL_FULL, full(&scheme, &host, &path, query.as_deref()));
        }
        self.host(host);
    }

    /// The server.
    fn host(&mut self, host: Host) {
        if !host.address.is_empty() {
            self.text(key::SERVER_ADDRESS, host.address);
            if let Some(port) = host.port {
                self.int(key::SERVER_PORT, port);
            }
        }
    }
}

/// The server as the client names it.
struct Host {
    address: Text,
    port: Option<u16>,
    /// The port goes without saying.
    default_port: bool,
}

impl Host {
    /// From the authority; where there is none, from the server's end of the connection.
    fn find(authority: Option<Box<str>>, scheme: &str, is_server: bool, conn: &ConnInfo) -> Self {
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
fn named(sent: Box<str>, conn: &ConnInfo) -> Option<(Text, Option<u16>)> {
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

/// The URL of a client's request, without secrets.
fn full(scheme: &str, host: &Host, path: &str, query: Option<&str>) -> String {
    let mut url = String::with_capacity(
        scheme.len() + host.address.len() + path.len() + query.map_or(0, str::len) + 32,
    );
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
    // The target of OPTIONS * has no place in a URL.
    if path != "*" {
        url.push_str(path);
    }
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        url.push('?');
        redact::push_query(&mut url, query);
    }
    url
}

#[cfg(test)]
mod tests;
