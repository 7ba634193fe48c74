//! The requests to one master: those that wait, those in flight, and those to be repeated. They
//! are pipelined in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::packer::{Packer, Server};
use super::request::{Answered, Numbering, Request, Response};
use super::script::Script;
use crate::bus::message::BusRefusal;
use crate::bus::redis::cluster::Redirect;
use crate::bus::redis::connection::{HostPort, Link, LinkError, RunId, Value};
use crate::bus::redis::stats::Counters;
use crate::bus::worker::BatchSender;

/// Requests in flight. Beyond it, requests wait.
const SENT_MAX: usize = 8192;

/// The greatest age of a signal. A late one would show what is over, a user typing who has stopped.
const SIGNAL_AGE_MAX: Duration = Duration::from_secs(3);

/// How long a link has to be up before the other nodes are assumed to have reconnected, too, and
/// to have confirmed the epochs of the rooms that they have open. Epochs that are unconfirmed
/// then are renewed.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

const LATE: BusRefusal = BusRefusal::unavailable("redis has not answered in time; try again later");

/// A request between its arrival and its answer.
#[derive(Clone)]
pub(crate) struct QueuedRequest {
    pub(crate) request: Request,
    /// Increases with each request.
    pub(crate) number: u64,
    /// The cluster slot of its keys.
    pub(crate) slot: u16,
    pub(crate) since: Instant,
    /// Queries of the bus itself, and presence, never expire.
    expires_at: Option<Instant>,
    /// The loop was told that it failed. The answer of Redis is ignored.
    is_abandoned: bool,
    /// It goes to the node that is importing the slot.
    pub(crate) is_asking: bool,
}

impl QueuedRequest {
    pub(crate) fn new(request: Request, number: u64, slot: u16, now: Instant, hold: Duration) -> Self {
        let expires_at = match request {
            Request::Publish(_) | Request::Read(_) | Request::Signal(_) => Some(now + hold),
            Request::Query(_)
            | Request::Presence(_)
            | Request::Heartbeat(_)
            | Request::Leave
            | Request::Restrictions(_)
            | Request::CheckRights(_) => None,
        };
        Self { request, number, slot, since: now, expires_at, is_abandoned: false, is_asking: false }
    }

    /// Whether it is too late to send it.
    fn is_stale(&self, now: Instant) -> bool {
        matches!(self.request, Request::Signal(_)) && now >= self.since + SIGNAL_AGE_MAX
    }

    fn is_late(&self, now: Instant) -> bool {
        !self.is_abandoned && self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}

/// Inserts a request by its number, which restores the order in which requests came.
pub(crate) fn insert_in_order(queue: &mut VecDeque<QueuedRequest>, queued: QueuedRequest) {
    let at = queue.partition_point(|other| other.number < queued.number);
    queue.insert(at, queued);
}

/// The length of the name that Redis gives a script.
const SHA_BYTES: usize = 40;

fn unexpected() -> LinkError {
    LinkError::lost("redis sends a reply of the wrong kind")
}

#[expect(clippy::large_enum_variant, reason = "nearly all are requests, which a box would cost an allocation each")]
enum InFlight {
    Load(Script),
    /// Allows the next request at a node that is importing its slot.
    Asking,
    Request(QueuedRequest),
}

/// What to do about an error reply.
enum ErrorAction {
    /// The script cache was emptied: load the scripts and repeat the request.
    Load,
    Redirect(Redirect),
    /// The error is temporary, or another server will answer: keep all requests and reconnect.
    Reconnect,
    /// The error concerns this request only.
    Refuse,
}

fn error_action(error: &[u8], from: Option<&HostPort>) -> ErrorAction {
    if let Some(redirect) = Redirect::read(error, from) {
        return ErrorAction::Redirect(redirect);
    }
    match error.split(|byte| *byte == b' ').next().unwrap_or_default() {
        b"NOSCRIPT" => ErrorAction::Load,
        b"LOADING" | b"READONLY" | b"MASTERDOWN" | b"BUSY" | b"TRYAGAIN" | b"CLUSTERDOWN" | b"NOREPLICAS"
        | b"UNKILLABLE" | b"NOAUTH" | b"MISCONF" => ErrorAction::Reconnect,
        _ => ErrorAction::Refuse,
    }
}

/// Whether Redis refuses because the ACL of the user is too narrow.
fn is_right_missing(error: &[u8]) -> bool {
    let text = String::from_utf8_lossy(error);
    // A script that calls a forbidden command fails with a text that depends on the version.
    text.starts_with("NOPERM")
        || ["ACL failure in script", "The user executing the script can't"].iter().any(|part| text.contains(part))
}

/// What the pipelines of a thread share.
pub(crate) struct PipelineContext {
    pub(crate) packer: Packer,
    pub(crate) hold: Duration,
    pub(crate) responses: BatchSender<Response>,
    pub(crate) counters: Arc<Counters>,
    logged_at: Option<Instant>,
    /// Requests that have to go somewhere else.
    pub(crate) redirected: Vec<(QueuedRequest, Redirect)>,
}

impl PipelineContext {
    pub(crate) fn new(
        packer: Packer,
        hold: Duration,
        responses: BatchSender<Response>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { packer, hold, responses, counters, logged_at: None, redirected: Vec::new() }
    }

