//! Text for a terminal: harmless, of known width, coloured or not.

/// Colours as terminals number them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Paint {
    /// As it comes.
    Plain,
    /// Less visible.
    Dim,
    /// For errors.
    Red,
    /// Bold.
    Bold,
    /// One of the colours that tell services apart.
    Service(u8),
}

/// Colours of services; red is kept for errors.
const SERVICE_COLORS: [&str; 6] = ["36", "32", "35", "34", "33", "96"];

/// Which colour a service has, the same each time.
pub(super) fn service_paint(name: &str) -> Paint {
    let sum = name.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    Paint::Service((sum % SERVICE_COLORS.len() as u32) as u8)
}

/// Appends text in a colour, if colours are wanted.
pub(super) fn paint(out: &mut String, text: &str, paint: Paint, color: bool) {
    let code = match paint {
        Paint::Plain => "",
        Paint::Dim => "2",
        Paint::Red => "31",
        Paint::Bold => "1",
        Paint::Service(index) => SERVICE_COLORS.get(usize::from(index)).copied().unwrap_or(""),
    };
    if !color || code.is_empty() || text.trim().is_empty() {
        out.push_str(text);
        return;
    }
    for part in ["\x1b[", code, "m", text, "\x1b[0m"] {
        out.push_str(part);
    }
}

/// Text that cannot steer the terminal or turn the line around: it came from strangers.
pub(super) fn harmless(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if odd(c) { '\u{fffd}' } else { c }).collect()
}

/// Cells a character takes.
fn cells(c: char) -> usize {
    match c as u32 {
        0x0300..=0x036f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Cells a text takes.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(cells).sum()
}

/// Text cut or padded to a width.
pub(super) fn fit(text: &str, to: usize) -> String {
    let mut out = String::with_capacity(to);
    let whole = width(text);
    let room = if whole > to { to.saturating_sub(1) } else { to };
    let mut used = 0;
    for c in text.chars() {
        if used + cells(c) > room {
            break;
        }
        used += cells(c);
        out.push(c);
    }
    if whole > to && to > 0 {
        out.push('…');
        used += 1;
    }
    out.extend(std::iter::repeat_n(' ', to.saturating_sub(used)));
    out
}

/// Text padded on the left.
pub(super) fn right(text: &str, to: usize) -> String {
    let pad = to.saturating_sub(width(text));
    let mut out = " ".repeat(pad);
    out.push_str(text);
    out
}

/// A duration in at most eight cells.
pub(super) fn duration(ns: u64) -> String {
    let unit = |value: f64, unit: &str| {
        let digits = if value < 9.995 {
            2
        } else if value < 99.95 {
            1
        } else {
            0
        };
        format!("{value:.digits$} {unit}")
    };
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => unit(ns as f64 / 1e6, "ms"),
        _ => unit(ns as f64 / 1e9, "s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits() {
        assert_eq!(fit("abc", 5), "abc  ");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("日本語", 4), "日… ");
        assert_eq!(fit("x", 0), "");
    }

    #[test]
    fn durations() {
        let all =
            [999, 999_999, 1_000_000, 9_994_000, 48_200_000, 999_400_000, 1_250_000_000, 75_000_000_000];
        let all: Vec<_> = all.into_iter().map(duration).collect();
        assert_eq!(all, ["0 µs", "999 µs", "1.00 ms", "9.99 ms", "48.2 ms", "999 ms", "1.25 s", "75.0 s"]);
    }

    #[test]
    fn strangers_cannot_steer_the_terminal() {
        let text = harmless("a\x1b[2Jb\r\n\u{202e}c\u{9b}");
        assert_eq!(text, "a\u{fffd}[2Jb\u{fffd}\u{fffd}\u{fffd}c\u{fffd}");
    }
}
