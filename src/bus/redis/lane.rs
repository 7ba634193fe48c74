//! What is asked of one master: what waits, what was sent, and what has to be said again; pipelined, in the order in which it came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commander::{Order, Reply};
use super::fault::Fault;
use super::link::Link;
use super::port::Port;
use super::resp::Value;
use super::run_id::RunId;
use super::script::{Call, Done, Packer, Script, Server, done};
use super::stats::{Counters, add, add_time};
use super::target::Node;

/// Calls under way at once; the rest wait.
const SENT_MAX: usize = 8192;

/// How old it may be that somebody types: who still does says so again. Said when a lost link stands again, it would only show
/// somebody typing who does not any more.
const TYPING_MAX: Duration = Duration::from_secs(3);

/// How long a link has stood when the other nodes are taken to have connected again, too, and to have confirmed the epochs of the rooms
/// that they have open. What nobody has confirmed until then is renewed.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

const LATE: &str = "redis has not answered in time; try again later";

/// An order between its coming and its answer.
pub(super) struct Waiting {
    pub(super) order: Order,
    /// Which part of a cluster does it.
    pub(super) slot: u16,
    pub(super) since: Instant,
    /// Questions wait as long as they must, and so does what concerns presence.
    until: Option<Instant>,
    /// It was answered that it is given up; what Redis says now is nobody's business.
    is_given_up: bool,
    /// It goes to who is about to take over the slot.
    pub(super) is_asking: bool,
}

impl Waiting {
    pub(super) fn new(order: Order, slot: u16, now: Instant, hold: Duration) -> Self {
        let until = match order.call {
            Call::Ask { .. } | Call::Presence(_) => None,
            Call::Publish { .. } | Call::Read { .. } | Call::Typing { .. } => Some(now + hold),
        };
        Self { order, slot, since: now, until, is_given_up: false, is_asking: false }
    }

    /// Whether it need not be said any more.
    fn is_stale(&self, now: Instant) -> bool {
        matches!(self.order.call, Call::Typing { .. }) && now >= self.since + TYPING_MAX
    }

    fn is_late(&self, now: Instant) -> bool {
        !self.is_given_up && self.until.is_some_and(|until| until <= now)
    }
}

/// Puts an order among others: orders are numbered as they come, so that sorted they have their order again.
pub(super) fn put(queue: &mut VecDeque<Waiting>, waiting: Waiting) {
    let at = queue.partition_point(|other| other.order.id < waiting.order.id);
    queue.insert(at, waiting);
}

enum Sent {
    Load(Script),
    /// What comes next may be done by who is about to take over its slot.
    Asking,
    Call(Waiting),
}

/// Where in a cluster a call has to go instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// From now on there.
    Moved(Node),
    /// This once, there.
    Ask(Node),
    /// Wherever, but later: some of the keys are on their way.
    Later,
    /// Wherever, when somebody has the slot.
    Nobody,
}

impl Redirect {
    /// From an error of a node of a cluster, which may leave out its own host.
    pub(super) fn read(error: &[u8], from: Option<&Node>) -> Option<Self> {
        let from = from?;
        let mut words = std::str::from_utf8(error).ok()?.split(' ');
        let word = words.next()?;
        let mut node = || {
            let (host, port) = words.nth(1)?.rsplit_once(':')?;
            let host = if host.is_empty() { &from.host } else { host.trim_matches(['[', ']']) };
            Some(Node { host: host.to_owned(), port: port.parse().ok()? })
        };
        match word {
            "MOVED" => node().map(Self::Moved),
            "ASK" => node().map(Self::Ask),
            "TRYAGAIN" => Some(Self::Later),
            "CLUSTERDOWN" => Some(Self::Nobody),
            _ => None,
        }
    }
}

/// What an error reply asks for.
enum Remedy {
    /// The script cache was emptied.
    Load,
    Redirect(Redirect),
    /// It will pass, or another Redis will answer: hold everything and connect again.
    Reconnect,
    /// It concerns this call alone.
    Refuse,
}

fn remedy(error: &[u8], from: Option<&Node>) -> Remedy {
    if let Some(redirect) = Redirect::read(error, from) {
        return Remedy::Redirect(redirect);
    }
    match error.split(|byte| *byte == b' ').next().unwrap_or_default() {
        b"NOSCRIPT" => Remedy::Load,
        b"LOADING" | b"READONLY" | b"MASTERDOWN" | b"BUSY" | b"TRYAGAIN" | b"CLUSTERDOWN" | b"NOREPLICAS"
        | b"UNKILLABLE" | b"NOAUTH" | b"MISCONF" => Remedy::Reconnect,
        _ => Remedy::Refuse,
    }
}

