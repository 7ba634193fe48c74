//! Where a connection is in its life, and what it keeps meanwhile.

use http::header::CONNECTION;
use http::{Request, Version};

use crate::frame::FrameTracker;
use crate::timer_wheel::Tick;

use super::handler::{AdmissionTicket, BodyRules};
use super::http::Handshake;
use super::parked::ParkedSource;
use super::reader::Reader;

/// Where a connection is in its life.
#[derive(Debug)]
pub(super) enum Phase<R> {
    /// The header of a proxy is being read, which tells where the connection comes from; this much of it has come.
    #[expect(clippy::box_collection, reason = "as for `Head`")]
    ProxyHeader(Option<Box<Vec<u8>>>),
    /// TLS is being agreed on. What has come of it is with its session.
    TlsHandshake,
    /// The HTTP head is being read; this much of it has come.
    #[expect(clippy::box_collection, reason = "rarely there; sixteen bytes less in every connection")]
    Head(Option<Box<Vec<u8>>>),
    /// The body of a request is being read.
    Body(Box<PartialRequest<R>>),
    /// A request is complete, and its answer is still to come. Nothing is read meanwhile.
    AwaitingResponse(Box<PendingResponse>),
    /// A handshake is complete, and the handler has yet to decide about it. Nothing is read meanwhile.
    AwaitingAdmission(Box<ParkedHandshake>),
    /// A request was answered, another may follow. What has come of that is read when the answer is written.
    #[expect(clippy::box_collection, reason = "as above")]
    KeepAlive(Option<Box<Vec<u8>>>),
    /// It is a WebSocket. It has a parser only in the middle of something. It was pinged in the tick `pinged`, if that is
    /// not answered yet.
    Open { reader: Option<Box<Reader>>, pinged: Option<Tick> },
    /// It ends when its write buffer is empty.
    Flushing,
    /// It ends when its write buffer is empty and the peer has sent Close, or hung up.
    AwaitingClose(Box<FrameTracker>),
    /// It ends when its write buffer is empty and the peer, told that nothing more comes, has hung up. To close earlier
    /// would reset the connection if the peer has sent something unread, and the answer could be lost (RFC 9112 section
    /// 9.6).
    Draining,
    /// It has ended, and is freed at the end of a turn.
    Closed,
}

/// A request whose body is not complete.
#[derive(Debug)]
pub(super) struct PartialRequest<R> {
    pub(super) rules: BodyRules,
    pub(super) route: R,
    pub(super) bytes: Vec<u8>,
    pub(super) bytes_wanted: usize,
    pub(super) after: After,
}

/// A request that is complete and waits for its answer.
#[derive(Debug)]
pub(super) struct PendingResponse {
    pub(super) rules: BodyRules,
    /// What came behind it in the same read.
    pub(super) rest: Vec<u8>,
    pub(super) after: After,
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    TheEnd,
    AnotherRequest,
}

impl After {
    /// What a client wants (RFC 9112 section 9.3). HTTP/1.0 would have to ask for more with a field of its own; nobody does.
    pub(super) fn wanted(request: &Request<()>) -> Self {
        let fields = request.headers().get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let closes = fields.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("close"));
        if request.version() == Version::HTTP_11 && !closes { Self::AnotherRequest } else { Self::TheEnd }
    }
}

/// What a connection keeps while the decision about it is still to come.
#[derive(Debug)]
pub(super) struct ParkedHandshake {
    pub(super) ticket: AdmissionTicket,
    pub(super) handshake: Handshake,
    /// The length of its head, which the handler may have kept.
    pub(super) head_bytes: usize,
    /// What came behind it in the same read.
    pub(super) rest: Vec<u8>,
    pub(super) source: ParkedSource,
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_client_says_whether_it_stays() {
        let check = |version, fields: &[(&'static str, &'static str)], expected| {
            let mut request = Request::new(());
            *request.version_mut() = version;
            for (name, value) in fields {
                request.headers_mut().append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(After::wanted(&request), expected, "{fields:?}");
        };
        check(Version::HTTP_11, &[], After::AnotherRequest);
        check(Version::HTTP_11, &[("connection", "keep-alive")], After::AnotherRequest);
        check(Version::HTTP_11, &[("connection", "TE, Close")], After::TheEnd);
        check(Version::HTTP_11, &[("connection", "te"), ("connection", "close")], After::TheEnd);
        check(Version::HTTP_10, &[], After::TheEnd);
        check(Version::HTTP_10, &[("connection", "keep-alive")], After::TheEnd);
    }
}
