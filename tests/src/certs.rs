//! Certificates for the tests. In: a folder. Out: an authority, and a certificate for localhost signed by it, as PEM files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Paths of PEM files.
#[derive(Clone, Debug)]
pub struct Certs {
    /// The authority's certificate, for clients.
    pub ca: PathBuf,
    /// The certificate of localhost and 127.0.0.1.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certs {
    /// Makes them.
    pub fn make(dir: &Path) -> Result<Self> {
        let named = |names: &[&str], common: &str| -> Result<CertificateParams> {
            let mut params =
                CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
            params.distinguished_name.push(DnType::CommonName, common);
            Ok(params)
        };
        let mut authority = named(&[], "tests of spanwise")?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let own = named(&["localhost", "127.0.0.1"], "localhost")?.signed_by(&key, &authority)?;
        let certs = Self { ca: dir.join("ca.pem"), cert: dir.join("cert.pem"), key: dir.join("key.pem") };
        fs::write(&certs.ca, authority.pem())?;
        fs::write(&certs.cert, own.pem())?;
        fs::write(&certs.key, key.serialize_pem())?;
        Ok(certs)
    }
}
