//! Storage with stable small ids; an id of something gone finds nothing, never something else.

/// Names a value in an [`Arena`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Id {
    index: u32,
    generation: u32,
}

impl Id {
    /// Finds nothing, in any arena.
    pub(super) const NONE: Self = Self { index: u32::MAX, generation: u32::MAX };

    /// Folds the id into a set of which only the last member needs to be read back.
    pub(super) fn fold(self, other: Self) -> Self {
        Self { index: self.index ^ other.index, generation: self.generation ^ other.generation }
    }

    /// The empty set of [`Id::fold`].
    pub(super) const EMPTY: Self = Self { index: 0, generation: 0 };
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Values by id.
#[derive(Debug)]
pub(super) struct Arena<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Arena<T> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, value: T) -> Id {
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.value = Some(value);
            return Id { index, generation: slot.generation };
        }
        // The callers bound the count far below 2^32.
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot { generation: 0, value: Some(value) });
        Id { index, generation: 0 }
    }

    #[inline]
    pub(super) fn get(&self, id: Id) -> Option<&T> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation == id.generation { slot.value.as_ref() } else { None }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.value.as_mut() } else { None }
    }

    /// Forgets a value where it lies: values are large, and handing one out would copy it several times.
    pub(super) fn remove(&mut self, id: Id) {
        let Some(slot) = self.slots.get_mut(id.index as usize) else { return };
        if slot.generation == id.generation && slot.value.is_some() {
            slot.value = None;
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(id.index);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.slots.iter().zip(0_u32..).filter_map(|(slot, index)| {
            let value = slot.value.as_ref()?;
            Some((Id { index, generation: slot.generation }, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_id_finds_nothing() {
        let mut arena = Arena::new();
        let first = arena.insert('a');
        arena.remove(first);
        let second = arena.insert('b');
        assert_eq!(arena.get(first), None);
        assert_eq!(arena.get(second), Some(&'b'));
        arena.remove(first);
        assert_eq!(arena.get(Id::NONE), None);
        assert_eq!((arena.len(), arena.iter().count()), (1, 1));
    }

    #[test]
    fn fold_reads_the_last_member_back() {
        let mut arena = Arena::new();
        let ids = [arena.insert(1), arena.insert(2), arena.insert(3)];
        let set = ids.iter().fold(Id::EMPTY, |set, id| set.fold(*id));
        assert_eq!(set.fold(ids[0]).fold(ids[2]), ids[1]);
    }
}
