//! Any sequence of inputs for any parser, and checks of what holds for all of them.

use std::collections::HashMap;

use spanwise_protocol::{Flow, Input, Item, Parser, What};

/// How far a direction of an exchange is.
#[derive(Clone, Copy, Default, PartialEq, PartialOrd, Debug)]
enum Stage {
    #[default]
    None,
    Begun,
    Head,
    Reset,
    Rpc,
    Over,
}

fn check(stages: &mut HashMap<u32, [Stage; 2]>, item: &Item) {
    if matches!(item.what, What::HalfSeen | What::Garbage) {
        return;
    }
    let request = item.flow == Flow::Request;
    if !stages.contains_key(&item.exchange) {
        assert!(request && item.what == What::Begin, "{item:?} begins an exchange");
    }
    let stage = &mut stages.entry(item.exchange).or_default()[usize::from(!request)];
    let (allowed, next) = match item.what {
        What::Begin => (*stage == Stage::None, Stage::Begun),
        What::Head(_) => (*stage == Stage::Begun, Stage::Head),
        What::Reset { .. } => (!request && *stage < Stage::Reset, Stage::Reset),
        What::Rpc(_) => (*stage < Stage::Rpc && (!request || *stage == Stage::Head), Stage::Rpc),
        What::End { .. } => (matches!(*stage, Stage::Begun | Stage::Head | Stage::Rpc), Stage::Over),
        What::Switched => (*stage == Stage::Head, Stage::Over),
        _ => (*stage < Stage::Over && (!request || *stage > Stage::None), Stage::Over),
    };
    assert!(allowed, "{item:?} after {stage:?}");
    *stage = next;
}

/// The parser with what it said so far.
struct Checked<P> {
    parser: P,
    stages: HashMap<u32, [Stage; 2]>,
    items: Vec<Item>,
}

impl<P: Parser> Checked<P> {
    fn feed(&mut self, flow: Flow, input: Input<'_>, len: u64) {
        let Self { parser, stages, items } = self;
        parser.feed(flow, input, &mut |item| {
            assert!(item.offset as u64 <= len, "{item:?} beyond {len}");
            assert!(item.flow == flow || item.offset == 0, "{item:?} of the other direction");
            check(stages, &item);
            items.push(item);
        });
        assert!(parser.state_bytes() <= P::MAX_STATE);
    }

    fn idle(&mut self) {
        let Self { parser, stages, items } = self;
        parser.idle(&mut |item| {
            assert_eq!(item.offset, 0);
            check(stages, &item);
            items.push(item);
        });
    }

    /// Feeds the inputs that `data` describes.
    ///
    /// A list of steps: a byte for the kind (bit 0 direction, bit 1 burst start, high bits what), a byte for the length, then
    /// the bytes themselves.
    fn script(&mut self, data: &[u8]) {
        let mut rest = data;
        while let [kind, len, tail @ ..] = rest {
            let flow = if kind & 1 == 0 { Flow::Request } else { Flow::Response };
            let burst_start = kind & 2 != 0;
            let (bytes, next) = tail.split_at(tail.len().min(*len as usize));
            rest = next;
            match kind >> 2 {
                0..=39 => {
                    let _ = P::detect(bytes);
                    self.feed(flow, Input::Bytes { bytes, burst_start }, bytes.len() as u64);
                }
                40..=55 => {
                    // The length is beside the tail, and may be enormous.
                    let (tail, number) = bytes.split_at(bytes.len().min(8));
                    let more = number.iter().take(8).fold(0u64, |sum, &b| sum << 8 | u64::from(b));
                    let len = more.saturating_add(tail.len() as u64);
                    self.feed(flow, Input::Hole { len, tail }, len);
                }
                56..=57 => self.feed(flow, Input::Gap, 0),
                58..=59 => self.feed(flow, Input::End, 0),
                60..=61 => self.idle(),
                _ => {
                    // Something long.
                    let many = bytes.repeat(200);
                    self.feed(flow, Input::Bytes { bytes: &many, burst_start }, many.len() as u64);
                }
            }
        }
    }
}

/// Feeds what `data` describes to a parser, and then the ends of both directions.
pub fn run<P: Parser>(data: &[u8]) {
    all_said(P::default(), data, 1);
}

/// The same, several times over. Gives all that was said.
pub fn all_said<P: Parser>(parser: P, data: &[u8], times: usize) -> Vec<Item> {
    let mut checked = Checked { parser, stages: HashMap::new(), items: Vec::new() };
    for _ in 0..times {
        checked.script(data);
    }
    checked.feed(Flow::Request, Input::End, 0);
    checked.feed(Flow::Response, Input::End, 0);
    assert_eq!(checked.parser.in_flight(), 0);
    checked.items
}
