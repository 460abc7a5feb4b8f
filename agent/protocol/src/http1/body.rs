//! How far a body goes: bytes and holes in, "done after so many" out.

use memchr::memchr;

use super::call::Call;

/// The end of a chunked body without trailers, with the end of the chunk before it.
const CHUNK_END: &[u8] = b"\r\n0\r\n\r\n";
/// Most digits of a chunk size.
const MAX_DIGITS: u8 = 16;

/// Framing of the body that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// So many bytes are missing.
    Length(u64),
    /// Chunks, each followed.
    Chunked(Chunk),
    /// Up to the end of the connection.
    Close,
    /// The end cannot be computed; it may be recognised.
    Unsure(Until, Recent),
}

/// Where in a chunked body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chunk {
    /// In the digits of a size.
    Size { value: u64, digits: u8 },
    /// Past the digits, before the line's end.
    Extension { value: u64 },
    /// In the data.
    Data { left: u64 },
    /// In the line end behind the data.
    DataEnd { cr: bool },
    /// In the lines behind the last chunk; `blank`: this one is empty so far.
    Trailer { blank: bool },
}

/// What ends a body whose framing is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Until {
    /// A transfer that ends as chunked bodies do.
    ChunkEnd,
    /// A transfer that ends as heads do: the head was cut, and no body follows it.
    HeadEnd,
    /// Only the next message, the close of the connection, or silence.
    Turn,
}

/// The last bytes seen.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Recent {
    bytes: [u8; 8],
    len: u8,
}

impl Recent {
    /// Appends bytes; `whole`: none are missing between them and those before.
    fn push(&mut self, new: &[u8], whole: bool) {
        if !whole {
            self.len = 0;
        }
        for &byte in new.get(new.len().saturating_sub(8)..).unwrap_or_default() {
            self.bytes.rotate_left(1);
            if let Some(last) = self.bytes.last_mut() {
                *last = byte;
            }
            self.len = (self.len + 1).min(8);
        }
    }

    fn ends_with(&self, end: &[u8]) -> bool {
        end.len() <= usize::from(self.len) && self.bytes.ends_with(end)
    }
}

/// How far the body went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// The input was used up.
    More,
    /// The body ended after so many bytes of the input.
    Done(u64),
    /// After so many bytes of the input the framing is broken.
    Bad(u64),
}

impl Body {
    pub(super) const CHUNKED: Self = Self::Chunked(Chunk::Size { value: 0, digits: 0 });

    /// A body whose end cannot be computed.
    pub(super) fn unsure(until: Until) -> Self {
        Self::Unsure(until, Recent::default())
    }

    /// Whether silence may mean the end. Not while it is known that the last transfer did not end as the body will: a
    /// stream of events may be silent for long.
    pub(super) fn may_be_over(&self) -> bool {
        match self {
            Self::Unsure(Until::ChunkEnd, recent) => recent.len == 0 || recent.ends_with(b"\r\n\r\n"),
            Self::Unsure(..) => true,
            Self::Length(_) | Self::Chunked(_) | Self::Close => false,
        }
    }

    /// Takes captured bytes; adds what is body to `moved`, and gives it to `call`.
    pub(super) fn bytes(&mut self, bytes: &[u8], moved: &mut u64, call: Option<&mut Call>) -> Progress {
        match self {
            Self::Length(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                if let Some(call) = call {
                    call.bytes(bytes.get(..used).unwrap_or_default());
                }
                take(left, bytes.len() as u64, moved)
            }
            Self::Chunked(chunk) => chunk.bytes(bytes, moved, call),
            Self::Close => {
                if let Some(call) = call {
                    call.bytes(bytes);
                }
                *moved = moved.saturating_add(bytes.len() as u64);
                Progress::More
            }
            Self::Unsure(until, recent) => {
                if let Some(call) = call {
                    call.lose();
                }
                *moved = moved.saturating_add(bytes.len() as u64);
                recent.push(bytes, true);
                recognise(*until, recent, bytes.len() as u64)
            }
        }
    }

