//! OTLP against endpoints that work, fail, come late, lie or say nothing. In every case the accounts balance.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::collector::{Collector, partly, taken};
use crate::support::*;
use prost::Message;
use spanwise::config::{Compression, Exporter, OtlpProtocol};
use spanwise::export::{ExportError, Exporters, Limits};
use tonic::{Code, Status};

const HTTP: [OtlpProtocol; 2] = [OtlpProtocol::HttpProtobuf, OtlpProtocol::HttpJson];

#[test]
fn every_span_arrives_over_http() {
    for protocol in HTTP {
        for compression in [Compression::None, Compression::Gzip] {
            let endpoint = Endpoint::start(|_| ok());
            let mut exporters =
                start(spanwise::config::Otlp { compression, ..settings(protocol, endpoint.address) });
            send(&mut exporters, 3_050);
            let stages = exporters.flush_and_stop(PATIENCE);
            assert_balance(&stages);
            assert_eq!(row(&stages[0], "acknowledged"), 3_050, "{stages:?}");
            assert_each_once(&endpoint.decoded(), 3_050);
            for got in endpoint.got() {
                assert_eq!(got.line, "POST /v1/traces HTTP/1.1");
                assert_eq!(got.headers["x-api-key"], "secret");
                let agent = &got.headers["user-agent"];
                assert!(
                    agent.starts_with("Spanwise/") && agent.contains(" OTel-OTLP-Exporter-Rust/"),
                    "{agent}"
                );
            }
        }
    }
}

#[test]
fn every_span_arrives_over_grpc() {
    for compression in [Compression::None, Compression::Gzip] {
        let (collector, address) = Collector::start(|_| taken());
        let mut exporters =
            start(spanwise::config::Otlp { compression, ..settings(OtlpProtocol::Grpc, address) });
        send(&mut exporters, 3_050);
        let stages = exporters.flush_and_stop(PATIENCE);
        assert_balance(&stages);
        assert_eq!(row(&stages[0], "acknowledged"), 3_050, "{stages:?}");
        assert_each_once(&collector.requests(), 3_050);
        for (metadata, _, _) in collector.got.lock().unwrap().iter() {
            assert_eq!(metadata.get("x-api-key").unwrap(), "secret");
            let agent = metadata.get("user-agent").unwrap().to_str().unwrap();
            assert!(agent.starts_with("Spanwise/") && agent.contains(" OTel-OTLP-Exporter-Rust/"), "{agent}");
            let coding = metadata.get("grpc-encoding").map(|coding| coding.to_str().unwrap());
            assert_eq!(coding == Some("gzip"), compression == Compression::Gzip);
        }
    }
}

#[test]
fn one_encoding_serves_several_exporters() {
    let (one, two) = (Endpoint::start(|_| ok()), Endpoint::start(|_| ok()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("traces.jsonl");
    let all = [
        Exporter::Otlp(settings(OtlpProtocol::HttpProtobuf, one.address)),
        Exporter::Otlp(settings(OtlpProtocol::HttpJson, two.address)),
        Exporter::File(path.clone()),
        Exporter::None,
    ];
    let mut exporters = Exporters::start(&all, LIMITS).unwrap();
    send(&mut exporters, 777);
    let stages = exporters.flush_and_stop(PATIENCE);
    assert_balance(&stages);
    assert_eq!(stages.len(), 4);
    assert!(stages.iter().all(|stage| stage.input == 777 && stage.rows[0].2 == 777), "{stages:?}");
    assert_each_once(&one.decoded(), 777);
    assert_each_once(&two.decoded(), 777);
    let lines = std::fs::read_to_string(path).unwrap();
    let requests: Vec<_> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_each_once(&requests, 777);
}

#[test]
fn a_busy_endpoint_is_asked_again_when_it_said() {
    let busy = |index| match index {
        0 => Reply::Http("503 Service Unavailable", "retry-after: 1\r\n".to_owned(), Vec::new()),
        _ => ok(),
    };
    let endpoint = Endpoint::start(busy);
    let mut exporters = start(settings(OtlpProtocol::HttpProtobuf, endpoint.address));
    send(&mut exporters, 10);
    tick_until(&mut exporters, "delivery", |stage| row(stage, "acknowledged") == 10);
    let stages = exporters.flush_and_stop(PATIENCE);
    let got = endpoint.got();
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].body, got[1].body, "a retry sends the same bytes");
    assert!(got[1].at - got[0].at >= Duration::from_secs(1));
    assert_eq!(note(&stages[0], "retries"), 1);
}