    fn refuse(&mut self, now: Instant, queued: QueuedRequest, text: &[u8]) {
        if is_right_missing(text) {
            self.counters.rights_missing.set(true);
            if let Some(room) = queued.request.room() {
                self.responses.push(Response::RightMissing(room));
            }
        }
        if self.logged_at.is_none_or(|at| now >= at + Duration::from_secs(1)) {
            self.logged_at = Some(now);
            log::error!("redis refuses: {}", LinkError::reply(text));
        }
        let refusal = if text.starts_with(b"OOM ") {
            BusRefusal::storage_full("redis has no memory left; try again later")
        } else {
            BusRefusal::unavailable("redis does not take it; try again later")
        };
        self.abandon(queued, refusal);
    }

    fn abandon(&mut self, queued: QueuedRequest, refusal: BusRefusal) {
        if !queued.is_abandoned {
            if matches!(queued.request, Request::Publish(_) | Request::Read(_)) {
                self.counters.refused_total.add(1);
            }
            self.responses.push(queued.request.refused(refusal));
        }
    }

    /// Abandons the requests in a queue that have waited too long. All wait equally long, so the
    /// oldest expire first.
    pub(crate) fn expire(&mut self, now: Instant, queue: &mut VecDeque<QueuedRequest>) {
        let oldest = queue.iter().find_map(|queued| queued.expires_at);
        if oldest.is_none_or(|expires_at| expires_at > now) {
            return;
        }
        let (late, rest): (VecDeque<_>, VecDeque<_>) = queue.drain(..).partition(|queued| queued.is_late(now));
        *queue = rest;
        late.into_iter().for_each(|queued| self.abandon(queued, LATE));
    }
}

#[derive(Default)]
pub(crate) struct Pipeline {
    queued: VecDeque<QueuedRequest>,
    in_flight: VecDeque<InFlight>,
    /// Loads of scripts in flight. Requests wait for them.
    loads: usize,
    /// A request has found the script cache empty.
    wants_scripts: bool,
    /// The run of Redis at the other end.
    run_id: RunId,
}

impl Pipeline {
    pub(crate) fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.in_flight.is_empty()
    }

    pub(crate) fn put(&mut self, queued: QueuedRequest) {
        insert_in_order(&mut self.queued, queued);
    }

    /// Removes and returns the unsent requests for which `wanted` holds.
    pub(crate) fn extract(&mut self, wanted: impl Fn(&QueuedRequest) -> bool) -> VecDeque<QueuedRequest> {
        if !self.queued.iter().any(&wanted) {
            return VecDeque::new();
        }
        let (found, rest) = self.queued.drain(..).partition(wanted);
        self.queued = rest;
        found
    }

