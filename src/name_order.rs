//! Keys in the order of the names that they have, without a second copy of the names.

/// The most keys of a block. To take one in moves as many at most, and the list of blocks if a block is split.
const BLOCK_MAX: usize = 512;

/// Blocks with fewer keys are joined with a neighbour.
const BLOCK_MIN: usize = BLOCK_MAX / 4;

/// The order of things that lie in a slab, by their names, each of which is there once.
///
/// The names stay where the things are: the caller says how to get from a key to its name. So an entry costs four bytes and the
/// spare room of its block, six together. To find a place takes a look at as many names as a binary search does.
#[derive(Debug, Default)]
pub(crate) struct NameOrder {
    /// None of them is empty.
    blocks: Vec<Vec<u32>>,
}

/// Where a name stands, or would.
struct Position {
    block: usize,
    at: Result<usize, usize>,
}

impl NameOrder {
    /// Takes in a name that is not there yet. `name_of` is asked for the names that are.
    pub(crate) fn insert<'a>(&mut self, name: &str, key: u32, name_of: impl Fn(u32) -> &'a str) {
        let Position { block, at } = self.position(name, name_of);
        let Some(keys) = self.blocks.get_mut(block) else { return self.blocks.push(vec![key]) };
        keys.insert(at.unwrap_or_else(|at| at), key);
        if keys.len() > BLOCK_MAX {
            let rest = keys.split_off(BLOCK_MAX / 2);
            keys.shrink_to_fit();
            self.blocks.insert(block + 1, rest);
        }
    }

    /// Forgets a name, which has to be found under its key still.
    pub(crate) fn remove<'a>(&mut self, name: &str, name_of: impl Fn(u32) -> &'a str) {
        let Position { block, at: Ok(at) } = self.position(name, name_of) else { return };
        let Some(keys) = self.blocks.get_mut(block) else { return };
        keys.remove(at);
        if keys.is_empty() {
            self.blocks.remove(block);
        } else if keys.len() < BLOCK_MIN {
            keys.shrink_to(BLOCK_MIN);
            self.join_with_neighbour(block);
        }
        if self.blocks.len() < self.blocks.capacity() / 4 {
            self.blocks.shrink_to(2 * self.blocks.len());
        }
    }

    /// Makes one block of two, if it is not nearly full then.
    fn join_with_neighbour(&mut self, block: usize) {
        // The one behind it, or before it if it is the last.
        let first = if block + 1 < self.blocks.len() { block } else { block.saturating_sub(1) };
        if let [before, behind, ..] = &mut self.blocks[first..]
            && before.len() + behind.len() <= BLOCK_MAX / 2
        {
            before.append(behind);
            self.blocks.remove(first + 1);
        }
    }

    /// The keys from a name on, whether it is there or not.
    pub(crate) fn starting_at<'a>(&self, name: &str, name_of: impl Fn(u32) -> &'a str) -> impl Iterator<Item = u32> {
        let Position { block, at } = self.position(name, name_of);
        let skipped = at.unwrap_or_else(|at| at);
        self.blocks.iter().skip(block).flatten().skip(skipped).copied()
    }

    fn position<'a>(&self, name: &str, name_of: impl Fn(u32) -> &'a str) -> Position {
        let begins_before = |keys: &Vec<u32>| keys.first().is_some_and(|key| name_of(*key) <= name);
        let block = self.blocks.partition_point(begins_before).saturating_sub(1);
        let keys = self.blocks.get(block).map_or(&[][..], Vec::as_slice);
        Position { block, at: keys.binary_search_by(|key| name_of(*key).cmp(name)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn capacity(order: &NameOrder) -> usize {
        order.blocks.capacity() + order.blocks.iter().map(Vec::capacity).sum::<usize>()
    }

    #[test]
    fn it_has_the_order_of_a_sorted_map() {
        let mut chance = fastrand::Rng::with_seed(11);
        for keys in [3, 900, 6000_u32] {
            let names: Vec<String> = (0..keys).map(|key| format!("n{}", key.wrapping_mul(0x9e37_79b9))).collect();
            let name_of = |key: u32| names[key as usize].as_str();
            let (mut order, mut model) = (NameOrder::default(), BTreeMap::new());
            for round in 0..40_000 {
                // It grows for a while, then it shrinks.
                let (key, grows) = (chance.u32(..keys), chance.u32(..40_000) > round);
                if grows && model.insert(name_of(key), key).is_none() {
                    order.insert(name_of(key), key, name_of);
                } else if !grows && model.remove(name_of(key)).is_some() {
                    order.remove(name_of(key), name_of);
                }
                assert!(order.blocks.iter().all(|block| (1..=BLOCK_MAX).contains(&block.len())));
                if round % 100 == 0 {
                    let from = name_of(chance.u32(..keys));
                    assert!(order.starting_at(from, name_of).eq(model.range(from..).map(|(_, key)| *key)));
                }
            }
            assert!(order.starting_at("", name_of).eq(model.values().copied()));
        }
    }

    #[test]
    fn a_place_is_found_by_a_look_at_few_names() {
        let names: Vec<String> = (0..100_000).map(|key| format!("{key:06}")).collect();
        let looks = std::cell::Cell::new(0);
        let name_of = |key: u32| {
            looks.set(looks.get() + 1);
            names[key as usize].as_str()
        };
        let mut order = NameOrder::default();
        for key in 0..100_000 {
            looks.set(0);
            order.insert(&names[key as usize], key, name_of);
            assert!(looks.get() <= 22, "{} looks to insert", looks.get());
        }
        looks.set(0);
        assert!(order.starting_at("050000x", name_of).take(1000).eq(50_001..51_001));
        assert!(looks.get() <= 22, "{} looks to find", looks.get());
    }

    #[test]
    fn many_names_take_few_bytes_and_those_that_have_gone_take_none() {
        let names: Vec<String> = (0..100_000).map(|key| format!("{key:06}")).collect();
        let name_of = |key: u32| names[key as usize].as_str();
        let mut order = NameOrder::default();
        // In the order of names, which leaves half of each block empty, and from both ends of it.
        for key in (0..50_000).flat_map(|key| [key, 99_999 - key]) {
            order.insert(name_of(key), key, name_of);
        }
        assert!(order.starting_at("", name_of).eq(0..100_000));
        let bytes = order.blocks.iter().map(|block| 24 + 4 * block.capacity()).sum::<usize>();
        assert!(bytes < 700_000, "{bytes} bytes");
        (0..100_000).filter(|key| key % 1000 != 0).for_each(|key| order.remove(name_of(key), name_of));
        assert!(order.starting_at("", name_of).eq((0..100_000).step_by(1000)));
        assert!(order.blocks.len() < 4 && capacity(&order) < 2500, "{order:?}");
        (0..100_000).step_by(1000).for_each(|key| order.remove(name_of(key), name_of));
        assert_eq!(capacity(&order), 0);
    }
}
