//! SQL text as spans may carry it.
//!
//! Comes in: the text of a statement as it was captured, perhaps cut. Goes out: the text without literals and comments, and what
//! it does to which tables in a few words.
//!
//! Nothing of a literal ever goes out. Where two readings of the text are possible (a backslash before a quote in a plain
//! string: the server's settings decide), and where a literal or a comment does not end, the text is cut.

mod lex;
mod summary;
mod write;

use lex::{Lexer, Token};
use summary::Summary;
use write::Writer;

/// Whose lexical rules hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dialect {
    /// Double quotes are identifiers, dollar quotes are strings, comments nest.
    #[default]
    PostgreSql,
    /// Double quotes are strings, a backslash escapes in every string, `#` begins a comment.
    MySql,
}

/// A statement without its literals.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sanitised {
    /// The text: `?` for every literal, one space for white space and comments. `IN` lists and arrays of literals and parameters
    /// are `(?)`, of the rows of `VALUES` the first is there.
    pub text: Box<str>,
    /// The first keyword in capitals; after `WITH` the one of the statement itself. Empty if there is none.
    pub operation: Box<str>,
    /// Operations and their tables in the order of the text, at most 255 bytes: `INSERT a SELECT b`. Names are as written.
    pub summary: Box<str>,
    /// The table, if the summary is of one operation on one table.
    pub collection: Option<Box<str>>,
    /// The text goes on, beyond the limit or beyond what can be told.
    pub truncated: bool,
}

/// Words that may stand in a list of literals.
const CONSTANTS: [&str; 4] = ["NULL", "TRUE", "FALSE", "DEFAULT"];

/// A PostgreSQL statement without its literals, in at most `out_limit` bytes.
pub fn sanitise(text: &str, out_limit: usize) -> Sanitised {
    sanitise_as(Dialect::PostgreSql, text, out_limit)
}

/// The same of bytes, of which those that are not UTF-8 are replaced.
pub fn sanitise_bytes(bytes: &[u8], out_limit: usize) -> Sanitised {
    sanitise_bytes_as(Dialect::PostgreSql, bytes, out_limit)
}

/// [`sanitise_bytes`] of a dialect.
pub fn sanitise_bytes_as(dialect: Dialect, bytes: &[u8], out_limit: usize) -> Sanitised {
    match str::from_utf8(bytes) {
        Ok(text) => sanitise_as(dialect, text, out_limit),
        Err(_) => sanitise_as(dialect, &String::from_utf8_lossy(bytes), out_limit),
    }
}

/// [`sanitise`] of a dialect.
pub fn sanitise_as(dialect: Dialect, text: &str, out_limit: usize) -> Sanitised {
    let mut lexer = Lexer::new(dialect, text);
    let mut writer = Writer::new(text.len(), out_limit);
    let mut summary = Summary::default();
    let mut before = "";
    let mut depth = 0usize;
    // Depth of the parentheses that the first row of VALUES is in.
    let mut row = None;
    while let Some(token) = lexer.next_token() {
        if let Token::Punct(open @ ("(" | "[")) = token {
            let listed = if open == "(" { "IN" } else { "ARRAY" };
            if before.eq_ignore_ascii_case(listed)
                && let Some(list) = List::read(lexer.clone())
            {
                writer.punct(open);
                writer.literal();
                if list.closed {
                    writer.punct(if open == "(" { ")" } else { "]" });
                }
                lexer = list.rest;
                before = "";
                continue;
            }
        }
        match token {
            Token::Space => {
                writer.space();
                continue;
            }
            Token::Word(word) => writer.word(word),
            Token::Quoted(name) => writer.word(name),
            Token::Param(name) => writer.punct(name),
            Token::Literal => writer.literal(),
            Token::Punct(punct) => writer.punct(punct),
        }
        summary.token(token);
        match token {
            Token::Punct("(") => {
                if before.eq_ignore_ascii_case("VALUES") {
                    row = Some(depth);
                }
                depth += 1;
            }
            Token::Punct(")") => {
                depth = depth.saturating_sub(1);
                if row == Some(depth) {
                    row = None;
                    skip_rows(&mut lexer);
                }
            }
            _ => {}
        }
        before = if let Token::Word(word) = token { word } else { "" };
    }
    let truncated = writer.is_full() || lexer.is_broken();
    let (operation, summary, collection) = summary.finish();
    Sanitised { text: writer.finish(), operation, summary, collection, truncated }
}

/// A list of literals and parameters.
struct List<'a> {
    rest: Lexer<'a>,
    closed: bool,
}

impl<'a> List<'a> {
    /// Reads on after the opening parenthesis or bracket. None if there is something else in it.
    fn read(mut lexer: Lexer<'a>) -> Option<Self> {
        let (mut depth, mut values) = (1u32, 0u32);
        loop {
            match lexer.next_token() {
                Some(Token::Literal | Token::Param(_)) => values = 1,
                Some(Token::Space | Token::Punct("," | "+" | "-")) => {}
                Some(Token::Word(word)) if CONSTANTS.iter().any(|c| word.eq_ignore_ascii_case(c)) => {}
                Some(Token::Punct("(" | "[")) => depth = depth.saturating_add(1),
                Some(Token::Punct(")" | "]")) => {
                    depth -= 1;
                    if depth == 0 {
                        return (values > 0).then_some(Self { rest: lexer, closed: true });
                    }
                }
                Some(_) => return None,
                None => return (values > 0).then_some(Self { rest: lexer, closed: false }),
            }
        }
    }
}

/// Passes over `, (...)` as often as it comes.
fn skip_rows(lexer: &mut Lexer<'_>) {
    loop {
        let mut ahead = lexer.clone();
        if ahead.next_solid() != Some(Token::Punct(",")) || ahead.next_solid() != Some(Token::Punct("(")) {
            return;
        }
        let mut depth = 1u32;
        while depth > 0 {
            match ahead.next_token() {
                Some(Token::Punct("(")) => depth = depth.saturating_add(1),
                Some(Token::Punct(")")) => depth -= 1,
                Some(_) => {}
                None => break,
            }
        }
        *lexer = ahead;
    }
}
