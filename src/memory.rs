//! How long lists begin.

/// How many bytes a list begins with that may become very long.
///
/// So large an allocation is a mapping of its own: what is not used of it is not resident, and it grows where it is. A
/// list that began small would leave a hole in the heap each time it doubles, as large as all its holes before.
pub(crate) const LONG_LIST_BYTES: usize = 256 * 1024;

/// The capacity to begin with of a list of `T` that may become very long.
pub(crate) const fn long_list<T>() -> usize {
    LONG_LIST_BYTES / size_of::<T>()
}
