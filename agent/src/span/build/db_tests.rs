//! Spans of calls of databases.

use spanwise_protocol::message::{Answer, DbSystem, Query};

use super::*;
use crate::session::DbSeen;

fn call(side: Side, error: Option<&str>, change: impl FnOnce(&mut DbSeen)) -> Exchange {
    let mut seen = DbSeen {
        query: Query {
            system: DbSystem::PostgreSql,
            operation: "SELECT".into(),
            summary: "SELECT orders".into(),
            text: Some("SELECT * FROM orders WHERE id = ?".into()),
            namespace: Some("shop".into()),
            batch: 0,
            truncated: false,
        },
        answer: Some(Answer { error: error.map(Into::into), truncated: true }),
    };
    change(&mut seen);
    Exchange { request: Request::default(), response: None, db: Some(Box::new(seen)), ..exchange(side) }
}

#[test]
fn a_query_has_the_attributes_of_databases_and_none_of_http() {
    let span = span(call(Side::Client, None, |_| {}));
    assert_eq!((&*span.name, span.kind, span.status), ("SELECT orders", Kind::Client, Status::Unset));
    assert_eq!(
        told(&span),
        [
            "db.namespace=shop",
            "db.operation.name=SELECT",
            "db.query.summary=SELECT orders",
            "db.query.text=SELECT * FROM orders WHERE id = ?",
            "db.system.name=postgresql",
            "network.peer.address=10.0.0.1",
            "network.peer.port=8080",
            "server.address=10.0.0.1",
            "server.port=8080",
        ]
    );
}

#[test]
fn the_server_of_a_database_has_a_span_too() {
    let span = span(call(Side::Server, None, |_| {}));
    assert_eq!(span.kind, Kind::Server);
    assert_eq!(text(&span, key::CLIENT_ADDRESS).as_deref(), Some("10.0.0.2"));
    assert_eq!(text(&span, key::SERVER_ADDRESS).as_deref(), Some("10.0.0.1"));
    assert_eq!(value(&span, key::SERVER_PORT), Some(&Value::Int(8080)));
}

#[test]
fn an_error_is_its_status() {
    for side in [Side::Client, Side::Server] {
        let span = span(call(side, Some("23505"), |_| {}));
        assert_eq!(span.status, Status::Error);
        assert_eq!(text(&span, key::ERROR_TYPE).as_deref(), Some("23505"));
        assert_eq!(text(&span, key::DB_RESPONSE_STATUS_CODE).as_deref(), Some("23505"));
    }
}

#[test]
fn a_call_that_was_broken_off() {
    let mut exchange = call(Side::Client, None, |seen| seen.answer = None);
    exchange.outcome = Outcome::Aborted;
    let span = span(exchange);
    assert_eq!(span.status, Status::Error);
    assert_eq!(text(&span, key::ERROR_TYPE).as_deref(), Some(key::CONNECTION_CLOSED));
    assert_eq!(text(&span, key::DB_RESPONSE_STATUS_CODE), None);
    let lost = Exchange { outcome: Outcome::Gap, ..call(Side::Client, None, |seen| seen.answer = None) };
    assert_eq!(text(&super::span(lost), key::INCOMPLETE).as_deref(), Some("gap"));
}

#[test]
fn batches_and_what_was_cut() {
    let span = span(call(Side::Client, None, |seen| {
        seen.query.operation = "BATCH INSERT".into();
        seen.query.summary = "BATCH INSERT orders".into();
        seen.query.batch = 3;
        seen.query.truncated = true;
    }));
    assert_eq!(value(&span, key::DB_OPERATION_BATCH_SIZE), Some(&Value::Int(3)));
    assert_eq!(value(&span, key::TRUNCATED), Some(&Value::Bool(true)));
    assert_eq!(span.name, "BATCH INSERT orders");
}

#[test]
fn names_where_less_is_known() {
    let name = |system, operation: &str, namespace: Option<&str>| {
        let exchange = call(Side::Client, None, |seen| {
            seen.query.system = system;
            seen.query.operation = operation.into();
            seen.query.summary = "".into();
            seen.query.text = None;
            seen.query.namespace = namespace.map(Into::into);
        });
        let span = span(exchange);
        assert_eq!(text(&span, key::DB_QUERY_SUMMARY), None);
        assert_eq!(text(&span, key::DB_QUERY_TEXT), None);
        span.name.into_owned()
    };
    assert_eq!(name(DbSystem::PostgreSql, "COMMIT", Some("shop")), "COMMIT shop");
    assert_eq!(name(DbSystem::PostgreSql, "COMMIT", None), "COMMIT");
    assert_eq!(name(DbSystem::PostgreSql, "", Some("shop")), "postgresql");
    assert_eq!(name(DbSystem::Redis, "GET", Some("0")), "GET");
}
