//! What all lists have: how many entries are wanted, and whether there are more.

use serde_json::Value;

use super::schema::{flag, number};
use super::whole_number::WholeNumber;
use crate::hub::Refused;
use crate::protocol::ErrorCode;

/// How many a list has at most, and if the request does not say.
const LIMIT_MAX: u64 = 1000;
const LIMIT_USUAL: u64 = 100;

/// How many entries a list is to have.
pub(super) fn limit_of(limit: Option<WholeNumber>) -> Result<usize, Refused> {
    let limit = limit.map_or(LIMIT_USUAL, u64::from);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit as usize);
    }
    Err((ErrorCode::BadMessage, format!("limit is {limit}; 1 to {LIMIT_MAX} are allowed")))
}

/// The schema of the limit.
pub(super) fn limit() -> Value {
    number(1, LIMIT_MAX, &format!("At most so many; {LIMIT_USUAL} if it is missing."))
}

/// The schema of what says that a page is not the last.
pub(super) fn more() -> Value {
    flag("Whether there is another page.")
}
