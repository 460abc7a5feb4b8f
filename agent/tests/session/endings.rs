//! Exchanges that end otherwise than with the last byte that was announced, and connections that carry something else.

use spanwise::session::Outcome;
use spanwise_common::conn::transport;
use spanwise_common::event::Direction;

use crate::stage::{Bench, CLOSED, FIN_WAIT1, GET, MS, OK, TGID, pair, unix_pair};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const TO_THE_END: &str = "HTTP/1.0 200 OK\r\n\r\n";

#[test]
fn silence_ends_an_answer_whose_end_cannot_be_seen() {
    let (_, mut server) = pair();
    let mut bench = Bench::with(&[&server]);
    bench.recv(&mut server, GET);
    // The sizes of the chunks behind the first one are not shipped; the last transfer ends in an empty line.
    bench.moves_more(&mut server, Direction::SEND, &format!("{CHUNKED}5\r\nx"), 3_000, "xxxxxxxx");
    bench.wait(200);
    assert!(bench.exchanges.is_empty(), "it did not end as chunks do");
    bench.moves_more(&mut server, Direction::SEND, "", 3_000, "xx\r\n\r\n");
    let last = bench.now;
    bench.wait(79);
    assert!(bench.exchanges.is_empty(), "it may go on");
    bench.wait(2);
    let exchange = bench.only();
    assert_eq!((exchange.outcome, exchange.ended_ns), (Outcome::Complete, last));
    assert_eq!(bench.edges().last(), Some(&"last of answer"));
    assert_eq!(bench.signals.last().unwrap().at_ns, last, "it ended when it fell silent");
}

#[test]
fn silence_does_not_end_an_answer_with_a_length() {
    let (_, mut server) = pair();
    let mut bench = Bench::with(&[&server]);
    bench.recv(&mut server, GET);
    bench.send(&mut server, &OK[..OK.len() - 1]);
    bench.wait(10_000);
    assert_eq!(bench.counted("under way"), 1);
    bench.send(&mut server, "i");
    assert_eq!(bench.only().outcome, Outcome::Complete);
}

#[test]
fn the_end_of_the_stream_ends_an_answer_without_a_length() {
    let (mut client, mut server) = pair();
    let mut bench = Bench::with(&[&client, &server]);
    bench.send(&mut client, GET);
    bench.recv(&mut server, GET);
    bench.send(&mut server, TO_THE_END);
    bench.send(&mut server, "a page");
    bench.recv(&mut client, &format!("{TO_THE_END}a page"));
    assert!(bench.exchanges.is_empty());
    bench.state(&server, FIN_WAIT1);
    bench.end_of_stream(&client);
    assert_eq!(bench.outcomes(), [Outcome::Complete, Outcome::Complete]);
    assert!(bench.exchanges.iter().all(|exchange| exchange.response_body == 6));
    bench.state(&server, CLOSED);
    bench.state(&client, CLOSED);
    assert_eq!(bench.exchanges.len(), 2);
}

#[test]
fn a_connection_that_closes_first_aborts() {
    let (mut client, mut server) = pair();
    let mut bench = Bench::with(&[&client, &server]);
    // One is not answered at all, of the other one half the answer comes.
    bench.send(&mut client, GET);
    bench.recv(&mut server, GET);
    bench.send(&mut server, &OK[..OK.len() - 1]);
    bench.state(&client, CLOSED);
    bench.state(&server, CLOSED);
    assert_eq!(bench.outcomes(), [Outcome::Aborted], "the answer may still be read");
    bench.wait(1_000);
    assert_eq!(bench.outcomes(), [Outcome::Aborted, Outcome::Aborted]);
    let [served, called] = &bench.exchanges[..] else { panic!("not two") };
    assert!(called.response.is_none() && called.answered_ns == 0);
    assert_eq!((served.response.as_ref().unwrap().status, served.response_body), (200, 1));
    assert_eq!((called.ended_ns, served.ended_ns), (14 * MS, 15 * MS));
}

#[test]
fn a_client_that_closes_its_half_still_gets_its_answer() {
    let (mut client, mut server) = pair();
    let mut bench = Bench::with(&[&client, &server]);
    bench.send(&mut client, GET);
    bench.state(&client, FIN_WAIT1);
    bench.recv(&mut server, GET);
    bench.end_of_stream(&server);
    assert!(bench.exchanges.is_empty());
    bench.send(&mut server, OK);
    bench.recv(&mut client, OK);
    assert_eq!(bench.outcomes(), [Outcome::Complete, Outcome::Complete]);
}

