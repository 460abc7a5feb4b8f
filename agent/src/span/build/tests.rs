//! Golden spans, one for each rule.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use spanwise_protocol::message::{Response, Version};

use super::*;
use crate::conn::Texts;
use crate::kernel::clock::Sample;
use crate::process::Service;
use crate::session::{ExchangeKey, Task};
use crate::span::Link;

fn inet(address: &str) -> Endpoint {
    Endpoint::Inet(address.parse::<SocketAddr>().unwrap())
}

fn exchange(side: Side) -> Exchange {
    let (local, remote) = match side {
        Side::Server => ("10.0.0.1:8080", "10.0.0.2:51000"),
        Side::Client => ("10.0.0.2:51000", "10.0.0.1:8080"),
    };
    Exchange {
        key: ExchangeKey(7),
        side,
        task: Task { tgid: 1, tid: 2, task: 0 },
        service: Arc::new(Service { id: 1, name: "shop".into(), attributes: Vec::new() }),
        conn: Rc::new(ConnInfo {
            cookie: 1,
            local: inet(local),
            remote: inet(remote),
            names: None,
            sock: 0,
            peer_sock: 0,
            netns: 0,
            texts: Texts::default(),
            tls: None,
        }),
        message: None,
        request: Request {
            method: "GET".into(),
            path: "/orders/42".into(),
            query: Some("user=bob&sig".into()),
            authority: Some("shop.example:8080".into()),
            version: Version::Http11,
            user_agent: Some("curl/8".into()),
            ..Request::default()
        },
        rpc: None,
        db: None,
        reset: None,
        route: None,
        response: Some(Response {
            status: 200,
            version: Version::Http11,
            content_length: Some(10),
            truncated: false,
        }),
        request_body: 0,
        response_body: 10,
        began_ns: 1_000,
        answered_ns: 1_500,
        ended_ns: 3_000,
        outcome: Outcome::Complete,
    }
}

fn decision() -> Decision {
    Decision {
        trace_id: [1; 16],
        span_id: [2; 8],
        parent_span_id: Some([3; 8]),
        parent_is_remote: true,
        trace_flags: 3,
        trace_state: Some("a=1".into()),
        source: ParentSource::Wire,
        confidence: 1.0,
        links: vec![Link { trace_id: [4; 16], span_id: [5; 8], attributes: Vec::new() }],
        upstream_flags: Some(1),
        parent_key: None,
    }
}

fn span(exchange: Exchange) -> Span {
    build(
        exchange,
        decision(),
        &Clock::from_sample(Sample { boot_ns: 0, unix_ns: 1_000_000, spread_ns: 0 }),
        Conventions::default(),
    )
}

/// Attributes, sorted, without those of the parent.
fn told(span: &Span) -> Vec<String> {
    let mut lines: Vec<String> = span
        .all_attributes()
        .filter(|(key, _)| !key.starts_with("spanwise.parent."))
        .map(|(key, value)| match value {
            Value::Str(text) => format!("{key}={text}"),
            Value::Int(int) => format!("{key}={int}"),
            other => format!("{key}={other:?}"),
        })
        .collect();
    lines.sort();
    lines
}

fn value<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    let mut found = span.all_attributes().filter(|(name, _)| name == key);
    let value = found.next().map(|(_, value)| value);
    assert!(found.next().is_none(), "{key} is there twice");
    value
}

fn text(span: &Span, key: &str) -> Option<String> {
    value(span, key).map(|value| match value {
        Value::Str(text) => text.to_string(),
        other => format!("{other:?}"),
    })
}

fn with(side: Side, change: impl FnOnce(&mut Exchange)) -> Span {
    let mut exchange = exchange(side);
    change(&mut exchange);
    span(exchange)
}

fn connection(exchange: &mut Exchange, change: impl FnOnce(&mut ConnInfo)) {
    change(Rc::make_mut(&mut exchange.conn));
}

