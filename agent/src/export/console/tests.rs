//! Tests of the console: the picture, the collector and the account.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::collect::Collector;
use super::*;
use crate::attribute::{Attribute, Value};
use crate::process::Service;
use crate::span::{Kind, Link, Status};

fn service(id: u32, name: &str) -> Arc<Service> {
    Arc::new(Service { id, name: name.into(), attributes: Vec::new() })
}

fn text(key: &'static str, value: &str) -> Attribute {
    (key.into(), Value::Str(value.to_owned().into()))
}

struct Say(&'static str, u8, u8, Kind, u64, u64);

fn span(service: &Arc<Service>, say: Say, attributes: Vec<Attribute>) -> Span {
    let Say(name, id, parent, kind, from, to) = say;
    let begin = 1_700_000_602_123_000_000;
    Span {
        trace_id: [0x4b; 16],
        span_id: [id; 8],
        parent_span_id: (parent > 0).then_some([parent; 8]),
        parent_is_remote: false,
        trace_flags: 1,
        trace_state: None,
        name: name.into(),
        kind,
        start_unix_ns: begin + from * 100_000,
        end_unix_ns: begin + to * 100_000,
        common: None,
        attributes,
        status: Status::Unset,
        links: Vec::new(),
        service: service.clone(),
    }
}

fn shop() -> Vec<Span> {
    let (front, cart, pay) = (service(1, "frontend"), service(2, "cart"), service(3, "payment"));
    let code = |code| (("http.response.status_code").into(), Value::Int(code));
    let sure = |sure| (("spanwise.parent.confidence").into(), Value::Double(sure));
    let source = |name| text("spanwise.parent.source", name);
    let mut spans = vec![
        span(
            &cart,
            Say("GET /cart/{id}", 3, 2, Kind::Server, 40, 130),
            vec![text("url.path", "/cart/42"), code(200), source("peer")],
        ),
        span(
            &front,
            Say("GET", 2, 1, Kind::Client, 30, 150),
            vec![text("url.full", "http://cart:8080/cart/42?x=y"), code(200), source("thread"), sure(0.98)],
        ),
        span(
            &front,
            Say("GET /checkout/{id}", 1, 0, Kind::Server, 0, 482),
            vec![text("url.path", "/checkout/42"), code(503), source("root")],
        ),
        span(
            &front,
            Say("POST", 4, 1, Kind::Client, 160, 470),
            vec![text("url.full", "http://payment:8080/pay"), code(503), source("last_in"), sure(0.97)],
        ),
        span(
            &pay,
            Say("POST /pay", 5, 4, Kind::Server, 170, 460),
            vec![text("url.path", "/pay"), source("peer")],
        ),
        span(
            &pay,
            Say("GET", 6, 9, Kind::Client, 171, 172),
            vec![text("url.full", "http://bank\x1b[2J/"), source("abstained"), sure(0.4)],
        ),
    ];
    for failed in [2, 3, 4] {
        spans[failed].status = Status::Error;
    }
    spans[5].links = vec![Link { trace_id: [1; 16], span_id: [0xab; 8], attributes: Vec::new() }; 2];
    spans
}

#[test]
fn the_picture() {
    let expected = "\
trace 4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b  22:23:22.123Z  48.2 ms  6 spans, 3 services, 3 errors
  frontend  server  GET /checkout/{id} /checkout/…  503  ███████████████   48.2 ms
  frontend  client  ├─ GET cart:8080/cart/42        200  █████             12.0 ms  thread 0.98
  cart      server  │  └─ GET /cart/{id} /cart/42   200   ███              9.00 ms  peer
  frontend  client  └─ POST payment:8080/pay        503      ███████████   31.0 ms  last_in 0.97
  payment   server     └─ POST /pay                 ERR       █████████    29.0 ms  peer
  payment   client  ~ GET bank\u{fffd}[2J/                 -         ▏             100 µs  abstained link abababab +1

";
    let drawn = waterfall::render(&shop(), 110, false);
    assert_eq!(drawn, expected, "\n{drawn}");
}

#[test]
fn colours_only_add_escapes() {
    let plain = waterfall::render(&shop(), 100, false);
    let coloured = waterfall::render(&shop(), 100, true);
    assert!(coloured.contains("\x1b[31m"), "errors are red");
    let mut stripped = String::new();
    for (index, part) in coloured.split("\x1b[").enumerate() {
        stripped.push_str(if index == 0 { part } else { part.split_once('m').unwrap().1 });
    }
    // Padding at the end of a coloured line stands inside the colour.
    let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(&stripped), lines(&plain));
}

#[test]
fn nonsense_is_drawn_whole() {
    let lone = service(1, "s");
    let mut spans: Vec<Span> =
        (1..=5).map(|id| span(&lone, Say("x", id, id % 5 + 1, Kind::Server, 5, 1), Vec::new())).collect();
    spans.push(spans[0].clone());
    for id in 6..200 {
        spans.push(span(&lone, Say("deep", id, id - 1, Kind::Client, u64::from(id), 500), Vec::new()));
    }
    for width in [0, 60, 100, 100_000] {
        let drawn = waterfall::render(&spans, width, false);
        assert_eq!(drawn.lines().count(), spans.len() + 2);
        let rows = drawn.lines().filter(|line| line.starts_with("  "));
        let widest = rows.map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= width.clamp(64, 240), "{widest} at {width}");
    }
    assert_eq!(waterfall::render(&[], 100, false), "");
}

