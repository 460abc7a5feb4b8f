//! An encoder of header blocks that takes every liberty the format gives, by dice.

use std::collections::VecDeque;

const OVERHEAD: usize = 32;

/// Fields of the static table that matter here, by index.
const STATIC: &[(usize, &str, &str)] = &[
    (1, ":authority", ""),
    (2, ":method", "GET"),
    (3, ":method", "POST"),
    (4, ":path", "/"),
    (6, ":scheme", "http"),
    (7, ":scheme", "https"),
    (8, ":status", "200"),
    (13, ":status", "404"),
    (31, "content-type", ""),
    (58, "user-agent", ""),
];

/// The encoder.
pub(crate) struct Encoder {
    pub(crate) table: VecDeque<(String, String)>,
    pub(crate) max: usize,
    /// How often fields are inserted, of 256.
    pub(crate) eager: u8,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), max: 4096, eager: 160 }
    }
}

impl Encoder {
    /// A block of these fields.
    pub(crate) fn block(&mut self, fields: &[(String, String)], dice: &mut impl FnMut() -> u8) -> Vec<u8> {
        let mut out = Vec::new();
        if dice() < 8 {
            for _ in 0..=dice() % 2 {
                let max = [0, 60, 200, 1000, 4096][usize::from(dice()) % 5];
                self.max = max;
                self.evict(0);
                integer(&mut out, 0x20, 5, max);
            }
        }
        for (name, value) in fields {
            self.field(&mut out, name, value, dice);
        }
        out
    }

    fn field(&mut self, out: &mut Vec<u8>, name: &str, value: &str, dice: &mut impl FnMut() -> u8) {
        let dynamic = self.table.iter().position(|(n, v)| n == name && v == value).map(|at| at + 62);
        let fixed = STATIC.iter().find(|(_, n, v)| *n == name && *v == value).map(|(at, ..)| *at);
        if let Some(index) = fixed.or(dynamic)
            && dice() < 230
        {
            integer(out, 0x80, 7, index);
            return;
        }
        let fixed = STATIC.iter().find(|(_, n, _)| *n == name).map(|(at, ..)| *at);
        let dynamic = self.table.iter().position(|(n, _)| n == name).map(|at| at + 62);
        let name_index = if dice() < 60 { None } else { fixed.or(dynamic) };
        let insert = dice() < self.eager;
        let (pattern, prefix) = match (insert, dice() % 2) {
            (true, _) => (0x40, 6),
            (false, 0) => (0, 4),
            (false, _) => (0x10, 4),
        };
        integer(out, pattern, prefix, name_index.unwrap_or(0));
        if name_index.is_none() {
            string(out, name);
        }
        string(out, value);
        if insert {
            let size = name.len() + value.len() + OVERHEAD;
            self.evict(size);
            if size <= self.max {
                self.table.push_front((name.to_owned(), value.to_owned()));
            }
        }
    }

    fn evict(&mut self, room: usize) {
        let size = |table: &VecDeque<(String, String)>| {
            table.iter().map(|(name, value)| name.len() + value.len() + OVERHEAD).sum::<usize>()
        };
        while size(&self.table) + room > self.max && self.table.pop_back().is_some() {}
    }
}

fn integer(out: &mut Vec<u8>, pattern: u8, prefix: u32, value: usize) {
    let most = (1usize << prefix) - 1;
    if value < most {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    out.push(rest as u8);
}

fn string(out: &mut Vec<u8>, text: &str) {
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}
