//! Patterns of routers. Comes in: what the answer's own record holds, or `Route` records before it. Goes out: the whole pattern,
//! for the answer that begins at its position and for no other.

use spanwise_common::event::{Data, Route};
use spanwise_common::limits::{MAX_ROUTE, MAX_ROUTE_PARTS};

use super::table::Sessions;

/// The pattern of a request whose answer comes next, as far as it was told.
pub(super) struct Matched {
    seq: u32,
    told: u8,
    parts: u8,
    text: String,
}

impl Matched {
    fn new(seq: u32, parts: u8) -> Self {
        Self { seq, told: 0, parts, text: String::new() }
    }

    fn whole(seq: u32, text: &[u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok()?.to_owned();
        Some(Self { seq, told: 1, parts: 1, text })
    }

    /// Takes the next part. False if it is not the next.
    fn add(&mut self, route: &Route, text: &[u8]) -> bool {
        let fits = self.seq == route.seq && self.told == route.part && self.parts == route.parts;
        let Ok(text) = str::from_utf8(text) else { return false };
        if !fits || self.told >= self.parts.min(MAX_ROUTE_PARTS) || text.len() > MAX_ROUTE {
            return false;
        }
        self.told += 1;
        self.text.push_str(text);
        true
    }

    /// Whether it is about the answer that begins at a position.
    pub(super) fn is_at(&self, seq: u32) -> bool {
        self.seq == seq
    }

    /// The pattern, if all of it was told.
    pub(super) fn pattern(&mut self) -> Option<Box<str>> {
        if self.told != self.parts || self.text.is_empty() || self.text.contains(char::is_control) {
            return None;
        }
        // What a router gives on to the next one is a wildcard in its own pattern.
        while self.parts > 1 && self.text.contains("/*/") {
            self.text = self.text.replace("/*/", "/");
        }
        Some(std::mem::take(&mut self.text).into_boxed_str())
    }
}

impl Sessions {
    /// The transfer that comes next begins an answer, and its record holds the whole pattern of the request.
    pub fn answers(&mut self, data: &Data, text: &[u8]) {
        let Some(connection) = self.connections.get_mut(&data.cookie) else { return };
        connection.route = Matched::whole(data.seq, text);
    }

    /// A pattern, or a part of one.
    pub fn route(&mut self, route: &Route, text: &[u8]) {
        let Some(connection) = self.connections.get_mut(&route.cookie) else { return };
        if route.part == 0 {
            connection.route = Some(Matched::new(route.seq, route.parts));
        }
        if let Some(matched) = &mut connection.route
            && !matched.add(route, text)
        {
            connection.route = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use spanwise_common::event::{Header, Kind};

    use super::*;

    fn told(parts: &[&[u8]], of: u8) -> Option<Box<str>> {
        let header = Header { kind: Kind::ROUTE.0, flags: 0, size: 0, at_ns: 0, tgid: 1, tid: 1 };
        let mut matched = Matched::new(7, of);
        for (part, text) in parts.iter().enumerate() {
            let part = part as u8;
            let route = Route { header, cookie: 1, seq: 7, len: text.len() as u16, part, parts: of };
            if !matched.add(&route, text) {
                return None;
            }
        }
        assert!(matched.is_at(7) && !matched.is_at(8));
        matched.pattern()
    }

    #[test]
    fn a_pattern_is_all_of_its_parts() {
        assert_eq!(told(&[b"GET /items/{id}"], 1).as_deref(), Some("GET /items/{id}"));
        assert_eq!(told(&[b"/api/*", b"/*", b"/items/{id}"], 3).as_deref(), Some("/api/items/{id}"));
        // A wildcard that the program itself has there.
        assert_eq!(told(&[b"/a/*/b"], 1).as_deref(), Some("/a/*/b"));
        assert_eq!(told(&[b"/api/*"], 2), None, "a part is missing");
        assert_eq!(told(&[b"/a", b"/b"], 1), None, "a part too many");
        assert_eq!(told(&[b"/\xff"], 1), None);
        assert_eq!(told(&[b"/a\n"], 1), None);
        assert_eq!(told(&[b""], 1), None);
        assert_eq!(told(&[&[b'a'; MAX_ROUTE + 1]], 1), None);
    }
}
