//! The world around a hub: clock, bus, sockets and clients. It has one turn, and the checks after each.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use roomcast::CloseReason;
use roomcast::Now;
use roomcast::OpenPolicy;
use roomcast::bus::PresenceStatus;
use roomcast::bus::{Bus, LocalBus};
use roomcast::bus::{BusEvent, BusRequest, Outcome, PresenceChange, ReadFrom, Signal, Ticket};
use roomcast::internals::{Hub, Output, Owners};
use roomcast::net::Slot;
use roomcast::{ConnectionId, RoomName, UserId};

use super::chance::Chance;
use super::coverage::Coverage;
use super::fake_bus::FakeBus;
use super::seat::Seat;
use super::settings::{BusKind, Settings};
use super::trace::Trace;
use super::transport::Link;
use super::truth::{Truth, room_name, room_number};

/// How long after the bus was not ready a user may stay present for it: until it is looked for again, and counted.
pub(crate) const DEAF_MILLIS: u64 = 6000;

/// Larger than any frame that these limits allow.
pub(crate) const FRAME_BYTES_MAX: usize = 8 * 1024;

#[derive(Debug)]
pub(crate) enum AnyBus {
    Local(Box<LocalBus>),
    Fake(Box<FakeBus>),
}

impl AnyBus {
    fn bus(&mut self) -> &mut dyn Bus {
        match self {
            Self::Local(bus) => bus.as_mut(),
            Self::Fake(bus) => bus.as_mut(),
        }
    }

    pub(crate) fn fake(&mut self) -> Option<&mut FakeBus> {
        match self {
            Self::Local(_) => None,
            Self::Fake(bus) => Some(bus),
        }
    }
}

