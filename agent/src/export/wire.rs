//! Protobuf by hand: writing fields into memory that is there, and reading the few short messages that come back.

/// Wire type of a varint.
const VARINT: u32 = 0;
/// Wire type of eight bytes.
const FIXED64: u32 = 1;
/// Wire type of a length and that many bytes.
const BYTES: u32 = 2;
/// Wire type of four bytes.
const FIXED32: u32 = 5;

/// A varint of no more than [`SHORT_VARINT`] in the lowest bytes of a word, and how many bytes it takes.
#[inline]
pub(super) const fn short_varint(value: u64) -> (u64, usize) {
    let mut word = value & 0x7f;
    let mut rest = value >> 7;
    let mut bits = 8;
    while rest > 0 && bits < 64 {
        // The byte before is not the last one.
        word |= 0x80 << (bits - 8) | (rest & 0x7f) << bits;
        rest >>= 7;
        bits += 8;
    }
    (word, bits / 8)
}

/// Largest varint of five bytes.
pub(super) const SHORT_VARINT: u64 = (1 << 35) - 1;

/// Bytes a varint takes.
#[inline]
pub(super) const fn varint_len(value: u64) -> usize {
    if value < 0x80 {
        // Nearly every length.
        return 1;
    }
    // Seven bits a byte; zero takes one.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Bytes of a length-delimited field with a one-byte key.
pub(super) const fn bytes_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// The key of a length-delimited field below 16, which is one byte.
pub(super) const fn tag(field: u32) -> u8 {
    (field << 3 | BYTES) as u8
}

/// Memory that fields are written into, one after the other. What finds no room is left out, and that is remembered: then all
/// is to be written again into more. Unlike a growing buffer this needs one comparison for each piece and never moves anything.
pub(super) struct Room<'a> {
    free: &'a mut [u8],
    whole: usize,
    full: bool,
}

impl<'a> Room<'a> {
    /// All of this memory.
    pub(super) fn of(memory: &'a mut [u8]) -> Self {
        Self { whole: memory.len(), free: memory, full: false }
    }

    /// Bytes written; none if something found no room.
    pub(super) fn written(&self) -> Option<usize> {
        (!self.full).then_some(self.whole - self.free.len())
    }

    /// All that is left of it; here nothing is left.
    #[inline]
    pub(super) fn take(&mut self) -> Self {
        Self { free: std::mem::take(&mut self.free), ..*self }
    }

    /// Appends bytes as they are.
    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        match std::mem::take(&mut self.free).split_at_mut_checked(bytes.len()) {
            Some((to, rest)) => {
                to.copy_from_slice(bytes);
                self.free = rest;
            }
            None => self.full = true,
        }
    }

    /// Appends the first bytes of a small piece: it is written in one go as it is, so there must be room for all of it.
    #[inline]
    pub(super) fn put_part<const N: usize>(&mut self, piece: &[u8; N], len: usize) {
        match self.free.split_first_chunk_mut() {
            Some((to, _)) => {
                *to = *piece;
                self.free = std::mem::take(&mut self.free).get_mut(len..).unwrap_or_default();
            }
            None => self.full = true,
        }
    }

    /// Appends fields whose lengths are all known: they are put together beside it, where the compiler sees that they fit.
    #[inline]
    pub(super) fn known<const N: usize>(&mut self, write: impl FnOnce(&mut Room<'_>)) {
        let mut piece = [0; N];
        let mut room = Room::of(&mut piece);
        write(&mut room);
        self.full |= room.full || !room.free.is_empty();
        self.put(&piece);
    }

    /// Appends a varint.
    #[inline]
    pub(super) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.put(&[value as u8]);
    }

    #[inline]
    fn key(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    /// Appends a varint field.
    #[inline]
    pub(super) fn uint(&mut self, field: u32, value: u64) {
        self.key(field, VARINT);
        self.varint(value);
    }

    /// Appends a field of eight bytes.
    #[inline]
    pub(super) fn fixed64(&mut self, field: u32, value: u64) {
        self.key(field, FIXED64);
        self.put(&value.to_le_bytes());
    }

    /// Appends a field of four bytes.
    #[inline]
    pub(super) fn fixed32(&mut self, field: u32, value: u32) {
        self.key(field, FIXED32);
        self.put(&value.to_le_bytes());
    }

    /// Appends key and length of a field whose bytes follow.
    #[inline]
    pub(super) fn head(&mut self, field: u32, len: usize) {
        self.key(field, BYTES);
        self.varint(len as u64);
    }

    /// Appends two heads, the second inside of the first; fields below 16. Nearly all lengths take one byte: then it is one
    /// piece of four bytes.
    #[inline]
    pub(super) fn heads(&mut self, outer: (u32, usize), inner: (u32, usize)) {
        if (outer.1 | inner.1) < 0x80 {
            self.put(&[tag(outer.0), outer.1 as u8, tag(inner.0), inner.1 as u8]);
        } else {
            self.head(outer.0, outer.1);
            self.head(inner.0, inner.1);
        }
    }

    /// Appends bytes or text.
    #[inline]
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.head(field, value.len());
        self.put(value);
    }
}

/// Appends key and length of a field whose bytes follow to a buffer.
pub(super) fn head(out: &mut Vec<u8>, field: u32, len: usize) {
    // A key and a length are 15 bytes at most.
    let mut small = [0; 16];
    let mut room = Room::of(&mut small);
    room.head(field, len);
    let written = room.written().unwrap_or_default();
    out.extend_from_slice(small.get(..written).unwrap_or_default());
}

