//! `spanwise ps`: processes, and what would be captured of each.

mod probes;

use std::collections::BTreeMap;

use serde::Serialize;

use super::args::{OutputArgs, PsArgs};
use super::{CliError, environment, print};
use crate::instrument::{Coverage, Coverages, Gap};
use crate::process::{Naming, Proc, Row, listing};

/// Runs the command.
pub fn main(args: PsArgs) -> Result<(), CliError> {
    if let Some(pid) = args.probes {
        return probes::main(pid, args.json);
    }
    let settings = OutputArgs::default().settings(None, &environment())?;
    let rows = listing(&Proc::default(), Naming::from(&settings))
        .map_err(|error| CliError::failed(format!("cannot list processes: {error}; is /proc mounted?")))?;
    let mut coverages = Coverages::default();
    let shown: Vec<Shown> = rows
        .into_iter()
        .map(|row| {
            let coverage = if row.traceable { coverages.of(row.pid) } else { Coverage::default() };
            Shown { row, coverage }
        })
        .collect();
    print(&if args.json { to_json(&shown) } else { to_text(&shown) + &not_covered(&shown) })
}

/// A process, and what is read of it.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    row: Row,
    #[serde(flatten)]
    coverage: Coverage,
}

impl Shown {
    fn capture(&self) -> String {
        let mut text = self.row.capture.clone();
        if !self.coverage.tls.is_empty() {
            text.push_str(&format!("; TLS by {}", self.coverage.tls.join(", ")));
        }
        let mut keys: Vec<&str> = self.coverage.not_covered.iter().map(|gap| gap.key).collect();
        keys.dedup();
        if !keys.is_empty() {
            text.push_str(&format!("; not covered: {}", keys.join(", ")));
        }
        text
    }
}

/// What is not covered: each sentence once, with those it is about.
fn not_covered(shown: &[Shown]) -> String {
    const FEW: usize = 8;
    let mut about: BTreeMap<&Gap, Vec<u32>> = BTreeMap::new();
    for one in shown {
        for gap in &one.coverage.not_covered {
            about.entry(gap).or_default().push(one.row.pid);
        }
    }
    let mut out = String::new();
    for (gap, pids) in about {
        let mut listed: Vec<String> = pids.iter().take(FEW).map(u32::to_string).collect();
        if pids.len() > FEW {
            listed.push(format!("{} more", pids.len() - FEW));
        }
        let sentence = printable(&gap.sentence);
        out.push_str(&format!("\n{} ({})\n  {sentence}\n  -> {}\n", gap.key, listed.join(", "), gap.todo));
    }
    out
}

fn to_json(rows: &[Shown]) -> String {
    format!("{:#}\n", serde_json::json!({ "processes": rows }))
}

fn to_text(rows: &[Shown]) -> String {
    const HEAD: [&str; 7] = ["PID", "PROGRAM", "LANGUAGE", "SERVICE", "CONTAINER", "LISTENS ON", "CAPTURE"];
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut cells: Vec<[String; 7]> = vec![HEAD.map(str::to_owned)];
    cells.extend(rows.iter().map(|shown| {
        let row = &shown.row;
        [
            row.pid.to_string(),
            dash(&row.program),
            dash(row.language.unwrap_or_default()),
            dash(row.service.as_deref().unwrap_or_default()),
            dash(row.container.as_deref().and_then(|id| id.get(..12)).unwrap_or_default()),
            dash(&row.listening.join(",")),
            shown.capture(),
        ]
    }));
    let mut widths = [0; 7];
    for line in &cells {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for line in &cells {
        let padded: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{:<width$}", printable(cell))).collect();
        out.push_str(padded.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// Names are chosen by others: what would steer the terminal is replaced.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            pid: 7,
            program: "evil\u{1b}[2J".into(),
            language: Some("python"),
            service: Some("shop".into()),
            libraries: vec!["libssl"],
            listening: vec!["127.0.0.1:80".into(), "unix:/s".into()],
            container: Some("0123456789abcdef".into()),
            traceable: true,
            capture: "HTTP/1".into(),
        }
    }

    fn shown(row: Row) -> Shown {
        Shown { row, coverage: Coverage::default() }
    }

    fn gap() -> Gap {
        Gap { key: "tls.java", sentence: "Not read\u{1b}.".into(), todo: "Do." }
    }

    #[test]
    fn what_is_not_covered_is_said_once() {
        let coverage = Coverage { tls: vec!["openssl"], not_covered: vec![gap(), gap()] };
        let all: Vec<Shown> = (0..10).map(|_| Shown { row: row(), coverage: coverage.clone() }).collect();
        let first = to_text(&all[..1]);
        assert!(first.ends_with("HTTP/1; TLS by openssl; not covered: tls.java\n"), "{first}");
        assert_eq!(not_covered(&all[..1]), "\ntls.java (7, 7)\n  Not read?.\n  -> Do.\n");
        assert!(not_covered(&all).contains("(7, 7, 7, 7, 7, 7, 7, 7, 12 more)"));
        assert_eq!(not_covered(&[shown(row())]), "");
    }

    #[test]
    fn table() {
        let refused = Row {
            language: None,
            service: None,
            container: None,
            listening: vec![],
            traceable: false,
            ..row()
        };
        let text = to_text(&[shown(row()), shown(refused)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "PID  PROGRAM   LANGUAGE  SERVICE  CONTAINER     LISTENS ON            CAPTURE");
        assert_eq!(lines[1], "7    evil?[2J  python    shop     0123456789ab  127.0.0.1:80,unix:/s  HTTP/1");
        assert_eq!(lines[2], "7    evil?[2J  -         -        -             -                     HTTP/1");
    }

    #[test]
    fn json() {
        let json: serde_json::Value = serde_json::from_str(&to_json(&[Shown {
            row: row(),
            coverage: Coverage { tls: vec!["openssl"], not_covered: vec![gap()] },
        }]))
        .unwrap();
        let row = &json["processes"][0];
        assert_eq!((row["pid"].as_u64(), row["libraries"][0].as_str()), (Some(7), Some("libssl")));
        assert_eq!(
            (row["tls"][0].as_str(), row["not_covered"][0]["key"].as_str()),
            (Some("openssl"), Some("tls.java"))
        );
        assert!(row["not_covered"][0]["sentence"].is_string() && row["not_covered"][0]["todo"] == "Do.");
        for key in ["program", "language", "service", "listening", "container", "traceable", "capture"] {
            assert!(!row[key].is_null(), "{key}");
        }
    }
}
