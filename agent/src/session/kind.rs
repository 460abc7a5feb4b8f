//! What a call asks for, without what differs from call to call. Comes in: the request or query of a call. Goes out: a number
//! that is the same for calls of one kind to one server.

use std::hash::{DefaultHasher, Hash, Hasher};

use spanwise_protocol::message::{Query, Request};

/// Segments of a path that tell what it asks for.
const SEGMENTS: usize = 8;

/// Kind of a request: segments of the path that hold a digit are all the same.
pub(super) fn of_request(request: &Request) -> u64 {
    let mut hasher = DefaultHasher::new();
    request.method.hash(&mut hasher);
    for segment in request.path.split('/').take(SEGMENTS) {
        let shape = if segment.bytes().any(|byte| byte.is_ascii_digit()) { "0" } else { segment };
        shape.hash(&mut hasher);
    }
    hasher.finish()
}

/// Kind of a query.
pub(super) fn of_query(query: &Query) -> u64 {
    let mut hasher = DefaultHasher::new();
    query.operation.hash(&mut hasher);
    query.summary.hash(&mut hasher);
    hasher.finish()
}