#[test]
fn a_server_span() {
    let span = span(exchange(Side::Server));
    assert_eq!((&*span.name, span.kind, span.status), ("GET", Kind::Server, Status::Unset));
    assert_eq!((span.start_unix_ns, span.end_unix_ns), (1_001_000, 1_003_000));
    assert_eq!(
        told(&span),
        [
            "client.address=10.0.0.2",
            "http.request.method=GET",
            "http.response.body.size=10",
            "http.response.status_code=200",
            "network.peer.address=10.0.0.2",
            "network.peer.port=51000",
            "network.protocol.version=1.1",
            "server.address=shop.example",
            "server.port=8080",
            "url.path=/orders/42",
            "url.query=user=REDACTED&sig",
            "url.scheme=http",
            "user_agent.original=curl/8",
        ]
    );
}

#[test]
fn a_server_with_a_route() {
    let routed = |pattern: &str, side| with(side, |exchange| exchange.route = Some(pattern.into()));
    let span = routed("GET shop.example/orders/{id}", Side::Server);
    assert_eq!(&*span.name, "GET /orders/{id}");
    assert_eq!(text(&span, "http.route").as_deref(), Some("/orders/{id}"));
    let other = with(Side::Server, |exchange| {
        exchange.request.method = "FETCH".into();
        exchange.route = Some("/orders/".into());
    });
    assert_eq!(&*other.name, "HTTP /orders/");
    // No path in it, or the client's side.
    for span in [routed("nothing", Side::Server), routed("/orders/{id}", Side::Client)] {
        assert_eq!((&*span.name, text(&span, "http.route")), ("GET", None));
    }
}

#[test]
fn a_client_span() {
    let span = span(exchange(Side::Client));
    assert_eq!((&*span.name, span.kind, span.status), ("GET", Kind::Client, Status::Unset));
    assert_eq!(
        told(&span),
        [
            "http.request.method=GET",
            "http.response.body.size=10",
            "http.response.status_code=200",
            "network.peer.address=10.0.0.1",
            "network.peer.port=8080",
            "network.protocol.version=1.1",
            "server.address=shop.example",
            "server.port=8080",
            "url.full=http://shop.example:8080/orders/42?user=REDACTED&sig",
        ]
    );
}

#[test]
fn the_decision_is_carried_over() {
    let span = span(exchange(Side::Client));
    let decision = decision();
    assert_eq!((span.trace_id, span.span_id, span.parent_span_id), ([1; 16], [2; 8], Some([3; 8])));
    assert!(span.parent_is_remote);
    assert_eq!((span.trace_flags, span.trace_state.as_deref()), (3, Some("a=1")));
    assert_eq!(span.links, decision.links);
    assert_eq!(&*span.service.name, "shop");
    assert_eq!(text(&span, "spanwise.parent.source").as_deref(), Some("wire"));
    assert_eq!(value(&span, "spanwise.parent.confidence"), Some(&Value::Double(1.0)));
}

#[test]
fn every_source_has_its_own_word() {
    use ParentSource::*;
    let all =
        [Root, Wire, Peer, Only, Thread, LastIn, FirstInFirstOut, StartOrder, InOrder, Chain, Abstained];
    let words: std::collections::BTreeSet<_> = all.into_iter().map(source).collect();
    assert_eq!(words.len(), all.len());
    assert!(words.contains("first_in_first_out"));
}

#[test]
fn unknown_methods_do_not_become_names() {
    for method in ["PURGE", "get"] {
        let span = with(Side::Server, |exchange| exchange.request.method = method.into());
        assert_eq!(span.name, "HTTP");
        assert_eq!(text(&span, key::HTTP_REQUEST_METHOD).as_deref(), Some("_OTHER"));
        assert_eq!(text(&span, key::HTTP_REQUEST_METHOD_ORIGINAL).as_deref(), Some(method));
    }
    let span = span(exchange(Side::Server));
    assert_eq!(value(&span, key::HTTP_REQUEST_METHOD_ORIGINAL), None);
}

