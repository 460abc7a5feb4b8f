//! What a statement does to which tables, read from its tokens in one pass.

use super::lex::Token;

/// Longest summary.
const MAX_SUMMARY: usize = 255;
/// Longest keyword taken for an operation.
const MAX_OPERATION: usize = 32;
/// Parentheses that are followed; what is deeper is not looked at.
const MAX_DEPTH: usize = 32;

/// Words between an operation and its table.
const PASSED: &[&str] = &[
    "FROM",
    "INTO",
    "ONLY",
    "LATERAL",
    "IGNORE",
    "LOW_PRIORITY",
    "HIGH_PRIORITY",
    "QUICK",
    "DELAYED",
    "TABLE",
    "IF",
    "NOT",
    "EXISTS",
    "CONCURRENTLY",
    "ON",
];
/// Words between CREATE and what is created.
const MODIFIERS: &[&str] = &[
    "OR",
    "REPLACE",
    "TEMP",
    "TEMPORARY",
    "GLOBAL",
    "LOCAL",
    "UNLOGGED",
    "UNIQUE",
    "MATERIALIZED",
    "RECURSIVE",
    "FOREIGN",
    "CONSTRAINT",
];
/// What has a name that few others have too.
const NAMED: &[&str] = &[
    "TABLE",
    "VIEW",
    "INDEX",
    "SEQUENCE",
    "FUNCTION",
    "PROCEDURE",
    "TRIGGER",
    "TYPE",
    "SCHEMA",
    "DATABASE",
    "EXTENSION",
    "DOMAIN",
];
/// Words that end a list of tables.
const CLAUSES: &[&str] =
    &["WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "OFFSET", "WINDOW", "SET", "RETURNING", "FOR", "VALUES"];

/// What the next word may be.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// An operation.
    #[default]
    Start,
    /// What is created, altered or dropped.
    Kind,
    /// A table.
    Target,
    /// The name of a table was read; a dot may follow.
    Name,
    /// The dot was read.
    Dot,
    /// A clause.
    Idle,
    /// Nothing that matters, to the end of the statement.
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Verb {
    #[default]
    None,
    Select,
    Insert,
    Delete,
    Update,
    Merge,
    /// An operation on one table, and then nothing.
    Single,
    /// TRUNCATE: a list of tables.
    List,
    /// CREATE of something that a query may fill.
    Filled,
}

/// What is between two parentheses, or the statement.
#[derive(Clone, Copy, Default)]
struct Scope {
    state: State,
    verb: Verb,
    /// A comma leads to another table.
    list: bool,
    /// The operation itself is still to come: after WITH, EXPLAIN, PREPARE and DECLARE.
    waits: bool,
}

/// Reads tokens, and remembers what goes out.
#[derive(Default)]
pub(super) struct Summary {
    out: String,
    operation: String,
    top: Scope,
    inner: Vec<Scope>,
    /// Parentheses beyond those that are followed.
    deeper: usize,
    full: bool,
    operations: u32,
    targets: u32,
    /// Where the last name, the last statement, and the one before it begin.
    name_at: usize,
    statement_at: usize,
    previous_at: usize,
    /// The last word was DISTINCT: a FROM after it compares.
    distinct: bool,
    with: bool,
}

fn is_any(word: &str, of: &[&str]) -> bool {
    of.iter().any(|other| word.eq_ignore_ascii_case(other))
}

impl Summary {
    /// Takes a token that is not white space.
    pub(super) fn token(&mut self, token: Token<'_>) {
        let distinct = std::mem::take(&mut self.distinct);
        match token {
            Token::Punct("(") => self.open(),
            Token::Punct(")") => self.close(),
            Token::Punct(";") => self.end_statement(),
            _ if self.deeper > 0 => {}
            Token::Word(word) => self.word(word, distinct),
            Token::Quoted(name) => match self.scope().state {
                State::Target => self.name(name),
                State::Dot => self.more_name(name),
                _ => {}
            },
            Token::Punct(".") if self.scope().state == State::Name => {
                self.scope().state = State::Dot;
                self.more_name(".");
            }
            Token::Punct(",") => {
                let scope = self.scope();
                if scope.list && matches!(scope.state, State::Name | State::Idle) {
                    scope.state = State::Target;
                }
            }
            Token::Literal | Token::Param(_)
                if matches!(self.scope().state, State::Target | State::Start) =>
            {
                self.scope().state = State::Idle;
            }
            _ => {}
        }
    }

    /// The operation, the summary, and the only table.
    pub(super) fn finish(mut self) -> (Box<str>, Box<str>, Option<Box<str>>) {
        self.end_statement();
        let only = self.operations == 1 && self.targets == 1 && !self.full;
        let collection = self.out.get(self.name_at..).filter(|name| only && !name.is_empty()).map(Into::into);
        if self.operation.is_empty() {
            let first = if self.with { "WITH" } else { self.out.split(' ').next().unwrap_or_default() };
            self.operation = first.to_owned();
        }
        (self.operation.into(), self.out.into(), collection)
    }

    fn scope(&mut self) -> &mut Scope {
        self.inner.last_mut().unwrap_or(&mut self.top)
    }

    fn open(&mut self) {
        if self.deeper > 0 || self.inner.len() == MAX_DEPTH {
            self.deeper = self.deeper.saturating_add(1);
            return;
        }
        let scope = self.scope();
        let state = match scope.state {
            State::Closed => State::Closed,
            State::Target => State::Target,
            _ => State::Start,
        };
        if scope.state != State::Closed {
            scope.state = State::Idle;
        }
        self.inner.push(Scope { state, ..Scope::default() });
    }

    fn close(&mut self) {
        if self.deeper > 0 {
            self.deeper -= 1;
        } else {
            self.inner.pop();
        }
    }

    /// A statement like the one before it says nothing new.
    fn end_statement(&mut self) {
        let (previous, last) =
            (self.out.get(self.previous_at..self.statement_at), self.out.get(self.statement_at..));
        let same = self.statement_at > 0
            && previous.zip(last).is_some_and(|(a, b)| a.trim_start() == b.trim_start());
        if same {
            self.out.truncate(self.statement_at);
        } else {
            self.previous_at = self.statement_at;
            self.statement_at = self.out.len();
        }
        self.inner.clear();
        self.deeper = 0;
        self.top = Scope::default();
    }

    fn word(&mut self, word: &str, distinct: bool) {
        match self.scope().state {
            State::Start => self.start(word),
            State::Kind => self.kind(word),
            State::Dot => self.more_name(word),
            State::Target if is_any(word, PASSED) => {}
            State::Target if !is_any(word, &["SELECT", "WITH", "VALUES"]) => self.name(word),
            State::Target => {
                self.scope().state = State::Start;
                self.start(word);
            }
            State::Name | State::Idle => self.clause(word, distinct),
            State::Closed => {}
        }
    }

    /// A word where an operation may begin.
    fn start(&mut self, word: &str) {
        let outer = self.inner.is_empty();
        let verb = match word {
            _ if is_any(word, &["ALL", "DISTINCT"]) => return,
            _ if is_any(word, &["SELECT"]) => Verb::Select,
            _ if is_any(word, &["INSERT"]) => Verb::Insert,
            _ if outer && is_any(word, &["REPLACE"]) => Verb::Insert,
            _ if is_any(word, &["DELETE"]) => Verb::Delete,
            _ if is_any(word, &["UPDATE"]) => Verb::Update,
            _ if is_any(word, &["MERGE"]) => Verb::Merge,
            _ if is_any(word, &["WITH"]) => {
                self.with = true;
                *self.scope() = Scope { state: State::Idle, waits: true, ..Scope::default() };
                return;
            }
            // Only at the beginning of a statement, not of what is in parentheses.
            _ if !outer => {
                self.scope().state = State::Idle;
                return;
            }
            _ if is_any(word, &["EXPLAIN", "PREPARE", "DECLARE"]) => {
                self.operation(word);
                *self.scope() = Scope { state: State::Idle, waits: true, ..Scope::default() };
                return;
            }
            _ if is_any(word, &["CREATE", "ALTER", "DROP", "REFRESH"]) => {
                self.operation(word);
                self.scope().state = State::Kind;
                return;
            }
            _ if is_any(word, &["CALL", "EXEC", "COPY", "LOCK", "TABLE"]) => Verb::Single,
            _ if is_any(word, &["TRUNCATE"]) => Verb::List,
            _ => {
                self.operation(word);
                // The transaction is a part of the operation, like what is created.
                let more = is_any(word, &["START"]);
                self.scope().state = if more { State::Kind } else { State::Closed };
                return;
            }
        };
        self.operation(word);
        let state = if verb == Verb::Select { State::Idle } else { State::Target };
        *self.scope() = Scope { state, verb, list: matches!(verb, Verb::Update | Verb::List), waits: false };
    }

    /// A word after CREATE and the like.
    fn kind(&mut self, word: &str) {
        if is_any(word, MODIFIERS) {
            return;
        }
        self.push_upper(word);
        let filled = is_any(word, &["TABLE", "VIEW"]);
        let scope = self.scope();
        scope.state = if is_any(word, NAMED) { State::Target } else { State::Closed };
        scope.verb = if filled { Verb::Filled } else { Verb::Single };
    }

    /// A word within a statement.
    fn clause(&mut self, word: &str, distinct: bool) {
        let scope = *self.scope();
        if is_any(word, &["SELECT"])
            || (scope.waits && is_any(word, &["INSERT", "UPDATE", "DELETE", "MERGE"]))
        {
            return self.start(word);
        }
        let next = match word {
            _ if scope.verb == Verb::Single => Scope { state: State::Closed, ..scope },
            _ if is_any(word, &["UNION", "INTERSECT", "EXCEPT", "MINUS"]) => {
                Scope { state: State::Start, list: false, ..scope }
            }
            _ if is_any(word, &["JOIN", "STRAIGHT_JOIN"]) => Scope { state: State::Target, ..scope },
            _ if is_any(word, &["FROM"])
                && !distinct
                && matches!(scope.verb, Verb::Select | Verb::Delete | Verb::Update) =>
            {
                Scope { state: State::Target, list: true, ..scope }
            }
            _ if is_any(word, &["USING"]) && matches!(scope.verb, Verb::Delete | Verb::Merge) => {
                Scope { state: State::Target, list: true, ..scope }
            }
            _ if is_any(word, CLAUSES) => Scope { state: State::Idle, list: false, ..scope },
            _ => {
                self.distinct = is_any(word, &["DISTINCT"]);
                Scope { state: State::Idle, ..scope }
            }
        };
        *self.scope() = next;
    }

    fn operation(&mut self, word: &str) {
        if word.len() > MAX_OPERATION {
            return;
        }
        if self.operation.is_empty() && self.inner.is_empty() && self.operations == 0
            || self.with && self.operation.is_empty() && self.inner.is_empty()
        {
            self.operation = word.to_ascii_uppercase();
        }
        self.operations = self.operations.saturating_add(1);
        self.push_upper(word);
    }

    fn push_upper(&mut self, word: &str) {
        let at = self.out.len();
        if word.len() <= MAX_OPERATION
            && self.push(word)
            && let Some(pushed) = self.out.get_mut(at..)
        {
            pushed.make_ascii_uppercase();
        }
    }

    fn name(&mut self, name: &str) {
        let scope = self.scope();
        scope.state = State::Name;
        if self.push(name) {
            self.targets = self.targets.saturating_add(1);
            self.name_at = self.out.len() - name.len();
        }
    }

    /// Another part of the name: a name that does not fit is left out as a whole.
    fn more_name(&mut self, part: &str) {
        if part != "." {
            self.scope().state = State::Name;
        }
        if self.full {
            return;
        }
        if self.out.len() + part.len() <= MAX_SUMMARY {
            self.out.push_str(part);
        } else {
            self.full = true;
            self.out.truncate(self.name_at.saturating_sub(1));
        }
    }

    /// Adds a word; not if there is no space left.
    fn push(&mut self, word: &str) -> bool {
        let space = usize::from(!self.out.is_empty());
        self.full |= self.out.len() + space + word.len() > MAX_SUMMARY;
        if self.full {
            return false;
        }
        if space > 0 {
            self.out.push(' ');
        }
        self.out.push_str(word);
        true
    }
}
