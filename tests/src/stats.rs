//! The agent's account of itself. In: the JSON it writes where `SPANWISE_STATS_JSON` says. Out: stages with what came in and
//! what became of it, and whether that balances.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// All of it.
#[derive(Clone, Default, Debug, Deserialize)]
pub struct Stats {
    /// The stages, in the order of the data flow.
    pub stages: Vec<Stage>,
    /// The kernel side's counters.
    #[serde(default)]
    pub kernel: BTreeMap<String, u64>,
}

/// One stage.
#[derive(Clone, Debug, Deserialize)]
pub struct Stage {
    /// Name of it.
    pub name: String,
    /// What came in.
    pub input: u64,
    /// What became of it: "out", "drop" or "held", a label, a count.
    pub rows: Vec<(String, String, u64)>,
    /// Figures beside the balance.
    #[serde(default)]
    pub notes: Vec<(String, u64)>,
}

/// A reason for which something was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dropped<'a> {
    /// Name of the stage, which says what is counted.
    pub stage: &'a str,
    /// The reason.
    pub reason: &'a str,
    /// How many.
    pub count: u64,
}

impl Stage {
    /// One row, by its label; 0 where there is none.
    pub fn row(&self, label: &str) -> u64 {
        self.rows.iter().filter(|row| row.1 == label).map(|row| row.2).sum()
    }

    /// One figure beside the balance, by its label; 0 where there is none.
    pub fn note(&self, label: &str) -> u64 {
        self.notes.iter().filter(|note| note.0 == label).map(|note| note.1).sum()
    }

    /// Sum of the rows of one flow.
    pub fn sum(&self, flow: &str) -> u64 {
        self.rows.iter().filter(|row| row.0 == flow).map(|row| row.2).sum()
    }
}

impl Stats {
    /// Reads the file that the agent wrote at its end.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("the agent left no account of itself at {}", path.display()))?;
        serde_json::from_str(&text).context("the agent's account of itself is not as expected")
    }

    /// Everything dropped, at any stage.
    pub fn drops(&self) -> u64 {
        self.stages.iter().map(|stage| stage.sum("drop")).sum()
    }

    /// What was dropped, by stage and reason; reasons for which nothing was are left out.
    pub fn drops_by_reason(&self) -> Vec<Dropped<'_>> {
        let rows = self.stages.iter().flat_map(|stage| stage.rows.iter().map(move |row| (stage, row)));
        rows.filter(|(_, row)| row.0 == "drop" && row.2 > 0)
            .map(|(stage, row)| Dropped { stage: &stage.name, reason: &row.1, count: row.2 })
            .collect()
    }

    /// Drops whose label or stage holds this word.
    pub fn drops_named(&self, word: &str) -> u64 {
        self.stages
            .iter()
            .flat_map(|stage| stage.rows.iter().map(move |row| (stage, row)))
            .filter(|(stage, row)| row.0 == "drop" && (row.1.contains(word) || stage.name.contains(word)))
            .map(|(_, row)| row.2)
            .sum()
    }

    /// In = out + drops + held at every stage, to the unit, and there is at least one stage that saw something.
    pub fn check_balance(&self) -> Result<()> {
        for stage in &self.stages {
            let sum: u64 = stage.rows.iter().map(|row| row.2).sum();
            if stage.input != sum {
                bail!(
                    "stage `{}` does not balance: {} in, {sum} accounted for\n{}",
                    stage.name,
                    stage.input,
                    self.table()
                );
            }
            if let Some(odd) =
                stage.rows.iter().find(|row| !["out", "drop", "held"].contains(&row.0.as_str()))
            {
                bail!("stage `{}` has a row `{}` that is none of out, drop, held", stage.name, odd.0);
            }
        }
        if self.stages.iter().all(|stage| stage.input == 0) {
            bail!("the agent's account says that nothing came in at any stage\n{}", self.table());
        }
        Ok(())
    }

    /// As text, for messages.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for stage in &self.stages {
            let _ = writeln!(text, "    {}: {} in", stage.name, stage.input);
            for (flow, label, count) in stage.rows.iter().filter(|row| row.2 > 0) {
                let _ = writeln!(text, "        {flow} {label}: {count}");
            }
        }
        for (label, count) in self.kernel.iter().filter(|(_, count)| **count > 0) {
            let _ = writeln!(text, "    kernel {label}: {count}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(input: u64) -> Stats {
        let text = format!(
            r#"{{"stages":[{{"name":"session: exchanges","input":{input},"rows":[["out","spans",7],["drop","half seen",2],["held","open",1]],"notes":[["bytes",5]]}}],"kernel":{{"hits":4}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_balance_is_checked_to_the_unit() {
        stats(10).check_balance().unwrap();
        assert!(stats(11).check_balance().is_err());
        assert!(Stats::default().check_balance().is_err());
        assert_eq!((stats(10).drops(), stats(10).drops_named("half")), (2, 2));
        assert_eq!(stats(10).drops_named("overrun"), 0);
        let stage = &stats(10).stages[0];
        assert_eq!((stage.row("open"), stage.row("none"), stage.note("bytes")), (1, 0, 5));
        let dropped = Dropped { stage: "session: exchanges", reason: "half seen", count: 2 };
        assert_eq!(stats(10).drops_by_reason(), [dropped]);
    }
}
