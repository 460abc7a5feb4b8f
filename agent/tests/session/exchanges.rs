//! Exchanges that go well, and connections that are joined late.

use spanwise::conn::{MessageName, Side};
use spanwise::session::{Edge, Outcome};
use spanwise_common::conn::{transport, verdict};
use spanwise_common::event::Direction;
use spanwise_common::limits::{BUDGET_LONG_HEAD, BUDGET_REQUEST, BUDGET_RESPONSE};

use crate::stage::{Bench, CLOSED, GET, MS, OK, TGID, pair};

#[test]
fn both_ends_of_an_exchange() {
    let (mut client, mut server) = pair();
    let mut bench = Bench::with(&[&client, &server]);
    bench.send(&mut client, GET);
    bench.recv(&mut server, GET);
    bench.send(&mut server, OK);
    bench.recv(&mut client, OK);

    let began = "client began asked server began";
    // The last byte comes with the first: one edge.
    assert_eq!(bench.edges().join(" "), format!("{began} whole answer whole answer"));
    let [served, called] = &bench.exchanges[..] else { panic!("not two: {:?}", bench.exchanges) };
    assert_eq!((served.side, called.side), (Side::Server, Side::Client));
    for exchange in [served, called] {
        assert_eq!(exchange.outcome, Outcome::Complete);
        assert_eq!(&*exchange.request.method, "GET");
        assert_eq!(&*exchange.request.path, "/a");
        assert_eq!(exchange.response.as_ref().unwrap().status, 200);
        assert_eq!((exchange.request_body, exchange.response_body), (0, 2));
        assert_eq!((exchange.task.tgid, exchange.task.tid), (TGID, TGID + 1));
    }
    assert_eq!((called.began_ns, called.answered_ns, called.ended_ns), (11 * MS, 14 * MS, 14 * MS));
    assert_eq!((served.began_ns, served.answered_ns, served.ended_ns), (12 * MS, 13 * MS, 13 * MS));
    let name = MessageName { request_base: 1_000, response_base: u32::MAX - 20, position: 0 };
    assert_eq!((served.message, called.message), (Some(name), Some(name)));
    assert!(bench.verdicts.is_empty(), "a connection that lives for one exchange is not worth a verdict");
}

#[test]
fn a_route_goes_with_the_answer_at_its_position_and_no_other() {
    let (_, mut server) = pair();
    let mut bench = Bench::with(&[&server]);
    // Both requests come before the first answer; its end, and what the handler reads meanwhile, change nothing.
    bench.recv(&mut server, &GET.repeat(2));
    bench.routes(&server, "/first/{id}");
    bench.moves_more(&mut server, Direction::SEND, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab", 0, "");
    bench.send(&mut server, "cdef");
    bench.routes(&server, "/second/{id}");
    bench.send(&mut server, OK);
    // The record of the answer is lost: its pattern is not the next one's.
    bench.recv(&mut server, GET);
    bench.routes(&server, "/lost/{id}");
    bench.lose(&mut server, Direction::SEND, OK.len() as u32);
    bench.recv(&mut server, GET);
    bench.send(&mut server, OK);
    bench.finish();
    let routes: Vec<_> = bench.exchanges.iter().map(|exchange| exchange.route.as_deref()).collect();
    assert_eq!(routes[..2], [Some("/first/{id}"), Some("/second/{id}")]);
    assert!(routes[2..].iter().all(Option::is_none), "{routes:?}");
}

#[test]
fn later_messages_have_names_of_their_own_at_both_ends() {
    let (mut client, mut server) = pair();
    let mut bench = Bench::with(&[&client, &server]);
    for _ in 0..3 {
        bench.send(&mut client, GET);
        bench.recv(&mut server, GET);
        bench.send(&mut server, OK);
        bench.recv(&mut client, OK);
    }
    let names = |side| {
        let of_side = bench.exchanges.iter().filter(move |exchange| exchange.side == side);
        of_side.map(|exchange| exchange.message.unwrap()).collect::<Vec<_>>()
    };
    let (served, called) = (names(Side::Server), names(Side::Client));
    assert_eq!(served, called);
    let positions: Vec<u32> = called.iter().map(|name| name.position).collect();
    let length = GET.len() as u32;
    assert_eq!(positions, [0, length, 2 * length]);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_, mut server) = pair();
    let mut bench = Bench::with(&[&server]);
    let second = GET.replace("/a", "/b");
    bench.recv(&mut server, &format!("{GET}{second}"));
    assert_eq!(bench.counted("under way"), 2);
    bench.send(&mut server, &format!("{OK}{}", OK.replace("200 OK", "404 No")));
    assert_eq!(bench.outcomes(), [Outcome::Complete, Outcome::Complete]);
    let seen: Vec<_> = bench
        .exchanges
        .iter()
        .map(|exchange| (&*exchange.request.path, exchange.response.as_ref().unwrap().status))
        .collect();
    assert_eq!(seen, [("/a", 200), ("/b", 404)]);
    assert!(bench.exchanges[0].key < bench.exchanges[1].key);
    assert_eq!(bench.exchanges[1].message.unwrap().position, GET.len() as u32);
}

