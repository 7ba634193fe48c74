//! An index from names to keys, without a second copy of the names.

use std::hash::{BuildHasher, RandomState};

use crate::sharded_map::ShardedTable;

/// Finds the keys of things that lie in a slab by their names.
///
/// The names stay where the things are: the caller says how to get from a key to its name. So an entry costs five bytes and
/// the spare room of a hash table. Peers choose names, therefore the hash is keyed by chance.
#[derive(Debug, Default)]
pub(crate) struct NameIndex {
    table: ShardedTable<u32>,
    hasher: RandomState,
}

impl NameIndex {
    /// The key of a name, if it was inserted.
    pub(crate) fn find<'a>(&self, name: &str, name_of: impl Fn(u32) -> &'a str) -> Option<u32> {
        self.table.find(self.hasher.hash_one(name), |key| name_of(*key) == name).copied()
    }

    /// Takes in a name that is not there yet. `name_of` is asked for the names that are, when a part of the index grows.
    pub(crate) fn insert<'a>(&mut self, name: &str, key: u32, name_of: impl Fn(u32) -> &'a str) {
        let Self { table, hasher } = self;
        table.insert(hasher.hash_one(name), key, |key| hasher.hash_one(name_of(*key)));
    }

    /// Forgets a name, which need not be found under its key any more.
    pub(crate) fn remove(&mut self, name: &str, key: u32) {
        self.table.remove(self.hasher.hash_one(name), |found| *found == key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_until_they_are_removed() {
        let names: Vec<String> = (0..10_000).map(|i| format!("name-{i}")).collect();
        let name_of = |key: u32| names[key as usize].as_str();
        let mut index = NameIndex::default();
        for (key, name) in names.iter().enumerate() {
            assert_eq!(index.find(name, name_of), None);
            index.insert(name, key as u32, name_of);
        }
        for (key, name) in names.iter().enumerate().step_by(2) {
            index.remove(name, key as u32);
        }
        for (key, name) in names.iter().enumerate() {
            assert_eq!(index.find(name, name_of), (key % 2 == 1).then_some(key as u32));
        }
        for (key, name) in names.iter().enumerate().skip(1).step_by(2) {
            index.remove(name, key as u32);
        }
        assert_eq!(index.table.capacity(), 0, "nothing is left");
    }
}
