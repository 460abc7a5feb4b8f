//! Remote procedure calls: the exchange in, name, attributes and error by the RPC conventions out.

use std::borrow::Cow;

use spanwise_protocol::message::{Rpc, RpcPart};

use super::{Attributes, Exchange, Outcome, Side, Text, Value, key, unanswered};

/// Longest name of a method that is believed.
const LONGEST: usize = 200;

const OK: u32 = 0;
const UNIMPLEMENTED: u32 = 12;
/// Statuses for which the server is to blame: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
const SERVER_ERRORS: [u32; 6] = [2, 4, UNIMPLEMENTED, 13, 14, 15];

/// Writes what is known of the call. Gives the name of the span and the value of `error.type`.
pub(super) fn describe(
    attributes: &mut Attributes,
    exchange: &Exchange,
    call: Rpc,
    old_names: bool,
) -> (Cow<'static, str>, Option<Text>) {
    // gRPC-Web is gRPC by another transport. Others do not come here.
    let system = "grpc";
    attributes.text(key::RPC_SYSTEM_NAME, system);
    let seen = exchange.rpc.as_deref().copied().unwrap_or_default();
    let status = seen.response.status;
    let name = method(attributes, exchange, status).unwrap_or(Cow::Borrowed(system));
    if let Some(number) = status {
        let status = name_of(number);
        attributes.text(key::RPC_RESPONSE_STATUS_CODE, status.clone());
        attributes.text(key::RPC_STATUS_CODE, status);
    }
    if old_names {
        attributes.text(key::OLD_RPC_SYSTEM, system);
        if let Some((service, _)) = name.rsplit_once('/') {
            attributes.text(key::OLD_RPC_SERVICE, service.to_owned());
        }
        if let Some(number) = status {
            attributes.int(key::OLD_RPC_GRPC_STATUS_CODE, number);
        }
    }
    attributes.text(key::NETWORK_PROTOCOL_VERSION, exchange.request.version.as_str());
    // A status of HTTP that is no success comes from something on the way.
    let http = exchange.response.as_ref().map_or(0, |response| response.status);
    if http != 0 && http != 200 {
        attributes.int(key::HTTP_RESPONSE_STATUS_CODE, http);
    }
    if let Some(timeout) = call.timeout_ns {
        #[expect(clippy::cast_precision_loss, reason = "nine digits of a deadline are enough")]
        attributes.push(key::RPC_TIMEOUT, Value::Double(timeout as f64 / 1e9));
    }
    part(attributes, seen.request, key::RPC_REQUEST_MESSAGES, key::RPC_REQUEST_SIZE);
    part(attributes, seen.response, key::RPC_RESPONSE_MESSAGES, key::RPC_RESPONSE_SIZE);
    attributes.seen(exchange);
    // The status stands at the end, which need not have been captured: in gRPC-Web it is a part of the body.
    if status.is_none() && http == 200 && exchange.outcome == Outcome::Complete {
        attributes.text(key::INCOMPLETE, "rpc_status");
    }
    (name, error(exchange, status, http))
}

/// Writes the method; gives it if it is one.
fn method(
    attributes: &mut Attributes,
    exchange: &Exchange,
    status: Option<u32>,
) -> Option<Cow<'static, str>> {
    let sent = exchange.request.path.strip_prefix('/').unwrap_or(&exchange.request.path);
    if sent.is_empty() {
        return None;
    }
    // A server that does not know the method did not choose its name.
    let unknown = exchange.side == Side::Server && status == Some(UNIMPLEMENTED);
    if unknown || !is_method(sent) {
        attributes.text(key::RPC_METHOD, key::METHOD_OTHER);
        attributes.text(key::RPC_METHOD_ORIGINAL, sent.to_owned());
        return None;
    }
    attributes.text(key::RPC_METHOD, sent.to_owned());
    Some(Cow::Owned(sent.to_owned()))
}

/// `package.Service/Method`.
fn is_method(name: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    };
    name.len() <= LONGEST
        && name.rsplit_once('/').is_some_and(|(service, method)| {
            // Some gateways put a prefix before the service.
            service.split('/').all(word) && word(method)
        })
}

fn part(attributes: &mut Attributes, part: RpcPart, messages: &'static str, size: &'static str) {
    if part.messages > 0 {
        attributes.int(messages, part.messages);
        attributes.int(size, part.bytes);
    }
}

fn error(exchange: &Exchange, status: Option<u32>, http: u16) -> Option<Text> {
    match status {
        Some(OK) => None,
        Some(status) if exchange.side == Side::Client || SERVER_ERRORS.contains(&status) => {
            Some(name_of(status))
        }
        Some(_) => None,
        None if http >= 400 => Some(http.to_string().into()),
        None => unanswered(exchange),
    }
}

fn name_of(status: u32) -> Text {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.get(status as usize).map_or_else(|| status.to_string().into(), |name| (*name).into())
}
