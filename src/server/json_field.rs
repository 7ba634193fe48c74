//! Fields of JSON objects that say who somebody is.

use serde::{Deserialize, Deserializer};

/// Reads a field that may be missing, but not `null`, because that could stand for everything.
pub(super) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
