//! Requests with a body: how long it is, reading it, answers that come later, and the next request on the connection.

use http::header::{EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, Request, StatusCode, Version};

use crate::id::{ConnectionId, Slot};

use super::Net;
use super::handler::{BodyDecision, BodyRules, Handler};
use super::http::{Response, content_length};
use super::phase::{After, PartialRequest, PendingResponse, Phase};

/// What a client that waits for permission gets (RFC 9110 section 10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How many bytes of body a request has that is allowed `bytes_max` of them.
///
/// Chunks are not read: a back-end knows what it publishes before it does. Any doubt about its end closes the connection.
///
/// # Errors
/// Status and sentence of the refusal.
fn body_bytes(headers: &HeaderMap, bytes_max: usize) -> Result<usize, (StatusCode, String)> {
    let needed = |found: &str| (StatusCode::LENGTH_REQUIRED, format!("{found}; a Content-Length is needed"));
    let length = match content_length(headers).map_err(|reason| (StatusCode::BAD_REQUEST, reason))? {
        Some(length) => length,
        None if headers.contains_key(TRANSFER_ENCODING) => return Err(needed("Transfer-Encoding")),
        None => return Err(needed("no Content-Length")),
    };
    // Digits that no number holds are too many bytes as well.
    length.parse().ok().filter(|bytes| *bytes <= bytes_max).ok_or_else(|| {
        let reason = format!("body of {length} bytes exceeds {bytes_max}");
        (StatusCode::PAYLOAD_TOO_LARGE, reason)
    })
}

fn expects_continue(request: &Request<()>) -> bool {
    let expected =
        request.headers().get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    expected && request.version() == Version::HTTP_11
}

impl<R> Net<R> {
    /// A head has come whose body is wanted; `bytes` is what came behind it.
    pub(super) fn begin_body(
        &mut self,
        slot: Slot,
        (request, rules, route): (&Request<()>, BodyRules, R),
        bytes: &[u8],
        handler: &mut impl Handler<Route = R>,
    ) {
        let bytes_wanted = match body_bytes(request.headers(), rules.bytes_max) {
            Ok(wanted) => wanted,
            Err((status, reason)) => return self.answer(slot, &(rules.refuse)(status, &reason), handler),
        };
        if expects_continue(request) && bytes.len() < bytes_wanted {
            self.append_indivisible(slot, CONTINUE);
        }
        // Of the head only this is kept.
        let after = After::wanted(request);
        let partial = PartialRequest { rules, route, bytes: Vec::new(), bytes_wanted, after };
        // Its time begins anew: the head took what it took.
        let connection = &mut self.connections[slot.index()];
        connection.since = self.timers.tick;
        connection.phase = Phase::Body(Box::new(partial));
        self.take_body(slot, bytes, handler);
    }

    /// More of a body has come.
    pub(super) fn take_body(&mut self, slot: Slot, bytes: &[u8], handler: &mut impl Handler<Route = R>) {
        self.work += 1;
        let connection = &mut self.connections[slot.index()];
        let Phase::Body(body) = &mut connection.phase else { return };
        let missing = body.bytes_wanted - body.bytes.len();
        if bytes.len() < missing {
            return body.bytes.extend_from_slice(bytes);
        }
        let id = connection.id(slot);
        let Phase::Body(body) = std::mem::replace(&mut connection.phase, Phase::Draining) else { return };
        let PartialRequest { rules, route, bytes: mut kept, after, .. } = *body;
        let (last, rest) = bytes.split_at(missing);
        // Nearly always the whole body comes at once, and nothing has to be kept.
        let whole = if kept.is_empty() {
            last
        } else {
            kept.extend_from_slice(last);
            &kept
        };
        let decision = handler.on_body(id, route, whole);
        let rest = if after == After::AnotherRequest { rest.to_vec() } else { Vec::new() };
        let pending = PendingResponse { rules, rest, after };
        match decision {
            BodyDecision::Respond(response) => self.reply(slot, &response, pending, handler),
            BodyDecision::Later => {
                let connection = &mut self.connections[slot.index()];
                connection.phase = Phase::AwaitingResponse(Box::new(pending));
                connection.since = self.timers.tick;
                self.schedule_by(slot, self.timers.tick.after(self.timing.answer_timeout));
            }
        }
    }

    /// Answers a request whose answer was to come [later](BodyDecision::Later); an id that is out of date or waits for nothing is
    /// ignored.
    pub fn respond(&mut self, id: ConnectionId, response: &Response, handler: &mut impl Handler<Route = R>) {
        if !self.find(id).is_some_and(|connection| matches!(connection.phase, Phase::AwaitingResponse(_))) {
            return;
        }
        let phase = &mut self.connections[id.slot.index()].phase;
        if let Phase::AwaitingResponse(pending) = std::mem::replace(phase, Phase::Draining) {
            self.reply(id.slot, response, *pending, handler);
        }
    }

    fn reply(
        &mut self,
        slot: Slot,
        response: &Response,
        pending: PendingResponse,
        handler: &mut impl Handler<Route = R>,
    ) {
        if pending.after == After::TheEnd || self.is_draining() {
            return self.answer(slot, response, handler);
        }
        self.note_answer(slot, response);
        let rest = pending.rest;
        let connection = &mut self.connections[slot.index()];
        connection.phase = Phase::KeepAlive((!rest.is_empty()).then(|| Box::new(rest)));
        connection.since = self.timers.tick;
        // The next request is read when this is written: a peer that takes no answers is asked for no further questions.
        response.write_kept(self.write_buffer(slot));
        self.schedule_by(slot, self.timers.tick.after(self.timing.handshake_timeout));
    }

    /// Goes on with a request that had come behind another one; says whether there is one.
    pub(super) fn take_rest(&mut self, slot: Slot, handler: &mut impl Handler<Route = R>) -> bool {
        let Phase::KeepAlive(rest) = &mut self.connections[slot.index()].phase else { return false };
        let Some(rest) = rest.take() else { return false };
        self.take_bytes(slot, &rest, handler);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_length_of_a_body_is_one_number_or_none() {
        let check = |fields: &[(&'static str, &'static str)], expected: Result<usize, (u16, &str)>| {
            let found = body_bytes(&headers(fields), 100);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{fields:?}"),
                (Err((status, reason)), Err((expected, needle))) => {
                    assert_eq!(status.as_u16(), expected, "{fields:?}: {reason}");
                    assert!(reason.contains(needle), "{fields:?}: {reason}");
                }
                (found, _) => panic!("{fields:?}: {found:?}"),
            }
        };
        check(&[("content-length", "0")], Ok(0));
        check(&[("content-length", "100")], Ok(100));
        check(&[("content-length", "7"), ("content-length", "7")], Ok(7));
        check(&[("content-length", "101")], Err((413, "body of 101 bytes exceeds 100")));
        check(&[("content-length", "99999999999999999999999")], Err((413, "exceeds 100")));
        check(&[], Err((411, "no Content-Length")));
        check(&[("transfer-encoding", "chunked")], Err((411, "Transfer-Encoding")));
        check(&[("transfer-encoding", "chunked"), ("content-length", "7")], Err((400, "beside")));
        for bad in ["", "-1", "+7", "7, 8", "0x7", "7 7", "seven"] {
            check(&[("content-length", bad)], Err((400, bad)));
        }
        check(&[("content-length", "7"), ("content-length", "8")], Err((400, "7, 8")));
    }
}