    /// The slots of all unanswered requests, and whether the request went to an importing node.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (u16, bool)> {
        let in_flight = self.in_flight.iter().filter_map(|in_flight| match in_flight {
            InFlight::Request(queued) => Some(queued),
            InFlight::Load(_) | InFlight::Asking => None,
        });
        self.queued.iter().chain(in_flight).map(|queued| (queued.slot, queued.is_asking))
    }

    /// The link is up.
    pub(crate) fn begin(&mut self, run_id: RunId, context: &mut PipelineContext, out: &mut Vec<u8>) {
        self.run_id = run_id;
        self.load_scripts(context, out);
    }

    fn load_scripts(&mut self, context: &mut PipelineContext, out: &mut Vec<u8>) {
        for script in Script::ALL {
            context.packer.load(script, out);
            self.in_flight.push_back(InFlight::Load(script));
            self.loads += 1;
        }
    }

    /// The link is lost. Unanswered requests go back into the queue, in order.
    pub(crate) fn take_back(&mut self) {
        let in_flight = self.in_flight.drain(..).filter_map(|in_flight| match in_flight {
            InFlight::Request(queued) if !queued.is_abandoned => Some(queued),
            _ => None,
        });
        for queued in in_flight {
            insert_in_order(&mut self.queued, queued);
        }
        self.queued.iter_mut().for_each(|queued| queued.is_asking = false);
        (self.loads, self.wants_scripts) = (0, false);
    }

    /// Sends requests, as many as may be in flight.
    pub(crate) fn fill(&mut self, now: Instant, context: &mut PipelineContext, link: &mut Link) {
        if std::mem::take(&mut self.wants_scripts) {
            self.load_scripts(context, link.out());
        }
        let is_settled = link.up_for(now).is_some_and(|time| time >= SETTLED_AFTER);
        while self.loads == 0 && self.in_flight.len() < SENT_MAX && link.can_send() {
            let Some(queued) = self.queued.pop_front() else { break };
            if queued.is_stale(now) {
                context.abandon(queued, LATE);
                continue;
            }
            if queued.is_asking {
                link.out().extend_from_slice(b"*1\r\n$6\r\nASKING\r\n");
                self.in_flight.push_back(InFlight::Asking);
            }
            let server = Server { run_id: self.run_id, is_settled };
            context.packer.pack(&queued.request, server, link.out());
            self.in_flight.push_back(InFlight::Request(queued));
        }
    }

    /// Takes the reply to the oldest request in flight. `from` is the sender, in a cluster.
    pub(crate) fn take(
        &mut self,
        (now, from): (Instant, Option<&HostPort>),
        context: &mut PipelineContext,
        value: Value<'_>,
    ) -> Result<(), LinkError> {
        let queued = match (self.in_flight.pop_front(), &value) {
            (None, _) => return Err(LinkError::lost("redis sends a reply without a request")),
            (Some(InFlight::Load(_) | InFlight::Asking), Value::Error(text)) => return Err(LinkError::reply(text)),
            (Some(InFlight::Asking), Value::Status(b"OK")) => return Ok(()),
            (Some(InFlight::Load(script)), Value::Bulk(sha)) if sha.len() == SHA_BYTES => {
                self.loads -= 1;
                context.packer.loaded(script, value.text().unwrap_or_default());
                return Ok(());
            }
            (Some(InFlight::Load(_) | InFlight::Asking), _) => return Err(unexpected()),
            (Some(InFlight::Request(queued)), _) => queued,
        };
        if let Value::Error(text) = value {
            return self.take_error((now, from), context, queued, text);
        }
        let QueuedRequest { request, since, is_abandoned, .. } = queued;
        let response = match request.answered(self.run_id, value) {
            Answered::Response(response) => response,
            Answered::Unexpected(request) => {
                self.in_flight.push_front(InFlight::Request(QueuedRequest { request, ..queued }));
                return Err(unexpected());
            }
        };
        if let Response::Published(_, Ok(Numbering { is_duplicate: false, .. })) = response {
            let time = now.saturating_duration_since(since);
            context.counters.published_total.add(1);
            context.counters.publish_time_total.add(time);
            context.counters.publish_time_max.raise(time);
        }
        if !is_abandoned {
            context.responses.push(response);
        }
        Ok(())
    }

    fn take_error(
        &mut self,
        (now, from): (Instant, Option<&HostPort>),
        context: &mut PipelineContext,
        queued: QueuedRequest,
        text: &[u8],
    ) -> Result<(), LinkError> {
        match error_action(text, from) {
            ErrorAction::Refuse => context.refuse(now, queued, text),
            ErrorAction::Reconnect => {
                self.in_flight.push_front(InFlight::Request(queued));
                return Err(LinkError::reply(text));
            }
            // The loop has its answer already.
            ErrorAction::Load | ErrorAction::Redirect(_) if queued.is_abandoned => {}
            // Other requests of the slot that were sent find the cache empty, too. If another node
            // has loaded the script meanwhile, a later publication may be accepted before an
            // earlier one; all nodes see the same order even so.
            ErrorAction::Load => {
                self.wants_scripts |= self.loads == 0;
                context.redirected.push((queued, Redirect::Later));
            }
            ErrorAction::Redirect(redirect) => context.redirected.push((queued, redirect)),
        }
        Ok(())
    }

    /// Abandons requests that have waited too long.
    pub(crate) fn expire(&mut self, now: Instant, context: &mut PipelineContext) {
        for in_flight in &mut self.in_flight {
            let InFlight::Request(queued) = in_flight else { continue };
            if queued.is_late(now) {
                context.abandon(queued.clone(), LATE);
                // Its reply is still to come and has to be counted.
                queued.is_abandoned = true;
            } else if queued.expires_at.is_some_and(|expires_at| expires_at > now) {
                break;
            }
        }
        context.expire(now, &mut self.queued);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_cluster_say_whither() {
        let from = HostPort { host: "10.0.0.1".to_owned(), port: 1 };
        let node = |host: &str, port| HostPort { host: host.to_owned(), port };
        for (text, expected) in [
            ("MOVED 7 10.0.0.2:6379", Some(Redirect::Moved(node("10.0.0.2", 6379)))),
            ("MOVED 7 ::1:6379", Some(Redirect::Moved(node("::1", 6379)))),
            ("ASK 7 :6379", Some(Redirect::Ask(node("10.0.0.1", 6379)))),
            ("TRYAGAIN Multiple keys", Some(Redirect::Later)),
            ("CLUSTERDOWN Hash slot not served", Some(Redirect::Nobody)),
            ("MOVED 7", None),
            ("ASK 7 host:x", None),
            ("OOM command not allowed", None),
        ] {
            let found = Redirect::read(text.as_bytes(), Some(&from));
            assert_eq!(found, expected, "{text}");
        }
        assert!(matches!(error_action(b"MOVED 7 10.0.0.2:6379", None), ErrorAction::Refuse));
        assert!(matches!(error_action(b"TRYAGAIN x", None), ErrorAction::Reconnect));
    }
}
