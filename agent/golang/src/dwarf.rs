//! Comes in: an ELF image with debug information, and names of structs and members. Goes out: their offsets.
//!
//! One compilation unit is held at a time; compressed sections are taken apart as they are read.

use std::collections::HashMap;
use std::io::{self, Read};

use flate2::read::ZlibDecoder;
use gimli::{AttributeValue, DebugAbbrev, DebugInfo, EndianSlice, LittleEndian, UnitOffset};

use crate::bytes::{Bytes, piece, u32_at, u64_at};
use crate::image::{Image, Section};

/// Longest unit that is looked at. The longest in a program of 100 MB is a tenth of it.
const MAX_UNIT: u64 = 32 << 20;
/// Longest table of abbreviations.
const MAX_ABBREVIATIONS: u64 = 4 << 20;
/// Most bytes of debug information that are walked over, compressed ones counted after they are taken apart.
const MAX_INFO: u64 = 256 << 20;
/// `ELFCOMPRESS_ZLIB`.
const ZLIB: u32 = 1;

type Slice<'d> = EndianSlice<'d, LittleEndian>;

/// What debug information tells of structs.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// Structs found, with all their members.
    structs: HashMap<Box<str>, HashMap<Box<str>, u32>>,
}

impl Members {
    /// The offset of a member; nothing if the struct is not there or has none such.
    pub fn offset(&self, strukt: &str, member: &str) -> Option<u32> {
        self.structs.get(strukt)?.get(member).copied()
    }

    /// Whether the struct is there.
    pub fn has(&self, strukt: &str) -> bool {
        self.structs.contains_key(strukt)
    }

    /// Reads the wanted structs. Nothing if there is no debug information, or none that we can read.
    pub(crate) fn read(image: &Image<'_>, structs: &[&str]) -> Option<Self> {
        let abbreviations = whole(image, image.section(".debug_abbrev")?)?;
        let abbreviations = DebugAbbrev::new(&abbreviations, LittleEndian);
        let mut stream = stream(image, image.section(".debug_info")?)?.take(MAX_INFO);
        let mut found = Self::default();
        let mut unit = Vec::new();
        while found.structs.len() < structs.len() && next_unit(&mut stream, &mut unit).is_some() {
            let info = DebugInfo::new(&unit, LittleEndian);
            // A unit that cannot be read costs itself.
            let _ = found.unit(&info, &abbreviations, structs);
        }
        Some(found)
    }

    fn unit(
        &mut self,
        info: &DebugInfo<Slice<'_>>,
        abbreviations: &DebugAbbrev<Slice<'_>>,
        wanted: &[&str],
    ) -> gimli::Result<()> {
        let Some(header) = info.units().next()? else { return Ok(()) };
        let abbreviations = header.abbreviations(abbreviations)?;
        let mut structs: Vec<(Box<str>, UnitOffset)> = Vec::new();
        let mut cursor = header.entries(&abbreviations);
        while let Some((_, entry)) = cursor.next_dfs()? {
            if entry.tag() == gimli::DW_TAG_structure_type
                && let Some(name) = text(entry.attr_value(gimli::DW_AT_name)?)
                && wanted.contains(&name)
                && !self.structs.contains_key(name)
            {
                structs.push((name.into(), entry.offset()));
            }
        }
        for (name, offset) in structs {
            let mut tree = header.entries_tree(&abbreviations, Some(offset))?;
            let mut children = tree.root()?.children();
            let mut members = HashMap::new();
            while let Some(child) = children.next()? {
                let entry = child.entry();
                let place = entry.attr_value(gimli::DW_AT_data_member_location)?;
                if let Some(member) = text(entry.attr_value(gimli::DW_AT_name)?)
                    && let Some(place) = place.and_then(|place| u32::try_from(place.udata_value()?).ok())
                {
                    members.insert(member.into(), place);
                }
            }
            self.structs.insert(name, members);
        }
        Ok(())
    }
}

fn text<'d>(value: Option<AttributeValue<Slice<'d>>>) -> Option<&'d str> {
    match value? {
        AttributeValue::String(text) => std::str::from_utf8(text.slice()).ok(),
        _ => None,
    }
}

/// The next unit, length included. Nothing at the end, and when the length cannot be believed.
fn next_unit(stream: &mut impl Read, unit: &mut Vec<u8>) -> Option<()> {
    unit.clear();
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let size = u64::from(u32::from_le_bytes(length));
    // Larger values mean the 64-bit format, which Go does not make.
    if size > MAX_UNIT {
        return None;
    }
    unit.extend_from_slice(&length);
    let read = stream.take(size).read_to_end(unit).ok()?;
    (read as u64 == size).then_some(())
}

/// All of a section, which must be short.
fn whole(image: &Image<'_>, section: &Section) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    let read = stream(image, section)?.take(MAX_ABBREVIATIONS + 1).read_to_end(&mut all).ok()?;
    (read as u64 <= MAX_ABBREVIATIONS).then_some(all)
}

/// The bytes of a section, taken apart if they are compressed.
fn stream<'a>(image: &'a Image<'_>, section: &Section) -> Option<Box<dyn Read + 'a>> {
    let end = section.offset.checked_add(section.size)?.min(image.bytes.size());
    let from = |at| Reader { bytes: &*image.bytes, at, end };
    if !section.compressed() {
        return Some(Box::new(io::BufReader::with_capacity(1 << 16, from(section.offset))));
    }
    // Type, padding, size, alignment.
    let head = piece(&*image.bytes, section.offset, 24)?;
    let known = u32_at(&head, 0)? == ZLIB && u64_at(&head, 8)? <= MAX_INFO;
    known.then(|| -> Box<dyn Read> {
        Box::new(ZlibDecoder::new_with_buf(from(section.offset + 24), vec![0; 1 << 16]))
    })
}

struct Reader<'a> {
    bytes: &'a dyn Bytes,
    at: u64,
    end: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let len = left.min(into.len());
        let Some(into) = into.get_mut(..len) else { return Ok(0) };
        self.bytes.fill(self.at, into)?;
        self.at += len as u64;
        Ok(len)
    }
}
