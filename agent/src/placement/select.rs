//! The choice. Comes in: a function, what is wanted, what is allowed. Goes out: the first cheap instruction that will do, or a
//! dear one, or why none.

use iced_x86::{FlowControl, Instruction};
use spanwise_common::place::Place;

use super::decode::Listing;
use super::flow::{self, State};
use super::graph::Graph;
use super::{Abi, Class, Function, Needs, Refusal, Rules, Site, Value};

/// Instructions looked at from the start of a function, and after a call.
const REACH: usize = 96;
/// Instructions looked at for a trap that catches the return.
const BEFORE_THE_STACK: usize = 8;

/// A place that every call of the function passes exactly once, with the values known there.
pub fn entry(function: &Function<'_>, needs: &Needs<'_>, rules: Rules) -> Result<Site, Refusal> {
    check(function, needs)?;
    let listing = Listing::of(function)?;
    let graph = Graph::of(&listing, needs.abi);
    let states = flow::follow(&listing, &graph, needs.abi, &|_| false);
    if rules.naive {
        let why = "the first instruction, as asked for by SPANWISE_PLACEMENT=naive";
        return at_first(&listing, &states, needs, 0, why);
    }
    let depth = |index: usize| states.get(index)?.as_ref()?.depth();
    let apart =
        |jump: usize, to: usize| depth(jump).zip(depth(to)).is_some_and(|(there, here)| there != here);
    let mut refused = Refusal::NotOnce(function.name.to_owned());
    let mut dear = None;
    let mut call = None;
    for (index, line) in listing.lines.iter().enumerate().take(REACH) {
        // What can be missed here can be missed further on only if branches meet again, so the search goes on.
        if graph.can_be_missed(index) || graph.comes_twice(index, &apart) {
            continue;
        }
        let class = match allowed(&listing, line, rules) {
            Ok(class) => class,
            Err(why) => {
                keep(&mut refused, Refusal::Unsafe(function.name.to_owned(), why.to_owned()));
                continue;
            }
        };
        let Some(places) = places(&states, index, needs) else {
            refused = Refusal::ValuesGone(function.name.to_owned());
            continue;
        };
        match class {
            Class::Stepped => dear = dear.or(Some((index, places))),
            // With shadow stacks a call that the kernel emulates is not the processor's own: last choice.
            Class::Call => call = call.or(Some((index, places))),
            _ => return Ok(site(&listing, index, class, places, why(index, class, needs.abi))),
        }
    }
    if let Some((index, places)) = call {
        return Ok(site(&listing, index, Class::Call, places, why(index, Class::Call, needs.abi)));
    }
    let Some((index, places)) = dear else { return Err(refused) };
    if !rules.stepped {
        return Err(Refusal::Dear(function.name.to_owned()));
    }
    let why = "no instruction that the kernel emulates is passed once a call while the values are known, so this one is \
               single-stepped";
    Ok(site(&listing, index, Class::Stepped, places, why.to_owned()))
}

/// For each call of one of the wanted functions (`callee` is asked with the address that is called): a place that is passed once
/// after it, with the values known there.
pub fn after_call(
    function: &Function<'_>,
    callee: &dyn Fn(u64) -> bool,
    needs: &Needs<'_>,
    rules: Rules,
) -> Result<Vec<Site>, Refusal> {
    check(function, needs)?;
    let listing = Listing::of(function)?;
    let graph = Graph::of(&listing, needs.abi);
    let is_wanted = |index: usize| {
        listing
            .lines
            .get(index)
            .is_some_and(|line| line.flow_control() == FlowControl::Call && callee(line.near_branch_target()))
    };
    let calls: Vec<usize> = (0..listing.lines.len()).filter(|index| is_wanted(*index)).collect();
    if calls.is_empty() {
        return Err(Refusal::NoCall(function.name.to_owned()));
    }
    let states = flow::follow(&listing, &graph, needs.abi, &is_wanted);
    let mut sites = Vec::with_capacity(calls.len());
    for call in calls {
        if rules.naive {
            let why = "the first instruction after the call, as asked for by SPANWISE_PLACEMENT=naive";
            sites.push(at_first(&listing, &states, needs, call + 1, why)?);
        } else {
            sites.push(after(&listing, &graph, &states, call, needs, rules)?);
        }
    }
    Ok(sites)
}

