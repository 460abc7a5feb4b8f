//! Whether new processes are followed. In: children as the kernel side tells of them. Out: what is done with each, counted.
//!
//! The kernel side follows on its own; a child that is not to be followed is taken out again at once. When children are followed
//! again, those that were left out and still live below a traced process are found by looking.

use std::collections::HashSet;

use crate::process::descendants;
use crate::telemetry::{Flow, Stage};

/// The children of traced processes.
#[derive(Debug, Default)]
pub struct Following {
    refusing: bool,
    followed: u64,
    refused: u64,
    /// Refused since children were last followed.
    left_out: bool,
    taken_in: u64,
}

impl Following {
    /// A child was made. Whether it is followed.
    pub fn child(&mut self) -> bool {
        if self.refusing {
            self.refused += 1;
            self.left_out = true;
        } else {
            self.followed += 1;
        }
        !self.refusing
    }

    /// From now on children are followed, or not. True if some that were left out are to be looked for now.
    pub fn set(&mut self, follow: bool) -> bool {
        self.refusing = !follow;
        follow && std::mem::take(&mut self.left_out)
    }

    /// One that was left out is traced after all.
    pub fn took_in(&mut self) {
        self.taken_in += 1;
    }

    /// The account: children seen, what became of them.
    pub fn stage(&self) -> Stage {
        Stage {
            name: "governor: new processes",
            input: self.followed + self.refused,
            rows: vec![
                (Flow::Out, "followed", self.followed),
                (Flow::Drop, "not followed, over budget", self.refused),
            ],
            notes: vec![("taken in later", self.taken_in)],
        }
    }
}

/// Processes below these that are not among them.
pub fn left_out(traced: &[u32]) -> Vec<u32> {
    let mut known: HashSet<u32> = traced.iter().copied().collect();
    let mut found = Vec::new();
    for process in traced {
        for child in descendants(*process) {
            if known.insert(child) {
                found.push(child);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_counted() {
        let mut following = Following::default();
        assert!(following.child());
        assert!(!following.set(false));
        assert!(!following.child() && !following.child());
        assert!(following.set(true), "some were left out");
        assert!(!following.set(true), "once");
        assert!(following.child());
        following.took_in();
        let stage = following.stage();
        assert!(stage.balances());
        assert_eq!((stage.input, stage.rows[0].2, stage.rows[1].2, stage.notes[0].1), (4, 2, 2, 1));
    }

    #[test]
    fn what_is_below_is_found() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let own = std::process::id();
        assert!(left_out(&[own]).contains(&child.id()));
        assert!(!left_out(&[own, child.id()]).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
