//! The configuration file: TOML, every key optional, unknown keys refused.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::error::ConfigError;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) exporters: Option<Vec<String>>,
    pub(super) file: Option<String>,
    pub(super) sampler: Option<String>,
    pub(super) service_name: Option<String>,
    pub(super) plane: Option<String>,
    pub(super) duration: Option<String>,
    pub(super) record: Option<String>,
    pub(super) ready_file: Option<String>,
    pub(super) max_cpu: Option<String>,
    pub(super) max_rss: Option<String>,
    pub(super) no_seccomp: Option<bool>,
    #[serde(default)]
    pub(super) otlp: FileOtlp,
    #[serde(default)]
    pub(super) batch: FileBatch,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileOtlp {
    pub(super) endpoint: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) headers: Option<BTreeMap<String, String>>,
    pub(super) compression: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) client_certificate: Option<String>,
    pub(super) client_key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileBatch {
    pub(super) delay: Option<String>,
    pub(super) queue: Option<u64>,
    pub(super) size: Option<u64>,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let fail = |why: String| ConfigError::File { path: path.into(), why };
        let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        toml::from_str(&text).map_err(|error| {
            // The full form draws the line, which may hold a header's secret.
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map(|before| before.matches('\n').count() + 1);
            let at = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            fail(format!("{at}{}", error.message()))
        })
    }
}
