//! W3C Trace Context: header values in, ids and flags out (<https://www.w3.org/TR/trace-context-2/>).

use std::fmt::Write;

/// Members of a `tracestate` beyond which all of it is dropped.
const MAX_MEMBERS: usize = 32;
/// Longest `tracestate` that is kept.
const MAX_STATE: usize = 512;
/// Members longer than this go first when a `tracestate` is too long.
const LONG_MEMBER: usize = 128;
/// Length of a `traceparent` of version 00.
const PARENT_LEN: usize = 55;
/// Length of the binary format of version 0: trace id, span id and options, each behind its number.
const BINARY_LEN: usize = 29;

/// `traceparent` and `tracestate` of one message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceContext {
    /// Trace id, not all zero.
    pub trace_id: [u8; 16],
    /// Parent id, not all zero.
    pub span_id: [u8; 8],
    /// Trace flags (bit 0 sampled, bit 1 random).
    pub flags: u8,
    /// Combined `tracestate`, bounded, only if valid.
    pub state: Option<Box<str>>,
}

impl TraceContext {
    /// Reads a `traceparent` value, and the `tracestate` values joined with commas. None if `traceparent` is invalid;
    /// an invalid `tracestate` is dropped alone.
    pub fn parse(traceparent: &[u8], tracestate: Option<&[u8]>) -> Option<Self> {
        let value = traceparent.trim_ascii();
        let (fixed, rest) = value.split_at_checked(PARENT_LEN)?;
        let [version] = hex::<1>(fixed.get(..2)?)?;
        // Version ff is forbidden; versions above 00 may be longer, after another dash.
        if version == 0xff || (version == 0 && !rest.is_empty()) || rest.first().is_some_and(|&b| b != b'-') {
            return None;
        }
        for dash in [2, 35, 52] {
            if fixed.get(dash) != Some(&b'-') {
                return None;
            }
        }
        let trace_id = hex::<16>(fixed.get(3..35)?)?;
        let span_id = hex::<8>(fixed.get(36..52)?)?;
        let [flags] = hex::<1>(fixed.get(53..)?)?;
        if trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        Some(Self { trace_id, span_id, flags, state: tracestate.and_then(state) })
    }

    /// Reads a `grpc-trace-bin` value: base64 of version 0 of the binary format.
    pub fn parse_binary(value: &[u8]) -> Option<Self> {
        let mut bytes = [0; BINARY_LEN];
        let mut places = bytes.iter_mut();
        let (mut bits, mut held) = (0u32, 0);
        let value = value.trim_ascii();
        let end = value.iter().rposition(|&b| b != b'=')? + 1;
        for &digit in value.get(..end)? {
            bits = bits << 6 | u32::from(sextet(digit)?);
            held += 6;
            if held >= 8 {
                held -= 8;
                *places.next()? = (bits >> held) as u8;
            }
        }
        // All of it, and nothing behind it.
        if places.next().is_some() || held >= 6 {
            return None;
        }
        let (&[version, trace], rest) = bytes.split_first_chunk()?;
        let (trace_id, rest) = rest.split_first_chunk::<16>()?;
        let (&span, rest) = rest.split_first()?;
        let (span_id, rest) = rest.split_first_chunk::<8>()?;
        let &[options, flags] = rest else { return None };
        let fields = [version, trace, span, options] == [0, 0, 1, 2];
        (fields && *trace_id != [0; 16] && *span_id != [0; 8]).then_some(Self {
            trace_id: *trace_id,
            span_id: *span_id,
            flags,
            state: None,
        })
    }

    /// The value of a `traceparent` header of version 00 with the flags that it defines.
    pub fn to_traceparent(&self) -> String {
        let mut out = String::with_capacity(PARENT_LEN);
        out.push_str("00-");
        push_hex(&mut out, &self.trace_id);
        out.push('-');
        push_hex(&mut out, &self.span_id);
        out.push('-');
        push_hex(&mut out, &[self.flags & 3]);
        out
    }
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
}

/// The six bits of a digit of base64.
fn sextet(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// `N` bytes of lower-case hexadecimal digits.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = nibble(high)? << 4 | nibble(low)?;
    }
    Some(out)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// A valid `tracestate`, cut to its bound by whole members.
