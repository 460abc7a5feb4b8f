//! Ways through a function. Comes in: its instructions. Goes out: for each, which may come next; and for one of them, whether
//! every call passes it, and passes it once.

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind};

use super::Abi;
use super::decode::Listing;

/// What may come after an instruction.
#[derive(Clone, Debug, Default)]
pub(super) struct Next {
    /// Instructions, by index.
    pub(super) to: Vec<usize>,
    /// The function may be left here: it returns, or goes on in another one.
    pub(super) leaves: bool,
    /// It goes on wherever a table says.
    pub(super) anywhere: bool,
}

/// The function as a graph.
pub(super) struct Graph {
    pub(super) next: Vec<Next>,
    /// Instructions that a jump within the function, or from outside, goes to.
    pub(super) jumped_to: Vec<bool>,
    /// Entered from outside, beside the first one.
    pub(super) doors: Vec<usize>,
}

impl Graph {
    pub(super) fn of(listing: &Listing<'_>, abi: Abi) -> Self {
        let lines = &listing.lines;
        let mut next = Vec::with_capacity(lines.len());
        let mut jumped_to = vec![false; lines.len()];
        for (index, line) in lines.iter().enumerate() {
            let here = after(listing, index, line);
            if line.flow_control() != FlowControl::Next {
                for to in here.to.iter().filter(|to| **to != index + 1) {
                    mark(&mut jumped_to, *to);
                }
            }
            next.push(here);
        }
        let doors: Vec<usize> =
            listing.function.jumped_to.iter().filter_map(|address| listing.at(*address)).collect();
        for door in &doors {
            mark(&mut jumped_to, *door);
        }
        let mut graph = Self { next, jumped_to, doors };
        if abi == Abi::Go {
            graph.cut_growth(listing);
        }
        graph
    }

    /// In Go the last lines of a function make the stack grow and start it again. What stands before them does not run into
    /// them (it is a call that never returns), although it looks so.
    fn cut_growth(&mut self, listing: &Listing<'_>) {
        let Some(again) = self.next.iter().rposition(|next| next.to.as_slice() == [0]) else { return };
        // The conditional jumps before anything is pushed or called lead there.
        for (index, line) in listing.lines.iter().enumerate().take(8) {
            match line.flow_control() {
                FlowControl::ConditionalBranch => {}
                FlowControl::Next if !matches!(line.mnemonic(), Mnemonic::Push | Mnemonic::Ret) => continue,
                _ => break,
            }
            let first =
                self.next.get(index).and_then(|next| next.to.iter().find(|to| **to != index + 1)).copied();
            let Some(first) = first.filter(|first| *first <= again && *first > index) else { continue };
            let calls = listing.lines.get(first..again).unwrap_or_default();
            if calls.iter().filter(|line| line.flow_control() == FlowControl::Call).count() != 1 {
                continue;
            }
            if let Some(before) = first.checked_sub(1).and_then(|before| self.next.get_mut(before)) {
                before.to.retain(|to| *to != first);
            }
        }
    }

    /// Whether an instruction can come twice in one call: whether a way leads from it back to itself. `apart` says of a jump to
    /// anywhere, and of an instruction, that the one cannot lead to the other directly.
    pub(super) fn comes_twice(&self, target: usize, apart: &dyn Fn(usize, usize) -> bool) -> bool {
        let mut seen = vec![false; self.next.len()];
        let mut left = vec![target];
        while let Some(index) = left.pop() {
            let Some(next) = self.next.get(index) else { continue };
            if next.anywhere {
                if !apart(index, target) {
                    return true;
                }
                // Wherever it leads, all that may follow is the rest of the function; ways back are found from there.
                left.extend(self.marked(&mut seen, self.leaders().filter(|leader| !apart(index, *leader))));
            }
            if next.to.contains(&target) {
                return true;
            }
            left.extend(self.marked(&mut seen, next.to.iter().copied()));
        }
        false
    }

    /// Whether the function can be left without passing an instruction.
    pub(super) fn can_be_missed(&self, target: usize) -> bool {
        if self.doors.iter().any(|door| *door <= target) {
            return true;
        }
        let mut seen = vec![false; self.next.len()];
        let mut left: Vec<usize> = self.marked(&mut seen, std::iter::once(0));
        while let Some(index) = left.pop() {
            if index == target {
                continue;
            }
            let Some(next) = self.next.get(index) else { continue };
            if next.leaves || next.anywhere {
                return true;
            }
            left.extend(self.marked(&mut seen, next.to.iter().copied()));
        }
        false
    }

    /// Instructions that a table may lead to: those that nothing runs into, and those that are jumped to.
    fn leaders(&self) -> impl Iterator<Item = usize> + '_ {
        let fallen_into = |index: usize| {
            index
                .checked_sub(1)
                .and_then(|before| self.next.get(before))
                .is_some_and(|next| next.to.contains(&index))
        };
        (1..self.next.len())
            .filter(move |index| !fallen_into(*index) || self.jumped_to.get(*index).copied().unwrap_or(false))
    }

    fn marked(&self, seen: &mut [bool], from: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut fresh = Vec::new();
        for index in from {
            if let Some(place) = seen.get_mut(index)
                && !std::mem::replace(place, true)
            {
                fresh.push(index);
            }
        }
        fresh
    }
}

fn mark(jumped_to: &mut [bool], index: usize) {
    if let Some(place) = jumped_to.get_mut(index) {
        *place = true;
    }
}

fn after(listing: &Listing<'_>, index: usize, line: &Instruction) -> Next {
    let mut next = Next::default();
    let follows = index + 1 < listing.lines.len();
    let fall = |next: &mut Next| {
        if follows {
            next.to.push(index + 1);
        } else {
            next.leaves = true;
        }
    };
    match line.flow_control() {
        FlowControl::Next => fall(&mut next),
        // A call at the very end never returns.
        FlowControl::Call | FlowControl::IndirectCall => {
            if follows || !listing.whole {
                fall(&mut next);
            }
        }
        FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
            if line.flow_control() == FlowControl::ConditionalBranch {
                fall(&mut next);
            }
            let to = line.near_branch_target();
            match listing.at(to) {
                Some(to) => next.to.push(to),
                // Into the middle of an instruction: nothing is certain any more.
                None if listing.holds(to) => next.anywhere = true,
                None => next.leaves = true,
            }
        }
        // Through the table of imported functions: a call in the place of a return.
        FlowControl::IndirectBranch
            if line.op0_kind() == OpKind::Memory && line.is_ip_rel_memory_operand() =>
        {
            next.leaves = true;
        }
        FlowControl::IndirectBranch => {
            next.anywhere = true;
            next.leaves = true;
        }
        FlowControl::Return => next.leaves = true,
        // System calls and software interrupts return; ud2 and int3 do not.
        FlowControl::Interrupt if line.mnemonic() != Mnemonic::Int3 => fall(&mut next),
        FlowControl::Interrupt | FlowControl::Exception => {}
        FlowControl::XbeginXabortXend => fall(&mut next),
    }
    next
}
