//! Events that are lost on purpose. In: a recording of a real load, of which one record in a hundred is left out before it goes
//! through the same pipeline. Out: what is shown of methods, paths and statuses is right, and what is unknown is counted.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{SETTLE, grpc};
use crate::agent::{Agent, Options, clean_environment};
use crate::golang::{GoApp, Program};
use crate::paths;
use crate::proc;
use crate::runner::{Case, Context, full};
use crate::spans::{Kind, Span, Spans};
use crate::stats::Stats;

const LIMIT: Duration = Duration::from_secs(150);
/// Of so many records one is lost.
const ONE_OF: u64 = 100;
/// Bytes of a recording before its first frame, and of a frame before its content: kind and length.
const BEGINNING: usize = 12;
const HEAD: usize = 5;
/// Kind of a frame that holds a record of the ring.
const RECORD: u8 = 1;
/// Kind of a record that tells of a transfer, and the bit of its flags that tells that it says where the next frame begins.
const DATA: u16 = 2;
const AHEAD: u16 = 1 << 14;

pub(super) const CASES: &[Case] = &[
    Case { name: "losses/grpc_every_status", seconds: 240, run: every_status },
    Case { name: "losses/http2_streams", seconds: 240, run: streams },
];

/// What was lost and what was seen all the same.
struct Lossy {
    spans: Spans,
    stats: Stats,
    lost: u64,
}

/// Leaves out records of a recording, the same ones each time; and, if it is not `told`, what the others say of where frames begin.
fn thin(recording: &[u8], told: bool) -> Result<(Vec<u8>, u64, u64)> {
    let (beginning, mut rest) = recording.split_at_checked(BEGINNING).context("the recording is empty")?;
    let mut thinned = beginning.to_vec();
    let (mut state, mut lost, mut all) = (0x9E37_79B9_7F4A_7C15_u64, 0, 0);
    while let Some((head, _)) = rest.split_at_checked(HEAD) {
        let length = u32::from_le_bytes(head.get(1..).context("no length")?.try_into()?);
        let Some((frame, behind)) = rest.split_at_checked(HEAD + length as usize) else { break };
        rest = behind;
        if head.first() == Some(&RECORD) {
            all += 1;
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state % ONE_OF == 0 {
                lost += 1;
                continue;
            }
        }
        let at = thinned.len() + HEAD;
        thinned.extend_from_slice(frame);
        if !told && head.first() == Some(&RECORD) {
            mute(thinned.get_mut(at..).unwrap_or_default());
        }
    }
    Ok((thinned, lost, all))
}

/// Takes out of a record what it says of where frames begin.
fn mute(record: &mut [u8]) {
    if let Some((kind, rest)) = record.split_first_chunk_mut::<2>()
        && u16::from_ne_bytes(*kind) == DATA
        && let Some(bits) = rest.first_chunk_mut::<2>()
    {
        *bits = (u16::from_ne_bytes(*bits) & !AHEAD).to_ne_bytes();
    }
}

/// Sends a recording through the agent's pipeline with records left out: with what they say of where frames begin, and without.
fn replay(context: &Context, recording: &Path) -> Result<Lossy> {
    let guessed = replay_one(context, recording, false)?;
    let told = replay_one(context, recording, true)?;
    // What is known can't make it fewer.
    let (with, without) = (told.spans.all.len(), guessed.spans.all.len());
    println!(
        "    {with} spans, and {without} where the beginnings of frames are found by what they look like"
    );
    ensure!(
        with >= without,
        "what the records say of frames has cost spans: {with} of {without}\n{}",
        told.stats.table()
    );
    Ok(told)
}

fn replay_one(context: &Context, recording: &Path, told: bool) -> Result<Lossy> {
    let whole = fs::read(recording).with_context(|| format!("no recording at {}", recording.display()))?;
    let (thinned, lost, all) = thin(&whole, told)?;
    ensure!(lost > 0, "nothing was left out of {all} records");
    let folder = context.dir.join(if told { "replayed" } else { "guessed" });
    fs::create_dir_all(&folder)?;
    let (path, traces, stats) =
        (folder.join("thinned.rec"), folder.join("traces.jsonl"), folder.join("stats.json"));
    fs::write(&path, thinned)?;
    let mut command = Command::new(paths::agent()?);
    clean_environment(&mut command);
    command.arg("replay").arg(&path).args(["--exporter", "file", "--file"]).arg(&traces);
    command.env("SPANWISE_STATS_JSON", &stats).current_dir(&folder);
    let (status, _, stderr) = proc::run("replay", &mut command, &folder, LIMIT)?;
    ensure!(status.success(), "the replay ended with {status}: {stderr}");
    let (spans, stats) = (Spans::read(&traces)?, Stats::read(&stats)?);
    spans.check_shape()?;
    stats.check_balance()?;
    if told {
        println!("    {lost} of {all} records were left out");
    }
    Ok(Lossy { spans, stats, lost })
}

