//! What follows what in a process: which kind of call, or a response, after a request or after the answer to a call of each kind.
//!
//! Comes in: kinds of messages, as they are read and sent. Goes out: what a kind of message that was read leads to, where it
//! is always one and the same.
//!
//! Where answers of one kind lead to calls of another, at any moment at least as many were read as such calls were sent, and in the long run
//! not more. That needs no knowledge of which belongs to which, and so holds however many requests are open. Of several
//! kinds that could lead to a call (those before the right one in the chain, too) the one of which fewest wait is right. It need not be:
//! whoever goes by it checks where that leads.

/// Kinds of messages read, and kinds of messages sent, that are kept for a process; further ones are not told.
const KINDS: usize = 16;
/// Messages sent after which it is looked at again what leads to them, and how many may not fit.
const WINDOW: u32 = 64;
const MISFITS: u32 = 4;
/// Looks after which a kind that was not met is out of use.
const OLD: u32 = 16;

/// The kind of what has no kind of its own: requests.
pub(in super::super) const REQUEST: u64 = 0;

/// What a message that was read leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Next {
    /// Not known, or sometimes this and sometimes that.
    Any,
    /// A call of this kind.
    Call(u64),
    Response,
}

#[derive(Debug)]
struct Read {
    kind: u64,
    count: u32,
    /// When it was last read, in looks.
    used: u32,
    leads_to: Next,
}

#[derive(Debug)]
struct Sent {
    to: Next,
    /// Since the last look.
    count: u32,
    /// When it was last sent, in looks.
    used: u32,
    from: Source,
    /// For each kind read.
    pairs: [Pair; KINDS],
}

/// What leads to a message that is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    /// It was not looked at yet.
    Unknown,
    Several,
    /// One kind, by its place.
    Kind(usize),
}

/// How a kind that is read goes with a kind that is sent.
#[derive(Clone, Copy, Default, Debug)]
struct Pair {
    /// Of those read, as many as were sent.
    taken: u32,
    /// More were sent than read.
    misfits: u32,
    /// Fewest left, and the sum over all sent.
    fewest: u32,
    left: u32,
}

/// The steps of a process.
#[derive(Default, Debug)]
pub(in super::super) struct Steps {
    read: Vec<Read>,
    sent: Vec<Sent>,
    looks: u32,
}

impl Steps {
    /// A message of this kind was read: what it leads to.
    pub(in super::super) fn read(&mut self, kind: u64) -> Next {
        let looks = self.looks;
        if let Some(read) = self.read.iter_mut().find(|read| read.kind == kind) {
            read.count = read.count.wrapping_add(1);
            read.used = looks;
            return read.leads_to;
        }
        let new = Read { kind, count: 1, used: looks, leads_to: Next::Any };
        if self.read.len() < KINDS {
            self.read.push(new);
        } else if let Some(place) = self.read.iter().position(|read| is_old(read.used, looks))
            && let Some(read) = self.read.get_mut(place)
        {
            *read = new;
            for sent in &mut self.sent {
                if let Some(pair) = sent.pairs.get_mut(place) {
                    pair.begin(0);
                }
            }
        }
        Next::Any
    }

    /// What was concluded misleads.
    pub(in super::super) fn forget(&mut self) {
        for sent in &mut self.sent {
            sent.from = Source::Unknown;
        }
        self.conclude();
    }

    /// A message of this kind is sent. Whether other conclusions are drawn from now on.
    pub(in super::super) fn sent(&mut self, to: Next) -> bool {
        let Some(sent) = self.place(to).and_then(|place| self.sent.get_mut(place)) else { return false };
        for (pair, read) in sent.pairs.iter_mut().zip(&self.read) {
            pair.take(read.count);
        }
        sent.used = self.looks;
        sent.count += 1;
        if sent.count >= WINDOW {
            self.looks = self.looks.wrapping_add(1);
            self.look(to);
            return self.conclude();
        }
        false
    }

