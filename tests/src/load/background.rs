//! A load beside which something else happens. In: a plan. Out: what it came to, once it is told to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};

use super::{Outcome, Plan, Until};

/// A load that runs until it is finished.
pub struct Background {
    stop: &'static AtomicBool,
    thread: Option<JoinHandle<Result<Outcome>>>,
}

impl Background {
    /// Starts it; the plan's own end does not count.
    pub fn start(mut plan: Plan) -> Self {
        // One byte for each load of a test run.
        let stop: &'static AtomicBool = Box::leak(Box::default());
        plan.until = Until::Flag(stop);
        Self { stop, thread: Some(std::thread::spawn(move || plan.run())) }
    }

    /// Ends it.
    pub fn finish(mut self) -> Result<Outcome> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().ok_or_else(|| anyhow!("the load was ended twice"))?;
        thread.join().map_err(|_| anyhow!("the load panicked"))?
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It was given up: what it came to is of no interest.
            let _ = thread.join();
        }
    }
}
