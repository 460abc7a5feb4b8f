//! Comes in: the bytes of an ELF file. Goes out: its segments and sections, addresses as file offsets, relocated pointers.
//!
//! Only headers are kept. Every count and size in the file may be a lie: all are bounded.

use crate::bytes::{Bytes, Window, piece, u32_at, u64_at};

/// Most section headers looked at.
const MAX_SECTIONS: u64 = 1024;
/// Most program headers looked at.
const MAX_HEADERS: u64 = 128;
/// Most mapped parts: linkers make six at most.
const MAX_SEGMENTS: usize = 16;
/// Longest table of section names.
const MAX_NAMES: u64 = 1 << 20;

/// Section type: takes no room in the file.
const SHT_NOBITS: u32 = 8;
/// Section flag: compressed.
const SHF_COMPRESSED: u64 = 0x800;
/// Segment type: mapped.
const PT_LOAD: u32 = 1;
/// Segment type: what the loader needs.
const PT_DYNAMIC: u32 = 2;
/// Longest list of what the loader needs.
const MAX_DYNAMIC: u64 = 1 << 16;
/// Key in it: address of the relocations with addends.
const DT_RELA: u64 = 7;
/// Key in it: their bytes.
const DT_RELASZ: u64 = 8;
/// Relocation: base of the image plus addend.
const R_X86_64_RELATIVE: u64 = 8;
/// File type: can be at any address.
const ET_DYN: u16 = 3;

/// A mapped part of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// Segment flags: 1 executable, 2 writable.
    pub(crate) flags: u32,
    /// Where it is in the file.
    pub(crate) offset: u64,
    /// Where it is mapped, before the image is moved.
    pub(crate) address: u64,
    /// Bytes in the file.
    pub(crate) size: u64,
}

/// A place in the file and a number of bytes.
type Extent = (u64, u64);

/// A named part of the file.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// Its name.
    pub(crate) name: Box<str>,
    /// Its type.
    pub(crate) kind: u32,
    /// Its flags.
    pub(crate) flags: u64,
    /// Where it is mapped.
    pub(crate) address: u64,
    /// Where it is in the file.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) size: u64,
}

impl Section {
    /// Whether its bytes begin with a compression header.
    pub(crate) fn compressed(&self) -> bool {
        self.flags & SHF_COMPRESSED != 0
    }
}

/// A 64-bit little-endian ELF file.
pub(crate) struct Image<'a> {
    pub(crate) bytes: Box<dyn Bytes + Send + 'a>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) sections: Vec<Section>,
    /// Whether the kernel chooses the address.
    pub(crate) movable: bool,
    /// Where the loader's relocations are in the file, and how many bytes.
    relocations: Option<Extent>,
    /// Where the program begins to run.
    pub(crate) entry: u64,
}

impl<'a> Image<'a> {
    /// Reads the headers. Nothing if this is not such a file.
    pub(crate) fn parse(source: Box<dyn Bytes + Send + 'a>) -> Option<Self> {
        let bytes = &*source;
        let head = piece(bytes, 0, 64)?;
        if head.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let u16_at = |at: usize| u32_at(&head, at).map(|both| both as u16);
        let (segments, dynamic) = segments(bytes, u64_at(&head, 32)?, u64::from(u16_at(56)?))?;
        let names = u16_at(60).and_then(|count| Some((u64::from(count), u64::from(head_names(&head)?))));
        let sections = names
            .and_then(|(count, names)| sections(bytes, u64_at(&head, 40)?, count, names))
            .unwrap_or_default();
        let movable = u16_at(16)? == ET_DYN;
        let entry = u64_at(&head, 24)?;
        let mut image = Self { bytes: source, segments, sections, movable, relocations: None, entry };
        image.relocations = dynamic.and_then(|(offset, size)| image.rela(offset, size));
        Some(image)
    }

