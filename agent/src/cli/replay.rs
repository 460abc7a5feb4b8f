//! `spanwise replay`: a recording through the same pipeline.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::args::ReplayArgs;
use super::{CliError, environment};
use crate::attribute::Value;
use crate::export::{Exporters, Limits, STOP_WITHIN};
use crate::kernel::clock::Sample;
use crate::kernel::record;
use crate::kernel::recording::{Frame, Reader};
use crate::pipeline::{Pipeline, Recorded};
use crate::process::Service;
use crate::span::clock::Clock;
use crate::telemetry::{render, to_json};

/// How much recorded time passes between two looks at the clock.
const TICK_NS: u64 = 4_000_000;

/// Records between two looks at the exporters' queues.
const LOOK_EVERY: u32 = 256;
/// One wait for the exporters, and all of them together.
const NAP: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(20);

/// A service as a recording keeps it.
#[derive(Serialize, Deserialize)]
struct Kept {
    tgid: u32,
    id: u32,
    name: String,
    attributes: Vec<(String, KeptValue)>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum KeptValue {
    Bool(bool),
    Int(i64),
    Double(f64),
    Str(String),
    List(Vec<String>),
}

/// The frame of a service.
pub(super) fn encode_service(tgid: u32, service: &Service) -> Vec<u8> {
    let value = |value: &Value| match value {
        Value::Str(text) => KeptValue::Str(text.to_string()),
        Value::Int(n) => KeptValue::Int(*n),
        Value::Double(n) => KeptValue::Double(*n),
        Value::Bool(b) => KeptValue::Bool(*b),
        Value::StrList(list) => KeptValue::List(list.iter().map(ToString::to_string).collect()),
    };
    let kept = Kept {
        tgid,
        id: service.id,
        name: service.name.to_string(),
        attributes: service.attributes.iter().map(|(key, v)| (key.to_string(), value(v))).collect(),
    };
    serde_json::to_vec(&kept).unwrap_or_default()
}

/// The frame of the clocks.
pub(super) fn encode_clock(sample: &Sample) -> Vec<u8> {
    [sample.boot_ns.to_le_bytes(), sample.unix_ns.to_le_bytes()].concat()
}

fn decode_clock(bytes: &[u8]) -> Option<Sample> {
    let (boot, unix) = bytes.split_at_checked(8)?;
    Some(Sample {
        boot_ns: u64::from_le_bytes(boot.try_into().ok()?),
        unix_ns: u64::from_le_bytes(unix.try_into().ok()?),
        spread_ns: 0,
    })
}

impl From<Kept> for Service {
    fn from(kept: Kept) -> Self {
        let value = |value| match value {
            KeptValue::Str(text) => Value::Str(text.into()),
            KeptValue::Int(n) => Value::Int(n),
            KeptValue::Double(n) => Value::Double(n),
            KeptValue::Bool(b) => Value::Bool(b),
            KeptValue::List(list) => Value::StrList(list.into_iter().map(Into::into).collect()),
        };
        let attributes = kept.attributes.into_iter().map(|(key, v)| (Cow::Owned(key), value(v))).collect();
        Self { id: kept.id, name: kept.name.into(), attributes }
    }
}

/// Runs the command.
pub fn main(args: ReplayArgs) -> Result<(), CliError> {
    let settings = args.output.settings(None, &environment())?;
    let usage = |error: crate::kernel::recording::ReadError| CliError::usage(error.to_string());
    // Services and the clock are needed before the first span, so the recording is read twice.
    let mut bytes = Vec::new();
    let mut origin = Recorded::default();
    let mut clock = None;
    let mut reader = Reader::open(&args.recording).map_err(usage)?;
    while let Some(frame) = reader.next(&mut bytes).map_err(usage)? {
        match frame {
            Frame::Service => {
                if let Ok(kept) = serde_json::from_slice::<Kept>(&bytes) {
                    origin.services.entry(kept.tgid).or_insert_with(|| Arc::new(kept.into()));
                }
            }
            Frame::Clock => clock = clock.or_else(|| decode_clock(&bytes)),
            Frame::Record => {}
        }
    }
    let Some(clock) = clock else {
        return Err(CliError::usage(format!(
            "{} ends before its first clock reading, so it holds nothing to replay; record it again",
            args.recording.display()
        )));
    };
    for note in &settings.notes {
        crate::tell!("spanwise: {note}");
    }
    let exporters = Exporters::start(&settings.exporters, Limits::default())
        .map_err(|error| CliError::usage(error.to_string()))?;
    let mut pipeline = Pipeline::new(origin, &settings, exporters, Clock::from_sample(clock));
    let mut reader = Reader::open(&args.recording).map_err(usage)?;
    let (mut now_ns, mut ticked_ns) = (clock.boot_ns, clock.boot_ns);
    let (mut records, mut patience) = (0_u32, PATIENCE);
    while let Some(frame) = reader.next(&mut bytes).map_err(usage)? {
        if frame != Frame::Record {
            continue;
        }
        now_ns = now_ns.max(record::time(&bytes).unwrap_or(0));
        // A long silence passes in steps, so that deadlines fall in their order.
        while now_ns.saturating_sub(ticked_ns) >= TICK_NS {
            ticked_ns = (ticked_ns + TICK_NS).max(now_ns.saturating_sub(256 * TICK_NS));
            pipeline.tick(ticked_ns, Instant::now());
        }
        pipeline.record(&bytes);
        // A recording is read faster than spans can be sent: wait instead of dropping them, but not for an endpoint that is
        // not there.
        records += 1;
        while records % LOOK_EVERY == 0 && patience > Duration::ZERO && pipeline.is_behind() {
            std::thread::sleep(NAP);
            patience = patience.saturating_sub(NAP);
        }
    }
    for _ in 0..64 {
        now_ns += TICK_NS;
        pipeline.tick(now_ns, Instant::now());
    }
    for report in pipeline.explain() {
        tracing::info!("{report}");
    }
    let ((), stages) = pipeline.finish(now_ns, STOP_WITHIN, drop);
    crate::telemetry::said::lines(format_args!("{}", render(&stages, &[])));
    if let Some(path) = std::env::var_os("SPANWISE_STATS_JSON")
        && let Err(error) = std::fs::write(&path, to_json(&stages, &[]).to_string())
    {
        crate::tell!("spanwise: cannot write {}: {error}", std::path::Path::new(&path).display());
    }
    Ok(())
}
