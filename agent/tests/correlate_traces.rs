//! Traces over several processes: joins, wire contexts, what is held and for how long, bounds, conservation.

#![expect(clippy::indexing_slicing, reason = "a test's own data: a miss is a bug of the test")]

mod correlate_sim;

use std::collections::HashMap;

use correlate_sim::{Feed, Line, MS, Rng, US, task};
use spanwise::session::{Outcome, Side};
use spanwise::span::correlate::Settings;
use spanwise::span::{ParentSource, ids};
use spanwise_protocol::context::TraceContext;
use spanwise_protocol::message::Request;

const CURL: u32 = 100;
const PROXY: u32 = 200;
const APP: u32 = 300;

fn context(trace: u8, span: u8) -> TraceContext {
    TraceContext { trace_id: [trace; 16], span_id: [span; 8], flags: 1, state: Some("a=b".into()) }
}

/// curl -> proxy -> app; the keys from the outermost span inwards.
fn chain(feed: &mut Feed, number: u32, position: u32) -> [u64; 4] {
    let (curl, outer) = (Line::tcp(number, 80, Side::Client), Line::tcp(number, 80, Side::Server));
    let (proxy, inner) = (Line::tcp(number + 1, 81, Side::Client), Line::tcp(number + 1, 81, Side::Server));
    let a = feed.begin(Side::Client, task(CURL, CURL), &curl, position);
    feed.pass(feed.now + 50 * US);
    let b = feed.begin(Side::Server, task(PROXY, PROXY), &outer, position);
    feed.pass(feed.now + 50 * US);
    // The server reads before the client's send is stamped.
    let d = feed.begin(Side::Server, task(APP, APP), &inner, position);
    feed.pass(feed.now + 5 * US);
    let c = feed.begin(Side::Client, task(PROXY, PROXY), &proxy, position);
    feed.pass(feed.now + MS);
    feed.complete(d, task(APP, APP));
    feed.pass(feed.now + 50 * US);
    feed.complete(c, task(PROXY, PROXY));
    feed.pass(feed.now + 50 * US);
    feed.complete(b, task(PROXY, PROXY));
    feed.pass(feed.now + 50 * US);
    feed.complete(a, task(CURL, CURL));
    [a, b, c, d]
}

#[test]
fn one_request_through_three_processes_is_one_trace_from_the_first() {
    let mut feed = Feed::new(Settings::default());
    let keys = chain(&mut feed, 1, 0);
    feed.pass(feed.now + 15 * MS);
    let spans: Vec<_> = keys.iter().map(|key| feed.of(*key).clone()).collect();
    let line = Line::tcp(1, 80, Side::Client);
    let name = line.message(0).unwrap();
    assert_eq!(spans[0].trace_id, ids::root_trace_id(&name, Side::Client));
    assert_eq!(spans[0].span_id, ids::client_span_id(&name));
    assert_eq!(spans[1].span_id, ids::server_span_id(&name));
    assert_eq!(spans[0].parent_span_id, None);
    for (parent, child) in [(0, 1), (1, 2), (2, 3)] {
        assert_eq!(spans[child].parent_span_id, Some(spans[parent].span_id));
        assert_eq!(spans[child].parent_key.map(|key| key.0), Some(keys[parent]));
        assert_eq!(spans[child].trace_id, spans[0].trace_id);
    }
    let sources: Vec<_> = spans.iter().map(|span| span.source).collect();
    assert_eq!(sources, [ParentSource::Root, ParentSource::Peer, ParentSource::Thread, ParentSource::Peer]);
    assert_eq!(
        spans.iter().map(|span| span.parent_is_remote).collect::<Vec<_>>(),
        [false, true, false, true]
    );
    assert!(spans[2].confidence >= 0.97);
}

#[test]
fn a_root_without_a_client_end_goes_out_after_the_wait_only() {
    let mut feed = Feed::new(Settings::default());
    let key = feed.begin(Side::Server, task(APP, APP), &Line::tcp(1, 80, Side::Server), 0);
    feed.pass(feed.now + MS);
    feed.complete(key, task(APP, APP));
    feed.pass(feed.now + 8 * MS);
    assert!(feed.decided.is_empty());
    feed.pass(feed.now + 6 * MS);
    assert_eq!(feed.of(key).source, ParentSource::Root);
}

