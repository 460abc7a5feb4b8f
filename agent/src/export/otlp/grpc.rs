//! OTLP over gRPC: one unary call, framed here, because the request is already encoded and compressed.
//!
//! Comes in: an encoded request. Goes out: one attempt to send it, as a [`Verdict`].

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, RETRY_AFTER, TE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use tonic::client::GrpcService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use super::super::batch::Segments;
use super::super::retry::{Verdict, grpc_failure, http_failure};
use super::super::{ExportError, USER_AGENT};
use super::{LARGEST_ANSWER, answer, chain, gzip, tls};
use crate::config::{Compression, Otlp};

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Compression flag and length before each message.
const PREFIX: usize = 5;

/// Sends to one endpoint.
pub(super) struct GrpcClient {
    channel: Channel,
    headers: HeaderMap,
    gzip: bool,
}

impl GrpcClient {
    /// Must be called inside the runtime that will send.
    pub(super) fn new(otlp: &Otlp, uri: Uri, mut headers: HeaderMap) -> Result<Self, ExportError> {
        let bad = |why: String| ExportError::Endpoint { endpoint: otlp.endpoint.clone(), why };
        let secure = uri.scheme_str() == Some("https");
        let mut endpoint = Endpoint::from(uri)
            .connect_timeout(otlp.timeout)
            .tcp_nodelay(true)
            .user_agent(USER_AGENT)
            .map_err(|error| bad(chain(&error)))?;
        if secure {
            tls::check(otlp)?;
            let mut config = ClientTlsConfig::new();
            config = match &otlp.certificate {
                Some(path) => config.ca_certificate(Certificate::from_pem(tls::read(path, "certificate")?)),
                None => config.with_native_roots(),
            };
            if let Some((certificate, key)) = tls::identity(otlp)? {
                config = config.identity(Identity::from_pem(certificate, key));
            }
            endpoint = endpoint.tls_config(config).map_err(|error| bad(chain(&error)))?;
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        let gzip = otlp.compression == Compression::Gzip;
        if gzip {
            headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
        }
        Ok(Self { channel: endpoint.connect_lazy(), headers, gzip })
    }

    /// What is sent for a batch: one message with its prefix.
    pub(super) fn payload(&self, body: &Segments) -> Result<Segments, String> {
        let message = if self.gzip { gzip(body)? } else { body.clone() };
        let len = u32::try_from(message.len()).map_err(|_| "it is too large for gRPC".to_owned())?;
        let mut prefix = BytesMut::with_capacity(PREFIX);
        prefix.put_u8(u8::from(self.gzip));
        prefix.put_u32(len);
        Ok(message.after(prefix.freeze()))
    }

    /// One attempt.
    pub(super) async fn send(&self, payload: &Segments) -> Verdict {
        let mut request = Request::new(tonic::body::Body::new(Parts::of(payload)));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_static(PATH);
        *request.headers_mut() = self.headers.clone();
        let mut channel = self.channel.clone();
        if let Err(error) = poll_fn(|context| GrpcService::poll_ready(&mut channel, context)).await {
            return Verdict::unreachable(chain(&error));
        }
        let response = match GrpcService::call(&mut channel, request).await {
            Ok(response) => response,
            Err(error) => return Verdict::unreachable(chain(&error)),
        };
        let (head, body) = response.into_parts();
        if let Some(status) = Status::from_header_map(&head.headers) {
            // The call ended without a message; OK without one is no answer that OTLP knows.
            return if status.code() == Code::Ok { Verdict::Unclear } else { failure(&status) };
        }
        if head.status != StatusCode::OK {
            let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            return http_failure(head.status.as_u16(), retry_after, super::now());
        }
        read(body).await
    }
}

fn failure(status: &Status) -> Verdict {
    grpc_failure(status.code() as i32, &answer::clean(status.message()), status.details())
}

/// Reads message and status.
async fn read(mut body: tonic::body::Body) -> Verdict {
    let mut message = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(status) => return Verdict::unreachable(chain(&status)),
        };
        if let Some(trailers) = frame.trailers_ref() {
            return match Status::from_header_map(trailers) {
                Some(status) if status.code() == Code::Ok => taken(&message),
                Some(status) => failure(&status),
                None => break,
            };
        }
        let Ok(data) = frame.into_data() else { continue };
        if message.len() + data.len() > LARGEST_ANSWER + PREFIX {
            // It began as a success does.
            return Verdict::Unclear;
        }
        message.extend_from_slice(&data);
    }
    Verdict::Refused { why: "it answered without a gRPC status".to_owned() }
}

/// Judges the message of a success. It is never compressed, because that was not offered.
fn taken(framed: &[u8]) -> Verdict {
    match framed.split_at_checked(PREFIX) {
        Some(([0, a, b, c, d], message))
            if u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len() =>
        {
            answer::protobuf(message)
        }
        _ => Verdict::Unclear,
    }
}

/// A request body of several pieces, none of them copied.
struct Parts {
    parts: VecDeque<Bytes>,
    len: u64,
}

impl Parts {
    fn of(payload: &Segments) -> Self {
        Self { parts: payload.parts().cloned().collect(), len: payload.len() as u64 }
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.parts.pop_front();
        if let Some(part) = &part {
            self.len -= part.len() as u64;
        }
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len)
    }
}
