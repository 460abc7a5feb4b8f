//! What is told when bytes are lost or a connection is joined late: nothing that is wrong, and what is unknown is counted.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may")]

mod common;

use std::collections::HashMap;

use common::hpack::Encoder;
use common::http2::*;
use common::{Driver, Q, R, Step, burst};
use proptest::collection::vec;
use proptest::prelude::*;
use spanwise_protocol::http2::Connection;
use spanwise_protocol::message::{Head, Request};
use spanwise_protocol::{Flow, What};

/// A call and its answer.
#[derive(Clone, Debug)]
struct Call {
    method: &'static str,
    path: usize,
    authority: usize,
    agent: usize,
    other: (usize, usize),
    status: u16,
    body: usize,
    grpc_status: u8,
}

impl Call {
    fn request(&self) -> Vec<(String, String)> {
        let parent = format!("00-{:032x}-{:016x}-01", self.path + 1, self.body + 1);
        [
            (":method", self.method.to_owned()),
            (":scheme", "http".to_owned()),
            (":path", self.target()),
            (":authority", format!("host-{}", self.authority)),
            ("content-type", "application/grpc".to_owned()),
            ("user-agent", format!("agent/{}", self.agent)),
            (&*format!("x-{}", self.other.0), "v".repeat(self.other.1)),
            ("traceparent", parent),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    fn target(&self) -> String {
        format!("/package.Service/Method{}", self.path)
    }

    fn response(&self) -> Vec<(String, String)> {
        vec![
            (":status".to_owned(), self.status.to_string()),
            ("content-type".to_owned(), "application/grpc".to_owned()),
            (format!("y-{}", self.other.0), "w".repeat(self.other.1)),
        ]
    }

    fn trailers(&self) -> Vec<(String, String)> {
        vec![("grpc-status".to_owned(), self.grpc_status.to_string())]
    }

    /// Panics if anything that is told of the request is not so.
    fn agrees(&self, request: &Request) {
        let told = |text: &str, truth: &str| {
            assert!(text.is_empty() || text == truth, "{text} for {truth}: {request:?}");
        };
        told(&request.method, self.method);
        told(&request.path, &self.target());
        let all = self.request();
        if let Some(authority) = &request.authority {
            told(authority, &all[3].1);
        }
        if let Some(agent) = &request.user_agent {
            told(agent, &all[5].1);
        }
        if let Some(context) = &request.context {
            told(&context.to_traceparent(), &all[7].1);
        }
    }
}

fn call() -> impl Strategy<Value = Call> {
    let method = prop::sample::select(&["GET", "POST", "PUT", "DELETE"][..]);
    let status = prop::sample::select(&[200u16, 201, 404, 500][..]);
    let other = (0..6usize, 0..300usize);
    (method, 0..8usize, 0..3usize, 0..3usize, other, status, 0..600usize, 0..17u8).prop_map(
        |(method, path, authority, agent, other, status, body, grpc_status)| Call {
            method,
            path,
            authority,
            agent,
            other,
            status,
            body,
            grpc_status,
        },
    )
}

/// Dice that fall the same for the same seed.
fn dice(seed: u64) -> impl FnMut() -> u8 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    }
}

/// What moves: a transfer for each frame, or for several of them. Calls overlap.
fn transfers(calls: &[Call], seed: u64, eager: u8) -> Vec<(Flow, Vec<u8>)> {
    let mut roll = dice(seed);
    let mut client = Encoder { eager, ..Encoder::default() };
    let mut server = Encoder { eager, ..Encoder::default() };
    let mut out = vec![(Q, [PREFACE, &settings()].concat()), (R, settings())];
    let mut waiting: Vec<(u32, &Call)> = Vec::new();
    let mut ids = (1u32..).step_by(2);
    let mut push = |flow: Flow, bytes: Vec<u8>, join: bool| match out.last_mut() {
        Some((last, all)) if join && *last == flow => all.extend(bytes),
        _ => out.push((flow, bytes)),
    };
    let mut rest = calls.iter();
    loop {
        let next = if waiting.len() < 8 && roll() < 140 || waiting.is_empty() { rest.next() } else { None };
        if let Some(call) = next {
            let id = ids.next().unwrap();
            let block = client.block(&call.request(), &mut roll);
            let cut = usize::from(roll()) % block.len();
            if roll() < 40 {
                push(Q, headers(0, id, &block[..cut]), roll() < 60);
                push(Q, frame(9, END_HEADERS, id, &block[cut..]), roll() < 60);
            } else {
                push(Q, headers(END_HEADERS, id, block), roll() < 60);
            }
            push(Q, data(END_STREAM, id, message(&vec![7; call.body])), roll() < 128);
            waiting.push((id, call));
        } else if waiting.is_empty() {
            return out;
        } else {
            let (id, call) = waiting.swap_remove(usize::from(roll()) % waiting.len());
            let block = server.block(&call.response(), &mut roll);
            push(R, headers(END_HEADERS, id, block), roll() < 60);
            push(R, data(0, id, message(&vec![9; call.body])), roll() < 60);
            let block = server.block(&call.trailers(), &mut roll);
            push(R, headers(BOTH, id, block), roll() < 60);
        }
    }
}