#[test]
fn a_client_end_that_comes_late_is_still_the_parent() {
    let mut feed = Feed::new(Settings::default());
    let server = feed.begin(Side::Server, task(APP, APP), &Line::tcp(1, 80, Side::Server), 7);
    feed.pass(feed.now + 100 * US);
    feed.complete(server, task(APP, APP));
    feed.pass(feed.now + 5 * MS);
    let client = feed.begin(Side::Client, task(CURL, CURL), &Line::tcp(1, 80, Side::Client), 7);
    feed.complete(client, task(CURL, CURL));
    assert_eq!((feed.take(), feed.of(server).source).1, ParentSource::Peer);
    assert_eq!(feed.of(server).trace_id, feed.of(client).trace_id);
}

#[test]
fn a_server_that_reads_after_its_client_gave_up_is_joined() {
    let mut feed = Feed::new(Settings::default());
    let client = feed.begin(Side::Client, task(CURL, CURL), &Line::tcp(1, 80, Side::Client), 7);
    feed.pass(feed.now + 500 * MS);
    feed.finish(client, Outcome::Aborted);
    feed.pass(feed.now + 2_000 * MS);
    assert_eq!(feed.of(client).source, ParentSource::Root);
    let server = feed.begin(Side::Server, task(APP, APP), &Line::tcp(1, 80, Side::Server), 7);
    feed.complete(server, task(APP, APP));
    feed.take();
    assert_eq!(feed.of(server).parent_key.map(|key| key.0), Some(client));
}

#[test]
fn wire_context_from_outside_is_the_parent_and_goes_on_to_the_calls() {
    let mut feed = Feed::new(Settings::default());
    let server = feed.begin(Side::Server, task(APP, APP), &Line::tcp(1, 80, Side::Server), 0);
    feed.context(server, &context(9, 5));
    let call = feed.begin(Side::Client, task(APP, APP), &Line::tcp(2, 81, Side::Client), 0);
    feed.pass(feed.now + MS);
    feed.complete(call, task(APP, APP));
    feed.complete(server, task(APP, APP));
    feed.pass(feed.now + 20 * MS);
    let (server, call) = (feed.of(server), feed.of(call));
    assert_eq!((server.trace_id, server.parent_span_id), ([9; 16], Some([5; 8])));
    assert_eq!((server.source, server.parent_is_remote), (ParentSource::Wire, true));
    assert_eq!(
        (server.upstream_flags, server.trace_flags, server.trace_state.as_deref()),
        (Some(1), 1, Some("a=b"))
    );
    assert_eq!((call.trace_id, call.parent_span_id), ([9; 16], Some(server.span_id)));
    assert_eq!((call.upstream_flags, call.trace_state.as_deref()), (Some(1), Some("a=b")));
}

#[test]
fn a_context_passed_on_names_the_request_whatever_the_threads_do() {
    let mut feed = Feed::new(Settings::default());
    let mut requests = Vec::new();
    for i in 0..8_u8 {
        let key = feed.begin(Side::Server, task(PROXY, PROXY), &Line::tcp(i.into(), 80, Side::Server), 0);
        feed.context(key, &context(10 + i, 1));
        requests.push(key);
    }
    let mut calls = Vec::new();
    for i in (0..8_u8).rev() {
        let key = feed.begin(
            Side::Client,
            task(PROXY, PROXY + 1),
            &Line::tcp(50 + u32::from(i), 81, Side::Client),
            0,
        );
        // Half of them with a span of the program's own.
        let own = if i % 2 == 0 { 1 } else { 77 };
        feed.context(key, &context(10 + i, own));
        calls.push((i, key));
    }
    for (_, key) in &calls {
        feed.complete(*key, task(PROXY, PROXY + 1));
    }
    for key in &requests {
        feed.complete(*key, task(PROXY, PROXY));
    }
    feed.pass(feed.now + 20 * MS);
    for (i, key) in calls {
        let (call, request) = (feed.of(key), feed.of(requests[usize::from(i)]));
        assert_eq!(
            (call.source, call.trace_id, call.parent_is_remote),
            (ParentSource::Wire, [10 + i; 16], false)
        );
        let parent = if i % 2 == 0 { request.span_id } else { [77; 8] };
        assert_eq!(call.parent_span_id, Some(parent));
    }
}

