//! Everything that was said, put together.

use std::path::PathBuf;
use std::time::Duration;

use super::budget::{self, Budgets};
use super::error::ConfigError;
use super::file::File;
use super::otlp;
use super::pairs::parse_pairs;
use super::said::{Environment, Level, Places, Said, variable};
use super::types::{Exporter, PlaneChoice, RootSampler, Sampler};
use super::values::{duration, milliseconds, plane, positive, sampler};

/// File that `--exporter file` writes when none is named.
const DEFAULT_FILE: &str = "traces.jsonl";

/// The options of the command line, as they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--exporter`, as often as it was given.
    pub exporters: Vec<String>,
    /// `--endpoint`.
    pub endpoint: Option<String>,
    /// `--protocol`.
    pub protocol: Option<String>,
    /// `--file`.
    pub file: Option<String>,
    /// `--sampler`.
    pub sampler: Option<String>,
    /// `--service-name`.
    pub service_name: Option<String>,
    /// `--plane`.
    pub plane: Option<String>,
    /// `--duration`.
    pub duration: Option<String>,
    /// `--record`.
    pub record: Option<String>,
    /// `--ready-file`.
    pub ready_file: Option<String>,
    /// `--max-cpu`.
    pub max_cpu: Option<String>,
    /// `--max-rss`.
    pub max_rss: Option<String>,
    /// `--no-seccomp`.
    pub no_seccomp: bool,
}

/// How spans are gathered before they are exported (`OTEL_BSP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Longest time a span waits for others.
    pub delay: Duration,
    /// Most spans that wait.
    pub queue: usize,
    /// Most spans in one request.
    pub size: usize,
}

/// What was said, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where spans go; never empty.
    pub exporters: Vec<Exporter>,
    /// Sampler.
    pub sampler: Sampler,
    /// Name for every service, whatever the program says (`--service-name`).
    pub service_name: Option<Box<str>>,
    /// Name for services whose program says nothing (the agent's own `OTEL_SERVICE_NAME`).
    pub default_service_name: Option<Box<str>>,
    /// Resource attributes for every service (the agent's own `OTEL_RESOURCE_ATTRIBUTES`).
    pub resource: Vec<(String, String)>,
    /// Capture plane.
    pub plane: PlaneChoice,
    /// Stop by itself after this time.
    pub duration: Option<Duration>,
    /// Write everything that the kernel side ships into this file.
    pub record: Option<PathBuf>,
    /// Create this file when the probes are live.
    pub ready_file: Option<PathBuf>,
    /// What the agent may use.
    pub budgets: Budgets,
    /// Put the system call filter on (not with `--no-seccomp`).
    pub seccomp: bool,
    /// Batching.
    pub batch: Batch,
    /// Remote procedure calls also by the names of the convention up to 1.37 (`OTEL_SEMCONV_STABILITY_OPT_IN` has `rpc/dup`).
    pub old_rpc_names: bool,
    /// `OTEL_SDK_DISABLED`: trace nothing.
    pub disabled: bool,
    /// Sentences that the user should see at the start.
    pub notes: Vec<String>,
}

