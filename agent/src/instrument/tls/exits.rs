//! Where a call ends: for each return of a function, the last instruction before it that the kernel emulates and that is passed
//! only on the way to this return, with the result in its register; else the return itself.
//!
//! Functions that guard their stack compare a number just before they return and jump if it has changed: that jump is such an
//! instruction, and it costs a fifteenth of what the return costs in a guest.

use std::collections::HashSet;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};
use spanwise_common::place::Place;

use crate::placement::{Abi, Class, Function, Refusal, Rules, Site};

/// The first instruction of a function, for one whose code cannot be followed further: the arguments are where the caller put them.
/// That a jump inside the function leads back to its very beginning is known by the jump, but for one by a table.
pub(super) fn start(function: &Function<'_>, arguments: &[u8], rules: Rules) -> Result<Site, Refusal> {
    let name = || function.name.to_owned();
    let lines: Vec<Instruction> =
        Decoder::with_ip(64, function.code, function.address, DecoderOptions::NONE).into_iter().collect();
    if lines
        .iter()
        .any(|line| line.near_branch_target() == function.address && line.flow_control() != FlowControl::Call)
    {
        return Err(Refusal::NotOnce(name()));
    }
    let code = Code { function, lines: &lines };
    let first = lines.first().filter(|line| !line.is_invalid()).ok_or_else(|| Refusal::NoCode(name()))?;
    let class = match first.mnemonic() {
        Mnemonic::Push if first.op0_kind() == OpKind::Register => Class::Push,
        Mnemonic::Sub | Mnemonic::Mov | Mnemonic::Test | Mnemonic::Endbr64 if rules.stepped => Class::Stepped,
        _ => {
            return Err(Refusal::Unsafe(
                name(),
                "its first instruction is none that is known to bear a probe".to_owned(),
            ));
        }
    };
    let mut site = code.site(0, class, "the first instruction: its code cannot be followed further");
    site.places = arguments
        .iter()
        .map(|index| Abi::SysV.argument(*index).map(Place::register))
        .collect::<Option<_>>()
        .ok_or_else(|| Refusal::NotInRegister(name()))?;
    Ok(site)
}

/// Longest function that is looked at.
const LONGEST: usize = 64 * 1024;
/// Returns of one function.
const MOST: usize = 16;
/// Number of the register of the result.
const RESULT: u8 = 0;

/// The ends of a function.
pub(super) fn of(function: &Function<'_>, rules: Rules) -> Result<Vec<Site>, Refusal> {
    let name = || function.name.to_owned();
    if function.code.is_empty() {
        return Err(Refusal::NoCode(name()));
    }
    if function.code.len() > LONGEST {
        return Err(Refusal::TooLong(name(), function.code.len()));
    }
    let lines: Vec<Instruction> =
        Decoder::with_ip(64, function.code, function.address, DecoderOptions::NONE).into_iter().collect();
    if let Some(line) = lines.iter().find(|line| line.is_invalid()) {
        return Err(Refusal::Unreadable(name(), line.ip()));
    }
    let code = Code { function, lines: &lines };
    let joined = code.joined()?;
    // Where a table sends the call is not known: any place before a return may be one.
    let cheap = |at| joined.as_ref().filter(|_| !rules.naive).and_then(|joined| code.cheap(at, joined));
    let returns: Vec<usize> =
        (0..lines.len()).filter(|at| code.flow(*at) == Some(FlowControl::Return)).collect();
    if returns.is_empty() || returns.len() > MOST {
        return Err(Refusal::NotOnce(name()));
    }
    let mut sites = Vec::with_capacity(returns.len());
    for at in returns {
        match cheap(at) {
            Some(cheap) => sites.push(code.site(
                cheap,
                Class::Jump,
                "the jump of the stack's guard, passed just before the return",
            )),
            None if rules.stepped => {
                sites.push(code.site(at, Class::Stepped, "the return itself, which is single-stepped: nothing that the kernel emulates comes just before it"));
            }
            None => return Err(Refusal::Dear(name())),
        }
    }
    Ok(sites)
}

struct Code<'a> {
    function: &'a Function<'a>,
    lines: &'a [Instruction],
}

