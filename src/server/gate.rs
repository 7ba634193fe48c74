//! Admission by bans: they come before the authenticator, by address, and after it, by user.

use http::StatusCode;

use super::authenticator::{Authenticator, Identity, Refusal};
use crate::restrictions::{PeerAddress, Restrictions, Term};
use crate::time::Now;

/// The parts of the server that decide who is let in.
pub(super) struct Gate<'a> {
    pub(super) authenticator: &'a mut dyn Authenticator,
    pub(super) restrictions: &'a Restrictions,
}

/// Whether an address may connect at all.
///
/// # Errors
/// 503 as long as it is not known who is banned; 403 if the address is.
pub(super) fn check_address(
    restrictions: &Restrictions,
    now: Now,
    address: Option<PeerAddress>,
) -> Result<(), Refusal> {
    if !restrictions.are_loaded() {
        let message = "the server does not know yet who is banned; try again later";
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    refuse(address.and_then(|address| restrictions.ban_of_address(now.unix_ms, address)))
}

/// Whether a user may connect.
///
/// # Errors
/// 403 if the user is banned.
pub(super) fn check_user(restrictions: &Restrictions, now: Now, identity: &Identity) -> Result<(), Refusal> {
    refuse(identity.user.as_ref().and_then(|user| restrictions.ban_of_user(now.unix_ms, user)))
}

fn refuse(ban: Option<&Term>) -> Result<(), Refusal> {
    let Some(Term { reason, .. }) = ban else { return Ok(()) };
    let message = reason.as_ref().map_or_else(|| "banned".to_owned(), |reason| format!("banned: {reason}"));
    Err(Refusal::new(StatusCode::FORBIDDEN, message))
}
