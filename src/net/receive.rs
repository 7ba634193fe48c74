//! From a socket to messages: one read a turn and connection, HTTP head first, then frames.

use http::{Method, Request, StatusCode};
use tungstenite::Message;

use crate::id::{ConnectionId, Slot};
use crate::protocol::CloseReason;

use super::connection::Flag;
use super::handler::{Handler, HeadDecision, Verdict};
use super::http::{self as head, Handshake, Head, Response};
use super::phase::{ParkedHandshake, PartialRequest, Phase};
use super::reader::{Found, Reader};
use super::write_buffer::WriteBuffer;
use super::{Net, Trouble, trouble};

/// How reading a connection's frames ended.
enum End {
    /// All input is used up.
    Input,
    /// The connection has had its share of the turn.
    Budget,
    Closed,
    Misbehaved(CloseReason),
    Refused(CloseReason),
}

impl<R> Net<R> {
    /// Reads connections that have something, up to the turn's budget.
    pub fn read(&mut self, handler: &mut impl Handler<Route = R>) {
        for _ in 0..self.limits.reads_per_turn {
            let Some(slot) = self.queues.ready.pop_front() else { break };
            if let Some(connection) = self.connections.get_mut(slot.index()) {
                connection.clear(Flag::Queued);
                self.read_one(slot, handler);
            }
        }
    }

    fn read_one(&mut self, slot: Slot, handler: &mut impl Handler<Route = R>) {
        let connection = &mut self.connections[slot.index()];
        // The one goes on when its write buffer is flushed, the other when it is answered.
        if connection.must_take_first(self.limits.output_bytes_max) || connection.is_waiting() {
            if connection.is_lost() {
                self.end(slot, handler);
            }
            return;
        }
        if self.take_rest(slot, handler) {
            return self.queue_if_readable(slot);
        }
        let connection = &mut self.connections[slot.index()];
        if let Phase::Open { reader: Some(reader), .. } = &mut connection.phase
            && reader.is_stopped()
        {
            let unread = reader.resume();
            self.read_frames(slot, &unread, handler);
            return self.queue_if_readable(slot);
        }
        // The buffer is lent to this connection for as long as its bytes are looked at.
        let mut buffer = std::mem::take(&mut self.buffers.input);
        match connection.transport.read(&mut buffer) {
            Ok(0) => self.handle_end(slot, handler),
            Ok(bytes) => {
                // A read shorter than the buffer has emptied the socket, unless an end of file or an error is waiting
                // behind it, for which no second edge comes.
                if bytes < buffer.len() && !connection.is(Flag::ReadClosed) {
                    connection.clear(Flag::Readable);
                }
                if connection.is_open() {
                    connection.since = self.timers.tick;
                }
                self.stats.received_bytes += bytes as u64;
                self.take_bytes(slot, &buffer[..bytes], handler);
                self.queue_if_readable(slot);
            }
            Err(error) => match trouble(&error) {
                Trouble::WouldBlock if connection.is(Flag::Broken) => self.end(slot, handler),
                Trouble::WouldBlock => connection.clear(Flag::Readable),
                Trouble::Interrupted => self.queue_read(slot),
                Trouble::Broken => self.end(slot, handler),
            },
        }
        self.buffers.input = buffer;
    }

    pub(super) fn queue_if_readable(&mut self, slot: Slot) {
        let connection = &self.connections[slot.index()];
        if connection.has_input() && !matches!(connection.phase, Phase::Closed) {
            self.queue_read(slot);
        }
    }