/// What was told.
#[derive(Default, Debug)]
struct Told {
    requests: HashMap<u32, Request>,
    statuses: HashMap<u32, u16>,
    codes: HashMap<u32, Option<u32>>,
    ends: usize,
}

fn run(steps: &[Step]) -> (Told, Driver<Connection>) {
    let mut driver = Driver::<Connection>::default();
    for step in steps {
        driver.step(step);
    }
    let mut told = Told::default();
    for (_, item) in &driver.items {
        match (item.flow, &item.what) {
            (_, What::Head(Head::Request(request))) => {
                _ = told.requests.insert(item.exchange, request.clone());
            }
            (_, What::Head(Head::Response(response))) => {
                _ = told.statuses.insert(item.exchange, response.status);
            }
            (Flow::Response, What::Rpc(part)) => _ = told.codes.insert(item.exchange, part.status),
            (Flow::Response, What::End { .. }) => told.ends += 1,
            _ => {}
        }
    }
    (told, driver)
}

/// Panics if anything that was told is not so.
fn check(calls: &[Call], told: &Told) {
    let of = |id: &u32| &calls[(*id as usize - 1) / 2];
    told.requests.iter().for_each(|(id, request)| of(id).agrees(request));
    for (id, status) in &told.statuses {
        assert!(*status == 0 || *status == of(id).status, "{status} of {id}");
    }
    for (id, code) in &told.codes {
        assert!(code.is_none_or(|code| code == u32::from(of(id).grpc_status)), "{code:?} of {id}");
    }
}

fn whole(all: &[(Flow, Vec<u8>)]) -> Vec<Step> {
    all.iter().map(|(flow, bytes)| burst(*flow, bytes)).collect()
}

/// Loses some of the transfers: as holes of known length, or wholly.
fn with_losses(all: &[(Flow, Vec<u8>)], seed: u64, of_256: u8) -> (Vec<Step>, usize) {
    let mut roll = dice(seed);
    let mut lost = 0;
    let steps = all
        .iter()
        .map(|(flow, bytes)| {
            if u16::from(roll()) * 256 + u16::from(roll()) >= u16::from(of_256) * 256 {
                return burst(*flow, bytes);
            }
            lost += 1;
            match roll() % 3 {
                0 => Step::Gap(*flow),
                _ => Step::Hole(*flow, bytes.len() as u64, Vec::new()),
            }
        })
        .collect();
    (steps, lost)
}

/// The same, and the capture tells of every transfer that was not lost where in it a frame begins: here, always at once.
fn with_boundaries(steps: Vec<Step>) -> Vec<Step> {
    let tells = |step: Step| match step {
        Step::Bytes(flow, ..) => vec![Step::Boundary(flow, 0, 7), step],
        _ => vec![step],
    };
    steps.into_iter().flat_map(tells).collect()
}

/// How far it is to the next frame from a place in whole frames, unless that is within a header.
fn next_frame(bytes: &[u8], from: usize) -> Option<u32> {
    let mut at = if bytes.starts_with(PREFACE) { PREFACE.len() } else { 0 };
    while at < from {
        if from < at + 9 {
            return None;
        }
        at += 9 + u32::from_be_bytes([0, bytes[at], bytes[at + 1], bytes[at + 2]]) as usize;
    }
    Some((at - from) as u32)
}

/// Transfers that begin anywhere in frames, and say how far the next one is; some are lost.
fn cut_anywhere(all: &[(Flow, Vec<u8>)], seed: u64, of_256: u8) -> Vec<Step> {
    let mut roll = dice(seed);
    let mut steps = Vec::new();
    for (flow, bytes) in all {
        let cut = (usize::from(roll()) * 7) % bytes.len();
        for (from, to) in [(0, cut), (cut, bytes.len())] {
            if to == from {
                continue;
            }
            if roll() < of_256 {
                steps.push(Step::Hole(*flow, (to - from) as u64, Vec::new()));
                continue;
            }
            if let Some(ahead) = next_frame(bytes, from) {
                steps.push(Step::Boundary(*flow, ahead, 7));
            }
            steps.push(burst(*flow, &bytes[from..to]));
        }
    }
    steps
}

