//! An index from names to keys, without a second copy of the names.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// Finds the keys of things that lie in a slab by their names.
///
/// The names stay where the things are: the caller says how to get from a key to its name. So an entry costs five bytes and
/// the spare room of a hash table. Peers choose names, therefore the hash is keyed by chance.
///
/// A table that grows takes in all its entries again. One table of a million names would stop the loop for half a second, so
/// there are many small ones: an insertion moves about a thousandth of the names at most.
pub(crate) struct NameIndex {
    tables: Box<[HashTable<u32>; TABLES]>,
    hasher: RandomState,
}

const TABLES: usize = 1024;

impl Default for NameIndex {
    fn default() -> Self {
        Self { tables: Box::new([const { HashTable::new() }; TABLES]), hasher: RandomState::default() }
    }
}

/// The table of a hash, by bits that the table itself uses for nothing.
fn table_of(hash: u64) -> usize {
    (hash >> 40) as usize % TABLES
}

impl NameIndex {
    /// The key of a name, if it was inserted.
    pub(crate) fn find<'a>(&self, name: &str, name_of: impl Fn(u32) -> &'a str) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        self.tables[table_of(hash)].find(hash, |key| name_of(*key) == name).copied()
    }

    /// Takes in a name that is not there yet. `name_of` is asked for the names that are, when a table grows.
    pub(crate) fn insert<'a>(&mut self, name: &str, key: u32, name_of: impl Fn(u32) -> &'a str) {
        let Self { tables, hasher } = self;
        let hash = hasher.hash_one(name);
        tables[table_of(hash)].insert_unique(hash, key, |key| hasher.hash_one(name_of(*key)));
    }

    /// Forgets a name, which need not be found under its key any more.
    pub(crate) fn remove(&mut self, name: &str, key: u32) {
        let hash = self.hasher.hash_one(name);
        let table = &mut self.tables[table_of(hash)];
        if let Ok(entry) = table.find_entry(hash, |found| *found == key) {
            entry.remove();
        }
        if table.is_empty() {
            // What a crowd has needed.
            *table = HashTable::new();
        }
    }
}

impl fmt::Debug for NameIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len: usize = self.tables.iter().map(HashTable::len).sum();
        f.debug_struct("NameIndex").field("len", &len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

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
        assert!(index.tables.iter().all(|table| table.allocation_size() == 0), "nothing is left");
    }

    #[test]
    fn an_insertion_moves_few_names() {
        const NAMES: u32 = 300_000;
        let names: Vec<String> = (0..NAMES).map(|i| format!("name-{i}")).collect();
        let (mut index, mut most) = (NameIndex::default(), 0);
        for (key, name) in names.iter().enumerate() {
            let moved = Cell::new(0);
            index.insert(name, key as u32, |key| {
                moved.set(moved.get() + 1);
                &names[key as usize]
            });
            most = most.max(moved.get());
        }
        assert!((1..NAMES / 500).contains(&most), "{most} of {NAMES} names were moved at once");
    }
}
