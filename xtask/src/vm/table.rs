//! What was found in VMs. In: the reports that they left. Out: a table of kernels and features, with the reasons of its gaps in
//! notes below it, for a terminal and as a document.

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

/// What became of a feature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It works.
    Ok,
    /// It is not there, for a reason that is known.
    Gap,
    /// It should work.
    Fault,
}

/// A feature on one plane, or of the kernel as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    plane: Option<String>,
    feature: String,
    /// What became of it.
    pub(super) state: State,
    /// Figures, or the reason.
    pub(super) note: String,
}

impl Row {
    /// Plane and feature.
    pub(super) fn name(&self) -> String {
        let plane = self.plane.as_ref().map(|plane| format!("plane {plane}, ")).unwrap_or_default();
        plane + &self.feature
    }
}

/// All of one kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Report {
    /// Release of the kernel.
    pub(super) kernel: String,
    /// Version of its package; filled in by the host.
    #[serde(default)]
    pub(super) package: String,
    /// How long it took, boot included; filled in by the host.
    #[serde(default)]
    pub(super) seconds: u64,
    /// What was found.
    pub(super) rows: Vec<Row>,
}

impl Report {
    /// Reads what the guest wrote.
    pub(super) fn read(text: &str) -> Result<Self> {
        let report: Self = serde_json::from_str(text).context("the VM's report is not as expected")?;
        ensure!(
            report.rows.iter().any(|row| row.plane.is_some() && row.state != State::Gap),
            "no capture plane was tried on kernel {}",
            report.kernel
        );
        Ok(report)
    }

    /// What should work and does not.
    pub(super) fn faults(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.state == State::Fault)
    }

    fn row(&self, plane: Option<&str>, feature: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.plane.as_deref() == plane && row.feature == feature)
    }
}

/// A line of the table: a heading alone, or a feature and a cell for each kernel.
struct Line {
    head: String,
    cells: Vec<String>,
}

/// The table's lines, and its notes.
#[derive(Default)]
struct Table {
    lines: Vec<Line>,
    notes: Vec<String>,
}

impl Table {
    fn of(reports: &[Report]) -> Self {
        let mut keys: Vec<(Option<&str>, &str)> = Vec::new();
        for row in reports.iter().flat_map(|report| &report.rows) {
            let key = (row.plane.as_deref(), row.feature.as_str());
            // What only some kernels can do stands with its plane.
            if !keys.contains(&key) {
                let place =
                    keys.iter().rposition(|(plane, _)| *plane == key.0).map_or(keys.len(), |at| at + 1);
                keys.insert(place, key);
            }
        }
        let mut table = Self::default();
        let mut under = None;
        for (plane, feature) in keys {
            if plane != under {
                under = plane;
                if let Some(plane) = plane {
                    table.lines.push(Line { head: format!("plane {plane}"), cells: vec![] });
                }
            }
            let cells = reports.iter().map(|report| table.cell(report.row(plane, feature))).collect();
            table.lines.push(Line { head: feature.to_owned(), cells });
        }
        table
    }

    fn cell(&mut self, row: Option<&Row>) -> String {
        let Some(row) = row else { return "-".into() };
        let word = match row.state {
            State::Ok => "ok",
            State::Gap => "no",
            State::Fault => "FAULT",
        };
        if row.note.is_empty() {
            word.to_owned()
        } else if row.state == State::Ok && row.note.len() <= 12 {
            row.note.clone()
        } else {
            format!("{word} ({})", self.note(&row.note))
        }
    }

    /// Number of a note; equal ones are one.
    fn note(&mut self, text: &str) -> usize {
        if let Some(at) = self.notes.iter().position(|note| note == text) {
            return at + 1;
        }
        self.notes.push(text.to_owned());
        self.notes.len()
    }
}

/// For people at a terminal.
pub(super) fn terminal(reports: &[Report]) -> String {
    let table = Table::of(reports);
    let width = table.lines.iter().map(|line| line.head.len()).max().unwrap_or(0) + 4;
    let columns: Vec<usize> = (0..reports.len())
        .map(|at| {
            let cells = table.lines.iter().filter_map(|line| line.cells.get(at)).map(String::len);
            cells.chain(reports.get(at).map(|report| report.kernel.len())).max().unwrap_or(0)
        })
        .collect();
    let line = |head: &str, cells: &[String]| {
        let cells = cells.iter().zip(&columns).map(|(cell, column)| format!("  {cell:<column$}"));
        format!("{head:<width$}{}", cells.collect::<String>()).trim_end().to_owned() + "\n"
    };
    let kernels: Vec<String> = reports.iter().map(|report| report.kernel.clone()).collect();
    let mut text = line("", &kernels);
    for Line { head, cells } in &table.lines {
        text += &if cells.is_empty() { format!("{head}\n") } else { line(&format!("  {head}"), cells) };
    }
    for (at, note) in table.notes.iter().enumerate() {
        text += &format!("({}) {note}\n", at + 1);
    }
    text
}

