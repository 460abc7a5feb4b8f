//! Machine code to instructions, with what the kernel would do with a probe on each. Comes in: bytes and their address. Goes
//! out: a list in the order of the code.

use iced_x86::{
    Code, Decoder, DecoderOptions, EncodingKind, FlowControl, Instruction, Mnemonic, OpKind, Register,
};

use super::{Class, Function, Refusal};

/// Longest function that is looked at.
pub(super) const LONGEST: usize = 256 * 1024;

/// The code of a function.
pub(super) struct Listing<'a> {
    pub(super) function: Function<'a>,
    pub(super) lines: Vec<Instruction>,
    /// The whole code could be read.
    pub(super) whole: bool,
}

impl<'a> Listing<'a> {
    /// Reads the code from its start.
    pub(super) fn of(function: &Function<'a>) -> Result<Self, Refusal> {
        let name = || function.name.to_owned();
        if function.code.is_empty() {
            return Err(Refusal::NoCode(name()));
        }
        if function.code.len() > LONGEST {
            return Err(Refusal::TooLong(name(), function.code.len()));
        }
        let mut decoder = Decoder::with_ip(64, function.code, function.address, DecoderOptions::NONE);
        let mut lines = Vec::with_capacity(function.code.len() / 4);
        let mut whole = true;
        while decoder.can_decode() {
            let line = decoder.decode();
            if line.is_invalid() {
                whole = false;
                break;
            }
            lines.push(line);
        }
        if lines.is_empty() {
            return Err(Refusal::Unreadable(name(), function.address));
        }
        Ok(Self { function: *function, lines, whole })
    }

    /// Index of the instruction that begins at an address.
    pub(super) fn at(&self, address: u64) -> Option<usize> {
        self.lines.binary_search_by_key(&address, Instruction::ip).ok()
    }

    /// Whether an address is in the function.
    pub(super) fn holds(&self, address: u64) -> bool {
        address.checked_sub(self.function.address).is_some_and(|into| into < self.function.code.len() as u64)
    }

    /// The bytes of an instruction.
    fn bytes(&self, line: &Instruction) -> &'a [u8] {
        let from = line.ip().wrapping_sub(self.function.address) as usize;
        from.checked_add(line.len()).and_then(|to| self.function.code.get(from..to)).unwrap_or_default()
    }

    /// What a probe on an instruction costs, or why the kernel refuses one.
    pub(super) fn class(&self, line: &Instruction) -> Result<Class, &'static str> {
        let bytes = self.bytes(line);
        // Prefixes that the kernel refuses, whatever follows; a lock, and segments that 64-bit code ignores.
        if prefixes(bytes).any(|byte| matches!(byte, 0xf0 | 0x26 | 0x2e | 0x36 | 0x3e)) {
            return Err("the kernel refuses probes on instructions with a lock or segment prefix");
        }
        Ok(match bytes {
            [0x0f, 0x1f, 0x44, 0x00, 0x00] => Class::Nop5,
            [0x90] => Class::Nop,
            [0x50..=0x57] | [0x41, 0x50..=0x57] => Class::Push,
            [0x70..=0x7f | 0xeb, _] | [0xe9, ..] | [0x0f, 0x80..=0x8f, ..] => Class::Jump,
            [0xe8, ..] => Class::Call,
            [0xcc, ..] => return Err("there is a breakpoint already"),
            _ => return stepped(line),
        })
    }

    /// The instruction for people.
    pub(super) fn text(&self, line: &Instruction) -> String {
        let mut text = format!("{:?}", line.mnemonic()).to_lowercase();
        for operand in 0..line.op_count() {
            let said = match line.op_kind(operand) {
                OpKind::Register => format!("{:?}", line.op_register(operand)).to_lowercase(),
                OpKind::NearBranch64 => {
                    let to = line.near_branch_target();
                    match to.checked_sub(self.function.address).filter(|_| self.holds(to)) {
                        Some(into) => format!("+{into:#x}"),
                        None => format!("{to:#x}"),
                    }
                }
                OpKind::Memory if line.memory_base() == Register::None => "[...]".to_owned(),
                OpKind::Memory => format!("[{:?}...]", line.memory_base()).to_lowercase(),
                OpKind::Immediate8to64 | OpKind::Immediate32to64 | OpKind::Immediate8to32 => {
                    format!("{:#x}", line.immediate(operand))
                }
                _ => "...".to_owned(),
            };
            text.push_str(if operand == 0 { " " } else { "," });
            text.push_str(&said);
        }
        text
    }
}

fn prefixes(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let is_prefix = |byte: &u8| {
        matches!(byte, 0xf0 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x66 | 0x67)
    };
    bytes.iter().copied().take_while(move |byte| is_prefix(byte))
}

/// What the kernel executes out of line: common instructions of plain programs, and nothing else.
fn stepped(line: &Instruction) -> Result<Class, &'static str> {
    const NOT: &str = "the kernel does not execute this instruction out of line, or not reliably";
    if line.encoding() != EncodingKind::Legacy || line.is_privileged() || line.is_string_instruction() {
        return Err(NOT);
    }
    if line.has_rep_prefix() && line.code() != Code::Endbr64 || line.has_repne_prefix() {
        return Err(NOT);
    }
    match line.flow_control() {
        FlowControl::Next | FlowControl::Return | FlowControl::IndirectBranch | FlowControl::IndirectCall => {
        }
        _ => return Err(NOT),
    }
    match line.mnemonic() {
        // Flags that a trap would change, and what ends in the kernel.
        Mnemonic::Pushfq | Mnemonic::Popfq | Mnemonic::Syscall | Mnemonic::Int | Mnemonic::Int1 => Err(NOT),
        Mnemonic::Cpuid | Mnemonic::Rdtsc | Mnemonic::Rdtscp | Mnemonic::Xbegin | Mnemonic::Xend => Err(NOT),
        _ => Ok(Class::Stepped),
    }
}
