//! Spans of remote procedure calls.

use spanwise_protocol::message::RpcPart;

use super::*;
use crate::session::RpcSeen;

fn call(side: Side, status: Option<u32>, change: impl FnOnce(&mut Exchange)) -> Span {
    built(side, status, Conventions::default(), change)
}

fn built(
    side: Side,
    status: Option<u32>,
    conventions: Conventions,
    change: impl FnOnce(&mut Exchange),
) -> Span {
    let mut exchange = exchange(side);
    exchange.request = Request {
        method: "POST".into(),
        path: "/shop.v1.Orders/Place".into(),
        authority: Some("orders.example:50051".into()),
        scheme: Some("http".into()),
        version: Version::Http2,
        rpc: Some(Rpc { system: RpcSystem::Grpc, timeout_ns: Some(1_500_000_000) }),
        ..Request::default()
    };
    let part = |messages, bytes, status| RpcPart { messages, bytes, status, truncated: false };
    exchange.rpc = Some(Box::new(RpcSeen { request: part(1, 10, None), response: part(3, 30, status) }));
    change(&mut exchange);
    let clock = Clock::from_sample(Sample { boot_ns: 0, unix_ns: 1_000_000, spread_ns: 0 });
    build(exchange, decision(), &clock, conventions)
}

fn outcome(span: &Span) -> (Status, Option<String>, Option<String>) {
    (span.status, text(span, key::ERROR_TYPE), text(span, key::RPC_RESPONSE_STATUS_CODE))
}

#[test]
fn a_call_has_the_attributes_of_calls_and_none_of_http() {
    let span = call(Side::Server, Some(0), |_| {});
    assert_eq!(span.name, "shop.v1.Orders/Place");
    assert_eq!(
        told(&span),
        [
            "client.address=10.0.0.2",
            "network.peer.address=10.0.0.2",
            "network.peer.port=51000",
            "network.protocol.version=2",
            "rpc.method=shop.v1.Orders/Place",
            "rpc.response.status_code=OK",
            "rpc.status_code=OK",
            "rpc.system.name=grpc",
            "server.address=orders.example",
            "server.port=50051",
            "spanwise.rpc.request.messages=1",
            "spanwise.rpc.request.size=10",
            "spanwise.rpc.response.messages=3",
            "spanwise.rpc.response.size=30",
            "spanwise.rpc.timeout=Double(1.5)",
        ]
    );
}

#[test]
fn the_side_decides_what_is_an_error() {
    let no_error = |status: &str| (Status::Unset, None, Some(status.to_owned()));
    let error = |status: &str| (Status::Error, Some(status.to_owned()), Some(status.to_owned()));
    for side in [Side::Client, Side::Server] {
        assert_eq!(outcome(&call(side, Some(0), |_| {})), no_error("OK"));
        assert_eq!(outcome(&call(side, Some(14), |_| {})), error("UNAVAILABLE"));
    }
    assert_eq!(outcome(&call(Side::Server, Some(5), |_| {})), no_error("NOT_FOUND"));
    assert_eq!(outcome(&call(Side::Client, Some(5), |_| {})), error("NOT_FOUND"));
    assert_eq!(outcome(&call(Side::Client, Some(99), |_| {})), error("99"));
}

#[test]
fn calls_without_a_status_say_what_ended_them() {
    let broken = |reset| {
        outcome(&call(Side::Client, None, |exchange| {
            exchange.outcome = Outcome::Aborted;
            exchange.reset = reset;
        }))
    };
    assert_eq!(broken(Some(8)), (Status::Error, Some("CANCEL".into()), None));
    assert_eq!(broken(None), (Status::Error, Some("connection_closed".into()), None));
    let span = call(Side::Client, None, |exchange| exchange.response.as_mut().unwrap().status = 503);
    assert_eq!(outcome(&span), (Status::Error, Some("503".into()), None));
    assert!(told(&span).contains(&"http.response.status_code=503".to_owned()));
}

