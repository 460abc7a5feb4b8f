//! What an answer means for the batch: a pure judgement by status and headers, and the waiting time before the
//! next attempt.
//!
//! Comes in: status codes, header values, error details. Goes out: a [`Verdict`].

use std::time::Duration;

use super::wire::{Field, Fields};

/// No wait asked for by an endpoint is taken to be longer.
const LONGEST_ASKED: Duration = Duration::from_secs(300);
/// First wait when the endpoint asked for none.
const FIRST: Duration = Duration::from_millis(300);
/// Longest wait when the endpoint asked for none.
const LONGEST: Duration = Duration::from_secs(15);

/// What became of an attempt to send a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// All spans were taken.
    Accepted,
    /// The status says taken, but the body is not an OTLP answer.
    Unclear,
    /// The endpoint took the batch but for this many spans (final, not to be sent again).
    Partial {
        /// Spans it refused.
        rejected: u64,
        /// What it said.
        message: String,
    },
    /// To be sent again.
    Retry {
        /// How long the endpoint asked to wait.
        after: Option<Duration>,
        /// Nothing there that speaks: no connection, or it broke.
        unreachable: bool,
        /// What happened.
        why: String,
    },
    /// Refused for good.
    Refused {
        /// What happened.
        why: String,
    },
}

impl Verdict {
    /// A failed connection.
    pub fn unreachable(why: String) -> Self {
        Self::Retry { after: None, unreachable: true, why }
    }
}

/// Judges an HTTP status that is not a success. `now` is seconds since the Unix epoch.
pub fn http_failure(status: u16, retry_after: Option<&str>, now: u64) -> Verdict {
    let why = format!("it answered HTTP {status}");
    match status {
        429 | 502 | 503 | 504 => {
            let after = retry_after.and_then(|value| parse_retry_after(value, now));
            Verdict::Retry { after: after.map(|wait| wait.min(LONGEST_ASKED)), unreachable: false, why }
        }
        _ => Verdict::Refused { why },
    }
}

/// Judges a gRPC status code that is not OK. `details` is a `google.rpc.Status` in protobuf.
pub fn grpc_failure(code: i32, message: &str, details: &[u8]) -> Verdict {
    let why = format!("it answered gRPC status {code} ({message})");
    let after = retry_info(details).map(|wait| wait.min(LONGEST_ASKED));
    match code {
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS
        1 | 4 | 10 | 11 | 14 | 15 => Verdict::Retry { after, unreachable: false, why },
        // RESOURCE_EXHAUSTED says by its details whether waiting helps.
        8 if after.is_some() => Verdict::Retry { after, unreachable: false, why },
        _ => Verdict::Refused { why },
    }
}

/// The delay in a `RetryInfo` of a `google.rpc.Status`.
fn retry_info(status: &[u8]) -> Option<Duration> {
    let mut fields = Fields::of(status);
    while let Ok(Some((number, field))) = fields.next() {
        let (3, Field::Bytes(any)) = (number, field) else { continue };
        let (mut url, mut value) = (&b""[..], &b""[..]);
        let mut parts = Fields::of(any);
        while let Ok(Some((number, field))) = parts.next() {
            match (number, field) {
                (1, Field::Bytes(bytes)) => url = bytes,
                (2, Field::Bytes(bytes)) => value = bytes,
                _ => {}
            }
        }
        if url.ends_with(b"google.rpc.RetryInfo") {
            return Some(retry_delay(value));
        }
    }
    None
}

/// `RetryInfo.retry_delay`; without one, at once.
fn retry_delay(info: &[u8]) -> Duration {
    let mut delay = Duration::ZERO;
    let mut fields = Fields::of(info);
    while let Ok(Some((number, field))) = fields.next() {
        let (1, Field::Bytes(duration)) = (number, field) else { continue };
        let mut parts = Fields::of(duration);
        while let Ok(Some((number, field))) = parts.next() {
            match (number, field) {
                // Negative numbers are nonsense here and count as none.
                (1, Field::Uint(seconds)) if seconds <= i64::MAX as u64 => {
                    delay = delay.saturating_add(Duration::from_secs(seconds));
                }
                (2, Field::Uint(nanos)) if nanos < 1_000_000_000 => {
                    delay = delay.saturating_add(Duration::from_nanos(nanos));
                }
                _ => {}
            }
        }
    }
    delay
}

