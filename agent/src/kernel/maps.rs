//! Maps that the kernel refuses. In: the refusal of one. Out: what is lost with it: only what the map serves where that is one
//! feature, and everything otherwise.
//!
//! Maps are made together, and every program finds those that it names. A map that is lost is therefore made again with room for one
//! entry, which every kernel has, and its feature is left out.

use aya::EbpfLoader;
use aya::maps::MapError;
use spanwise_common::names;

use super::fault::{Faults, Kind};
use super::plane::NO_URING;

/// What watches io_uring alone.
const URING: &str = "URING";
/// Maps for programs on user code: what only they fill.
const USER_CODE: [&str; 13] = [
    names::GO_TLS,
    names::GO_ROUTES,
    "GO_STREAMS",
    "GO_TOLD",
    "GO_SLOTS",
    "CALLS",
    "OBJECTS",
    "HELLOS",
    "CRYPTING",
    "CIPHERS",
    "TAGS",
    "BOUNDARIES",
    "CODE",
];
/// What is lost without probes on user code.
pub(super) const NO_USER_CODE: &str = "nothing in programs and libraries can be probed, so what they encrypt is not read, and \
                                       goroutines are not followed";

/// Features that are left out, each with the sentence that says why.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost {
    /// io_uring is not watched.
    pub(super) uring: Option<String>,
    /// Nothing in programs and libraries is probed.
    pub(super) user_code: Option<String>,
}

impl Lost {
    /// Takes in that a map was refused. Whether that is a loss of one feature, and was not known before.
    pub(super) fn take(&mut self, error: &aya::EbpfError) -> bool {
        let aya::EbpfError::MapError(MapError::CreateError { name, io_error }) = error else { return false };
        // Who may not make one may not make others either.
        if io_error.raw_os_error() == Some(libc::EPERM) {
            return false;
        }
        let (place, cost) = match name.as_str() {
            URING => (&mut self.uring, NO_URING),
            name if USER_CODE.contains(&name) => (&mut self.user_code, NO_USER_CODE),
            _ => return false,
        };
        if place.is_some() {
            return false;
        }
        *place = Some(format!("map {name} cannot be made ({io_error}): {cost}"));
        true
    }

    /// Maps of what is left out are made as small as can be, and others not at all if that is a fault on purpose.
    pub(super) fn apply<'a>(&self, loader: &mut EbpfLoader<'a>, faults: &'a Faults) {
        let mut small = Vec::new();
        if self.uring.is_some() {
            small.push(URING);
        }
        if self.user_code.is_some() {
            small.extend(USER_CODE);
        }
        for name in &small {
            loader.map_max_entries(name, 1);
        }
        for name in faults.of(Kind::Map).filter(|name| !small.contains(name)) {
            loader.map_max_entries(name, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, code: i32) -> aya::EbpfError {
        let io_error = std::io::Error::from_raw_os_error(code);
        aya::EbpfError::MapError(MapError::CreateError { name: name.into(), io_error })
    }

    #[test]
    fn a_map_of_one_feature_costs_that_feature_once() {
        let mut lost = Lost::default();
        assert!(lost.take(&refused("OBJECTS", libc::ENOMEM)));
        assert!(lost.take(&refused("URING", libc::EINVAL)));
        assert!(!lost.take(&refused("GO_TLS", libc::ENOMEM)), "small maps are refused, too");
        assert!(!lost.take(&refused("CONNS", libc::ENOMEM)), "every program needs this one");
        assert!(lost.user_code.unwrap().starts_with("map OBJECTS cannot be made (Cannot allocate memory"));
        assert!(lost.uring.unwrap().starts_with("map URING cannot be made"));
    }

    #[test]
    fn permission_is_nothing_that_a_smaller_map_mends() {
        assert!(!Lost::default().take(&refused("OBJECTS", libc::EPERM)));
    }
}