#[test]
fn a_trace_is_shown_when_it_is_quiet() {
    let mut collector = Collector::default();
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let spans = shop();
    collector.add(spans[0].clone(), at(0));
    assert!(collector.quiet(at(299)).is_empty());
    collector.add(spans[1].clone(), at(299));
    assert!(collector.quiet(at(598)).is_empty());
    collector.add(spans[2].clone(), at(598));
    assert!(collector.quiet(at(697)).is_empty());
    // The root is there, so 100 ms are enough.
    let ready = collector.quiet(at(698));
    assert_eq!(ready.iter().map(Vec::len).collect::<Vec<_>>(), [3]);
    assert!(collector.is_empty());
}

#[test]
fn what_is_held_is_bounded_and_the_oldest_goes_first() {
    let mut collector = Collector::default();
    let start = Instant::now();
    for index in 0..2_000u32 {
        let mut span = shop().remove(0);
        span.trace_id[..4].copy_from_slice(&index.to_be_bytes());
        collector.add(span, start + Duration::from_micros(u64::from(index)));
    }
    let ready = collector.quiet(start + Duration::from_millis(2));
    assert_eq!(ready.len(), 1_500);
    assert_eq!(ready[0][0].trace_id[..4], 0u32.to_be_bytes());
    assert_eq!(collector.all().len(), 500);
}

#[test]
fn the_account_balances_and_says_what_was_not_shown() {
    let mut console = Console::new();
    let screen = console.screen();
    let drawing = std::thread::spawn(move || {
        let mut out = Vec::new();
        screen.draw_to(&mut out, 100, false);
        String::from_utf8(out).unwrap()
    });
    let template = shop().remove(0);
    for index in 0..20_000u64 {
        let mut span = template.clone();
        span.trace_id[8..].copy_from_slice(&index.to_be_bytes());
        console.span(&span);
        if index % 1_000 == 0 {
            assert!(console.stage().balances(), "{:?}", console.stage());
        }
    }
    console.close();
    let drawn = drawing.join().unwrap();
    console.seal();
    let stage = console.stage();
    assert!(stage.balances(), "{stage:?}");
    let row = |name: &str| stage.rows.iter().find(|row| row.1.starts_with(name)).unwrap().2;
    assert_eq!(row("waiting") + row("not sent"), 0);
    assert!(row("shown") >= 1 && row("shown") <= 200, "{stage:?}");
    assert_eq!(drawn.matches("\ntrace ").count() as u64 + 1, row("shown"));
    let said: u64 = drawn
        .lines()
        .filter_map(|line| line.strip_prefix("… ")?.split(' ').next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(said, row("not shown"));
}

#[test]
fn a_broken_output_is_counted() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut console = Console::new();
    for span in shop() {
        console.span(&span);
    }
    console.close();
    console.screen().draw_to(&mut Broken, 100, false);
    let stage = console.stage();
    assert!(stage.balances());
    assert!(stage.rows.contains(&(Flow::Drop, "write failed", 6)), "{stage:?}");
}

#[test]
fn the_gate_adapts_and_passes_whole_traces() {
    let start = Instant::now();
    let mut gate = Gate::new(start);
    let id = |index: u64| {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        id
    };
    let mut passed = 0;
    for second in 0..20 {
        passed = (0..50_000u64).filter(|index| gate.passes(&id(*index))).count();
        gate.tick(start + Duration::from_secs(second + 1));
    }
    assert!((100..=1_500).contains(&passed), "{passed}");
    for second in 20..40 {
        gate.tick(start + Duration::from_secs(second + 1));
    }
    assert!((0..100).all(|index| gate.passes(&id(index))));
}
