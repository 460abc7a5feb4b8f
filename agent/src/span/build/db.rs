//! Calls of databases: the exchange in, name, attributes and error by the conventions for databases out.

use std::borrow::Cow;

use spanwise_protocol::message::{DbSystem, Query};

use super::{Attributes, Exchange, Text, key, unanswered};
use crate::session::DbSeen;

/// Writes what is known of the call. Gives the name of the span and the value of `error.type`.
pub(super) fn describe(
    attributes: &mut Attributes,
    exchange: &Exchange,
    seen: DbSeen,
) -> (Cow<'static, str>, Option<Text>) {
    let DbSeen { query, answer } = seen;
    attributes.text(key::DB_SYSTEM_NAME, query.system.as_str());
    let name = name(&query);
    let Query { operation, summary, text, namespace, batch, truncated, .. } = query;
    if let Some(namespace) = namespace {
        attributes.text(key::DB_NAMESPACE, namespace);
    }
    if !operation.is_empty() {
        attributes.text(key::DB_OPERATION_NAME, operation);
    }
    if batch > 1 {
        attributes.int(key::DB_OPERATION_BATCH_SIZE, batch);
    }
    if !summary.is_empty() {
        attributes.text(key::DB_QUERY_SUMMARY, summary);
    }
    if let Some(text) = text {
        attributes.text(key::DB_QUERY_TEXT, text);
    }
    // Whether an answer was whole is not told: it is cut as a rule, and what may be missing is an error behind many rows.
    attributes.how_much(exchange.outcome, answer.is_some(), truncated);
    let error = answer.and_then(|answer| answer.error).map(Text::from);
    if let Some(error) = &error {
        attributes.text(key::DB_RESPONSE_STATUS_CODE, error.clone());
    }
    (name, error.or_else(|| unanswered(exchange)))
}

/// `{summary}`, else `{operation} {target}`, else the system.
fn name(query: &Query) -> Cow<'static, str> {
    if !query.summary.is_empty() {
        return Cow::Owned(query.summary.to_string());
    }
    if query.operation.is_empty() {
        return Cow::Borrowed(query.system.as_str());
    }
    match &query.namespace {
        // Of Redis the database is a number, and no part of the name.
        Some(namespace) if query.system != DbSystem::Redis => {
            Cow::Owned(format!("{} {namespace}", query.operation))
        }
        _ => Cow::Owned(query.operation.to_string()),
    }
}
