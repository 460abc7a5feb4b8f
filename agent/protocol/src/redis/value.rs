//! An answer: bytes in, where it ends and which error it is out. RESP2 and RESP3.

use super::command::{Passed, Progress};
use super::scan::{Found, Scan, Word, number};

/// Values within values that are followed.
const MAX_DEPTH: usize = 16;
/// Longest string.
const MAX_STRING: u64 = 4 << 30;
/// Values left of an aggregate that does not tell how many it has.
const STREAMED: u64 = u64::MAX;

/// An aggregate that is being read.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    left: u64,
    /// Attributes of the value behind them.
    attribute: bool,
}

/// A value that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    scan: Scan,
    frames: [Frame; MAX_DEPTH],
    depth: usize,
    /// First byte of the value itself, behind attributes; zero until that was read.
    kind: u8,
    /// The first word of an error, or of the first value within the outermost.
    word: Word,
    /// Values at the first level that are over.
    first_is_over: bool,
    /// A string comes in pieces.
    pieces: bool,
}

impl Value {
    pub(super) const fn new() -> Self {
        Self {
            scan: Scan::new(),
            frames: [Frame { left: 0, attribute: false }; MAX_DEPTH],
            depth: 0,
            kind: 0,
            word: Word::EMPTY,
            first_is_over: false,
            pieces: false,
        }
    }

    /// The first word of an error.
    pub(super) fn error(&self) -> Option<Box<str>> {
        if !matches!(self.kind, b'-' | b'!') {
            return None;
        }
        let text = self.word.start();
        let end = text.iter().position(|b| matches!(b, b' ' | b'\r' | b'\n')).unwrap_or(text.len());
        let word = text.get(..end).unwrap_or_default();
        // A script may say anything.
        let code = !word.is_empty()
            && end <= 24
            && word.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_');
        Some(str::from_utf8(word).ok().filter(|_| code).unwrap_or("_OTHER").into())
    }

    /// The first value within tells that it confirms a subscription. None as long as that is not known.
    pub(super) fn confirms(&self) -> Option<bool> {
        self.first_is_over.then(|| self.word.start().to_ascii_lowercase().ends_with(b"subscribe"))
    }

    /// The same, and messages instead of answers follow.
    pub(super) fn subscribes(&self) -> bool {
        let word = self.word.start().to_ascii_lowercase();
        self.confirms() == Some(true) && !word.windows(2).any(|two| two == b"un")
    }

    /// Takes captured bytes, up to the end of the value.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Progress {
        let mut at = 0;
        loop {
            let (used, found) = self.scan.step(bytes.get(at..).unwrap_or_default());
            at += used;
            let over = match found {
                Found::More if at >= bytes.len() => return Progress::More,
                Found::More => Some(false),
                Found::Data(piece) => {
                    self.text(piece);
                    Some(false)
                }
                Found::DataEnd => Some(self.data_ends()),
                Found::Line => self.line(),
                Found::Bad => None,
            };
            match over {
                Some(false) => {}
                Some(true) => return Progress::Done(at),
                None => return Progress::Bad(at),
            }
        }
    }

    /// Text that may be the word: of an error, or of the first value within.
    fn text(&mut self, piece: &[u8]) {
        if (self.depth == 0 && self.kind == b'!')
            || (self.depth == 1 && !self.first_is_over && self.kind != 0)
        {
            self.word.push(piece);
        }
    }

    /// A line: true if the value is over with it, none if it is no line of RESP.
    fn line(&mut self) -> Option<bool> {
        let scan = self.scan;
        let (kind, rest) = scan.line();
        self.scan.expect_line();
        if self.pieces {
            let len = number(rest).filter(|len| kind == b';' && *len <= MAX_STRING)?;
            if len > 0 {
                self.scan.expect_data(len);
                return Some(false);
            }
            self.pieces = false;
            return Some(self.ends());
        }
        if self.depth == 0 && kind != b'|' {
            self.kind = kind;
        }
        match kind {
            b'-' if self.depth == 0 => {
                self.word.push(rest);
                Some(true)
            }
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {
                self.text(rest);
                Some(self.ends())
            }
            b'$' | b'=' | b'!' => match rest {
                b"-1" => Some(self.ends()),
                b"?" => {
                    self.pieces = true;
                    Some(false)
                }
                _ => {
                    let len = number(rest).filter(|len| *len <= MAX_STRING)?;
                    self.scan.expect_data(len);
                    Some(false)
                }
            },
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                let left = match rest {
                    b"-1" => 0,
                    b"?" => STREAMED,
                    _ if matches!(kind, b'%' | b'|') => number(rest)? * 2,
                    _ => number(rest)?,
                };
                self.begins(left, kind == b'|')
            }
            b'.' if rest.is_empty() => {
                let frame = self.top().filter(|frame| frame.left == STREAMED).copied()?;
                self.depth -= 1;
                Some(!frame.attribute && self.ends())
            }
            _ => None,
        }
    }

    fn top(&mut self) -> Option<&mut Frame> {
        self.frames.get_mut(self.depth.checked_sub(1)?)
    }

    /// An aggregate of so many values.
    fn begins(&mut self, left: u64, attribute: bool) -> Option<bool> {
        if left == 0 {
            return Some(!attribute && self.ends());
        }
        *self.frames.get_mut(self.depth)? = Frame { left, attribute };
        self.depth += 1;
        Some(false)
    }

    /// The data of a string is over: the string too, or another piece follows.
    fn data_ends(&mut self) -> bool {
        self.scan.expect_line();
        !self.pieces && self.ends()
    }

    /// A value is over: true if it was the outermost.
    fn ends(&mut self) -> bool {
        loop {
            let depth = self.depth;
            let Some(frame) = self.top() else { return true };
            if frame.left != STREAMED {
                frame.left -= 1;
            }
            let (left, attribute) = (frame.left, frame.attribute);
            if depth == 1 && !attribute {
                self.first_is_over = true;
            }
            if left > 0 {
                return false;
            }
            self.depth -= 1;
            if attribute {
                // The value itself is still to come.
                return false;
            }
        }
    }

    /// Takes bytes that were not captured.
    pub(super) fn hole(&mut self, len: u64) -> Passed {
        match self.scan.hole(len) {
            None => Passed::Cut,
            Some((_, false)) => Passed::Inside,
            Some((used, true)) => {
                if self.data_ends() {
                    Passed::Done(used)
                } else if used == len {
                    Passed::Inside
                } else {
                    Passed::Cut
                }
            }
        }
    }
}
