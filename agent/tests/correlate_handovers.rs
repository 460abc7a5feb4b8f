//! Pools of workers in small, with the truth known: handlers give them work over channels, and they call.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's own data: a miss is a bug of the test"
)]

mod correlate_sim;

use std::collections::VecDeque;

use correlate_sim::program::{Conn, MAIN, Program, TGID, client_line, conns};
use correlate_sim::{MS, US};

const WORKER: u64 = 0x3000;
const COLLECTOR: u64 = 0x3100;
const TICKER: u64 = 0x3200;
const JOBS: u64 = 0x9000;
const RESULTS: u64 = 0x9100;
const CONNECTIONS: u64 = 0x9200;

fn workers(program: &mut Program, count: usize, start: u64) -> Vec<u64> {
    (0..count).map(|_| program.go(MAIN, start)).collect()
}

fn read(program: &mut Program, servers: &mut [Conn]) -> Vec<(u64, u64)> {
    let read = |server: &mut Conn| {
        server.position += 100;
        (program.request(server.id, &server.line, server.position), server.id)
    };
    servers.iter_mut().map(read).collect()
}

/// What differs from pool to pool.
#[derive(Clone, Copy)]
struct Pool {
    workers: usize,
    /// Results are seen.
    results: bool,
    /// Values lie in a buffer so long before a worker takes them.
    buffered: bool,
    /// One job in so many needs no call; zero for none.
    cached: u64,
}

/// Rounds of requests; in each, all give their work to the pool, in which jobs wait for workers.
fn rounds(program: &mut Program, at_once: u32, count: u32, pool: Pool) {
    let mut servers = conns(program, at_once);
    let mut idle = workers(program, pool.workers, WORKER);
    let mut number = 0;
    for _ in 0..count {
        let mut jobs: VecDeque<(u64, u64, u64)> = VecDeque::new();
        for (key, handler) in read(program, &mut servers) {
            jobs.push_back((key, handler, program.feed.now + US));
            program.wait(3 * US);
        }
        let mut calls: Vec<(Option<u64>, u64, u64, u64)> = Vec::new();
        while !jobs.is_empty() || !calls.is_empty() {
            if !jobs.is_empty() && !idle.is_empty() && (calls.is_empty() || program.rng.below(2) == 0) {
                let (key, handler, put) = jobs.pop_front().unwrap();
                let at = usize::try_from(program.rng.below(idle.len() as u64)).unwrap();
                let worker = idle.swap_remove(at);
                let age = if pool.buffered { program.feed.now - put } else { 0 };
                program.gives(handler, worker, JOBS, age);
                let call = if pool.cached > 0 && program.rng.below(pool.cached) == 0 {
                    None
                } else {
                    number += 1;
                    Some(program.call(worker, &client_line(number), 0, Some(key)))
                };
                calls.push((call, worker, key, handler));
            } else {
                let at = usize::try_from(program.rng.below(calls.len() as u64)).unwrap();
                let (call, worker, key, handler) = calls.swap_remove(at);
                program.wait(50 * US);
                if let Some(call) = call {
                    program.answer(call, worker);
                }
                if pool.results {
                    program.gives(worker, handler, RESULTS, 0);
                }
                idle.push(worker);
                program.respond(key, handler);
            }
        }
        program.wait(MS);
    }
}

fn by_goroutine(program: &Program) -> usize {
    program.sources().get("goroutine").copied().unwrap_or(0)
}

#[test]
fn workers_call_for_whom_their_work_came_from() {
    for at_once in [1, 8, 64, 256] {
        for (results, buffered) in [(true, false), (true, true), (false, false)] {
            let mut program = Program::new();
            let pool = Pool { workers: 16, results, buffered, cached: 0 };
            rounds(&mut program, at_once, 12, pool);
            let calls = program.truth.len();
            assert_eq!(program.judge(), (calls, 0, 0), "{at_once} at once, {results}, {buffered}");
            assert_eq!(by_goroutine(&program), calls);
        }
    }
}

#[test]
fn jobs_without_a_call() {
    let mut program = Program::new();
    rounds(&mut program, 64, 20, Pool { workers: 16, results: true, buffered: false, cached: 4 });
    let calls = program.truth.len();
    assert_eq!(program.judge(), (calls, 0, 0), "results tell that they are done");
    let mut program = Program::new();
    rounds(&mut program, 64, 20, Pool { workers: 16, results: false, buffered: false, cached: 4 });
    let (_, wrong, _) = program.judge();
    assert_eq!(wrong, 0, "without results some stay open");
}

