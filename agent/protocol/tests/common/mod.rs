//! Drives a parser over a script and writes down what it says, in absolute positions.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod hpack;
pub(crate) mod http2;

use spanwise_protocol::message::Query;
use spanwise_protocol::{Flow, Head, Input, Item, Parser, What};

pub(crate) const Q: Flow = Flow::Request;
pub(crate) const R: Flow = Flow::Response;

/// One step of a conversation.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Bytes(Flow, Vec<u8>, bool),
    Hole(Flow, u64, Vec<u8>),
    Gap(Flow),
    End(Flow),
    Idle,
    Boundary(Flow, u32, u32),
}

/// Bytes of a new burst.
pub(crate) fn burst(flow: Flow, bytes: impl AsRef<[u8]>) -> Step {
    Step::Bytes(flow, bytes.as_ref().to_vec(), true)
}

/// Bytes of the same burst.
pub(crate) fn more(flow: Flow, bytes: impl AsRef<[u8]>) -> Step {
    Step::Bytes(flow, bytes.as_ref().to_vec(), false)
}

pub(crate) fn hole(flow: Flow, len: u64, tail: impl AsRef<[u8]>) -> Step {
    Step::Hole(flow, len, tail.as_ref().to_vec())
}

pub(crate) fn gap(flow: Flow) -> Step {
    Step::Gap(flow)
}

/// A driver: remembers how far each direction is.
#[derive(Default)]
pub(crate) struct Driver<P> {
    pub(crate) parser: P,
    at: [u64; 2],
    pub(crate) items: Vec<(u64, Item)>,
}

pub(crate) fn side(flow: Flow) -> usize {
    usize::from(flow == Flow::Response)
}

impl<P: Parser> Driver<P> {
    pub(crate) fn of(parser: P) -> Self {
        Self { parser, at: [0; 2], items: Vec::new() }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        let at = self.at;
        let items = &mut self.items;
        let (flow, input, len) = match step {
            Step::Boundary(flow, ahead, walk) => {
                self.parser.boundary(*flow, *ahead, *walk);
                return;
            }
            Step::Bytes(flow, bytes, burst_start) => {
                (*flow, Input::Bytes { bytes, burst_start: *burst_start }, bytes.len() as u64)
            }
            Step::Hole(flow, len, tail) => (*flow, Input::Hole { len: *len, tail }, *len),
            Step::Gap(flow) => (*flow, Input::Gap, 0),
            Step::End(flow) => (*flow, Input::End, 0),
            Step::Idle => {
                self.parser.idle(&mut |item| {
                    items.push((at[side(item.flow)].wrapping_add(item.offset as u64), item));
                });
                return;
            }
        };
        self.parser.feed(flow, input, &mut |item| {
            assert!(item.offset as u64 <= len, "{item:?} beyond {step:?}");
            assert!(item.flow == flow || item.offset == 0, "{item:?} of the other direction in {step:?}");
            items.push((at[side(item.flow)].wrapping_add(item.offset as u64), item));
        });
        self.at[side(flow)] = self.at[side(flow)].wrapping_add(len);
        assert!(self.parser.state_bytes() <= P::MAX_STATE, "{} bytes of state", self.parser.state_bytes());
    }
}

/// What a parser says of a script, one line an item: `> 0 begin @0`.
pub(crate) fn tell<P: Parser>(script: &[Step]) -> Vec<String> {
    let mut driver = Driver::<P>::default();
    for step in script {
        driver.step(step);
    }
    driver.items.iter().map(|(at, item)| line(*at, item)).collect()
}

pub(crate) fn line(at: u64, item: &Item) -> String {
    let arrow = if item.flow == Flow::Request { '>' } else { '<' };
    let what = match &item.what {
        What::Begin => "begin".into(),
        What::Head(Head::Request(r)) => {
            let query = r.query.as_ref().map(|q| format!("?{q}")).unwrap_or_default();
            let cut = if r.truncated { " cut" } else { "" };
            format!("{} {}{query}{cut}", r.method, r.path)
        }
        What::Head(Head::Response(r)) => format!("{}{}", r.status, if r.truncated { " cut" } else { "" }),
        What::Head(Head::Query(q)) => query(q),
        What::Head(Head::Answer(a)) => {
            format!("{}{}", a.error.as_deref().unwrap_or("ok"), if a.truncated { " cut" } else { "" })
        }
        What::End { body } => format!("end {body}"),
        What::Switched => "switched".into(),
        What::Aborted { body } => format!("aborted {body}"),
        What::Lost(reason) => format!("lost {}", reason.as_str()),
        What::HalfSeen => return format!("{arrow} half @{at}"),
        What::Rpc(part) => {
            let status = part.status.map(|status| format!(" status {status}")).unwrap_or_default();
            let cut = if part.truncated { " cut" } else { "" };
            format!("rpc {}x{}{status}{cut}", part.messages, part.bytes)
        }
        What::Reset { code, by } => format!("reset {code} by {by:?}"),
        What::Garbage => return format!("{arrow} garbage @{at}"),
    };
    format!("{arrow} {} {what} @{at}", item.exchange)
}

/// `SELECT orders [select * from orders where id = ?] in shop x3 cut`.
fn query(q: &Query) -> String {
    let name = if q.summary.is_empty() { &q.operation } else { &q.summary };
    let mut out = format!("{}: {name}", q.system.as_str());
    out += &q.text.as_ref().map(|text| format!(" [{text}]")).unwrap_or_default();
    out += &q.namespace.as_ref().map(|namespace| format!(" in {namespace}")).unwrap_or_default();
    if q.batch > 0 {
        out += &format!(" x{}", q.batch);
    }
    out + if q.truncated { " cut" } else { "" }
}