#[test]
fn a_context_shared_by_open_requests_leaves_the_choice_to_the_models() {
    let mut feed = Feed::new(Settings::default());
    // The same context came in twice, on threads of their own: the thread decides.
    let mut pairs = Vec::new();
    for i in 0..2 {
        let who = task(APP, APP + i);
        let request = feed.begin(Side::Server, who, &Line::tcp(i, 80, Side::Server), 0);
        feed.context(request, &context(3, 4));
        pairs.push((who, request, 0));
    }
    for (i, pair) in (0..).zip(&mut pairs) {
        pair.2 = feed.begin(Side::Client, pair.0, &Line::tcp(10 + i, 81, Side::Client), 0);
        feed.context(pair.2, &context(3, 4));
    }
    // One more from a thread that serves nothing: only the trace is known.
    let stray = feed.begin(Side::Client, task(APP, APP + 9), &Line::tcp(20, 81, Side::Client), 0);
    feed.context(stray, &context(3, 4));
    feed.complete(stray, task(APP, APP + 9));
    for (who, request, call) in &pairs {
        feed.complete(*call, *who);
        feed.complete(*request, *who);
    }
    feed.pass(feed.now + 20 * MS);
    for (_, request, call) in pairs {
        assert_eq!(feed.of(call).parent_key.map(|key| key.0), Some(request));
        assert_eq!(feed.of(call).source, ParentSource::Wire);
    }
    let stray = feed.of(stray);
    assert_eq!(
        (stray.trace_id, stray.parent_span_id, stray.source),
        ([3; 16], Some([4; 8]), ParentSource::Wire)
    );
}

#[test]
fn unix_connections_are_joined_by_their_sockets_in_order() {
    let mut feed = Feed::new(Settings::default());
    let (client, server) = (Line::unix(5, Side::Client), Line::unix(5, Side::Server));
    let other = Line::unix(6, Side::Server);
    for i in 0..20 {
        let call = feed.begin(Side::Client, task(CURL, CURL), &client, 0);
        let strange = feed.begin(Side::Server, task(APP, APP + 1), &other, 0);
        feed.pass(feed.now + 10 * US);
        let request = (i != 7).then(|| feed.begin(Side::Server, task(APP, APP), &server, 0));
        feed.pass(feed.now + MS);
        if let Some(request) = request {
            feed.complete(request, task(APP, APP));
        }
        feed.complete(strange, task(APP, APP + 1));
        feed.complete(call, task(CURL, CURL));
        feed.pass(feed.now + 30 * MS);
        if let Some(request) = request {
            assert_eq!(feed.of(request).parent_key.map(|key| key.0), Some(call), "request {i}");
            assert_ne!(feed.of(request).span_id, feed.of(call).span_id);
        }
        assert_eq!(feed.of(strange).source, ParentSource::Root);
    }
}

#[test]
fn tcp_without_names_is_joined_by_its_addresses() {
    let mut feed = Feed::new(Settings::default());
    let (mut client, mut server) = (Line::tcp(3, 80, Side::Client), Line::tcp(3, 80, Side::Server));
    (client.named, server.named) = (false, false);
    let request = feed.begin(Side::Server, task(APP, APP), &server, 0);
    feed.pass(feed.now + 20 * US);
    let call = feed.begin(Side::Client, task(CURL, CURL), &client, 0);
    feed.complete(request, task(APP, APP));
    feed.complete(call, task(CURL, CURL));
    feed.take();
    assert_eq!(feed.of(request).parent_key.map(|key| key.0), Some(call));
}