#[test]
fn a_busy_grpc_endpoint_is_asked_again_when_it_said() {
    // google.rpc.Status { code: 8, details: [Any(RetryInfo { retry_delay: 1 s })] }
    let mut details = vec![0x08, 8, 0x1a, 0];
    let url = b"type.googleapis.com/google.rpc.RetryInfo";
    details.extend([0x0a, url.len() as u8]);
    details.extend(url);
    details.extend([0x12, 4, 0x0a, 2, 0x08, 1]);
    details[3] = (details.len() - 4) as u8;
    let (collector, address) = Collector::start(move |index| match index {
        0 => Err(Status::with_details(Code::ResourceExhausted, "slow down", details.clone().into())),
        1 => Err(Status::unavailable("not now")),
        _ => taken(),
    });
    let mut exporters = start(settings(OtlpProtocol::Grpc, address));
    send(&mut exporters, 10);
    tick_until(&mut exporters, "delivery", |stage| row(stage, "acknowledged") == 10);
    let stages = exporters.flush_and_stop(PATIENCE);
    let times = collector.times();
    assert_eq!(times.len(), 3);
    assert!(times[1] - times[0] >= Duration::from_secs(1));
    assert_eq!(note(&stages[0], "retries"), 2);
}

#[test]
fn what_is_refused_is_dropped_and_counted() {
    for status in ["400 Bad Request", "404 Not Found", "413 Content Too Large", "500 Internal", "301 Moved"] {
        let endpoint = Endpoint::start(move |_| Reply::Http(status, String::new(), b"no".to_vec()));
        let mut exporters = start(settings(OtlpProtocol::HttpProtobuf, endpoint.address));
        send(&mut exporters, 100);
        let stages = exporters.flush_and_stop(PATIENCE);
        assert_balance(&stages);
        assert_eq!(row(&stages[0], "refused by the endpoint"), 100, "{status}: {stages:?}");
        assert_eq!(endpoint.got().len(), 1, "{status} is final");
    }
    let exhausted = Status::resource_exhausted("for ever");
    for status in [Status::invalid_argument("no"), Status::unimplemented("no"), exhausted] {
        let (collector, address) = Collector::start(move |_| Err(status.clone()));
        let mut exporters = start(settings(OtlpProtocol::Grpc, address));
        send(&mut exporters, 100);
        let stages = exporters.flush_and_stop(PATIENCE);
        assert_balance(&stages);
        assert_eq!(row(&stages[0], "refused by the endpoint"), 100, "{stages:?}");
        assert_eq!(collector.requests().len(), 1);
    }
}

#[test]
fn a_partial_success_is_final_and_counted() {
    let protobuf = || {
        let kind = "content-type: application/x-protobuf\r\n".to_owned();
        Reply::Http("200 OK", kind, partly(7).encode_to_vec())
    };
    let json = || {
        let kind = "content-type: application/json; charset=utf-8\r\n".to_owned();
        let body = br#"{"partialSuccess":{"rejectedSpans":"7","errorMessage":"too old"}}"#;
        Reply::Http("200 OK", kind, body.to_vec())
    };
    let (collector, grpc) = Collector::start(|_| Ok(partly(7)));
    let (one, two) = (Endpoint::start(move |_| protobuf()), Endpoint::start(move |_| json()));
    let all = [
        settings(OtlpProtocol::Grpc, grpc),
        settings(OtlpProtocol::HttpProtobuf, one.address),
        settings(OtlpProtocol::HttpJson, two.address),
    ];
    let mut exporters = Exporters::start(&all.map(Exporter::Otlp), LIMITS).unwrap();
    send(&mut exporters, 100);
    let stages = exporters.flush_and_stop(PATIENCE);
    assert_balance(&stages);
    for stage in &stages {
        assert_eq!(row(stage, "rejected in part by the endpoint"), 7, "{stage:?}");
        assert_eq!(row(stage, "acknowledged"), 93);
    }
    assert_eq!((collector.requests().len(), one.got().len(), two.got().len()), (1, 1, 1));
}

#[test]
fn more_rejected_than_sent_is_not_more_than_was_sent() {
    let (_collector, address) = Collector::start(|_| Ok(partly(i64::MAX)));
    let mut exporters = start(settings(OtlpProtocol::Grpc, address));
    send(&mut exporters, 100);
    let stages = exporters.flush_and_stop(PATIENCE);
    assert_balance(&stages);
    assert_eq!(row(&stages[0], "rejected in part by the endpoint"), 100);
}