    /// The section of this name that has bytes.
    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| &*section.name == name && section.kind != SHT_NOBITS)
    }

    /// Where an address is in the file.
    pub(crate) fn offset_of(&self, address: u64) -> Option<u64> {
        let segment = self.segment_of(address)?;
        segment.offset.checked_add(address - segment.address)
    }

    /// The address of a place in the file.
    pub(crate) fn address_of(&self, offset: u64) -> Option<u64> {
        let segment = self
            .segments
            .iter()
            .find(|segment| offset.checked_sub(segment.offset).is_some_and(|into| into < segment.size))?;
        segment.address.checked_add(offset - segment.offset)
    }

    /// Whether an address is code.
    pub(crate) fn executable(&self, address: u64) -> bool {
        self.segment_of(address).is_some_and(|segment| segment.flags & 1 != 0)
    }

    fn segment_of(&self, address: u64) -> Option<&Segment> {
        self.segments
            .iter()
            .find(|segment| address.checked_sub(segment.address).is_some_and(|into| into < segment.size))
    }

    /// Bytes at an address.
    pub(crate) fn at(&self, address: u64, len: u64) -> Option<Vec<u8>> {
        piece(&*self.bytes, self.offset_of(address)?, len)
    }

    /// The pointer that the word at `place` is when the program runs at the addresses of its file.
    pub(crate) fn pointer(&self, place: u64) -> Option<u64> {
        let word = self.at(place, 8).and_then(|word| u64_at(&word, 0))?;
        if word != 0 || !self.movable {
            return Some(word);
        }
        Some(self.relocation(|at, _| at == place).map_or(0, |(_, addend)| addend))
    }

    /// The word, among those that are relocated, that points at `target`.
    pub(crate) fn pointer_to(&self, target: u64) -> Option<u64> {
        self.relocation(|_, addend| addend == target).map(|(place, _)| place)
    }

    /// Where the relocations are, as the list of what the loader needs has it.
    fn rela(&self, offset: u64, size: u64) -> Option<Extent> {
        let list = piece(&*self.bytes, offset, size.min(MAX_DYNAMIC))?;
        let value = |wanted| {
            let mut pairs =
                list.chunks_exact(16).filter_map(|pair| Some((u64_at(pair, 0)?, u64_at(pair, 8)?)));
            pairs.find(|(key, _)| *key == wanted).map(|(_, value)| value)
        };
        Some((self.offset_of(value(DT_RELA)?)?, value(DT_RELASZ)?))
    }

    fn relocation(&self, wanted: impl Fn(u64, u64) -> bool) -> Option<(u64, u64)> {
        let (offset, size) = self.relocations?;
        let mut window = Window::new(&*self.bytes, offset, size);
        let mut at = 0;
        while let Some(held) = window.rest(at) {
            for entry in held.chunks_exact(24) {
                let (place, info, addend) = (u64_at(entry, 0)?, u64_at(entry, 8)?, u64_at(entry, 16)?);
                if info == R_X86_64_RELATIVE && wanted(place, addend) {
                    return Some((place, addend));
                }
            }
            let whole = held.len() / 24 * 24;
            if whole == 0 {
                break;
            }
            at += whole as u64;
        }
        None
    }
}

fn head_names(head: &[u8]) -> Option<u16> {
    head.get(62..)?.first_chunk().map(|two| u16::from_le_bytes(*two))
}

/// The mapped parts, and where the list of what the loader needs is in the file.
fn segments(bytes: &dyn Bytes, offset: u64, count: u64) -> Option<(Vec<Segment>, Option<Extent>)> {
    let table = piece(bytes, offset, count.min(MAX_HEADERS) * 56)?;
    let mut found = Vec::new();
    let mut dynamic = None;
    for entry in table.chunks_exact(56) {
        let (offset, size) = (u64_at(entry, 8)?, u64_at(entry, 32)?);
        match u32_at(entry, 0)? {
            PT_LOAD if found.len() < MAX_SEGMENTS => {
                found.push(Segment { flags: u32_at(entry, 4)?, offset, address: u64_at(entry, 16)?, size });
            }
            PT_DYNAMIC => dynamic = Some((offset, size)),
            _ => {}
        }
    }
    Some((found, dynamic))
}

fn sections(bytes: &dyn Bytes, offset: u64, count: u64, names: u64) -> Option<Vec<Section>> {
    let table = piece(bytes, offset, count.min(MAX_SECTIONS) * 64)?;
    let name_entry = table.get(usize::try_from(names).ok()?.checked_mul(64)?..)?.get(..64)?;
    let text = piece(bytes, u64_at(name_entry, 24)?, u64_at(name_entry, 32)?.min(MAX_NAMES))?;
    let mut found = Vec::new();
    for entry in table.chunks_exact(64) {
        let name = text.get(u32_at(entry, 0)? as usize..).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        found.push(Section {
            name: String::from_utf8_lossy(name).into(),
            kind: u32_at(entry, 4)?,
            flags: u64_at(entry, 8)?,
            address: u64_at(entry, 16)?,
            offset: u64_at(entry, 24)?,
            size: u64_at(entry, 32)?,
        });
    }
    Some(found)
}
