//! What the correlator may be told, and every bound of its memory.

/// Settings of a [`Correlator`](super::Correlator). Times are nanoseconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Settings {
    /// A model speaks if the lower bound (95 %) of its precision is at least this.
    pub bar: f64,
    /// Share of named pairs estimated wrong above which a model is silent, whatever the bound says.
    pub tolerance: f64,
    /// The same two for chains from a request to its response: those that do not end where they should are known, and name nothing.
    pub chain_bar: f64,
    /// See above.
    pub chain_tolerance: f64,
    /// How long after a server's exchange ended its client's end may still turn up.
    pub peer_wait_ns: u64,
    /// How long a finished exchange may wait for its parent or trace id.
    pub hold_ns: u64,
    /// How long a call waits for a model to prove itself; less than the above, which holds for what hangs below it.
    pub learn_wait_ns: u64,
    /// How long after the first such call of a process others may wait, too.
    pub learn_for_ns: u64,
    /// How long the client's end of a call that ended without an answer is kept for a server that reads late.
    pub late_server_ns: u64,
    /// Exchanges begun and not finished; more are not correlated (wire context or root). About 500 bytes each.
    pub max_open: usize,
    /// Exchanges finished and held; above, the oldest is decided early. About 1,000 bytes each and its texts.
    pub max_held: usize,
    /// Calls that wait for a model to prove itself; above, the oldest of the process is decided. About 2,000 bytes each, with what
    /// hangs below them.
    pub max_learning: usize,
    /// Client ends kept for a server end to come, after their exchange went out.
    pub max_lingering: usize,
    /// Processes with model state; above, the one longest unused is forgotten. About 2,000 bytes each.
    pub max_processes: usize,
    /// Threads (or tasks) with state in one process; above, idle ones are forgotten. About 150 bytes each.
    pub max_threads: usize,
    /// Tasks (goroutines) of one process whose starters are remembered; the same for tasks that serve requests. About 60 bytes
    /// each.
    pub max_tasks: usize,
    /// Calls weighed for one request; above, calls are left to the other models.
    pub max_calls: usize,
    /// Spans of one trace below one root; above, new roots with a link.
    pub max_trace_spans: u32,
    /// Age of a trace; a span that begins later is a new root with a link.
    pub max_trace_age_ns: u64,
    /// Tells boots of the host apart, for ids of messages without a name.
    pub boot: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bar: 0.995,
            tolerance: 0.0003,
            chain_bar: 0.99,
            chain_tolerance: 0.003,
            peer_wait_ns: 10_000_000,
            hold_ns: 10_000_000_000,
            learn_wait_ns: 8_000_000_000,
            learn_for_ns: 30_000_000_000,
            late_server_ns: 5_000_000_000,
            max_open: 65_536,
            max_held: 65_536,
            max_learning: 4_096,
            max_lingering: 16_384,
            max_processes: 8_192,
            max_threads: 4_096,
            max_tasks: 16_384,
            max_calls: 1_024,
            max_trace_spans: 10_000,
            max_trace_age_ns: 3_600_000_000_000,
            boot: 0,
        }
    }
}
