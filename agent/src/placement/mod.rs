//! Where a probe goes: the cheapest instruction of a function that is safe, that every call passes exactly once, and where
//! the wanted values still are.
//!
//! Comes in: the machine code of a function and what a probe wants to read. Goes out: a [`Site`], or a [`Refusal`] that says
//! why there is none. Pure: no process and no kernel is asked. What a trap costs depends on the instruction under it: the
//! kernel emulates a few (push, jumps, calls), and single-steps all others, which takes some fifteen times as long in a guest
//! (docs/adr/0010-uprobe-sites.md).

mod decode;
mod elf;
mod flow;
mod graph;
mod select;
#[cfg(test)]
mod tests;

pub use elf::{Elf, ElfError};
pub use select::{after_call, at_call, entry, returns};
use spanwise_common::place::{self, PLACES, Place};
use thiserror::Error;

/// How a function takes its arguments and gives its results.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abi {
    /// C, C++, Rust on Linux.
    SysV,
    /// Go's ABIInternal (Go 1.17 and later): arguments in registers, r14 is the goroutine, r15 and xmm15 are fixed.
    Go,
}

impl Abi {
    /// Number in machine code of the register of an integer argument.
    #[must_use]
    pub fn argument(self, index: u8) -> Option<u8> {
        let registers: &[u8] = match self {
            Self::SysV => &[7, 6, 2, 1, 8, 9],
            Self::Go => &[0, 3, 1, 7, 6, 8, 9, 10, 11],
        };
        registers.get(usize::from(index)).copied()
    }

    /// Number in machine code of the register of an integer result.
    #[must_use]
    pub fn result(self, index: u8) -> Option<u8> {
        match self {
            Self::SysV => [0, 2].get(usize::from(index)).copied(),
            Self::Go => self.argument(index),
        }
    }
}

/// What a probe wants to read, in the order of its places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// An integer argument of the function, as at its call: its register's index in the calling convention.
    Argument(u8),
    /// An integer result of the call that the site follows.
    Result(u8),
}

/// What is wanted of a site.
#[derive(Clone, Copy, Debug)]
pub struct Needs<'a> {
    /// Calling convention.
    pub abi: Abi,
    /// Values that must be known at the site.
    pub values: &'a [Value],
}

/// What this kernel and this run allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Five-byte nops may be probed (`hazard.uprobe_nop5`).
    pub nop5: bool,
    /// Sites that are single-stepped may be used where there is no cheap one.
    pub stepped: bool,
    /// Where every other tracer puts its probes: the first instruction, whatever it costs. For comparison only.
    pub naive: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { nop5: false, stepped: true, naive: false }
    }
}

impl Rules {
    /// The rules of this run: `SPANWISE_PLACEMENT=naive` in the environment is for measurements.
    #[must_use]
    pub fn of_environment() -> Self {
        let naive = std::env::var_os("SPANWISE_PLACEMENT").is_some_and(|value| value == "naive");
        Self { naive, ..Self::default() }
    }
}

/// A function of a program file.
#[derive(Clone, Copy, Debug)]
pub struct Function<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address as linked.
    pub address: u64,
    /// Where its code is in the file.
    pub file_offset: u64,
    /// Its code.
    pub code: &'a [u8],
    /// Addresses in it that code elsewhere jumps to (parts of it that the compiler moved away).
    pub jumped_to: &'a [u64],
}

/// How the kernel finishes the instruction under a probe, cheapest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// A nop of five bytes: from Linux 6.18 no trap at all.
    Nop5,
    /// A nop of one byte: emulated.
    Nop,
    /// A push of a register: emulated.
    Push,
    /// A relative jump, with or without condition: emulated.
    Jump,
    /// A relative call: emulated.
    Call,
    /// Anything else: executed out of line, with a second trap.
    Stepped,
    /// The return of the function, by a return address that the kernel replaces in a trap at an instruction that it emulates.
    Return,
    /// The same by a trap at one that is executed out of line.
    SteppedReturn,
}

impl Class {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nop5 => "nop5",
            Self::Nop => "nop",
            Self::Push => "push",
            Self::Jump => "jump",
            Self::Call => "call",
            Self::Stepped => "stepped",
            Self::Return => "return",
            Self::SteppedReturn => "stepped-return",
        }
    }

    /// Nanoseconds a hit, as measured in a guest with Linux 6.18 (docs/adr/0010-uprobe-sites.md). On bare metal the dear ones cost
    /// some three times as much as the others, and not fifteen.
    #[must_use]
    pub fn cost_ns(self) -> u32 {
        match self {
            Self::Nop5 => 485,
            Self::Nop => 506,
            Self::Push => 680,
            Self::Jump => 705,
            Self::Call => 726,
            Self::Stepped => 11_000,
            Self::Return => 880,
            Self::SteppedReturn => 11_200,
        }
    }
}

/// A place for a probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    /// Name of the function.
    pub function: String,
    /// Address of the instruction as linked.
    pub address: u64,
    /// The same in the file: what the kernel is told.
    pub file_offset: u64,
    /// Distance from the beginning of the function.
    pub from_start: u64,
    /// The instruction, for people.
    pub instruction: String,
    /// What a hit costs.
    pub class: Class,
    /// Why it is this one, in a sentence.
    pub why: String,
    /// Where each wanted value is.
    pub places: Vec<Place>,
}

impl Site {
    /// The probe's cookie: the first three places, and sixteen bits of the instrument's own.
    #[must_use]
    pub fn cookie(&self, own: u16) -> u64 {
        let mut places = [Place::NOWHERE; PLACES];
        for (to, from) in places.iter_mut().zip(&self.places) {
            *to = *from;
        }
        place::cookie(places, own)
    }

    /// Whether the kernel must hook the function's return.
    #[must_use]
    pub fn returns(&self) -> bool {
        matches!(self.class, Class::Return | Class::SteppedReturn)
    }
}

/// Why a function gets no probe.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    /// The file has no such function.
    #[error("{0}: the file names no such function")]
    Absent(String),
    /// There is no code.
    #[error("{0}: its code is not in the file")]
    NoCode(String),
    /// More code than is looked at.
    #[error("{0}: it has {1} bytes of code, more than is looked at")]
    TooLong(String, usize),
    /// The code cannot be read from its start.
    #[error("{0}: its code cannot be read at {1:#x}")]
    Unreadable(String, u64),
    /// No instruction is passed once a call.
    #[error("{0}: no instruction is passed exactly once by every call")]
    NotOnce(String),
    /// The values are gone at every place that would do otherwise.
    #[error("{0}: where a probe could go, the wanted values are no longer known")]
    ValuesGone(String),
    /// What is there is refused by the kernel, or dangerous on it.
    #[error("{0}: {1}")]
    Unsafe(String, String),
    /// Only a dear site would do, and dear ones are not allowed.
    #[error("{0}: there is no cheap place, and dear ones are not allowed here")]
    Dear(String),
    /// The call is not in the function.
    #[error("{0}: it does not contain the call that is looked for")]
    NoCall(String),
    /// A return probe where there must be none.
    #[error("{0}: return probes crash Go programs")]
    ReturnInGo(String),
    /// The calling convention has no such register.
    #[error("{0}: a wanted value is not passed in a register")]
    NotInRegister(String),
    /// Another processor.
    #[error("{0}: code of this processor is not understood yet")]
    Processor(String),
}
