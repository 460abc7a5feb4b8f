//! Comes in: an ELF image. Goes out: the functions of a Go program, from the table its own runtime uses (`.gopclntab`), which
//! `strip` leaves alone. The table is walked in windows and never held.

use std::collections::HashMap;

use crate::bytes::{Window, piece, u32_at, u64_at};
use crate::image::Image;

/// Magic number of the tables of Go 1.18 and 1.19.
const MAGIC_118: u32 = 0xffff_fff0;
/// Magic number of the tables since Go 1.20.
const MAGIC_120: u32 = 0xffff_fff1;
/// Magic number, two zeros, the quantum of code (1: amd64), the size of a pointer.
const HEAD: u64 = 72;
/// Most functions a program may have.
const MAX_FUNCTIONS: u64 = 1 << 22;
/// Most places that look like the beginning of what is searched, before the search is given up.
const MAX_TRIES: usize = 16;
/// Longest name of a function.
const MAX_NAME: u64 = 1024;
/// Where `text` is in `runtime.moduledata`: after a pointer, six slices and three words, since Go 1.16.
const MODULE_TEXT: u64 = 176;
/// Where `minpc` is.
const MODULE_MINPC: u64 = 160;

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Address, as in the file: what the loader adds is not in it.
    pub address: u64,
    /// Bytes up to the next function (padding included).
    pub size: u64,
    /// Where it is in the file.
    pub offset: u64,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A function of its own.
    Function(Function),
    /// Only inside others: nothing to probe.
    Inlined,
    /// Not in this program.
    Absent,
}

/// Where the tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Functions {
    /// Address that entries count from.
    text: u64,
    /// How many there are.
    count: u64,
    /// Where the names are in the file, and how long.
    names: (u64, u64),
    /// Where the list of entries is in the file, and all that is to the end of the table.
    entries: (u64, u64),
}

impl Functions {
    /// Finds the tables.
    pub(crate) fn locate(image: &Image<'_>) -> Option<Self> {
        let named = [".gopclntab", ".data.rel.ro.gopclntab"].iter().find_map(|name| image.section(name));
        if let Some(section) = named {
            return Self::at(image, section.offset, section.size);
        }
        // Other linkers put the table into a section with others, and some tools drop the sections.
        let mut tries = 0;
        image.segments.iter().find_map(|segment| {
            let mut window = Window::new(&*image.bytes, segment.offset, segment.size);
            let mut at = 0;
            while let Some(held) = window.rest(at) {
                let starts = memchr::memmem::find_iter(held, &[0xff, 0xff, 0xff, 0, 0, 1, 8]);
                for start in starts.filter_map(|start| (start as u64).checked_sub(1)) {
                    tries += 1;
                    if tries > MAX_TRIES {
                        return None;
                    }
                    let into = at.checked_add(start)?;
                    let place = segment.offset.checked_add(into)?;
                    if let Some(found) = Self::at(image, place, segment.size.checked_sub(into)?) {
                        return Some(found);
                    }
                }
                // Windows overlap by one word, for a table that begins at the end of one.
                at += (held.len() as u64).saturating_sub(8).max(8);
            }
            None
        })
    }

