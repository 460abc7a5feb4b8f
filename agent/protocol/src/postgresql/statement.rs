//! From the text of a statement to what may be told of it; and what a group of messages does, as one call.

use std::sync::Arc;

use crate::message::{DbSystem, Query};
use crate::sql::sanitise_bytes;

/// Longest text that is told.
const MAX_TEXT: usize = 2048;
/// Longest summary and operation, nearly.
const MAX_SUMMARY: usize = 255;

/// What may be told of a statement.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Statement {
    pub(super) operation: Box<str>,
    pub(super) summary: Box<str>,
    pub(super) text: Option<Box<str>>,
    pub(super) truncated: bool,
}

impl Statement {
    /// Most bytes of one.
    pub(super) const MAX: usize = size_of::<Self>() + MAX_TEXT + 2 * MAX_SUMMARY + 64;

    /// What the text says; `cut`: its end was not captured.
    pub(super) fn read(text: &[u8], cut: bool) -> Self {
        // Half a word would be taken for a whole one.
        let whole =
            if cut { text.iter().rposition(u8::is_ascii_whitespace).unwrap_or(0) } else { text.len() };
        let told = sanitise_bytes(text.get(..whole).unwrap_or_default(), MAX_TEXT);
        Self {
            text: Some(told.text).filter(|text| !text.is_empty()),
            operation: told.operation,
            summary: told.summary,
            truncated: told.truncated || cut,
        }
    }

    /// One that is known by what it does.
    pub(super) fn named(operation: &str) -> Self {
        Self { operation: operation.into(), ..Self::default() }
    }

    pub(super) fn bytes(&self) -> usize {
        let text = self.text.as_ref().map_or(0, |text| text.len());
        size_of::<Self>() + self.operation.len() + self.summary.len() + text
    }

    /// Whether it only begins or ends a transaction.
    fn is_frame(&self) -> bool {
        matches!(&*self.operation, "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT")
    }
}

/// What the messages up to a Sync do.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Statements that were executed, but for those that only begin or end a transaction.
    executed: u32,
    /// The first of them, if it is known.
    first: Option<Arc<Statement>>,
    /// All of them do the same.
    mixed_operations: bool,
    mixed_summaries: bool,
    /// The others' texts.
    more: String,
    /// A text is missing.
    untold: bool,
    /// The first of those that only begin or end a transaction.
    frame: Option<Arc<Statement>>,
    /// The first that was prepared or described.
    prepared: Option<Arc<Statement>>,
    /// The first that a portal was bound to.
    portal: Option<Arc<Statement>>,
    parsed: bool,
    bound: bool,
    described: bool,
    closed: bool,
    /// A part of it was not captured.
    pub(super) cut: bool,
}

impl Group {
    /// Most bytes beside the struct.
    pub(super) const MAX_STATE: usize = 2 * MAX_TEXT + 4 * Statement::MAX;

    pub(super) fn state_bytes(&self) -> usize {
        let held = [&self.first, &self.frame, &self.prepared, &self.portal];
        self.more.capacity() + held.into_iter().flatten().map(|statement| statement.bytes()).sum::<usize>()
    }

    /// Whether anything in it was understood.
    pub(super) fn is_known(&self) -> bool {
        self.executed > 0
            || self.frame.is_some()
            || self.parsed
            || self.bound
            || self.described
            || self.closed
    }

    pub(super) fn parse(&mut self, statement: Option<&Arc<Statement>>) {
        if !self.parsed {
            self.prepared = statement.cloned();
        }
        self.parsed = true;
    }

    /// Whether names may have been given to other statements by what was executed.
    pub(super) fn forgets(&self) -> bool {
        self.first.as_ref().is_some_and(|first| &*first.operation == "PREPARE")
    }

    /// A portal was bound, to this statement if that is known.
    pub(super) fn bind(&mut self, statement: Option<Arc<Statement>>) {
        self.bound = true;
        self.portal = self.portal.take().or(statement);
    }