impl Settings {
    /// Puts options, environment and file together and checks all of it.
    pub fn resolve(options: &Options, env: &Environment) -> Result<Self, ConfigError> {
        let config = options.config.clone().or_else(|| variable(env, "SPANWISE_CONFIG").map(PathBuf::from));
        let file = config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        let mut notes = Vec::new();
        let find = |option: Option<(&'static str, &String)>,
                    variables: &[&'static str],
                    key: Option<(&'static str, &String)>| {
            Places {
                option: option.map(|(n, v)| (n, v.as_str())),
                variables,
                key: key.map(|(n, v)| (n, v.as_str())),
            }
            .find(env)
        };
        macro_rules! setting {
            ($option:literal, [$($variable:literal),*], $field:ident) => {
                find(
                    options.$field.as_ref().map(|v| ($option, v)),
                    &[$($variable),*],
                    file.$field.as_ref().map(|v| (stringify!($field), v)),
                )
            };
        }
        let sampler_said = setting!("--sampler", ["SPANWISE_SAMPLER", "OTEL_TRACES_SAMPLER"], sampler);
        let sampler_arg = find(None, &["OTEL_TRACES_SAMPLER_ARG"], None)
            .filter(|_| sampler_said.as_ref().is_some_and(|said| said.origin == "OTEL_TRACES_SAMPLER"));
        let sampler = sampler_said.map_or(Ok(Sampler::ParentBased(RootSampler::AlwaysOn)), |said| {
            sampler(&said, sampler_arg.as_ref())
        })?;
        let plane =
            setting!("--plane", ["SPANWISE_PLANE"], plane).map_or(Ok(PlaneChoice::Auto), |s| plane(&s))?;
        let duration = setting!("--duration", ["SPANWISE_DURATION"], duration)
            .map(|said| duration(&said))
            .transpose()?;
        let service_name = setting!("--service-name", ["SPANWISE_SERVICE_NAME"], service_name)
            .map(|said| named(&said))
            .transpose()?;
        let record = setting!("--record", ["SPANWISE_RECORD"], record).map(|said| path(&said)).transpose()?;
        let ready_file = setting!("--ready-file", ["SPANWISE_READY_FILE"], ready_file)
            .map(|said| path(&said))
            .transpose()?;
        let mut budgets = Budgets::default();
        if let Some(said) = setting!("--max-cpu", ["SPANWISE_MAX_CPU"], max_cpu) {
            budgets.cores = budget::cores(&said)?;
        }
        if let Some(said) = setting!("--max-rss", ["SPANWISE_MAX_RSS"], max_rss) {
            budgets.memory = budget::memory(&said)?;
        }
        let default_service_name =
            find(None, &["OTEL_SERVICE_NAME"], None).map(|said| named(&said)).transpose()?;
        let resource = find(None, &["OTEL_RESOURCE_ATTRIBUTES"], None)
            .map(|said| {
                parse_pairs(&said.value)
                    .map_err(|why| ConfigError::Secret { origin: said.origin.clone(), why })
            })
            .transpose()?
            .unwrap_or_default();
        let disabled = match variable(env, "OTEL_SDK_DISABLED") {
            Some(value) if value.eq_ignore_ascii_case("true") => true,
            Some(value) if !value.eq_ignore_ascii_case("false") => {
                notes.push(format!(
                    "OTEL_SDK_DISABLED is {value:?}, which is neither true nor false: taken as false"
                ));
                false
            }
            _ => false,
        };
        let old_rpc_names = variable(env, "OTEL_SEMCONV_STABILITY_OPT_IN")
            .is_some_and(|list| list.split(',').any(|word| word.trim() == "rpc/dup"));
        if variable(env, "OTEL_CONFIG_FILE").is_some() {
            notes.push(
                "OTEL_CONFIG_FILE is not supported and was not read; use --config or the other variables"
                    .into(),
            );
        }
        let no_seccomp = options.no_seccomp || no_seccomp(env, &file)?;
        let exporters = exporters(options, env, &file, &mut notes)?;
        let batch = batch(env, &file)?;
        let same_file = |a: &PathBuf| exporters.iter().any(|e| matches!(e, Exporter::File(b) if a == b));
        if record.as_ref().is_some_and(same_file) {
            return Err(ConfigError::Conflict(
                "the recording and the exported spans would go to the same file; name two files".into(),
            ));
        }
        Ok(Self {
            exporters,
            sampler,
            service_name,
            default_service_name,
            resource,
            plane,
            duration,
            record,
            ready_file,
            budgets,
            seccomp: !no_seccomp,
            batch,
            old_rpc_names,
            disabled,
            notes,
        })
    }
}

fn no_seccomp(env: &Environment, file: &File) -> Result<bool, ConfigError> {
    let key = file.no_seccomp.map(|value| value.to_string());
    let key = key.as_deref().map(|value| ("no_seccomp", value));
    let said = Places { option: None, variables: &["SPANWISE_NO_SECCOMP"], key }.find(env);
    said.map_or(Ok(false), |said| match said.value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(ConfigError::value(&said, "it must be true or false")),
    })
}

fn named(said: &Said) -> Result<Box<str>, ConfigError> {
    let name = said.value.trim();
    if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
        return Err(ConfigError::value(said, "a service name has 1 to 255 bytes and no control characters"));
    }
    Ok(name.into())
}

fn path(said: &Said) -> Result<PathBuf, ConfigError> {
    if said.value.is_empty() || said.value.ends_with('/') {
        return Err(ConfigError::value(said, "it must be the path of a file"));
    }
    Ok(PathBuf::from(&said.value))
}

