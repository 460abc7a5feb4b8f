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

/// Width of the column of stage names.
const NAMES: usize = 32;

/// The table: a line for each stage, in which what came in stands against everything that became of it, drops marked. What a
/// stage notes beside the balance follows on a line of its own. Zeros are left out.
pub fn render(stages: &[Stage], kernel: &[(&str, u64)]) -> String {
    let width = stages.iter().map(|stage| grouped(stage.input).len()).max().unwrap_or(0);
    let mut text = String::new();
    for stage in stages {
        let rows: Vec<String> = stage
            .rows
            .iter()
            .filter(|row| row.2 > 0)
            .map(|(flow, label, number)| match flow {
                Flow::Out => format!("{} {label}", grouped(*number)),
                Flow::Drop => format!("{} DROPPED: {label}", grouped(*number)),
                Flow::Held => format!("{} held: {label}", grouped(*number)),
            })
            .collect();
        let rows = if rows.is_empty() { "0".to_owned() } else { rows.join(" + ") };
        let verdict = imbalance(stage).map(|words| format!("  <- {words}")).unwrap_or_default();
        text.push_str(&format!(
            "{:<NAMES$} {:>width$} = {rows}{verdict}\n",
            stage.name,
            grouped(stage.input)
        ));
        push_notes(&mut text, width, stage.notes.iter().copied());
    }
    if kernel.iter().any(|(_, number)| *number > 0) {
        text.push_str("kernel counters\n");
        push_notes(&mut text, width, kernel.iter().copied());
    }
    text
}

fn push_notes<'a>(text: &mut String, width: usize, notes: impl Iterator<Item = (&'a str, u64)>) {
    let notes: Vec<String> = notes
        .filter(|note| note.1 > 0)
        .map(|(label, number)| format!("{label} {}", grouped(number)))
        .collect();
    if !notes.is_empty() {
        text.push_str(&format!("{:<indent$}({})\n", "", notes.join(", "), indent = NAMES + width + 4));
    }
}

/// By how much a stage does not add up, if it does not.
fn imbalance(stage: &Stage) -> Option<String> {
    let accounted: u64 = stage.rows.iter().map(|row| row.2).sum();
    let (difference, word) = match stage.input.checked_sub(accounted) {
        Some(0) => return None,
        Some(lost) => (lost, "unaccounted for"),
        None => (accounted - stage.input, "more than came in"),
    };
    Some(format!("DOES NOT BALANCE: {} {word}", grouped(difference)))
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
session: exchanges               1,204,034 = 1,204,000 handed on + 30 DROPPED: no request seen + 4 held: open
                                             (bytes 99)
kernel counters
                                             (transfers seen 7)
";
        assert_eq!(render(&[stage(1_204_034)], &[("transfers seen", 7), ("peeks", 0)]), expected);
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
