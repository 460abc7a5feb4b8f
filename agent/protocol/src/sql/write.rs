//! The text that goes out: pieces with single spaces, up to a limit.

/// Collects the pieces.
pub(super) struct Writer {
    out: String,
    limit: usize,
    space: bool,
    /// The last piece was a word.
    word: bool,
    full: bool,
}

impl Writer {
    pub(super) fn new(expected: usize, limit: usize) -> Self {
        Self {
            out: String::with_capacity(expected.min(limit)),
            limit,
            space: false,
            word: false,
            full: false,
        }
    }

    /// White space, as much as there is.
    pub(super) const fn space(&mut self) {
        self.space = true;
    }

    pub(super) fn word(&mut self, word: &str) {
        self.put(word);
        self.word = true;
    }

    pub(super) fn punct(&mut self, punct: &str) {
        self.put(punct);
        self.word = false;
    }

    pub(super) fn literal(&mut self) {
        // DATE'2000-01-01': not a word with a question mark.
        self.space |= self.word;
        self.put("?");
        self.word = false;
    }

    /// A piece did not fit.
    pub(super) const fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn finish(self) -> Box<str> {
        self.out.into_boxed_str()
    }

    fn put(&mut self, piece: &str) {
        let space = self.space && !self.out.is_empty();
        self.space = false;
        if self.full || self.out.len() + usize::from(space) + piece.len() > self.limit {
            self.full = true;
            return;
        }
        if space {
            self.out.push(' ');
        }
        self.out.push_str(piece);
    }
}