#[test]
fn what_begins_after_the_response_is_nobodys() {
    let mut feed = Feed::new(Settings::default());
    let request = feed.begin(Side::Server, task(APP, APP), &Line::tcp(1, 80, Side::Server), 0);
    feed.complete(request, task(APP, APP));
    feed.pass(feed.now + US);
    let call = feed.begin(Side::Client, task(APP, APP), &Line::tcp(2, 81, Side::Client), 0);
    feed.complete(call, task(APP, APP));
    feed.end();
    assert_eq!((feed.of(call).source, feed.of(call).parent_span_id), (ParentSource::Root, None));
}

#[test]
fn a_call_that_outlives_the_response_is_only_linked() {
    let mut feed = Feed::new(Settings::default());
    let request = feed.begin(Side::Server, task(APP, APP), &Line::tcp(1, 80, Side::Server), 0);
    let call = feed.begin(Side::Client, task(APP, APP), &Line::tcp(2, 81, Side::Client), 0);
    feed.complete(request, task(APP, APP));
    feed.pass(feed.now + MS);
    feed.complete(call, task(APP, APP));
    feed.pass(feed.now + 20 * MS);
    let (request, call) = (feed.of(request), feed.of(call));
    assert_eq!((call.source, call.parent_span_id), (ParentSource::Abstained, None));
    assert_ne!(call.trace_id, request.trace_id);
    assert_eq!(call.links.len(), 1);
    assert_eq!((call.links[0].trace_id, call.links[0].span_id), (request.trace_id, request.span_id));
    assert_eq!(call.links[0].attributes[0].0, "spanwise.link.reason");
}

#[test]
fn calls_made_while_the_response_streams_belong_to_its_thread() {
    let mut feed = Feed::new(Settings::default());
    let request = feed.begin(Side::Server, task(APP, APP), &Line::tcp(1, 80, Side::Server), 0);
    feed.answer(request, task(APP, APP), true, false);
    feed.pass(feed.now + MS);
    let call = feed.begin(Side::Client, task(APP, APP), &Line::tcp(2, 81, Side::Client), 0);
    feed.complete(call, task(APP, APP));
    feed.pass(feed.now + 50 * MS);
    feed.answer(request, task(APP, APP), false, true);
    feed.finish(request, Outcome::Complete);
    feed.pass(feed.now + 20 * MS);
    assert_eq!(feed.of(call).parent_key.map(|key| key.0), Some(request));
}

#[test]
fn a_long_request_does_not_hold_its_calls_for_ever() {
    let mut feed = Feed::new(Settings::default());
    let request = feed.begin(Side::Server, task(APP, APP), &Line::tcp(1, 80, Side::Server), 0);
    let call = feed.begin(Side::Client, task(APP, APP), &Line::tcp(2, 81, Side::Client), 0);
    let below = feed.begin(Side::Server, task(PROXY, PROXY), &Line::tcp(2, 81, Side::Server), 0);
    feed.pass(feed.now + MS);
    feed.complete(below, task(PROXY, PROXY));
    feed.complete(call, task(APP, APP));
    feed.pass(feed.now + 10_010 * MS);
    assert!(feed.of(call).parent_span_id.is_some());
    assert_eq!(feed.of(below).parent_key.map(|key| key.0), Some(call));
    feed.complete(request, task(APP, APP));
    feed.pass(feed.now + 20 * MS);
    assert_eq!(feed.of(request).trace_id, feed.of(call).trace_id);
    assert_eq!(feed.of(below).trace_id, feed.of(call).trace_id);
    assert_eq!(feed.of(call).parent_span_id, Some(feed.of(request).span_id));
}

/// Two requests at once on one thread, each with a call; gives the calls and what is below one of them.
fn two_at_once(feed: &mut Feed, number: u32) -> [u64; 3] {
    let thread = task(APP, APP);
    let line = |more: u32, port, side| Line::tcp(number * 10 + more, port, side);
    let requests = [0, 1].map(|slot| feed.begin(Side::Server, thread, &line(slot, 80, Side::Server), 0));
    let calls = [2, 3].map(|slot| {
        feed.pass(feed.now + 20 * US);
        feed.begin(Side::Client, thread, &line(slot, 81, Side::Client), 0)
    });
    let below = feed.begin(Side::Server, task(PROXY, PROXY), &line(2, 81, Side::Server), 0);
    feed.complete(below, task(PROXY, PROXY));
    for (call, request) in calls.into_iter().zip(requests) {
        feed.pass(feed.now + MS);
        feed.complete(call, thread);
        feed.pass(feed.now + 20 * US);
        feed.complete(request, thread);
    }
    [calls[0], calls[1], below]
}