#[test]
fn an_endpoint_that_comes_late_gets_everything() {
    for protocol in [OtlpProtocol::HttpProtobuf, OtlpProtocol::Grpc] {
        // A port that is free, for a moment at least.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut exporters = start(settings(protocol, address));
        send(&mut exporters, 1_000);
        tick_until(&mut exporters, "a retry", |stage| note(stage, "retries") >= 2);
        assert_eq!(row(&exporters.stages()[0], "acknowledged"), 0);
        if protocol == OtlpProtocol::Grpc {
            let collector = Collector::on(TcpListener::bind(address).unwrap(), |_| taken());
            tick_until(&mut exporters, "delivery", |stage| row(stage, "acknowledged") == 1_000);
            assert_each_once(&collector.requests(), 1_000);
        } else {
            let endpoint = Endpoint::on(TcpListener::bind(address).unwrap(), |_| ok());
            tick_until(&mut exporters, "delivery", |stage| row(stage, "acknowledged") == 1_000);
            assert_each_once(&endpoint.decoded(), 1_000);
        }
        assert_balance(&exporters.flush_and_stop(PATIENCE));
    }
}

#[test]
fn a_silent_endpoint_does_not_hold_up_the_stop() {
    for protocol in [OtlpProtocol::HttpProtobuf, OtlpProtocol::Grpc] {
        let endpoint = Endpoint::start(|_| Reply::Silence);
        let mut exporters = start(settings(protocol, endpoint.address));
        send(&mut exporters, 1_000);
        let began = Instant::now();
        let stages = exporters.flush_and_stop(Duration::from_millis(300));
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(290) && took < Duration::from_millis(800), "{took:?}");
        assert_balance(&stages);
        assert_eq!(row(&stages[0], "not sent before the stop"), 1_000, "{stages:?}");
    }
}

#[test]
fn a_silent_endpoint_times_out_and_is_asked_again() {
    let endpoint = Endpoint::start(|index| if index == 0 { Reply::Silence } else { ok() });
    let timeout = Duration::from_millis(200);
    let settings = settings(OtlpProtocol::HttpProtobuf, endpoint.address);
    let mut exporters = start(spanwise::config::Otlp { timeout, ..settings });
    send(&mut exporters, 10);
    tick_until(&mut exporters, "delivery", |stage| row(stage, "acknowledged") == 10);
    assert_eq!(endpoint.got().len(), 2);
}

#[test]
fn a_lying_endpoint_does_no_harm() {
    let html = || {
        let kind = "content-type: text/html\r\n".to_owned();
        Reply::Http("200 OK", kind, b"<html>Welcome</html>".to_vec())
    };
    let garbled = || {
        let kind = "content-type: application/x-protobuf\r\n".to_owned();
        Reply::Http("200 OK", kind, vec![0xff; 100])
    };
    let cut = || {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
        Reply::Raw(head.into())
    };
    let replies: [fn() -> Reply; 4] = [html, garbled, cut, || Reply::Endless];
    for reply in replies {
        let endpoint = Endpoint::start(move |_| reply());
        let mut exporters = start(settings(OtlpProtocol::HttpProtobuf, endpoint.address));
        send(&mut exporters, 100);
        let stages = exporters.flush_and_stop(PATIENCE);
        assert_balance(&stages);
        assert_eq!(row(&stages[0], "acknowledged"), 100, "{stages:?}");
        assert_eq!(note(&stages[0], "answers not understood"), 1);
        assert_eq!(endpoint.got().len(), 1, "a success is not asked for again");
    }
}

#[test]
fn bytes_that_are_no_http_do_no_harm() {
    for protocol in [OtlpProtocol::HttpProtobuf, OtlpProtocol::Grpc] {
        let endpoint = Endpoint::start(|_| Reply::Raw(vec![0; 1_000_000]));
        let mut exporters = start(settings(protocol, endpoint.address));
        send(&mut exporters, 100);
        tick_until(&mut exporters, "a retry", |stage| note(stage, "retries") >= 1);
        let stages = exporters.flush_and_stop(Duration::from_millis(300));
        assert_balance(&stages);
        assert_eq!(row(&stages[0], "not sent before the stop"), 100, "{stages:?}");
    }
}

