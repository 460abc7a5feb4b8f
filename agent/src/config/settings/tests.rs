//! Precedence, rules of the OTLP variables, and one wrong value of every kind.

use std::io::Write;

use super::*;
use crate::config::file::{FileBatch, FileOtlp};
use crate::config::{Compression, Otlp, OtlpProtocol};

fn env(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn resolve(options: Options, pairs: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    Settings::resolve(&options, &env(pairs))
}

fn good(options: Options, pairs: &[(&str, &str)]) -> Settings {
    resolve(options, pairs).unwrap()
}

fn bad(options: Options, pairs: &[(&str, &str)]) -> String {
    resolve(options, pairs).unwrap_err().to_string()
}

fn none() -> Options {
    Options::default()
}

fn otlp(settings: &Settings) -> Otlp {
    settings
        .exporters
        .iter()
        .find_map(|e| if let Exporter::Otlp(otlp) = e { Some(otlp.clone()) } else { None })
        .unwrap_or_else(|| panic!("no OTLP exporter in {:?}", settings.exporters))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn with_file(file: &tempfile::NamedTempFile) -> Options {
    Options { config: Some(file.path().into()), ..none() }
}

#[test]
fn nothing_said() {
    let s = good(none(), &[]);
    assert_eq!(s.exporters, [Exporter::Console]);
    assert!(s.notes[0].contains("--endpoint"), "{:?}", s.notes);
    assert_eq!(s.sampler, Sampler::ParentBased(RootSampler::AlwaysOn));
    assert_eq!(s.plane, PlaneChoice::Auto);
    assert_eq!((s.duration, s.disabled), (None, false));
    assert_eq!(s.batch, Batch { delay: Duration::from_millis(250), queue: 16_384, size: 512 });
}

#[test]
fn an_empty_variable_is_not_set() {
    let empty =
        [("OTEL_TRACES_EXPORTER", ""), ("OTEL_TRACES_SAMPLER", " "), ("OTEL_EXPORTER_OTLP_ENDPOINT", "")];
    assert_eq!(good(none(), &empty).exporters, [Exporter::Console]);
}

#[test]
fn options_beat_environment_beats_file_beats_defaults() {
    let f = file(
        "plane = \"syscall\"\nsampler = \"always_off\"\nduration = \"3s\"\nservice_name = \"f\"\nfile = \"f.jsonl\"\n",
    );
    let options = Options { plane: Some("sock".into()), ..with_file(&f) };
    let s = good(options, &[("SPANWISE_PLANE", "fentry"), ("OTEL_TRACES_SAMPLER", "always_on")]);
    assert_eq!(s.plane, PlaneChoice::Sock);
    assert_eq!(s.sampler, Sampler::Root(RootSampler::AlwaysOn));
    assert_eq!(s.duration, Some(Duration::from_secs(3)));
    assert_eq!(s.service_name.as_deref(), Some("f"));
    assert_eq!(s.exporters, [Exporter::File("f.jsonl".into())]);
    let s = good(with_file(&f), &[("OTEL_TRACES_EXPORTER", "console")]);
    assert_eq!(s.exporters, [Exporter::Console], "the environment decides about exporters alone");
    let path = f.path().to_str().unwrap();
    assert_eq!(good(none(), &[("SPANWISE_CONFIG", path)]).plane, PlaneChoice::Syscall);
}

#[test]
fn the_arg_variable_belongs_to_the_sampler_variable() {
    let s = good(none(), &[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.1")]);
    assert_eq!(s.sampler, Sampler::Root(RootSampler::TraceIdRatio(0.1)));
    let options = Options { sampler: Some("traceidratio".into()), ..none() };
    let s = good(options, &[("OTEL_TRACES_SAMPLER_ARG", "0.1")]);
    assert_eq!(s.sampler, Sampler::Root(RootSampler::TraceIdRatio(1.0)));
}

#[test]
fn which_exporters() {
    let named = |list: &[&str]| Options { exporters: list.iter().map(|s| (*s).into()).collect(), ..none() };
    assert_eq!(good(named(&["file"]), &[]).exporters, [Exporter::File("traces.jsonl".into())]);
    assert_eq!(good(named(&["file"]), &[("SPANWISE_FILE", "x")]).exporters, [Exporter::File("x".into())]);
    assert_eq!(good(named(&["none"]), &[("OTEL_TRACES_EXPORTER", "otlp")]).exporters, [Exporter::None]);
    let options = Options { file: Some("a".into()), ..named(&["console", "console", "file"]) };
    assert_eq!(good(options, &[]).exporters, [Exporter::Console, Exporter::File("a".into())]);
    let options = Options { endpoint: Some("http://h:1".into()), ..none() };
    assert_eq!(otlp(&good(options, &[("OTEL_TRACES_EXPORTER", "console")])).endpoint, "http://h:1/v1/traces");
    assert!(matches!(
        good(none(), &[("OTEL_TRACES_EXPORTER", "otlp, console")]).exporters[..],
        [Exporter::Otlp(_), Exporter::Console]
    ));
    let s =
        good(none(), &[("OTEL_TRACES_EXPORTER", "console"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:1")]);
    assert_eq!(s.exporters, [Exporter::Console]);
    assert!(good(none(), &[("SPANWISE_FILE", "f")]).exporters == [Exporter::File("f".into())]);
    assert!(
        bad(named(&["zipkin"]), &[])
            .starts_with("--exporter is \"zipkin\", but it must be one of otlp, file")
    );
    assert!(
        bad(none(), &[("OTEL_TRACES_EXPORTER", "jaeger")]).starts_with("OTEL_TRACES_EXPORTER is \"jaeger\"")
    );
    assert!(bad(named(&["none", "console"]), &[]).contains("excludes every other"));
    assert!(
        bad(Options { protocol: Some("grpc".into()), ..named(&["console"]) }, &[]).contains("--protocol")
    );
}

#[test]
fn endpoints() {
    let endpoint = |pairs: &[(&str, &str)]| otlp(&good(none(), pairs)).endpoint;
    const ANY: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
    assert_eq!(endpoint(&[("OTEL_TRACES_EXPORTER", "otlp")]), "http://localhost:4318/v1/traces");
    assert_eq!(endpoint(&[("OTEL_TRACES_EXPORTER", "otlp"), (PROTOCOL, "grpc")]), "http://localhost:4317");
    assert_eq!(endpoint(&[(ANY, "http://h:4318")]), "http://h:4318/v1/traces");
    assert_eq!(endpoint(&[(ANY, "http://h:4318/")]), "http://h:4318/v1/traces");
    assert_eq!(endpoint(&[(ANY, "https://h/otlp/")]), "https://h/otlp/v1/traces");
    assert_eq!(
        endpoint(&[(ANY, "http://h/v1/traces")]),
        "http://h/v1/traces/v1/traces",
        "as the standard says"
    );
    assert_eq!(endpoint(&[(TRACES, "http://h:4318")]), "http://h:4318/");
    assert_eq!(endpoint(&[(TRACES, "http://h/x?y=1"), (ANY, "http://other")]), "http://h/x?y=1");
    assert_eq!(endpoint(&[(ANY, "http://h:4317/"), (PROTOCOL, "grpc")]), "http://h:4317");
    assert_eq!(endpoint(&[(ANY, "h:4317"), (PROTOCOL, "grpc")]), "https://h:4317");
    let plain = [(ANY, "h:4317"), (PROTOCOL, "grpc"), ("OTEL_EXPORTER_OTLP_INSECURE", "TRUE")];
    assert_eq!(endpoint(&plain), "http://h:4317");
    let option = |url: &str| otlp(&good(Options { endpoint: Some(url.into()), ..none() }, &[])).endpoint;
    assert_eq!(option("http://[::1]:4318"), "http://[::1]:4318/v1/traces");
    assert_eq!(option("http://h/v1/traces"), "http://h/v1/traces");
    for url in ["h:4318", "ftp://h", "http://", "http:///x", "http://h:99999999/", "http://h/?q=1", ""] {
        let error = bad(Options { endpoint: Some(url.into()), ..none() }, &[]);
        assert!(error.starts_with("--endpoint is"), "{url:?}: {error}");
    }
    let secret = bad(none(), &[(ANY, "http://user:hunter2@h")]);
    assert!(secret.contains("HEADERS") && !secret.contains("hunter2"), "{secret}");
    assert!(bad(none(), &[(ANY, "http://h/path"), (PROTOCOL, "grpc")]).contains("gRPC"));
    assert!(bad(none(), &[(ANY, "http://h"), (PROTOCOL, "udp")]).contains("http/protobuf"));
}

#[test]
fn otlp_details() {
    let s = good(
        none(),
        &[
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "ignored=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "X-Key=a%20b,authorization=Bearer%20t"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ],
    );
    let otlp = otlp(&s);
    let expected = [("x-key", "a b"), ("authorization", "Bearer t")];
    assert_eq!(otlp.headers, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!(otlp.compression, Compression::Gzip);
    assert_eq!(otlp.timeout, Duration::from_millis(2500));
    assert_eq!(otlp.protocol, OtlpProtocol::HttpProtobuf);

    let with = |name, value| bad(none(), &[("OTEL_TRACES_EXPORTER", "otlp"), (name, value)]);
    for headers in ["hunter2", "a b=hunter2", "k=hunter2%0a"] {
        let error = with("OTEL_EXPORTER_OTLP_HEADERS", headers);
        assert!(error.contains("OTEL_EXPORTER_OTLP_HEADERS") && !error.contains("hunter2"), "{error}");
    }
    assert!(with("OTEL_EXPORTER_OTLP_TIMEOUT", "10s").contains("milliseconds"));
    assert!(with("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd").contains("gzip or none"));
    assert!(with("OTEL_EXPORTER_OTLP_CERTIFICATE", "/does/not/exist").contains("cannot be read"));
}

#[test]
fn tls_files() {
    let pem = file("-----BEGIN CERTIFICATE-----\n");
    let pem = pem.path().to_str().unwrap();
    let text = file("hello");
    let text = text.path().to_str().unwrap();
    const CERT: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
    const KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";
    let base = ("OTEL_TRACES_EXPORTER", "otlp");
    let otlp = otlp(&good(none(), &[base, (CERT, pem), (KEY, pem), ("OTEL_EXPORTER_OTLP_CERTIFICATE", pem)]));
    assert_eq!(otlp.client_key.as_deref(), Some(std::path::Path::new(pem)));
    assert!(bad(none(), &[base, (CERT, pem)]).contains("go together"));
    assert!(bad(none(), &[base, (CERT, text), (KEY, pem)]).contains("PEM"));
}

#[test]
fn files_are_checked() {
    let full = file(
        "exporters = [\"otlp\"]\n[otlp]\nendpoint = \"http://h:1/v1/traces\"\nprotocol = \"http/json\"\ntimeout = \"3s\"\n\
         headers = { A = \"b\" }\n[batch]\ndelay = \"250ms\"\nqueue = 100\nsize = 10\n",
    );
    let s = good(with_file(&full), &[]);
    let got = otlp(&s);
    assert_eq!((got.endpoint.as_str(), got.protocol), ("http://h:1/v1/traces", OtlpProtocol::HttpJson));
    assert_eq!((got.timeout, got.headers), (Duration::from_secs(3), vec![("a".into(), "b".into())]));
    assert_eq!(s.batch, Batch { delay: Duration::from_millis(250), queue: 100, size: 10 });
    let typo = bad(with_file(&file("plane = \"auto\"\nplain = 1\n")), &[]);
    assert!(typo.contains("line 2") && typo.contains("plain"), "{typo}");
    let secret = bad(with_file(&file("[otlp]\nheaders = { a = \"hunter2\", b = 3 }\n")), &[]);
    assert!(!secret.contains("hunter2"), "{secret}");
    let value = bad(with_file(&file("plane = \"ftrace\"")), &[]);
    assert_eq!(
        value,
        "plane in the configuration file is \"ftrace\", but it must be one of auto, sock, fentry, kprobe, syscall"
    );
    assert!(bad(Options { config: Some("/no/such/file".into()), ..none() }, &[]).contains("/no/such/file"));
}

#[test]
fn batches_names_and_paths() {
    let s = good(none(), &[("OTEL_BSP_MAX_QUEUE_SIZE", "100"), ("OTEL_BSP_SCHEDULE_DELAY", "200")]);
    assert_eq!(s.batch, Batch { delay: Duration::from_millis(200), queue: 100, size: 100 });
    assert!(bad(none(), &[("OTEL_BSP_MAX_QUEUE_SIZE", "0")]).contains("above zero"));
    assert!(bad(none(), &[("OTEL_BSP_MAX_QUEUE_SIZE", "99999999")]).contains("1000000"));
    let both = [("OTEL_BSP_MAX_QUEUE_SIZE", "10"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "11")];
    assert!(bad(none(), &both).contains("holds 10 spans"));
    assert!(bad(Options { duration: Some("0s".into()), ..none() }, &[]).contains("longer than zero"));
    assert!(bad(Options { service_name: Some(" ".into()), ..none() }, &[]).contains("service name"));
    assert!(bad(Options { file: Some("dir/".into()), ..none() }, &[]).contains("path of a file"));
    let options = Options { file: Some("x".into()), record: Some("x".into()), ..none() };
    assert!(bad(options, &[]).contains("same file"));
    let s = good(
        none(),
        &[
            ("OTEL_SERVICE_NAME", "shop"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=a%20b"),
            ("OTEL_SDK_DISABLED", "True"),
        ],
    );
    assert_eq!((s.default_service_name.as_deref(), s.service_name), (Some("shop"), None));
    assert_eq!(s.resource, [("team".to_owned(), "a b".to_owned())]);
    assert!(s.disabled);
    let s = good(none(), &[("OTEL_SDK_DISABLED", "yes"), ("OTEL_CONFIG_FILE", "x")]);
    assert!(!s.disabled);
    assert!(
        s.notes.iter().any(|n| n.contains("OTEL_SDK_DISABLED"))
            && s.notes.iter().any(|n| n.contains("OTEL_CONFIG_FILE"))
    );
}

#[test]
fn budgets() {
    assert_eq!(good(none(), &[]).budgets, Budgets { cores: Some(1.0), memory: Some(256 << 20) });
    let f = file("max_cpu = \"20%\"\nmax_rss = \"64MiB\"\n");
    let said = [("SPANWISE_MAX_CPU", "0.1"), ("SPANWISE_MAX_RSS", "off")];
    assert_eq!(good(with_file(&f), &[]).budgets, Budgets { cores: Some(0.2), memory: Some(64 << 20) });
    assert_eq!(good(with_file(&f), &said).budgets, Budgets { cores: Some(0.1), memory: None });
    let options = Options { max_cpu: Some("off".into()), max_rss: Some("1GiB".into()), ..with_file(&f) };
    assert_eq!(good(options, &said).budgets, Budgets { cores: None, memory: Some(1 << 30) });
    let error = bad(none(), &[("SPANWISE_MAX_RSS", "64")]);
    assert!(error.starts_with("SPANWISE_MAX_RSS is \"64\", but it must be a number of bytes"), "{error}");
    let error = bad(Options { max_cpu: Some("0".into()), ..none() }, &[]);
    assert!(error.starts_with("--max-cpu is \"0\", but it must be a share"), "{error}");
    assert!(bad(with_file(&file("max_rss = \"1\"")), &[]).starts_with("max_rss in the configuration file"));
}

#[test]
fn the_filter_is_left_out_where_that_is_said() {
    assert!(good(none(), &[]).seccomp);
    assert!(!good(Options { no_seccomp: true, ..none() }, &[("SPANWISE_NO_SECCOMP", "false")]).seccomp);
    let f = file("no_seccomp = true\n");
    assert!(!good(with_file(&f), &[]).seccomp);
    assert!(good(with_file(&f), &[("SPANWISE_NO_SECCOMP", "False")]).seccomp);
    assert!(good(with_file(&file("no_seccomp = false\n")), &[]).seccomp);
    let error = bad(none(), &[("SPANWISE_NO_SECCOMP", "yes")]);
    assert!(error.starts_with("SPANWISE_NO_SECCOMP is \"yes\", but it must be true or false"), "{error}");
}

/// The example among the deployment files.
fn example() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/config/spanwise.toml")).unwrap()
}

#[test]
fn the_example_says_what_holds_without_it() {
    let example = good(with_file(&file(&example())), &[]);
    let nothing = good(none(), &[]);
    assert_eq!(Settings { notes: vec![], ..example }, Settings { notes: vec![], ..nothing });
    // The OTLP part is not in the settings of a console.
    let asked = |config| Options { exporters: vec!["otlp".into()], ..config };
    let text = self::example();
    assert_eq!(otlp(&good(asked(with_file(&file(&text))), &[])), otlp(&good(asked(none()), &[])));
}

#[test]
fn the_example_has_every_key() {
    // "#key" is a key that is left out, "# word" is prose.
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest.to_owned(),
        _ => line.to_owned(),
    };
    let text: Vec<String> = example().lines().map(uncommented).collect();
    let file = file(&text.join("\n"));
    // Without "..": a new key does not compile until it stands here.
    let File {
        exporters,
        file,
        sampler,
        service_name,
        plane,
        duration,
        record,
        ready_file,
        max_cpu,
        max_rss,
        no_seccomp,
        otlp,
        batch,
    } = File::read(file.path()).unwrap();
    let FileOtlp {
        endpoint,
        protocol,
        headers,
        compression,
        timeout,
        certificate,
        client_certificate,
        client_key,
    } = otlp;
    let FileBatch { delay, queue, size } = batch;
    assert!(exporters.is_some() && headers.is_some() && queue.is_some() && size.is_some());
    assert!(no_seccomp.is_some());
    let texts = [
        file,
        sampler,
        service_name,
        plane,
        duration,
        record,
        ready_file,
        max_cpu,
        max_rss,
        endpoint,
        protocol,
        compression,
        timeout,
        certificate,
        client_certificate,
        client_key,
        delay,
    ];
    assert!(texts.iter().all(Option::is_some), "{texts:?}");
}
