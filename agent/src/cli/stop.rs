//! Signals: SIGINT and SIGTERM ask for the end, SIGUSR1 for the table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::CliError;

/// What was asked for so far.
pub(super) struct Stop {
    asked: Arc<AtomicBool>,
    table: Arc<AtomicBool>,
    /// Something was asked for: sleeps end at once.
    woken: Receiver<()>,
}

impl Stop {
    /// Listens on a thread of its own.
    pub(super) fn listen() -> Result<Self, CliError> {
        let failed = |error| {
            CliError::failed(format!("cannot listen for signals: {error}; check the limit on threads"))
        };
        let asked = Arc::new(AtomicBool::new(false));
        let table = Arc::new(AtomicBool::new(false));
        let (wake, woken) = sync_channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let signals = {
            let _inside = runtime.enter();
            let listen = |kind| signal(kind).map_err(failed);
            (
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
                listen(SignalKind::user_defined1())?,
            )
        };
        let (told, shown) = (Arc::clone(&asked), Arc::clone(&table));
        let work = move || {
            runtime.block_on(async move {
                let (mut interrupt, mut terminate, mut user) = signals;
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => told.store(true, Ordering::Relaxed),
                        _ = terminate.recv() => told.store(true, Ordering::Relaxed),
                        _ = user.recv() => shown.store(true, Ordering::Relaxed),
                    }
                    // A full channel wakes as well.
                    let _ = wake.try_send(());
                }
            });
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(work).map_err(failed)?;
        Ok(Self { asked, table, woken })
    }

    /// Whether the end was asked for.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether the table was asked for since the last time.
    pub(super) fn wants_table(&self) -> bool {
        self.table.swap(false, Ordering::Relaxed)
    }

    /// Sleeps, but not through a signal.
    pub(super) fn sleep(&self, time: Duration) {
        if let Err(RecvTimeoutError::Disconnected) = self.woken.recv_timeout(time) {
            std::thread::sleep(time);
        }
    }
}
