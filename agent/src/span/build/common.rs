//! What the requests of a connection say alike, kept from one to the next. Comes in: exchanges. Goes out: attributes that were made
//! before, for those that would get the same again.
//!
//! Client, server, scheme and user agent are half of a span, and mostly what they were in the request before on the same connection.

use std::rc::Rc;
use std::sync::Arc;

use spanwise_protocol::message::Version;

use super::Attributes;
use crate::conn::ConnInfo;
use crate::session::{Exchange, Side};
use crate::span::model::Common;

/// How many connections' are kept, a power of two.
const PLACES: usize = 256;
/// Requests of other connections that one which is kept outlives.
const LIVES: u8 = 3;

/// What is kept, by connection. Each has one place, which it shares with others.
#[derive(Default)]
pub struct Commons {
    /// Empty until the first comes.
    places: Vec<Option<Kept>>,
}

struct Kept {
    alike: Alike,
    /// None until the second request that says this.
    common: Option<Arc<Common>>,
    /// The beginning of a client's URLs.
    url: Box<str>,
    lives: u8,
}

/// All that the attributes are made of. A connection is never changed while it is shared, so its address says what it is.
struct Alike {
    conn: Rc<ConnInfo>,
    side: Side,
    version: Version,
    scheme: Option<Box<str>>,
    authority: Option<Rc<str>>,
    user_agent: Option<Arc<str>>,
}

/// What was found.
pub(super) struct Found<'a> {
    /// The attributes.
    pub(super) common: &'a Arc<Common>,
    /// The beginning of the URL, for clients.
    pub(super) url: &'a str,
}

// === impl Commons ===

impl Commons {
    /// What the exchange has in common with the one before on its connection. What that is made of may be taken out of the exchange.
    pub(super) fn of(&mut self, exchange: &mut Exchange) -> Option<Found<'_>> {
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        let place = self.places.get_mut(exchange.conn.cookie as usize % PLACES)?;
        match place {
            Some(kept) if kept.alike.is(exchange) => kept.lives = LIVES,
            Some(kept) if kept.common.is_some() && kept.lives > 0 => {
                kept.lives -= 1;
                return None;
            }
            _ => {
                // A user or a password in an authority is not kept.
                if exchange.request.authority.as_ref().is_some_and(|authority| authority.contains('@')) {
                    return None;
                }
                *place =
                    Some(Kept { alike: Alike::of(exchange), common: None, url: Box::default(), lives: 0 });
                return None;
            }
        }
        let kept = place.as_mut()?;
        if kept.common.is_none() {
            let mut attributes = Attributes(Vec::new());
            kept.url = attributes.common(exchange).into();
            kept.common = Some(Arc::new(Common::new(attributes.0)));
        }
        kept.common.as_ref().map(|common| Found { common, url: &kept.url })
    }
}

impl Alike {
    fn of(exchange: &Exchange) -> Self {
        let request = &exchange.request;
        Self {
            conn: Rc::clone(&exchange.conn),
            side: exchange.side,
            version: request.version,
            scheme: request.scheme.clone(),
            authority: request.authority.clone(),
            user_agent: request.user_agent.clone(),
        }
    }

    fn is(&self, exchange: &Exchange) -> bool {
        let request = &exchange.request;
        Rc::ptr_eq(&self.conn, &exchange.conn)
            && self.side == exchange.side
            && self.version == request.version
            && same(self.scheme.as_deref(), request.scheme.as_deref())
            && same(self.authority.as_deref(), request.authority.as_deref())
            && same(self.user_agent.as_deref(), request.user_agent.as_deref())
    }
}

/// Texts that were read once are mostly the very same.
fn same(one: Option<&str>, other: Option<&str>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => std::ptr::eq(one, other) || one == other,
        (None, None) => true,
        _ => false,
    }
}
