//! All goroutines of a process, from its memory. Comes in: a Go program, the memory of a process that runs it. Goes out: id, starter
//! and start function of each, those that ended lately included (the runtime keeps their structs for the next ones).
//!
//! The list is `runtime.allgs`. Where it is, the code that adds to it tells, also in a program without symbols: it loads
//! the three words of the slice.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind, Register};
use spanwise_common::golang::Layout;
use spanwise_common::offsets::MISSING;
use spanwise_golang::{Binary, Found};

/// The function that adds to the list.
const ADDER: &str = "runtime.allgadd";
/// Goroutines of a process above which it is not looked at.
const MOST: u64 = 65_536;
/// Structs so near to each other are read at once.
const GAP: u64 = 1_024;
/// Most bytes read at once.
const PIECE: u64 = 65_536;

/// A goroutine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Goroutine {
    /// Its id.
    pub id: u64,
    /// The id of the one that started it, zero where unknown.
    pub parent: u64,
    /// The function it was started with.
    pub start: u64,
}

/// Address of the list, as the file has it.
pub(super) fn list(binary: &Binary<'_>) -> Option<u64> {
    let Some(Found::Function(adder)) = binary.find(&[ADDER]).remove(ADDER) else { return None };
    words(&binary.code(adder)?, adder.address)
}

/// The slice whose three words some code loads.
fn words(code: &[u8], address: u64) -> Option<u64> {
    let mut loads = Vec::new();
    for instruction in &mut Decoder::with_ip(64, code, address, DecoderOptions::NONE) {
        let load = instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_kind() == OpKind::Register
            && instruction.op0_register().is_gpr64()
            && instruction.op1_kind() == OpKind::Memory
            && instruction.memory_base() == Register::RIP;
        if load {
            loads.push(instruction.memory_displacement64());
        }
    }
    let mut found = loads.iter().filter(|at| loads.contains(&(**at + 8)) && loads.contains(&(**at + 16)));
    let first = *found.next()?;
    // Several would be a guess.
    found.all(|other| *other == first).then_some(first)
}

/// Where the structs of a process are: they are never freed, so those known are known for good.
#[derive(Debug)]
pub(super) struct Memory {
    file: File,
    list: u64,
    layout: Layout,
    structs: Vec<u64>,
    sorted: Vec<u64>,
}

impl Memory {
    /// Opens the memory of a process (`process` is `/proc/PID`), for reading.
    pub(super) fn open(process: &Path, list: u64, layout: Layout) -> io::Result<Self> {
        let file = File::open(process.join("mem"))?;
        Ok(Self { file, list, layout, structs: Vec::new(), sorted: Vec::new() })
    }

    /// All goroutines now.
    pub(super) fn goroutines(&mut self) -> io::Result<Vec<Goroutine>> {
        self.find_structs()?;
        let Layout { goid, parent, start, .. } = self.layout;
        let known = [goid, start, if parent == MISSING { goid } else { parent }].map(u64::from);
        let low = known.iter().min().copied().unwrap_or(0);
        let high = known.iter().max().map_or(0, |high| high + 8);
        let mut found = Vec::with_capacity(self.sorted.len());
        let mut piece = Vec::new();
        let mut at = 0;
        while let Some(first) = self.sorted.get(at).copied() {
            let mut last = first;
            let mut count = 0;
            for next in self.sorted.iter().skip(at) {
                if next - last > GAP || next + high - first - low > PIECE {
                    break;
                }
                last = *next;
                count += 1;
            }
            piece.resize(usize::try_from(last + high - first - low).unwrap_or(0), 0);
            self.file.read_exact_at(&mut piece, first + low)?;
            for place in self.sorted.iter().skip(at).take(count) {
                let word = |offset: u32| {
                    let from = usize::try_from(place + u64::from(offset) - first - low).ok()?;
                    piece.get(from..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
                };
                let id = word(goid).unwrap_or(0);
                if id != 0 {
                    let parent = if parent == MISSING { 0 } else { word(parent).unwrap_or(0) };
                    found.push(Goroutine { id, parent, start: word(start).unwrap_or(0) });
                }
            }
            at += count.max(1);
        }
        Ok(found)
    }

    fn find_structs(&mut self) -> io::Result<()> {
        let mut head = [0; 16];
        self.file.read_exact_at(&mut head, self.list)?;
        let [place, count] = [0, 8].map(|at| {
            let word = head.get(at..).and_then(|bytes| bytes.first_chunk());
            word.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        });
        if count > MOST {
            return Err(io::Error::other("too many goroutines"));
        }
        let known = self.structs.len() as u64;
        if count > known {
            let mut more = vec![0; usize::try_from((count - known) * 8).unwrap_or(0)];
            self.file.read_exact_at(&mut more, place + known * 8)?;
            let (words, _) = more.as_chunks();
            self.structs
                .extend(words.iter().map(|bytes| u64::from_le_bytes(*bytes)).take_while(|place| *place != 0));
            self.sorted.clone_from(&self.structs);
            self.sorted.sort_unstable();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slice_whose_words_are_loaded() {
        let load = |code: &mut Vec<u8>, opcode: [u8; 3], to: u64| {
            let next = 0x1000 + code.len() as u64 + 7;
            code.extend(opcode);
            code.extend((to.wrapping_sub(next) as u32).to_le_bytes());
        };
        let (rcx, rbx, rax, lea) =
            ([0x48, 0x8b, 0x0d], [0x48, 0x8b, 0x1d], [0x48, 0x8b, 0x05], [0x48, 0x8d, 0x05]);
        let mut code = Vec::new();
        load(&mut code, lea, 0x9000);
        load(&mut code, rcx, 0x8010);
        load(&mut code, rbx, 0x8008);
        assert_eq!(words(&code, 0x1000), None);
        load(&mut code, rax, 0x8000);
        load(&mut code, rbx, 0x7000);
        assert_eq!(words(&code, 0x1000), Some(0x8000));
        // Two of them.
        load(&mut code, rax, 0x6ff8);
        load(&mut code, rax, 0x7008);
        assert_eq!(words(&code, 0x1000), None);
        assert_eq!(words(&[], 0x1000), None);
    }

    /// A made-up list of goroutines in the memory of this process.
    #[test]
    fn goroutines_of_a_memory() {
        let layout = Layout { m: 0, curg: 0, goid: 152, parent: 280, start: 304, pad: 0 };
        let structs: Vec<[u64; 56]> = (0..3_u64)
            .map(|number| {
                let mut words = [0; 56];
                (words[19], words[35], words[38]) = (number * 10, 7, 0x4000 + number);
                words
            })
            .collect();
        let places: Vec<u64> = structs.iter().rev().map(|words| words.as_ptr() as u64).collect();
        let list = [places.as_ptr() as u64, places.len() as u64, 3];
        let mut memory = Memory::open(Path::new("/proc/self"), list.as_ptr() as u64, layout).unwrap();
        let of = |id, start| Goroutine { id, parent: 7, start };
        assert_eq!(memory.goroutines().unwrap(), [of(10, 0x4001), of(20, 0x4002)], "the first has no id");
        let mut lost = Memory::open(Path::new("/proc/self"), 8, layout).unwrap();
        assert!(lost.goroutines().is_err());
        let long = [places.as_ptr() as u64, MOST + 1, MOST + 1];
        let mut many = Memory::open(Path::new("/proc/self"), long.as_ptr() as u64, layout).unwrap();
        assert!(many.goroutines().is_err());
    }
}
