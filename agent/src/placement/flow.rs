//! Where values are: which registers and stack slots hold the function's arguments, or the results of a call, before each
//! instruction. Comes in: the graph. Goes out: a state for each instruction that can be reached.
//!
//! A value is followed through moves between registers and to and from the function's own stack. What is not understood
//! makes a value unknown, never wrong; the one assumption is that nobody writes through a stray pointer into a slot whose
//! address the function never took.

use std::collections::{BTreeSet, VecDeque};

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};
use spanwise_common::place::Place;

use super::decode::Listing;
use super::graph::Graph;
use super::{Abi, Value};

/// Slots that are followed in one function.
const SLOTS: usize = 48;
/// Steps before a function is given up, for each of its instructions.
const PATIENCE: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    Nothing,
    Is(Value),
    /// The stack pointer at the call of the function, and so much.
    Frame(i64),
}

/// The same in half the room: there is a state for each of thousands of instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Held {
    Nothing,
    Is(Value),
    Frame(i32),
}

impl From<Known> for Held {
    fn from(known: Known) -> Self {
        match known {
            Known::Nothing => Self::Nothing,
            Known::Is(value) => Self::Is(value),
            // No stack is so large.
            Known::Frame(depth) => i32::try_from(depth).map_or(Self::Nothing, Self::Frame),
        }
    }
}

impl From<Held> for Known {
    fn from(held: Held) -> Self {
        match held {
            Held::Nothing => Self::Nothing,
            Held::Is(value) => Self::Is(value),
            Held::Frame(depth) => Self::Frame(i64::from(depth)),
        }
    }
}

/// What is known before an instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    registers: [Held; 16],
    /// Distance from the stack pointer at the call of the function; what is there.
    slots: Vec<(i64, Value)>,
}

const SP: usize = 4;

impl State {
    fn at_call(abi: Abi) -> Self {
        let mut state = Self { registers: [Held::Nothing; 16], slots: Vec::new() };
        for index in 0..16 {
            if let Some(register) = abi.argument(index) {
                state.set(usize::from(register), Known::Is(Value::Argument(index)));
            }
        }
        state.set(SP, Known::Frame(0));
        state
    }

    /// How far the stack pointer is from where it was at the call of the function.
    pub(super) fn depth(&self) -> Option<i64> {
        match self.get(SP) {
            Known::Frame(depth) => Some(depth),
            _ => None,
        }
    }

    /// Where a value is: a register rather than the stack, its own register rather than another.
    pub(super) fn place(&self, value: Value, abi: Abi) -> Option<Place> {
        let own = match value {
            Value::Argument(index) => abi.argument(index),
            Value::Result(index) => abi.result(index),
        };
        let holds = |register: usize| self.get(register) == Known::Is(value);
        let register =
            own.map(usize::from).filter(|own| holds(*own)).or_else(|| (0..16).find(|one| holds(*one)));
        if let Some(register) = register {
            return Some(Place::register(register as u8));
        }
        let depth = self.depth()?;
        self.slots.iter().filter(|(_, held)| *held == value).find_map(|(slot, _)| Place::stack(slot - depth))
    }

    fn get(&self, register: usize) -> Known {
        self.registers.get(register).copied().map_or(Known::Nothing, Known::from)
    }

    fn set(&mut self, register: usize, known: Known) {
        if let Some(place) = self.registers.get_mut(register) {
            *place = known.into();
        }
    }

    fn slot(&self, at: i64) -> Known {
        self.slots.iter().find(|(slot, _)| *slot == at).map_or(Known::Nothing, |(_, value)| Known::Is(*value))
    }

    /// Something is written to the stack: what it overlaps is gone.
    fn overwrite(&mut self, at: i64, size: i64) {
        self.slots.retain(|(slot, _)| slot + 8 <= at || at + size <= *slot);
    }

    fn store(&mut self, at: i64, known: Known, escaped: &BTreeSet<i64>) {
        self.overwrite(at, 8);
        if let Known::Is(value) = known
            && self.slots.len() < SLOTS
            && !escaped.contains(&at)
        {
            self.slots.push((at, value));
            self.slots.sort_unstable_by_key(|(slot, _)| *slot);
        }
    }

    /// What is true of both. Whether anything was lost.
    fn meet(&mut self, other: &Self) -> bool {
        let before = self.clone();
        for (mine, theirs) in self.registers.iter_mut().zip(&other.registers) {
            if mine != theirs {
                *mine = Held::Nothing;
            }
        }
        self.slots.retain(|slot| other.slots.contains(slot));
        *self != before
    }

