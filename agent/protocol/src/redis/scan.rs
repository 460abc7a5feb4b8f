//! The pieces that everything in RESP is made of: lines, and data of a length with a line end behind it.

use memchr::memchr;

/// Bytes kept of a line; what is longer is text that is not read.
const KEPT: usize = 40;

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// A line.
    Line,
    /// So many bytes of data.
    Data(u64),
    /// The line end behind it, of which so many bytes were seen.
    End(u8),
}

/// What a step found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found<'a> {
    /// Nothing yet: the input is used up.
    More,
    /// A line is whole.
    Line,
    /// A piece of data.
    Data(&'a [u8]),
    /// The data and its line end are over.
    DataEnd,
    /// The grammar is broken.
    Bad,
}

/// Reads pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan {
    mode: Mode,
    line: [u8; KEPT],
    /// Bytes of the line, all of them.
    len: usize,
    cr: bool,
}

impl Scan {
    pub(super) const fn new() -> Self {
        Self { mode: Mode::Line, line: [0; KEPT], len: 0, cr: false }
    }

    /// The line that was found: its first byte, and the rest as far as it is kept.
    pub(super) fn line(&self) -> (u8, &[u8]) {
        match self.line.get(..self.len.min(KEPT)) {
            Some([kind, rest @ ..]) => (*kind, rest),
            _ => (0, &[]),
        }
    }

    /// A line comes next.
    pub(super) const fn expect_line(&mut self) {
        self.mode = Mode::Line;
        self.len = 0;
        self.cr = false;
    }

    /// Data comes next.
    pub(super) const fn expect_data(&mut self, len: u64) {
        self.mode = if len == 0 { Mode::End(0) } else { Mode::Data(len) };
    }

    /// Reads on; gives the bytes used.
    pub(super) fn step<'a>(&mut self, bytes: &'a [u8]) -> (usize, Found<'a>) {
        match self.mode {
            Mode::Line => self.read_line(bytes),
            Mode::Data(left) => {
                let used = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let piece = bytes.get(..used).unwrap_or_default();
                if piece.is_empty() {
                    return (0, Found::More);
                }
                self.expect_data(left - used as u64);
                (used, Found::Data(piece))
            }
            Mode::End(seen) => match (seen, bytes) {
                (_, []) => (0, Found::More),
                (0, [b'\r', b'\n', ..]) => (2, Found::DataEnd),
                (0, [b'\r']) => {
                    self.mode = Mode::End(1);
                    (1, Found::More)
                }
                (1, [b'\n', ..]) => (1, Found::DataEnd),
                _ => (0, Found::Bad),
            },
        }
    }

    fn read_line<'a>(&mut self, bytes: &[u8]) -> (usize, Found<'a>) {
        let end = memchr(b'\n', bytes);
        let piece = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        if let Some(last) = piece.last() {
            if let Some(space) = self.line.get_mut(self.len.min(KEPT)..) {
                for (to, from) in space.iter_mut().zip(piece) {
                    *to = *from;
                }
            }
            self.len += piece.len();
            self.cr = *last == b'\r';
        }
        if end.is_none() {
            return (bytes.len(), Found::More);
        }
        if !self.cr {
            return (piece.len(), Found::Bad);
        }
        self.len -= 1;
        (piece.len() + 1, Found::Line)
    }

    /// Passes over bytes that were not captured: how many, and whether the data is over with them. None in a line.
    pub(super) fn hole(&mut self, len: u64) -> Option<(u64, bool)> {
        let left = match self.mode {
            Mode::Line => return None,
            Mode::Data(left) => left.saturating_add(2),
            Mode::End(seen) => 2 - u64::from(seen),
        };
        if len >= left {
            return Some((left, true));
        }
        self.mode = match left - len {
            1 => Mode::End(1),
            2 => Mode::End(0),
            more => Mode::Data(more - 2),
        };
        Some((len, false))
    }
}

/// A length or a count.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 12 {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + u64::from(b - b'0')))
}

/// The beginning of a text that may be long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    bytes: [u8; 32],
    len: u8,
    /// There was more.
    over: bool,
}

impl Word {
    pub(super) const EMPTY: Self = Self { bytes: [0; 32], len: 0, over: false };

    /// A part of it was not captured.
    pub(super) const fn spoil(&mut self) {
        self.over = true;
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        let space = self.bytes.get_mut(usize::from(self.len)..).unwrap_or_default();
        self.over |= piece.len() > space.len();
        for (to, from) in space.iter_mut().zip(piece) {
            *to = *from;
            self.len += 1;
        }
    }

    /// What was kept.
    pub(super) fn start(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The text, if it is whole and not empty.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        (!self.over && self.len > 0).then(|| self.start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_counted_to_the_line_end() {
        let mut scan = Scan::new();
        assert_eq!(scan.hole(3), None);
        scan.expect_data(10);
        assert_eq!(scan.hole(4), Some((4, false)));
        assert_eq!(scan.step(b"abcdefg"), (6, Found::Data(b"abcdef")));
        assert_eq!(scan.hole(1), Some((1, false)));
        assert_eq!(scan.step(b"\n"), (1, Found::DataEnd));
        scan.expect_data(10);
        assert_eq!(scan.hole(11), Some((11, false)));
        assert_eq!(scan.hole(9), Some((1, true)));
        scan.expect_data(0);
        assert_eq!(scan.step(b"\rx"), (0, Found::Bad));
    }

    #[test]
    fn long_lines_are_kept_in_part() {
        let mut scan = Scan::new();
        let long = [b"+".as_slice(), &[b'a'; 100]].concat();
        assert_eq!(scan.step(&long), (101, Found::More));
        assert_eq!(scan.step(b"\r"), (1, Found::More));
        assert_eq!(scan.step(b"\nrest"), (1, Found::Line));
        assert_eq!(scan.line(), (b'+', [b'a'; KEPT - 1].as_slice()));
        assert_eq!(number(b"0123"), Some(123));
        assert_eq!(number(b"-1"), None);
    }
}
