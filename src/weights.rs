//! Weights of many, so that one of the heaviest is found in constant time.

use std::hash::Hash;

use crate::sharded_map::ShardedMap;

/// What each key weighs. Keys are kept in classes by powers of two; those without weight are forgotten.
///
/// Keys must not be chosen by peers: they are numbers of ours, or keyed hashes.
#[derive(Debug)]
pub(crate) struct Weights<K> {
    entries: ShardedMap<K, Entry>,
    /// The keys of each class that has any, the heaviest last.
    classes: Vec<Class<K>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    weight: usize,
    /// Where the key stands in its class.
    place: u32,
}

#[derive(Debug)]
struct Class<K> {
    /// Weights from `2^exponent` up to twice as much.
    exponent: u32,
    keys: Vec<K>,
}

impl<K> Default for Weights<K> {
    fn default() -> Self {
        Self { entries: ShardedMap::default(), classes: Vec::new() }
    }
}

impl<K: Copy + Eq + Hash> Weights<K> {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn get(&self, key: K) -> usize {
        self.entries.get(&key).map_or(0, |entry| entry.weight)
    }

    /// A key of the heaviest class: no other weighs twice as much.
    pub(crate) fn heaviest(&self) -> Option<K> {
        self.classes.last()?.keys.last().copied()
    }

    /// The heaviest of at most `looks` keys of the heaviest class: of all keys, if that class has no more.
    pub(crate) fn heaviest_of(&self, looks: usize) -> Option<K> {
        let keys = self.classes.last()?.keys.iter().rev().take(looks);
        keys.copied().max_by_key(|key| self.get(*key))
    }

    /// Adds to the weight of a key.
    pub(crate) fn add(&mut self, key: K, weight: usize) {
        self.set(key, self.get(key) + weight);
    }

    /// Takes from the weight of a key.
    pub(crate) fn take(&mut self, key: K, weight: usize) {
        self.set(key, self.get(key).saturating_sub(weight));
    }

    /// Sets the weight of a key.
    pub(crate) fn set(&mut self, key: K, weight: usize) {
        let before = self.entries.get(&key).copied();
        let exponent = weight.checked_ilog2();
        match before {
            Some(entry) if entry.weight.checked_ilog2() == exponent => {
                self.entries.insert(key, Entry { weight, ..entry });
            }
            _ => {
                if let Some(entry) = before {
                    self.leave_class(entry);
                }
                let Some(exponent) = exponent else {
                    self.entries.remove(&key);
                    return;
                };
                let place = self.enter_class(exponent, key);
                self.entries.insert(key, Entry { weight, place });
            }
        }
    }

    fn enter_class(&mut self, exponent: u32, key: K) -> u32 {
        let at = self.classes.partition_point(|class| class.exponent < exponent);
        if self.classes.get(at).is_none_or(|class| class.exponent != exponent) {
            self.classes.insert(at, Class { exponent, keys: Vec::new() });
        }
        let keys = &mut self.classes[at].keys;
        keys.push(key);
        keys.len() as u32 - 1
    }

    fn leave_class(&mut self, entry: Entry) {
        let Some(exponent) = entry.weight.checked_ilog2() else { return };
        let at = self.classes.partition_point(|class| class.exponent < exponent);
        let keys = &mut self.classes[at].keys;
        keys.swap_remove(entry.place as usize);
        let moved = keys.get(entry.place as usize);
        if let Some(moved) = moved.and_then(|moved| self.entries.get_mut(moved)) {
            moved.place = entry.place;
        }
        if keys.is_empty() {
            self.classes.remove(at);
        } else if keys.capacity() > 4 * keys.len() {
            keys.shrink_to(2 * keys.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_heaviest_is_never_twice_as_light_as_another() {
        for seed in 0..50 {
            let mut chance = fastrand::Rng::with_seed(seed);
            let (mut weights, mut model) = (Weights::default(), BTreeMap::<u32, usize>::new());
            for _ in 0..500 {
                let (key, weight) = (chance.u32(..12), chance.usize(..5000) >> chance.u32(..12));
                let known = model.entry(key).or_default();
                if chance.bool() {
                    weights.add(key, weight);
                    *known += weight;
                } else {
                    weights.take(key, weight);
                    *known = known.saturating_sub(weight);
                }
                model.retain(|_, weight| *weight > 0);
                assert_eq!(weights.entries.len(), model.len(), "seed {seed}");
                assert!(model.iter().all(|(key, weight)| weights.get(*key) == *weight), "seed {seed}");
                let most = model.values().max().copied().unwrap_or_default();
                let found = weights.heaviest().map_or(0, |key| model[&key]);
                assert!(2 * found >= most && (found > 0) == (most > 0), "seed {seed}: {found} of {most}");
                assert_eq!(weights.heaviest_of(12).map_or(0, |key| model[&key]), most, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_crowd_that_has_gone_leaves_no_memory() {
        let mut weights = Weights::default();
        (0..10_000).for_each(|key| weights.add(key, 100));
        (1..10_000).for_each(|key| weights.take(key, 100));
        assert!(weights.entries.capacity() < 200 && weights.classes[0].keys.capacity() < 10);
        weights.take(0, 1000);
        assert!(weights.is_empty() && weights.heaviest().is_none());
    }
}
