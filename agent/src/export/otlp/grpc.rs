//! OTLP over gRPC. The request is already encoded, so the codec hands its bytes through.
//!
//! Comes in: an encoded request. Goes out: one attempt to send it, as a [`Verdict`].

use std::error::Error;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Extensions, Status};

use super::super::batch::Segments;
use super::super::retry::{Verdict, grpc_failure};
use super::super::{ExportError, USER_AGENT};
use super::{LARGEST_ANSWER, answer, chain, tls};
use crate::config::{Compression, Otlp};

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Sends to one endpoint.
pub(super) struct GrpcClient {
    grpc: Grpc<Channel>,
    headers: HeaderMap,
}

impl GrpcClient {
    /// Must be called inside the runtime that will send.
    pub(super) fn new(otlp: &Otlp, uri: Uri, headers: HeaderMap) -> Result<Self, ExportError> {
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
        let mut grpc = Grpc::new(endpoint.connect_lazy()).max_decoding_message_size(LARGEST_ANSWER);
        if otlp.compression == Compression::Gzip {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip);
        }
        Ok(Self { grpc, headers })
    }

    /// One attempt.
    pub(super) async fn send(&self, payload: &Segments) -> Verdict {
        let mut grpc = self.grpc.clone();
        if let Err(error) = grpc.ready().await {
            return Verdict::unreachable(chain(&error));
        }
        let metadata = MetadataMap::from_headers(self.headers.clone());
        let request = tonic::Request::from_parts(metadata, Extensions::default(), payload.clone());
        match grpc.unary(request, PathAndQuery::from_static(PATH), Through).await {
            Ok(response) => answer::protobuf(response.get_ref()),
            Err(status) => judge(&status),
        }
    }
}

fn judge(status: &Status) -> Verdict {
    // The answer was a success with a message beyond the limit, refused here and not there.
    if status.code() == Code::OutOfRange && status.message().contains("decoded message length too large") {
        return Verdict::Unclear;
    }
    // A status of the endpoint has no source; one made here from a broken connection has.
    match status.source() {
        Some(source) => Verdict::unreachable(format!("{}: {}", status.code(), chain(source))),
        None => grpc_failure(status.code() as i32, &answer::clean(status.message()), status.details()),
    }
}

/// Hands bytes through.
#[derive(Clone, Copy, Debug)]
struct Through;

impl Codec for Through {
    type Encode = Segments;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Through {
    type Item = Segments;
    type Error = Status;

    fn encode(&mut self, item: Segments, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(item.len());
        for part in item.parts() {
            out.put_slice(part);
        }
        Ok(())
    }
}

impl Decoder for Through {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}
