//! Tokens of SQL text: what a literal is, and where it ends.

use memchr::{memchr, memchr2, memmem};

use super::Dialect;

/// A piece of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token<'a> {
    /// White space or a comment.
    Space,
    /// A keyword or a name.
    Word(&'a str),
    /// A name in quotes, with them.
    Quoted(&'a str),
    /// A string or a number.
    Literal,
    /// A placeholder.
    Param(&'a str),
    /// Anything else.
    Punct(&'a str),
}

/// How a string escapes its quote.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    /// By doubling it. A backslash before a quote is an escape or not by the server's settings.
    Doubled,
    /// By a backslash too.
    Backslash,
}

/// Goes over a text once. A clone looks ahead.
#[derive(Clone)]
pub(super) struct Lexer<'a> {
    dialect: Dialect,
    text: &'a str,
    at: usize,
    broken: bool,
}

const fn is_space(b: u8) -> bool {
    b <= b' ' || b == 0x7f
}

const fn is_name_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b >= 0x80
}

const fn is_name(b: u8) -> bool {
    is_name_start(b) || b.is_ascii_digit() || b == b'$'
}

impl<'a> Lexer<'a> {
    pub(super) const fn new(dialect: Dialect, text: &'a str) -> Self {
        Self { dialect, text, at: 0, broken: false }
    }

