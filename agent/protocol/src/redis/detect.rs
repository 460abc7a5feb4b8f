//! The first bytes of a burst in, what they look like out.

use super::names;
use crate::parser::Detect;

/// What these first bytes look like. Answers are not recognised: many are like the bytes of other protocols.
pub(super) fn detect(bytes: &[u8]) -> Detect {
    judge(bytes, names::is_command)
}

/// Whether a connection that is known may go on with a command here.
pub(super) fn may_be_command(bytes: &[u8]) -> bool {
    judge(bytes, |name| names::plausible(name).is_some()) != Detect::No
}

/// `*<words>\r\n$<length>\r\n<name>\r\n`, without zeros in front of numbers.
fn judge(bytes: &[u8], is_name: fn(&[u8]) -> bool) -> Detect {
    let (_, rest) = match line(bytes, b'*', 7) {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    let (len, rest) = match line(rest, b'$', 2) {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    if len > names::MAX_NAME {
        return Detect::No;
    }
    let name = rest.get(..len.min(rest.len())).unwrap_or_default();
    if name.len() < len {
        return if name.is_empty() || names::plausible(name).is_some() { Detect::More } else { Detect::No };
    }
    let end = rest.get(len..).unwrap_or_default();
    if !b"\r\n".starts_with(end.get(..end.len().min(2)).unwrap_or_default()) || !is_name(name) {
        return Detect::No;
    }
    if end.len() < 2 { Detect::More } else { Detect::Request }
}

/// A line of a kind with a number of at most so many digits: the number, and what follows.
fn line(bytes: &[u8], kind: u8, max: usize) -> Result<(usize, &[u8]), Detect> {
    let Some((first, rest)) = bytes.split_first() else { return Err(Detect::More) };
    let digits = rest.iter().take(max + 1).take_while(|b| b.is_ascii_digit()).count();
    let (number, end) = rest.split_at(digits);
    if *first != kind || digits > max || number.first() == Some(&b'0') {
        return Err(Detect::No);
    }
    match end {
        [] => Err(Detect::More),
        [b'\r'] if digits > 0 => Err(Detect::More),
        [b'\r', b'\n', rest @ ..] if digits > 0 => {
            Ok((number.iter().fold(0, |sum, b| sum * 10 + usize::from(b - b'0')), rest))
        }
        _ => Err(Detect::No),
    }
}