    /// Where it is, or is put.
    fn place(&mut self, to: Next) -> Option<usize> {
        if let Some(known) = self.sent.iter().position(|sent| sent.to == to) {
            return Some(known);
        }
        let mut pairs = [Pair::default(); KINDS];
        for (pair, read) in pairs.iter_mut().zip(&self.read) {
            pair.begin(read.count.wrapping_sub(1));
        }
        let new = Sent { to, count: 0, used: self.looks, from: Source::Unknown, pairs };
        if self.sent.len() < KINDS {
            self.sent.push(new);
            return self.sent.len().checked_sub(1);
        }
        let old = self.sent.iter().position(|sent| is_old(sent.used, self.looks))?;
        *self.sent.get_mut(old)? = new;
        Some(old)
    }

    /// Finds the kind that leads to this: the one before, while it fits, or that of which fewest wait. None that comes after it: there
    /// would be no end.
    fn look(&mut self, to: Next) {
        let Some(sent) = self.sent.iter().find(|sent| sent.to == to) else { return };
        let candidates = sent.pairs.iter().zip(&self.read).enumerate();
        let fits = candidates.filter(|(_, (pair, read))| pair.fits() && !self.comes_after(read.kind, to));
        let found = fits.min_by_key(|(place, (pair, _))| (Source::Kind(*place) != sent.from, pair.left));
        let from = found.map_or(Source::Several, |(place, _)| Source::Kind(place));
        let Some(sent) = self.sent.iter_mut().find(|sent| sent.to == to) else { return };
        (sent.from, sent.count) = (from, 0);
        for pair in &mut sent.pairs {
            pair.again();
        }
    }

    /// Calls of this kind come after this, as far as is known.
    fn comes_after(&self, kind: u64, this: Next) -> bool {
        let mut at = kind;
        for _ in 0..=KINDS {
            if Next::Call(at) == this {
                return true;
            }
            let sent = self.sent.iter().find(|sent| sent.to == Next::Call(at));
            let Some(Source::Kind(before)) = sent.map(|sent| sent.from) else { return false };
            let Some(read) = self.read.get(before) else { return false };
            at = read.kind;
        }
        true
    }

    /// A kind leads to what it alone leads to, unless that is several things. Where something is sent that several kinds lead to, all are
    /// in doubt: those that fit may be what comes before it.
    fn conclude(&mut self) -> bool {
        let mut other = false;
        let in_use = || self.sent.iter().filter(|sent| !is_old(sent.used, self.looks));
        let doubt = in_use().any(|sent| sent.from == Source::Several);
        for (place, read) in self.read.iter_mut().enumerate() {
            let mut led = in_use().filter(|sent| sent.from == Source::Kind(place)).map(|sent| sent.to);
            let leads_to = match (led.next(), led.next()) {
                (Some(to), None) if !doubt => to,
                _ => Next::Any,
            };
            other |= std::mem::replace(&mut read.leads_to, leads_to) != leads_to;
        }
        other
    }
}

/// It was not read or sent for long.
fn is_old(used: u32, looks: u32) -> bool {
    looks.wrapping_sub(used) > OLD
}

impl Pair {
    fn begin(&mut self, taken: u32) {
        *self = Self { taken, misfits: 0, fewest: u32::MAX, left: 0 };
    }

    /// A new look begins. Those that lead to something else now and then are not waited for; how many are left mostly is not forgotten.
    fn again(&mut self) {
        let left = self.left / 2;
        self.begin(self.taken.wrapping_add(self.fewest));
        self.left = left;
    }

    fn take(&mut self, read: u32) {
        let left = read.wrapping_sub(self.taken);
        if left == 0 {
            self.misfits += 1;
            self.fewest = 0;
        } else {
            self.taken = self.taken.wrapping_add(1);
            self.fewest = self.fewest.min(left - 1);
            self.left = self.left.saturating_add(left - 1);
        }
    }