#[test]
fn calls_wait_for_a_model_to_be_proven_but_not_for_ever() {
    let mut feed = Feed::new(Settings::default());
    let [call, other, below] = two_at_once(&mut feed, 1);
    feed.pass(feed.now + 7_900 * MS);
    assert!([call, other, below].iter().all(|key| !feed.decided.contains_key(key)));
    feed.pass(feed.now + 200 * MS);
    for key in [call, other] {
        assert_eq!(feed.of(key).source, ParentSource::Abstained);
    }
    assert_eq!(feed.of(below).parent_key.map(|key| key.0), Some(call));
    // A process that had its time makes nobody wait any more.
    feed.pass(feed.now + 25_000 * MS);
    let late = two_at_once(&mut feed, 2);
    feed.pass(feed.now + 200 * MS);
    assert!(late.iter().all(|key| feed.decided.contains_key(key)));
}

#[test]
fn the_end_of_a_process_decides_what_waits_for_a_proof() {
    let mut feed = Feed::new(Settings::default());
    let [call, other, below] = two_at_once(&mut feed, 1);
    feed.pass(feed.now + 100 * MS);
    assert!(!feed.decided.contains_key(&call));
    feed.correlator.process_exit(APP, feed.now);
    feed.pass(feed.now + 50 * MS);
    assert!([call, other, below].iter().all(|key| feed.decided.contains_key(key)));
}

#[test]
fn a_trace_does_not_grow_without_end() {
    let mut feed = Feed::new(Settings { max_trace_spans: 10, ..Settings::default() });
    let request = feed.begin(Side::Server, task(APP, APP), &Line::tcp(1, 80, Side::Server), 0);
    let mut calls = Vec::new();
    for position in 0..30 {
        let call = feed.begin(Side::Client, task(APP, APP), &Line::tcp(2, 81, Side::Client), position);
        feed.complete(call, task(APP, APP));
        calls.push(call);
    }
    feed.complete(request, task(APP, APP));
    feed.end();
    let trace = feed.of(request).trace_id;
    let (inside, outside): (Vec<_>, Vec<_>) =
        calls.iter().map(|key| feed.of(*key)).partition(|call| call.trace_id == trace);
    assert_eq!((inside.len(), outside.len()), (9, 21));
    assert!(outside.iter().all(|call| call.parent_span_id.is_none() && call.links[0].trace_id == trace));
}

#[test]
fn an_exit_decides_what_waits() {
    let mut feed = Feed::new(Settings::default());
    let slow = feed.begin(Side::Server, task(APP, APP), &Line::tcp(1, 80, Side::Server), 0);
    let other = feed.begin(Side::Server, task(APP, APP), &Line::tcp(3, 80, Side::Server), 0);
    let call = feed.begin(Side::Client, task(APP, APP), &Line::tcp(2, 81, Side::Client), 0);
    feed.complete(call, task(APP, APP));
    feed.pass(feed.now + 100 * MS);
    assert!(feed.decided.is_empty());
    feed.correlator.process_exit(APP, feed.now);
    feed.finish(slow, Outcome::Unfinished);
    feed.finish(other, Outcome::Unfinished);
    feed.pass(feed.now + 20 * MS);
    assert_eq!(feed.decided.len(), 3);
    assert_eq!(feed.of(call).source, ParentSource::Abstained);
}

