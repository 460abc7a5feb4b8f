//! Runs the end-to-end cases without cargo, for machines that have none (`cargo xtask test --only WORD` builds first). In: words,
//! by one of which a case's name is chosen, and `SPANWISE_BIN`. Out: a line per case; it fails if one of them does.

use std::process::ExitCode;

use spanwise_tests::{cleanup, runner};

fn main() -> ExitCode {
    if let Err(error) = cleanup::on_signals() {
        eprintln!("cannot watch for signals: {error}");
        return ExitCode::FAILURE;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut good = true;
    for word in &words {
        match runner::run(Some(word)) {
            Ok(summary) => good &= summary.failed.is_empty(),
            Err(error) => {
                eprintln!("{word}: {error:#}");
                good = false;
            }
        }
    }
    if good && !words.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
