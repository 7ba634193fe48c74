//! How long lists begin.

/// How many bytes a list begins with that may become very long.
///
/// So large an allocation is a mapping of its own: what is not used of it is not resident, and it grows where it is. A
/// list that began small would leave a hole in the heap each time it doubles, as large as all its holes before.
pub(crate) const LONG_LIST_BYTES: usize = 256 * 1024;

/// A list has space for so many entries from the beginning, if it may hold so many; it doubles if it needs more.
const RESERVED_MAX: usize = 1 << 20;

/// The capacity to begin with of a list of `T` that holds `max` at most. It seldom doubles, which would move all that it holds at
/// once.
pub(crate) fn long_list<T>(max: usize) -> usize {
    max.min(RESERVED_MAX).max(LONG_LIST_BYTES / size_of::<T>())
}
