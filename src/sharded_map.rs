//! Hash tables that grow and shrink by parts, so that no insertion moves all that they hold.
//!
//! A table that grows takes in all its entries again. One of a million entries would stop the loop for tens of milliseconds. So
//! a table with many entries is split into shards, each of which grows by itself: an insertion moves what one shard holds.

use std::fmt;
use std::hash::{BuildHasher, Hash};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rustc_hash::FxBuildHasher;

/// How many shards there are, if there is more than one.
const SHARDS: usize = 512;

/// A table with more entries is split.
const WHOLE_MAX: usize = 1024;

/// A table that was split becomes whole again when it has fewer entries.
const SPLIT_MIN: usize = WHOLE_MAX / 4;

/// Entries by their hashes. The caller hashes and compares.
pub(crate) struct ShardedTable<T> {
    /// None while it is empty, one for few entries, [`SHARDS`] for many.
    shards: Vec<HashTable<T>>,
    len: usize,
}

impl<T> Default for ShardedTable<T> {
    fn default() -> Self {
        Self { shards: Vec::new(), len: 0 }
    }
}

impl<T> ShardedTable<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The shard of a hash, by bits that the shard itself uses for nothing.
    fn shard(&self, hash: u64) -> usize {
        (hash >> 40) as usize & self.shards.len().saturating_sub(1)
    }

    pub(crate) fn find(&self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        self.shards.get(self.shard(hash))?.find(hash, is_it)
    }

    pub(crate) fn find_mut(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let shard = self.shard(hash);
        self.shards.get_mut(shard)?.find_mut(hash, is_it)
    }

    /// Takes in an entry that is not there yet. `hash_of` is asked for the hashes of those that move.
    pub(crate) fn insert(&mut self, hash: u64, entry: T, hash_of: impl Fn(&T) -> u64) {
        self.prepare(&hash_of);
        let shard = self.shard(hash);
        self.shards[shard].insert_unique(hash, entry, hash_of);
        self.len += 1;
    }

    /// The entry that is meant, or a new one.
    fn find_or_insert(
        &mut self,
        hash: u64,
        is_it: impl FnMut(&T) -> bool,
        make: impl FnOnce() -> T,
        hash_of: impl Fn(&T) -> u64,
    ) -> &mut T {
        self.prepare(&hash_of);
        let shard = self.shard(hash);
        match self.shards[shard].entry(hash, is_it, hash_of) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(place) => {
                self.len += 1;
                place.insert(make()).into_mut()
            }
        }
    }

    /// Has a shard, or all of them, where one more entry is to come.
    fn prepare(&mut self, hash_of: &impl Fn(&T) -> u64) {
        if self.shards.is_empty() {
            // Most tables stay whole.
            self.shards.reserve_exact(1);
            self.shards.push(HashTable::new());
        }
        if self.len == WHOLE_MAX && self.shards.len() == 1 {
            self.split(hash_of);
        }
    }

    fn split(&mut self, hash_of: &impl Fn(&T) -> u64) {
        let whole = self.shards.pop().unwrap_or_default();
        self.shards.resize_with(SHARDS, HashTable::new);
        for entry in whole {
            let hash = hash_of(&entry);
            let shard = self.shard(hash);
            self.shards[shard].insert_unique(hash, entry, hash_of);
        }
    }

    fn join(&mut self, hash_of: &impl Fn(&T) -> u64) {
        let mut whole = HashTable::with_capacity(self.len);
        for entry in self.shards.drain(..).flatten() {
            whole.insert_unique(hash_of(&entry), entry, hash_of);
        }
        self.shards = vec![whole];
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let at = self.shard(hash);
        let shard = self.shards.get_mut(at)?;
        let (entry, _) = shard.find_entry(hash, is_it).ok()?.remove();
        self.len -= 1;
        if self.len == 0 {
            self.shards = Vec::new();
        } else if shard.is_empty() {
            // What a crowd has needed.
            *shard = HashTable::new();
        }
        Some(entry)
    }

    /// Gives back what the shard of a hash has needed for a crowd, or all of them if few entries are left. `hash_of` is asked for the
    /// hashes of what is left there.
    pub(crate) fn shrink(&mut self, hash: u64, hash_of: impl Fn(&T) -> u64) {
        if self.shards.len() > 1 && self.len < SPLIT_MIN {
            return self.join(&hash_of);
        }
        let at = self.shard(hash);
        let Some(shard) = self.shards.get_mut(at) else { return };
        if shard.capacity() > 8 * shard.len() + 16 {
            shard.shrink_to(2 * shard.len(), hash_of);
        }
    }

    /// How many entries there is room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.shards.iter().map(HashTable::capacity).sum()
    }

    /// How many shards there are.
    #[cfg(test)]
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }
}

