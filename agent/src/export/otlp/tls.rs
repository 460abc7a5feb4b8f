//! TLS of the HTTP exporters: roots, the client's own certificate, and the ring provider named explicitly, so that
//! no process-wide default is needed.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use super::super::ExportError;
use crate::config::Otlp;

/// Reads a file named in the settings.
pub(super) fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, ExportError> {
    std::fs::read(path).map_err(|source| ExportError::Read { what, path: path.to_owned(), source })
}

/// A certificate and its key, in PEM.
pub(super) type CertificateAndKey = (Vec<u8>, Vec<u8>);

/// The client's certificate and key, both or none.
pub(super) fn identity(otlp: &Otlp) -> Result<Option<CertificateAndKey>, ExportError> {
    match (&otlp.client_certificate, &otlp.client_key) {
        (Some(certificate), Some(key)) => {
            Ok(Some((read(certificate, "client certificate")?, read(key, "client key")?)))
        }
        (None, None) => Ok(None),
        _ => Err(ExportError::HalfIdentity),
    }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, ExportError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(ExportError::Tls { what, why: "the file holds no certificate in PEM".to_owned() }),
        Err(error) => Err(ExportError::Tls { what, why: error.to_string() }),
    }
}

/// Fails where the files do not hold what they should, so that this is said at the start and not at the first
/// span.
pub(super) fn check(otlp: &Otlp) -> Result<(), ExportError> {
    client_config(otlp).map(|_| ())
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, ExportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ExportError::Tls { what: "set-up", why: error.to_string() })
}

/// Settings for connections to an `https` endpoint.
pub(super) fn client_config(otlp: &Otlp) -> Result<ClientConfig, ExportError> {
    let config = match &otlp.certificate {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&read(path, "certificate")?, "certificate")? {
                roots
                    .add(certificate)
                    .map_err(|error| ExportError::Tls { what: "certificate", why: error.to_string() })?;
            }
            builder()?.with_root_certificates(roots)
        }
        None => builder()?.with_native_roots().map_err(|_| ExportError::NoRoots)?,
    };
    let Some((certificate, key)) = identity(otlp)? else {
        return Ok(config.with_no_client_auth());
    };
    let chain = certificates(&certificate, "client certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| ExportError::Tls { what: "client key", why: error.to_string() })?;
    config
        .with_client_auth_cert(chain, key)
        .map_err(|error| ExportError::Tls { what: "client certificate", why: error.to_string() })
}

/// Settings for a connector that only ever meets `http` endpoints; they trust nobody.
pub(super) fn unused_config() -> Result<ClientConfig, ExportError> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}
