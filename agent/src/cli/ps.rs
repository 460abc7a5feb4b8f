//! `spanwise ps`: processes, and what would be captured of each.

mod probes;

use super::args::{OutputArgs, PsArgs};
use super::{CliError, environment, print};
use crate::process::{Naming, Proc, Row, listing};

/// Runs the command.
pub fn main(args: PsArgs) -> Result<(), CliError> {
    if let Some(pid) = args.probes {
        return probes::main(pid, args.json);
    }
    let settings = OutputArgs::default().settings(None, &environment())?;
    let rows = listing(&Proc::default(), Naming::from(&settings))
        .map_err(|error| CliError::failed(format!("cannot list processes: {error}; is /proc mounted?")))?;
    print(&if args.json { to_json(&rows) } else { to_text(&rows) })
}

fn to_json(rows: &[Row]) -> String {
    format!("{:#}\n", serde_json::json!({ "processes": rows }))
}

fn to_text(rows: &[Row]) -> String {
    const HEAD: [&str; 7] = ["PID", "PROGRAM", "LANGUAGE", "SERVICE", "CONTAINER", "LISTENS ON", "CAPTURE"];
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut cells: Vec<[String; 7]> = vec![HEAD.map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        [
            row.pid.to_string(),
            dash(&row.program),
            dash(row.language.unwrap_or_default()),
            dash(row.service.as_deref().unwrap_or_default()),
            dash(row.container.as_deref().and_then(|id| id.get(..12)).unwrap_or_default()),
            dash(&row.listening.join(",")),
            row.capture.clone(),
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
        let text = to_text(&[row(), refused]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "PID  PROGRAM   LANGUAGE  SERVICE  CONTAINER     LISTENS ON            CAPTURE");
        assert_eq!(lines[1], "7    evil?[2J  python    shop     0123456789ab  127.0.0.1:80,unix:/s  HTTP/1");
        assert_eq!(lines[2], "7    evil?[2J  -         -        -             -                     HTTP/1");
    }

    #[test]
    fn json() {
        let json: serde_json::Value = serde_json::from_str(&to_json(&[row()])).unwrap();
        let row = &json["processes"][0];
        assert_eq!((row["pid"].as_u64(), row["libraries"][0].as_str()), (Some(7), Some("libssl")));
        for key in ["program", "language", "service", "listening", "container", "traceable", "capture"] {
            assert!(!row[key].is_null(), "{key}");
        }
    }
}
