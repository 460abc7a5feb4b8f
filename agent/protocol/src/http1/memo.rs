//! What the fields of the last head said. Comes in: the bytes behind a start line, and what was read of them. Goes out: the same again,
//! where the same bytes come again.
//!
//! Whoever sends many heads on one connection mostly sends the same fields: comparing them costs a small part of reading them.

/// Longest fields that are remembered.
pub(super) const MAX_FIELDS: usize = 512;
/// Heads in a row whose fields were others, after which only some of them are still remembered.
const PATIENCE: u8 = 8;
/// How many heads are passed over then for each that is remembered.
const SOME: u8 = 16;

/// The fields of one head of a direction.
#[derive(Debug, Default)]
pub(super) struct Memo<T> {
    /// Up to the end of the head; empty while nothing is remembered.
    bytes: Vec<u8>,
    said: T,
    /// Heads since the last whose fields were known already. A connection that lives for one exchange remembers nothing.
    others: u8,
    /// Nothing is ever remembered.
    off: bool,
}

impl<T: Clone + Default> Memo<T> {
    /// Remembers nothing.
    pub(super) fn none() -> Self {
        Self { off: true, ..Self::default() }
    }

    /// What the fields say that these bytes begin with, and their length, if they are the same as those before.
    pub(super) fn again(&mut self, bytes: &[u8]) -> Option<(T, usize)> {
        if self.bytes.is_empty() || !bytes.starts_with(&self.bytes) {
            return None;
        }
        self.others = 1;
        Some((self.said.clone(), self.bytes.len()))
    }

    /// These are the fields of a head up to its end, and this is what they say.
    pub(super) fn keep(&mut self, bytes: &[u8], said: &T) {
        let others = self.others;
        // From the end of its range it goes on at one: some more are tried in a row.
        self.others = others.checked_add(1).unwrap_or(1);
        if self.off || others == 0 || others > PATIENCE && !others.is_multiple_of(SOME) {
            return;
        }
        self.bytes.clear();
        if bytes.len() <= MAX_FIELDS {
            self.bytes.extend_from_slice(bytes);
            self.said = said.clone();
        }
    }

    /// What was remembered last.
    pub(super) fn said(&self) -> &T {
        &self.said
    }

    /// Memory held beside the struct itself and what was said.
    pub(super) fn state_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_again_from_the_second_on() {
        let mut memo = Memo::default();
        memo.keep(b"a: b\r\n\r\n", &1);
        assert_eq!(memo.again(b"a: b\r\n\r\nrest"), None, "most connections have no second");
        memo.keep(b"a: b\r\n\r\n", &1);
        assert_eq!(memo.again(b"a: b\r\n\r\nrest"), Some((1, 8)));
        assert_eq!(memo.again(b"a: c\r\n\r\nrest"), None);
        assert_eq!(memo.again(b"a: b\r\n"), None, "not all of it");
    }

    #[test]
    fn what_is_long_is_not_kept() {
        let mut memo = Memo::default();
        let long = [b'x'; MAX_FIELDS + 1];
        for bytes in [&long[..], b"short", &long[..]] {
            memo.keep(bytes, &());
        }
        assert_eq!(memo.again(&long), None);
        assert_eq!(memo.again(b"short"), None, "the last one counts");
        assert!(memo.state_bytes() <= MAX_FIELDS);
    }

    #[test]
    fn where_all_differ_few_are_kept() {
        let mut memo = Memo::default();
        let mut kept = 0;
        for n in 0..200_u32 {
            memo.keep(&n.to_be_bytes(), &n);
            kept += usize::from(memo.bytes == n.to_be_bytes());
        }
        assert!((8..=24).contains(&kept), "{kept} of 200");
        // And as soon as they are the same again, all are.
        (0..17).for_each(|_| memo.keep(b"same", &7));
        assert_eq!(memo.again(b"same"), Some((7, 4)));
        memo.keep(b"next", &8);
        assert_eq!(memo.again(b"next"), Some((8, 4)));
    }
}
