//! New tokens in place of old ones: the hub passes them on, and evaluates memberships again by what they grant.

use crate::id::ConnectionId;
use crate::protocol::{ErrorCode, RefreshRequest, ServerMessage};
use crate::rights::Right;
use crate::time::Now;

use super::Hub;
use super::credentials::{RefreshProblem, RefreshedIdentity, TokenRefresh};
use super::error_reply::{ErrorReply, Refused};

impl Hub {
    pub(super) fn handle_refresh(
        &mut self,
        now: Now,
        id: ConnectionId,
        refresh: &RefreshRequest<'_>,
    ) -> Result<(), Refused> {
        let Some(connection) = self.connections.get(id) else { return Ok(()) };
        let (user, owner) = (self.users.id(connection.user).clone(), connection.owner);
        let begun = self
            .change_credential((id, owner), |credentials, _| credentials.begin_refresh(now, id, refresh.id.as_deref()));
        match begun {
            Ok(()) => {
                self.refresh = Some(TokenRefresh { connection: id, user, token: refresh.token.to_string() });
                Ok(())
            }
            Err(RefreshProblem::NoToken) => {
                let message = "the connection has no token that could be replaced";
                Err((ErrorCode::InvalidToken, message.to_owned()))
            }
            Err(RefreshProblem::TooSoon { wait_millis }) => {
                let message = "more than one refresh in 10 s, or one while another is under way";
                let reply = ErrorReply::new(ErrorCode::RateLimited, message).about(None, refresh.id.as_deref());
                let reply = ErrorReply { retry_after_ms: Some(wait_millis), ..reply };
                self.out.error(&mut self.connections, id, reply);
                Ok(())
            }
        }
    }

    /// The token that the last text has brought, if it has.
    pub fn poll_refresh(&mut self) -> Option<TokenRefresh> {
        self.refresh.take()
    }

    /// Tells a connection what became of its new token. It replaces the last one, or the last one goes on.
    pub fn finish_refresh(&mut self, now: Now, id: ConnectionId, outcome: Result<RefreshedIdentity, Refused>) {
        let Some(connection) = self.connections.get(id) else { return };
        let (user, owner) = (connection.user, connection.owner);
        let ended = self.change_credential((id, owner), |credentials, _| credentials.end_refresh(id));
        let Some(message_id) = ended else { return };
        let outcome = outcome.and_then(|identity| match &identity.user {
            Some(named) if named == self.users.id(user) => Ok(identity),
            _ => Err((ErrorCode::InvalidToken, "the token is of another user".to_owned())),
        });
        let RefreshedIdentity { name, validity, .. } = match outcome {
            Ok(identity) => identity,
            Err((code, message)) => {
                let reply = ErrorReply::new(code, &message).about(None, message_id.as_deref());
                return self.out.error(&mut self.connections, id, reply);
            }
        };
        self.users.rename(user, name.as_deref().and_then(super::shown_name).as_deref(), owner);
        self.settle_names();
        let refreshed = ServerMessage::Refreshed { expires_at: validity.expires_at, id: message_id.as_deref() };
        self.change_credential((id, owner), |credentials, timers| credentials.replace(now, id, validity, timers));
        self.out.say(&mut self.connections, id, &refreshed);
        self.evaluate_memberships(now, id);
    }

    /// Gives each membership of a connection the rights that it has by now, or ends it.
    fn evaluate_memberships(&mut self, now: Now, id: ConnectionId) {
        // A room ends with its last member, so the index of another room of the connection stays good.
        for index in self.connections.rooms_of(id) {
            let name = self.rooms[index].name.clone();
            let rights = self.rights_in(id, index);
            if rights.has(Right::Join) {
                self.connections.set_rights(id, index, rights);
            } else {
                self.take_out(now, id, &name, "the new token does not allow this room");
            }
        }
    }
}
