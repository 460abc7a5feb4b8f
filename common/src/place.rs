//! Where a probe's program finds a value: a register or a slot of the stack, as sixteen bits of the probe's cookie.
//!
//! User space reads machine code and writes places; the programs read them. A cookie holds three places and sixteen bits that
//! are the instrument's own.

/// A place: a register by its number in machine code, or a slot above the stack pointer.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place(pub u16);

impl Place {
    /// The value is not to be had.
    pub const NOWHERE: Self = Self(0x7fff);
    /// Set for slots of the stack; the other bits are their distance from the stack pointer, in words of eight bytes.
    pub const STACK: u16 = 0x8000;

    /// A register by its number in machine code (0 is rax, 4 is rsp, 15 is r15).
    #[must_use]
    pub const fn register(number: u8) -> Self {
        Self((number & 15) as u16)
    }

    /// A slot of the stack; none if it is too far from the stack pointer, below it, or crooked.
    #[must_use]
    pub const fn stack(offset: i64) -> Option<Self> {
        if offset < 0 || offset % 8 != 0 || offset / 8 >= Self::STACK as i64 {
            return None;
        }
        Some(Self(Self::STACK | (offset / 8) as u16))
    }
}

/// Places in a cookie.
pub const PLACES: usize = 3;

/// A cookie of places and the instrument's own bits.
#[must_use]
pub const fn cookie(places: [Place; PLACES], own: u16) -> u64 {
    let [first, second, third] = places;
    first.0 as u64 | (second.0 as u64) << 16 | (third.0 as u64) << 32 | (own as u64) << 48
}

/// One of the places of a cookie.
#[must_use]
pub const fn place(cookie: u64, index: u32) -> Place {
    Place((cookie >> (16 * (index & 3))) as u16)
}

/// The instrument's own bits of a cookie.
#[must_use]
pub const fn own(cookie: u64) -> u16 {
    (cookie >> 48) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let slot = Place::stack(0x38).unwrap();
        let all = cookie([Place::register(7), slot, Place::NOWHERE], 0xbeef);
        assert_eq!([place(all, 0), place(all, 1), place(all, 2)], [Place(7), Place(0x8007), Place::NOWHERE]);
        assert_eq!(own(all), 0xbeef);
        assert_eq!([Place::stack(-8), Place::stack(4), Place::stack(0x8000 * 8)], [None; 3]);
    }
}
