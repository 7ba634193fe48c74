//! A slab in blocks, so that none of what it holds moves when it grows.

use std::ops::{Index, IndexMut};

use slab::Slab;

/// Entries of a block.
const BLOCK: usize = 1024;

/// Things under numbers that are given out again, as in a [`Slab`]. That moves all that it holds whenever it doubles, which
/// takes tens of milliseconds with a million things. Here only the first block does.
///
/// An empty block gives its memory back.
#[derive(Debug)]
pub(crate) struct BlockSlab<T> {
    blocks: Vec<Slab<T>>,
    /// Blocks with space, each once; the last one is filled first.
    with_space: Vec<u32>,
    len: usize,
}

impl<T> Default for BlockSlab<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), with_space: Vec::new(), len: 0 }
    }
}

impl<T> BlockSlab<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes something in, under the number that it gives back.
    pub(crate) fn insert(&mut self, entry: T) -> u32 {
        let block = match self.with_space.last() {
            Some(block) => *block as usize,
            None => self.add_block(),
        };
        let entries = &mut self.blocks[block];
        if block > 0 && entries.capacity() == 0 {
            *entries = Slab::with_capacity(BLOCK);
        }
        let at = entries.insert(entry);
        if entries.len() == BLOCK {
            self.with_space.pop();
        }
        self.len += 1;
        (block * BLOCK + at) as u32
    }

    fn add_block(&mut self) -> usize {
        self.blocks.push(Slab::new());
        let block = self.blocks.len() - 1;
        self.with_space.push(block as u32);
        block
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let (block, at) = place(number);
        self.blocks.get(block)?.get(at)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (block, at) = place(number);
        self.blocks.get_mut(block)?.get_mut(at)
    }

    /// The first number that is not less than this one and has something. Empty blocks are passed over at once.
    pub(crate) fn next_from(&self, number: u32) -> Option<u32> {
        let (first, mut at) = place(number);
        for (block, entries) in self.blocks.iter().enumerate().skip(first) {
            if !entries.is_empty()
                && let Some(at) = (at..BLOCK).find(|at| entries.contains(*at))
            {
                return Some((block * BLOCK + at) as u32);
            }
            at = 0;
        }
        None
    }

    /// Takes something out, if it is there.
    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        let (block, at) = place(number);
        let entries = self.blocks.get_mut(block)?;
        let was_full = entries.len() == BLOCK;
        let entry = entries.try_remove(at)?;
        self.len -= 1;
        if was_full {
            self.with_space.push(block as u32);
        }
        if entries.is_empty() && block > 0 {
            *entries = Slab::new();
        }
        Some(entry)
    }
}

/// The block of a number, and its place there.
fn place(number: u32) -> (usize, usize) {
    (number as usize / BLOCK, number as usize % BLOCK)
}

/// Panics if nothing has the number.
impl<T> Index<u32> for BlockSlab<T> {
    type Output = T;

    #[inline]
    fn index(&self, number: u32) -> &T {
        let (block, at) = place(number);
        &self.blocks[block][at]
    }
}

impl<T> IndexMut<u32> for BlockSlab<T> {
    #[inline]
    fn index_mut(&mut self, number: u32) -> &mut T {
        let (block, at) = place(number);
        &mut self.blocks[block][at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_it_was_given_in_any_order() {
        let mut chance = fastrand::Rng::with_seed(3);
        let (mut slab, mut held) = (BlockSlab::default(), Vec::new());
        for round in 0..40_000_u32 {
            if chance.u32(..40_000) > round {
                let number = slab.insert(round);
                assert!(held.iter().all(|(other, _)| *other != number) || held.len() > 100);
                held.push((number, round));
            } else if !held.is_empty() {
                let (number, entry) = held.swap_remove(chance.usize(..held.len()));
                assert_eq!((slab.remove(number), slab.get(number)), (Some(entry), None));
                assert_eq!(slab.remove(number), None);
            }
            assert_eq!(slab.len(), held.len());
        }
        for (number, entry) in held {
            assert_eq!((slab[number], slab.get_mut(number)), (entry, Some(&mut { entry })));
        }
    }

    #[test]
    fn numbers_are_given_out_again_and_memory_is_given_back() {
        let mut slab = BlockSlab::default();
        let capacity = |slab: &BlockSlab<u32>| slab.blocks.iter().map(Slab::capacity).sum::<usize>();
        for _ in 0..2 {
            let numbers: Vec<_> = (0..10_000).map(|entry| slab.insert(entry)).collect();
            assert!(numbers.iter().all(|number| *number < 10_240));
            assert!((10_000..=10_240).contains(&capacity(&slab)));
            numbers.into_iter().for_each(|number| assert!(slab.remove(number).is_some()));
            assert_eq!((slab.len(), capacity(&slab)), (0, BLOCK));
        }
    }
}