#[test]
fn a_grpc_answer_beyond_the_limit_is_not_read_and_not_asked_for_again() {
    let (collector, address) = Collector::start(|_| {
        let mut answer = partly(0);
        answer.partial_success.as_mut().unwrap().error_message = "x".repeat(5 * 1024 * 1024);
        Ok(answer)
    });
    let mut exporters = start(settings(OtlpProtocol::Grpc, address));
    send(&mut exporters, 100);
    let stages = exporters.flush_and_stop(PATIENCE);
    assert_balance(&stages);
    assert_eq!(row(&stages[0], "acknowledged"), 100, "{stages:?}");
    assert_eq!(note(&stages[0], "answers not understood"), 1);
    assert_eq!(collector.requests().len(), 1);
}

#[test]
fn an_endless_outage_costs_the_oldest_and_no_more_memory_than_said() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let limits = Limits { queue_bytes: 100_000, ..LIMITS };
    let otlp = settings(OtlpProtocol::HttpProtobuf, address);
    let mut exporters = Exporters::start(&[Exporter::Otlp(otlp)], limits).unwrap();
    for number in 0..20_000 {
        exporters.span(&span(number));
        if number % 500 == 0 {
            let stages = exporters.stages();
            assert_balance(&stages);
            assert!(note(&stages[0], "bytes held") <= 100_000, "{stages:?}");
        }
    }
    assert!(row(&exporters.stages()[0], "queue full") > 15_000);
    // What is left when the endpoint comes are the newest.
    let endpoint = Endpoint::on(TcpListener::bind(address).unwrap(), |_| ok());
    tick_until(&mut exporters, "delivery", |stage| row(stage, "waiting") + row(stage, "in flight") == 0);
    let stages = exporters.flush_and_stop(PATIENCE);
    assert_balance(&stages);
    let seen = numbers(&endpoint.decoded());
    assert_eq!(row(&stages[0], "acknowledged"), seen.len() as u64);
    assert!((19_700..20_000).all(|number| seen.contains_key(&number)));
}

#[test]
fn exporters_that_are_dropped_leave_no_thread_behind() {
    let endpoint = Endpoint::start(|_| Reply::Silence);
    let threads = || {
        std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
            let name = std::fs::read_to_string(task.ok()?.path().join("comm")).ok()?;
            name.starts_with("spanwise-screen").then_some(())
        })
    };
    let all = [Exporter::Console, Exporter::Otlp(settings(OtlpProtocol::Grpc, endpoint.address))];
    let exporters = Exporters::start(&all, LIMITS).unwrap();
    // A thread gives itself its name, a moment after it began.
    let wait_for = |count| {
        let began = Instant::now();
        while threads().count() != count {
            assert!(began.elapsed() < PATIENCE, "not {count}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait_for(1);
    drop(exporters);
    wait_for(0);
}

#[test]
fn what_is_wrong_with_the_settings_is_said_at_the_start() {
    let address = "127.0.0.1:1".parse().unwrap();
    let base = settings(OtlpProtocol::HttpProtobuf, address);
    let start = |otlp| Exporters::start(&[Exporter::Otlp(otlp)], LIMITS).map(|_| ()).unwrap_err();
    let mut otlp = base.clone();
    for endpoint in ["localhost:4317", "ftp://host/", "http://", "", "http://a b/"] {
        otlp.endpoint = endpoint.to_owned();
        assert!(matches!(start(otlp.clone()), ExportError::Endpoint { .. }), "{endpoint}");
    }
    let mut otlp = base.clone();
    otlp.headers = vec![("x-key".to_owned(), "se\ncret".to_owned())];
    let error = start(otlp);
    assert!(matches!(&error, ExportError::Header { name } if name == "x-key"));
    assert!(!error.to_string().contains("cret"), "a secret stays secret");
    let mut otlp = base.clone();
    otlp.endpoint = "https://localhost/".to_owned();
    otlp.certificate = Some("/nowhere/ca.pem".into());
    assert!(matches!(start(otlp.clone()), ExportError::Read { .. }));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("empty.pem");
    std::fs::write(&file, "no certificate").unwrap();
    otlp.certificate = Some(file);
    assert!(matches!(start(otlp.clone()), ExportError::Tls { .. }));
    otlp.protocol = OtlpProtocol::Grpc;
    assert!(matches!(start(otlp), ExportError::Tls { .. }));
}