/// Anything in any order: every exchange gives one decision, ids agree with parents, and nothing is left behind.
fn anything(settings: Settings, seed: u64, steps: usize) {
    let mut feed = Feed::new(settings);
    let mut rng = Rng(seed);
    let mut open: Vec<(u64, u32, bool)> = Vec::new();
    let mut positions: HashMap<u32, u32> = HashMap::new();
    for step in 0..steps {
        let tgid = 1_000 + rng.below(6) as u32;
        let who = task(tgid, tgid + rng.below(3) as u32);
        match rng.below(10) {
            0..=3 => {
                let number = rng.below(40) as u32;
                let side = if rng.below(2) == 0 { Side::Client } else { Side::Server };
                let position = positions.entry(number).or_insert(0);
                *position += (rng.below(3) == 0) as u32;
                let line = if number.is_multiple_of(8) {
                    Line::unix(number.into(), side)
                } else {
                    Line::tcp(number, 80, side)
                };
                let key = feed.begin(side, who, &line, *position);
                if rng.below(4) == 0 {
                    feed.context(key, &context(1 + rng.below(4) as u8, 1 + rng.below(3) as u8));
                }
                open.push((key, tgid, false));
            }
            4..=5 if !open.is_empty() => {
                let at = rng.below(open.len() as u64) as usize;
                let (key, tgid, answered) = &mut open[at];
                feed.answer(*key, task(*tgid, *tgid), !*answered, rng.below(2) == 0);
                *answered = true;
            }
            6..=8 if !open.is_empty() => {
                let (key, ..) = open.swap_remove(rng.below(open.len() as u64) as usize);
                let outcomes = [
                    Outcome::Complete,
                    Outcome::Aborted,
                    Outcome::Upgraded,
                    Outcome::Unfinished,
                    Outcome::Gap,
                ];
                feed.finish(key, outcomes[rng.below(5) as usize]);
            }
            _ => {
                feed.pass(feed.now + rng.below(20 * MS));
                if rng.below(50) == 0 {
                    feed.correlator.process_exit(tgid, feed.now);
                }
            }
        }
        if step % 64 == 0 {
            assert!(feed.correlator.stage().balances());
        }
    }
    for (key, ..) in open {
        feed.finish(key, Outcome::Unfinished);
    }
    feed.correlator.flush();
    feed.take();
    assert_eq!((feed.decided.len() as u64, feed.twice), (feed.began, 0));
    let mut checked = 0;
    for (exchange, decision) in feed.decided.values() {
        assert_ne!(decision.trace_id, [0; 16]);
        assert!(decision.parent_key.is_none() || decision.parent_span_id.is_some());
        if let Some(parent) = decision.parent_key {
            let (above, span) = &feed.decided[&parent.0];
            assert_eq!((span.trace_id, Some(span.span_id)), (decision.trace_id, decision.parent_span_id));
            assert!(decision.source == ParentSource::Peer || above.began_ns <= exchange.began_ns);
            assert_ne!(above.side, exchange.side);
            checked += 1;
        }
    }
    assert!(checked > 0);
    feed.end();
    let notes = feed.correlator.stage().notes;
    for what in ["exchanges in memory", "ends waiting for the other end"] {
        assert_eq!(notes.iter().find(|note| note.0 == what).map(|note| note.1), Some(0), "{what}");
    }
}

#[test]
fn every_exchange_gives_one_decision() {
    for seed in 0..30 {
        anything(Settings::default(), seed, 4_000);
    }
}

#[test]
fn every_exchange_gives_one_decision_under_tight_bounds() {
    for seed in 0..30 {
        let settings = Settings {
            hold_ns: 50 * MS,
            max_open: 20,
            max_held: 8,
            max_lingering: 4,
            max_processes: 3,
            max_threads: 2,
            max_calls: 2,
            max_trace_spans: 5,
            max_trace_age_ns: 200 * MS,
            ..Settings::default()
        };
        anything(settings, seed, 4_000);
    }
}

fn known(path: &str) -> Request {
    Request { method: "GET".into(), path: path.into(), query: Some("a=1".into()), ..Request::default() }
}

fn unknown() -> Request {
    Request { truncated: true, ..Request::default() }
}

/// Both ends of a message: the client's, then the server's.
fn ends(feed: &mut Feed, position: u32) -> [u64; 2] {
    let client = feed.begin(Side::Client, task(CURL, CURL), &Line::tcp(1, 80, Side::Client), position);
    feed.pass(feed.now + 50 * US);
    let server = feed.begin(Side::Server, task(APP, APP), &Line::tcp(1, 80, Side::Server), position);
    [client, server]
}