/// Appends a message of unknown length to a buffer. It is written into `scratch` first, which grows until it is large enough and
/// keeps its size for the next.
pub(super) fn message(out: &mut Vec<u8>, field: u32, scratch: &mut Vec<u8>, write: impl Fn(&mut Room<'_>)) {
    let message = written(scratch, write);
    head(out, field, message.len());
    out.extend_from_slice(message);
}

/// What is written, alone.
pub(super) fn whole(write: impl Fn(&mut Room<'_>)) -> Vec<u8> {
    written(&mut Vec::new(), write).to_vec()
}

/// Writes into a buffer that grows until it is large enough.
fn written(scratch: &mut Vec<u8>, write: impl Fn(&mut Room<'_>)) -> &[u8] {
    loop {
        let mut room = Room::of(scratch);
        write(&mut room);
        if let Some(written) = room.written() {
            return scratch.get(..written).unwrap_or_default();
        }
        scratch.resize((scratch.len() * 2).max(1024), 0);
    }
}

/// One field of a message that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field<'a> {
    /// A varint.
    Uint(u64),
    /// A length and bytes.
    Bytes(&'a [u8]),
    /// Something of fixed width, not used by what is read here.
    Fixed,
}

/// The bytes are not a protobuf message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Garbled;

/// Reads the fields of a message one by one.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Over these bytes.
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// The next field with its number; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, Garbled> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Garbled)?;
        if number == 0 {
            return Err(Garbled);
        }
        let field = match (key & 7) as u32 {
            VARINT => Field::Uint(self.varint()?),
            BYTES => {
                let len = usize::try_from(self.varint()?).map_err(|_| Garbled)?;
                Field::Bytes(self.take(len)?)
            }
            FIXED64 => self.take(8).map(|_| Field::Fixed)?,
            FIXED32 => self.take(4).map(|_| Field::Fixed)?,
            _ => return Err(Garbled),
        };
        Ok(Some((number, field)))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Garbled)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Garbled> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Garbled)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Garbled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_varints() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut memory = [0; 10];
            let mut room = Room::of(&mut memory);
            room.varint(value);
            assert_eq!(room.written(), Some(varint_len(value)), "{value}");
        }
    }

    #[test]
    fn short_varints_are_varints() {
        for value in [0, 1, 127, 128, 300, 16_383, 16_384, 65_535, 1 << 28, SHORT_VARINT] {
            let (word, len) = short_varint(value);
            let mut memory = [0; 10];
            let mut room = Room::of(&mut memory);
            room.varint(value);
            assert_eq!(room.written(), Some(len), "{value}");
            assert_eq!(word.to_le_bytes()[..len], memory[..len], "{value}");
            assert!(len <= 5);
        }
    }

    #[test]
    fn parts_and_known_pieces_find_room_or_tell() {
        let mut memory = [0; 8];
        let mut room = Room::of(&mut memory);
        room.put_part(&[1, 2, 3, 4], 2);
        room.known::<3>(|room| room.put(&[5, 6, 7]));
        assert_eq!(room.written(), Some(5));
        room.put_part(&[8, 9, 0, 0], 2);
        assert_eq!(room.written(), None, "there must be room for four");
        assert_eq!(memory[..5], [1, 2, 5, 6, 7]);
        let mut memory = [0; 8];
        let mut room = Room::of(&mut memory);
        room.known::<3>(|room| room.put(&[5, 6]));
        assert_eq!(room.written(), None, "it was said to be three");
    }

    #[test]
    fn messages_of_every_length_class_read_back() {
        let mut scratch = Vec::new();
        for len in [0usize, 1, 127, 128, 16_383, 16_384, 2_097_152] {
            let mut out = vec![0xaa];
            message(&mut out, 3, &mut scratch, |room| room.put(&vec![7; len]));
            let mut fields = Fields::of(&out[1..]);
            assert_eq!(fields.next(), Ok(Some((3, Field::Bytes(&vec![7; len][..])))));
            assert_eq!(fields.next(), Ok(None));
            // The canonical form: no longer than needed.
            assert_eq!(out.len(), 1 + bytes_len(len));
        }
    }

    #[test]
    fn two_heads_are_one_after_the_other() {
        for (outer, inner) in [(7, 3), (127, 127), (128, 120), (200, 128)] {
            let (mut one, mut two) = ([0; 8], [0; 8]);
            let (mut together, mut apart) = (Room::of(&mut one), Room::of(&mut two));
            together.heads((9, outer), (1, inner));
            apart.head(9, outer);
            apart.head(1, inner);
            assert_eq!(together.written(), apart.written());
            assert_eq!(one, two);
        }
    }

    #[test]
    fn what_finds_no_room_is_told() {
        for len in 0..12 {
            let mut memory = [0; 12];
            let mut room = Room::of(&mut memory[..len]);
            room.bytes(1, b"12345678");
            room.put(b"90");
            assert_eq!(room.written(), None, "{len}");
        }
        let mut memory = [0; 12];
        let mut room = Room::of(&mut memory);
        room.bytes(1, b"12345678");
        room.put(b"90");
        assert_eq!(room.written(), Some(12));
    }

    #[test]
    fn garbage_is_refused() {
        for bytes in
            [&b"\x0a\x05ab"[..], b"\x0f", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x00\x01"]
        {
            let mut fields = Fields::of(bytes);
            assert_eq!(fields.next(), Err(Garbled), "{bytes:?}");
        }
    }
}
