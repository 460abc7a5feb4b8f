//! Less effort: connections rest and go on, other protocols are given up sooner, only heads are shipped.

use spanwise::session::{CLASSES, Effort, Outcome, TURN_NS};
use spanwise_common::conn::verdict;
use spanwise_common::event::Direction;

use crate::stage::{Bench, CLOSED, GET, MS, OK, pair};

const ALL: Effort =
    Effort { heads_only: false, impatient: false, resting: CLASSES, at_once: false, no_new_processes: false };

#[test]
fn a_connection_rests_between_exchanges_and_goes_on_with_nothing_guessed() {
    let (mut client, mut server) = pair();
    let mut bench = Bench::with(&[&client, &server]);
    for _ in 0..2 {
        bench.send(&mut client, GET);
        bench.recv(&mut server, GET);
        bench.send(&mut server, OK);
        bench.recv(&mut client, OK);
    }
    bench.send(&mut client, GET);
    bench.recv(&mut server, GET);
    bench.govern(ALL);
    bench.send(&mut server, OK);
    bench.recv(&mut client, OK);
    assert_eq!(bench.outcomes(), [Outcome::Complete; 6], "what is under way has time to end");
    bench.send(&mut client, GET);
    bench.recv(&mut server, GET);
    assert_eq!((bench.counted("connection rests"), bench.counted("rests of connections")), (2, 2));
    assert_eq!(bench.ignored(), [client.cookie, server.cookie]);
    assert_eq!(bench.counted("under way"), 0);
    bench.govern(Effort::default());
    let last: Vec<_> = bench.verdicts.iter().rev().take(2).map(|(_, said)| said.verdict).collect();
    assert_eq!(last, [u32::from(verdict::HTTP1); 2], "the kernel side ships again");
    // The answer to the request that was not read.
    bench.send(&mut server, OK);
    bench.recv(&mut client, OK);
    assert_eq!(bench.exchanges.len(), 6, "nobody can tell what this answers");
    bench.send(&mut client, GET);
    bench.recv(&mut server, GET);
    bench.send(&mut server, OK);
    bench.recv(&mut client, OK);
    assert_eq!(bench.outcomes(), [Outcome::Complete; 8]);
    assert_eq!(bench.exchanges[6].message, bench.exchanges[7].message);
    bench.state(&client, CLOSED);
    assert_eq!(bench.forgotten, [client.cookie]);
}

#[test]
fn an_exchange_that_takes_too_long_ends_with_a_gap_at_its_last_byte() {
    let (_, mut server) = pair();
    let mut bench = Bench::with(&[&server]);
    bench.recv(&mut server, GET);
    bench.send(&mut server, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    let last = bench.now;
    bench.govern(ALL);
    bench.wait(990);
    assert!(bench.exchanges.is_empty());
    bench.wait(20);
    bench.send(&mut server, "body");
    assert_eq!((bench.only().outcome, bench.only().ended_ns), (Outcome::Gap, last));
    assert_eq!(bench.only().response.as_ref().unwrap().status, 200);
    bench.govern(Effort::default());
    bench.send(&mut server, &"x".repeat(996));
    bench.recv(&mut server, GET);
    bench.send(&mut server, OK);
    assert_eq!(bench.outcomes(), [Outcome::Gap, Outcome::Complete]);
}

#[test]
fn short_memory_lets_go_of_what_is_under_way_at_once() {
    let (_, mut server) = pair();
    let mut bench = Bench::with(&[&server]);
    bench.recv(&mut server, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let last = bench.now;
    bench.wait(500);
    bench.govern(Effort { at_once: true, ..ALL });
    assert_eq!((bench.only().outcome, bench.only().ended_ns), (Outcome::Gap, last));
}

#[test]
fn a_connection_for_one_exchange_is_not_worth_a_verdict() {
    let (_, mut server) = pair();
    let mut bench = Bench::with(&[]);
    bench.govern(ALL);
    bench.open(&server);
    bench.recv(&mut server, GET);
    assert!(bench.verdicts.is_empty());
    bench.send(&mut server, OK);
    assert_eq!(bench.ignored(), [server.cookie], "it goes on");
    assert_eq!(bench.counted("connection rests"), 2);
    bench.state(&server, CLOSED);
    assert_eq!((bench.exchanges.len(), bench.forgotten.len()), (0, 1));
}

#[test]
fn who_rests_changes_with_time_and_both_ends_do_as_one() {
    let half = Effort { resting: CLASSES / 2, ..Effort::default() };
    let (mut client, mut server) = pair();
    let mut bench = Bench::with(&[&client, &server]);
    bench.govern(half);
    let (mut seen, mut turns) = (0, [0, 0]);
    for _ in 0..40 {
        bench.wait(TURN_NS / MS);
        bench.send(&mut client, GET);
        bench.recv(&mut server, GET);
        bench.send(&mut server, OK);
        bench.recv(&mut client, OK);
        let new = bench.exchanges.len() - seen;
        assert!(new == 0 || new == 2, "one end rests and the other does not");
        turns[new / 2] += 1;
        seen = bench.exchanges.len();
    }
    assert!(turns[0] >= 8 && turns[1] >= 8, "{turns:?}");
    assert!(bench.outcomes().iter().all(|outcome| *outcome == Outcome::Complete));
}

#[test]
fn other_protocols_are_given_up_sooner() {
    let rounds_until_ignored = |effort| {
        let (_, mut server) = pair();
        let mut bench = Bench::with(&[&server]);
        bench.govern(effort);
        (1..100)
            .find(|_| {
                bench.recv(&mut server, "get key\r\n");
                bench.send(&mut server, "END\r\n");
                !bench.ignored().is_empty()
            })
            .unwrap()
    };
    let impatient = Effort { impatient: true, ..Effort::default() };
    assert_eq!((rounds_until_ignored(Effort::default()), rounds_until_ignored(impatient)), (8, 2));
}

#[test]
fn budgets_follow_the_effort_both_ways() {
    let (_, mut server) = pair();
    let mut bench = Bench::with(&[&server]);
    let mut exchange = |bench: &mut Bench| {
        bench.recv(&mut server, GET);
        bench.send(&mut server, OK);
    };
    for _ in 0..4 {
        exchange(&mut bench);
    }
    bench.govern(Effort { heads_only: true, ..Effort::default() });
    exchange(&mut bench);
    bench.govern(Effort::default());
    exchange(&mut bench);
    let budgets: Vec<_> = bench.verdicts.iter().map(|(_, v)| (v.budget_recv, v.budget_send)).collect();
    assert_eq!(budgets, [(4096, 1024), (2048, 512), (4096, 1024)]);
}

#[test]
fn exchanges_under_way_are_bounded() {
    let mut bench = Bench::default();
    let many = GET.repeat(64);
    let mut most = 0;
    for cookie in 0..80 {
        let (_, mut server) = pair();
        server.cookie = 1_000 + cookie;
        bench.open(&server);
        for _ in 0..16 {
            bench.moves(&mut server, Direction::RECV, &many);
        }
        most = most.max(bench.counted("under way"));
    }
    assert_eq!(most, 65_536);
    // The first record of each of the sixteen connections above the bound; behind it nothing begins a burst.
    assert_eq!(bench.counted("exchanges given up, too many under way"), 16 * 64);
    bench.finish();
}
