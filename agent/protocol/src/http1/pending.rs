//! A request that waits for its response.

use crate::queue::Waits;

/// A request whose response is not complete.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    /// Its number.
    pub(super) exchange: u32,
    /// Other requests, which were not seen, may stand before it.
    pub(super) after_gap: bool,
    /// Its head was never understood: its response is framed, but nobody is told.
    pub(super) ghost: bool,
    /// The method is HEAD: the response has no body.
    pub(super) head: bool,
    /// The method is CONNECT.
    pub(super) connect: bool,
    /// It asked for another protocol, or may have.
    pub(super) upgrade: bool,
    /// It asked for HTTP/2.
    pub(super) h2c: bool,
    /// It is a call of gRPC-Web.
    pub(super) call: bool,
    /// Nothing more of it will come.
    pub(super) sent: bool,
}

impl Waits for Pending {
    fn exchange(&self) -> u32 {
        self.exchange
    }

    fn is_ghost(&self) -> bool {
        self.ghost
    }
}
