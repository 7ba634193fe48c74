//! What all lists have: how many entries are wanted.

use crate::hub::Refused;
use crate::protocol::ErrorCode;

/// How many a list has at most, and if the request does not say.
const LIMIT_MAX: usize = 1000;
const LIMIT_USUAL: usize = 100;

/// How many entries a list is to have.
pub(super) fn limit_of(limit: Option<usize>) -> Result<usize, Refused> {
    let limit = limit.unwrap_or(LIMIT_USUAL);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err((ErrorCode::BadMessage, format!("limit is {limit}; 1 to {LIMIT_MAX} are allowed")))
}
