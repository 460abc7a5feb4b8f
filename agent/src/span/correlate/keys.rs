//! Exchanges under way by their keys. Comes in: keys, which ascend one by one. Goes out: where the exchange stands.
//!
//! Nearly all exchanges are over before a thousand others have begun: those stand in a table at the place that their key gives,
//! without a hash. One that finds its place taken by an older one goes into a map.

use super::arena::Id;
use super::hash::{Map, Seed};

/// Places of the table, a power of two.
const PLACES: usize = 1_024;

/// Ids of exchanges by key. The caller bounds how many there are.
#[derive(Debug)]
pub(super) struct Keys {
    /// [`Id::NONE`] where nothing is.
    places: Box<[(u64, Id)]>,
    taken: usize,
    others: Map<u64, Id>,
}

impl Keys {
    pub(super) fn new(seed: Seed) -> Self {
        Self { places: vec![(0, Id::NONE); PLACES].into(), taken: 0, others: Map::with_hasher(seed) }
    }

    #[inline]
    fn place(&mut self, key: u64) -> Option<&mut (u64, Id)> {
        self.places.get_mut(key as usize & (PLACES - 1))
    }

    /// Takes a key that was not there before.
    pub(super) fn insert(&mut self, key: u64, id: Id) {
        match self.place(key) {
            Some(place) if place.1 == Id::NONE => {
                *place = (key, id);
                self.taken += 1;
            }
            _ => {
                self.others.insert(key, id);
            }
        }
    }

    #[inline]
    pub(super) fn get(&self, key: &u64) -> Option<&Id> {
        match self.places.get(*key as usize & (PLACES - 1)) {
            Some((known, id)) if known == key && *id != Id::NONE => Some(id),
            _ if self.others.is_empty() => None,
            _ => self.others.get(key),
        }
    }

    pub(super) fn remove(&mut self, key: &u64) {
        match self.place(*key) {
            Some(place) if place.0 == *key && place.1 != Id::NONE => {
                place.1 = Id::NONE;
                self.taken -= 1;
            }
            _ => {
                self.others.remove(key);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.taken + self.others.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::arena::Arena;
    use super::*;

    #[test]
    fn long_ones_are_found_among_short_ones() {
        let mut arena = Arena::new();
        let mut keys = Keys::new(Seed::random());
        let ids: Vec<Id> = (0..4 * PLACES as u64).map(|key| arena.insert(key)).collect();
        // Every fourth stays; the others go when the next has begun.
        for (key, id) in (0_u64..).zip(&ids) {
            keys.insert(key, *id);
            assert_eq!(keys.get(&key), Some(id));
            if key % 4 != 0 {
                keys.remove(&key);
                assert_eq!(keys.get(&key), None);
            }
        }
        assert_eq!(keys.len(), PLACES);
        for (key, id) in (0_u64..).zip(&ids) {
            assert_eq!(keys.get(&key), (key % 4 == 0).then_some(id));
            keys.remove(&key);
            assert_eq!(keys.get(&key), None);
        }
        assert_eq!((keys.len(), keys.taken), (0, 0));
    }

    #[test]
    fn a_place_is_taken_by_one() {
        let mut arena = Arena::new();
        let mut keys = Keys::new(Seed::random());
        let [first, second] = ['a', 'b'].map(|value| arena.insert(value));
        let other = 7 + PLACES as u64;
        keys.insert(7, first);
        keys.insert(other, second);
        assert_eq!((keys.get(&7), keys.get(&other), keys.len()), (Some(&first), Some(&second), 2));
        // The place is free again, while the other key stays where it is.
        keys.remove(&7);
        assert_eq!((keys.get(&7), keys.get(&other), keys.len()), (None, Some(&second), 1));
        keys.remove(&7);
        assert_eq!(keys.len(), 1);
        keys.remove(&other);
        assert_eq!((keys.get(&other), keys.len()), (None, 0));
    }
}