#[test]
fn who_collects_calls_for_nobody() {
    let mut program = Program::new();
    let mut servers = conns(&mut program, 8);
    let collector = program.go(MAIN, COLLECTOR);
    let mut number = 0;
    for _ in 0..40 {
        let open = read(&mut program, &mut servers);
        for (_, handler) in &open {
            program.gives(*handler, collector, JOBS, 0);
        }
        number += 1;
        let call = program.call(collector, &client_line(number), 0, None);
        program.wait(100 * US);
        program.answer(call, collector);
        for (key, handler) in open {
            program.gives(collector, handler, RESULTS, 0);
            program.respond(key, handler);
        }
        program.wait(MS);
    }
    program.judge();
    assert_eq!(by_goroutine(&program), 0);
}

#[test]
fn who_takes_more_before_it_is_done_is_found_out() {
    let mut program = Program::new();
    let mut servers = conns(&mut program, 8);
    let worker = program.go(MAIN, COLLECTOR);
    let mut number = 0;
    for _ in 0..60 {
        let open = read(&mut program, &mut servers);
        // Always one job ahead of the one that it works on, and nobody says what is done.
        let mut ahead: VecDeque<u64> = VecDeque::new();
        for (key, handler) in &open {
            program.gives(*handler, worker, JOBS, 0);
            ahead.push_back(*key);
            if ahead.len() > 1 {
                number += 1;
                let call = program.call(worker, &client_line(number), 0, ahead.pop_front());
                program.wait(20 * US);
                program.answer(call, worker);
            }
        }
        for (key, handler) in open {
            program.respond(key, handler);
        }
        program.wait(MS);
    }
    let (_, wrong, _) = program.judge();
    let calls = program.truth.len();
    assert!(by_goroutine(&program) * 20 < calls, "{} of {calls}", by_goroutine(&program));
    assert!(wrong * 20 < calls, "{wrong} of {calls}");
}

#[test]
fn a_job_of_a_request_that_is_over() {
    let mut program = Program::new();
    let mut servers = conns(&mut program, 4);
    let worker = program.go(MAIN, WORKER);
    let mut number = 0;
    for _ in 0..30 {
        let left = program.feed.now;
        for (key, handler) in read(&mut program, &mut servers) {
            program.respond(key, handler);
        }
        program.wait(MS);
        // The next requests are under way when the work that was left behind is taken.
        let open = read(&mut program, &mut servers);
        for (_, handler) in &open {
            let age = program.feed.now - left - 30 * US;
            program.gives(*handler, worker, JOBS, age);
            number += 1;
            let call = program.call(worker, &client_line(number), 0, None);
            program.answer(call, worker);
        }
        for (key, handler) in open {
            program.respond(key, handler);
        }
    }
    program.judge();
    assert_eq!(by_goroutine(&program), 0);
}

#[test]
fn what_else_comes_over_channels() {
    let mut program = Program::new();
    let mut servers = conns(&mut program, 8);
    let pool = workers(&mut program, 8, WORKER);
    let ticker = program.go(MAIN, TICKER);
    let mut number = 0;
    let mut clouded = 0;
    for round in 0..40 {
        let open = read(&mut program, &mut servers);
        for (at, (key, handler)) in open.iter().enumerate() {
            let worker = pool[at];
            program.gives(*handler, worker, JOBS, 0);
            // A tick is of nobody, what a goroutine of its own found out is its own; a connection that another request gave
            // back may be work.
            program.gives(ticker, worker, CONNECTIONS, 0);
            let helper = program.go(worker, WORKER + 1);
            program.gives(helper, worker, CONNECTIONS, 0);
            if (round + at) % 10 == 0 {
                let other = open[(at + 1) % open.len()].1;
                program.gives(other, worker, CONNECTIONS, 0);
                clouded += 1;
            }
            number += 1;
            let call = program.call(worker, &client_line(number), 0, Some(*key));
            program.wait(10 * US);
            program.answer(call, worker);
        }
        for (at, (key, handler)) in open.into_iter().enumerate() {
            program.gives(pool[at], handler, RESULTS, 0);
            program.respond(key, handler);
        }
        program.wait(MS);
    }
    let (_, wrong, _) = program.judge();
    assert_eq!(wrong, 0);
    // After the first ones it is known that connections are no work.
    let silent = program.truth.len() - by_goroutine(&program);
    assert!(silent <= 4 && clouded > 30, "{silent} of {clouded}");
}

