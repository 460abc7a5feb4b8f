//! From bytes of the ring (or of a recording) to a typed record: a checked copy, never a cast.

use spanwise_common::event::{
    Close, Data, Handoff, Header, Join, Kind, Open, Plain as Plaintext, Process, Route,
};

/// A record.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// A connection seen for the first time.
    Open(Open),
    /// A transfer with its payload.
    Data(Data, &'a [u8]),
    /// A connection towards its end.
    Close(Close),
    /// A child process (`other`).
    Fork(Process),
    /// A new program in a process.
    Exec(Process),
    /// The end of a process.
    Exit(Process),
    /// A process may have loaded more code.
    Mapped(Process),
    /// Plaintext of a TLS library with its payload.
    Plain(Plaintext, &'a [u8]),
    /// The connection of a library's object.
    Join(Join),
    /// Work that goes from task to task.
    Handoff(Handoff),
    /// A pattern that a request was matched with, or a part of it.
    Route(Route, &'a [u8]),
}

/// Types of the contract: integers and arrays of integers, without implicit padding.
///
/// # Safety
/// Every bit pattern must be a valid value.
#[expect(unsafe_code, reason = "kernel boundary")]
unsafe trait Plain: Copy {}
// SAFETY: integers and arrays only.
#[expect(unsafe_code, reason = "kernel boundary")]
unsafe impl Plain for Header {}
// SAFETY: integers and arrays only.
#[expect(unsafe_code, reason = "kernel boundary")]
unsafe impl Plain for Open {}
// SAFETY: integers and arrays only.
#[expect(unsafe_code, reason = "kernel boundary")]
unsafe impl Plain for Data {}
// SAFETY: integers and arrays only.
#[expect(unsafe_code, reason = "kernel boundary")]
unsafe impl Plain for Close {}
// SAFETY: integers and arrays only.
#[expect(unsafe_code, reason = "kernel boundary")]
unsafe impl Plain for Process {}
// SAFETY: integers and arrays only.
#[expect(unsafe_code, reason = "kernel boundary")]
unsafe impl Plain for Plaintext {}
// SAFETY: integers and arrays only.
#[expect(unsafe_code, reason = "kernel boundary")]
unsafe impl Plain for Join {}
// SAFETY: integers and arrays only.
#[expect(unsafe_code, reason = "kernel boundary")]
unsafe impl Plain for Handoff {}
// SAFETY: integers and arrays only.
#[expect(unsafe_code, reason = "kernel boundary")]
unsafe impl Plain for Route {}
/// Copies a struct out of the beginning of `bytes`.
fn copy_out<T: Plain>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: the length was checked, the read is unaligned, and every bit pattern of `T` is valid.
    #[expect(unsafe_code, reason = "kernel boundary")]
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast::<T>()) })
}

/// The bytes of a struct of the contract, for recordings and tests.
fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: no implicit padding, so all bytes are initialised; the lifetime is that of `value`.
    #[expect(unsafe_code, reason = "kernel boundary")]
    unsafe {
        std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>())
    }
}

/// Reads one record; none if it is too short for what it says it is, or of an unknown kind.
pub fn decode(bytes: &[u8]) -> Option<Record<'_>> {
    let header: Header = copy_out(bytes)?;
    match Kind(header.kind) {
        Kind::OPEN => Some(Record::Open(copy_out(bytes)?)),
        Kind::DATA => {
            let data: Data = copy_out(bytes)?;
            let from = size_of::<Data>();
            let payload = bytes.get(from..from.checked_add(data.captured as usize)?)?;
            Some(Record::Data(data, payload))
        }
        Kind::CLOSE => Some(Record::Close(copy_out(bytes)?)),
        Kind::FORK => Some(Record::Fork(copy_out(bytes)?)),
        Kind::EXEC => Some(Record::Exec(copy_out(bytes)?)),
        Kind::EXIT => Some(Record::Exit(copy_out(bytes)?)),
        Kind::MAPPED => Some(Record::Mapped(copy_out(bytes)?)),
        Kind::PLAIN => {
            let plain: Plaintext = copy_out(bytes)?;
            let from = size_of::<Plaintext>();
            let payload = bytes.get(from..from.checked_add(plain.captured as usize)?)?;
            Some(Record::Plain(plain, payload))
        }
        Kind::JOIN => Some(Record::Join(copy_out(bytes)?)),
        Kind::HANDOFF => Some(Record::Handoff(copy_out(bytes)?)),
        Kind::ROUTE => {
            let route: Route = copy_out(bytes)?;
            let text = bytes.get(size_of::<Route>()..)?.get(..usize::from(route.len))?;
            Some(Record::Route(route, text))
        }
        _ => None,
    }
}

/// The pattern that stands behind a data record's payload; empty if there is none.
pub fn route<'a>(data: &Data, bytes: &'a [u8]) -> &'a [u8] {
    let from = size_of::<Data>().saturating_add(data.captured as usize);
    bytes.get(from..).and_then(|rest| rest.get(..usize::from(data.route))).unwrap_or_default()
}

/// When a record was made.
pub fn time(bytes: &[u8]) -> Option<u64> {
    copy_out::<Header>(bytes).map(|header| header.at_ns)
}

/// The bytes of an `Open` record, for recordings of connections whose own record was lost.
pub fn encode_open(open: &Open) -> Vec<u8> {
    bytes_of(open).to_vec()
}

/// The bytes of a data record, for tests.
pub fn encode_data(data: &Data, payload: &[u8]) -> Vec<u8> {
    [bytes_of(data), payload].concat()
}

/// The bytes of a close record, for tests.
pub fn encode_close(close: &Close) -> Vec<u8> {
    bytes_of(close).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(captured: u32) -> Data {
        Data {
            header: Header { kind: Kind::DATA.0, flags: 0, size: 80 + captured, at_ns: 7, tgid: 1, tid: 2 },
            cookie: 9,
            task: Default::default(),
            seq: 1,
            len: captured,
            captured,
            direction: 0,
            plane: 1,
            tail_len: 0,
            route: 0,
            tail: [0; 8],
        }
    }

    #[test]
    fn round_trip_and_short_input() {
        let bytes = encode_data(&sample(3), b"abc");
        assert!(matches!(decode(&bytes), Some(Record::Data(d, b"abc")) if d.cookie == 9));
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_none());
        }
    }

    #[test]
    fn unknown_kind_and_lying_length() {
        let mut bytes = encode_data(&sample(3), b"abc");
        bytes[40] = 0xff; // captured
        assert!(
            decode(&bytes).is_none() || matches!(decode(&bytes), Some(Record::Data(d, _)) if d.captured == 3)
        );
        bytes[0] = 99;
        assert!(decode(&bytes).is_none());
    }
}
