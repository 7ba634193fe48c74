//! Admission by bans: they come before the authenticator, by address, and after it, by user.

use http::StatusCode;

use super::authenticator::{Authenticator, Identity, Refusal};
use crate::restrictions::{PeerAddress, Restrictions, Term};
use crate::time::Now;

/// The parts of the server that decide who is let in.
pub(super) struct Gate<'a> {
    pub(super) authenticator: &'a mut dyn Authenticator,
    pub(super) restrictions: &'a Restrictions,
    /// Whether a ban has kept somebody out.
    pub(super) has_met_ban: bool,
}

impl Gate<'_> {
    /// As [`check_address`].
    pub(super) fn check_address(&mut self, now: Now, address: Option<PeerAddress>) -> Result<(), Refusal> {
        self.note(check_address(self.restrictions, now, address))
    }

    /// As [`check_user`].
    pub(super) fn check_user(&mut self, now: Now, identity: &Identity) -> Result<(), Refusal> {
        self.note(check_user(self.restrictions, now, identity))
    }

    fn note(&mut self, checked: Result<(), Refusal>) -> Result<(), Refusal> {
        self.has_met_ban |= checked.as_ref().is_err_and(is_ban);
        checked
    }
}

/// Whether a check of this module was not passed because of a ban.
pub(super) fn is_ban(refusal: &Refusal) -> bool {
    refusal.status == StatusCode::FORBIDDEN
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