#[test]
fn what_one_end_could_not_read_the_other_tells() {
    for lacking in [Side::Client, Side::Server] {
        let mut feed = Feed::new(Settings::default());
        let [client, server] = ends(&mut feed, 1);
        for (key, side) in [(client, Side::Client), (server, Side::Server)] {
            let (request, status) = if side == lacking { (unknown(), 0) } else { (known("/shop"), 404) };
            feed.reads(key, request, Some(status));
        }
        feed.complete(server, task(APP, APP));
        feed.pass(feed.now + 5 * MS);
        feed.complete(client, task(CURL, CURL));
        feed.take();
        for key in [client, server] {
            let exchange = &feed.decided[&key].0;
            assert_eq!(exchange.request, known("/shop"), "{lacking:?}");
            assert_eq!(exchange.response.as_ref().map(|response| response.status), Some(404));
        }
        assert_eq!(feed.of(server).parent_key.map(|key| key.0), Some(client));
    }
}

#[test]
fn each_end_tells_what_it_knows() {
    let mut feed = Feed::new(Settings::default());
    let [client, server] = ends(&mut feed, 1);
    let only_path = Request { path: "/shop".into(), truncated: true, ..Request::default() };
    let only_method = Request { method: "PUT".into(), truncated: true, ..Request::default() };
    feed.reads(client, only_path, Some(200));
    feed.reads(server, only_method, Some(0));
    feed.complete(server, task(APP, APP));
    feed.complete(client, task(CURL, CURL));
    feed.take();
    for key in [client, server] {
        let exchange = &feed.decided[&key].0;
        assert_eq!((&*exchange.request.method, &*exchange.request.path), ("PUT", "/shop"));
        assert_eq!(exchange.response.as_ref().map(|response| response.status), Some(200));
        assert!(exchange.request.truncated, "other fields are known to neither");
    }
}

#[test]
fn an_answer_that_a_client_did_not_get_is_not_told() {
    let mut feed = Feed::new(Settings::default());
    let [client, server] = ends(&mut feed, 1);
    feed.reads(client, unknown(), None);
    feed.reads(server, known("/shop"), Some(200));
    feed.complete(server, task(APP, APP));
    feed.finish(client, Outcome::Aborted);
    feed.take();
    let exchange = &feed.decided[&client].0;
    assert_eq!((&*exchange.request.path, exchange.response.is_none()), ("/shop", true));
}

#[test]
fn ends_that_are_joined_by_their_order_tell_nothing() {
    let mut feed = Feed::new(Settings::default());
    let client = feed.begin(Side::Client, task(CURL, CURL), &Line::unix(1, Side::Client), 0);
    let server = feed.begin(Side::Server, task(APP, APP), &Line::unix(1, Side::Server), 0);
    feed.reads(client, unknown(), Some(0));
    feed.reads(server, known("/shop"), Some(200));
    feed.complete(server, task(APP, APP));
    feed.complete(client, task(CURL, CURL));
    feed.take();
    assert_eq!(feed.of(server).parent_key.map(|key| key.0), Some(client));
    assert_eq!(feed.decided[&client].0.request, unknown());
}

#[test]
fn nobody_waits_for_ever_for_what_the_other_end_may_know() {
    let mut feed = Feed::new(Settings::default());
    let [client, server] = ends(&mut feed, 1);
    feed.reads(server, unknown(), Some(200));
    feed.complete(server, task(APP, APP));
    feed.pass(feed.now + 9_000 * MS);
    assert!(!feed.decided.contains_key(&server));
    feed.pass(feed.now + 2_000 * MS);
    assert_eq!(feed.decided[&server].0.request, unknown());
    feed.reads(client, known("/late"), Some(200));
    feed.complete(client, task(CURL, CURL));
    feed.end();
    assert_eq!((feed.decided.len() as u64, feed.twice), (feed.began, 0));
    assert!(feed.correlator.stage().balances());
}