/// For each call of one of the wanted functions: the call itself, where the arguments of the function that is called stand in their
/// registers. The kernel emulates it.
pub fn at_call(
    function: &Function<'_>,
    callee: &dyn Fn(u64) -> bool,
    needs: &Needs<'_>,
) -> Result<Vec<Site>, Refusal> {
    check(function, needs)?;
    let listing = Listing::of(function)?;
    let place = |value: &Value| match value {
        Value::Argument(index) => needs.abi.argument(*index).map(Place::register),
        Value::Result(_) => None,
    };
    let places = needs.values.iter().map(place).collect::<Option<Vec<_>>>();
    let places = places.ok_or_else(|| Refusal::ValuesGone(function.name.to_owned()))?;
    let mut sites = Vec::new();
    for (index, line) in listing.lines.iter().enumerate() {
        if line.flow_control() != FlowControl::Call || !callee(line.near_branch_target()) {
            continue;
        }
        let class = listing.class(line);
        let class = class.map_err(|why| Refusal::Unsafe(function.name.to_owned(), why.to_owned()))?;
        let why =
            "the call itself, which the kernel emulates: its arguments are in their registers".to_owned();
        sites.push(site(&listing, index, class, places.clone(), why));
    }
    if sites.is_empty() {
        return Err(Refusal::NoCall(function.name.to_owned()));
    }
    Ok(sites)
}

/// The return of a function, caught by the kernel: never in Go, and only where the hazards allow it (the caller asks). The kernel takes
/// the return address from the top of the stack in a trap, so the trap may be at any instruction before the stack is used: where there is
/// one that is emulated (a push after `endbr64`), it is that one.
pub fn returns(function: &Function<'_>, needs: &Needs<'_>) -> Result<Site, Refusal> {
    if needs.abi == Abi::Go {
        return Err(Refusal::ReturnInGo(function.name.to_owned()));
    }
    let listing = Listing::of(function)?;
    let place = |value: &Value| match value {
        Value::Result(index) => needs.abi.result(*index).map(Place::register),
        Value::Argument(_) => None,
    };
    let places = needs.values.iter().map(place).collect::<Option<Vec<_>>>();
    let places = places.ok_or_else(|| Refusal::ValuesGone(function.name.to_owned()))?;
    let why = "its result is wanted, and no cheap place follows the call that makes it".to_owned();
    let graph = Graph::of(&listing, needs.abi);
    if graph.jumped_to.first() == Some(&true) {
        return Err(Refusal::NotOnce(function.name.to_owned()));
    }
    if let Some(index) = untouched(&listing, &graph, needs.abi) {
        return Ok(site(&listing, index, Class::Return, places, why));
    }
    let class = listing.lines.first().ok_or("it has no code").and_then(|line| listing.class(line));
    // The kernel finishes the first instruction as it would that of any other probe.
    let class = match class.map_err(|why| Refusal::Unsafe(function.name.to_owned(), why.to_owned()))? {
        Class::Nop | Class::Push | Class::Jump => Class::Return,
        _ => Class::SteppedReturn,
    };
    Ok(site(&listing, 0, class, places, why))
}

/// The first instruction that the kernel emulates, that every call passes once, and where the return address is on top of the
/// stack still.
fn untouched(listing: &Listing<'_>, graph: &Graph, abi: Abi) -> Option<usize> {
    let states = flow::follow(listing, graph, abi, &|_| false);
    let depth = |index: usize| states.get(index)?.as_ref()?.depth();
    listing.lines.iter().take(BEFORE_THE_STACK).enumerate().position(|(index, line)| {
        matches!(listing.class(line), Ok(Class::Nop | Class::Push | Class::Jump))
            && depth(index) == Some(0)
            && !graph.can_be_missed(index)
            && !graph.comes_twice(index, &|_, _| false)
    })
}

fn check(function: &Function<'_>, needs: &Needs<'_>) -> Result<(), Refusal> {
    let known = |value: &Value| match value {
        Value::Argument(index) => needs.abi.argument(*index).is_some(),
        Value::Result(index) => needs.abi.result(*index).is_some(),
    };
    if needs.values.iter().all(known) {
        Ok(())
    } else {
        Err(Refusal::NotInRegister(function.name.to_owned()))
    }
}

