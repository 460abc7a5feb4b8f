//! A gRPC endpoint that answers as told.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

pub(crate) type Answer = Result<ExportTraceServiceResponse, Status>;

/// A gRPC endpoint that keeps what it got and answers as told, by the number of the request.
#[derive(Clone)]
pub(crate) struct Collector {
    pub(crate) got: Arc<Mutex<Vec<(MetadataMap, ExportTraceServiceRequest, Instant)>>>,
    pub(crate) answer: Arc<dyn Fn(usize) -> Answer + Send + Sync>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let index = {
            let mut got = self.got.lock().unwrap();
            got.push((metadata, message, Instant::now()));
            got.len() - 1
        };
        (self.answer)(index).map(Response::new)
    }
}

impl Collector {
    pub(crate) fn start(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (Self::on(listener, answer), address)
    }

    pub(crate) fn on(
        listener: TcpListener,
        answer: impl Fn(usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let this = Self { got: Arc::default(), answer: Arc::new(answer) };
        let service = TraceServiceServer::new(this.clone()).accept_compressed(CompressionEncoding::Gzip);
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let incoming = tonic::transport::server::TcpIncoming::from(listener);
                let mut server = tonic::transport::Server::builder();
                server.add_service(service).serve_with_incoming(incoming).await.unwrap();
            });
        });
        this
    }

    pub(crate) fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        self.got.lock().unwrap().iter().map(|(_, request, _)| request.clone()).collect()
    }

    pub(crate) fn times(&self) -> Vec<Instant> {
        self.got.lock().unwrap().iter().map(|(_, _, at)| *at).collect()
    }
}

pub(crate) fn taken() -> Answer {
    Ok(ExportTraceServiceResponse::default())
}

pub(crate) fn partly(rejected_spans: i64) -> ExportTraceServiceResponse {
    let partial = ExportTracePartialSuccess { rejected_spans, error_message: "too old".to_owned() };
    ExportTraceServiceResponse { partial_success: Some(partial) }
}
