//! The accounting table: for people and for programs.

use serde_json::{Map, Value, json};

use super::ledger::{Flow, Stage};

impl Flow {
    /// Word for it in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Drop => "drop",
            Self::Held => "held",
        }
    }
}

/// Sum of a stage's rows of one kind.
fn sum(stage: &Stage, flow: Flow) -> u64 {
    stage.rows.iter().filter(|row| row.0 == flow).map(|row| row.2).sum()
}

/// The table. Each stage has what came in, a row for everything that became of it, and whether that adds up; what it notes
/// beside the balance follows. Rows that are zero are left out, except `out`.
pub fn render(stages: &[Stage], kernel: &[(&str, u64)]) -> String {
    let numbers = stages
        .iter()
        .flat_map(|s| s.rows.iter().map(|r| r.2).chain(s.notes.iter().map(|n| n.1)).chain([s.input]))
        .chain(kernel.iter().map(|k| k.1));
    let width = numbers.map(|n| grouped(n).len()).max().unwrap_or(0).max(4);
    let mut table = Table { text: String::new(), width };
    for stage in stages {
        table.line(stage.name);
        table.row("in", stage.input, "");
        for (flow, label, number) in &stage.rows {
            if *number > 0 || *flow == Flow::Out {
                table.row(flow.as_str(), *number, label);
            }
        }
        table.line(&format!("  {}", verdict(stage)));
        for (label, number) in &stage.notes {
            table.row("note", *number, label);
        }
    }
    if !kernel.is_empty() {
        table.line("kernel");
        for (label, number) in kernel {
            table.row("", *number, label);
        }
    }
    table.text
}

struct Table {
    text: String,
    /// Of the column of numbers.
    width: usize,
}

impl Table {
    fn line(&mut self, text: &str) {
        self.text.push_str(text.trim_end());
        self.text.push('\n');
    }

    fn row(&mut self, kind: &str, number: u64, label: &str) {
        let width = self.width;
        self.line(&format!("  {kind:<4} {:>width$}  {label}", grouped(number)));
    }
}

fn verdict(stage: &Stage) -> String {
    let (out, drop, held) = (sum(stage, Flow::Out), sum(stage, Flow::Drop), sum(stage, Flow::Held));
    if stage.balances() {
        return "balances: in = out + drop + held".into();
    }
    let accounted = out.saturating_add(drop).saturating_add(held);
    let (difference, word) = match stage.input.checked_sub(accounted) {
        Some(lost) => (lost, "unaccounted for"),
        None => (accounted - stage.input, "more than came in"),
    };
    format!("DOES NOT BALANCE: {} {word}", grouped(difference))
}

/// 1234567 -> 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The same as JSON: `{"stages":[{"name","input","rows":[["out|drop|held",label,n]],"notes":[[label,n]],"balances"}],
/// "kernel":{label:n}}`.
pub fn to_json(stages: &[Stage], kernel: &[(&str, u64)]) -> Value {
    let stages: Vec<Value> = stages
        .iter()
        .map(|stage| {
            let rows: Vec<Value> = stage.rows.iter().map(|(f, label, n)| json!([f.as_str(), label, n])).collect();
            let notes: Vec<Value> = stage.notes.iter().map(|(label, n)| json!([label, n])).collect();
            json!({"name": stage.name, "input": stage.input, "rows": rows, "notes": notes, "balances": stage.balances()})
        })
        .collect();
    let kernel: Map<String, Value> =
        kernel.iter().map(|(label, n)| ((*label).to_owned(), json!(n))).collect();
    json!({"stages": stages, "kernel": kernel})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(input: u64) -> Stage {
        Stage {
            name: "session: exchanges",
            input,
            rows: vec![
                (Flow::Out, "handed on", 1_204_000),
                (Flow::Drop, "no request seen", 30),
                (Flow::Drop, "never happens", 0),
                (Flow::Held, "open", 4),
            ],
            notes: vec![("bytes", 99)],
        }
    }

    #[test]
    fn a_table_that_balances() {
        let expected = "\
session: exchanges
  in   1,204,034
  out  1,204,000  handed on
  drop        30  no request seen
  held         4  open
  balances: in = out + drop + held
  note        99  bytes
kernel
              7  transfers seen
";
        let expected = expected.replace("              7", &format!("  {:<4} {:>9}", "", 7));
        assert_eq!(render(&[stage(1_204_034)], &[("transfers seen", 7)]), expected);
    }

    #[test]
    fn a_table_that_does_not() {
        assert!(render(&[stage(1_204_036)], &[]).contains("DOES NOT BALANCE: 2 unaccounted for"));
        assert!(render(&[stage(1_204_000)], &[]).contains("DOES NOT BALANCE: 34 more than came in"));
        assert_eq!(render(&[], &[]), "");
    }

    #[test]
    fn json() {
        let json = to_json(&[stage(1_204_034)], &[("transfers seen", 7)]);
        assert_eq!(
            json.to_string(),
            "{\"kernel\":{\"transfers seen\":7},\"stages\":[{\"balances\":true,\"input\":1204034,\"name\":\"session: exchanges\",\
             \"notes\":[[\"bytes\",99]],\"rows\":[[\"out\",\"handed on\",1204000],[\"drop\",\"no request seen\",30],\
             [\"drop\",\"never happens\",0],[\"held\",\"open\",4]]}]}"
        );
        assert_eq!(to_json(&[stage(1)], &[])["stages"][0]["balances"], false);
    }
}