    /// The text was given up before its end.
    pub(super) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// The next token that is not white space.
    pub(super) fn next_solid(&mut self) -> Option<Token<'a>> {
        loop {
            match self.next_token() {
                Some(Token::Space) => {}
                token => return token,
            }
        }
    }

    pub(super) fn next_token(&mut self) -> Option<Token<'a>> {
        let first = self.peek(0)?;
        let mysql = self.dialect == Dialect::MySql;
        match first {
            b if is_space(b) => Some(self.run(is_space, |_| Token::Space)),
            b'-' if self.peek(1) == Some(b'-') && (!mysql || self.peek(2).is_none_or(is_space)) => {
                self.line_comment()
            }
            b'#' if mysql => self.line_comment(),
            b'/' if self.peek(1) == Some(b'*') => self.block_comment(),
            b'\'' => self.string(0, b'\'', if mysql { Escape::Backslash } else { Escape::Doubled }),
            b'"' if mysql => self.string(0, b'"', Escape::Backslash),
            b'"' | b'`' => self.quoted(0, first),
            b'$' if !mysql => self.dollar(),
            b'$' => Some(self.run(is_name, Token::Word)),
            b'0'..=b'9' => Some(self.number()),
            b'.' if self.peek(1).is_some_and(|b| b.is_ascii_digit()) && !self.follows_name() => {
                Some(self.number())
            }
            b if is_name_start(b) => self.word(),
            b'?' => Some(self.take(1, Token::Param)),
            b':' if self.peek(1) == Some(b':') => Some(self.take(2, Token::Punct)),
            b':' if self.peek(1).is_some_and(is_name_start) => {
                Some(self.take(1 + self.count(1, is_name), Token::Param))
            }
            _ => Some(self.take(1, Token::Punct)),
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn rest(&self, ahead: usize) -> &'a [u8] {
        self.text.as_bytes().get(self.at + ahead..).unwrap_or_default()
    }

    /// How many bytes from there on are of a kind.
    fn count(&self, ahead: usize, kind: fn(u8) -> bool) -> usize {
        let rest = self.rest(ahead);
        rest.iter().position(|&b| !kind(b)).unwrap_or(rest.len())
    }

    fn take(&mut self, len: usize, token: fn(&'a str) -> Token<'a>) -> Token<'a> {
        let end = self.at + len;
        let piece = self.text.get(self.at..end).unwrap_or_default();
        self.at = end;
        token(piece)
    }

    fn run(&mut self, kind: fn(u8) -> bool, token: fn(&'a str) -> Token<'a>) -> Token<'a> {
        let len = self.count(0, kind);
        self.take(len, token)
    }

    /// Gives the rest of the text up.
    const fn give_up(&mut self) -> Option<Token<'a>> {
        self.broken = true;
        self.at = self.text.len();
        None
    }

    fn follows_name(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.text.as_bytes().get(at));
        before.is_some_and(|&b| is_name(b) || matches!(b, b'"' | b'`' | b']'))
    }

    fn line_comment(&mut self) -> Option<Token<'a>> {
        let rest = self.rest(0);
        // Without an end of line it may have been cut; nothing comes after it either way.
        self.at += rest.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(rest.len());
        Some(Token::Space)
    }

    fn block_comment(&mut self) -> Option<Token<'a>> {
        let (mut depth, mut ahead) = (1u32, 2);
        while depth > 0 {
            let Some(next) = memchr2(b'*', b'/', self.rest(ahead)) else { return self.give_up() };
            ahead += next;
            match (self.peek(ahead), self.peek(ahead + 1)) {
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    ahead += 2;
                }
                (Some(b'/'), Some(b'*')) if self.dialect == Dialect::PostgreSql => {
                    depth = depth.saturating_add(1);
                    ahead += 2;
                }
                _ => ahead += 1,
            }
        }
        self.at += ahead;
        Some(Token::Space)
    }

    /// A string whose first quote is `ahead`.
    fn string(&mut self, ahead: usize, quote: u8, escape: Escape) -> Option<Token<'a>> {
        let mut ahead = ahead + 1;
        loop {
            let Some(next) = memchr2(quote, b'\\', self.rest(ahead)) else { return self.give_up() };
            ahead += next;
            if self.peek(ahead) == Some(b'\\') {
                if escape == Escape::Backslash {
                    ahead += 2;
                    continue;
                }
                // Both readings agree after an even number.
                let run = self.count(ahead, |b| b == b'\\');
                ahead += run;
                if run % 2 == 1 && self.peek(ahead) == Some(quote) {
                    return self.give_up();
                }
            } else if self.peek(ahead + 1) == Some(quote) {
                ahead += 2;
            } else {
                self.at += ahead + 1;
                return Some(Token::Literal);
            }
        }
    }

    /// A name whose first quote is `ahead`.
    fn quoted(&mut self, ahead: usize, quote: u8) -> Option<Token<'a>> {
        let mut end = ahead + 1;
        loop {
            let Some(next) = memchr(quote, self.rest(end)) else { return self.give_up() };
            end += next + 1;
            if self.peek(end) != Some(quote) {
                return Some(self.take(end, Token::Quoted));
            }
            end += 1;
        }
    }

    /// A parameter (`$1`) or a string between `$tag$`.
    fn dollar(&mut self) -> Option<Token<'a>> {
        let digits = self.count(1, |b| b.is_ascii_digit());
        if digits > 0 {
            return Some(self.take(1 + digits, Token::Param));
        }
        let tag = self.count(1, |b| is_name(b) && b != b'$');
        if self.peek(1 + tag) != Some(b'$') {
            return Some(self.take(1 + tag, if tag > 0 { Token::Param } else { Token::Punct }));
        }
        let tag = tag + 2;
        let Some(quote) = self.rest(0).get(..tag) else { return self.give_up() };
        let Some(end) = memmem::find(self.rest(tag), quote) else { return self.give_up() };
        self.at += tag + end + tag;
        Some(Token::Literal)
    }

    /// Whatever begins like a number, up to what surely is none of it.
    fn number(&mut self) -> Token<'a> {
        let hex = self.peek(0) == Some(b'0') && matches!(self.peek(1), Some(b'x' | b'X'));
        let mut end = 1;
        while let Some(b) = self.peek(end) {
            let exponent = matches!(self.peek(end - 1), Some(b'e' | b'E')) && !hex;
            if is_name_start(b) || b.is_ascii_digit() || b == b'.' || (exponent && matches!(b, b'+' | b'-')) {
                end += 1;
            } else {
                break;
            }
        }
        self.at += end;
        Token::Literal
    }

    /// A word, or a literal that a letter before its quote makes a special one.
    fn word(&mut self) -> Option<Token<'a>> {
        let mysql = self.dialect == Dialect::MySql;
        let first = self.peek(0).unwrap_or_default().to_ascii_lowercase();
        match (first, self.peek(1), self.peek(2)) {
            (b'e', Some(b'\''), _) if !mysql => return self.string(1, b'\'', Escape::Backslash),
            (b'n', Some(b'\''), _) if mysql => return self.string(1, b'\'', Escape::Backslash),
            (b'b' | b'x' | b'n', Some(b'\''), _) => return self.string(1, b'\'', Escape::Doubled),
            (b'u', Some(b'&'), Some(b'\'')) if !mysql => return self.string(2, b'\'', Escape::Doubled),
            (b'u', Some(b'&'), Some(b'"')) if !mysql => return self.quoted(2, b'"'),
            _ => {}
        }
        Some(self.run(is_name, Token::Word))
    }
}
