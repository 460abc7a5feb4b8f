//! Server and client in Rust as programs are written: tokio, hyper and rustls, HTTP/1 or HTTP/2.
//!
//! `rusty server PORT CERT KEY` answers `/leaf/N` with N, on as many threads as there are processors; `rusty client URL h1|h2 REQUESTS
//! CONNECTIONS STREAMS CA [1.2] [old]` waits for a line on standard input, asks for `/leaf/1` to `/leaf/REQUESTS` on one
//! thread, and says `done SENT GOOD`. With `old` each connection is made, and used once, before that.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const H2: &[u8] = b"h2";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["server", port, cert, key] => tokio::runtime::Runtime::new()?.block_on(serve(port, cert, key)),
        ["client", url, protocol, requests, connections, streams, ca, options @ ..] => {
            let plan = Plan {
                port: url.rsplit(':').next().context("no port")?.parse()?,
                http2: *protocol == "h2",
                requests: requests.parse()?,
                streams: streams.parse()?,
                old: options.contains(&"old"),
                tls12: options.contains(&"1.2"),
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(load(Arc::new(plan), connections.parse()?, ca))
        }
        _ => anyhow::bail!(
            "rusty server PORT CERT KEY, or rusty client URL h1|h2 REQUESTS CONNECTIONS STREAMS CA"
        ),
    }
}

async fn serve(port: &str, cert: &str, key: &str) -> Result<()> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    println!("ready");
    loop {
        let (socket, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
            let io = TokioIo::new(stream);
            // That a client leaves is no fault.
            if http2 {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(io, service_fn(answer)).await);
            } else {
                let server = hyper::server::conn::http1::Builder::new();
                drop(server.serve_connection(io, service_fn(answer)).await);
            }
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    Ok(Response::new(Full::new(number.into())))
}

struct Plan {
    port: u16,
    http2: bool,
    requests: u64,
    streams: usize,
    old: bool,
    tls12: bool,
}

/// One connection's way to ask.
#[derive(Clone)]
enum Sender {
    One(Arc<tokio::sync::Mutex<http1::SendRequest<Full<Bytes>>>>),
    Many(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn get(&mut self, number: u64) -> Result<()> {
        let path = format!("/leaf/{number}");
        let (status, body) = match self {
            Self::One(sender) => {
                let request = Request::get(&path).header("host", "localhost").body(Full::default())?;
                let mut sender = sender.lock().await;
                sender.ready().await?;
                let answer = sender.send_request(request).await?;
                (answer.status(), answer.into_body().collect().await?.to_bytes())
            }
            Self::Many(sender) => {
                let request = Request::get(format!("https://localhost{path}")).body(Full::default())?;
                sender.ready().await?;
                let answer = sender.send_request(request).await?;
                (answer.status(), answer.into_body().collect().await?.to_bytes())
            }
        };
        ensure!(status == 200 && body == number.to_string().as_bytes(), "{path}: {status}, {body:?}");
        Ok(())
    }
}

async fn connect(plan: &Plan, connector: &TlsConnector) -> Result<Sender> {
    let socket = TcpStream::connect(("127.0.0.1", plan.port)).await?;
    socket.set_nodelay(true)?;
    let io = TokioIo::new(connector.connect(ServerName::try_from("localhost")?, socket).await?);
    Ok(if plan.http2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Sender::Many(sender)
    } else {
        let (sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        Sender::One(Arc::new(tokio::sync::Mutex::new(sender)))
    })
}

async fn load(plan: Arc<Plan>, connections: usize, ca: &str) -> Result<()> {
    let connector = connector(&plan, Path::new(ca))?;
    let mut senders = Vec::new();
    if plan.old {
        for _ in 0..connections {
            let mut sender = connect(&plan, &connector).await?;
            sender.get(0).await?;
            senders.push(sender);
        }
    }
    println!("ready");
    line().await?;
    while senders.len() < connections {
        senders.push(connect(&plan, &connector).await?);
    }
    let (next, good) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for sender in senders.iter().flat_map(|sender| std::iter::repeat_n(sender, plan.streams)) {
        let (mut sender, plan, next, good) =
            (sender.clone(), Arc::clone(&plan), Arc::clone(&next), Arc::clone(&good));
        tasks.push(tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number > plan.requests {
                    break;
                }
                match sender.get(number).await {
                    Ok(()) => drop(good.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => eprintln!("{error:#}"),
                }
            }
        }));
    }
    for task in tasks {
        task.await?;
    }
    println!("done {} {}", plan.requests, good.load(Ordering::Relaxed));
    // The agent is to see the end of the connections before the end of the process.
    drop(senders);
    line().await
}

fn connector(plan: &Plan, ca: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let versions: &[_] = if plan.tls12 { &[&rustls::version::TLS12] } else { rustls::ALL_VERSIONS };
    let mut config = ClientConfig::builder_with_protocol_versions(versions)
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![if plan.http2 { H2.to_vec() } else { b"http/1.1".to_vec() }];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Waits for a line, while the connections go on.
async fn line() -> Result<()> {
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}
