//! gRPC-Web in the bodies of HTTP/1. Comes in: what of a body was captured, chunks undone. Goes out: how many messages, and the
//! status, which stands behind them in the body, or in the head where there is no body.

use crate::message::{RpcPart, RpcSystem};
use crate::rpc::{Content, Messages};

/// One direction of a call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    messages: Messages,
    /// The body is base64.
    text: Option<Base64>,
    /// The status that the head told.
    status: Option<u32>,
    lost: bool,
}

impl Call {
    /// Of a message whose head has this content type and this status.
    pub(super) fn new(content: Option<Content>, status: Option<u32>) -> Option<Box<Self>> {
        let content = content.filter(|content| content.system == RpcSystem::GrpcWeb)?;
        let text = (!content.prefixed).then(Base64::default);
        Some(Box::new(Self { messages: Messages::default(), text, status, lost: false }))
    }

    /// Takes bytes of the body.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let Self { messages, text, lost, .. } = self;
        if *lost {
            return;
        }
        match text {
            None => messages.bytes(bytes),
            Some(text) => *lost = !bytes.iter().all(|byte| text.push(*byte, messages)),
        }
    }

    /// Takes bytes of the body that were not captured.
    pub(super) fn hole(&mut self, len: u64) {
        // Padding may stand anywhere in text, so nobody knows how many bytes these were.
        if self.text.is_some() {
            self.lost |= len > 0;
        } else {
            self.messages.hole(len);
        }
    }

    /// The rest of the body is not followed.
    pub(super) fn lose(&mut self) {
        self.lost = true;
    }

    /// What was seen.
    pub(super) fn part(&self) -> RpcPart {
        let seen = self.messages.part();
        RpcPart { status: seen.status.or(self.status), truncated: seen.truncated || self.lost, ..seen }
    }

    /// Memory held.
    pub(super) fn state_bytes(&self) -> usize {
        size_of::<Self>() + self.messages.state_bytes()
    }

    /// Bound of [`Call::state_bytes`].
    pub(super) const MAX_STATE: usize = size_of::<Self>() + Messages::MAX_STATE;
}

/// Base64, which may be padded at the end of each piece that was encoded by itself.
#[derive(Clone, Copy, Debug, Default)]
struct Base64 {
    bits: u32,
    have: u8,
    padding: u8,
}

impl Base64 {
    /// Takes a character; false if it is none.
    fn push(&mut self, byte: u8, messages: &mut Messages) -> bool {
        let bits = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' if self.have >= 2 => {
                self.padding += 1;
                0
            }
            b'\r' | b'\n' => return true,
            _ => return false,
        };
        if self.padding > 0 && byte != b'=' {
            return false;
        }
        self.bits = self.bits << 6 | u32::from(bits);
        self.have += 1;
        if self.have == 4 {
            let [_, bytes @ ..] = self.bits.to_be_bytes();
            let whole = 3_usize.saturating_sub(usize::from(self.padding));
            messages.bytes(bytes.get(..whole).unwrap_or_default());
            *self = Self::default();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc;

    fn call(content: &[u8]) -> Box<Call> {
        Call::new(rpc::content(content), None).unwrap()
    }

    #[test]
    fn text_in_pieces_that_are_padded_by_themselves() {
        // A message "ab", and trailers with status 5, each encoded by itself.
        let body = b"AAAAAAJhYg==gAAAABBncnBjLXN0YXR1czogNQ0K";
        for step in 1..=body.len() {
            let mut call = call(b"application/grpc-web-text+proto");
            body.chunks(step).for_each(|part| call.bytes(part));
            assert_eq!(call.part(), RpcPart { messages: 1, bytes: 2, status: Some(5), truncated: false });
        }
    }

    #[test]
    fn what_is_no_text_or_was_not_captured_is_said() {
        for bad in [&b"AA*A"[..], b"A===", b"=", b"AA=A"] {
            let mut call = call(b"application/grpc-web-text");
            call.bytes(bad);
            assert!(call.part().truncated, "{bad:?}");
        }
        let mut text = call(b"application/grpc-web-text");
        text.hole(4);
        text.bytes(b"AAAAAAJhYg==");
        assert_eq!(text.part(), RpcPart { truncated: true, ..RpcPart::default() });
        assert!(Call::new(rpc::content(b"application/grpc"), None).is_none());
        assert!(Call::new(None, Some(0)).is_none());
    }
}