    pub(super) fn take_bytes(&mut self, slot: Slot, bytes: &[u8], handler: &mut impl Handler<Route = R>) {
        let connection = &mut self.connections[slot.index()];
        if let Phase::KeepAlive(_) = connection.phase {
            connection.phase = Phase::Head(None);
            connection.since = self.timers.tick;
        }
        match &mut connection.phase {
            Phase::Head(kept) => {
                let mut head = kept.take().unwrap_or_default();
                // Nearly always the whole head comes at once, and nothing has to be kept.
                if head.is_empty() && head::contains_end(bytes, 0) {
                    return self.read_head(slot, bytes, handler);
                }
                let searched = head.len();
                head.extend_from_slice(bytes);
                let is_complete = head::contains_end(&head, searched);
                if is_complete || head.len() >= self.limits.head_bytes_max {
                    return self.read_head(slot, &head, handler);
                }
                *kept = Some(head);
            }
            Phase::Open { reader, .. } => {
                reader.get_or_insert_with(|| self.buffers.lend_reader(&self.limits)).announce(bytes);
                self.read_frames(slot, bytes, handler);
            }
            Phase::AwaitingClose(tracker) => {
                tracker.advance(bytes);
                if tracker.closed() {
                    connection.phase = Phase::Flushing;
                    self.queue_flush(slot);
                }
            }
            Phase::Body(_) => self.take_body(slot, bytes, handler),
            Phase::AwaitingResponse(_) | Phase::AwaitingAdmission(_) | Phase::KeepAlive(_) => {}
            Phase::Flushing | Phase::Draining | Phase::Closed => {}
        }
    }

    /// The peer will send nothing more: what waits in its write buffer is still written.
    fn handle_end(&mut self, slot: Slot, handler: &mut impl Handler<Route = R>) {
        let connection = &mut self.connections[slot.index()];
        connection.clear(Flag::Readable);
        match connection.phase {
            Phase::Open { .. } => self.begin_closing(slot, Phase::Flushing, handler),
            // Flushing goes on by itself. To try again here would spin: refusing bytes asks for the event that led here.
            Phase::Closed => {}
            Phase::Flushing if connection.write_buffer.is_some() => {}
            _ if connection.write_buffer.is_some() => {
                connection.phase = Phase::Flushing;
                self.queue_flush(slot);
            }
            _ => self.end(slot, handler),
        }
    }

    fn read_head(&mut self, slot: Slot, bytes: &[u8], handler: &mut impl Handler<Route = R>) {
        let (mut request, used) = match head::parse_head(bytes, self.limits.head_bytes_max) {
            Head::Complete(request, used) => (request, used),
            Head::Bad(response) => return self.answer(slot, &response, handler),
            Head::Partial => {
                let reason = "request head is not complete where it ends";
                return self.answer(slot, &Response::text(StatusCode::BAD_REQUEST, reason), handler);
            }
        };
        let capacity = self.capacity();
        let connection = &mut self.connections[slot.index()];
        if let Some(address) = connection.transport.peer_address() {
            request.extensions_mut().insert(address);
        }
        let (id, rest) = (connection.id(slot), &bytes[used..]);
        let decision = handler.on_request(id, &request, capacity);
        match check_length(&request, decision, handler) {
            HeadDecision::Respond(response) if request.method() == Method::HEAD => {
                self.answer(slot, &response.without_body(), handler);
            }
            HeadDecision::Respond(response) => self.answer(slot, &response, handler),
            HeadDecision::ReadBody(rules, route) => {
                self.begin_body(slot, PartialRequest::new(request, rules, route), rest, handler);
            }
            HeadDecision::Later(handshake, ticket) => {
                self.park(slot, ParkedHandshake::new(ticket, handshake, rest), handler);
            }
            HeadDecision::Upgrade(handshake, admission) => {
                self.upgrade(slot, &handshake, admission, handler);
                // A client may send its first frames behind the head, without waiting for the answer.
                self.take_rest_of_head(slot, rest, handler);
            }
        }
    }

    /// Makes a WebSocket of a connection.
    pub(super) fn upgrade<H: Handler<Route = R>>(
        &mut self,
        slot: Slot,
        handshake: &Handshake,
        admission: H::Admission,
        handler: &mut H,
    ) {
        self.stats.open += 1;
        self.stats.upgraded += 1;
        let connection = &mut self.connections[slot.index()];
        connection.open(self.timers.tick);
        let id = connection.id(slot);
        self.append_bytes(slot, &handshake.to_bytes());
        // Mostly the entry for the head comes up early enough to look at the heartbeat, too.
        self.schedule_by(slot, self.timers.tick.after(self.timing.ping_interval));
        handler.on_open(id, admission);
    }

    /// Takes what came behind a head in the same read.
    pub(super) fn take_rest_of_head(&mut self, slot: Slot, rest: &[u8], handler: &mut impl Handler<Route = R>) {
        if !rest.is_empty() {
            self.take_bytes(slot, rest, handler);
        }
    }