#[test]
fn a_client_that_gives_up_ends_its_call() {
    let (mut client, mut server) = pair();
    let mut bench = Bench::with(&[&client, &server]);
    bench.send(&mut client, GET);
    bench.recv(&mut server, GET);
    bench.wait(50);
    bench.gives_up(&client);
    let given_up = bench.now;
    bench.wait(100);
    assert_eq!((bench.only().outcome, bench.only().ended_ns), (Outcome::Aborted, given_up));
    // The server does not know yet.
    bench.end_of_stream(&server);
    bench.send(&mut server, OK);
    assert_eq!(bench.outcomes(), [Outcome::Aborted, Outcome::Complete]);
    bench.state(&client, CLOSED);
    assert_eq!(bench.exchanges.len(), 2);
}

#[test]
fn the_end_that_reads_the_end_of_a_unix_stream_tells_of_the_other() {
    let (mut client, mut server) = unix_pair();
    let mut bench = Bench::with(&[&client, &server]);
    bench.send(&mut client, GET);
    bench.recv(&mut server, GET);
    bench.wait(100);
    // The server closes without an answer.
    bench.end_of_stream(&client);
    let now = bench.now;
    assert_eq!(bench.outcomes(), [Outcome::Aborted, Outcome::Aborted]);
    assert!(bench.exchanges.iter().all(|exchange| exchange.ended_ns == now));
}

#[test]
fn the_end_of_a_unix_stream_ends_an_answer_without_a_length() {
    let (mut client, mut server) = unix_pair();
    let mut bench = Bench::with(&[&client, &server]);
    bench.send(&mut client, GET);
    bench.recv(&mut server, GET);
    bench.send(&mut server, TO_THE_END);
    bench.recv(&mut client, TO_THE_END);
    bench.end_of_stream(&client);
    assert_eq!(bench.outcomes(), [Outcome::Complete, Outcome::Complete]);
}

#[test]
fn a_unix_client_that_sends_no_more_still_gets_its_answer() {
    let (mut client, mut server) = unix_pair();
    let mut bench = Bench::with(&[&client, &server]);
    bench.send(&mut client, GET);
    bench.recv(&mut server, GET);
    bench.end_of_stream(&server);
    bench.send(&mut server, OK);
    bench.recv(&mut client, OK);
    assert_eq!(bench.outcomes(), [Outcome::Complete, Outcome::Complete]);
}

#[test]
fn the_end_of_a_unix_stream_is_not_told_to_who_has_the_sockets_address_now() {
    let (mut client, mut server) = unix_pair();
    server.info.peer_sock = 99;
    let mut bench = Bench::with(&[&client, &server]);
    bench.send(&mut client, GET);
    bench.recv(&mut server, GET);
    bench.end_of_stream(&client);
    assert_eq!(bench.outcomes(), [Outcome::Aborted]);
}

#[test]
fn a_unix_socket_that_its_process_closed_is_found_by_looking() {
    let (_, mut server) = unix_pair();
    let mut bench = Bench::with(&[&server]);
    bench.known.connection = Some(server.info);
    bench.recv(&mut server, GET);
    let last = bench.now;
    bench.wait(30_000);
    assert!(bench.exchanges.is_empty(), "it is held, and the handler is slow");
    bench.known.closed = vec![u64::from(server.info.inode)];
    bench.wait(1_900);
    assert!(bench.exchanges.is_empty(), "it was looked at just now");
    bench.wait(200);
    assert_eq!((bench.only().outcome, bench.only().ended_ns), (Outcome::Unfinished, last));
    assert_eq!(bench.forgotten, [server.cookie]);
}

#[test]
fn what_came_before_a_connection_closed_may_be_read_afterwards() {
    for fin in [0, 1] {
        let (mut client, _) = pair();
        let mut bench = Bench::with(&[&client]);
        bench.send(&mut client, GET);
        bench.state(&client, FIN_WAIT1);
        bench.recv(&mut client, &OK[..OK.len() - 1]);
        bench.state(&client, CLOSED);
        bench.wait(500);
        // The kernel counts the FIN where a read reaches the end.
        bench.lose(&mut client, Direction::RECV, fin);
        bench.recv(&mut client, &OK[OK.len() - 1..]);
        assert_eq!(bench.only().outcome, Outcome::Complete);
        bench.wait(50);
        assert_eq!(bench.forgotten, [1]);
    }
}