/// Keeps the beginning of transfers, as a budget does.
fn with_budget(all: &[(Flow, Vec<u8>)], budget: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    for (flow, bytes) in all {
        let kept = bytes.len().min(budget);
        steps.push(burst(*flow, &bytes[..kept]));
        if kept < bytes.len() {
            steps.push(Step::Hole(*flow, (bytes.len() - kept) as u64, Vec::new()));
        }
    }
    steps
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn without_losses_everything_is_told(calls in vec(call(), 1..60), seed: u64, eager: u8) {
        let all = transfers(&calls, seed, eager);
        let (told, driver) = run(&whole(&all));
        check(&calls, &told);
        prop_assert_eq!(told.requests.len(), calls.len());
        prop_assert_eq!(told.ends, calls.len());
        for (id, request) in &told.requests {
            let call = &calls[(*id as usize - 1) / 2];
            prop_assert!(!request.truncated && !request.path.is_empty() && request.context.is_some());
            prop_assert_eq!(told.statuses[id], call.status);
            prop_assert_eq!(told.codes[id], Some(u32::from(call.grpc_status)));
        }
        prop_assert_eq!(driver.parser.stats().unknown_names, 0);
        // Splitting changes nothing.
        let mut roll = dice(seed);
        let split: Vec<Step> = all
            .iter()
            .flat_map(|(flow, bytes)| {
                let cut = (usize::from(roll()) * 3) % bytes.len();
                [burst(*flow, &bytes[..cut]), burst(*flow, &bytes[cut..])]
            })
            .collect();
        let (again, _) = run(&split);
        prop_assert_eq!(again.requests, told.requests);
        prop_assert_eq!(again.statuses, told.statuses);
        prop_assert_eq!(again.codes, told.codes);
    }

    #[test]
    fn with_losses_nothing_wrong_is_told(calls in vec(call(), 1..60), seed: u64, eager: u8, of_256 in 1u8..60) {
        let (steps, lost) = with_losses(&transfers(&calls, seed, eager), seed ^ 0x55, of_256);
        let (told, driver) = run(&steps);
        check(&calls, &told);
        let stats = driver.parser.stats();
        let cut = told.requests.values().filter(|request| request.path.is_empty()).count();
        prop_assert!(cut == 0 || stats.unknown_names + stats.cut_blocks > 0);
        prop_assert!(stats.losses as usize <= lost);
    }

    #[test]
    fn with_boundaries_that_are_told_every_loss_ends_with_the_next_transfer(calls in vec(call(), 1..60), seed: u64, eager: u8, of_256 in 1u8..60) {
        let (steps, _) = with_losses(&transfers(&calls, seed, eager), seed ^ 0x55, of_256);
        let (told, driver) = run(&with_boundaries(steps.clone()));
        check(&calls, &told);
        let (before, _) = run(&steps);
        prop_assert!(told.requests.len() >= before.requests.len() && told.ends >= before.ends);
        // Of what was not lost, everything is read: as many blocks as heads and trailers that came.
        let stats = driver.parser.stats();
        prop_assert!(stats.resyncs <= stats.losses + 2);
        prop_assert!(!driver.items.iter().any(|(_, item)| item.what == What::Garbage));
    }

    #[test]
    fn boundaries_within_transfers_tell_nothing_wrong(calls in vec(call(), 1..60), seed: u64, eager: u8) {
        // Transfers begin anywhere in frames; one of eight is lost.
        let steps = cut_anywhere(&transfers(&calls, seed, eager), seed, 32);
        let (told, driver) = run(&steps);
        check(&calls, &told);
        prop_assert!(!driver.items.iter().any(|(_, item)| item.what == What::Garbage));
    }

    #[test]
    fn boundaries_that_were_never_right_are_not_believed(calls in vec(call(), 1..60), seed: u64, eager: u8, ahead in 1u32..9) {
        // Whoever walks from a wrong beginning is never where a frame begins.
        let (steps, _) = with_losses(&transfers(&calls, seed, eager), seed ^ 0x55, 40);
        let (before, _) = run(&steps);
        let lies = steps.into_iter().flat_map(|step| match step {
            Step::Bytes(flow, ..) => vec![Step::Boundary(flow, ahead, 7), step],
            _ => vec![step],
        });
        let (told, _) = run(&lies.collect::<Vec<_>>());
        prop_assert_eq!(told.requests, before.requests);
        prop_assert_eq!(told.ends, before.ends);
    }

    #[test]
    fn with_budgets_nothing_wrong_is_told(calls in vec(call(), 1..60), seed: u64, eager: u8, budget in 20usize..1200) {
        let (told, _) = run(&with_budget(&transfers(&calls, seed, eager), budget));
        check(&calls, &told);
    }

    #[test]
    fn joined_late_nothing_wrong_is_told(calls in vec(call(), 2..60), seed: u64, eager: u8, from in 0usize..100) {
        let all = transfers(&calls, seed, eager);
        let from = from.min(all.len());
        let (told, _) = run(&whole(&all[from..]));
        check(&calls, &told);
    }

    #[test]
    fn lost_bytes_anywhere_tell_nothing_wrong(calls in vec(call(), 1..40), seed: u64, eager: u8, places in vec((0usize..4000, 1usize..500), 1..6)) {
        // Holes that begin and end within frames.
        let mut steps = Vec::new();
        let mut at = [0usize; 2];
        for (flow, bytes) in transfers(&calls, seed, eager) {
            let begin = at[common::side(flow)];
            at[common::side(flow)] += bytes.len();
            let hole = places.iter().find(|(from, len)| *from < begin + bytes.len() && from + len > begin);
            let Some((from, len)) = hole else {
                steps.push(burst(flow, &bytes));
                continue;
            };
            let from = from.saturating_sub(begin).min(bytes.len());
            let to = (from + len).min(bytes.len());
            steps.push(burst(flow, &bytes[..from]));
            steps.push(Step::Hole(flow, (to - from) as u64, Vec::new()));
            steps.push(burst(flow, &bytes[to..]));
        }
        let (told, _) = run(&steps);
        check(&calls, &told);
    }
}

