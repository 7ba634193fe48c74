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
                let source = ParkedSource { owner: self.caps.owners.of(address), address };
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
                    left -= 1;
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
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use mio::Poll;

    use super::*;
    use crate::net::Handshake;
    use crate::net::connection::Connection;
    use crate::net::transport::Transport;
    use crate::net::{BodyDecision, Capacity, LISTENERS_MAX};
    use crate::settings::Config;

    /// Admits everybody, and remembers how many bytes each message had.
    #[derive(Default)]
    struct Heard(Vec<(Slot, usize)>);

    impl Handler for Heard {
        type Admission = ();
        type Route = ();

        fn on_request(&mut self, _: ConnectionId, request: &http::Request<()>, _: Capacity) -> HeadDecision<(), ()> {
            HeadDecision::Upgrade(Handshake::check(request).unwrap(), ())
        }

        fn on_body(&mut self, _: ConnectionId, (): (), _: &[u8]) -> BodyDecision {
            BodyDecision::Respond(Response::unavailable("not expected"))
        }

        fn on_text(&mut self, id: ConnectionId, text: &str, _: &mut WriteBuffer) -> Verdict {
            self.0.push((id.slot, text.len()));
            Verdict::Continue
        }

        fn on_binary(&mut self, _: ConnectionId, _: &[u8], _: &mut WriteBuffer) -> Verdict {
            Verdict::Close(CloseReason::BINARY)
        }

        fn on_open(&mut self, _: ConnectionId, (): ()) {}
        fn on_drained(&mut self, _: ConnectionId) {}
        fn on_stalled(&mut self, _: ConnectionId) {}
        fn on_closed(&mut self, _: ConnectionId) {}
    }

    /// A net whose sockets are read when a test says so.
    struct Peers {
        net: Net<()>,
        heard: Heard,
        sockets: Vec<UnixStream>,
        _poll: Poll,
    }

    impl Peers {
        /// So many open WebSockets.
        fn new(count: u32) -> Self {
            let (poll, mut config) = (Poll::new().unwrap(), Config::default());
            config.net.connections_max = count;
            let tokens = 0..LISTENERS_MAX + (count + config.net.connections_reserved) as usize;
            let net = Net::new(&config, poll.registry().try_clone().unwrap(), tokens, 7).unwrap();
            let mut peers = Self { net, heard: Heard::default(), sockets: Vec::new(), _poll: poll };
            for at in 0..count as usize {
                let (ours, theirs) = UnixStream::pair().unwrap();
                ours.set_nonblocking(true).unwrap();
                peers.net.insert(Transport::from(mio::net::UnixStream::from_std(ours)), Default::default(), None);
                peers.sockets.push(theirs);
                peers.send(
                    at,
                    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                );
                peers.turn();
                assert!(peers.sockets[at].read(&mut [0; 1000]).unwrap() > 0);
            }
            peers
        }

        fn send(&mut self, at: usize, bytes: &[u8]) {
            self.sockets[at].write_all(bytes).unwrap();
            self.net.connections[at].set(Flag::Readable);
            self.net.queue_read(Slot(at as u32));
        }

        /// Says how many units the reads were.
        fn turn(&mut self) -> u32 {
            let work = self.net.read(&mut Now::default, &mut self.heard);
            self.net.flush(&mut Now::default, &mut self.heard);
            work
        }

        fn heard(&mut self) -> Vec<(Slot, usize)> {
            std::mem::take(&mut self.heard.0)
        }
    }

    /// A frame of a client's text, which `first` begins or goes on with.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        assert!(payload.len() < 126);
        [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
    }

    /// A message of so many fragments of one byte.
    fn crumbs(count: usize) -> Vec<u8> {
        let frame = |at: usize| masked(if at + 1 == count { 0x80 } else { u8::from(at == 0) }, b"x");
        (0..count).flat_map(frame).collect()
    }

    #[test]
    fn many_tiny_frames_are_read_over_several_turns() {
        let mut peers = Peers::new(6);
        // As many as fit into one read.
        let count = 64 * 1024 / 7;
        for at in 0..5 {
            peers.send(at, &crumbs(count));
        }
        peers.send(5, &masked(0x81, b"hello"));
        let limits = peers.net.limits.clone();
        let mut turns = 0;
        while peers.net.has_work() {
            let work = peers.turn();
            let share = limits.frames_per_read + 64 + 1;
            assert!(work < limits.work_per_phase + share, "{work} units in a turn");
            turns += 1;
            if turns == 2 {
                assert_eq!(peers.heard(), [(Slot(5), 5)], "the sixth waits for one share of each of the others");
            }
        }
        assert!(turns >= 5 * count / 1400, "{turns} turns");
        let mut heard = peers.heard();
        heard.sort_unstable();
        assert!(heard.into_iter().eq((0..5).map(|slot| (Slot(slot), count))));
        assert_eq!(peers.net.stats().open, 6);
    }

    #[test]
    fn a_connection_is_read_once_a_turn() {
        let mut peers = Peers::new(1);
        let frame = masked(0x81, &[b'x'; 100]);
        // More than two reads take, and fewer messages than a turn takes from one connection.
        peers.net.limits.messages_per_read = 10_000;
        peers.net.limits.frames_per_read = 10_000;
        peers.net.limits.work_per_phase = 100_000;
        let count = 64 * 1024 * 2 / frame.len() + 10;
        peers.send(0, &frame.repeat(count));
        let reads: Vec<u64> = std::iter::from_fn(|| {
            let before = peers.net.stats.received_bytes;
            peers.net.has_work().then(|| {
                peers.turn();
                peers.net.stats.received_bytes - before
            })
        })
        .collect();
        assert_eq!(reads[..2], [64 * 1024, 64 * 1024], "{reads:?}");
        assert_eq!(peers.heard().len(), count);
    }

    #[test]
    fn a_connection_is_charged_only_while_it_is_in_the_middle_of_something() {
        let mut peers = Peers::new(3);
        let frame = masked(0x81, &[b'x'; 100]);
        (0..3).for_each(|at| peers.send(at, &frame));
        peers.turn();
        assert_eq!(peers.net.stats().buffer_bytes, 0);
        peers.send(1, &frame[..50]);
        peers.turn();
        let half = peers.net.stats().buffer_bytes;
        assert!(half > 600, "{half}");
        // Of another peer, that ends meanwhile.
        peers.send(2, &frame[..50]);
        peers.turn();
        assert_eq!(peers.net.stats().buffer_bytes, 2 * half);
        peers.net.end(Slot(2), &mut peers.heard);
        peers.turn();
        assert_eq!(peers.net.stats().buffer_bytes, half);
        peers.send(1, &frame[50..]);
        peers.turn();
        assert_eq!((peers.net.stats().buffer_bytes, peers.net.account.owner(Slot(1))), (0, None));
    }

    #[test]
    fn slow_reads_are_fewer_in_a_turn() {
        let mut peers = Peers::new(60);
        (0..60).for_each(|at| peers.send(at, &masked(0x81, b"hello")));
        let mut millis = 0;
        // At every look a millisecond has gone by.
        let mut clock = || {
            millis += 1;
            Now { uptime: Duration::from_millis(millis), unix_ms: 0 }
        };
        peers.net.read(&mut clock, &mut peers.heard);
        // Two strides of units: a read and a frame each.
        assert_eq!(peers.heard().len(), 16);
        peers.turn();
        assert_eq!(peers.heard().len(), 44, "the rest has been kept");
    }

    #[test]
    fn write_buffers_are_written_over_several_turns() {
        let mut peers = Peers::new(60);
        for at in 0..60 {
            let id = peers.net.connections[at].id(Slot(at as u32));
            peers.net.append_frames(id.slot, &[0; 64 * 1024]);
        }
        // One that ends is freed when no list has it any more.
        peers.net.end(Slot(59), &mut peers.heard);
        let mut turns = 0;
        while peers.net.has_work() {
            let work = peers.net.flush(&mut Now::default, &mut peers.heard);
            assert!(work < peers.net.limits.work_per_phase + 65, "{work} units in a turn");
            peers.net.free(&mut Now::default);
            turns += 1;
            assert_eq!(peers.net.stats().sockets, if turns < 4 { 60 } else { 59 });
        }
        assert_eq!(turns, 4);
        let is_empty = |(_, connection): (usize, &Connection<()>)| connection.write_buffer.is_none();
        assert!(peers.net.connections.iter().all(is_empty));
    }

    #[test]
    fn what_is_left_of_a_share_survives_a_close() {
        let mut peers = Peers::new(1);
        peers.send(0, &[crumbs(5000), vec![0x88, 0x80, 0, 0, 0, 0]].concat());
        peers.turn();
        // The server closes while most of the frames are not followed; the peer's Close is among them.
        let id = peers.net.connections[0].id(Slot(0));
        peers.net.close(id, CloseReason::GOING_AWAY, &mut peers.heard);
        assert!(matches!(peers.net.connections[0].phase, Phase::Flushing), "it is awaited");
    }
}
