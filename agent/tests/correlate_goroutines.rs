//! Programs of goroutines in small, with the truth known: who reads, who calls, who starts whom.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's own data: a miss is a bug of the test"
)]

mod correlate_sim;

use correlate_sim::program::{MAIN, Program, SERVE, TGID, client_line, conns, server_line};
use correlate_sim::{Line, MS, US};
use spanwise::session::Outcome;
use spanwise::span::correlate::{Role, Started};
use spanwise_common::event::handoff;

const BACKGROUND: u64 = 0x1100;
const WRITE_LOOP: u64 = 0x1200;
const READ_LOOP: u64 = 0x1300;
const DIAL: u64 = 0x1400;
const HANDLER_CHILD: u64 = 0x2000;

/// A pooled connection of `net/http`'s client, with the goroutines that move its bytes.
struct Pooled {
    line: Line,
    writer: u64,
    reader: u64,
    position: u32,
}

fn pooled(program: &mut Program, number: u32, dialled_for: u64) -> Pooled {
    let dial = program.go(dialled_for, DIAL);
    let (writer, reader) = (program.go(dial, WRITE_LOOP), program.go(dial, READ_LOOP));
    Pooled { line: client_line(number), writer, reader, position: 0 }
}

/// Requests in rounds: all connections read theirs, then all callers call in a random order over pooled connections, then answers
/// come in a random order, then responses. `start`: a child of the handler calls. `told`: hand-offs are seen.
fn rounds(program: &mut Program, at_once: u32, count: u32, start: Option<u64>, told: bool) {
    let mut servers = conns(program, at_once);
    let first = servers[0].id;
    let mut pool: Vec<Pooled> = (0..at_once).map(|number| pooled(program, number, first)).collect();
    for _ in 0..count {
        let mut open = Vec::new();
        for server in &mut servers {
            // A quick client is read by the background read of the goroutine.
            let background = server.position > 0 && program.rng.below(3) == 0;
            let reader = if background { program.go(server.id, BACKGROUND) } else { server.id };
            let key = program.request(reader, &server.line, server.position);
            program.does(server.id);
            server.position += 100;
            open.push((key, server.id));
        }
        let mut waiting = Vec::new();
        while !open.is_empty() {
            let at = usize::try_from(program.rng.below(open.len() as u64)).unwrap();
            let (key, handler) = open.swap_remove(at);
            let line = usize::try_from(program.rng.below(pool.len() as u64)).unwrap();
            let mut line = pool.swap_remove(line);
            let caller = start.map_or(handler, |start| program.go(handler, start));
            if told {
                program.hands(&line.line, 0, caller, handoff::CALLS);
            }
            let call = program.call(line.writer, &line.line, line.position, Some(key));
            line.position += 80;
            waiting.push((call, line, key, handler));
        }
        program.wait(3 * MS);
        while !waiting.is_empty() {
            let at = usize::try_from(program.rng.below(waiting.len() as u64)).unwrap();
            let (call, line, key, handler) = waiting.swap_remove(at);
            program.answer(call, line.reader);
            pool.push(line);
            program.wait(program.rng.0 % (50 * US));
            program.respond(key, handler);
        }
        program.wait(MS);
    }
}

#[test]
fn callers_named_by_a_handoff() {
    for (at_once, start) in [(1, None), (8, None), (64, None), (64, Some(HANDLER_CHILD))] {
        let mut program = Program::new();
        rounds(&mut program, at_once, 20, start, true);
        let calls = program.truth.len();
        assert_eq!(program.judge(), (calls, 0, 0), "{at_once} at once, {start:?}");
        assert_eq!(program.sources().get("goroutine"), Some(&calls));
    }
}

#[test]
fn bytes_moved_by_others_say_nothing_of_whose_they_are() {
    let mut program = Program::new();
    rounds(&mut program, 16, 40, None, false);
    program.judge();
    assert_eq!(program.sources().get("goroutine"), None);
}

#[test]
fn a_goroutine_that_does_its_own_transfers() {
    let mut program = Program::new();
    let mut servers = conns(&mut program, 8);
    let mut position = 0;
    for _ in 0..20 {
        let keys: Vec<u64> = servers
            .iter_mut()
            .map(|server| {
                server.position += 90;
                program.request(server.id, &server.line, server.position)
            })
            .collect();
        // Two calls of each in turn, five children of each at once.
        let mut calls = Vec::new();
        for (server, key) in servers.iter().zip(&keys) {
            position += 1;
            let call = program.call(server.id, &client_line(position), 0, Some(*key));
            program.answer(call, server.id);
            for _ in 0..5 {
                position += 1;
                let child = program.go(server.id, HANDLER_CHILD);
                calls.push((program.call(child, &client_line(position), 0, Some(*key)), child));
            }
        }
        for (call, child) in calls {
            program.answer(call, child);
        }
        for (server, key) in servers.iter().zip(&keys) {
            program.respond(*key, server.id);
        }
    }
    let calls = program.truth.len();
    assert_eq!(program.judge(), (calls, 0, 0));
    assert_eq!(program.sources().get("goroutine"), Some(&calls));
}

#[test]
fn what_outlives_its_request_is_not_of_the_next_one() {
    let mut program = Program::new();
    let mut servers = conns(&mut program, 8);
    let mut position = 0;
    let mut late: Vec<u64> = Vec::new();
    for _ in 0..200 {
        for server in &mut servers {
            server.position += 90;
            let key = program.request(server.id, &server.line, server.position);
            // What earlier requests left behind calls now, while this one is open.
            while late.len() > 8 {
                let at = usize::try_from(program.rng.below(late.len() as u64)).unwrap();
                let child = late.swap_remove(at);
                position += 1;
                let call = program.call(child, &client_line(position), 0, None);
                program.answer(call, child);
            }
            late.push(program.go(server.id, HANDLER_CHILD));
            program.respond(key, server.id);
            program.wait(100 * US);
        }
    }
    program.judge();
    let named = program.sources().get("goroutine").copied().unwrap_or(0);
    assert!(named <= 4, "{named} of {}", program.truth.len());
}