    /// Takes a hole.
    pub(super) fn hole(
        &mut self,
        len: u64,
        tail: &[u8],
        moved: &mut u64,
        call: Option<&mut Call>,
    ) -> Progress {
        if let Some(call) = call {
            match self {
                Self::Length(left) => call.hole(len.min(*left)),
                Self::Close => call.hole(len),
                // The rest of the chunk, and its line end at most.
                Self::Chunked(Chunk::Data { left }) if len.saturating_sub(*left) <= 2 => {
                    call.hole(len.min(*left));
                }
                Self::Chunked(_) | Self::Unsure(..) => call.lose(),
            }
        }
        match self {
            Self::Length(left) => take(left, len, moved),
            Self::Close => {
                *moved = moved.saturating_add(len);
                Progress::More
            }
            Self::Chunked(Chunk::Data { left }) if len <= *left => {
                *left -= len;
                *moved = moved.saturating_add(len);
                if *left == 0 {
                    *self = Self::Chunked(Chunk::DataEnd { cr: false });
                }
                Progress::More
            }
            Self::Chunked(Chunk::Data { left }) if len - *left <= 2 => {
                *moved = moved.saturating_add(*left);
                let next = if len - *left == 1 {
                    Chunk::DataEnd { cr: true }
                } else {
                    Chunk::Size { value: 0, digits: 0 }
                };
                *self = Self::Chunked(next);
                Progress::More
            }
            Self::Chunked(chunk) => {
                // If nothing but the rest of this chunk and the last one is in the hole, the length is exact.
                let exact = match chunk {
                    Chunk::Data { left } if len - *left == CHUNK_END.len() as u64 => Some(*left),
                    _ => None,
                };
                let mut recent = Recent::default();
                recent.push(tail, false);
                let progress = recognise(Until::ChunkEnd, &recent, len);
                let body = exact.filter(|_| progress != Progress::More).unwrap_or(len);
                *moved = moved.saturating_add(body);
                *self = Self::Unsure(Until::ChunkEnd, recent);
                progress
            }
            Self::Unsure(until, recent) => {
                *moved = moved.saturating_add(len);
                recent.push(tail, len == tail.len() as u64);
                recognise(*until, recent, len)
            }
        }
    }
}

fn take(left: &mut u64, len: u64, moved: &mut u64) -> Progress {
    let used = len.min(*left);
    *left -= used;
    *moved = moved.saturating_add(used);
    if *left == 0 { Progress::Done(used) } else { Progress::More }
}

fn recognise(until: Until, recent: &Recent, used: u64) -> Progress {
    let done = match until {
        Until::ChunkEnd => recent.ends_with(CHUNK_END),
        Until::HeadEnd => recent.ends_with(b"\r\n\r\n") || recent.ends_with(b"\n\n"),
        Until::Turn => false,
    };
    if done { Progress::Done(used) } else { Progress::More }
}

impl Chunk {
    fn bytes(&mut self, bytes: &[u8], moved: &mut u64, mut call: Option<&mut Call>) -> Progress {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let first = rest.first().copied().unwrap_or_default();
            match self {
                Self::Size { value, digits } => {
                    let digit = match first {
                        b'0'..=b'9' => first - b'0',
                        b'a'..=b'f' => first - b'a' + 10,
                        b'A'..=b'F' => first - b'A' + 10,
                        b';' | b' ' | b'\t' | b'\r' | b'\n' if *digits > 0 => {
                            *self = Self::Extension { value: *value };
                            continue;
                        }
                        _ => return Progress::Bad(at as u64),
                    };
                    if *digits == MAX_DIGITS {
                        return Progress::Bad(at as u64);
                    }
                    *value = *value << 4 | u64::from(digit);
                    *digits += 1;
                    at += 1;
                }
                Self::Extension { value } => {
                    let Some(end) = memchr(b'\n', rest) else { return Progress::More };
                    at += end + 1;
                    *self =
                        if *value == 0 { Self::Trailer { blank: true } } else { Self::Data { left: *value } };
                }
                Self::Data { left } => {
                    let used = (rest.len() as u64).min(*left);
                    if let Some(call) = &mut call {
                        call.bytes(rest.get(..used as usize).unwrap_or_default());
                    }
                    *left -= used;
                    *moved = moved.saturating_add(used);
                    at += used as usize;
                    if *left == 0 {
                        *self = Self::DataEnd { cr: false };
                    }
                }
                Self::DataEnd { cr } => {
                    match first {
                        b'\r' if !*cr => *cr = true,
                        b'\n' => *self = Self::Size { value: 0, digits: 0 },
                        _ => return Progress::Bad(at as u64),
                    }
                    at += 1;
                }
                Self::Trailer { blank } => {
                    let end = memchr(b'\n', rest);
                    let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
                    *blank &= line.iter().all(|&b| b == b'\r');
                    let Some(end) = end else { return Progress::More };
                    at += end + 1;
                    if *blank {
                        return Progress::Done(at as u64);
                    }
                    *blank = true;
                }
            }
        }
        Progress::More
    }
}