pub(crate) fn state(value: &[u8]) -> Option<Box<str>> {
    let value = str::from_utf8(value).ok()?;
    let mut members: Vec<&str> = Vec::new();
    for member in value.split(',').map(|part| part.trim_matches([' ', '\t'])).filter(|part| !part.is_empty())
    {
        let (key, text) = member.split_once('=')?;
        let twice = members.iter().any(|other| other.split_once('=').is_some_and(|(k, _)| k == key));
        if members.len() == MAX_MEMBERS || twice || !valid_key(key) || !valid_value(text) {
            return None;
        }
        members.push(member);
    }
    if length(&members) > MAX_STATE {
        members.retain(|member| member.len() <= LONG_MEMBER);
        while length(&members) > MAX_STATE {
            members.pop();
        }
    }
    if members.is_empty() { None } else { Some(members.join(",").into()) }
}

fn length(members: &[&str]) -> usize {
    members.iter().map(|member| member.len() + 1).sum::<usize>().saturating_sub(1)
}

fn valid_key(key: &str) -> bool {
    key.len() <= 256
        && key.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && key.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@'))
        && key.bytes().filter(|&b| b == b'@').count() <= 1
}

fn valid_value(value: &str) -> bool {
    (1..=256).contains(&value.len()) && value.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(parent: &str, state: Option<&str>) -> Option<TraceContext> {
        TraceContext::parse(parent.as_bytes(), state.map(str::as_bytes))
    }

    fn state_of(state: &str) -> Option<String> {
        parse(PARENT, Some(state)).unwrap().state.map(String::from)
    }

    #[test]
    fn a_valid_parent_is_read_and_written_back() {
        let context = parse(PARENT, None).unwrap();
        assert_eq!(context.trace_id[..2], [0x0a, 0xf7]);
        assert_eq!(context.span_id[7], 0x31);
        assert_eq!(context.flags, 1);
        assert_eq!(context.to_traceparent(), PARENT);
        assert_eq!(parse(&format!(" {PARENT}\t"), None).unwrap(), context);
    }

    #[test]
    fn the_binary_format_is_read() {
        let good = "AAAK92UZFs1D3YRI6yEcgDGcAbeta3FpIDMxAgE=";
        let context = TraceContext::parse_binary(good.as_bytes()).unwrap();
        assert_eq!(context.to_traceparent(), PARENT);
        assert_eq!(TraceContext::parse_binary(good.trim_end_matches('=').as_bytes()), Some(context));
        for bad in [
            "",
            "=",
            "AAAA",
            &good[..36],
            &format!("{good}AA"),
            &good.replace("AAAK", "BAAK"),
            &good.replace('9', "-"),
        ] {
            assert_eq!(TraceContext::parse_binary(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn invalid_parents_are_none() {
        let zeros = "0".repeat(32);
        for bad in [
            "",
            "00",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "0g-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            &format!("00-{zeros}-b7ad6b7169203331-01"),
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
        ] {
            assert_eq!(parse(bad, None), None, "{bad}");
        }
    }

    #[test]
    fn higher_versions_are_read_by_their_first_part() {
        for good in
            ["cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", &format!("01{}-more", &PARENT[2..])]
        {
            assert_eq!(parse(good, None).unwrap().to_traceparent(), PARENT, "{good}");
        }
    }

    #[test]
    fn unknown_flags_are_not_written() {
        let context = parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff", None).unwrap();
        assert_eq!(context.flags, 0xff);
        assert!(context.to_traceparent().ends_with("-03"));
    }

    #[test]
    fn states_are_checked_member_by_member() {
        assert_eq!(state_of("a=1, b@c=2 ,,d/e=3").as_deref(), Some("a=1,b@c=2,d/e=3"));
        for bad in
            ["", " , ", "a", "=1", "A=1", "a=", "a=1,a=2", "a=1=2", "a@b@c=1", "_a=1", "a=\u{e9}", "a=1,b"]
        {
            assert_eq!(state_of(bad), None, "{bad:?}");
        }
        assert_eq!(parse("bad", Some("a=1")), None);
    }

    #[test]
    fn long_states_lose_whole_members() {
        let many = |n: usize| (0..n).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(state_of(&many(32)), Some(many(32)));
        assert_eq!(state_of(&many(33)), None);
        let long = format!(
            "big={},{}",
            "x".repeat(200),
            (0..30).map(|i| format!("k{i:02}=0123456789")).collect::<Vec<_>>().join(",")
        );
        let kept = state_of(&long).unwrap();
        assert!(kept.len() <= 512 && kept.starts_with("k00=0123456789,") && !kept.contains("big"));
        assert!(kept.len() == 30 * 15 - 1);
        let longer = (0..30).map(|i| format!("k{i:02}={}", "y".repeat(20))).collect::<Vec<_>>().join(",");
        let kept = state_of(&longer).unwrap();
        assert!(
            kept.len() <= 512 && kept.len() > 512 - 26 && longer.starts_with(&kept) && kept.ends_with('y')
        );
    }
}