#[test]
fn names_that_are_no_methods_do_not_name_spans() {
    for path in ["/", "/a", "/a b/C", "/a/", "//x", "/pkg.S/M?x", &format!("/a/{}", "m".repeat(300))] {
        let span = call(Side::Client, Some(0), |exchange| exchange.request.path = path.into());
        assert_eq!(span.name, "grpc", "{path}");
    }
    // Whoever asks for what is not there must not choose the names of a server's spans.
    let span = call(Side::Server, Some(12), |_| {});
    assert_eq!(span.name, "grpc");
    assert_eq!(text(&span, key::RPC_METHOD).as_deref(), Some("_OTHER"));
    assert_eq!(text(&span, key::RPC_METHOD_ORIGINAL).as_deref(), Some("shop.v1.Orders/Place"));
    assert_eq!(call(Side::Client, Some(12), |_| {}).name, "shop.v1.Orders/Place");
    let span = call(Side::Client, Some(0), |exchange| exchange.request.path = "/prefix/a.B/C".into());
    assert_eq!(span.name, "prefix/a.B/C");
}

#[test]
fn an_answer_tells_that_it_was_a_call() {
    let span = call(Side::Client, Some(0), |exchange| {
        exchange.request.rpc = None;
        exchange.request.path = "".into();
        exchange.request.truncated = true;
    });
    assert_eq!(span.name, "grpc");
    assert_eq!(
        (text(&span, key::RPC_SYSTEM_NAME).as_deref(), text(&span, key::RPC_METHOD)),
        (Some("grpc"), None)
    );
}

#[test]
fn old_names_are_written_when_asked_for() {
    let old = Conventions { old_rpc_names: true };
    let lines = told(&built(Side::Client, Some(4), old, |_| {}));
    for line in ["rpc.system=grpc", "rpc.service=shop.v1.Orders", "rpc.grpc.status_code=4"] {
        assert!(lines.contains(&line.to_owned()), "{line} in {lines:?}");
    }
}

#[test]
fn grpc_web_is_grpc_and_says_when_its_status_was_not_seen() {
    let web = |status, http| {
        call(Side::Client, status, |exchange| {
            exchange.request.version = Version::Http11;
            exchange.request.rpc = Some(Rpc { system: RpcSystem::GrpcWeb, timeout_ns: None });
            exchange.response = Some(Response { status: http, ..Response::default() });
        })
    };
    let span = web(Some(5), 200);
    assert_eq!((span.name.as_ref(), text(&span, key::INCOMPLETE)), ("shop.v1.Orders/Place", None));
    assert_eq!(text(&span, key::RPC_SYSTEM_NAME).as_deref(), Some("grpc"));
    assert_eq!(outcome(&span), (Status::Error, Some("NOT_FOUND".into()), Some("NOT_FOUND".into())));
    let unknown = web(None, 200);
    assert_eq!(text(&unknown, key::INCOMPLETE).as_deref(), Some("rpc_status"));
    assert_eq!(outcome(&unknown), (Status::Unset, None, None));
    // What a proxy refuses is no call that lost its status.
    let refused = web(None, 503);
    assert_eq!((text(&refused, key::INCOMPLETE), outcome(&refused).1.as_deref()), (None, Some("503")));
}

#[test]
fn connect_is_http() {
    let span = call(Side::Server, None, |exchange| {
        exchange.request.rpc = Some(Rpc { system: RpcSystem::Connect, timeout_ns: None });
        exchange.rpc = None;
        exchange.response = Some(Response { status: 404, ..Response::default() });
    });
    assert_eq!((span.name.as_ref(), text(&span, key::RPC_SYSTEM_NAME)), ("POST", None));
    assert_eq!(text(&span, key::URL_PATH).as_deref(), Some("/shop.v1.Orders/Place"));
    assert_eq!(span.status, Status::Unset, "404 is not the server's fault");
}