#[test]
fn who_is_to_blame() {
    for (side, status, error) in [
        (Side::Server, 101, None),
        (Side::Server, 302, None),
        (Side::Server, 404, None),
        (Side::Server, 500, Some("500")),
        (Side::Server, 599, Some("599")),
        (Side::Client, 399, None),
        (Side::Client, 404, Some("404")),
        (Side::Client, 418, Some("418")),
        (Side::Client, 503, Some("503")),
        (Side::Client, 600, None),
    ] {
        let span = with(side, |exchange| exchange.response.as_mut().unwrap().status = status);
        assert_eq!(text(&span, key::ERROR_TYPE).as_deref(), error, "{side:?} {status}");
        assert_eq!(span.status == Status::Error, error.is_some(), "{side:?} {status}");
        assert_eq!(value(&span, key::HTTP_RESPONSE_STATUS_CODE), Some(&Value::Int(status.into())));
    }
}

#[test]
fn outcomes() {
    for (outcome, answered, error, incomplete) in [
        (Outcome::Complete, true, None, None),
        (Outcome::Complete, false, None, Some("response_head")),
        (Outcome::Upgraded, true, None, None),
        (Outcome::Aborted, true, Some("connection_closed"), None),
        (Outcome::Aborted, false, Some("connection_closed"), None),
        (Outcome::Foreign, false, Some("no_http_response"), None),
        (Outcome::Gap, true, None, Some("gap")),
        (Outcome::Unfinished, false, None, Some("unfinished")),
    ] {
        let span = with(Side::Client, |exchange| {
            exchange.outcome = outcome;
            exchange.response = exchange.response.take().filter(|_| answered);
        });
        assert_eq!(text(&span, key::ERROR_TYPE).as_deref(), error, "{outcome:?}");
        assert_eq!(span.status == Status::Error, error.is_some(), "{outcome:?}");
        assert_eq!(text(&span, key::INCOMPLETE).as_deref(), incomplete, "{outcome:?}");
        let sized = answered && outcome == Outcome::Complete;
        assert_eq!(value(&span, key::HTTP_RESPONSE_BODY_SIZE).is_some(), sized, "{outcome:?}");
    }
}

#[test]
fn cut_heads_are_marked_and_their_sizes_left_out() {
    let span = with(Side::Server, |exchange| {
        exchange.request.truncated = true;
        exchange.request_body = 900;
    });
    assert_eq!(value(&span, key::TRUNCATED), Some(&Value::Bool(true)));
    assert_eq!(value(&span, key::HTTP_REQUEST_BODY_SIZE), None);
    let span = with(Side::Server, |exchange| exchange.response.as_mut().unwrap().truncated = true);
    assert_eq!(value(&span, key::TRUNCATED), Some(&Value::Bool(true)));
    assert_eq!(value(&span, key::HTTP_RESPONSE_BODY_SIZE), None);
    let span = with(Side::Server, |exchange| exchange.request_body = 900);
    assert_eq!(
        (value(&span, key::TRUNCATED), value(&span, key::HTTP_REQUEST_BODY_SIZE)),
        (None, Some(&Value::Int(900)))
    );
}

#[test]
fn server_address_and_port() {
    for (authority, scheme, address, port, full) in [
        (Some("a.b"), None, "a.b", 80, "http://a.b/p"),
        (Some("a.b:81"), None, "a.b", 81, "http://a.b:81/p"),
        (Some("a.b:80"), None, "a.b", 80, "http://a.b/p"),
        (Some("[::1]:81"), None, "::1", 81, "http://[::1]:81/p"),
        (Some("[::1]"), None, "::1", 80, "http://[::1]/p"),
        (Some("a.b"), Some("https"), "a.b", 443, "https://a.b/p"),
        (Some("u:p@a.b"), None, "a.b", 80, "http://a.b/p"),
        (Some("a.b:x"), None, "a.b", 80, "http://a.b/p"),
        (Some(""), None, "10.0.0.1", 8080, "http://10.0.0.1:8080/p"),
        (None, None, "10.0.0.1", 8080, "http://10.0.0.1:8080/p"),
    ] {
        for side in [Side::Client, Side::Server] {
            let span = with(side, |exchange| {
                exchange.request.path = "/p".into();
                exchange.request.query = None;
                exchange.request.authority = authority.map(Into::into);
                exchange.request.scheme = scheme.map(Into::into);
            });
            assert_eq!(text(&span, key::SERVER_ADDRESS).as_deref(), Some(address), "{authority:?}");
            assert_eq!(value(&span, key::SERVER_PORT), Some(&Value::Int(port)), "{authority:?}");
            let wanted = (side == Side::Client).then_some(full);
            assert_eq!(text(&span, key::URL_FULL).as_deref(), wanted);
            let scheme = (side == Side::Server).then_some(scheme.unwrap_or("http"));
            assert_eq!(text(&span, key::URL_SCHEME).as_deref(), scheme);
        }
    }
}