/// What all lanes share.
pub(super) struct Desk {
    pub(super) packer: Packer,
    pub(super) hold: Duration,
    pub(super) replies: Port<Reply>,
    pub(super) counters: Arc<Counters>,
    complained_at: Option<Instant>,
    /// What has to go somewhere else.
    pub(super) turned: Vec<(Waiting, Redirect)>,
}

impl Desk {
    pub(super) fn new(packer: Packer, hold: Duration, replies: Port<Reply>, counters: Arc<Counters>) -> Self {
        Self { packer, hold, replies, counters, complained_at: None, turned: Vec::new() }
    }

    fn refuse(&mut self, now: Instant, waiting: &Waiting, text: &[u8]) {
        if self.complained_at.is_none_or(|at| now >= at + Duration::from_secs(1)) {
            self.complained_at = Some(now);
            log::error!("redis refuses: {}", String::from_utf8_lossy(text));
        }
        self.give_up(waiting, "redis does not take it; try again later");
    }

    fn give_up(&mut self, waiting: &Waiting, words: &'static str) {
        if !waiting.is_given_up {
            if waiting.until.is_some() && !matches!(waiting.order.call, Call::Typing { .. }) {
                add(&self.counters.refused_total, 1);
            }
            self.replies.push(Reply { id: waiting.order.id, result: Err(words) });
        }
    }

    /// Gives up what has waited too long in a queue. All hold equally long, so the oldest come first.
    pub(super) fn expire(&mut self, now: Instant, queue: &mut VecDeque<Waiting>) {
        let oldest = queue.iter().find_map(|waiting| waiting.until);
        if oldest.is_none_or(|until| until > now) {
            return;
        }
        let (late, rest): (VecDeque<_>, VecDeque<_>) = queue.drain(..).partition(|waiting| waiting.is_late(now));
        *queue = rest;
        late.iter().for_each(|waiting| self.give_up(waiting, LATE));
    }
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct Lane {
    waiting: VecDeque<Waiting>,
    sent: VecDeque<Sent>,
    /// What met an empty script cache, until all that was sent is answered.
    again: VecDeque<Waiting>,
    loads: usize,
    /// Which life of Redis answers.
    run_id: RunId,
}

impl Lane {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_empty() && self.again.is_empty()
    }

    pub(super) fn put(&mut self, waiting: Waiting) {
        put(&mut self.waiting, waiting);
    }

    /// Takes out what has yet to be sent and for which `wanted` holds.
    pub(super) fn extract(&mut self, wanted: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut found = Vec::new();
        for queue in [&mut self.again, &mut self.waiting] {
            if queue.iter().any(&wanted) {
                let (taken, rest): (VecDeque<_>, VecDeque<_>) = queue.drain(..).partition(&wanted);
                found.extend(taken);
                *queue = rest;
            }
        }
        found
    }

    /// The slots of all that is not answered, and whether that went to who is about to take them over.
    pub(super) fn slots(&self) -> impl Iterator<Item = (u16, bool)> {
        let sent = self.sent.iter().filter_map(|sent| match sent {
            Sent::Call(waiting) => Some(waiting),
            Sent::Load(_) | Sent::Asking => None,
        });
        self.waiting.iter().chain(&self.again).chain(sent).map(|waiting| (waiting.slot, waiting.is_asking))
    }

    /// The link stands.
    pub(super) fn begin(&mut self, run_id: RunId, desk: &mut Desk, out: &mut Vec<u8>) {
        self.run_id = run_id;
        self.load(desk, out);
    }

    fn load(&mut self, desk: &mut Desk, out: &mut Vec<u8>) {
        for script in Script::ALL {
            desk.packer.load(script, out);
            self.sent.push_back(Sent::Load(script));
            self.loads += 1;
        }
    }

    /// The link is lost: what was not answered will be said again, before all that came later.
    pub(super) fn take_back(&mut self) {
        let sent = self.sent.drain(..).filter_map(|sent| match sent {
            Sent::Call(waiting) if !waiting.is_given_up => Some(waiting),
            _ => None,
        });
        for waiting in self.again.drain(..).chain(sent) {
            put(&mut self.waiting, waiting);
        }
        self.waiting.iter_mut().for_each(|waiting| waiting.is_asking = false);
        self.loads = 0;
    }