/// Judges the spans of one side: how many are whole, and how many lack something. Wrong ones are an error.
fn judge(
    lossy: &Lossy,
    kind: Kind,
    service: &str,
    calls: u64,
    wrong: impl Fn(&Span) -> Option<String>,
    whole: impl Fn(&Span) -> bool,
) -> Result<()> {
    let (mut known, mut unknown) = (0_u64, 0_u64);
    for span in lossy.spans.at(kind, service) {
        let odd = wrong(span);
        ensure!(odd.is_none(), "{service}: {}\n{}", odd.unwrap_or_default(), lossy.stats.table());
        if whole(span) {
            known += 1;
        } else {
            unknown += 1;
        }
    }
    let spans = known + unknown;
    println!(
        "    {service}: {calls} calls, {spans} spans: {known} whole, {unknown} with something unknown, 0 wrong"
    );
    ensure!(spans <= calls, "{service}: {spans} spans of {calls} calls\n{}", lossy.stats.table());
    // A name that was put into a table before something was lost stays unknown for as long as the client uses it from there: with
    // few connections and long loads that is most of them. So how many are whole is told and not judged.
    ensure!(known > 0, "{service}: no call is whole\n{}", lossy.stats.table());
    Ok(())
}

/// Something must have been unknown, and said so: else nothing was tested.
fn counted(lossy: &Lossy) -> Result<()> {
    let marked = lossy.stats.stages.iter().map(|stage| stage.row("with a gap") + stage.row("unfinished"));
    let (marked, drops) = (marked.sum::<u64>(), lossy.stats.drops());
    let records: u64 = lossy
        .stats
        .stages
        .iter()
        .filter(|stage| stage.name == "ring: data records")
        .map(|stage| stage.input)
        .sum();
    println!("    {records} data records, {marked} exchanges marked, {drops} drops counted");
    ensure!(
        marked + drops > 0,
        "{} records were lost and nothing was counted\n{}",
        lossy.lost,
        lossy.stats.table()
    );
    Ok(())
}

fn every_status(context: &Context) -> Result<()> {
    let calls = if full() { 68 * 1_471 } else { 68 * 30 };
    let server = GoApp::new(Program::Rpc, "direct", &context.dir).named("work").start()?;
    let client = GoApp::client_of(Program::Rpc, calls, 8, 50, &context.dir)?.calling(&server);
    let mut client = client.start_client()?;
    let recording = record(context, &[server.pids(), client.pids()].concat(), || client.run(LIMIT))?;
    let lossy = replay(context, &recording)?;
    let whole = |span: &Span| span.rpc_method().is_some() && span.get("rpc.response.status_code").is_some();
    judge(&lossy, Kind::Server, "work", calls, grpc::wrong, whole)?;
    judge(&lossy, Kind::Client, "go-rpc-client", calls, grpc::wrong, whole)?;
    counted(&lossy)
}

/// Paths that are asked for once each: one that comes twice was taken from another stream.
fn streams(context: &Context) -> Result<()> {
    let requests = if full() { 50_000 } else { 2_000 };
    let app = GoApp::new(Program::Web, "direct", &context.dir).named("go-h2c").http2().start()?;
    let client = GoApp::client_of(Program::Web, requests, 4, 16, &context.dir)?.http2().calling(&app);
    let mut client = client.start_client()?;
    let recording = record(context, &[app.pids(), client.pids()].concat(), || client.run(LIMIT))?;
    let lossy = replay(context, &recording)?;
    for (kind, service) in [(Kind::Server, "go-h2c"), (Kind::Client, "go-web-client")] {
        let mut numbers: Vec<u64> = lossy.spans.at(kind, service).filter_map(Span::request_number).collect();
        let all = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        ensure!(numbers.len() == all, "{service}: a path was shown twice");
        ensure!(
            numbers.last().is_none_or(|last| *last <= requests),
            "{service}: a path that nobody asked for"
        );
        let status = |span: &Span| span.number("http.response.status_code");
        let wrong = |span: &Span| {
            let method = span.get("http.request.method");
            let odd = status(span).is_some_and(|status| status != 200)
                || method.is_some_and(|method| !["GET", "_OTHER"].contains(&method))
                // An unknown path is shown as none, which is read as `/`.
                || !(span.path() == "/" || span.request_number().is_some());
            odd.then(|| format!("{span:?}"))
        };
        judge(&lossy, kind, service, requests, wrong, |span| {
            span.request_number().is_some() && status(span) == Some(200)
        })?;
    }
    counted(&lossy)
}

/// Records what is shipped while something runs.
fn record(context: &Context, pids: &[u32], run: impl FnOnce() -> Result<u64>) -> Result<std::path::PathBuf> {
    let recording = context.dir.join("whole.rec");
    let options = Options::default().arg(&["--record", &recording.display().to_string()]);
    let agent = Agent::attach(&context.dir, pids, &options)?;
    run()?;
    std::thread::sleep(SETTLE);
    agent.stop()?.stats.check_balance()?;
    Ok(recording)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_in_a_hundred_is_left_out_and_nothing_else() {
        let mut recording = vec![7; BEGINNING];
        for at in 0..20_000_u32 {
            // Every second frame is no record.
            recording.push(if at % 2 == 0 { RECORD } else { 2 });
            recording.extend(4_u32.to_le_bytes());
            recording.extend(at.to_le_bytes());
        }
        let (thinned, lost, all) = thin(&recording, true).unwrap();
        assert_eq!(all, 10_000);
        assert!((50..200).contains(&lost), "{lost}");
        assert_eq!(thinned.len(), recording.len() - 9 * usize::try_from(lost).unwrap());
        assert_eq!(thin(&recording, true).unwrap().1, lost);
        assert!(thin(b"short", true).is_err());
    }
}