    pub(super) fn note_answer(&mut self, slot: Slot, response: &Response) {
        self.stats.answered += 1;
        let id = self.connections[slot.index()].id(slot);
        log::debug!("connection {id}: answered {}", response.status());
    }

    /// Answers, and ends the connection.
    pub(super) fn answer(&mut self, slot: Slot, response: &Response, handler: &mut impl Handler<Route = R>) {
        self.note_answer(slot, response);
        self.append_bytes(slot, &response.to_last_bytes());
        self.begin_closing(slot, Phase::Draining, handler);
    }

    /// Reads frames with the parser that the connection has at the moment.
    fn read_frames(&mut self, slot: Slot, bytes: &[u8], handler: &mut impl Handler<Route = R>) {
        let connection = &mut self.connections[slot.index()];
        let Phase::Open { reader, .. } = &mut connection.phase else { return };
        let Some(mut reader) = reader.take() else { return };
        let id = connection.id(slot);
        let mut answers = connection.write_buffer.take().unwrap_or_else(|| self.buffers.lend_write_buffer());
        let mut left = self.limits.messages_per_read;
        let mut input = bytes;
        let end = loop {
            match reader.next(&mut input, &mut answers, &self.limits) {
                Found::NeedsInput => break End::Input,
                Found::Closed => break End::Closed,
                Found::Misbehaved(reason) => break End::Misbehaved(reason),
                Found::Message(message) => {
                    let verdict = dispatch(id, &message, &mut answers, handler);
                    if let Verdict::Close(reason) = verdict {
                        break End::Refused(reason);
                    }
                    left -= 1;
                    if left == 0 || answers.len() > self.limits.output_bytes_max / 2 {
                        break End::Budget;
                    }
                }
            }
        };
        self.put_buffer(slot, answers);
        match end {
            End::Input => self.put_reader(slot, reader),
            End::Budget => {
                reader.stop(input);
                self.connections[slot.index()].keep_reader(reader);
                self.queue_read(slot);
            }
            End::Closed => self.begin_closing(slot, Phase::Flushing, handler),
            End::Misbehaved(reason) => self.begin_close(slot, reason, Phase::Draining, handler),
            End::Refused(reason) => {
                let phase = Phase::AwaitingClose(Box::new(reader.into_tracker()));
                self.begin_close(slot, reason, phase, handler);
            }
        }
    }

    /// Leaves the parser with the connection if that is in the middle of something, and takes it back otherwise.
    fn put_reader(&mut self, slot: Slot, reader: Box<Reader>) {
        if !reader.is_free() {
            self.connections[slot.index()].keep_reader(reader);
        } else {
            self.buffers.keep_reader(reader);
        }
    }

    fn put_buffer(&mut self, slot: Slot, answers: Box<WriteBuffer>) {
        if answers.is_empty() {
            self.buffers.keep_write_buffer(answers);
            return;
        }
        self.connections[slot.index()].write_buffer = Some(answers);
        self.queue_flush(slot);
    }
}

/// Refuses a request whose length is none. One with a body is refused when that is read, in the words of its route.
fn check_length<A, H: Handler<Admission = A>>(
    request: &Request<()>,
    decision: HeadDecision<A, H::Route>,
    handler: &mut H,
) -> HeadDecision<A, H::Route> {
    let Err(reason) = head::content_length(request.headers()) else { return decision };
    match decision {
        HeadDecision::ReadBody(rules, route) => return HeadDecision::ReadBody(rules, route),
        HeadDecision::Later(_, ticket) => handler.on_abandoned(ticket),
        HeadDecision::Respond(_) | HeadDecision::Upgrade(..) => {}
    }
    HeadDecision::Respond(Response::text(StatusCode::BAD_REQUEST, &reason))
}

fn dispatch(id: ConnectionId, message: &Message, answers: &mut WriteBuffer, handler: &mut impl Handler) -> Verdict {
    match message {
        Message::Text(text) => handler.on_text(id, text, answers),
        Message::Binary(bytes) => handler.on_binary(id, bytes, answers),
        // tungstenite answers pings and Close by itself; any byte that came counts as a pong.
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => Verdict::Continue,
    }
}
