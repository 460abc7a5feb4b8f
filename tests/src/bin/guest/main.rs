//! Runs inside a VM of `cargo xtask vm`: tries the agent on this kernel, on every capture plane that it knows. In: the path to
//! write to. Out: a JSON file with a row per feature: "ok", "gap" (the kernel lacks something, and the agent says so) or
//! "fault", with words. Everything takes ten times longer here than on real processors, so waits are long.

mod events;
mod exchange;
mod kernel;
mod limits;
mod objects;
mod plane;
mod processors;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;
use spanwise_tests::{cleanup, sys};

/// What became of a feature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Not there, for a reason that is known and said.
    Gap,
    Fault,
}

/// One feature, on one plane or of the kernel as a whole.
#[derive(Clone, Debug, Serialize)]
struct Row {
    plane: Option<String>,
    feature: &'static str,
    state: State,
    note: String,
}

#[derive(Serialize)]
struct Report {
    kernel: String,
    rows: Vec<Row>,
}

impl Row {
    fn new(feature: &'static str, state: State, note: impl Into<String>) -> Self {
        Self { plane: None, feature, state, note: note.into() }
    }

    /// The note of a result, or why there is none.
    fn of(feature: &'static str, result: Result<String>) -> Self {
        match result {
            Ok(note) => Self::new(feature, State::Ok, note),
            Err(error) => Self::new(feature, State::Fault, format!("{error:#}")),
        }
    }

    fn on(mut self, plane: &str) -> Self {
        self.plane = Some(plane.to_owned());
        self
    }
}

/// For whoever looks at the VM's output.
fn show(rows: &[Row]) {
    for row in rows {
        println!("    {:<22} {:?} {}", row.feature, row.state, row.note);
    }
}

fn main() -> Result<()> {
    let out = PathBuf::from(std::env::args().nth(1).context("usage: guest FILE")?);
    cleanup::on_signals()?;
    sys::raise_file_limit();
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let log = kernel::Log::now()?;
    let doctor = kernel::doctor(folder.path())?;
    let planes = doctor.get("planes").and_then(Value::as_object).context("doctor names no planes")?;
    let apps = exchange::Apps::start(folder.path())?;
    let mut rows = vec![kernel::btf()];
    println!("the plane that the agent chooses, {} s after the boot", kernel::uptime());
    let chosen = processors::examine(&apps, folder.path());
    show(&chosen.rows);
    let mut seen = vec![chosen];
    for name in planes.keys() {
        println!("plane {name}, {} s after the boot", kernel::uptime());
        let seen_here = plane::examine(name, &apps, folder.path());
        show(&seen_here.rows);
        seen.push(seen_here);
    }
    println!("what is refused, {} s after the boot", kernel::uptime());
    let refusals = limits::refusals(&apps, folder.path());
    show(&refusals);
    rows.extend(refusals);
    rows.push(kernel::ring_buffer(&seen));
    rows.push(kernel::doctor_row(&doctor, &seen));
    rows.extend(seen.into_iter().flat_map(|seen| seen.rows));
    rows.push(log.row());
    println!("done, {} s after the boot", kernel::uptime());
    let report = Report { kernel: kernel::release()?, rows };
    std::fs::write(&out, serde_json::to_string_pretty(&report)?)
        .with_context(|| format!("cannot write {}", out.display()))?;
    cleanup::now();
    Ok(())
}
