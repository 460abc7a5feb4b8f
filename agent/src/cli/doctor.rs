//! `spanwise doctor`: what this kernel and these privileges allow, in sentences.

mod facts;
mod findings;

use std::fmt::Write;

use serde_json::json;

use self::facts::Facts;
use self::findings::{Finding, Report, Status};
use super::args::DoctorArgs;
use super::{CliError, print};
use crate::kernel::plane::Plane;

/// Runs the command. It ends well whatever it finds: the findings are its result.
pub fn main(args: DoctorArgs) -> Result<(), CliError> {
    let report = findings::judge(&Facts::gather().and_processes());
    print(&if args.json { to_json(&report) } else { to_text(&report) })
}

fn to_text(report: &Report) -> String {
    let mut out = String::new();
    for Finding { status, sentence, todo, .. } in &report.findings {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{:<8} {sentence}", status.as_str());
        if let Some(todo) = todo {
            let _ = writeln!(out, "{:<8} -> {todo}", "");
        }
    }
    let _ = match report.best_plane {
        Some(plane) => writeln!(out, "\nTracing works here, with capture plane {}.", plane.name()),
        None => writeln!(out, "\nTracing does not work here; the lines marked \"missing\" say why."),
    };
    out
}

fn to_json(report: &Report) -> String {
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|f| json!({"key": f.key, "status": f.status.as_str(), "sentence": f.sentence, "todo": f.todo}))
        .collect();
    let status = |key: &str| report.findings.iter().find(|f| f.key == key).map(|f| f.status);
    let usable = |key: &str| status(key).is_some_and(|status| status != Status::Missing);
    let report = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "kernel": report.kernel,
        "works": report.best_plane.is_some(),
        "best_plane": report.best_plane.map(Plane::name),
        "planes": {
            "sock": usable("plane.sock"), "fentry": usable("plane.fentry"),
            "kprobe": usable("plane.kprobe"), "syscall": usable("plane.syscall"),
        },
        "findings": findings,
        "verified_instructions": report.verified,
    });
    format!("{report:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_gets_a_report() {
        let report = findings::judge(&Facts::gather());
        let json: serde_json::Value = serde_json::from_str(&to_json(&report)).unwrap();
        for key in ["version", "kernel", "works", "best_plane", "planes", "findings"] {
            assert!(json.get(key).is_some(), "{key}");
        }
        let text = to_text(&report);
        assert!(text.contains(&report.kernel), "{text}");
        assert_eq!(json["works"], text.contains("Tracing works here"));
    }
}