    /// Sends as much as may be under way.
    pub(super) fn fill(&mut self, now: Instant, desk: &mut Desk, link: &mut Link) {
        if self.sent.is_empty() && !self.again.is_empty() {
            // Everything that met the empty cache is known now. A publication behind one of these may have been done in between,
            // if another node was quicker to load the script; all nodes see the same order all the same.
            for waiting in self.again.drain(..) {
                put(&mut self.waiting, waiting);
            }
            self.load(desk, &mut link.out);
        }
        let is_settled = link.run().is_some_and(|(_, since)| now.saturating_duration_since(since) >= SETTLED_AFTER);
        while self.loads == 0 && self.again.is_empty() && self.sent.len() < SENT_MAX && link.can_send() {
            let Some(waiting) = self.waiting.pop_front() else { break };
            if waiting.is_stale(now) {
                desk.give_up(&waiting, LATE);
                continue;
            }
            if waiting.is_asking {
                link.out.extend_from_slice(b"*1\r\n$6\r\nASKING\r\n");
                self.sent.push_back(Sent::Asking);
            }
            let server = Server { run_id: self.run_id, is_settled };
            desk.packer.pack(&waiting.order.call, server, &mut link.out);
            self.sent.push_back(Sent::Call(waiting));
        }
    }

    /// A reply of Redis, to the oldest that was sent. `from` is who says so in a cluster.
    pub(super) fn take(
        &mut self,
        (now, from): (Instant, Option<&Node>),
        desk: &mut Desk,
        value: Value<'_>,
    ) -> Result<(), Fault> {
        let waiting = match (self.sent.pop_front(), &value) {
            (None, _) => return Err(Fault::lost("redis answers what nobody asked")),
            (Some(Sent::Load(_) | Sent::Asking), Value::Error(text)) => return Err(Fault::reply(text)),
            (Some(Sent::Asking), _) => return Ok(()),
            (Some(Sent::Load(script)), value) => {
                self.loads -= 1;
                desk.packer.loaded(script, value.text().unwrap_or_default());
                return Ok(());
            }
            (Some(Sent::Call(waiting)), _) => waiting,
        };
        if let Value::Error(text) = value {
            return self.take_error((now, from), desk, waiting, text);
        }
        let Some(done) = done(&waiting.order.call, self.run_id, value) else {
            self.sent.push_front(Sent::Call(waiting));
            return Err(Fault::lost("redis gives an answer to something else"));
        };
        if let Done::Published { duplicate: false, .. } = done {
            let Counters { published_total, publish_micros_total, publish_micros_max, .. } = &*desk.counters;
            add(published_total, 1);
            add_time(publish_micros_total, publish_micros_max, now.saturating_duration_since(waiting.since));
        }
        if !waiting.is_given_up {
            desk.replies.push(Reply { id: waiting.order.id, result: Ok(done) });
        }
        Ok(())
    }

    fn take_error(
        &mut self,
        (now, from): (Instant, Option<&Node>),
        desk: &mut Desk,
        waiting: Waiting,
        text: &[u8],
    ) -> Result<(), Fault> {
        match remedy(text, from) {
            Remedy::Refuse => desk.refuse(now, &waiting, text),
            Remedy::Reconnect => {
                self.sent.push_front(Sent::Call(waiting));
                return Err(Fault::reply(text));
            }
            // It was answered already.
            Remedy::Load | Remedy::Redirect(_) if waiting.is_given_up => {}
            Remedy::Load => self.again.push_back(waiting),
            Remedy::Redirect(redirect) => desk.turned.push((waiting, redirect)),
        }
        Ok(())
    }

    /// Gives up what has waited too long.
    pub(super) fn expire(&mut self, now: Instant, desk: &mut Desk) {
        for sent in &mut self.sent {
            let Sent::Call(waiting) = sent else { continue };
            if waiting.is_late(now) {
                desk.give_up(waiting, LATE);
                // Its reply is still to come and has to be counted.
                waiting.is_given_up = true;
            } else if waiting.until.is_some_and(|until| until > now) {
                break;
            }
        }
        desk.expire(now, &mut self.again);
        desk.expire(now, &mut self.waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_cluster_say_whither() {
        let from = Node { host: "10.0.0.1".to_owned(), port: 1 };
        let node = |host: &str, port| Node { host: host.to_owned(), port };
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
        assert!(matches!(remedy(b"MOVED 7 10.0.0.2:6379", None), Remedy::Refuse));
        assert!(matches!(remedy(b"TRYAGAIN x", None), Remedy::Reconnect));
    }
}
