//! A fault of the agent itself. Comes in: a panic on any thread. Goes out: one sentence on standard error, the end of the agent
//! with its probes detached, and exit code 1.

use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};

use super::CliError;

/// For tests: SIGUSR1 makes the thread named here panic (`engine` or `background`), or the agent want more memory than it has
/// (`memory`), instead of printing the table.
const FOR_TESTS: &str = "SPANWISE_TEST_PANIC";

static HAPPENED: AtomicBool = AtomicBool::new(false);

/// From now on a panic is told in one sentence. A panic of the main thread unwinds and so detaches; one of another thread
/// makes the main thread end as if it had been asked to.
pub fn announce() {
    std::panic::set_hook(Box::new(|info| {
        HAPPENED.store(true, Ordering::Relaxed);
        // Nobody may be reading any more; a panic inside the hook would abort.
        let _ = writeln!(std::io::stderr(), "spanwise: {}", sentence(info));
    }));
}

fn sentence(info: &PanicHookInfo) -> String {
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let said = info.payload().downcast_ref::<&str>().map(|text| (*text).to_owned());
    let said = said.or_else(|| info.payload().downcast_ref::<String>().cloned()).unwrap_or_default();
    format!(
        "the agent panicked at {place} ({}): this is a fault of the agent, which detaches and ends now; what it traced goes on \
         undisturbed; please report this line",
        said.replace(['\n', '\r'], " ")
    )
}

/// Whether any thread panicked.
pub(super) fn happened() -> bool {
    HAPPENED.load(Ordering::Relaxed)
}

/// How a command ends after a panic.
pub fn error() -> CliError {
    CliError::failed("ended because of the fault told above; start it again")
}

/// The end of an agent that had to stop because another thread panicked.
pub(super) fn check() -> Result<(), CliError> {
    if happened() { Err(error()) } else { Ok(()) }
}

/// What `memory` wants, more than any limit that a test sets.
const WANTED: usize = 256 << 20;

/// Panics, or takes memory, if the environment asks for it. To be called when SIGUSR1 came.
pub(super) fn for_tests() {
    match std::env::var(FOR_TESTS).as_deref() {
        Ok("engine") => on_purpose(),
        // The end of that thread is the point; it is not waited for.
        Ok("background") => drop(std::thread::spawn(on_purpose)),
        // Written to, so that the kernel has to give it.
        Ok("memory") => drop(std::hint::black_box(vec![1_u8; WANTED])),
        _ => {}
    }
}

#[expect(clippy::panic, reason = "a test asked for it")]
fn on_purpose() {
    panic!("asked for by {FOR_TESTS}");
}
