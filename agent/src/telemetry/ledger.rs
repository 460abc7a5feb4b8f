//! One row group of the accounting table: a stage, in which in = out + drops + still held, to the unit.

/// What became of what came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// Handed on to the next stage.
    Out,
    /// Not handed on, for this reason.
    Drop,
    /// Still held at the time of the report.
    Held,
}

/// The account of one stage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stage {
    /// Name of the stage and of what it counts, such as "session: exchanges".
    pub name: &'static str,
    /// What came in.
    pub input: u64,
    /// What became of it. Each reason stands here once.
    pub rows: Vec<(Flow, &'static str, u64)>,
    /// Figures beside the balance (bytes, retries and the like).
    pub notes: Vec<(&'static str, u64)>,
}

impl Stage {
    /// Whether in = out + drops + held.
    pub fn balances(&self) -> bool {
        self.input == self.rows.iter().map(|row| row.2).sum::<u64>()
    }
}
