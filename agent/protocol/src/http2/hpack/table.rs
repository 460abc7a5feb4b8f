//! The dynamic table of one direction: insertions and sizes in, entries by index out.
//!
//! Entries are counted from the newest, so what was inserted since a loss has exact indices whatever was there before.
//! An encoder never refers to what it evicted: forgetting less or more than it does cannot give a wrong entry.

use std::collections::VecDeque;

/// Size that a table begins with.
pub(super) const INITIAL: u32 = 4096;
/// Entries that are remembered.
pub(super) const MAX_ENTRIES: usize = 1024;
/// Bytes of names and values that are remembered.
pub(super) const MAX_BYTES: usize = 16 * 1024;
/// What an entry counts for beside its text.
const OVERHEAD: u64 = 32;

/// What is known of a part of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::http2) enum Text<'a> {
    /// The text.
    Known(&'a [u8]),
    /// It is known to be none that anyone asks for, and was not kept.
    Unwanted,
    /// It was inserted before the connection was seen, or in bytes that were lost.
    Unknown,
}

/// A field of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found<'a> {
    pub(super) name: Text<'a>,
    /// Length of the name, zero if it is not known.
    pub(super) name_len: usize,
    pub(super) value: Text<'a>,
}

/// An entry. What is kept of name and value lies one behind the other.
#[derive(Debug)]
struct Entry {
    text: Box<[u8]>,
    name_len: u32,
    name: Known,
    /// What it counts for, or less.
    size: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    Text,
    Unwanted,
    Unknown,
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    /// The newest first.
    entries: VecDeque<Entry>,
    /// What they count for, or less.
    pub(super) size: u64,
    /// Bytes of text held.
    pub(super) bytes: usize,
    /// How large it may be, if that is known.
    max: Option<u32>,
    /// There may be older entries.
    older: bool,
}

impl Table {
    /// The table of a connection that was seen from its start.
    pub(super) fn fresh() -> Self {
        let mut table = Self::unknown();
        table.max = Some(INITIAL);
        table.older = false;
        table
    }

    /// A table of which nothing is known.
    pub(super) const fn unknown() -> Self {
        Self { entries: VecDeque::new(), size: 0, bytes: 0, max: None, older: true }
    }

    /// Forgets everything: any number of entries may have been inserted.
    pub(super) fn lose(&mut self) {
        self.clear();
        self.max = None;
        self.older = true;
    }

    /// The field at an index, which counts from 0. None if there can be no such entry.
    pub(super) fn get(&self, index: usize) -> Option<Found<'_>> {
        let Some(entry) = self.entries.get(index) else {
            let room = self.max.map_or(MAX_GUESS, |max| (u64::from(max) / OVERHEAD) as usize);
            let unknown = Found { name: Text::Unknown, name_len: 0, value: Text::Unknown };
            return (self.older && index < room).then_some(unknown);
        };
        let name_len = entry.name_len as usize;
        let text = &*entry.text;
        Some(match entry.name {
            Known::Text => {
                let (name, value) = text.split_at_checked(name_len)?;
                Found { name: Text::Known(name), name_len, value: Text::Known(value) }
            }
            Known::Unwanted => Found { name: Text::Unwanted, name_len, value: Text::Unwanted },
            Known::Unknown => Found { name: Text::Unknown, name_len, value: Text::Known(text) },
        })
    }

    /// Inserts a field. `name_len` is the length of the name as far as known.
    pub(super) fn insert(&mut self, name: Text<'_>, name_len: usize, value: &[u8]) {
        let (known, name, kept) = match name {
            Text::Known(name) => (Known::Text, name, value),
            Text::Unwanted => (Known::Unwanted, &[][..], &[][..]),
            Text::Unknown => (Known::Unknown, &[][..], value),
        };
        let size = (name_len + value.len()) as u64 + OVERHEAD;
        if let Some(max) = self.max {
            if size > u64::from(max) {
                // It empties the table and is not in it. That nothing is left is known only if its size is.
                self.clear();
                self.older = false;
                return;
            }
            self.evict(u64::from(max) - size);
        }
        let text = [name, kept].concat().into_boxed_slice();
        self.size += size;
        self.bytes += text.len();
        self.entries.push_front(Entry { text, name_len: name_len as u32, name: known, size });
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES {
            self.pop();
            self.older = true;
        }
    }

    /// The encoder set the size.
    pub(super) fn resize(&mut self, max: u32) {
        self.max = Some(max);
        self.evict(u64::from(max));
        if max == 0 {
            self.older = false;
        }
    }

    fn evict(&mut self, room: u64) {
        while self.size > room && !self.entries.is_empty() {
            // What is older went before.
            self.older = false;
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_back() {
            self.size -= entry.size;
            self.bytes -= entry.text.len();
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.size = 0;
        self.bytes = 0;
    }

    /// Memory held beside the struct itself.
    pub(super) fn state_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.bytes
    }

    /// Bound of [`Table::state_bytes`].
    pub(super) const MAX_STATE: usize = 2 * (MAX_ENTRIES + 1) * size_of::<Entry>() + MAX_BYTES;
}

/// Entries that a table of unknown size may have.
const MAX_GUESS: usize = 1 << 16;