#[test]
fn unix_sockets_have_no_peer_but_a_transport() {
    for side in [Side::Client, Side::Server] {
        let span = with(side, |exchange| {
            connection(exchange, |conn| (conn.local, conn.remote) = (Endpoint::Unix, Endpoint::Unix));
            exchange.request.authority = None;
        });
        assert_eq!(text(&span, key::NETWORK_TRANSPORT).as_deref(), Some("unix"));
        for absent in [
            key::NETWORK_PEER_ADDRESS,
            key::NETWORK_PEER_PORT,
            key::CLIENT_ADDRESS,
            key::SERVER_ADDRESS,
            key::SERVER_PORT,
        ] {
            assert_eq!(value(&span, absent), None, "{absent}");
        }
        assert_eq!(text(&span, key::URL_FULL).is_some(), side == Side::Client);
    }
    assert_eq!(value(&span(exchange(Side::Server)), key::NETWORK_TRANSPORT), None);
}

#[test]
fn tunnels_and_asterisks() {
    let span = with(Side::Client, |exchange| {
        exchange.request =
            Request { method: "CONNECT".into(), authority: Some("a.b:443".into()), ..Request::default() };
    });
    assert_eq!(
        (value(&span, key::URL_FULL), text(&span, key::SERVER_ADDRESS).as_deref()),
        (None, Some("a.b"))
    );
    assert_eq!(text(&span, key::NETWORK_PROTOCOL_VERSION).as_deref(), Some("1.1"));
    let span = with(Side::Client, |exchange| {
        exchange.request.method = "OPTIONS".into();
        exchange.request.path = "*".into();
        exchange.request.query = None;
    });
    assert_eq!(text(&span, key::URL_FULL).as_deref(), Some("http://shop.example:8080"));
}

#[test]
fn requests_of_one_connection_may_name_different_servers() {
    let conn = exchange(Side::Server).conn;
    let server = |authority: Option<&str>| {
        let span = with(Side::Server, |exchange| {
            exchange.conn = Rc::clone(&conn);
            exchange.request.authority = authority.map(Into::into);
        });
        text(&span, key::SERVER_ADDRESS).unwrap()
            + &text(&span, key::SERVER_PORT).map_or(String::new(), |port| format!(" {port}"))
    };
    for (authority, expected) in [
        (Some("bob:hunter2@a.b"), "a.b Int(80)"),
        (Some("a.b:81"), "a.b Int(81)"),
        (Some("a.b:81"), "a.b Int(81)"),
        (Some("c.d:82"), "c.d Int(82)"),
        (Some(""), "10.0.0.1 Int(8080)"),
        (None, "10.0.0.1 Int(8080)"),
        (Some("a.b:81"), "a.b Int(81)"),
        (Some("bob:hunter2@a.b:81"), "a.b Int(81)"),
    ] {
        assert_eq!(server(authority), expected, "{authority:?}");
    }
    assert!(!format!("{conn:?}").contains("hunter2"));
}

#[test]
fn no_secret_of_the_request_leaves() {
    for side in [Side::Client, Side::Server] {
        let span = with(side, |exchange| {
            exchange.request.query = Some("password=hunter2&next=/x?t=hunter2".into());
            exchange.request.authority = Some("bob:hunter2@a.b".into());
        });
        assert!(!format!("{span:?}").contains("hunter2"));
    }
}

#[path = "rpc_tests.rs"]
mod rpc;

#[path = "db_tests.rs"]
mod db;

#[path = "common_tests.rs"]
mod common;
