//! Probes of a file that are attached only once something is not known without them. Comes in: processes that ask for them, or
//! found them to be of no use. Goes out: whether to attach, and what to take away.

use std::collections::{HashMap, HashSet};

use crate::kernel::uprobe::Links;

/// What is not known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Need {
    /// Who started a task.
    Starters,
    /// Who gave a task its work.
    HandOffs,
}

impl Need {
    /// When it is attached, for people.
    #[must_use]
    pub fn when(self) -> &'static str {
        match self {
            Self::Starters => "attached only once the starter of a task that calls is not known",
            Self::HandOffs => "attached only once calls of tasks that live on are not explained",
        }
    }
}

/// What was attached for one need.
#[derive(Default)]
struct Extra {
    links: Links,
    sites: usize,
    /// Processes that it is for.
    users: HashSet<u32>,
}

/// What was attached to a file later.
#[derive(Default)]
pub(super) struct Further(HashMap<Need, Extra>);

impl Further {
    /// A process asks. Whether it is the first one to do so.
    pub(super) fn asked(&mut self, need: Need, tgid: u32) -> bool {
        let first = !self.0.contains_key(&need);
        self.0.entry(need).or_default().users.insert(tgid);
        first
    }

    /// What was asked for is there.
    pub(super) fn attached(&mut self, need: Need, links: Links, sites: usize) {
        let extra = self.0.entry(need).or_default();
        extra.links.append(links);
        extra.sites += sites;
    }

    /// A process needs it no longer. What to take away, with its number of sites, if that was the last one.
    pub(super) fn left(&mut self, need: Need, tgid: u32) -> Option<(Links, usize)> {
        let extra = self.0.get_mut(&need)?;
        extra.users.remove(&tgid);
        if !extra.users.is_empty() {
            return None;
        }
        self.0.remove(&need).map(|extra| (extra.links, extra.sites))
    }

    /// Everything, with its number of sites.
    pub(super) fn all(self) -> (Links, usize) {
        let mut links = Links::default();
        let mut sites = 0;
        for extra in self.0.into_values() {
            links.append(extra.links);
            sites += extra.sites;
        }
        (links, sites)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attached_for_the_first_and_taken_away_after_the_last() {
        let mut further = Further::default();
        assert!(further.asked(Need::HandOffs, 7));
        assert!(!further.asked(Need::HandOffs, 8));
        assert!(further.asked(Need::Starters, 7));
        further.attached(Need::HandOffs, Links::default(), 6);
        further.attached(Need::Starters, Links::default(), 1);
        assert!(further.left(Need::HandOffs, 7).is_none());
        assert_eq!(further.left(Need::HandOffs, 8).map(|(_, sites)| sites), Some(6));
        assert!(further.left(Need::HandOffs, 8).is_none());
        assert!(further.asked(Need::HandOffs, 8));
        assert_eq!(further.all().1, 1);
    }
}