    fn at(image: &Image<'_>, place: u64, size: u64) -> Option<Self> {
        let head = piece(&*image.bytes, place, HEAD)?;
        let magic = u32_at(&head, 0)?;
        if !matches!(magic, MAGIC_118 | MAGIC_120) || head.get(4..8)? != [0, 0, 1, 8] {
            return None;
        }
        let count = u64_at(&head, 8).filter(|count| (1..MAX_FUNCTIONS).contains(count))?;
        let (names, units, entries) = (u64_at(&head, 32)?, u64_at(&head, 40)?, u64_at(&head, 64)?);
        if !(HEAD <= names && names < units && units < entries && entries < size) {
            return None;
        }
        let table = image.address_of(place)?;
        let mut tables = Self {
            text: 0,
            count,
            names: (place.checked_add(names)?, units - names),
            entries: (place.checked_add(entries)?, size - entries),
        };
        let first = u64::from(u32_at(&piece(&*image.bytes, tables.entries.0, 4)?, 0)?);
        // The header names the start of the text up to Go 1.25; of a program that can be moved, as a relocation. Since
        // 1.26 only the module's own record does.
        let text = image.pointer(table.checked_add(24)?).filter(|text| *text != 0);
        tables.text = text.or_else(|| module_text(image, table, first))?;
        image.executable(tables.text.checked_add(first)?).then_some(tables)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Looks for names, all in one walk over the tables.
    pub(crate) fn find<'n>(&self, image: &Image<'_>, wanted: &[&'n str]) -> HashMap<&'n str, Found> {
        let mut found: HashMap<&str, Found> = wanted.iter().map(|name| (*name, Found::Absent)).collect();
        let offsets = self.name_offsets(image, &mut found);
        if offsets.is_empty() {
            return found;
        }
        let mut entries = Window::new(&*image.bytes, self.entries.0, self.entries.1);
        let mut records = Window::new(&*image.bytes, self.entries.0, self.entries.1);
        for index in 0..self.count {
            let Some((record, name)) = self.record(&mut entries, &mut records, index) else { break };
            let Some(slot) = offsets.get(&name).and_then(|name| found.get_mut(name)) else { continue };
            let Some(next) = entries.u32((index + 1) * 8) else { break };
            if let Some(function) = self.function(image, record, next)
                && !matches!(slot, Found::Function(_))
            {
                *slot = Found::Function(function);
            }
        }
        found
    }

    /// The name of the function that an address is in.
    pub(crate) fn name_of(&self, image: &Image<'_>, address: u64) -> Option<(String, Function)> {
        let target = u32::try_from(address.checked_sub(self.text)?).ok()?;
        let entry = |index: u64| {
            let place = self.entries.0.checked_add(index * 8)?;
            u32_at(&piece(&*image.bytes, place, 4)?, 0)
        };
        if target >= entry(self.count)? {
            return None;
        }
        let (mut low, mut high) = (0, self.count);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match entry(middle)? <= target {
                true => low = middle,
                false => high = middle,
            }
        }
        let mut entries = Window::new(&*image.bytes, self.entries.0, self.entries.1);
        let mut records = Window::new(&*image.bytes, self.entries.0, self.entries.1);
        let (start, name) = self.record(&mut entries, &mut records, low)?;
        if start > target {
            return None;
        }
        let function = self.function(image, start, entry(low + 1)?)?;
        let left = self.names.1.checked_sub(u64::from(name))?.min(MAX_NAME);
        let text = piece(&*image.bytes, self.names.0.checked_add(u64::from(name))?, left)?;
        let text = text.get(..memchr::memchr(0, &text)?)?;
        Some((String::from_utf8_lossy(text).into(), function))
    }

    /// Entry and name of a function, both as offsets.
    fn record(&self, entries: &mut Window<'_>, records: &mut Window<'_>, index: u64) -> Option<(u32, u32)> {
        let pair = entries.get(index.checked_mul(8)?, 8)?;
        let (entry, record) = (u32_at(pair, 0)?, u32_at(pair, 4)?);
        Some((entry, records.u32(u64::from(record).checked_add(4)?)?))
    }

    fn function(&self, image: &Image<'_>, start: u32, end: u32) -> Option<Function> {
        let address = self.text.checked_add(u64::from(start))?;
        let size = u64::from(end.checked_sub(start)?);
        // The parts of a damaged file may lie beyond its end.
        let in_file = |offset: &u64| *offset < image.bytes.size();
        let offset = image.offset_of(address).filter(|_| image.executable(address)).filter(in_file)?;
        Some(Function { address, size, offset })
    }

    /// Where the wanted names stand in the table of names. Names that stand there are in the program, inlined at least.
    fn name_offsets<'n>(
        &self,
        image: &Image<'_>,
        found: &mut HashMap<&'n str, Found>,
    ) -> HashMap<u32, &'n str> {
        let mut offsets = HashMap::new();
        let mut window = Window::new(&*image.bytes, self.names.0, self.names.1);
        let mut at = 0;
        while let Some(held) = window.rest(at) {
            let mut start = 0;
            for end in memchr::memchr_iter(0, held) {
                let name = held.get(start..end).and_then(|name| std::str::from_utf8(name).ok());
                let wanted = name.and_then(|name| found.get_key_value(name)).map(|(wanted, _)| *wanted);
                if let Some(wanted) = wanted {
                    found.insert(wanted, Found::Inlined);
                    offsets.extend(u32::try_from(at + start as u64).map(|offset| (offset, wanted)));
                }
                start = end + 1;
            }
            // A name longer than a window ends the walk: no compiler made it.
            if start == 0 {
                break;
            }
            at += start as u64;
        }
        offsets
    }
}

/// The start of the text as the module's own record has it: the record begins with a pointer to the table.
fn module_text(image: &Image<'_>, table: u64, first: u64) -> Option<u64> {
    let agrees = |record: u64| {
        let minpc = image.pointer(record.checked_add(MODULE_MINPC)?)?;
        let text = image.pointer(record.checked_add(MODULE_TEXT)?)?;
        (text != 0 && text.checked_add(first)? == minpc).then_some(text)
    };
    if let Some(text) = image.section(".go.module").and_then(|section| agrees(section.address)) {
        return Some(text);
    }
    if image.movable
        && let Some(text) = image.pointer_to(table).and_then(agrees)
    {
        return Some(text);
    }
    let pattern = table.to_le_bytes();
    let mut tries = 0;
    image.segments.iter().filter(|segment| segment.flags & 2 != 0).find_map(|segment| {
        let mut window = Window::new(&*image.bytes, segment.offset, segment.size);
        let mut at = 0;
        while let Some(held) = window.rest(at) {
            for start in memchr::memmem::find_iter(held, &pattern) {
                tries += 1;
                if tries > MAX_TRIES {
                    return None;
                }
                let record = segment.address.checked_add(at)?.checked_add(start as u64)?;
                if let Some(text) = agrees(record) {
                    return Some(text);
                }
            }
            at += (held.len() as u64).saturating_sub(8).max(8);
        }
        None
    })
}
