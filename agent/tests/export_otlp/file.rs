//! OTLP/JSON lines in a file: whole lines, kept lines, counted failures.

use std::path::Path;
use std::time::Duration;

use crate::support::*;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use spanwise::config::Exporter;
use spanwise::export::{ExportError, Exporters};

fn file(path: &Path) -> Exporters {
    Exporters::start(&[Exporter::File(path.to_owned())], LIMITS).unwrap()
}

fn read(path: &Path) -> Vec<ExportTraceServiceRequest> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn lines_are_there_soon_and_a_second_run_adds_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("traces.jsonl");
    let mut exporters = file(&path);
    send(&mut exporters, 1_234);
    // Readable while the agent runs.
    tick_until(&mut exporters, "writing", |stage| row(stage, "acknowledged") == 1_234);
    assert_each_once(&read(&path), 1_234);
    let stages = exporters.flush_and_stop(PATIENCE);
    assert_balance(&stages);
    let mut exporters = file(&path);
    send(&mut exporters, 10);
    exporters.flush_and_stop(PATIENCE);
    assert_eq!(numbers(&read(&path))[&5], 2);
}

#[test]
fn a_full_disk_is_counted() {
    let mut exporters = file(Path::new("/dev/full"));
    send(&mut exporters, 500);
    let stages = exporters.flush_and_stop(PATIENCE);
    assert_balance(&stages);
    assert_eq!(row(&stages[0], "write failed"), 500, "{stages:?}");
}

#[test]
fn a_folder_that_is_not_there_is_said_at_the_start() {
    let made = Exporters::start(&[Exporter::File("/nowhere/at/all/traces.jsonl".into())], LIMITS);
    assert!(matches!(made.map(|_| ()), Err(ExportError::File { .. })));
}

#[test]
fn a_pipe_nobody_reads_does_not_hold_up_the_engine_or_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    // Both ends here, so that opening does not wait; nothing is ever read.
    let _ends = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut exporters = file(&path);
    send(&mut exporters, 5_000);
    let began = std::time::Instant::now();
    let stages = exporters.flush_and_stop(Duration::from_millis(200));
    assert!(began.elapsed() < Duration::from_millis(900));
    assert_balance(&stages);
    assert!(row(&stages[0], "not sent before the stop") > 4_000, "{stages:?}");
}
