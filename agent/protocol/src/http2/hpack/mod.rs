//! HPACK (RFC 7541): the header blocks of one direction in, fields out; what cannot be known is said to be unknown.
//!
//! The rules for losses are those of [`table`]: what was inserted since the last loss is exact, everything older is
//! unknown, and the static table and literals are always exact. Nothing here guesses.

mod huffman;
mod statics;
mod table;

use table::{Found, Table};

pub(super) use table::Text;

/// Longest string that is decoded.
const MAX_STRING: usize = 64 * 1024;
/// A larger buffer is given back after use.
const KEEP_BUFFER: usize = 1024;

/// The bytes are no header block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

/// A field as it was decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Field<'a> {
    pub(super) name: Text<'a>,
    pub(super) value: Text<'a>,
}

/// The decoder of one direction.
#[derive(Debug)]
pub(super) struct Decoder {
    table: Table,
    /// Names whose entries are kept.
    keep: fn(&[u8]) -> bool,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// What a representation does beside giving a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Literal {
    Insert,
    Pass,
}

impl Decoder {
    /// The decoder of a direction that is seen from its start.
    pub(super) fn fresh(keep: fn(&[u8]) -> bool) -> Self {
        Self { table: Table::fresh(), keep, name: Vec::new(), value: Vec::new() }
    }

    /// The decoder of a direction of which something may have been missed.
    pub(super) fn unknown(keep: fn(&[u8]) -> bool) -> Self {
        Self { table: Table::unknown(), keep, name: Vec::new(), value: Vec::new() }
    }

    /// Header blocks were lost, or parts of one.
    pub(super) fn lose(&mut self) {
        self.table.lose();
    }

    /// Reads the whole fields at the beginning of `bytes` and gives the length of them. `first`: they begin a block.
    /// `last`: nothing of the block follows.
    pub(super) fn decode(
        &mut self,
        bytes: &[u8],
        first: bool,
        last: bool,
        sink: &mut dyn FnMut(Field<'_>),
    ) -> Result<usize, Malformed> {
        let mut at = 0;
        let mut may_resize = first;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let mut input = Reader { bytes: rest, at: 0 };
            match self.step(&mut input, &mut may_resize, sink) {
                Ok(()) => at += input.at,
                Err(Stop::Short) if !last => break,
                Err(_) => return Err(Malformed),
            }
        }
        for buffer in [&mut self.name, &mut self.value] {
            if buffer.capacity() > KEEP_BUFFER {
                *buffer = Vec::new();
            }
        }
        Ok(at)
    }

    /// Reads one representation.
    fn step(
        &mut self,
        input: &mut Reader<'_>,
        may_resize: &mut bool,
        sink: &mut dyn FnMut(Field<'_>),
    ) -> Result<(), Stop> {
        let first = input.peek()?;
        if first & 0xe0 == 0x20 {
            // Only before the first field.
            let max = input.integer(5)?;
            if !*may_resize {
                return Err(Stop::Malformed);
            }
            self.table.resize(max);
            return Ok(());
        }
        let result = match first {
            0x80.. => {
                let index = input.integer(7)? as usize;
                let found = self.lookup(index)?;
                sink(Field { name: found.name, value: found.value });
                Ok(())
            }
            0x40.. => self.literal(6, Literal::Insert, input, sink),
            _ => self.literal(4, Literal::Pass, input, sink),
        };
        *may_resize &= result.is_err();
        result
    }

    fn literal(
        &mut self,
        prefix: u32,
        literal: Literal,
        input: &mut Reader<'_>,
        sink: &mut dyn FnMut(Field<'_>),
    ) -> Result<(), Stop> {
        let index = input.integer(prefix)? as usize;
        let coded_name = if index == 0 { Some(input.string()?) } else { None };
        let coded_value = input.string()?;
        // All of it is there: from here on the table may change.
        let mut name_buffer = std::mem::take(&mut self.name);
        name_buffer.clear();
        let (name, name_len) = match coded_name {
            Some(coded) => {
                let name = coded.text(&mut name_buffer)?;
                (self.known(name), name.len())
            }
            None => {
                let found = self.lookup(index)?;
                match found.name {
                    Text::Known(name) => {
                        name_buffer.extend_from_slice(name);
                        (self.known(&name_buffer), name_buffer.len())
                    }
                    Text::Unwanted => (Text::Unwanted, found.name_len),
                    Text::Unknown => (Text::Unknown, found.name_len),
                }
            }
        };
        let mut value_buffer = std::mem::take(&mut self.value);
        value_buffer.clear();
        let value = coded_value.text(&mut value_buffer)?;
        sink(Field { name, value: if name == Text::Unwanted { Text::Unwanted } else { Text::Known(value) } });
        if literal == Literal::Insert {
            self.table.insert(name, name_len, value);
        }
        self.name = name_buffer;
        self.value = value_buffer;
        Ok(())
    }

    fn known<'a>(&self, name: &'a [u8]) -> Text<'a> {
        if (self.keep)(name) { Text::Known(name) } else { Text::Unwanted }
    }

    fn lookup(&self, index: usize) -> Result<Found<'_>, Stop> {
        match index {
            0 => None,
            1..=statics::LEN => statics::get(index).map(|(name, value)| Found {
                name: self.known(name.as_bytes()),
                name_len: name.len(),
                value: Text::Known(value.as_bytes()),
            }),
            _ => self.table.get(index - statics::LEN - 1),
        }
        .ok_or(Stop::Malformed)
    }

    /// Memory held beside the struct itself.
    pub(super) fn state_bytes(&self) -> usize {
        self.table.state_bytes() + self.name.capacity() + self.value.capacity()
    }

    /// Bound of [`Decoder::state_bytes`].
    pub(super) const MAX_STATE: usize = Table::MAX_STATE + 2 * KEEP_BUFFER;
}

/// Why a representation was not read.
enum Stop {
    /// It goes on behind the bytes.
    Short,
    /// It is none.
    Malformed,
}

impl From<Malformed> for Stop {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// A string as it was sent.
struct Coded<'a> {
    bytes: &'a [u8],
    huffman: bool,
}

impl<'a> Coded<'a> {
    /// The text, in the buffer if it has to be decoded.
    fn text<'b>(&self, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Malformed>
    where
        'a: 'b,
    {
        if !self.huffman {
            return Ok(self.bytes);
        }
        huffman::decode(self.bytes, buffer)?;
        Ok(buffer)
    }
}

/// A position in a block.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Result<u8, Stop> {
        self.bytes.get(self.at).copied().ok_or(Stop::Short)
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    /// An integer whose first bits are the lower `prefix` ones of the next byte.
    fn integer(&mut self, prefix: u32) -> Result<u32, Stop> {
        let most = (1u32 << prefix) - 1;
        let first = u32::from(self.byte()?) & most;
        if first < most {
            return Ok(first);
        }
        let mut sum = u64::from(first);
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            sum += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(sum).map_err(|_| Stop::Malformed);
            }
        }
        Err(Stop::Malformed)
    }

    fn string(&mut self) -> Result<Coded<'a>, Stop> {
        let huffman = self.peek()? & 0x80 != 0;
        let len = self.integer(7)? as usize;
        if len > MAX_STRING {
            return Err(Stop::Malformed);
        }
        let bytes = self.bytes.get(self.at..).and_then(|rest| rest.get(..len)).ok_or(Stop::Short)?;
        self.at += len;
        Ok(Coded { bytes, huffman })
    }
}

#[cfg(test)]
mod tests;
