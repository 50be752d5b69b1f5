//! An ordered map that takes no more memory than its entries while there are few.
//!
//! A node of a `BTreeMap` has room for eleven entries, and most Jobs have one pod.

use std::{borrow::Borrow, collections::BTreeMap};

/// The largest number of entries in a vector. Beyond it, inserting would become slow.
const FEW: usize = 8;

/// A map with the interface of `BTreeMap`. Either `few` or `many` is empty.
#[derive(Debug)]
pub(super) struct SmallMap<K, V> {
    /// The entries, ordered by their keys.
    few: Vec<(K, V)>,
    many: Option<BTreeMap<K, V>>,
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self { few: Vec::new(), many: None }
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    pub(super) fn len(&self) -> usize {
        self.few.len() + self.many.as_ref().map_or(0, BTreeMap::len)
    }

    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.few.binary_search_by(|(found, _)| found.borrow().cmp(key))
    }

    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match &self.many {
            Some(many) => many.get(key),
            None => self.find(key).ok().and_then(|index| self.few.get(index)).map(|(_, value)| value),
        }
    }

    pub(super) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let index = self.find(key);
        match &mut self.many {
            Some(many) => many.get_mut(key),
            None => index.ok().and_then(|index| self.few.get_mut(index)).map(|(_, value)| value),
        }
    }

    pub(super) fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Returns the value that the new one replaces.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(many) = &mut self.many {
            return many.insert(key, value);
        }
        match self.find(&key) {
            Ok(index) => self.few.get_mut(index).map(|(_, found)| std::mem::replace(found, value)),
            Err(_) if self.few.len() >= FEW => {
                let mut many: BTreeMap<K, V> = std::mem::take(&mut self.few).into_iter().collect();
                many.insert(key, value);
                self.many = Some(many);
                None
            }
            Err(index) => {
                self.few.reserve_exact(1);
                self.few.insert(index, (key, value));
                None
            }
        }
    }

    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let removed = match &mut self.many {
            Some(many) => many.remove(key),
            None => self.find(key).ok().map(|index| self.few.remove(index).1),
        };
        self.shrink();
        removed
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.few.retain_mut(|(key, value)| keep(key, value));
        self.many.iter_mut().for_each(|many| many.retain(&mut keep));
        self.shrink();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.few.iter().map(|(key, value)| (key, value)).chain(self.many.iter().flat_map(|many| many.iter()))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let many = self.many.iter_mut().flat_map(|many| many.values_mut());
        self.few.iter_mut().map(|(_, value)| value).chain(many)
    }

    /// Frees the memory of an empty map.
    fn shrink(&mut self) {
        if self.len() == 0 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn small_map_behaves_like_an_ordered_map(
            steps in prop::collection::vec((0u8..4, 0u8..24, any::<u8>()), 0..120),
        ) {
            let (mut small, mut model) = (SmallMap::default(), BTreeMap::new());
            for (step, key, value) in steps {
                match step {
                    0 | 1 => prop_assert_eq!(small.insert(key, value), model.insert(key, value)),
                    2 => prop_assert_eq!(small.remove(&key), model.remove(&key)),
                    _ => {
                        let keep = |key: &u8, _: &mut u8| key % 7 != value % 7;
                        small.retain(keep);
                        model.retain(keep);
                    }
                }
                prop_assert_eq!(small.len(), model.len());
                prop_assert_eq!(small.get(&key), model.get(&key));
                prop_assert_eq!(small.get_mut(&key), model.get_mut(&key));
                prop_assert!(small.iter().eq(model.iter()));
                prop_assert!(small.values_mut().eq(model.values_mut()));
            }
        }
    }
}