fn batch(env: &Environment, file: &File) -> Result<Batch, ConfigError> {
    let find = |name: &'static str, key: &'static str, value: Option<String>| {
        Places { option: None, variables: &[name], key: value.as_deref().map(|v| (key, v)) }.find(env)
    };
    let count = |said: Said| {
        let number = positive(&said, "a whole number above zero, 1000000 at most")?;
        match usize::try_from(number) {
            Ok(number) if number <= 1_000_000 => Ok(number),
            _ => Err(ConfigError::value(&said, "it must be 1000000 at most")),
        }
    };
    let delay = find("OTEL_BSP_SCHEDULE_DELAY", "batch.delay", file.batch.delay.clone());
    let delay = match delay {
        None => Duration::from_millis(250),
        Some(said) if said.level == Level::Environment => milliseconds(&said)?,
        Some(said) => duration(&said)?,
    };
    let queue = find("OTEL_BSP_MAX_QUEUE_SIZE", "batch.queue", file.batch.queue.map(|n| n.to_string()));
    let queue = queue.map_or(Ok(16_384), count)?;
    match find("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "batch.size", file.batch.size.map(|n| n.to_string())) {
        None => Ok(Batch { delay, queue, size: queue.min(512) }),
        Some(said) => match count(said.clone())? {
            size if size > queue => Err(ConfigError::value(
                &said,
                format!("it must not exceed the queue, which holds {queue} spans"),
            )),
            size => Ok(Batch { delay, queue, size }),
        },
    }
}

/// Which exporters: the strongest level that says anything about them decides alone.
fn exporters(
    options: &Options,
    env: &Environment,
    file: &File,
    notes: &mut Vec<String>,
) -> Result<Vec<Exporter>, ConfigError> {
    let list = |variables: &[&'static str]| Places { option: None, variables, key: None }.find(env);
    let said = |level, origin: &str, value: &str| Said { level, origin: origin.into(), value: value.into() };
    let endpoint = otlp::endpoint(options, env, &file.otlp);
    let endpoint_at = |level| endpoint.as_ref().is_some_and(|said| said.level == level);

    let mut names: Vec<Said> =
        options.exporters.iter().map(|name| said(Level::Option, "--exporter", name)).collect();
    if options.file.is_some() {
        names.push(said(Level::Option, "--file", "file"));
    }
    if endpoint_at(Level::Option) {
        names.push(said(Level::Option, "--endpoint", "otlp"));
    }
    if names.is_empty() {
        let listed = list(&["SPANWISE_EXPORTER", "OTEL_TRACES_EXPORTER"]);
        let none_listed = listed.is_none();
        if let Some(listed) = listed {
            names.extend(listed.value.split(',').map(|name| said(listed.level, &listed.origin, name.trim())));
        }
        if variable(env, "SPANWISE_FILE").is_some() {
            names.push(said(Level::Environment, "SPANWISE_FILE", "file"));
        }
        if none_listed && endpoint_at(Level::Environment) {
            names.push(said(Level::Environment, "OTEL_EXPORTER_OTLP_ENDPOINT", "otlp"));
        }
    }
    if names.is_empty() {
        let key = "exporters in the configuration file";
        names.extend(file.exporters.iter().flatten().map(|name| said(Level::File, key, name)));
        if file.file.is_some() {
            names.push(said(Level::File, "file in the configuration file", "file"));
        }
        if file.exporters.is_none() && endpoint_at(Level::File) {
            names.push(said(Level::File, "otlp.endpoint in the configuration file", "otlp"));
        }
    }
    if names.is_empty() {
        notes.push(
            "no exporter is named, so spans are shown here; send them on with --endpoint URL or --file PATH"
                .into(),
        );
        return Ok(vec![Exporter::Console]);
    }

    let mut exporters = Vec::new();
    for name in &names {
        let exporter = match name.value.as_str() {
            "otlp" => Exporter::Otlp(otlp::resolve(options, env, &file.otlp)?),
            "file" => {
                let target = Places {
                    option: options.file.as_deref().map(|v| ("--file", v)),
                    variables: &["SPANWISE_FILE"],
                    key: file.file.as_deref().map(|v| ("file", v)),
                };
                Exporter::File(target.find(env).map_or_else(|| Ok(DEFAULT_FILE.into()), |said| path(&said))?)
            }
            "console" => Exporter::Console,
            "none" => Exporter::None,
            _ => return Err(ConfigError::value(name, "it must be one of otlp, file, console, none")),
        };
        if !exporters.contains(&exporter) {
            exporters.push(exporter);
        }
    }
    if exporters.len() > 1 && exporters.contains(&Exporter::None) {
        return Err(ConfigError::Conflict(
            "the exporter none excludes every other, but others are named too; leave out one or the other"
                .into(),
        ));
    }
    if options.protocol.is_some() && !exporters.iter().any(|e| matches!(e, Exporter::Otlp(_))) {
        return Err(ConfigError::Conflict(
            "--protocol is for the OTLP exporter, which is not used; add --exporter otlp or --endpoint URL"
                .into(),
        ));
    }
    Ok(exporters)
}

#[cfg(test)]
mod tests;
