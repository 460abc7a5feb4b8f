//! Names of the conventions for HTTP and databases (OpenTelemetry semantic conventions 1.44, stable), for remote procedure calls, and
//! of our own attributes.

use crate::attribute::Text;

/// Method, of the known ones, or `_OTHER`.
pub(super) const HTTP_REQUEST_METHOD: &str = "http.request.method";
/// Method as sent, where it is not a known one.
pub(super) const HTTP_REQUEST_METHOD_ORIGINAL: &str = "http.request.method_original";
/// Bytes of the request's body.
pub(super) const HTTP_REQUEST_BODY_SIZE: &str = "http.request.body.size";
/// Bytes of the response's body.
pub(super) const HTTP_RESPONSE_BODY_SIZE: &str = "http.response.body.size";
/// Status code.
pub(super) const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
/// Class of the error, where there is one.
pub(super) const ERROR_TYPE: &str = "error.type";
/// Pattern that the server matched the path with.
pub(super) const HTTP_ROUTE: &str = "http.route";
/// Path.
pub(super) const URL_PATH: &str = "url.path";
/// Query, redacted.
pub(super) const URL_QUERY: &str = "url.query";
/// Scheme.
pub(super) const URL_SCHEME: &str = "url.scheme";
/// URL of a client's request, redacted.
pub(super) const URL_FULL: &str = "url.full";
/// The server's name as the client knows it.
pub(super) const SERVER_ADDRESS: &str = "server.address";
/// The server's port.
pub(super) const SERVER_PORT: &str = "server.port";
/// Where the request came from.
pub(super) const CLIENT_ADDRESS: &str = "client.address";
/// Address of the other end of the connection.
pub(super) const NETWORK_PEER_ADDRESS: &str = "network.peer.address";
/// Port of the other end of the connection.
pub(super) const NETWORK_PEER_PORT: &str = "network.peer.port";
/// Version of the protocol.
pub(super) const NETWORK_PROTOCOL_VERSION: &str = "network.protocol.version";
/// Transport, where it is not TCP.
pub(super) const NETWORK_TRANSPORT: &str = "network.transport";
/// Version of TLS (or of SSL).
pub(super) const TLS_PROTOCOL_VERSION: &str = "tls.protocol.version";
/// Application protocol that both ends agreed on.
pub(super) const TLS_NEXT_PROTOCOL: &str = "tls.next_protocol";
/// Name that the client asked for.
pub(super) const TLS_CLIENT_SERVER_NAME: &str = "tls.client.server_name";
/// User agent as sent.
pub(super) const USER_AGENT_ORIGINAL: &str = "user_agent.original";

/// Which remote procedure calls these are.
pub(super) const RPC_SYSTEM_NAME: &str = "rpc.system.name";
/// Service and method, as one name.
pub(super) const RPC_METHOD: &str = "rpc.method";
/// The name as sent, where `rpc.method` is `_OTHER`.
pub(super) const RPC_METHOD_ORIGINAL: &str = "rpc.method_original";
/// Name of the status.
pub(super) const RPC_RESPONSE_STATUS_CODE: &str = "rpc.response.status_code";
/// The same by the shorter name that versions of the convention in between have.
pub(super) const RPC_STATUS_CODE: &str = "rpc.status_code";
/// Which calls these are, as the convention had it up to 1.37.
pub(super) const OLD_RPC_SYSTEM: &str = "rpc.system";
/// Service, as the convention had it up to 1.37.
pub(super) const OLD_RPC_SERVICE: &str = "rpc.service";
/// Number of the status, as the convention had it up to 1.37.
pub(super) const OLD_RPC_GRPC_STATUS_CODE: &str = "rpc.grpc.status_code";
/// Messages that the client sent.
pub(super) const RPC_REQUEST_MESSAGES: &str = "spanwise.rpc.request.messages";
/// Bytes of them.
pub(super) const RPC_REQUEST_SIZE: &str = "spanwise.rpc.request.size";
/// Messages that the server sent.
pub(super) const RPC_RESPONSE_MESSAGES: &str = "spanwise.rpc.response.messages";
/// Bytes of them.
pub(super) const RPC_RESPONSE_SIZE: &str = "spanwise.rpc.response.size";
/// Deadline that the client gave, in seconds from the start.
pub(super) const RPC_TIMEOUT: &str = "spanwise.rpc.timeout";

/// Which database.
pub(super) const DB_SYSTEM_NAME: &str = "db.system.name";
/// What is done.
pub(super) const DB_OPERATION_NAME: &str = "db.operation.name";
/// Operations in a batch of more than one.
pub(super) const DB_OPERATION_BATCH_SIZE: &str = "db.operation.batch.size";
/// What is done with what.
pub(super) const DB_QUERY_SUMMARY: &str = "db.query.summary";
/// The statement, without its literals.
pub(super) const DB_QUERY_TEXT: &str = "db.query.text";
/// The database within the system.
pub(super) const DB_NAMESPACE: &str = "db.namespace";
/// Which error.
pub(super) const DB_RESPONSE_STATUS_CODE: &str = "db.response.status_code";

/// How the parent was found.
pub(super) const PARENT_SOURCE: &str = "spanwise.parent.source";
/// How sure that is, 0 to 1.
pub(super) const PARENT_CONFIDENCE: &str = "spanwise.parent.confidence";
/// Why the end (or the answer) is not what really happened: `gap`, `unfinished`, `response_head`.
pub(super) const INCOMPLETE: &str = "spanwise.incomplete";
/// A head was longer than what was captured: attributes may be missing.
pub(super) const TRUNCATED: &str = "spanwise.truncated";

/// Value of [`HTTP_REQUEST_METHOD`] for methods that are not known.
pub(super) const METHOD_OTHER: &str = "_OTHER";
/// Value of [`ERROR_TYPE`] for an exchange whose connection closed before its response was complete.
pub(super) const CONNECTION_CLOSED: &str = "connection_closed";

/// Value of [`ERROR_TYPE`] for an exchange whose answer is of another protocol.
pub(super) const NO_HTTP: &str = "no_http_response";

/// The known method of this spelling: those of RFC 9110, PATCH and QUERY.
pub(super) fn known_method(method: &str) -> Option<&'static str> {
    Some(match method {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        "CONNECT" => "CONNECT",
        "TRACE" => "TRACE",
        "QUERY" => "QUERY",
        _ => return None,
    })
}

/// Value of [`ERROR_TYPE`] for a stream that was reset: the name of the error code (RFC 9113, section 7).
pub(super) fn reset(code: u32) -> Text {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.get(code as usize).map_or_else(|| code.to_string().into(), |name| (*name).into())
}