    fn call(&mut self, abi: Abi, wanted: bool) {
        let kept: &[usize] = match abi {
            Abi::SysV => &[3, SP, 5, 12, 13, 14, 15],
            Abi::Go => &[SP, 5],
        };
        for register in (0..16).filter(|register| !kept.contains(register)) {
            self.set(register, Known::Nothing);
        }
        // Results of an earlier call are not those of this one.
        for held in &mut self.registers {
            if matches!(held, Held::Is(Value::Result(_))) {
                *held = Held::Nothing;
            }
        }
        self.slots.retain(|(_, value)| !matches!(value, Value::Result(_)));
        // What is below the stack pointer belongs to whoever is called.
        if let Known::Frame(depth) = self.get(SP) {
            self.slots.retain(|(slot, _)| *slot >= depth);
        }
        if wanted {
            for index in 0..16 {
                if let Some(register) = abi.result(index) {
                    self.set(usize::from(register), Known::Is(Value::Result(index)));
                }
            }
        }
    }
}

/// Follows the values. `wanted` are the calls whose results are followed.
pub(super) fn follow(
    listing: &Listing<'_>,
    graph: &Graph,
    abi: Abi,
    wanted: &dyn Fn(usize) -> bool,
) -> Vec<Option<State>> {
    let mut escaped = BTreeSet::new();
    // A slot whose address is taken anywhere is not followed anywhere; mostly that is known in the second round.
    loop {
        let before = escaped.len();
        let states = run(listing, graph, abi, wanted, &mut escaped);
        if escaped.len() == before {
            return states;
        }
    }
}

fn run(
    listing: &Listing<'_>,
    graph: &Graph,
    abi: Abi,
    wanted: &dyn Fn(usize) -> bool,
    escaped: &mut BTreeSet<i64>,
) -> Vec<Option<State>> {
    let count = listing.lines.len();
    let mut states: Vec<Option<State>> = vec![None; count];
    let mut queued = vec![false; count];
    let mut left = VecDeque::new();
    let mut factory = InstructionInfoFactory::new();
    let enter = |states: &mut Vec<Option<State>>,
                 left: &mut VecDeque<usize>,
                 queued: &mut Vec<bool>,
                 index: usize,
                 state: &State| {
        let Some(place) = states.get_mut(index) else { return };
        let changed = match place {
            Some(known) => known.meet(state),
            None => {
                *place = Some(state.clone());
                true
            }
        };
        if changed
            && let Some(flag) = queued.get_mut(index)
            && !std::mem::replace(flag, true)
        {
            left.push_back(index);
        }
    };
    enter(&mut states, &mut left, &mut queued, 0, &State::at_call(abi));
    let nothing = State { registers: [Held::Nothing; 16], slots: Vec::new() };
    for door in &graph.doors {
        enter(&mut states, &mut left, &mut queued, *door, &nothing);
    }
    let mut steps = 0;
    while let Some(index) = left.pop_front() {
        steps += 1;
        if steps > count.saturating_mul(PATIENCE) {
            // It cannot be: every step loses something. Claim nothing.
            return vec![None; count];
        }
        if let Some(flag) = queued.get_mut(index) {
            *flag = false;
        }
        let (Some(Some(state)), Some(line), Some(next)) =
            (states.get(index), listing.lines.get(index), graph.next.get(index))
        else {
            continue;
        };
        let mut state = state.clone();
        step(&mut state, line, abi, wanted(index), &mut factory, escaped);
        if next.anywhere {
            // Where the stack pointer is known to be elsewhere, no table leads.
            let depth = state.depth();
            let elsewhere = |known: &Option<State>| {
                known.as_ref().and_then(State::depth).zip(depth).is_some_and(|(there, here)| there != here)
            };
            let open: Vec<usize> =
                states.iter().enumerate().filter(|(_, known)| !elsewhere(known)).map(|(to, _)| to).collect();
            for to in open {
                enter(&mut states, &mut left, &mut queued, to, &state);
            }
        }
        for to in &next.to {
            enter(&mut states, &mut left, &mut queued, *to, &state);
        }
    }
    states
}

/// Number in machine code of a whole register of 64 bits.
fn whole(register: Register) -> Option<usize> {
    register.is_gpr64().then(|| register.number())
}

/// Number of the register that an instruction writes a part of.
fn part(register: Register) -> Option<usize> {
    register.is_gpr().then(|| register.full_register().number())
}

/// Where on the stack an operand in memory is.
fn on_stack(state: &State, line: &Instruction) -> Option<i64> {
    if line.memory_index() != Register::None {
        return None;
    }
    match state.get(whole(line.memory_base())?) {
        Known::Frame(base) => base.checked_add(line.memory_displacement64() as i64),
        _ => None,
    }
}

