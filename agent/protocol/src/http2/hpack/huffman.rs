//! The code of RFC 7541, appendix B: coded bytes in, text out.
//!
//! The code is canonical: the lengths of the codes are all there is to know of it.

use super::Malformed;

/// Number of symbols: the bytes, and the end of the string, which is never sent.
const SYMBOLS: usize = 257;
/// Longest code.
const LONGEST: usize = 30;
/// Codes of up to this many bits are looked up at once.
const SHORT: u32 = 8;

/// Length of each symbol's code.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28,
    28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6,
    6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7,
    6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22,
    23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21,
    20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23,
    22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26,
    26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The code, arranged for decoding.
struct Code {
    /// Symbol and length by the next eight bits; length 0 where the code is longer.
    short: [(u8, u8); 1 << SHORT],
    /// Symbols by length, then value.
    symbols: [u16; SYMBOLS],
    /// Of each length: its first code, how many there are, and where their symbols begin.
    lengths: [(u32, u32, u32); LONGEST + 1],
}

static CODE: Code = arrange();

#[expect(clippy::indexing_slicing, reason = "runs when this is compiled")]
const fn arrange() -> Code {
    let mut code =
        Code { short: [(0, 0); 1 << SHORT], symbols: [0; SYMBOLS], lengths: [(0, 0, 0); LONGEST + 1] };
    let mut next = 0u32;
    let mut at = 0;
    let mut length = 1;
    while length <= LONGEST {
        next <<= 1;
        let (first, begin) = (next, at);
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                code.symbols[at as usize] = symbol as u16;
                at += 1;
                if length <= SHORT as usize {
                    let spare = SHORT - length as u32;
                    let mut fill = 0;
                    while fill < 1 << spare {
                        code.short[((next << spare) | fill) as usize] = (symbol as u8, length as u8);
                        fill += 1;
                    }
                }
                next += 1;
            }
            symbol += 1;
        }
        code.lengths[length] = (first, next - first, begin);
        length += 1;
    }
    code
}

/// Appends the text of coded bytes.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut rest = coded.iter();
    // The next bits, from the highest on.
    let mut bits = 0u64;
    let mut held = 0u32;
    loop {
        while held <= 56
            && let Some(&byte) = rest.next()
        {
            bits |= u64::from(byte) << (56 - held);
            held += 8;
        }
        let (symbol, length) = CODE.short.get((bits >> 56) as usize).copied().unwrap_or_default();
        let length = if length > 0 {
            if u32::from(length) > held {
                break;
            }
            out.push(symbol);
            u32::from(length)
        } else {
            let Some((symbol, length)) = long(bits, held) else { break };
            // The end of the string is not to be sent.
            out.push(u8::try_from(symbol).map_err(|_| Malformed)?);
            length
        };
        bits <<= length;
        held -= length;
    }
    // What is left is the beginning of the end of the string, shorter than a byte.
    let ones = !(u64::MAX >> held.min(63));
    if held < 8 && bits & ones == ones { Ok(()) } else { Err(Malformed) }
}

/// A symbol whose code is long, and the length.
#[cold]
fn long(bits: u64, held: u32) -> Option<(u16, u32)> {
    for (length, &(first, count, begin)) in (0u32..).zip(&CODE.lengths).skip(SHORT as usize + 1) {
        if length > held {
            return None;
        }
        let beyond = ((bits >> (64 - length)) as u32).wrapping_sub(first);
        if beyond < count {
            return CODE.symbols.get((begin + beyond) as usize).map(|&symbol| (symbol, length));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(coded: &[u8]) -> Result<String, Malformed> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    /// Codes some bytes.
    fn encode(bytes: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for &byte in bytes {
            let length = usize::from(LENGTHS[usize::from(byte)]);
            let (first, _, begin) = CODE.lengths[length];
            let place = CODE.symbols.iter().position(|&symbol| symbol == u16::from(byte)).unwrap() as u32;
            bits += &format!("{:0length$b}", first + place - begin);
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        bits.as_bytes()
            .chunks(8)
            .map(|byte| u8::from_str_radix(str::from_utf8(byte).unwrap(), 2).unwrap())
            .collect()
    }

    #[test]
    fn the_code_is_complete() {
        let sum: u64 = LENGTHS.iter().map(|&length| 1u64 << (LONGEST - usize::from(length))).sum();
        assert_eq!(sum, 1 << LONGEST);
        // The last code of appendix B.
        assert_eq!(CODE.lengths[LONGEST], (0x3fff_fffc, 4, 253));
        // The end of the string is the last of them.
        assert_eq!(CODE.symbols[256], 256);
    }

    #[test]
    fn every_byte_is_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        for n in 0..all.len() {
            let mut out = Vec::new();
            decode(&encode(&all[n..]), &mut out).unwrap();
            assert_eq!(out, all[n..]);
        }
    }

    #[test]
    fn examples() {
        assert_eq!(text(b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff").unwrap(), "www.example.com");
        assert_eq!(text(b"").unwrap(), "");
    }

    #[test]
    fn padding_is_ones_and_short() {
        assert_eq!(text(&[0b0001_1111]).unwrap(), "a");
        for bad in [&[0b0001_1110][..], &[0b0001_1111, 0xff], &[0xff], &[0xff; 4], &[0xff, 0xff, 0xff, 0xfc]]
        {
            assert!(text(bad).is_err(), "{bad:?}");
        }
    }
}
