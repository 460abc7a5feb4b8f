//! Statements that were prepared, and portals that are bound to them. In: names and statements. Out: the statement of a name, if it is
//! still known. The least recently used are forgotten.

use std::sync::Arc;

use super::statement::Statement;

/// Statements kept of a connection.
const MAX_STATEMENTS: usize = 256;
/// Bytes of them.
const MAX_BYTES: usize = 48 * 1024;
/// Portals kept of a connection.
const MAX_PORTALS: usize = 32;
/// Longest name that is kept. Drivers put a hash into theirs.
pub(super) const MAX_NAME: usize = 128;

#[derive(Debug, Default)]
struct Named {
    /// From the least recently used to the most.
    list: Vec<(Box<[u8]>, Arc<Statement>)>,
    bytes: usize,
}

fn size(name: &[u8], statement: &Statement) -> usize {
    name.len() + statement.bytes()
}

impl Named {
    fn at(&self, name: &[u8]) -> Option<usize> {
        self.list.iter().rposition(|(known, _)| **known == *name)
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some(at) = self.at(name) {
            let (name, statement) = self.list.remove(at);
            self.bytes -= size(&name, &statement);
        }
    }

    fn insert(&mut self, name: &[u8], statement: Arc<Statement>, most: usize) {
        self.remove(name);
        self.bytes += size(name, &statement);
        self.list.push((name.into(), statement));
        let mut goes = 0;
        while self.list.len() - goes > most || (self.bytes > MAX_BYTES && goes < self.list.len()) {
            let Some((name, statement)) = self.list.get(goes) else { break };
            self.bytes -= size(name, statement);
            goes += 1;
        }
        self.list.drain(..goes);
    }

    fn get(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        let at = self.at(name)?;
        let found = self.list.get(at).map(|(_, statement)| Arc::clone(statement));
        // Those used a moment ago need not move.
        if at + 8 < self.list.len() {
            let entry = self.list.remove(at);
            self.list.push(entry);
        }
        found
    }

    fn state_bytes(&self) -> usize {
        self.bytes + self.list.capacity() * size_of::<(Box<[u8]>, Arc<Statement>)>()
    }
}

/// Both kinds of names.
#[derive(Debug, Default)]
pub(super) struct Names {
    statements: Named,
    portals: Named,
}

impl Names {
    /// Bound of [`Names::state_bytes`]. A statement that portals are bound to may have been forgotten.
    pub(super) const MAX_STATE: usize = 2 * MAX_BYTES
        + 2 * (MAX_STATEMENTS + MAX_PORTALS + 2) * size_of::<(Box<[u8]>, Arc<Statement>)>()
        + 2 * (Statement::MAX + MAX_NAME);

    /// A statement was prepared; none if what it says was not captured.
    pub(super) fn parse(&mut self, name: &[u8], statement: Option<&Arc<Statement>>) {
        match statement {
            Some(statement) => self.statements.insert(name, Arc::clone(statement), MAX_STATEMENTS),
            None => self.statements.remove(name),
        }
    }

    /// A portal was bound to a statement; gives that, if it is known.
    pub(super) fn bind(&mut self, portal: &[u8], statement: &[u8]) -> Option<Arc<Statement>> {
        let found = self.statements.get(statement);
        match &found {
            Some(found) => self.portals.insert(portal, Arc::clone(found), MAX_PORTALS),
            None => self.portals.remove(portal),
        }
        found
    }

    /// The statement of a portal.
    pub(super) fn of_portal(&mut self, portal: &[u8]) -> Option<Arc<Statement>> {
        self.portals.get(portal)
    }

    /// A statement by its name.
    pub(super) fn of_name(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        self.statements.get(name)
    }

    /// A statement or a portal was closed.
    pub(super) fn close(&mut self, kind: u8, name: &[u8]) {
        if kind == b'S' { self.statements.remove(name) } else { self.portals.remove(name) }
    }

    /// Portals may have been bound to other statements.
    pub(super) fn forget_portals(&mut self) {
        self.portals = Named::default();
    }

    /// The same, and the empty name may have been given to another statement.
    pub(super) fn forget_unnamed(&mut self) {
        self.forget_portals();
        self.statements.remove(b"");
    }

    /// Names may have been given to others.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    pub(super) fn state_bytes(&self) -> usize {
        self.statements.state_bytes() + self.portals.state_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(operation: &str, text: usize) -> Arc<Statement> {
        Arc::new(Statement {
            operation: operation.into(),
            summary: "".into(),
            text: Some("x".repeat(text).into()),
            truncated: false,
        })
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut names = Names::default();
        for n in 0..MAX_STATEMENTS {
            names.parse(n.to_string().as_bytes(), Some(&statement("A", 1)));
        }
        assert!(names.of_name(b"0").is_some());
        names.parse(b"new", Some(&statement("B", 1)));
        assert!(names.of_name(b"0").is_some() && names.of_name(b"1").is_none());
        names.parse(b"new", None);
        assert!(names.of_name(b"new").is_none());
    }

    #[test]
    fn bytes_are_bounded_and_counted() {
        let mut names = Names::default();
        for n in 0..1000_usize {
            let name = n.to_string();
            names.parse(name.as_bytes(), Some(&statement("SELECT", n * 7 % 2000)));
            names.bind(name.as_bytes(), name.as_bytes());
            if n % 3 == 0 {
                names.close(b'S', name.as_bytes());
            }
            assert!(names.state_bytes() <= Names::MAX_STATE);
        }
        for n in 0..1000_usize {
            let name = n.to_string();
            names.close(b'S', name.as_bytes());
            names.close(b'P', name.as_bytes());
        }
        assert_eq!((names.statements.bytes, names.portals.bytes), (0, 0));
    }

    #[test]
    fn a_portal_keeps_its_statement() {
        let mut names = Names::default();
        names.parse(b"", Some(&statement("ONE", 1)));
        names.bind(b"", b"");
        names.parse(b"", Some(&statement("TWO", 1)));
        assert_eq!(&*names.of_portal(b"").unwrap().operation, "ONE");
        names.bind(b"", b"unknown");
        assert!(names.of_portal(b"").is_none());
    }
}
