//! Protobuf by hand: appending fields to a buffer, and reading the few short messages that come back.

/// Wire type of a varint.
const VARINT: u32 = 0;
/// Wire type of eight bytes.
const FIXED64: u32 = 1;
/// Wire type of a length and that many bytes.
const BYTES: u32 = 2;
/// Wire type of four bytes.
const FIXED32: u32 = 5;

/// Bytes a varint takes.
pub(super) const fn varint_len(value: u64) -> usize {
    // Seven bits a byte; zero takes one.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Bytes of a length-delimited field with a one-byte key.
pub(super) const fn bytes_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Appends a varint.
#[inline]
pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
fn key(out: &mut Vec<u8>, field: u32, wire: u32) {
    varint(out, u64::from(field << 3 | wire));
}

/// Appends a varint field.
#[inline]
pub(super) fn uint(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, VARINT);
    varint(out, value);
}

/// Appends a field of eight bytes.
#[inline]
pub(super) fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field of four bytes.
#[inline]
pub(super) fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    key(out, field, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends key and length of a field whose bytes follow.
#[inline]
pub(super) fn head(out: &mut Vec<u8>, field: u32, len: usize) {
    key(out, field, BYTES);
    varint(out, len as u64);
}

/// Appends bytes or text.
#[inline]
pub(super) fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    head(out, field, value.len());
    out.extend_from_slice(value);
}

/// Appends a message of unknown length: one byte is kept for the length, and where it takes more the message
/// moves up. Cheaper than measuring first, because the move is one short copy.
#[inline]
pub(super) fn nested(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    key(out, field, BYTES);
    let mark = out.len();
    out.push(0);
    write(out);
    let start = mark + 1;
    let end = out.len();
    let mut len = (end - start) as u64;
    let extra = varint_len(len) - 1;
    if extra > 0 {
        out.resize(end + extra, 0);
        out.copy_within(start..end, start + extra);
    }
    for slot in out.iter_mut().skip(mark).take(extra + 1) {
        *slot = len as u8 & 0x7f;
        len >>= 7;
        if len > 0 {
            *slot |= 0x80;
        }
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
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
        }
    }

    #[test]
    fn nested_messages_of_every_length_class_read_back() {
        for len in [0usize, 1, 127, 128, 16_383, 16_384, 2_097_152] {
            let mut out = vec![0xaa];
            nested(&mut out, 3, |out| out.extend(std::iter::repeat_n(7, len)));
            let mut fields = Fields::of(&out[1..]);
            assert_eq!(fields.next(), Ok(Some((3, Field::Bytes(&vec![7; len][..])))));
            assert_eq!(fields.next(), Ok(None));
            // The canonical form: no longer than needed.
            assert_eq!(out.len(), 1 + bytes_len(len));
        }
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