    fn fits(&self) -> bool {
        self.fewest.saturating_add(self.misfits) <= MISFITS
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const PREPARE: u64 = 11;
    const SELECT: u64 = 12;
    const RESET: u64 = 13;

    /// A loop: in each turn it reads some of what came and sends what follows from what it read in turns before, with eight
    /// requests always open; `chain` says what the nth one asks for.
    fn run(steps: &mut Steps, count: usize, chain: impl Fn(usize) -> Vec<u64>) {
        // What will come: the kind to be read, and the calls that are left to be made.
        let mut coming: Vec<(u64, Vec<u64>)> = Vec::new();
        let mut due: VecDeque<(usize, Vec<u64>)> = VecDeque::new();
        let (mut state, mut begun, mut turn) = (7_u64, 0, 0);
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        while begun < count || !coming.is_empty() || !due.is_empty() {
            while begun < count && coming.len() + due.len() < 8 {
                let mut calls = chain(begun);
                calls.reverse();
                coming.push((REQUEST, calls));
                begun += 1;
            }
            turn += 1;
            for _ in 0..random(4).min(coming.len()) {
                let (kind, calls) = coming.swap_remove(random(coming.len()));
                steps.read(kind);
                // Answers to one kind take a turn more.
                due.push_back((turn + usize::from(kind == SELECT), calls));
            }
            for _ in 0..due.len() {
                let Some((when, mut calls)) = due.pop_front() else { break };
                if when > turn {
                    due.push_back((when, calls));
                    continue;
                }
                match calls.pop() {
                    Some(kind) => {
                        steps.sent(Next::Call(kind));
                        coming.push((kind, calls));
                    }
                    None => _ = steps.sent(Next::Response),
                }
            }
        }
    }

    fn after(steps: &Steps, kind: u64) -> Next {
        steps.read.iter().find(|read| read.kind == kind).map_or(Next::Any, |read| read.leads_to)
    }

    #[test]
    fn what_follows_what_is_known_among_many() {
        let mut steps = Steps::default();
        run(&mut steps, 1_000, |_| vec![PREPARE, SELECT, RESET]);
        let all = [REQUEST, PREPARE, SELECT, RESET].map(|kind| after(&steps, kind));
        assert_eq!(all, [Next::Call(PREPARE), Next::Call(SELECT), Next::Call(RESET), Next::Response]);
        // A program that changes is followed, once somebody finds that it did.
        run(&mut steps, 1_000, |_| vec![RESET, SELECT]);
        steps.forget();
        run(&mut steps, 1_000, |_| vec![RESET, SELECT]);
        let all = [REQUEST, SELECT, RESET].map(|kind| after(&steps, kind));
        assert_eq!(all, [Next::Call(RESET), Next::Response, Next::Call(SELECT)]);
    }

    #[test]
    fn what_leads_to_several_things_is_not_told() {
        let mut steps = Steps::default();
        run(&mut steps, 2_000, |n| if n % 3 == 0 { vec![SELECT, RESET] } else { vec![SELECT] });
        assert_eq!((after(&steps, REQUEST), after(&steps, SELECT)), (Next::Any, Next::Any));
        // The same call twice.
        let mut steps = Steps::default();
        run(&mut steps, 2_000, |_| vec![SELECT, SELECT]);
        assert_eq!((after(&steps, REQUEST), after(&steps, SELECT)), (Next::Any, Next::Any));
    }

    #[test]
    fn a_rare_other_way_does_not_matter() {
        let mut steps = Steps::default();
        run(&mut steps, 4_000, |n| if n % 50 == 0 { Vec::new() } else { vec![SELECT, RESET] });
        assert_eq!((after(&steps, REQUEST), after(&steps, SELECT)), (Next::Call(SELECT), Next::Call(RESET)));
    }

    #[test]
    fn kinds_are_bounded() {
        let mut steps = Steps::default();
        for kind in 1..10_000 {
            steps.read(kind);
            steps.sent(Next::Call(kind));
        }
        assert_eq!((steps.read.len(), steps.sent.len()), (KINDS, KINDS));
    }
}