#[test]
fn workers_are_not_children_of_whoever_started_them() {
    let mut program = Program::new();
    let mut servers = conns(&mut program, 8);
    // Started in the first request, for all.
    let key = program.request(servers[0].id, &servers[0].line, 0);
    let workers: Vec<u64> = (0..4).map(|_| program.go(servers[0].id, HANDLER_CHILD)).collect();
    program.respond(key, servers[0].id);
    let mut position = 0;
    for round in 0..200 {
        for server in &mut servers {
            server.position += 90;
            let key = program.request(server.id, &server.line, server.position);
            let worker = workers[round % 4];
            position += 1;
            let call = program.call(worker, &client_line(position), 0, Some(key));
            program.answer(call, worker);
            program.respond(key, server.id);
        }
    }
    let (_, wrong, _) = program.judge();
    assert!(wrong <= 1, "{wrong}");
    let named = program.sources().get("goroutine").copied().unwrap_or(0);
    assert!(named <= 2, "{named}");
}

#[test]
fn a_starter_that_never_did_anything() {
    for known in [false, true] {
        let mut program = Program::new();
        let mut servers = conns(&mut program, 8);
        let mut position = 0;
        for _ in 0..20 {
            let keys: Vec<u64> = servers
                .iter_mut()
                .map(|server| {
                    server.position += 90;
                    program.request(server.id, &server.line, server.position)
                })
                .collect();
            let mut calls = Vec::new();
            for (server, key) in servers.iter().zip(&keys) {
                let between = program.go(server.id, HANDLER_CHILD);
                let child = program.go(between, HANDLER_CHILD + 1);
                position += 1;
                calls.push((program.call(child, &client_line(position), 0, Some(*key)), child));
                if known {
                    let all: Vec<Started> = program.started.values().copied().collect();
                    program.feed.correlator.fill_holes(&mut |_| Some(all.clone()));
                } else {
                    program.feed.correlator.fill_holes(&mut |_| None);
                }
            }
            for (call, child) in calls {
                program.answer(call, child);
            }
            for (server, key) in servers.iter().zip(&keys) {
                program.respond(*key, server.id);
            }
        }
        let calls = program.truth.len();
        let (right, wrong, silent) = program.judge();
        let named = program.sources().get("goroutine").copied().unwrap_or(0);
        if known {
            assert_eq!((right, wrong, silent, named), (calls, 0, 0, calls));
        } else {
            assert_eq!(named, 0);
        }
    }
}

#[test]
fn requests_sent_ahead_are_served_in_turn() {
    let mut program = Program::new();
    let servers = conns(&mut program, 1);
    let (id, line) = (servers[0].id, &servers[0].line);
    let mut position = 0;
    for round in 0..10 {
        let keys: Vec<u64> =
            (0..3).map(|ahead| program.request(id, line, round * 300 + ahead * 100)).collect();
        for key in keys {
            position += 1;
            let call = program.call(id, &client_line(position), 0, Some(key));
            program.answer(call, id);
            program.respond(key, id);
        }
    }
    assert_eq!(program.judge(), (30, 0, 0));
}

#[test]
fn streams_are_of_those_who_serve_them() {
    for told in [false, true] {
        let mut program = Program::new();
        let reader = program.go(MAIN, SERVE);
        let line = server_line(1);
        let mut number = 1;
        for _ in 0..20 {
            let mut open = Vec::new();
            for _ in 0..8 {
                // As the name of a stream is made.
                let key = program.request(reader, &line, number | 1 << 31);
                let handler = program.go(reader, HANDLER_CHILD);
                if told {
                    program.hands(&line, number, handler, handoff::SERVES);
                }
                open.push((key, handler));
                number += 2;
            }
            let mut calls = Vec::new();
            for (key, handler) in &open {
                calls.push((program.call(*handler, &client_line(number), 0, Some(*key)), *handler));
                number += 2;
            }
            for (call, handler) in calls.into_iter().rev() {
                program.answer(call, handler);
            }
            for (key, _) in open {
                program.respond(key, reader);
            }
        }
        let calls = program.truth.len();
        let judged = program.judge();
        let named = program.sources().get("goroutine").copied().unwrap_or(0);
        if told {
            assert_eq!((judged, named), ((calls, 0, 0), calls));
        } else {
            assert_eq!(named, 0);
        }
    }
}

#[test]
fn names_of_start_functions_tell_at_once() {
    let mut program = Program::new();
    let servers = conns(&mut program, 1);
    let (id, line) = (servers[0].id, &servers[0].line);
    let key = program.request(id, line, 0);
    let worker = program.go(id, HANDLER_CHILD);
    program.does(worker);
    program.feed.correlator.new_starts(&mut |tgid, start| {
        assert_eq!(tgid, TGID);
        if start == HANDLER_CHILD { Role::Shared } else { Role::Plain }
    });
    let call = program.call(worker, &client_line(1), 0, Some(key));
    program.answer(call, worker);
    program.respond(key, id);
    // It ends without an answer.
    let aborted = program.call(id, &client_line(2), 0, None);
    program.feed.finish(aborted, Outcome::Aborted);
    program.judge();
    assert_eq!(program.sources().get("goroutine"), None);
}
