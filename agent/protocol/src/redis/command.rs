//! A command: bytes in, its name and the number of its arguments out. Of the arguments only the second word of a command with
//! two, and the number after SELECT, are kept.

use super::names;
use super::pending::Kind;
use super::scan::{Found, Scan, Word, number};
use crate::message::{DbSystem, Query};

/// Most words of a command (the servers' own limit).
const MAX_WORDS: u64 = 1024 * 1024;
/// Longest word.
const MAX_WORD: u64 = 4 << 30;
/// Arguments that the text shows.
const SHOWN: u64 = 8;

/// How far a command went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// The input was used up.
    More,
    /// The command ended after so many bytes of the input.
    Done(usize),
    /// After so many bytes the grammar is broken.
    Bad(usize),
}

/// How a hole left it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Passed {
    /// Within it.
    Inside,
    /// The command ended after so many bytes of the hole.
    Done(u64),
    /// More words were in the hole.
    Cut,
}

/// A command that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    scan: Scan,
    /// Its words; zero as long as that is not known.
    words: u64,
    read: u64,
    name: Word,
    second: Word,
}

impl Command {
    pub(super) const fn new() -> Self {
        let word = Word::EMPTY;
        Self { scan: Scan::new(), words: 0, read: 0, name: word, second: word }
    }

    /// Takes captured bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Progress {
        let mut at = 0;
        loop {
            let (used, found) = self.scan.step(bytes.get(at..).unwrap_or_default());
            at += used;
            match found {
                Found::More if at >= bytes.len() => return Progress::More,
                Found::More => {}
                Found::Data(piece) => match self.read {
                    0 => self.name.push(piece),
                    1 => self.second.push(piece),
                    _ => {}
                },
                Found::DataEnd => {
                    if self.word_ends() {
                        return Progress::Done(at);
                    }
                }
                Found::Line => {
                    if self.line().is_none() {
                        return Progress::Bad(at);
                    }
                }
                Found::Bad => return Progress::Bad(at),
            }
        }
    }

    /// `*3` first, then `$5` before each word.
    fn line(&mut self) -> Option<()> {
        let (kind, digits) = self.scan.line();
        let count = number(digits)?;
        match (kind, self.words) {
            (b'*', 0) if (1..=MAX_WORDS).contains(&count) => {
                self.words = count;
                self.scan.expect_line();
            }
            (b'$', 1..) if count <= MAX_WORD => self.scan.expect_data(count),
            _ => return None,
        }
        Some(())
    }

    fn word_ends(&mut self) -> bool {
        self.read += 1;
        self.scan.expect_line();
        self.read == self.words
    }

    /// Takes bytes that were not captured.
    pub(super) fn hole(&mut self, len: u64) -> Passed {
        match self.scan.hole(len) {
            None => Passed::Cut,
            Some((_, false)) => {
                self.miss();
                Passed::Inside
            }
            Some((used, true)) => {
                self.miss();
                if self.word_ends() {
                    Passed::Done(used)
                } else if used == len {
                    Passed::Inside
                } else {
                    Passed::Cut
                }
            }
        }
    }

    /// A part of the word was not captured.
    fn miss(&mut self) {
        match self.read {
            0 => self.name.spoil(),
            1 => self.second.spoil(),
            _ => {}
        }
    }

    /// The name was read.
    pub(super) fn is_named(&self) -> bool {
        self.read > 0 && self.name.whole().is_some()
    }

    pub(super) fn kind(&self) -> Kind {
        names::kind(self.name.start(), self.second.start())
    }

    /// The number after SELECT.
    pub(super) fn database(&self) -> Option<Box<str>> {
        let digits =
            self.second.whole().filter(|word| word.len() <= 6 && word.iter().all(u8::is_ascii_digit));
        digits.and_then(|word| str::from_utf8(word).ok()).map(Into::into)
    }

    /// What is said of it.
    pub(super) fn query(&self, namespace: Option<Box<str>>, truncated: bool) -> Query {
        let mut operation = String::new();
        let mut arguments = self.words.saturating_sub(1);
        if let Some(name) = self.name.whole().and_then(names::plausible) {
            operation.push_str(name);
            operation.make_ascii_uppercase();
            if names::has_second(&operation)
                && let Some(second) = self.second.whole().and_then(names::plausible)
            {
                operation.push(' ');
                operation.push_str(second);
                operation.make_ascii_uppercase();
                arguments = arguments.saturating_sub(1);
            }
        }
        let text = (!operation.is_empty()).then(|| {
            let mut text = String::with_capacity(operation.len() + 2 * arguments.min(SHOWN + 2) as usize);
            text.push_str(&operation);
            for _ in 0..arguments.min(SHOWN) {
                text.push_str(" ?");
            }
            if arguments > SHOWN {
                text.push_str(" ...");
            }
            text.into_boxed_str()
        });
        Query {
            system: DbSystem::Redis,
            operation: operation.into_boxed_str(),
            summary: Box::default(),
            text,
            namespace,
            batch: 0,
            truncated,
        }
    }
}