#[test]
fn a_process_that_ends_after_its_connection_closed() {
    let (mut client, _) = pair();
    let mut bench = Bench::with(&[&client]);
    bench.send(&mut client, GET);
    bench.state(&client, CLOSED);
    let closed = bench.now;
    bench.wait(100);
    bench.exit(TGID);
    assert_eq!((bench.only().outcome, bench.only().ended_ns), (Outcome::Aborted, closed));
}

#[test]
fn another_protocol_after_an_upgrade_is_ignored() {
    let (mut client, _) = pair();
    let mut bench = Bench::with(&[&client]);
    bench.send(
        &mut client,
        "GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    bench.recv(
        &mut client,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(bench.only().outcome, Outcome::Upgraded);
    assert_eq!(bench.ignored(), [1]);
    for _ in 0..40 {
        bench.send(&mut client, GET);
    }
    assert_eq!(bench.counted("other protocol"), 40);
    assert_eq!((bench.ignored().len(), bench.exchanges.len()), (1, 1), "it is said once");
    bench.state(&client, CLOSED);
    assert_eq!(bench.forgotten, [1]);
}

#[test]
fn frames_in_the_place_of_an_answer_are_no_gap() {
    // As a server of HTTP/2 alone answers a client that asks it to upgrade: with its settings.
    const FRAMES: &str = "\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\x01";
    let ask = GET.replace(
        "\r\n\r\n",
        "\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    );
    let (mut client, mut server) = pair();
    let mut bench = Bench::with(&[&client, &server]);
    bench.send(&mut client, &ask);
    bench.recv(&mut server, &ask);
    bench.send(&mut server, FRAMES);
    bench.recv(&mut client, FRAMES);
    assert_eq!(bench.outcomes(), [Outcome::Foreign, Outcome::Foreign]);
    assert!(bench.exchanges.iter().all(|exchange| exchange.response.is_none()));
    // Of a later request it may be the rest of an answer that was not seen.
    let (mut client, _) = pair();
    bench = Bench::with(&[&client]);
    bench.lose(&mut client, Direction::SEND, 300);
    bench.lose(&mut client, Direction::RECV, 100);
    bench.send(&mut client, GET);
    bench.recv(&mut client, FRAMES);
    assert_eq!(bench.outcomes(), [Outcome::Gap]);
}

#[test]
fn what_is_never_http_is_ignored_after_sixteen_bursts() {
    let (mut client, _) = pair();
    let mut bench = Bench::with(&[&client]);
    for burst in 0..16 {
        assert!(bench.ignored().is_empty(), "given up after {burst}");
        let direction = if burst % 2 == 0 { Direction::SEND } else { Direction::RECV };
        bench.moves(&mut client, direction, "\x16\x03\x01\x02");
        // The rest of a burst says nothing about what it is.
        if burst < 15 {
            bench.moves(&mut client, direction, GET);
        }
    }
    assert_eq!(bench.ignored(), [1]);
    assert_eq!(bench.counted("connections ignored"), 1);
    bench.recv(&mut client, GET);
    assert_eq!((bench.counted("protocol not known yet"), bench.counted("other protocol")), (30, 2));
    assert!(bench.signals.is_empty());
}

#[test]
fn a_process_that_ends_aborts_what_it_had_under_way() {
    for state in [FIN_WAIT1, CLOSED] {
        let (mut client, mut server) = pair();
        server.tgid = TGID + 50;
        let mut bench = Bench::with(&[&client, &server]);
        bench.send(&mut client, GET);
        bench.recv(&mut server, GET);
        bench.wait(300);
        bench.exit(TGID + 50);
        assert!(bench.exchanges.is_empty(), "the close of its connection tells how it ended");
        bench.state(&server, state);
        let now = bench.now;
        let exchange = bench.only();
        assert_eq!((exchange.outcome, exchange.ended_ns), (Outcome::Aborted, now));
        assert_eq!(bench.counted("under way"), 1, "another process goes on");
        // A client that ends while it waits is of no use to anyone, whatever the server does.
        bench.exit(TGID);
        bench.state(&client, FIN_WAIT1);
        assert_eq!(bench.outcomes(), [Outcome::Aborted, Outcome::Aborted]);
    }
}

#[test]
fn the_end_of_a_process_ends_an_answer_without_a_length() {
    let (_, mut server) = pair();
    let mut bench = Bench::with(&[&server]);
    bench.recv(&mut server, GET);
    bench.send(&mut server, &format!("{TO_THE_END}a page"));
    bench.exit(TGID);
    bench.state(&server, FIN_WAIT1);
    assert_eq!(bench.outcomes(), [Outcome::Complete]);
}

#[test]
fn the_end_of_a_process_closes_its_unix_sockets() {
    let (_, mut server) = pair();
    server.info.transport = transport::UNIX;
    let mut bench = Bench::with(&[&server]);
    bench.recv(&mut server, GET);
    bench.exit(TGID);
    let now = bench.now;
    let exchange = bench.only();
    assert_eq!((exchange.outcome, exchange.ended_ns), (Outcome::Aborted, now));
}

#[test]
fn a_connection_that_another_process_holds_goes_on() {
    let (mut client, mut server) = pair();
    let mut bench = Bench::with(&[&client, &server]);
    bench.recv(&mut server, GET);
    bench.send(&mut client, GET);
    bench.exit(TGID);
    // The answer is another process's.
    server.tgid = TGID + 1;
    bench.send(&mut server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh");
    let last = bench.now;
    bench.wait(20_000);
    let exchange = bench.only();
    assert_eq!(exchange.outcome, Outcome::Unfinished, "of the other one nothing was heard any more");
    assert!(exchange.ended_ns < last);
    bench.send(&mut server, "i");
    assert_eq!(bench.outcomes(), [Outcome::Unfinished, Outcome::Complete]);
}

#[test]
fn the_end_of_the_agent_leaves_exchanges_unfinished() {
    let (mut client, _) = pair();
    let mut bench = Bench::with(&[&client]);
    bench.send(&mut client, GET);
    bench.finish();
    assert_eq!(bench.outcomes(), [Outcome::Unfinished]);
}

#[test]
fn a_gap_in_an_answer_with_a_length_is_crossed() {
    let (mut client, _) = pair();
    let mut bench = Bench::with(&[&client]);
    bench.send(&mut client, GET);
    bench.recv(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
    bench.lose(&mut client, Direction::RECV, 98);
    bench.recv(&mut client, "hi");
    assert_eq!(bench.counted("holes by sequence number"), 1);
    let exchange = bench.only();
    assert_eq!((exchange.outcome, exchange.response_body), (Outcome::Complete, 100));
}

#[test]
fn a_lost_answer_is_nobody_elses() {
    let (mut client, _) = pair();
    let mut bench = Bench::with(&[&client]);
    bench.send(&mut client, GET);
    // The answer, and another request with its answer.
    bench.lose(&mut client, Direction::RECV, OK.len() as u32);
    bench.lose(&mut client, Direction::SEND, GET.len() as u32);
    bench.lose(&mut client, Direction::RECV, OK.len() as u32);
    bench.send(&mut client, &GET.replace("/a", "/c"));
    bench.recv(&mut client, &OK.replace("200 OK", "203 So"));
    bench.send(&mut client, &GET.replace("/a", "/d"));
    bench.recv(&mut client, &OK.replace("200 OK", "206 Of"));
    bench.finish();
    assert_eq!(bench.counted("holes by sequence number"), 2);
    for exchange in &bench.exchanges {
        let wrong = match (&*exchange.request.path, &exchange.response) {
            ("/c", Some(response)) => response.status != 203,
            ("/d", Some(response)) => response.status != 206,
            (_, response) => response.is_some(),
        };
        assert!(!wrong, "{exchange:?}");
    }
}

#[test]
fn what_was_seen_is_not_counted_twice() {
    let (mut client, _) = pair();
    let mut bench = Bench::with(&[&client]);
    let mut again = client.clone();
    bench.send(&mut client, GET);
    bench.send(&mut again, GET);
    assert_eq!((bench.counted("seen already"), bench.counted("under way")), (1, 1));
}

#[test]
fn a_hole_in_a_first_line_does_not_join_its_ends() {
    let (mut client, _) = pair();
    let mut bench = Bench::with(&[&client]);
    bench.send(&mut client, "GE");
    bench.lose(&mut client, Direction::SEND, 50);
    bench.send(&mut client, "T /never HTTP/1.1\r\n\r\n");
    assert!(bench.signals.is_empty(), "{:?}", bench.signals);
}

#[test]
fn a_connection_that_the_kernel_side_forgot_goes_on() {
    let (mut client, _) = pair();
    let mut bench = Bench::with(&[&client]);
    bench.send(&mut client, GET);
    // Its state was evicted: it is announced again.
    bench.open(&client);
    bench.recv(&mut client, OK);
    assert_eq!(bench.only().outcome, Outcome::Complete);
    assert_eq!(bench.counted("connections"), 1);
}

#[test]
fn a_unix_connection_that_the_kernel_side_forgot_begins_anew() {
    let (mut client, _) = pair();
    client.info.transport = transport::UNIX;
    client.info.known = 0;
    let fresh = client.clone();
    let mut bench = Bench::with(&[&client]);
    bench.send(&mut client, GET);
    bench.recv(&mut client, OK);
    bench.send(&mut client, GET);
    // Its positions are counted by the kernel side, which now begins again.
    let mut client = fresh;
    bench.open(&client);
    bench.send(&mut client, GET);
    assert_eq!(bench.outcomes(), [Outcome::Complete, Outcome::Gap]);
    bench.recv(&mut client, OK);
    assert_eq!(bench.outcomes(), [Outcome::Complete, Outcome::Gap, Outcome::Complete]);
    assert_eq!(bench.counted("seen already"), 0);
}

#[test]
fn the_table_is_bounded() {
    const MOST: u64 = 16 * 1024;
    let (client, _) = pair();
    let mut bench = Bench::default();
    let with_cookie = |cookie| {
        let mut socket = client.clone();
        socket.cookie = cookie;
        socket
    };
    // One that is in the middle of an exchange stays.
    let mut busy = with_cookie(1);
    bench.open(&busy);
    bench.send(&mut busy, GET);
    for cookie in 2..=MOST + 100 {
        bench.open_unchecked(&with_cookie(cookie));
    }
    bench.balance();
    assert_eq!(bench.counted("connections forgotten for room"), 100);
    bench.recv(&mut busy, OK);
    assert_eq!(bench.only().outcome, Outcome::Complete);
}

#[test]
fn what_waits_on_a_connection_that_is_gone_is_given_up() {
    let (_, mut server) = pair();
    let mut bench = Bench::with(&[&server]);
    bench.recv(&mut server, GET);
    bench.wait(60_000);
    assert_eq!(bench.counted("under way"), 1, "a slow handler is no reason");
    bench.known.gone = true;
    bench.wait(10_001);
    assert_eq!(bench.only().outcome, Outcome::Unfinished);
    assert_eq!(bench.counted("under way"), 0);
}

#[test]
fn what_waits_on_a_quiet_unix_socket_is_given_up_in_the_end() {
    let (_, mut server) = pair();
    server.info.transport = transport::UNIX;
    let mut bench = Bench::with(&[&server]);
    bench.recv(&mut server, GET);
    bench.known.gone = true;
    bench.wait(290_000);
    assert_eq!(bench.counted("under way"), 1);
    bench.wait(20_000);
    assert_eq!(bench.only().outcome, Outcome::Unfinished);
}

#[test]
fn what_was_read_unseen_counts_when_the_connection_closes() {
    let (mut client, _) = pair();
    let mut bench = Bench::with(&[&client]);
    bench.send(&mut client, GET);
    bench.recv(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n");
    // The body goes from the socket into a pipe.
    bench.lose(&mut client, Direction::RECV, 5_000);
    bench.state_and_received(&client, CLOSED);
    let exchange = bench.only();
    assert_eq!((exchange.outcome, exchange.response_body), (Outcome::Complete, 5_000));
}

#[test]
fn a_body_that_was_not_read_to_its_end_is_an_abort() {
    let (mut client, _) = pair();
    let mut bench = Bench::with(&[&client]);
    bench.send(&mut client, GET);
    bench.recv(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n");
    bench.lose(&mut client, Direction::RECV, 4_999);
    bench.state_and_received(&client, CLOSED);
    bench.wait(1_000);
    assert_eq!(bench.only().outcome, Outcome::Aborted);
}