    pub(super) fn describe(&mut self, statement: Option<Arc<Statement>>) {
        self.described = true;
        self.prepared = self.prepared.take().or(statement);
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// A statement is executed; none: it is not known which.
    pub(super) fn execute(&mut self, statement: Option<Arc<Statement>>) {
        if let Some(statement) = statement.as_ref().filter(|statement| statement.is_frame()) {
            self.frame.get_or_insert_with(|| Arc::clone(statement));
            return;
        }
        self.executed = self.executed.saturating_add(1);
        if self.executed == 1 {
            self.first = statement;
            return;
        }
        let (Some(first), Some(new)) = (&self.first, &statement) else {
            (self.mixed_operations, self.mixed_summaries, self.untold) = (true, true, true);
            return;
        };
        self.mixed_operations |= first.operation != new.operation;
        self.mixed_summaries |= first.summary != new.summary;
        match (&first.text, &new.text) {
            (Some(before), Some(text)) if before != text => {
                if before.len() + self.more.len() + text.len() + 2 <= MAX_TEXT {
                    self.more.push_str("; ");
                    self.more.push_str(text);
                } else {
                    self.cut = true;
                }
            }
            (Some(_), Some(_)) => {}
            _ => self.untold = true,
        }
    }

    /// All of it as one call.
    pub(super) fn query(self, namespace: Option<&str>) -> Query {
        let empty = || Arc::new(Statement::default());
        let plain = |statement: &Statement| Query {
            system: DbSystem::PostgreSql,
            operation: statement.operation.clone(),
            summary: statement.summary.clone(),
            text: statement.text.clone(),
            namespace: namespace.map(Into::into),
            batch: 0,
            truncated: self.cut || statement.truncated,
        };
        if self.executed == 0 {
            if let Some(frame) = &self.frame {
                return plain(frame);
            }
            // Who binds executes, in what was not captured.
            if self.bound && self.cut {
                return plain(&self.portal.clone().unwrap_or_else(empty));
            }
            let statement = self.prepared.clone().unwrap_or_else(empty);
            let done = match (self.parsed, self.bound, self.closed) {
                (true, ..) => "PREPARE",
                (_, true, _) => "BIND",
                (.., true) => "DEALLOCATE",
                _ => "DESCRIBE",
            };
            return Query {
                operation: done.into(),
                summary: joined(done, &statement.summary),
                ..plain(&statement)
            };
        }
        let first = self.first.clone().unwrap_or_else(empty);
        if self.executed == 1 {
            return plain(&first);
        }
        let operation = if self.mixed_operations { "" } else { &*first.operation };
        let summary = if self.mixed_summaries { "" } else { &*first.summary };
        let text =
            first.text.as_ref().filter(|_| !self.untold).map(|text| [&**text, &self.more].concat().into());
        Query {
            operation: joined("BATCH", operation),
            summary: joined("BATCH", if summary.is_empty() { operation } else { summary }),
            text,
            batch: self.executed,
            ..plain(&first)
        }
    }
}

fn joined(word: &str, rest: &str) -> Box<str> {
    if rest.is_empty() { word.into() } else { [word, " ", rest].concat().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(operation: &str, summary: &str, text: &str) -> Option<Arc<Statement>> {
        Some(Arc::new(Statement {
            operation: operation.into(),
            summary: summary.into(),
            text: Some(text.into()),
            truncated: false,
        }))
    }

    fn told(group: Group) -> String {
        let query = group.query(None);
        format!(
            "{}|{}|{}|{}",
            query.operation,
            query.summary,
            query.text.as_deref().unwrap_or("-"),
            query.batch
        )
    }

    fn executed(all: &[Option<Arc<Statement>>]) -> String {
        let mut group = Group::default();
        all.iter().for_each(|statement| group.execute(statement.clone()));
        told(group)
    }

    #[test]
    fn one_statement_is_itself() {
        let select = statement("SELECT", "SELECT a", "select a");
        let begin = statement("BEGIN", "BEGIN", "begin");
        assert_eq!(executed(std::slice::from_ref(&select)), "SELECT|SELECT a|select a|0");
        // The beginning of a transaction goes with the first statement in it.
        assert_eq!(executed(&[begin.clone(), select]), "SELECT|SELECT a|select a|0");
        assert_eq!(executed(&[begin]), "BEGIN|BEGIN|begin|0");
        assert_eq!(executed(&[None]), "||-|0");
    }

    #[test]
    fn several_are_a_batch() {
        let (a, b) =
            (statement("SELECT", "SELECT a", "select a"), statement("SELECT", "SELECT b", "select b"));
        let c = statement("INSERT", "INSERT c", "insert c");
        assert_eq!(executed(&[a.clone(), a.clone()]), "BATCH SELECT|BATCH SELECT a|select a|2");
        assert_eq!(executed(&[a.clone(), b.clone()]), "BATCH SELECT|BATCH SELECT|select a; select b|2");
        assert_eq!(executed(&[a.clone(), b, c]), "BATCH|BATCH|select a; select b; insert c|3");
        assert_eq!(executed(&[a, None]), "BATCH|BATCH|-|2");
    }

    #[test]
    fn what_executes_nothing() {
        let mut group = Group::default();
        group.parse(statement("SELECT", "SELECT a", "select a").as_ref());
        group.describe(None);
        assert_eq!(told(group), "PREPARE|PREPARE SELECT a|select a|0");
        let mut group = Group::default();
        group.close();
        assert_eq!(told(group), "DEALLOCATE|DEALLOCATE|-|0");
    }

    #[test]
    fn half_a_word_is_not_read() {
        assert_eq!(&*Statement::read(b"select", true).operation, "");
        let cut = Statement::read(b"select ab", true);
        assert!(cut.truncated && &*cut.operation == "SELECT");
    }
}
