//! Routers of other packages: where they keep the pattern of a request that has been served.
//!
//! A router takes what it knows of a request from a pool, and puts it back when the request has been served, just before `net/http`
//! sends the answer. So it is what was put last into the pool of this processor; or, if the answer begins before that (a long
//! one), it stands on the stack of the router's `ServeHTTP`. It is believed only if it holds a pointer that belongs to this request
//! alone: what belongs to another one is never taken for it.

use spanwise_common::golang::{MAX_FRAME, Router, Routes, fixed, router};
use spanwise_common::limits::MAX_ROUTE_PARTS;
use spanwise_common::offsets::MISSING;

use super::routes::{Told, pair, part};
use crate::read::word;

/// Where the first method stands in what describes an interface: behind two pointers and a hash.
const FIRST_METHOD: u64 = 24;

/// Addresses of what serves a request.
pub struct Served {
    /// `net/http.conn`.
    pub conn: u64,
    /// `net/http.response`.
    pub response: u64,
    /// `net/http.Request`.
    pub request: u64,
    /// `runtime.m`.
    pub thread: u64,
    /// End of the goroutine's stack.
    pub top: u64,
}

/// The handler of the server that a connection came to, if that is a router that is known; and what is known of it.
#[inline(always)]
pub fn of_server(routes: &Routes, conn: u64) -> Option<(&Router, u64)> {
    let server = word(conn + fixed::FIRST)?;
    let [description, handler] = pair(server + u64::from(routes.handler))?;
    if description == 0 {
        return None;
    }
    let serve = word(description + FIRST_METHOD)?;
    let router = routes.routers.iter().find(|router| router.serve == serve && serve != 0)?;
    Some((router, handler))
}

/// Tells the pattern if the server's handler is a router that is known, and has one.
#[inline(always)]
pub fn find(told: &Told, routes: &Routes, served: &Served) -> Option<()> {
    let (router, handler) = of_server(routes, served.conn)?;
    let mark = if router.bits & router::BY_CONTEXT != 0 {
        word(served.request + u64::from(routes.context) + 8)?
    } else {
        served.response
    };
    let found = match pooled(routes, router, handler, served.thread, mark) {
        Some(found) => found,
        None => on_stack(routes, router, served.top, mark)?,
    };
    let [text, len] = pair(found + u64::from(router.pattern))?;
    if len == 0 {
        return None;
    }
    // Another goroutine may take it from the pool at any time; but it writes its own mark before its own pattern. So what was read
    // while the mark was still there is this request's.
    if router.bits & router::LIST == 0 {
        if !is_of(router, found, mark) {
            return None;
        }
        return part(told, text, len, 0, 1);
    }
    if len > u64::from(MAX_ROUTE_PARTS) {
        return None;
    }
    for number in 0..MAX_ROUTE_PARTS {
        if u64::from(number) == len {
            break;
        }
        let [piece, its] = pair(text + u64::from(number) * 16)?;
        if !is_of(router, found, mark) {
            return None;
        }
        part(told, piece, its, number, len as u8)?;
    }
    Some(())
}

/// What was put last into the router's pool, if it belongs to the request.
#[inline(always)]
fn pooled(routes: &Routes, router: &Router, handler: u64, thread: u64, mark: u64) -> Option<u64> {
    let mut pool = handler + u64::from(router.pool);
    if router.bits & router::POOL_POINTER != 0 {
        pool = word(pool)?;
    }
    let mine = word(pool + fixed::FIRST)? + processor(routes, thread)? * fixed::POOL_LOCAL;
    let found = last_put(mine, mark, router.through, router.mark);
    (found != 0).then_some(found)
}

/// What was put last into the part of a pool that is a processor's, if it belongs to the request; else zero. A global function: the
/// verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn last_put(mine: u64, mark: u64, through: u32, offset: u32) -> u64 {
    let private = word(mine + fixed::FIRST + 8).unwrap_or(0);
    if belongs(private, mark, through, offset) != 0 {
        return private;
    }
    let shared = last_shared(mine + fixed::SHARED).unwrap_or(0);
    if belongs(shared, mark, through, offset) != 0 { shared } else { 0 }
}

/// What belongs to the request among the words on the stack of the router's `ServeHTTP`.
#[inline(always)]
fn on_stack(routes: &Routes, router: &Router, top: u64, mark: u64) -> Option<u64> {
    if routes.called == 0 {
        return None;
    }
    let end = top - u64::from(routes.called);
    let found = among(end, mark, router.through, router.mark, router.frame);
    (found != 0).then_some(found)
}

/// What belongs to the request among so many words below an address; else zero. A global function: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn among(end: u64, mark: u64, through: u32, offset: u32, words: u32) -> u64 {
    for number in 1..=MAX_FRAME {
        if number > words {
            break;
        }
        let found = word(end - u64::from(number) * 8).unwrap_or(0);
        if belongs(found, mark, through, offset) != 0 {
            return found;
        }
    }
    0
}

/// Number of the processor that the thread holds, or held before the system call that it is in.
#[inline(always)]
fn processor(routes: &Routes, thread: u64) -> Option<u64> {
    let mut processor = word(thread + u64::from(routes.processor))?;
    if processor == 0 {
        processor = word(thread + u64::from(routes.processor_before))?;
    }
    Some(word(processor + fixed::FIRST)? & 0xffff)
}

/// What was put last into the part of a pool that other processors may take from.
#[inline(always)]
fn last_shared(chain: u64) -> Option<u64> {
    let head = word(chain + fixed::FIRST)?;
    let place = (word(head + fixed::FIRST)? >> 32).wrapping_sub(1);
    let [values, count] = pair(head + fixed::VALUES)?;
    word(values + (place & count.wrapping_sub(1) & 0xffff_ffff) * 16 + 8)
}

/// Whether something belongs to the request.
#[inline(always)]
fn is_of(router: &Router, found: u64, mark: u64) -> bool {
    belongs(found, mark, router.through, router.mark) != 0
}

/// The same. A global function: the verifier looks at it once, and not for each word of a stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn belongs(found: u64, mark: u64, through: u32, offset: u32) -> u32 {
    // No address of what is kept in a pool.
    if found >> 16 == 0 || found & 7 != 0 || mark == 0 {
        return 0;
    }
    let mut at = found;
    if through != MISSING {
        let Some(through) = word(found + u64::from(through)) else { return 0 };
        at = through;
    }
    u32::from(word(at + u64::from(offset) + 8) == Some(mark))
}
