//! From a socket to messages: one read a turn and connection, HTTP head first, then frames.
//!
//! What a connection may have in a turn is counted in messages and frames, and what all may have together in units of work
//! and time. A connection that has had its share goes to the end of the list, and so do its bytes that were not parsed.

use http::{Method, Request, StatusCode};
use tungstenite::Message;

use crate::budget::{WorkBudget, units};
use crate::id::{ConnectionId, Slot};
use crate::protocol::CloseReason;
use crate::time::Now;

use super::connection::Flag;
use super::encrypted::ENCRYPTED_READ_BYTES_MAX;
use super::handler::{Handler, HeadDecision, Verdict};
use super::http::{self as head, Head, Response};
use super::listener::ListenerRole;
use super::parked::ParkedSource;
use super::phase::{ParkedHandshake, Phase};
use super::reader::{Found, Reader, Unread};
use super::write_buffer::WriteBuffer;
use super::{Net, Trouble, trouble};

/// What a request counts: its head is parsed, and it is answered.
const REQUEST_UNITS: u32 = 8;

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
    /// Reads connections that have something, each once, up to the turn's budget. `clock` tells the time while that takes it,
    /// after every few units. Says how many units of work it was.
    pub fn read(&mut self, clock: &mut dyn FnMut() -> Now, handler: &mut impl Handler<Route = R>) -> u32 {
        let mut budget = WorkBudget::new(self.limits.phase(), clock);
        let waiting = self.begin_work(|queues| &mut queues.ready);
        for _ in 0..waiting.min(self.limits.reads_per_turn as usize) {
            if !budget.has_left() || !handler.may_read() {
                break;
            }
            let Some(slot) = self.queues.ready.pop() else { break };
            let Some(connection) = self.connections.get_mut(slot.index()) else { continue };
            connection.clear(Flag::Queued);
            if let Phase::Closed = connection.phase {
                // It is freed now that it is in no list.
                continue;
            }
            self.work = 1;
            self.read_one(slot, handler);
            self.work += handler.take_work();
            self.queues.ready.charge(self.work);
            self.note_held(slot);
            budget.spend(self.work);
        }
        budget.spent()
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
            if let Some(left) = self.read_frames(slot, unread.as_slice(), handler) {
                self.keep_unread(slot, unread.leave(left));
            }
            return self.queue_if_readable(slot);
        }
        // The buffer is lent to this connection for as long as its bytes are looked at.
        let mut buffer = std::mem::take(&mut self.buffers.input);
        let bytes_max = if connection.is_encrypted() { ENCRYPTED_READ_BYTES_MAX } else { buffer.len() };
        match connection.transport.read(&mut buffer[..bytes_max]) {
            Ok(0) => self.handle_end(slot, handler),
            Ok(bytes) => {
                // A read shorter than the buffer has emptied the socket, unless an end of file or an error is waiting
                // behind it, for which no second edge comes.
                if bytes < bytes_max && !connection.is(Flag::ReadClosed) {
                    connection.clear(Flag::Readable);
                }
                if connection.is_open() {
                    connection.since = self.timers.tick;
                }
                self.stats.received_bytes += bytes as u64;
                self.take_received(slot, &mut buffer[..bytes], handler);
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
        self.work += units(0, bytes.len());
        let connection = &mut self.connections[slot.index()];
        if let Phase::KeepAlive(_) = connection.phase {
            connection.phase = Phase::Head(None);
            connection.since = self.timers.tick;
        }
        match &mut connection.phase {
            Phase::Head(kept) => {
                let mut head = kept.take().unwrap_or_default();
                let bytes = if head.is_empty() { head::without_empty_lines(bytes) } else { bytes };
                // Nearly always the whole head comes at once, and nothing has to be kept.
                if head.is_empty() && head::contains_end(bytes, 0) {
                    return self.read_head(slot, bytes, handler);
                }
                let mut searched = head.len();
                head.extend_from_slice(bytes);
                // An empty line may have been cut in two.
                let empty_bytes = head.len() - head::without_empty_lines(&head).len();
                if empty_bytes > 0 {
                    head.drain(..empty_bytes);
                    searched = 0;
                }
                let is_complete = head::contains_end(&head, searched);
                if is_complete || head.len() >= self.limits.head_bytes_max {
                    return self.read_head(slot, &head, handler);
                }
                if let Some(response) = head::refuse_beginning(&head, searched) {
                    return self.answer_at_once(slot, &response, handler);
                }
                *kept = Some(head);
            }
            Phase::Open { reader, .. } => {
                reader.get_or_insert_with(|| self.buffers.lend_reader(&self.limits));
                if let Some(left) = self.read_frames(slot, bytes, handler) {
                    self.keep_unread(slot, Unread::new(&bytes[bytes.len() - left..]));
                }
            }
            Phase::ProxyHeader(_) => self.take_proxy_header(slot, bytes, handler),
            // These bytes are read by its session.
            Phase::TlsHandshake => {}
            Phase::Body(_) => self.take_body(slot, bytes, handler),
            Phase::AwaitingResponse(_) | Phase::AwaitingAdmission(_) | Phase::KeepAlive(_) => {}
            Phase::Flushing | Phase::AwaitingClose(_) | Phase::Draining | Phase::Closed => {
                self.take_last_bytes(slot, bytes);
            }
        }
    }

    /// The peer will send nothing more: what waits in its write buffer is still written.
    pub(super) fn handle_end(&mut self, slot: Slot, handler: &mut impl Handler<Route = R>) {
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
        self.work += REQUEST_UNITS;
        let (mut request, used) = match head::parse_head(bytes, self.limits.head_bytes_max) {
            Head::Complete(request, used) => (request, used),
            Head::Bad(response) => return self.answer(slot, &response, handler),
            Head::Partial => {
                let reason = "request head is not complete where it ends";
                return self.answer(slot, &Response::text(StatusCode::BAD_REQUEST, reason), handler);
            }
        };
        // What comes from now on may be somebody else's than the head.
        self.release_held(slot);
        let source = self.source(slot, request.headers());
        let owner = self.peer_owner(slot, source.address.map(|address| address.ip()));
        request.extensions_mut().insert(owner);
        if let Some(address) = source.address {
            log::debug!("connection {}: a request from {address}", self.connections[slot.index()].id(slot));
            request.extensions_mut().insert(address);
        }
        if self.connections[slot.index()].is(Flag::Admin) {
            request.extensions_mut().insert(ListenerRole::Admin);
        }
        let (id, rest) = (self.connections[slot.index()].id(slot), &bytes[used..]);
        let decision = match self.charge_request(slot, source, &request, handler) {
            Ok(()) => {
                let decision = handler.on_request(id, &request, self.capacity());
                check_length(&request, decision, handler)
            }
            Err(response) => HeadDecision::Respond(response),
        };
        match decision {
            HeadDecision::Respond(response) if request.method() == Method::HEAD => {
                self.answer(slot, &response.without_body(), handler);
            }
            HeadDecision::Respond(response) => self.answer(slot, &response, handler),
            HeadDecision::ReadBody(rules, route) => {
                self.begin_body(slot, (&request, rules, route), rest, handler);
            }
            HeadDecision::Later(handshake, ticket) => {
                let address = source.address.map(|address| address.ip());
                let source = ParkedSource { owner, address };
                let parked = ParkedHandshake { ticket, handshake, head_bytes: used, rest: rest.to_vec(), source };
                self.park(slot, parked, handler);
            }
            HeadDecision::Upgrade(handshake, admission) => match handshake.to_bytes() {
                Ok(answer) => {
                    self.upgrade(slot, &answer, admission, handler);
                    // A client may send its first frames behind the head, without waiting for the answer.
                    self.take_rest_of_head(slot, rest, handler);
                }
                Err(response) => self.answer(slot, &response, handler),
            },
        }
    }

    /// Makes a WebSocket of a connection, with this answer to its handshake.
    pub(super) fn upgrade<H: Handler<Route = R>>(
        &mut self,
        slot: Slot,
        answer: &[u8],
        admission: H::Admission,
        handler: &mut H,
    ) {
        self.stats.open += 1;
        self.stats.upgraded += 1;
        self.release_held(slot);
        let connection = &mut self.connections[slot.index()];
        connection.open(self.timers.tick);
        let id = connection.id(slot);
        self.caps.forget_told(slot);
        self.append_indivisible(slot, answer);
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
        response.write_last(self.write_buffer(slot));
        self.begin_closing(slot, Phase::Draining, handler);
    }

    /// Answers bytes that are no request, and ends the connection without waiting for its peer to do so: it does not read answers.
    fn answer_at_once(&mut self, slot: Slot, response: &Response, handler: &mut impl Handler<Route = R>) {
        self.note_answer(slot, response);
        response.write_last(self.write_buffer(slot));
        self.begin_closing(slot, Phase::Flushing, handler);
    }

    /// Reads frames with the parser that the connection has at the moment. If the connection has had its share, says how
    /// many bytes are left, which are to be [kept](Net::keep_unread).
    fn read_frames(&mut self, slot: Slot, bytes: &[u8], handler: &mut impl Handler<Route = R>) -> Option<usize> {
        let connection = &mut self.connections[slot.index()];
        let Phase::Open { reader, .. } = &mut connection.phase else { return None };
        let mut reader = reader.take()?;
        let id = connection.id(slot);
        let mut answers = connection.write_buffer.take().unwrap_or_else(|| self.buffers.lend_write_buffer());
        let mut left = self.limits.messages_per_read;
        let mut input = bytes;
        let mut frames = reader.follow(input, self.limits.frames_per_read);
        let end = loop {
            match reader.next(&mut input, &mut answers, &self.limits) {
                Found::NeedsInput if input.is_empty() => break End::Input,
                Found::NeedsInput => match reader.follow(input, self.limits.frames_per_read - frames) {
                    0 => break End::Budget,
                    more => frames += more,
                },
                Found::Closed => break End::Closed,
                Found::Misbehaved(reason) => break End::Misbehaved(reason),
                Found::Message(message) => {
                    if let Message::Close(_) = message {
                        // The parser answers it when it is asked again.
                        self.append_answers(id, &mut answers, handler);
                    }
                    let verdict = dispatch(id, &message, &mut answers, handler);
                    if let Verdict::Close(reason) = verdict {
                        break End::Refused(reason);
                    }
                    // A join, for example, takes as long as several other messages.
                    let work = handler.take_work();
                    self.work += work;
                    left = left.saturating_sub(1 + work);
                    if left == 0 || answers.len() > self.limits.output_bytes_max / 2 {
                        break End::Budget;
                    }
                }
            }
        };
        if let End::Misbehaved(_) | End::Refused(_) = end {
            self.append_answers(id, &mut answers, handler);
        }
        self.put_buffer(slot, answers);
        // Most frames are messages, and what a message causes is not counted apart.
        self.work += frames;
        match end {
            End::Input => self.put_reader(slot, reader),
            End::Budget => {
                self.connections[slot.index()].keep_reader(reader);
                return Some(input.len());
            }
            End::Closed => self.begin_closing(slot, Phase::Flushing, handler),
            End::Misbehaved(reason) => self.begin_close(slot, reason, Phase::Draining, handler),
            End::Refused(reason) => {
                reader.stop(Unread::new(input));
                let phase = Phase::AwaitingClose(Box::new(reader.into_tracker()));
                self.begin_close(slot, reason, phase, handler);
            }
        }
        None
    }

    /// Has the answers to messages go before the Close that is about to follow, as far as the bound of the write buffer allows.
    fn append_answers(&self, id: ConnectionId, buffer: &mut WriteBuffer, handler: &mut impl Handler<Route = R>) {
        let answers = handler.take_answers(id);
        if buffer.len() + answers.len() <= self.limits.output_bytes_max {
            buffer.append(answers);
        }
    }

    /// A connection has had its share of the turn; it goes on with what is left of its bytes.
    fn keep_unread(&mut self, slot: Slot, unread: Unread) {
        if let Phase::Open { reader: Some(reader), .. } = &mut self.connections[slot.index()].phase {
            reader.stop(unread);
        }
        self.queue_read(slot);
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

#[cfg(test)]
mod tests;