/// As a document.
pub(super) fn document(reports: &[Report], day: &str) -> String {
    let table = Table::of(reports);
    let kernels: Vec<String> =
        reports.iter().map(|report| format!("{} ({})", report.kernel, report.package)).collect();
    let mut text = format!(
        "# Kernels\n\n\
         What Spanwise does on Debian's kernels. Written by `cargo xtask vm --write` on {day}, each kernel in a VM of its own\n\
         (an emulator with two processors); `cargo xtask test` repeats the oldest and the newest. Not to be edited.\n\n\
         Every plane gets real requests: nginx before Python, and a program that moves requests by every family of system calls\n\
         over every family of sockets, in one piece and in two. Each must give one server span and one client span with its\n\
         method, status and sizes, the one under the other; up to two more tries are made of what is missing. A kernel's log must\n\
         show no warning, and nothing of the agent may be left in the kernel.\n\n\
         Under `auto` stands an agent on the plane that it chooses. It starts without tracefs and bpffs while there is\n\
         one processor; a second is given, taken away under load and given back, and what is served on each must have its spans,\n\
         over TLS too. Then it may use one processor only, and at last the kernel kills it for want of memory (cgroup v2) while\n\
         requests go on: none may fail, and nothing of it may be left. A start with too little memory, and one under\n\
         lockdown=confidentiality, must end with one sentence that says so.\n\n\
         \"no\" is a gap with a known reason, in the notes; a FAULT should work and does not; \"-\" was not tried: the plane is not\n\
         there. The time from the agent's start to the\n\
         first span is that of an emulator with 2 ns an instruction, and no measure of anything else.\n\n"
    );
    let short = |kernel: &str| kernel.trim_end_matches("-amd64").to_owned();
    let row = |head: &str, cells: &[String]| format!("| {head} | {} |\n", cells.join(" | "));
    text += &row("", &reports.iter().map(|report| short(&report.kernel)).collect::<Vec<_>>());
    text += &format!("|---|{}\n", "---|".repeat(reports.len()));
    for Line { head, cells } in &table.lines {
        if cells.is_empty() {
            text += &row(&format!("**{head}**"), &vec![String::new(); reports.len()]);
        } else {
            text += &row(head, cells);
        }
    }
    if !table.notes.is_empty() {
        text += "\nNotes:\n\n";
        for (at, note) in table.notes.iter().enumerate() {
            text += &format!("{}. {note}\n", at + 1);
        }
    }
    text + &format!("\nThe kernels, with their packages: {}.\n", kernels.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(kernel: &str, rows: &str) -> Report {
        let mut report = Report::read(&format!(r#"{{"kernel":"{kernel}","rows":[{rows}]}}"#)).unwrap();
        report.package = "1".into();
        report
    }

    fn two() -> [Report; 2] {
        let old = r#"{"plane":null,"feature":"BTF","state":"ok","note":""},
            {"plane":"sock","feature":"loads","state":"gap","note":"this kernel has no typed tracepoint"},
            {"plane":"syscall","feature":"loads","state":"ok","note":"5 programs"},
            {"plane":null,"feature":"kernel log","state":"ok","note":""}"#;
        let new = r#"{"plane":null,"feature":"BTF","state":"ok","note":""},
            {"plane":"sock","feature":"loads","state":"ok","note":"8 programs"},
            {"plane":"sock","feature":"splice","state":"fault","note":"no span of any kind"},
            {"plane":"syscall","feature":"loads","state":"gap","note":"this kernel has no typed tracepoint"}"#;
        [report("5.10.0-46-amd64", old), report("7.3.4+deb13-amd64", new)]
    }

    #[test]
    fn a_report_without_a_plane_is_none() {
        assert!(Report::read(r#"{"kernel":"1","rows":[]}"#).is_err());
        assert!(Report::read("").is_err());
        let only = r#"{"kernel":"1","rows":[{"plane":"sock","feature":"loads","state":"gap","note":"x"}]}"#;
        assert!(Report::read(only).is_err());
    }

    #[test]
    fn faults_are_found() {
        let [old, new] = two();
        assert_eq!(old.faults().count(), 0);
        assert_eq!(new.faults().map(Row::name).collect::<Vec<_>>(), ["plane sock, splice"]);
    }

    #[test]
    fn the_terminal_shows_every_kernel_and_reason() {
        let text = terminal(&two());
        let due = [
            "                   5.10.0-46-amd64  7.3.4+deb13-amd64",
            "  BTF              ok               ok",
            "  kernel log       ok               -",
            "plane sock",
            "  loads            no (1)           8 programs",
            "  splice           -                FAULT (2)",
            "plane syscall",
            "  loads            5 programs       no (1)",
            "(1) this kernel has no typed tracepoint",
            "(2) no span of any kind",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), due);
    }

    #[test]
    fn the_document_is_a_table_with_notes() {
        let text = document(&two(), "2026-01-02");
        assert!(
            text.contains("\n|  | 5.10.0-46 | 7.3.4+deb13 |\n|---|---|---|\n| BTF | ok | ok |\n"),
            "{text}"
        );
        assert!(text.contains("\n| **plane sock** |  |  |\n| loads | no (1) | 8 programs |\n"), "{text}");
        assert!(text.contains("\n1. this kernel has no typed tracepoint\n2. no span"), "{text}");
        assert!(text.ends_with("5.10.0-46-amd64 (1), 7.3.4+deb13-amd64 (1).\n"), "{text}");
    }
}
