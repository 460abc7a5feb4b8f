//! How much stack the BPF programs need. In: the built BPF object. Out: the chain of calls that needs most, and whether every kernel
//! gives that much.
//!
//! Before Linux 6.13 a program and all functions that call each other have 512 bytes together, and the kernel of this machine may be
//! newer. Before 6.3 each counts in steps of 32 bytes.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind};
use spanwise_tests::paths;

/// Bytes that a chain of calls may take.
const MOST: u64 = 512;
/// What each function counts in.
const STEP: u64 = 32;
/// The register that points behind the stack.
const FRAME: u8 = 10;
/// An instruction.
const SIZE: usize = 8;

/// Section and offset in it.
type Place = (usize, u64);

/// What matters of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Function {
    name: String,
    /// Bytes of stack.
    frame: u64,
    calls: Vec<Place>,
}

/// One line of what is most, or an error that names it.
pub(super) fn check() -> Result<String> {
    let path = built()?;
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let functions = functions(&bytes).with_context(|| format!("{} is not understood", path.display()))?;
    ensure!(functions.len() > 20, "{} has only {} functions", path.display(), functions.len());
    let deepest = functions.keys().map(|place| chain(&functions, *place, &[])).max().unwrap_or_default();
    let line = format!("{} of {MOST} bytes of stack: {}", deepest.0, deepest.1.join(" > "));
    ensure!(deepest.0 <= MOST, "kernels before Linux 6.13 refuse a program: it takes {line}");
    Ok(line)
}

/// The object that is in the agent: that of the newest build.
fn built() -> Result<PathBuf> {
    const BELOW: &str = "out/aya-build/target/spanwise-ebpf/bpfel-unknown-none/release/spanwise-ebpf";
    let folder = paths::target().join("quick/build");
    let builds = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let objects = builds.flatten().map(|entry| entry.path().join(BELOW));
    let newest = objects.filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path))).max();
    newest.map(|(_, path)| path).with_context(|| format!("there is no BPF object in {}", folder.display()))
}

fn functions(bytes: &[u8]) -> Result<HashMap<Place, Function>> {
    let file = object::File::parse(bytes)?;
    let mut relocations: HashMap<Place, Place> = HashMap::new();
    for section in file.sections() {
        for (offset, relocation) in section.relocations() {
            let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
            let symbol = file.symbol_by_index(symbol)?;
            let Some(target) = symbol.section_index() else { continue };
            // A section as a target: the place in it is in the instruction.
            let at = if symbol.kind() == SymbolKind::Text { symbol.address() } else { u64::MAX };
            relocations.insert((section.index().0, offset), (target.0, at));
        }
    }
    let mut all = HashMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let Some(index) = symbol.section_index() else { continue };
        let data = file.section_by_index(index)?.data()?;
        let (from, to) = (symbol.address() as usize, (symbol.address() + symbol.size()) as usize);
        let code = data.get(from..to).context("a function lies outside of its section")?;
        let mut function = Function { name: symbol.name()?.to_owned(), frame: frame(code), calls: vec![] };
        for (number, instruction) in code.chunks_exact(SIZE).enumerate() {
            let [0x85, registers, _, _, imm @ ..] = instruction else { continue };
            // 1 is a call of a function of the object.
            if registers >> 4 != 1 {
                continue;
            }
            let imm = i64::from(i32::from_le_bytes(imm.try_into()?));
            let here = symbol.address() + (number * SIZE) as u64;
            let relative = |base: i64| ((base + imm + 1) * SIZE as i64) as u64;
            function.calls.push(match relocations.get(&(index.0, here)) {
                Some((section, u64::MAX)) => (*section, relative(0)),
                Some(place) => *place,
                None => (index.0, relative(here as i64 / SIZE as i64)),
            });
        }
        all.insert((index.0, symbol.address()), function);
    }
    Ok(all)
}

/// Bytes of stack that some code uses: the farthest place that it names, by a load, a store, or an address that it makes.
fn frame(code: &[u8]) -> u64 {
    let mut farthest = 0_i64;
    // Registers that were just made copies of the frame's.
    let mut copies = [false; 16];
    for instruction in code.chunks_exact(SIZE) {
        let [operation, registers, low, high, imm @ ..] = instruction else { continue };
        let (to, from) = (registers & 15, registers >> 4);
        let offset = i64::from(i16::from_le_bytes([*low, *high]));
        let copied = copies.get(usize::from(to)).copied().unwrap_or_default();
        let mut copy = false;
        match (operation, operation & 7) {
            (0xbf, _) => copy = from == FRAME,
            (0x07, _) if copied => {
                let imm: [u8; 4] = imm.try_into().unwrap_or_default();
                farthest = farthest.min(i64::from(i32::from_le_bytes(imm)));
            }
            // Stores, of a number or a register, and loads.
            (_, 2 | 3) if to == FRAME => farthest = farthest.min(offset),
            (_, 1) if from == FRAME => farthest = farthest.min(offset),
            _ => {}
        }
        if let Some(place) = copies.get_mut(usize::from(to)) {
            *place = copy;
        }
    }
    farthest.unsigned_abs()
}

/// Bytes of the deepest chain of calls that begins with a function, and the names in it.
fn chain(functions: &HashMap<Place, Function>, place: Place, above: &[Place]) -> (u64, Vec<String>) {
    let Some(function) = functions.get(&place) else { return (0, vec![]) };
    let above = [above, &[place]].concat();
    let below = function.calls.iter().filter(|call| !above.contains(call));
    let (bytes, names) = below.map(|call| chain(functions, *call, &above)).max().unwrap_or_default();
    let own = function.frame.max(1).next_multiple_of(STEP);
    let mut all = vec![format!("{} {}", function.name, function.frame)];
    all.extend(names);
    (own + bytes, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_deep_as_what_is_named() {
        let store = [0x7b, 0x1a, 0xf8, 0xff, 0, 0, 0, 0]; // *(r10 - 8) = r1
        let copy = [0xbf, 0xa2, 0, 0, 0, 0, 0, 0]; // r2 = r10
        let address = [0x07, 0x02, 0, 0, 0xd0, 0xff, 0xff, 0xff]; // r2 += -48
        let other = [0x07, 0x03, 0, 0, 0, 0xff, 0xff, 0xff]; // r3 += -256
        let load = [0x79, 0xa1, 0xe0, 0xff, 0, 0, 0, 0]; // r1 = *(r10 - 32)
        assert_eq!(frame(&store), 8);
        assert_eq!(frame(&[store, copy, address, other].concat()), 48);
        assert_eq!(frame(&[store, load].concat()), 32);
        assert_eq!(frame(&[]), 0);
    }

    #[test]
    fn the_deepest_chain_counts_in_steps() {
        let function =
            |name: &str, frame, calls: &[Place]| Function { name: name.into(), frame, calls: calls.to_vec() };
        let all = HashMap::from([
            ((0, 0), function("a", 40, &[(1, 0), (1, 8)])),
            ((1, 0), function("b", 1, &[(1, 0)])),
            ((1, 8), function("c", 33, &[(9, 9)])),
        ]);
        assert_eq!(chain(&all, (0, 0), &[]), (128, vec!["a 40".to_owned(), "c 33".to_owned()]));
    }
}
