//! TLS and mutual TLS, with certificates made on the spot and no process-wide crypto provider.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::*;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use spanwise::config::{Otlp, OtlpProtocol};
use tonic::{Request, Response, Status};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key in PEM for a name.
fn issue(by: &Issuer, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, by).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// Files of one client in a folder.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path: &Path = self.folder.path();
        std::fs::write(path.join(name), text).unwrap();
        path.join(name)
    }
}

/// An HTTP endpoint behind TLS that takes everything.
fn https(server: &(String, String), clients: Option<&Issuer>) -> (SocketAddr, Arc<Mutex<Vec<Got>>>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = match clients {
        None => builder.unwrap().with_no_client_auth(),
        Some(issuer) => {
            let mut roots = RootCertStore::empty();
            roots.add(issuer.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
            builder.unwrap().with_client_cert_verifier(verifier)
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(server.0.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(server.1.as_bytes()).unwrap();
    let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, got) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let kept = got.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, kept) = (config.clone(), kept.clone());
            std::thread::spawn(move || {
                let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream.unwrap());
                while let Ok(Some(request)) = read_request(&mut stream) {
                    kept.lock().unwrap().push(request);
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    if std::io::Write::write_all(&mut stream, answer).is_err() {
                        break;
                    }
                }
            });
        }
    });
    (address, got)
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A gRPC endpoint behind TLS that takes everything.
fn grpcs(server: &(String, String), clients: Option<&Issuer>) -> (SocketAddr, Collector) {
    use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
    let mut tls = ServerTlsConfig::new().identity(Identity::from_pem(&server.0, &server.1));
    if let Some(issuer) = clients {
        tls = tls.client_ca_root(Certificate::from_pem(issuer.pem()));
    }
    let collector = Collector::default();
    let service = TraceServiceServer::new(collector.clone());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            let mut server = Server::builder().tls_config(tls).unwrap();
            server.add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
    });
    (address, collector)
}

fn secure(protocol: OtlpProtocol, address: SocketAddr) -> Otlp {
    let otlp = settings(protocol, address);
    Otlp { endpoint: otlp.endpoint.replace("http://127.0.0.1", "https://localhost"), ..otlp }
}

/// Sends, and expects all to arrive or none.
fn expect(otlp: Otlp, arrives: bool) {
    let mut exporters = start(otlp);
    send(&mut exporters, 250);
    if !arrives {
        tick_until(&mut exporters, "a retry", |stage| note(stage, "retries") >= 1);
    }
    let stages = exporters.flush_and_stop(if arrives { PATIENCE } else { Duration::from_millis(300) });
    assert_balance(&stages);
    let name = if arrives { "acknowledged" } else { "not sent before the stop" };
    assert_eq!(row(&stages[0], name), 250, "{stages:?}");
}

#[test]
fn a_named_authority_is_trusted_and_no_other() {
    let (ours, other, files) = (authority(), authority(), Files::new());
    let server = issue(&ours, "localhost");
    let certificate = Some(files.write("ca.pem", &ours.pem()));
    let wrong = Some(files.write("other.pem", &other.pem()));
    let (address, got) = https(&server, None);
    let otlp = secure(OtlpProtocol::HttpProtobuf, address);
    expect(Otlp { certificate: wrong.clone(), ..otlp.clone() }, false);
    assert!(got.lock().unwrap().is_empty());
    expect(Otlp { certificate: certificate.clone(), ..otlp }, true);
    assert_each_once(&got.lock().unwrap().iter().map(Got::decode).collect::<Vec<_>>(), 250);
    let (address, collector) = grpcs(&server, None);
    let otlp = secure(OtlpProtocol::Grpc, address);
    expect(Otlp { certificate: wrong, ..otlp.clone() }, false);
    assert!(collector.0.lock().unwrap().is_empty());
    expect(Otlp { certificate, ..otlp }, true);
    assert_each_once(&collector.0.lock().unwrap(), 250);
}

#[test]
fn a_certificate_for_another_name_is_not_taken() {
    let (ours, files) = (authority(), Files::new());
    let (address, got) = https(&issue(&ours, "elsewhere.example"), None);
    let certificate = Some(files.write("ca.pem", &ours.pem()));
    expect(Otlp { certificate, ..secure(OtlpProtocol::HttpProtobuf, address) }, false);
    assert!(got.lock().unwrap().is_empty());
}

#[test]
fn the_client_shows_its_certificate_where_one_is_asked_for() {
    let (ours, files) = (authority(), Files::new());
    let server = issue(&ours, "localhost");
    let client = issue(&ours, "agent");
    let certificate = Some(files.write("ca.pem", &ours.pem()));
    let client_certificate = Some(files.write("client.pem", &client.0));
    let client_key = Some(files.write("client.key", &client.1));
    let (http, got) = https(&server, Some(&ours));
    let (grpc, collector) = grpcs(&server, Some(&ours));
    for (protocol, address) in [(OtlpProtocol::HttpProtobuf, http), (OtlpProtocol::Grpc, grpc)] {
        let without = Otlp { certificate: certificate.clone(), ..secure(protocol, address) };
        expect(without.clone(), false);
        let with = Otlp {
            client_certificate: client_certificate.clone(),
            client_key: client_key.clone(),
            ..without
        };
        expect(with.clone(), true);
        let half = Otlp { client_key: None, ..with };
        assert!(
            spanwise::export::Exporters::start(&[spanwise::config::Exporter::Otlp(half)], LIMITS).is_err()
        );
    }
    assert_each_once(&got.lock().unwrap().iter().map(Got::decode).collect::<Vec<_>>(), 250);
    assert_each_once(&collector.0.lock().unwrap(), 250);
}