fn step(
    state: &mut State,
    line: &Instruction,
    abi: Abi,
    wanted: bool,
    factory: &mut InstructionInfoFactory,
    escaped: &mut BTreeSet<i64>,
) {
    match line.flow_control() {
        FlowControl::Call | FlowControl::IndirectCall => return state.call(abi, wanted),
        _ => {}
    }
    let kinds = (line.op_count() > 0).then(|| (line.op0_kind(), line.op1_kind()));
    match (line.mnemonic(), kinds) {
        (Mnemonic::Push, Some((kind, _))) => {
            let known = match kind {
                OpKind::Register => whole(line.op0_register()).map_or(Known::Nothing, |from| state.get(from)),
                _ => Known::Nothing,
            };
            moved(state, -8);
            if let Known::Frame(depth) = state.get(SP) {
                state.store(depth, known, escaped);
            }
        }
        (Mnemonic::Pop, Some((OpKind::Register, _))) => {
            let known = match state.get(SP) {
                Known::Frame(depth) => state.slot(depth),
                _ => Known::Nothing,
            };
            moved(state, 8);
            if let Some(to) = whole(line.op0_register()) {
                state.set(to, known);
            }
        }
        (Mnemonic::Mov, Some((OpKind::Register, OpKind::Register)))
            if let (Some(to), Some(from)) = (whole(line.op0_register()), whole(line.op1_register())) =>
        {
            state.set(to, state.get(from));
        }
        (Mnemonic::Mov, Some((OpKind::Register, OpKind::Memory)))
            if let Some(to) = whole(line.op0_register()) =>
        {
            let known = on_stack(state, line).map_or(Known::Nothing, |at| state.slot(at));
            state.set(to, known);
        }
        (Mnemonic::Mov, Some((OpKind::Memory, OpKind::Register)))
            if let (Some(from), Some(at)) = (whole(line.op1_register()), on_stack(state, line)) =>
        {
            state.store(at, state.get(from), escaped);
        }
        (Mnemonic::Lea, Some((OpKind::Register, _))) if let Some(to) = whole(line.op0_register()) => {
            let at = on_stack(state, line);
            state.set(to, at.map_or(Known::Nothing, Known::Frame));
            // Frame pointers point between things; any other pointer is to be read and written through.
            if let Some(at) = at.filter(|_| to != SP && to != 5) {
                escape(state, at, escaped);
            }
        }
        (Mnemonic::Add | Mnemonic::Sub, Some((OpKind::Register, kind)))
            if whole(line.op0_register()) == Some(SP)
                && matches!(kind, OpKind::Immediate8to64 | OpKind::Immediate32to64) =>
        {
            let by = line.immediate(1) as i64;
            moved(state, if line.mnemonic() == Mnemonic::Add { by } else { by.wrapping_neg() });
        }
        (Mnemonic::Leave, _) => {
            state.set(SP, state.get(5));
            let known = match state.get(SP) {
                Known::Frame(depth) => state.slot(depth),
                _ => Known::Nothing,
            };
            moved(state, 8);
            state.set(5, known);
        }
        (Mnemonic::Ret, _) => {}
        _ => other(state, line, factory, escaped),
    }
    forget_below(state);
}

/// The address of a slot goes elsewhere: whoever has it may write there, also a little beyond.
fn escape(state: &mut State, at: i64, escaped: &mut BTreeSet<i64>) {
    if escaped.len() < 4 * SLOTS {
        escaped.insert(at);
    }
    state.overwrite(at, 8);
}

fn moved(state: &mut State, by: i64) {
    let known = match state.get(SP) {
        Known::Frame(depth) => depth.checked_add(by).map_or(Known::Nothing, Known::Frame),
        _ => Known::Nothing,
    };
    state.set(SP, known);
}

/// The kernel may write a signal's frame from 128 bytes below the stack pointer.
fn forget_below(state: &mut State) {
    match state.get(SP) {
        Known::Frame(depth) => state.slots.retain(|(slot, _)| *slot >= depth.saturating_sub(128)),
        _ => state.slots.clear(),
    }
}

/// An instruction that moves no value: what it writes is unknown from now on.
fn other(
    state: &mut State,
    line: &Instruction,
    factory: &mut InstructionInfoFactory,
    escaped: &mut BTreeSet<i64>,
) {
    let writes = |access: OpAccess| {
        matches!(
            access,
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        )
    };
    // The stack's address in another register, other than by `lea` and `mov`, is not followed, so it must not escape unseen.
    let arithmetic =
        matches!(line.mnemonic(), Mnemonic::Add | Mnemonic::Xchg | Mnemonic::Cmovne | Mnemonic::Cmove);
    let info = factory.info(line);
    for used in info.used_memory().iter().filter(|used| writes(used.access())) {
        let base = whole(used.base()).map_or(Known::Nothing, |base| state.get(base));
        if let Known::Frame(base) = base
            && used.index() == Register::None
            && let Some(at) = base.checked_add(used.displacement() as i64)
        {
            state.overwrite(at, used.memory_size().size().max(1) as i64);
        } else if let Known::Frame(_) = base {
            // Somewhere on the stack.
            state.slots.clear();
        }
    }
    for used in info.used_registers() {
        if let Some(register) = part(used.register()) {
            if arithmetic
                && let Known::Frame(at) = state.get(register)
                && register != SP
            {
                escape(state, at, escaped);
            }
            if writes(used.access()) {
                state.set(register, Known::Nothing);
            }
        }
    }
}
