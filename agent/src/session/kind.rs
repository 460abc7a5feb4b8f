//! What a call asks for, without what differs from call to call. Comes in: the request or query of a call. Goes out: a number
//! that is the same for calls of one kind.

use std::hash::{DefaultHasher, Hash, Hasher};

use spanwise_protocol::message::{Query, Request};

use crate::conn::Endpoint;

/// Segments of a path that tell what it asks for.
const SEGMENTS: usize = 8;

/// Kind of a request: segments of the path that hold a digit are all the same. Never zero.
pub(super) fn of_request(remote: &Endpoint, request: &Request) -> u64 {
    let mut hasher = DefaultHasher::new();
    remote.hash(&mut hasher);
    request.method.hash(&mut hasher);
    for segment in request.path.split('/').take(SEGMENTS) {
        let shape = if segment.bytes().any(|byte| byte.is_ascii_digit()) { "0" } else { segment };
        shape.hash(&mut hasher);
    }
    hasher.finish() | 1
}

/// Kind of a query. Never zero.
pub(super) fn of_query(remote: &Endpoint, query: &Query) -> u64 {
    let mut hasher = DefaultHasher::new();
    remote.hash(&mut hasher);
    query.operation.hash(&mut hasher);
    query.summary.hash(&mut hasher);
    hasher.finish() | 1
}
