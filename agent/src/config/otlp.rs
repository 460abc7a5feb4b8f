//! Settings of the OTLP exporter: endpoint rules, headers, TLS files.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use super::error::ConfigError;
use super::file::FileOtlp;
use super::pairs::parse_pairs;
use super::said::{Environment, Level, Places, Said};
use super::settings::Options;
use super::types::{Compression, Otlp, OtlpProtocol};
use super::values::{duration, milliseconds};

const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// What HTTP endpoints get appended, except the one given for traces alone.
const PATH: &str = "/v1/traces";

/// Where the endpoint was given, if it was.
pub(super) fn endpoint(options: &Options, env: &Environment, file: &FileOtlp) -> Option<Said> {
    Places {
        option: options.endpoint.as_deref().map(|v| ("--endpoint", v)),
        variables: &[TRACES_ENDPOINT, ENDPOINT],
        key: file.endpoint.as_deref().map(|v| ("otlp.endpoint", v)),
    }
    .find(env)
}

pub(super) fn resolve(options: &Options, env: &Environment, file: &FileOtlp) -> Result<Otlp, ConfigError> {
    let protocol = Places {
        option: options.protocol.as_deref().map(|v| ("--protocol", v)),
        variables: &["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"],
        key: file.protocol.as_deref().map(|v| ("otlp.protocol", v)),
    }
    .find(env)
    .map_or(Ok(OtlpProtocol::HttpProtobuf), |said| match said.value.as_str() {
        "grpc" => Ok(OtlpProtocol::Grpc),
        "http/protobuf" => Ok(OtlpProtocol::HttpProtobuf),
        "http/json" => Ok(OtlpProtocol::HttpJson),
        _ => Err(ConfigError::value(&said, "it must be one of grpc, http/protobuf, http/json")),
    })?;
    let compression = Places {
        option: None,
        variables: &["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"],
        key: file.compression.as_deref().map(|v| ("otlp.compression", v)),
    }
    .find(env)
    .map_or(Ok(Compression::None), |said| match said.value.as_str() {
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        _ => Err(ConfigError::value(&said, "it must be gzip or none")),
    })?;
    let timeout = Places {
        option: None,
        variables: &["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"],
        key: file.timeout.as_deref().map(|v| ("otlp.timeout", v)),
    }
    .find(env)
    .map_or(Ok(Duration::from_secs(10)), |said| match said.level {
        Level::Environment => milliseconds(&said),
        _ => duration(&said),
    })?;
    let pem = |variables: &[&'static str], key: &'static str, value: &Option<String>| {
        Places { option: None, variables, key: value.as_deref().map(|v| (key, v)) }
            .find(env)
            .map(|said| readable(&said))
            .transpose()
    };
    let certificate = pem(
        &["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"],
        "otlp.certificate",
        &file.certificate,
    )?;
    let client_certificate = pem(
        &["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"],
        "otlp.client_certificate",
        &file.client_certificate,
    )?;
    let client_key = pem(
        &["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"],
        "otlp.client_key",
        &file.client_key,
    )?;
    if client_certificate.is_some() != client_key.is_some() {
        return Err(ConfigError::Conflict(
            "a client certificate and its key go together, but only one of them is given; give both \
             OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY, or none"
                .into(),
        ));
    }
    let endpoint = match endpoint(options, env, file) {
        Some(said) => url(&said, protocol, env)?,
        None if protocol == OtlpProtocol::Grpc => "http://localhost:4317".into(),
        None => format!("http://localhost:4318{PATH}"),
    };
    let headers = headers(env, file)?;
    Ok(Otlp {
        endpoint,
        protocol,
        headers,
        compression,
        timeout,
        certificate,
        client_certificate,
        client_key,
    })
}

/// The full URL that an endpoint means.
fn url(said: &Said, protocol: OtlpProtocol, env: &Environment) -> Result<String, ConfigError> {
    let grpc = protocol == OtlpProtocol::Grpc;
    let mut text = said.value.trim().to_owned();
    if !text.contains("://") {
        if said.level != Level::Environment || !grpc {
            return Err(ConfigError::value(said, "it must be a URL that begins with http:// or https://"));
        }
        text = format!("{}://{text}", if insecure(env)? { "http" } else { "https" });
    }
    let uri: Uri =
        text.parse().map_err(|_| ConfigError::value(said, "it must be a URL such as http://host:4318"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(ConfigError::value(said, "it must be a URL such as http://host:4318"));
    };
    if !matches!(scheme, "http" | "https") || authority.host().is_empty() {
        return Err(ConfigError::value(said, "it must be a URL that begins with http:// or https://"));
    }
    let port = authority.as_str().rsplit_once(authority.host()).map_or("", |(_, port)| port);
    if !port.is_empty() && authority.port_u16().is_none() {
        return Err(ConfigError::value(said, "its port must be a number from 0 to 65535"));
    }
    if authority.as_str().contains('@') {
        let why = "user and password do not belong into the URL; use OTEL_EXPORTER_OTLP_HEADERS";
        return Err(ConfigError::Secret { origin: said.origin.clone(), why: why.into() });
    }
    let base = format!("{scheme}://{authority}");
    let path = uri.path().trim_end_matches('/');
    if grpc {
        if !path.is_empty() || uri.query().is_some() {
            return Err(ConfigError::value(
                said,
                "gRPC takes scheme, host and port only, such as http://host:4317",
            ));
        }
        return Ok(base);
    }
    if said.origin == TRACES_ENDPOINT {
        return Ok(format!("{base}{}", uri.path_and_query().map_or("/", |pq| pq.as_str())));
    }
    if uri.query().is_some() {
        return Err(ConfigError::value(said, format!("it must not have a query; {TRACES_ENDPOINT} may")));
    }
    // The option and the file are forgiving: what already names the signal is taken as it is.
    if said.level != Level::Environment && path.ends_with(PATH) {
        return Ok(format!("{base}{path}"));
    }
    Ok(format!("{base}{path}{PATH}"))
}

fn insecure(env: &Environment) -> Result<bool, ConfigError> {
    let places = Places {
        option: None,
        variables: &["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"],
        key: None,
    };
    match places.find(env) {
        None => Ok(false),
        Some(said) => match said.value.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(ConfigError::value(&said, "it must be true or false")),
        },
    }
}

fn headers(env: &Environment, file: &FileOtlp) -> Result<Vec<(String, String)>, ConfigError> {
    let variables = &["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
    let (origin, pairs) = match (Places { option: None, variables, key: None }.find(env), &file.headers) {
        (Some(said), _) => {
            let pairs = parse_pairs(&said.value);
            (said.origin, pairs)
        }
        (None, Some(map)) => (
            "otlp.headers in the configuration file".to_owned(),
            Ok(map.iter().map(|(name, value)| (name.clone(), value.clone())).collect()),
        ),
        (None, None) => return Ok(Vec::new()),
    };
    let secret = |why: String| ConfigError::Secret { origin: origin.clone(), why };
    let mut headers = pairs.map_err(secret)?;
    for (name, value) in &mut headers {
        name.make_ascii_lowercase();
        HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| secret(format!("{name:?} is not a header name")))?;
        HeaderValue::from_str(value)
            .map_err(|_| secret(format!("the value of {name:?} has characters that no header may have")))?;
    }
    Ok(headers)
}

/// A PEM file that can be read now.
fn readable(said: &Said) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(&said.value);
    let text = std::fs::read(&path)
        .map_err(|error| ConfigError::value(said, format!("that file cannot be read: {error}")))?;
    if memchr::memmem::find(&text, b"-----BEGIN ").is_none() {
        return Err(ConfigError::value(said, "that file is not in PEM form"));
    }
    Ok(path)
}