/// A map of which no operation takes long, however much it holds.
///
/// Keys that peers choose need a hasher that is keyed by chance.
pub(crate) struct ShardedMap<K, V, S = FxBuildHasher> {
    table: ShardedTable<(K, V)>,
    hasher: S,
}

impl<K, V, S: Default> Default for ShardedMap<K, V, S> {
    fn default() -> Self {
        Self { table: ShardedTable::default(), hasher: S::default() }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> ShardedMap<K, V, S> {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.table.find(self.hasher.hash_one(key), |entry| entry.0 == *key).map(|entry| &entry.1)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.table.find_mut(self.hasher.hash_one(key), |entry| entry.0 == *key).map(|entry| &mut entry.1)
    }

    /// Puts a value under a key; gives the value that was there.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let Self { table, hasher } = self;
        let hash = hasher.hash_one(&key);
        if let Some(entry) = table.find_mut(hash, |entry| entry.0 == key) {
            return Some(std::mem::replace(&mut entry.1, value));
        }
        table.insert(hash, (key, value), |entry| hasher.hash_one(&entry.0));
        None
    }

    /// What is under a key, at first the default value.
    pub(crate) fn get_or_default(&mut self, key: K) -> &mut V
    where
        K: Copy,
        V: Default,
    {
        let Self { table, hasher } = self;
        let (is_it, make) = (|entry: &(K, V)| entry.0 == key, || (key, V::default()));
        &mut table.find_or_insert(hasher.hash_one(key), is_it, make, |entry| hasher.hash_one(entry.0)).1
    }

    /// Takes out what is under a key, and gives back memory if much less is left than there was.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let Self { table, hasher } = self;
        let hash = hasher.hash_one(key);
        let (_, value) = table.remove(hash, |entry| entry.0 == *key)?;
        table.shrink(hash, |entry| hasher.hash_one(&entry.0));
        Some(value)
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.table.capacity()
    }
}

impl<T> fmt::Debug for ShardedTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedTable").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<K, V, S> fmt::Debug for ShardedMap<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedMap").field("len", &self.table.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    #[test]
    fn it_holds_what_a_plain_map_holds() {
        let mut chance = fastrand::Rng::with_seed(7);
        for keys in [3, 900, 5000] {
            let (mut map, mut model) = (ShardedMap::<u32, u32>::default(), BTreeMap::new());
            for round in 0..40_000 {
                // It grows for a while, then it shrinks.
                let (key, grows) = (chance.u32(..keys), chance.u32(..40_000) > round);
                if grows && key % 2 == 0 {
                    *map.get_or_default(key) += round;
                    *model.entry(key).or_default() += round;
                } else if grows {
                    assert_eq!(map.insert(key, round), model.insert(key, round));
                } else {
                    assert_eq!(map.remove(&key), model.remove(&key));
                }
                assert_eq!((map.len(), map.get(&key)), (model.len(), model.get(&key)));
            }
            for (key, value) in &mut model {
                assert_eq!(map.get_mut(key), Some(value));
            }
        }
    }

    #[test]
    fn an_insertion_moves_few_entries() {
        const ENTRIES: u64 = 300_000;
        let (mut table, hasher, mut most) = (ShardedTable::default(), FxBuildHasher, 0);
        for entry in 0..ENTRIES {
            let moved = Cell::new(0);
            table.insert(hasher.hash_one(entry), entry, |entry| {
                moved.set(moved.get() + 1);
                hasher.hash_one(entry)
            });
            most = most.max(moved.get());
        }
        assert!((1..ENTRIES / 100).contains(&most), "{most} of {ENTRIES} entries were moved at once");
    }

    #[test]
    fn a_crowd_that_has_gone_leaves_no_memory() {
        let mut map = ShardedMap::<u32, u32>::default();
        (0..100_000).for_each(|key| assert!(map.insert(key, key).is_none()));
        (10..100_000).for_each(|key| assert!(map.remove(&key).is_some()));
        assert!(map.len() == 10 && map.capacity() < 200, "{}", map.capacity());
        assert_eq!(map.table.shards.len(), 1);
        (0..10).for_each(|key| assert!(map.remove(&key).is_some()));
        assert_eq!((map.capacity(), map.table.shards.capacity()), (0, 0));
    }
}