#[test]
fn a_long_answer_gives_an_edge_for_each_transfer() {
    let (_, mut server) = pair();
    let mut bench = Bench::with(&[&server]);
    bench.recv(&mut server, GET);
    bench.send(&mut server, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
    bench.send(&mut server, "01234");
    bench.send(&mut server, "56789");
    assert_eq!(bench.edges(), ["server began", "first of answer", "more of answer", "last of answer"]);
    let exchange = bench.only();
    assert_eq!((exchange.answered_ns, exchange.ended_ns), (12 * MS, 14 * MS));
    assert_eq!(exchange.response_body, 10);
}

#[test]
fn context_is_told_as_soon_as_the_head_is_complete() {
    let (_, mut server) = pair();
    let mut bench = Bench::with(&[&server]);
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    bench.recv(&mut server, "GET / HTTP/1.1\r\nHost: shop\r\n");
    bench.recv(&mut server, &format!("traceparent: 00-{id}-00f067aa0ba902b7-01\r\n\r\n"));
    assert_eq!(bench.edges(), ["server began", "context"]);
    assert!(
        matches!(&bench.signals[1].edge, Edge::Context(context) if context.trace_id == 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes())
    );
}

#[test]
fn the_first_byte_alone() {
    let (mut client, _) = pair();
    let mut bench = Bench::with(&[&client]);
    let (first, rest) = GET.split_at(1);
    bench.send(&mut client, first);
    assert_eq!((bench.counted("protocol not known yet"), bench.counted("parsed")), (1, 0));
    assert!(bench.signals.is_empty());
    bench.send(&mut client, rest);
    assert_eq!((bench.counted("protocol not known yet"), bench.counted("parsed")), (0, 2));
    bench.recv(&mut client, OK);
    let exchange = bench.only();
    assert_eq!(exchange.began_ns, 11 * MS, "it began with its first byte");
    assert_eq!(exchange.message.unwrap().position, 0);
    assert_eq!(&*exchange.request.path, "/a");
}

#[test]
fn every_byte_alone() {
    let (mut client, _) = pair();
    let mut bench = Bench::with(&[&client]);
    for at in 0..GET.len() {
        bench.send(&mut client, &GET[at..=at]);
    }
    assert_eq!(bench.counted("parsed"), GET.len() as u64);
    for at in 0..OK.len() {
        bench.recv(&mut client, &OK[at..=at]);
    }
    let exchange = bench.only();
    assert_eq!((exchange.outcome, exchange.response_body), (Outcome::Complete, 2));
    assert_eq!(exchange.began_ns, 11 * MS);
}

#[test]
fn joined_in_the_middle_of_a_body() {
    let (mut client, _) = pair();
    let mut bench = Bench::with(&[&client]);
    // The end of a response whose request was before our time, then an exchange that is seen whole.
    bench.recv(&mut client, "...the rest of a page");
    bench.send(&mut client, GET);
    bench.recv(&mut client, OK);
    assert_eq!(bench.only().outcome, Outcome::Complete);
    assert_eq!(bench.counted("protocol not known yet"), 1);
}

#[test]
fn joined_before_the_answer() {
    let (mut client, _) = pair();
    let mut bench = Bench::with(&[&client]);
    // Its request was before our time: nobody's answer.
    bench.recv(&mut client, OK);
    assert_eq!(bench.counted("messages half seen"), 1);
    bench.send(&mut client, GET);
    bench.recv(&mut client, OK);
    assert_eq!(bench.only().outcome, Outcome::Complete);
    assert_eq!(bench.counted("messages half seen"), 1);
}

#[test]
fn a_connection_whose_opening_was_lost_is_looked_up() {
    let (mut client, mut server) = pair();
    let mut bench = Bench::default();
    bench.send(&mut client, GET);
    assert_eq!((bench.counted("connection not known"), bench.signals.len()), (1, 0));
    bench.known.connection = Some(server.info);
    bench.recv(&mut server, GET);
    bench.send(&mut server, OK);
    assert_eq!(bench.only().message.unwrap().request_base, 1_000);
}

#[test]
fn settled_connections_get_their_budgets_once() {
    let (mut client, mut server) = pair();
    let mut bench = Bench::with(&[&client, &server]);
    for _ in 0..4 {
        bench.send(&mut client, GET);
        bench.recv(&mut client, OK);
        bench.recv(&mut server, GET);
        bench.send(&mut server, OK);
    }
    let said: Vec<_> =
        bench.verdicts.iter().map(|(cookie, v)| (*cookie, v.verdict, v.budget_send, v.budget_recv)).collect();
    let http = u32::from(verdict::HTTP1);
    // The client writes requests, the server reads them.
    assert_eq!(
        said,
        [(1, http, BUDGET_REQUEST, BUDGET_RESPONSE), (2, http, BUDGET_RESPONSE, BUDGET_REQUEST)]
    );
    bench.state(&client, CLOSED);
    assert_eq!(bench.forgotten, [1]);
}

#[test]
fn a_head_longer_than_its_budget_gets_more() {
    let (_, mut server) = pair();
    let mut bench = Bench::with(&[&server]);
    let start = format!("GET /a HTTP/1.1\r\nHost: shop\r\nCookie: {}", "x".repeat(4_000));
    bench.moves_more(&mut server, Direction::RECV, &start, 2_000, "xx\r\n\r\n");
    bench.send(&mut server, OK);
    let exchange = bench.only();
    assert_eq!((exchange.outcome, exchange.request.truncated), (Outcome::Complete, true));
    let budgets: Vec<_> = bench.verdicts.iter().map(|(_, v)| (v.budget_send, v.budget_recv)).collect();
    assert_eq!(budgets, [(BUDGET_RESPONSE, BUDGET_LONG_HEAD)]);
}

#[test]
fn a_pair_of_sockets_that_only_wakes_is_given_up() {
    for byte in ["\0", "1"] {
        let (_, mut end) = pair();
        end.info.transport = transport::UNIX;
        let mut bench = Bench::with(&[&end]);
        for _ in 0..2_000 {
            bench.recv(&mut end, byte);
        }
        assert_eq!(bench.ignored(), [end.cookie], "{byte:?}");
        // Over TCP it may be a body that began before anything was seen.
        let (_, mut end) = pair();
        let mut bench = Bench::with(&[&end]);
        for _ in 0..2_000 {
            bench.recv(&mut end, byte);
        }
        assert!(bench.ignored().is_empty(), "{byte:?}");
    }
}