/// `Retry-After`: seconds, or a date in the form HTTP prefers.
fn parse_retry_after(value: &str, now: u64) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit is still a number: very long.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    Some(Duration::from_secs(parse_http_date(value)?.saturating_sub(now)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since the Unix epoch.
fn parse_http_date(date: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = date.split_ascii_whitespace().skip(1);
    let day: u64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let year: u64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.splitn(3, ':').map(str::parse::<u64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    if words.next() != Some("GMT") || !(1970..=9999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days from the epoch with the year beginning in March, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Growing waits with jitter.
#[derive(Debug)]
pub struct Backoff {
    step: u32,
    random: u64,
}

impl Backoff {
    /// `seed` makes the jitter of two senders differ.
    pub fn new(seed: u64) -> Self {
        Self { step: 0, random: seed }
    }

    /// How long to wait before the next attempt: what the endpoint asked for, or half to all of a wait that
    /// doubles each time.
    pub fn next(&mut self, asked: Option<Duration>) -> Duration {
        let wait = (FIRST * 2u32.saturating_pow(self.step.min(16))).min(LONGEST);
        self.step = self.step.saturating_add(1);
        let jitter =
            |whole: Duration, random: u64| whole.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64);
        let random = self.random();
        match asked {
            // Never earlier than asked; a little later, so that all senders do not come back at once.
            Some(asked) => asked + jitter(FIRST, random),
            None => wait / 2 + jitter(wait / 2, random),
        }
    }

    /// The next wait is the first again.
    pub fn reset(&mut self) {
        self.step = 0;
    }

    fn random(&mut self) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::message;
    use super::*;

    fn is_retry(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Retry { .. })
    }

    #[test]
    fn http_statuses() {
        for status in 300..600 {
            let expected = [429, 502, 503, 504].contains(&status);
            assert_eq!(is_retry(&http_failure(status, None, 0)), expected, "{status}");
        }
    }

    #[test]
    fn grpc_codes() {
        for code in 1..=16 {
            let expected = [1, 4, 10, 11, 14, 15].contains(&code);
            assert_eq!(is_retry(&grpc_failure(code, "", b"")), expected, "{code}");
        }
    }

    #[test]
    fn resource_exhausted_waits_only_when_told() {
        let (mut wait, mut info, mut details) = (Vec::new(), Vec::new(), vec![1 << 3, 8]);
        let scratch = &mut Vec::new();
        message(&mut wait, 1, scratch, |room| {
            room.uint(1, 2);
            room.uint(2, 500_000_000);
        });
        message(&mut info, 3, scratch, |room| {
            room.bytes(1, b"type.googleapis.com/google.rpc.RetryInfo");
            room.bytes(2, &wait);
        });
        details.append(&mut info);
        let Verdict::Retry { after, .. } = grpc_failure(8, "", &details) else { panic!("no retry") };
        assert_eq!(after, Some(Duration::from_millis(2500)));
        // Cut anywhere it must not be misread as a longer delay, nor panic.
        for cut in 0..details.len() {
            if let Verdict::Retry { after, .. } = grpc_failure(8, "", &details[..cut]) {
                assert!(after.is_some_and(|after| after <= Duration::from_millis(2500)));
            }
        }
    }

    #[test]
    fn retry_after_forms() {
        let after = |value, now| match http_failure(503, Some(value), now) {
            Verdict::Retry { after, .. } => after.map(|wait| wait.as_secs()),
            _ => panic!("no retry"),
        };
        assert_eq!(after("7", 0), Some(7));
        assert_eq!(after("99999999999999999999999", 0), Some(300));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_700), Some(77));
        assert_eq!(after("Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_800 - 3), Some(3));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_999), Some(0));
        for odd in
            ["", "soon", "-1", "Sun, 06 Nov", "Sun, 99 Nov 1994 08:49:37 GMT", "x, 1 Jan 1969 0:0:0 GMT"]
        {
            assert_eq!(after(odd, 0), None, "{odd:?}");
        }
    }

    #[test]
    fn backoff_grows_is_bounded_and_never_precedes_what_was_asked() {
        let mut backoff = Backoff::new(1);
        for step in 0..40 {
            let whole = (FIRST * 2u32.pow(step.min(16))).min(LONGEST);
            let wait = backoff.next(None);
            assert!(wait >= whole / 2 && wait <= whole, "step {step}: {wait:?} of {whole:?}");
        }
        let asked = Duration::from_secs(4);
        assert!((asked..=asked + FIRST).contains(&backoff.next(Some(asked))));
        assert_ne!(Backoff::new(1).next(None), Backoff::new(2).next(None));
    }
}