#[test]
fn over_a_dispatcher() {
    let mut program = Program::new();
    let mut servers = conns(&mut program, 16);
    let pool = workers(&mut program, 16, WORKER);
    let dispatcher = program.go(MAIN, COLLECTOR);
    let mut number = 0;
    for _ in 0..20 {
        let open = read(&mut program, &mut servers);
        let mut calls = Vec::new();
        for (at, (key, handler)) in open.iter().enumerate() {
            program.gives(*handler, dispatcher, JOBS, 0);
            program.gives(dispatcher, pool[at], JOBS, 0);
            number += 1;
            calls.push((program.call(pool[at], &client_line(number), 0, Some(*key)), at));
        }
        for (call, at) in calls.into_iter().rev() {
            program.answer(call, pool[at]);
            let (key, handler) = open[at];
            program.gives(pool[at], handler, RESULTS, 0);
            program.respond(key, handler);
        }
        program.wait(MS);
    }
    let calls = program.truth.len();
    assert_eq!(program.judge(), (calls, 0, 0));
}

#[test]
fn a_dispatcher_that_keeps_a_list() {
    let mut program = Program::new();
    let mut servers = conns(&mut program, 16);
    let pool = workers(&mut program, 16, WORKER);
    let dispatcher = program.go(MAIN, COLLECTOR);
    let mut number = 0;
    for _ in 0..20 {
        let open = read(&mut program, &mut servers);
        let mut list: VecDeque<usize> = VecDeque::new();
        let mut calls = Vec::new();
        for at in 0..open.len() + 2 {
            if let Some((_, handler)) = open.get(at) {
                program.gives(*handler, dispatcher, JOBS, 0);
                list.push_back(at);
            }
            // Two behind.
            if at >= 2 {
                let job = list.pop_front().unwrap();
                program.gives(dispatcher, pool[job], JOBS, 0);
                number += 1;
                calls.push((program.call(pool[job], &client_line(number), 0, Some(open[job].0)), job));
            }
        }
        for (call, job) in calls {
            program.wait(10 * US);
            program.answer(call, pool[job]);
            let (key, handler) = open[job];
            program.gives(pool[job], handler, RESULTS, 0);
            program.respond(key, handler);
        }
        program.wait(MS);
    }
    let (_, wrong, _) = program.judge();
    assert_eq!((wrong, by_goroutine(&program)), (0, 0));
}

/// What the correlator asks for.
fn wishes(program: &mut Program) -> Vec<(u32, bool)> {
    let mut wishes = Vec::new();
    program.feed.correlator.hand_overs_wished(&mut |tgid, told| wishes.push((tgid, told)));
    wishes
}

#[test]
fn asked_for_where_workers_are_not_explained_and_given_up_where_of_no_use() {
    let mut program = Program::new();
    let mut servers = conns(&mut program, 16);
    // Handlers that call themselves need none of it.
    let mut number = 0;
    let mut round = |program: &mut Program, pool: &[u64]| {
        let open = read(program, &mut servers);
        let mut calls = Vec::new();
        for (at, (key, handler)) in open.iter().enumerate() {
            let caller = pool.get(at).copied().unwrap_or(*handler);
            number += 1;
            calls.push((program.call(caller, &client_line(number), 0, Some(*key)), caller));
        }
        program.wait(MS);
        while !calls.is_empty() {
            let at = usize::try_from(program.rng.below(calls.len() as u64)).unwrap();
            let (call, caller) = calls.swap_remove(at);
            program.answer(call, caller);
        }
        for (key, handler) in open {
            program.respond(key, handler);
        }
        program.wait(20 * MS);
    };
    for _ in 0..20 {
        round(&mut program, &[]);
    }
    assert_eq!(wishes(&mut program), []);
    let pool = workers(&mut program, 16, WORKER);
    for _ in 0..20 {
        round(&mut program, &pool);
    }
    assert_eq!(wishes(&mut program), [(TGID, true)], "once");
    let ticker = program.go(MAIN, TICKER);
    for _ in 0..16_384 {
        program.gives(ticker, pool[0], CONNECTIONS, 0);
    }
    assert_eq!(wishes(&mut program), [(TGID, false)]);
    for _ in 0..20 {
        round(&mut program, &pool);
    }
    assert_eq!(wishes(&mut program), [], "not again");
}
