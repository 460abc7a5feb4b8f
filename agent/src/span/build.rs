//! An exchange and the decision on its parent in, a span by the stable HTTP conventions out, or by those of remote procedure calls or
//! of databases.

use std::borrow::Cow;
use std::sync::Arc;

use spanwise_protocol::message::{Request, Rpc, RpcSystem, Version};

use super::clock::Clock;
use super::model::{Decision, Kind, ParentSource, Span, Status};
use super::{redact, route, semconv as key};
use crate::attribute::{self, Attribute, Text, Value};
use crate::conn::{ConnInfo, Endpoint};
use crate::session::{Exchange, Outcome, Side};

mod common;
mod db;
mod rpc;
mod target;

pub use common::Commons;
use target::Host;

/// Attributes that a span has at most, nearly.
const USUAL: usize = 20;

/// Which names are written beside those of the present conventions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conventions {
    /// Remote procedure calls also as up to 1.37.
    pub old_rpc_names: bool,
}

/// Makes the span of an exchange. Both are used up: their texts move into the span.
pub fn build(
    exchange: impl Into<Box<Exchange>>,
    decision: Decision,
    clock: &Clock,
    conventions: Conventions,
) -> Span {
    let list = Vec::with_capacity(USUAL);
    build_in(list, &mut Commons::default(), exchange.into(), decision, clock, conventions)
}

/// The same with the attributes in this list, which is emptied first: that of the span before can be used again; and with what is
/// known of the spans before.
pub fn build_in(
    mut list: Vec<Attribute>,
    commons: &mut Commons,
    mut exchange: Box<Exchange>,
    decision: Decision,
    clock: &Clock,
    conventions: Conventions,
) -> Span {
    attribute::clear(&mut list);
    let server = exchange.side == Side::Server;
    let (start_unix_ns, end_unix_ns) = clock.interval(exchange.began_ns, exchange.ended_ns);
    let mut attributes = Attributes(list);
    let mut common = None;
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
        let name = attributes.route(name, exchange.route.as_deref().filter(|_| server));
        let url = match commons.of(&mut exchange) {
            Some(found) => {
                common = Some(Arc::clone(found.common));
                found.url.to_owned()
            }
            None => attributes.common(&mut exchange),
        };
        attributes.asked(server, exchange.request, url);
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
        common,
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

    /// What all requests that name the same server on this connection say alike. Gives the beginning of their URLs, for clients.
    fn common(&mut self, exchange: &mut Exchange) -> String {
        let Exchange { request, conn, .. } = exchange;
        let (authority, agent) = (request.authority.take(), request.user_agent.take());
        let scheme = request.scheme.take().map_or(Text::Constant(scheme_of(conn)), Text::from);
        let server = exchange.side == Side::Server;
        let host = Host::find(authority, &scheme, server, &exchange.conn);
        self.text(key::NETWORK_PROTOCOL_VERSION, exchange.request.version.as_str());
        self.network(exchange);
        self.encryption(exchange);
        let mut url = String::new();
        if server {
            self.text(key::URL_SCHEME, scheme);
            if let Some(agent) = agent {
                self.text(key::USER_AGENT_ORIGINAL, agent);
            }
        } else {
            let Request { path, query, .. } = &exchange.request;
            url.reserve(
                path.len() + query.as_deref().map_or(0, str::len) + scheme.len() + host.address.len() + 32,
            );
            target::begin_url(&mut url, &scheme, &host);
        }
        self.host(host);
        url
    }

    /// What was asked. `url`: its beginning.
    fn asked(&mut self, is_server: bool, request: Request, mut url: String) {
        let Request { method, path, query, .. } = request;
        if &*method == "CONNECT" {
            return;
        }
        if !is_server {
            target::end_url(&mut url, &path, query.as_deref());
            self.text(key::URL_FULL, url);
        // Empty: it was not decoded.
        } else if !path.is_empty() {
            self.text(key::URL_PATH, path);
            if let Some(query) = query.filter(|query| !query.is_empty()) {
                self.text(key::URL_QUERY, redact::query(&query));
            }
        }
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

#[cfg(test)]
mod tests;
