//! What the hooks on TLS libraries are told by the cookie of each probe (see [`place`](crate::place)).

/// The instrument's own bits of a probe's cookie. The places are, at the beginning of a call, the object, the buffer and the
/// pointer to the count; at its end the first is the result.
pub mod call {
    /// Plaintext comes out of the library; else it goes in.
    pub const RECV: u16 = 1 << 0;
    /// The result tells success, and the bytes are counted where the third place pointed; else the result is the count.
    pub const BY_POINTER: u16 = 1 << 1;
    /// There is no buffer in user memory (sendfile).
    pub const NO_BUFFER: u16 = 1 << 2;
    /// Moves no plaintext: only the transfers inside are of interest.
    pub const HANDSHAKE: u16 = 1 << 3;
    /// The result has 64 bits; else 32.
    pub const WIDE: u16 = 1 << 4;
    /// Lowest bit of the library, of [`library`](crate::event::library).
    pub const LIBRARY_SHIFT: u32 = 5;
    /// Lowest bit of where the object tells whether it is the server: the offset of a 32-bit number, in words of four bytes. Zero
    /// where that is not known.
    pub const SERVER_SHIFT: u32 = 8;
    /// The library of a call.
    #[must_use]
    pub const fn library(own: u16) -> u8 {
        (own >> LIBRARY_SHIFT) as u8 & 7
    }
    /// Offset of the number that is not zero at the server.
    #[must_use]
    pub const fn server(own: u16) -> Option<u64> {
        match own >> SERVER_SHIFT {
            0 => None,
            words => Some(words as u64 * 4),
        }
    }
}

/// In the cookie of the end of a call: index of the "place" that is the offset of the random number of the object's ClientHello.
/// Zero where it is not known.
pub const RANDOM: u32 = 1;
/// The same of the pointer to follow before that; [`DIRECT`] if the object itself holds the number.
pub const THROUGH: u32 = 2;
/// Nothing to follow.
pub const DIRECT: u16 = u16::MAX;
