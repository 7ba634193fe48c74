//! Who may come in, where, and say what: the seam at which an embedder decides.

use crate::id::{RoomName, UserId};

/// Who a connection is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user, or `None` for a guest, to whom the server gives a name (`guest-` and six characters).
    pub user: Option<UserId>,
    /// A name to show beside the id; at most 64 characters are kept.
    pub name: Option<String>,
}

/// Why a request was not let in, as a HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A status of the 400s.
    pub status: http::StatusCode,
    /// A sentence for the body.
    pub message: String,
}

/// Decides who may do what. Every method has the answer of an open server as its default.
///
/// The methods run on the loop: they must not block.
pub trait Policy {
    /// Admits the request for a WebSocket, and says whose connection it is.
    ///
    /// # Errors
    /// Why it is refused.
    fn admit(&mut self, request: &http::Request<()>) -> Result<Identity, Refusal> {
        open_identity(request)
    }

    /// Whether a user may join a room; also one that was [taken out](crate::Server::kick) of it.
    ///
    /// # Errors
    /// The sentence of the `forbidden` error.
    fn allow_join(&mut self, user: &UserId, room: &RoomName) -> Result<(), String> {
        let _ = (user, room);
        Ok(())
    }

    /// Whether a user may say something in a room that it has joined.
    ///
    /// # Errors
    /// The sentence of the `forbidden` error.
    fn allow_message(&mut self, user: &UserId, room: &RoomName, text: &str, data: Option<&str>) -> Result<(), String> {
        let _ = (user, room, text, data);
        Ok(())
    }
}

/// Everybody is who they say they are, and may do everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenPolicy;

impl Policy for OpenPolicy {}

/// The identity that a request asks for with `?userId=`, a guest's without.
///
/// # Errors
/// 400 if the id asked for is not a valid name.
pub fn open_identity(request: &http::Request<()>) -> Result<Identity, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("userId="));
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else {
        return Ok(Identity::default());
    };
    let bad = |message: String| Refusal { status: http::StatusCode::BAD_REQUEST, message };
    let decoded =
        percent_encoding::percent_decode_str(asked).decode_utf8().map_err(|_| bad("userId is not UTF-8".to_owned()))?;
    let user = UserId::new(&decoded).map_err(|error| bad(format!("userId: {error}")))?;
    Ok(Identity { user: Some(user), name: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_asked_for_is_decoded_and_checked() {
        let identity = |uri: &str| open_identity(&http::Request::get(uri).body(()).unwrap());
        assert_eq!(identity("/ws").unwrap().user, None);
        assert_eq!(identity("/ws?userId=").unwrap().user, None);
        assert_eq!(identity("/ws?a=b&userId=alice").unwrap().user.unwrap().as_str(), "alice");
        assert_eq!(identity("/ws?userId=Zo%C3%AB").unwrap().user.unwrap().as_str(), "Zoë");
        assert!(identity("/ws?userId=a%20b").unwrap_err().message.contains("' '"));
        assert!(identity("/ws?userId=%ff").unwrap_err().message.contains("UTF-8"));
    }
}