impl Code<'_> {
    fn flow(&self, at: usize) -> Option<FlowControl> {
        self.lines.get(at).map(Instruction::flow_control)
    }

    fn holds(&self, address: u64) -> bool {
        address.checked_sub(self.function.address).is_some_and(|into| into < self.function.code.len() as u64)
    }

    /// Addresses that jumps go to; none if a table holds some of them. A function that is left by a jump has ends elsewhere.
    fn joined(&self) -> Result<Option<HashSet<u64>>, Refusal> {
        let mut joined: HashSet<u64> = self.function.jumped_to.iter().copied().collect();
        let mut all = true;
        for (at, line) in self.lines.iter().enumerate() {
            match line.flow_control() {
                FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                    let target = line.near_branch_target();
                    if !self.holds(target) {
                        return Err(Refusal::NotOnce(self.function.name.to_owned()));
                    }
                    joined.insert(target);
                }
                FlowControl::IndirectBranch if self.is_by_table(at) => all = false,
                // To another function.
                FlowControl::IndirectBranch => return Err(Refusal::NotOnce(self.function.name.to_owned())),
                _ => {}
            }
        }
        Ok(all.then_some(joined))
    }

    /// Whether a jump goes where a table of this function says: the sum of the table's address and one of its entries.
    fn is_by_table(&self, at: usize) -> bool {
        let Some(jump) = self.lines.get(at) else { return false };
        let before = at.checked_sub(1).and_then(|before| self.lines.get(before));
        before.is_some_and(|line| {
            line.mnemonic() == Mnemonic::Add
                && jump.op0_kind() == OpKind::Register
                && line.op0_register() == jump.op0_register()
        })
    }

    /// The guard's jump before the return at `end`.
    fn cheap(&self, end: usize, joined: &HashSet<u64>) -> Option<usize> {
        let mut info = InstructionInfoFactory::new();
        let mut at = end;
        loop {
            // Others come here too.
            if joined.contains(&self.lines.get(at)?.ip()) {
                return None;
            }
            at = at.checked_sub(1)?;
            let line = self.lines.get(at)?;
            match line.flow_control() {
                FlowControl::ConditionalBranch if self.is_end(line.near_branch_target()) => return Some(at),
                FlowControl::Next => {}
                _ => return None,
            }
            let writes = |access| {
                !matches!(
                    access,
                    OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
                )
            };
            let used = info.info(line).used_registers();
            if used
                .iter()
                .any(|used| used.register().full_register() == Register::RAX && writes(used.access()))
            {
                return None;
            }
        }
    }

    /// Whether an address holds a call that does not return: nothing but padding follows it.
    fn is_end(&self, address: u64) -> bool {
        let Ok(at) = self.lines.binary_search_by_key(&address, Instruction::ip) else { return false };
        self.flow(at) == Some(FlowControl::Call)
            && self
                .lines
                .get(at + 1)
                .is_none_or(|next| matches!(next.mnemonic(), Mnemonic::Nop | Mnemonic::Int3 | Mnemonic::Ud2))
    }

    fn site(&self, at: usize, class: Class, why: &str) -> Site {
        let line = self.lines.get(at).copied().unwrap_or_default();
        let from_start = line.ip().wrapping_sub(self.function.address);
        Site {
            function: self.function.name.to_owned(),
            address: line.ip(),
            file_offset: self.function.file_offset.wrapping_add(from_start),
            from_start,
            instruction: format!("{:?}", line.mnemonic()).to_lowercase(),
            class,
            why: why.to_owned(),
            places: vec![Place::register(RESULT)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(code: &[u8]) -> Function<'_> {
        Function { name: "f", address: 0x1000, file_offset: 0x400, code, jumped_to: &[] }
    }

    #[test]
    fn the_guard_of_the_stack_is_taken_and_else_the_return() {
        // sub rdx, fs:0x28; jne +7; add rsp, 0x18; xor edx, edx; ret; call x
        let guarded = [
            0x64, 0x48, 0x2b, 0x14, 0x25, 0x28, 0, 0, 0, 0x75, 0x07, 0x48, 0x83, 0xc4, 0x18, 0x31, 0xd2,
            0xc3, 0xe8, 0, 0, 0, 0,
        ];
        let sites = of(&function(&guarded), Rules::default()).unwrap();
        assert_eq!(sites.len(), 1);
        assert_eq!((sites[0].from_start, sites[0].class, sites[0].file_offset), (9, Class::Jump, 0x409));
        // The same with the result made after the jump: xor eax, eax.
        let mut late = guarded;
        late[15] = 0x31;
        late[16] = 0xc0;
        let sites = of(&function(&late), Rules::default()).unwrap();
        assert_eq!((sites[0].from_start, sites[0].class), (17, Class::Stepped));
        // A branch to something that goes on is no guard.
        let branch = [0x85, 0xc0, 0x75, 0x01, 0xc3, 0x90, 0xc3];
        let sites = of(&function(&branch), Rules::default()).unwrap();
        assert_eq!(sites.iter().map(|site| site.from_start).collect::<Vec<_>>(), [4, 6]);
        let cheap_only = Rules { stepped: false, ..Rules::default() };
        assert!(matches!(of(&function(&branch), cheap_only), Err(Refusal::Dear(_))));
    }

    #[test]
    fn a_table_of_jumps_leaves_the_returns() {
        // jne guard; xor edx, edx; ret; add rax, rdx; jmp rax; guard: call x
        let code = [0x75, 0x08, 0x31, 0xd2, 0xc3, 0x48, 0x01, 0xd0, 0xff, 0xe0, 0xe8, 0, 0, 0, 0];
        let sites = of(&function(&code), Rules::default()).unwrap();
        assert_eq!(
            sites.iter().map(|site| (site.from_start, site.class)).collect::<Vec<_>>(),
            [(4, Class::Stepped)]
        );
    }

    #[test]
    fn a_function_that_is_left_by_a_jump_has_no_known_ends() {
        for code in [&[0xe9, 0, 1, 0, 0][..], &[0xff, 0xe0]] {
            assert!(matches!(of(&function(code), Rules::default()), Err(Refusal::NotOnce(_))), "{code:x?}");
        }
        assert!(of(&function(&[]), Rules::default()).is_err());
    }
}
