//! A table of what was used lately: two generations, the older of which goes when the younger is full.

use super::hash::{Map, Seed};

/// At most `bound` values by key.
#[derive(Debug)]
pub(super) struct Recent<V> {
    young: Map<u64, V>,
    old: Map<u64, V>,
    half: usize,
}

impl<V> Recent<V> {
    pub(super) fn new(seed: Seed, bound: usize) -> Self {
        Self { young: Map::with_hasher(seed), old: Map::with_hasher(seed), half: (bound / 2).max(1) }
    }

    /// The value, which counts as used.
    pub(super) fn get(&mut self, key: u64) -> Option<&mut V> {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key)?;
            self.insert(key, value);
        }
        self.young.get_mut(&key)
    }

    pub(super) fn insert(&mut self, key: u64, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: u64) -> Option<V> {
        self.young.remove(&key).or_else(|| self.old.remove(&key))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut table = Recent::new(Seed::random(), 100);
        for key in 0..1_000 {
            table.insert(key, key);
            assert!(table.get(0).is_some_and(|value| *value == 0), "used all the time");
            assert!(table.len() <= 100);
        }
        assert!(table.get(999).is_some() && table.get(960).is_some());
        assert!(table.get(500).is_none());
        assert_eq!(table.remove(999), Some(999));
        assert_eq!(table.remove(999), None);
    }
}