/// See the [module](self).
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) chance: Chance,
    pub(crate) now: Now,
    pub(crate) hub: Hub,
    pub(crate) bus: AnyBus,
    pub(crate) truth: Truth,
    pub(crate) seats: Vec<Seat>,
    /// Which seat's connection is in a slot.
    slots: Vec<Option<usize>>,
    serial: u32,
    closed: HashSet<ConnectionId>,
    /// The requests that the bus has not answered: reads and publications with their room, commands without.
    tickets: BTreeMap<Ticket, Option<RoomName>>,
    publications: usize,
    /// How many reads of history the hub has asked for by itself.
    pub(crate) reads: usize,
    /// When a user's connection was lost in a room.
    pub(crate) lost: BTreeMap<(usize, usize), u64>,
    /// The same, of those who were members for sure and have not left otherwise: they are owed a grace.
    pub(crate) in_grace: BTreeMap<(usize, usize), u64>,
    /// The users present in a room on other nodes.
    pub(crate) elsewhere: BTreeSet<(usize, String)>,
    /// The users present here, as other nodes are told.
    pub(crate) shared: BTreeSet<(usize, String)>,
    /// The rooms of which the hub wants to know who is on other nodes.
    checks: Vec<RoomName>,
    /// The users that may have been kicked since the world was last at rest. They are owed no grace.
    pub(crate) kicked: BTreeSet<(usize, usize)>,
    /// Commands of this node that the bus has taken.
    pub(crate) commands: BTreeSet<Ticket>,
    /// When the hub was last asked for what is due. The end of a grace is not noticed before the next time.
    asked_at: u64,
    /// From when to when no grace was ended because other nodes were not heard, the pauses between too short to end one.
    pub(crate) deaf: Option<(u64, u64)>,
    /// Purges that are not answered.
    pub(crate) purges: BTreeSet<Ticket>,
    pub(crate) texts: u64,
    /// The last chats with an id: who, where, and the id.
    pub(crate) said: Vec<(usize, usize, String)>,
    pub(crate) coverage: Coverage,
    pub(crate) digest: DefaultHasher,
    pub(crate) trace: Trace,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let settings = Settings::draw(&mut chance);
        let bus = match settings.bus {
            BusKind::Local => AnyBus::Local(Box::new(LocalBus::new(&settings.config, seed))),
            BusKind::Fake | BusKind::Lossy => {
                let most = settings.config.history.messages_max;
                AnyBus::Fake(Box::new(FakeBus::new(seed, settings.delay_steps_max, most)))
            }
        };
        let mut hub = Hub::new(&settings.config, Box::new(OpenPolicy));
        hub.share_presence();
        let owners = Owners::new(seed);
        let owner = |seat: usize| owners.api_key(&[(seat % settings.owners) as u8; 32]);
        let seats = (0..settings.seats).map(|seat| Seat::new(seat % settings.users, owner(seat), settings.rooms));
        let seats = seats.collect();
        Self {
            hub,
            now: Now { uptime: Duration::from_secs(1), unix_ms: 1_700_000_000_000 },
            bus,
            truth: Truth::new(settings.rooms),
            seats,
            slots: Vec::new(),
            serial: 0,
            closed: HashSet::new(),
            tickets: BTreeMap::new(),
            publications: 0,
            reads: 0,
            lost: BTreeMap::new(),
            in_grace: BTreeMap::new(),
            elsewhere: BTreeSet::new(),
            shared: BTreeSet::new(),
            checks: Vec::new(),
            kicked: BTreeSet::new(),
            commands: BTreeSet::new(),
            asked_at: 0,
            deaf: None,
            purges: BTreeSet::new(),
            texts: 0,
            said: Vec::new(),
            coverage: Coverage::default(),
            digest: DefaultHasher::new(),
            trace: Trace::new(seed, &settings),
            settings,
            chance,
        }
    }

    pub(crate) fn advance_clock(&mut self, millis: u64) {
        self.now.uptime += Duration::from_millis(millis);
        self.now.unix_ms += millis;
    }

    /// A name for a new connection: the lowest free slot, and a serial of its own.
    pub(crate) fn take_slot(&mut self, seat: usize) -> ConnectionId {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(seat);
        self.serial += 1;
        ConnectionId::new(slot as u32, self.serial)
    }

    /// A seat's connection is gone on the side of the hub.
    pub(crate) fn forget_link(&mut self, seat: usize) {
        let Some(link) = &self.seats[seat].link else { return };
        self.slots[link.id.slot.index()] = None;
        self.coverage.torn += link.torn;
        let user = self.seats[seat].user;
        for (room, view) in self.seats[seat].views.iter().enumerate() {
            if view.is_in() || !view.is_settled() {
                self.lost.insert((room, user), self.now.millis());
            }
        }
        self.seats[seat].lose_link();
    }

    /// Lets hub and bus talk until neither has anything to say.
    pub(crate) fn exchange(&mut self) {
        let is_ready = !self.chance.one_in(200);
        self.hub.handle_readiness(self.now, is_ready);
        if !is_ready {
            self.note_deaf();
        }
        if let Some(bus) = self.bus.fake() {
            bus.step();
        }
        for _ in 0..100_000 {
            while let Some(request) = self.hub.poll_bus_request() {
                self.pass_on(request);
            }
            // Who is on other nodes is known as long as they are heard.
            for room in self.checks.extract_if(.., |_| is_ready) {
                self.hub.handle_bus_event(self.now, BusEvent::PresenceChecked(room));
            }
            self.take_purged();
            let Some(event) = self.bus.bus().poll_event() else { return };
            let room = match &event {
                BusEvent::Published { ticket, .. } | BusEvent::Page { ticket, .. } => {
                    let room = self.tickets.remove(ticket);
                    room.unwrap_or_else(|| panic!("{ticket:?} is answered twice, or was never asked"))
                }
                BusEvent::Delivered { room, .. }
                | BusEvent::EpochChanged { room, .. }
                | BusEvent::Presence { room, .. }
                | BusEvent::PresenceChecked(room)
                | BusEvent::Signal(Signal { room, .. }) => Some(room.clone()),
                BusEvent::Control(_) | BusEvent::ControlLost { .. } | BusEvent::Restrictions(_) => None,
            };
            self.publications -= usize::from(matches!(event, BusEvent::Published { .. }));
            if let Some(room) = room {
                self.truth.observe(room_number(room.as_str()), &event);
            } else if let BusEvent::Published { ticket, outcome: Outcome::Accepted(_) } = &event {
                self.commands.insert(*ticket);
            }
            self.hub.handle_bus_event(self.now, event);
        }
        panic!("hub and bus talk forever");
    }

    fn take_purged(&mut self) {
        while let Some((ticket, purged)) = self.hub.poll_purged() {
            assert!(self.purges.remove(&ticket), "{ticket:?} is answered twice, or was never asked");
            self.coverage.purged += purged.deleted;
            self.coverage.purged_in_part += u64::from(!purged.is_complete);
        }
    }

    fn note_deaf(&mut self) {
        let now = self.now.millis();
        let since = self.deaf.filter(|(_, until)| until + DEAF_MILLIS >= now).map_or(self.asked_at, |(since, _)| since);
        self.deaf = Some((since, now));
    }

    fn pass_on(&mut self, request: BusRequest) {
        match &request {
            BusRequest::Open(room) => self.truth.open(room_number(room.as_str())),
            BusRequest::Close(room) => {
                let number = room_number(room.as_str());
                self.truth.close(number);
                assert!(!self.shared.iter().any(|(r, _)| *r == number), "somebody is present in a room that is closed");
                self.checks.retain(|checked| checked != room);
            }
            // As if this node had been told by another one.
            BusRequest::Signal(signal) => self.hub.handle_bus_event(self.now, BusEvent::Signal(signal.clone())),
            BusRequest::CheckPresence(room) => {
                assert!(self.truth.is_open(room_number(room.as_str())), "{room} is closed");
                assert!(!self.checks.contains(room), "two checks of {room} are under way");
                self.checks.push(room.clone());
            }
            BusRequest::Presence { room, change } => {
                let key = (room_number(room.as_str()), change.user.to_string());
                let is_news = match change.status {
                    PresenceStatus::Online => self.shared.insert(key),
                    PresenceStatus::Offline => self.shared.remove(&key),
                };
                assert!(is_news, "others are told twice: {change:?}");
            }
            BusRequest::Publish { ticket, publication } => {
                self.publications += 1;
                let known = self.tickets.insert(*ticket, Some(publication.room.clone()));
                assert!(known.is_none(), "{ticket:?} is used twice");
            }
            BusRequest::Delete { ticket, deletion } => {
                self.publications += 1;
                let known = self.tickets.insert(*ticket, Some(deletion.announcement.room.clone()));
                assert!(known.is_none(), "{ticket:?} is used twice");
            }
            BusRequest::Control { ticket, .. } | BusRequest::Restrict { ticket, .. } => {
                self.publications += 1;
                let known = self.tickets.insert(*ticket, None);
                assert!(known.is_none(), "{ticket:?} is used twice");
            }
            BusRequest::Read { ticket, room, from, .. } => {
                self.reads += usize::from(!matches!(from, ReadFrom::Before { .. }));
                let known = self.tickets.insert(*ticket, Some(room.clone()));
                assert!(known.is_none(), "{ticket:?} is used twice");
            }
        }
        let opened = match &request {
            BusRequest::Open(room) => Some(room_number(room.as_str())),
            _ => None,
        };
        self.bus.bus().submit(request);
        if let Some(room) = opened {
            self.tell_all_elsewhere(room);
        }
    }

    /// A user comes to a room on another node, or is on no other any more. The bus tells of it where the room is open here.
    pub(crate) fn move_elsewhere(&mut self, room: usize, user: String) {
        let key = (room, user);
        let status = if self.elsewhere.remove(&key) { PresenceStatus::Offline } else { PresenceStatus::Online };
        if status == PresenceStatus::Online {
            self.elsewhere.insert(key.clone());
        }
        if self.truth.is_open(room) {
            self.coverage.elsewhere += 1;
            // A bus may say it again.
            for _ in 0..=self.chance.below(2) {
                self.tell_elsewhere(room, &key.1, status);
            }
        }
    }

    fn tell_all_elsewhere(&mut self, room: usize) {
        let users: Vec<_> = self.elsewhere.iter().filter(|(r, _)| *r == room).map(|(_, user)| user.clone()).collect();
        for user in users {
            self.tell_elsewhere(room, &user, PresenceStatus::Online);
        }
    }

    fn tell_elsewhere(&mut self, room: usize, user: &str, status: PresenceStatus) {
        let user = UserId::new(user).expect("a user name");
        let change = PresenceChange { user, name: None, status };
        self.hub.handle_bus_event(self.now, BusEvent::Presence { room: room_name(room), change });
    }

    pub(crate) fn handle_deadlines(&mut self) {
        self.asked_at = self.now.millis();
        self.hub.handle_deadlines(self.now, &mut Now::default);
        self.bus.bus().begin_turn(self.now);
    }

    /// Own output goes to the connections.
    pub(crate) fn drain(&mut self) {
        let Self { hub, seats, slots, closed, bus, coverage, .. } = self;
        let mut gone = Vec::new();
        hub.poll_output(|output| match output {
            Output::Frames(id, frames) => {
                assert!(!closed.contains(&id), "frames for {id} after its close");
                note_joined(frames, bus);
                if let Some(link) = link_of(seats, slots, id) {
                    link.push_own(frames);
                }
            }
            Output::Close(id, reason) => {
                assert!(closed.insert(id), "{id} is closed twice");
                coverage.expired += u64::from(reason == CloseReason::TOKEN_EXPIRED);
                coverage.replaced += u64::from(reason == CloseReason::REPLACED);
                if link_of(seats, slots, id).is_some() {
                    gone.push(slots[id.slot.index()].expect("it has a link"));
                }
            }
        });
        for seat in gone {
            // Frames from before the close still go out, as far as the socket takes them.
            let _ = self.seats[seat].link.as_mut().is_some_and(Link::pump);
            self.read(seat);
            self.coverage.closed += 1;
            self.forget_link(seat);
        }
        for seat in 0..self.seats.len() {
            self.pump(seat);
        }
    }

    /// A seat's own output goes out as far as its socket takes it.
    pub(crate) fn pump(&mut self, seat: usize) {
        let Some(link) = &mut self.seats[seat].link else { return };
        if link.pump() {
            let id = link.id;
            self.hub.handle_drained(id);
        }
    }

    pub(crate) fn flush(&mut self, sends_max: u32) {
        let Self { hub, seats, slots, .. } = self;
        let took = Cell::new(Duration::ZERO);
        let clock = &mut || Now { uptime: self.now.uptime + took.get(), ..self.now };
        hub.poll_sends(self.now, sends_max, clock, &mut |Slot(slot), frames| {
            took.set(took.get() + Duration::from_micros(self.settings.send_micros));
            assert!(!frames.is_empty(), "an empty send to slot {slot}");
            let seat = slots.get(slot as usize).copied().flatten();
            let seat = seat.unwrap_or_else(|| panic!("a send to slot {slot}, which nobody has"));
            seats[seat].link.as_mut().expect("a taken slot has a link").send(frames)
        });
        self.now.uptime += took.get();
        for seat in 0..self.seats.len() {
            self.read(seat);
        }
    }

    /// A client takes in what it has received.
    pub(crate) fn read(&mut self, seat: usize) {
        let Self { seats, truth, coverage, digest, settings, bus, .. } = self;
        while let Some(frame) = seats[seat].link.as_mut().and_then(Link::next_frame) {
            digest.write_usize(seat);
            digest.write(&frame);
            if let Err(words) = seats[seat].receive(&frame, truth, coverage) {
                panic!("seat {seat} (u{}): {words}", seats[seat].user);
            }
            for (room, view) in seats[seat].views.iter_mut().enumerate() {
                let Some(left_out) = view.left_out.take() else { continue };
                let (name, epoch) = (room_name(room), truth.epoch_of(room, left_out));
                // After a delivery was lost, the hub does not know what history holds.
                if settings.bus == BusKind::Fake && bus.fake().is_some_and(|bus| bus.holds(&name, &epoch, left_out.seq))
                {
                    panic!("seat {seat}: r{room}: {left_out:?} was left out, though history holds it");
                }
            }
        }
    }

    /// The checks after every step.
    pub(crate) fn check_bounds(&self) {
        let stats = self.hub.stats();
        let most = self.settings.config.hub.log_bytes_total_max + FRAME_BYTES_MAX;
        assert!(stats.log_bytes <= most, "{} bytes in logs exceed {most}", stats.log_bytes);
        // A room whose round is delayed is no work, but the hub must ask to be called again.
        let waits = !self.hub.is_flushed() && !self.hub.has_work() && self.publications == 0;
        assert!(!waits || self.hub.timeout(self.now).is_some(), "something is owed, and nothing would wake the loop");
        assert!(
            self.publications <= self.settings.config.hub.publications_pending_max,
            "{} publications pending",
            self.publications
        );
        for (at, seat) in self.seats.iter().enumerate() {
            let bytes = seat.link.as_ref().map_or(0, Link::own_bytes);
            let most = self.settings.config.net.output_bytes_max;
            assert!(bytes <= most, "{bytes} bytes of own output at seat {at} exceed {most}");
        }
        let links = self.seats.iter().filter(|seat| seat.link.is_some()).count();
        assert!(stats.connections <= links, "{} connections, {links} links", stats.connections);
    }

    pub(crate) fn tickets_pending(&self) -> usize {
        self.tickets.len()
    }
}

fn link_of<'a>(seats: &'a mut [Seat], slots: &[Option<usize>], id: ConnectionId) -> Option<&'a mut Link> {
    let seat = slots.get(id.slot.index()).copied().flatten()?;
    seats[seat].link.as_mut().filter(|link| link.id == id)
}

/// Once somebody was told where a room stands, the hub knows the room's epoch.
fn note_joined(frames: &[u8], bus: &mut AnyBus) {
    let Some(bus) = bus.fake() else { return };
    let mut rest = frames;
    while !rest.is_empty() {
        let (frame, behind) = rest.split_at(roomcast::internals::frame::boundary_after(rest, 1));
        rest = behind;
        let text = super::transport::text_payload(frame).unwrap_or_default();
        if let Some(room) = text.strip_prefix(r#"{"type":"joined","room":""#) {
            let room = room.split('"').next().unwrap_or_default();
            bus.note_known(&RoomName::new(room).expect("a room name"));
        }
    }
}
