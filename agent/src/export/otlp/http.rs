//! OTLP over HTTP/1.1, protobuf or JSON.
//!
//! Comes in: an encoded request. Goes out: one attempt to send it, as a [`Verdict`].

use bytes::Buf;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::super::batch::Segments;
use super::super::retry::{Verdict, http_failure};
use super::super::{ExportError, USER_AGENT as AGENT};
use super::{LARGEST_ANSWER, answer, chain, gzip, tls};
use crate::config::{Compression, Otlp, OtlpProtocol};

/// Sends to one endpoint.
pub(super) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Segments>>,
    uri: Uri,
    headers: HeaderMap,
    gzip: bool,
}

impl HttpClient {
    pub(super) fn new(otlp: &Otlp, uri: Uri, mut headers: HeaderMap) -> Result<Self, ExportError> {
        let secure = uri.scheme_str() == Some("https");
        let config = if secure { tls::client_config(otlp)? } else { tls::unused_config()? };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(otlp.timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        let kind = match otlp.protocol {
            OtlpProtocol::HttpJson => HeaderValue::from_static("application/json"),
            OtlpProtocol::HttpProtobuf | OtlpProtocol::Grpc => {
                HeaderValue::from_static("application/x-protobuf")
            }
        };
        headers.insert(ACCEPT, kind.clone());
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let gzip = otlp.compression == Compression::Gzip;
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(Self { client, uri, headers, gzip })
    }

    /// What is sent for a batch, the same at each attempt.
    pub(super) fn payload(&self, body: &Segments) -> Result<Segments, String> {
        if self.gzip { gzip(body) } else { Ok(body.clone()) }
    }

    /// One attempt.
    pub(super) async fn send(&self, payload: &Segments) -> Verdict {
        debug_assert_eq!(payload.remaining(), payload.len());
        let mut request = Request::new(Full::new(payload.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => return Verdict::unreachable(chain(&error)),
        };
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            // The body is not read: the connection is given up unless the rest is already there.
            return http_failure(head.status.as_u16(), retry_after, super::now());
        }
        let kind = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_json = kind.is_some_and(|kind| kind.starts_with("application/json"));
        let is_protobuf = kind.is_some_and(|kind| kind.starts_with("application/x-protobuf"));
        match read(body).await {
            Some(body) if body.is_empty() => Verdict::Accepted,
            Some(body) if is_json => answer::json(&body),
            Some(body) if is_protobuf => answer::protobuf(&body),
            _ => Verdict::Unclear,
        }
    }
}

/// The whole body; none if it is too long or breaks off.
async fn read(mut body: Incoming) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        if whole.len() + data.len() > LARGEST_ANSWER {
            return None;
        }
        whole.extend_from_slice(&data);
    }
    Some(whole)
}