/// A long conversation, for figures: all of it depends on the seed.
fn many(count: usize, seed: u64) -> Vec<Call> {
    let mut roll = dice(seed);
    let mut pick = |of: usize| usize::from(roll()) % of;
    (0..count)
        .map(|_| Call {
            method: "POST",
            path: pick(8),
            authority: 0,
            agent: 0,
            other: (pick(6), pick(250)),
            status: 200,
            body: pick(200),
            grpc_status: pick(17) as u8,
        })
        .collect()
}

#[test]
fn with_one_transfer_of_a_hundred_lost_most_is_told_still() {
    let (mut calls_in_all, mut known, mut ended, mut codes) = (0, 0, 0, 0);
    let mut with = [0; 3];
    for seed in 1..=20 {
        let calls = many(1000, seed);
        let (steps, lost) = with_losses(&transfers(&calls, seed, 255), seed + 100, 3);
        let (told, _) = run(&steps);
        check(&calls, &told);
        assert!(lost > 10);
        calls_in_all += calls.len();
        known += told.requests.values().filter(|request| !request.path.is_empty()).count();
        ended += told.ends;
        codes += told.codes.values().flatten().count();
        let (told, _) = run(&with_boundaries(steps));
        check(&calls, &told);
        with[0] += told.requests.values().filter(|request| !request.path.is_empty()).count();
        with[1] += told.ends;
        with[2] += told.codes.values().flatten().count();
    }
    println!("of {calls_in_all} calls: {known} with a path, {ended} ended, {codes} with a status");
    println!("with boundaries: {with:?}");
    assert!(with[0] >= known && with[1] >= ended && with[2] >= codes);
    assert!(
        known * 100 > calls_in_all * 80 && ended * 100 > calls_in_all * 90 && codes * 100 > calls_in_all * 80
    );
}

#[test]
fn boundaries_that_are_told_cost_no_call_that_was_seen() {
    let (mut with, mut without, mut calls_in_all) = ([0; 2], [0; 2], 0);
    for seed in 1..=5 {
        let mut calls = many(1000, seed);
        // Bodies that come in several frames and transfers.
        calls.iter_mut().for_each(|call| call.body *= 80);
        let steps = cut_anywhere(&transfers(&calls, seed, 255), seed + 100, 3);
        let muted: Vec<Step> =
            steps.iter().filter(|step| !matches!(step, Step::Boundary(..))).cloned().collect();
        calls_in_all += calls.len();
        for (steps, counts) in [(&steps, &mut with), (&muted, &mut without)] {
            let (told, _) = run(steps);
            check(&calls, &told);
            counts[0] += told.requests.len();
            counts[1] += told.ends;
        }
    }
    println!("of {calls_in_all} calls, requests and ends: {with:?} with boundaries, {without:?} without");
    assert!(with[0] > without[0] && with[1] > without[1]);
}

#[test]
fn joined_late_more_and_more_is_known() {
    let mut shares = [0usize; 5];
    let (connections, each) = (20, 200);
    for seed in 1..=connections {
        let calls = many(1000, seed);
        let all = transfers(&calls, seed, 255);
        // From the middle on.
        let late = all.len() / 2;
        let (told, _) = run(&whole(&all[late..]));
        check(&calls, &told);
        let mut ids: Vec<&u32> = told.requests.keys().collect();
        ids.sort();
        for (share, ids) in shares.iter_mut().zip(ids.chunks(each / 5)) {
            *share += ids.iter().filter(|id| !told.requests[**id].path.is_empty()).count();
        }
    }
    let percent = shares.map(|n| n * 100 / (connections as usize * each / 5));
    println!("known paths after each 40 calls: {percent:?} %");
    assert!(percent[4] > percent[0] && percent[4] >= 95, "{percent:?}");
}