/// The class of an instruction if a probe may go there.
fn allowed(listing: &Listing<'_>, line: &Instruction, rules: Rules) -> Result<Class, &'static str> {
    match listing.class(line)? {
        Class::Nop5 if !rules.nop5 => {
            Err("this kernel replaces five-byte nops by calls that may overwrite the function's data")
        }
        class => Ok(class),
    }
}

fn after(
    listing: &Listing<'_>,
    graph: &Graph,
    states: &[Option<State>],
    call: usize,
    needs: &Needs<'_>,
    rules: Rules,
) -> Result<Site, Refusal> {
    let name = || listing.function.name.to_owned();
    let mut refused = Refusal::NotOnce(name());
    let mut dear = None;
    for (index, line) in listing.lines.iter().enumerate().skip(call + 1).take(REACH) {
        // Others come here too: no longer only what the call gave.
        if graph.jumped_to.get(index).copied().unwrap_or(true) {
            break;
        }
        let class = allowed(listing, line, rules);
        match (class, places(states, index, needs)) {
            (Err(why), _) => keep(&mut refused, Refusal::Unsafe(name(), why.to_owned())),
            (_, None) => refused = Refusal::ValuesGone(name()),
            (Ok(Class::Stepped), Some(places)) => dear = dear.or(Some((index, places))),
            (Ok(class), Some(places)) => {
                let why = "the first instruction after the call that the kernel emulates".to_owned();
                return Ok(site(listing, index, class, places, why));
            }
        }
        if line.flow_control() != FlowControl::Next {
            break;
        }
    }
    let Some((index, places)) = dear else { return Err(refused) };
    if !rules.stepped {
        return Err(Refusal::Dear(name()));
    }
    let why = "nothing that the kernel emulates follows the call, so this one is single-stepped";
    Ok(site(listing, index, Class::Stepped, places, why.to_owned()))
}

/// A reason that says more than the one before.
fn keep(refused: &mut Refusal, other: Refusal) {
    if matches!(refused, Refusal::NotOnce(_)) {
        *refused = other;
    }
}

fn at_first(
    listing: &Listing<'_>,
    states: &[Option<State>],
    needs: &Needs<'_>,
    index: usize,
    why: &str,
) -> Result<Site, Refusal> {
    let name = || listing.function.name.to_owned();
    let line = listing.lines.get(index).ok_or_else(|| Refusal::NotOnce(name()))?;
    let class = listing.class(line).map_err(|why| Refusal::Unsafe(name(), why.to_owned()))?;
    let places = places(states, index, needs).ok_or_else(|| Refusal::ValuesGone(name()))?;
    Ok(site(listing, index, class, places, why.to_owned()))
}

fn places(states: &[Option<State>], index: usize, needs: &Needs<'_>) -> Option<Vec<Place>> {
    let state = states.get(index)?.as_ref()?;
    needs.values.iter().map(|value| state.place(*value, needs.abi)).collect()
}

fn why(index: usize, class: Class, abi: Abi) -> String {
    let kind = match class {
        Class::Push => "push",
        Class::Jump => "jump",
        Class::Call => "call",
        _ => "nop",
    };
    match (index, abi) {
        (0, _) => format!("the first instruction is a {kind}, which the kernel emulates"),
        (_, Abi::Go) => format!(
            "the first {kind} after the stack check, which the kernel emulates; the stack growing does not pass it twice"
        ),
        _ => format!("the first instruction that the kernel emulates, a {kind}, passed once by every call"),
    }
}

fn site(listing: &Listing<'_>, index: usize, class: Class, places: Vec<Place>, why: String) -> Site {
    let line = listing.lines.get(index).copied().unwrap_or_default();
    let from_start = line.ip().wrapping_sub(listing.function.address);
    Site {
        function: listing.function.name.to_owned(),
        address: line.ip(),
        file_offset: listing.function.file_offset.wrapping_add(from_start),
        from_start,
        instruction: listing.text(&line),
        class,
        why,
        places,
    }
}
