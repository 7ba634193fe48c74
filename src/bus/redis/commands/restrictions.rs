//! Reads of the restrictions, and the answers to them.

use bytes::Bytes;

use crate::bus::redis::connection::{RunId, Value};

/// How many restrictions a read returns, about.
pub(super) const READ_MAX: u32 = 128;

/// How many that have expired a read removes.
pub(super) const PURGE_MAX: u32 = 500;

/// The answer of a script that found as many restrictions as are allowed.
const FULL: &[u8] = b"full";

/// A read of a part of all restrictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RestrictionsRead {
    /// Where the part begins: 0, or what the answer before it said. With `None` nothing is read, and what has expired is removed.
    pub(crate) cursor: Option<u64>,
}

/// A part of all restrictions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RestrictionsSlice {
    /// The run of Redis that the cursor belongs to.
    pub(crate) run_id: RunId,
    /// Whether more may have expired than were removed.
    pub(crate) has_more_expired: bool,
    /// Where the next part begins; 0 at the end.
    pub(crate) cursor: u64,
    /// What was kept with each.
    pub(crate) bodies: Vec<Bytes>,
}

pub(super) fn read_restrictions(run_id: RunId, value: Value<'_>) -> Option<RestrictionsSlice> {
    let mut items = value.items()?;
    let has_more_expired = items.next()?.number()? == 1;
    let cursor = items.next()?.number()?;
    let bodies = items.map(|item| item.bytes().map(Bytes::copy_from_slice)).collect::<Option<_>>()?;
    Some(RestrictionsSlice { run_id, has_more_expired, cursor, bodies })
}

pub(super) fn is_full(value: &Value<'_>) -> bool {
    value.bytes() == Some(FULL)
}
