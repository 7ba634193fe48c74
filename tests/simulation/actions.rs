//! The actions of clients, sockets, the host and other nodes, drawn at random.

use roomcast::bus::Ticket;
use roomcast::internals::protocol::{self, Chat};
use roomcast::internals::{Moderation, NewConnection, RefreshedIdentity, TokenRefresh, Validity};
use roomcast::{CloseReason, HubStats};
use roomcast::{ConnectionId, ErrorCode, Grants, Restriction, RestrictionTarget, UserId};
use roomcast::{HostPublication, MessageRef, Owner};

use super::chance::Chance;
use super::fake_bus::FakeBus;
use super::look_back::LookBack;
use super::seat::user_name;
use super::settings::{BusKind, Settings};
use super::transport::Link;
use super::truth::room_name;
use super::view::Join;
use super::world::World;

/// One step. Seats, rooms and users are named by number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    Connect { seat: usize },
    Join { seat: usize, room: usize },
    JoinAll { seat: usize },
    Leave { seat: usize, room: usize },
    Chat { seat: usize, room: usize },
    ChatAgain { seat: usize },
    Typing { seat: usize, room: usize },
    LookBack { seat: usize, room: usize },
    Ping { seat: usize },
    Refresh { seat: usize },
    Garbage { seat: usize },
    Slow { seat: usize, bytes: usize },
    Stall { seat: usize },
    Recover { seat: usize },
    Disconnect { seat: usize },
    Stalled { seat: usize },
    Close { seat: usize },
    Flush { sends_max: u32 },
    HostChat { room: usize },
    Elsewhere { room: usize, messages: usize },
    MoveElsewhere { room: usize, user: usize },
    ChangeEpoch { room: usize },
    ForgetOldest { room: usize },
    LoseDelivery { room: usize },
    Kick { room: usize, user: usize },
    KickForSure { room: usize, user: usize },
    CloseEverywhere { user: usize },
    CommandElsewhere { room: usize, user: usize, age_millis: u64 },
    LoseCommands,
    Restrict { user: usize, kind: u64, life: Option<u64> },
    Lift { user: usize, kind: u64 },
    Delete { room: usize },
    Purge { user: usize, room: Option<usize> },
    Wait { millis: u64 },
    Sicken,
    Settle,
}

/// The state that a drawn action depends on.
struct Draw<'a> {
    chance: &'a mut Chance,
    settings: &'a Settings,
    seat: usize,
    room: usize,
}

impl Draw<'_> {
    fn user(&mut self) -> usize {
        self.chance.index(self.settings.users)
    }

    /// A user, or one of two that are never here.
    fn user_or_stranger(&mut self) -> usize {
        self.chance.index(self.settings.users + 2)
    }

    fn free_bytes(&mut self) -> usize {
        let bound = self.chance.pick(&[4, 300, 3000, 20_000]);
        1 + self.chance.index(bound)
    }
}

/// How often an action is drawn, compared with the others, and how its parameters are.
type Choice = (u32, fn(&mut Draw<'_>) -> Action);

fn client_choices(recovery: u32) -> [Choice; 18] {
    [
        (60, |draw| Action::Connect { seat: draw.seat }),
        (70, |draw| Action::Join { seat: draw.seat, room: draw.room }),
        (4, |draw| Action::JoinAll { seat: draw.seat }),
        (20, |draw| Action::Leave { seat: draw.seat, room: draw.room }),
        (200, |draw| Action::Chat { seat: draw.seat, room: draw.room }),
        (10, |draw| Action::ChatAgain { seat: draw.seat }),
        (15, |draw| Action::Typing { seat: draw.seat, room: draw.room }),
        (40, |draw| Action::LookBack { seat: draw.seat, room: draw.room }),
        (5, |draw| Action::Ping { seat: draw.seat }),
        (5, |draw| Action::Refresh { seat: draw.seat }),
        (6, |draw| Action::Garbage { seat: draw.seat }),
        (30, |draw| Action::Slow { seat: draw.seat, bytes: draw.free_bytes() }),
        (20, |draw| Action::Stall { seat: draw.seat }),
        (recovery * 2, |draw| Action::Recover { seat: draw.seat }),
        (12, |draw| Action::Disconnect { seat: draw.seat }),
        (8, |draw| Action::Stalled { seat: draw.seat }),
        (1, |draw| Action::Close { seat: draw.seat }),
        (250, |draw| Action::Flush { sends_max: draw.chance.pick(&[1, 1, 2, 3, 8, 64, 1000]) }),
    ]
}

const OTHER_CHOICES: [Choice; 18] = [
    (20, |draw| Action::HostChat { room: draw.room }),
    (30, |draw| Action::Elsewhere { room: draw.room, messages: draw.chance.pick(&[1, 1, 3, 20, 60]) }),
    (12, |draw| Action::MoveElsewhere { room: draw.room, user: draw.user_or_stranger() }),
    (2, |draw| Action::ChangeEpoch { room: draw.room }),
    (2, |draw| Action::ForgetOldest { room: draw.room }),
    (6, |draw| Action::LoseDelivery { room: draw.room }),
    (6, |draw| Action::Kick { room: draw.room, user: draw.user_or_stranger() }),
    (1, |draw| Action::KickForSure { room: draw.room, user: draw.user() }),
    (1, |draw| Action::CloseEverywhere { user: draw.user() }),
    (4, |draw| Action::CommandElsewhere {
        room: draw.room,
        user: draw.user(),
        age_millis: draw.chance.pick(&[0, 0, 3000, 60_000, 3_600_000]),
    }),
    (2, |_| Action::LoseCommands),
    (4, |draw| Action::Restrict {
        user: draw.user(),
        kind: draw.chance.below(4),
        life: draw.chance.pick(&[None, Some(1000), Some(5000), Some(60_000)]),
    }),
    (12, |draw| Action::Lift { user: draw.user(), kind: draw.chance.below(4) }),
    (16, |draw| Action::Delete { room: draw.room }),
    (2, |draw| Action::Purge { user: draw.user(), room: if draw.chance.one_in(2) { Some(draw.room) } else { None } }),
    (4, |draw| Action::Wait { millis: draw.chance.pick(&[300, 1200, 3000, 3000, 20_000, 300_000]) }),
    (2, |_| Action::Sicken),
    (1, |_| Action::Settle),
];

impl Action {
    pub(crate) fn draw(world: &mut World) -> Self {
        let World { chance, settings, .. } = world;
        let seat = chance.index(settings.seats);
        let room = chance.index(settings.rooms);
        let choices = [client_choices(settings.recovery).as_slice(), &OTHER_CHOICES].concat();
        let choice = chance.weighted(&choices);
        choice(&mut Draw { chance, settings, seat, room })
    }
}

impl World {
    pub(crate) fn perform(&mut self, action: Action) {
        match action {
            Action::Connect { seat } => self.connect(seat),
            Action::Join { seat, room } => self.join(seat, room),
            Action::JoinAll { seat } => (0..self.settings.rooms).for_each(|room| self.join(seat, room)),
            Action::Leave { seat, room } => self.leave(seat, room),
            Action::Chat { seat, room } => self.chat(seat, room),
            Action::ChatAgain { seat } => self.chat_again(seat),
            Action::Typing { seat, room } => {
                let status = self.chance.pick(&["start", "stop", "stop", "?"]);
                self.say(seat, &format!(r#"{{"type":"typing","room":"r{room}","status":"{status}"}}"#));
            }
            Action::LookBack { seat, room } => self.look_back(seat, room),
            Action::Ping { seat } => drop(self.say(seat, r#"{"type":"ping","id":"p"}"#)),
            Action::Refresh { seat } => self.refresh(seat),
            Action::Garbage { seat } => self.garbage(seat),
            Action::Slow { seat, bytes } => self.set_space(seat, bytes),
            Action::Stall { seat } => self.set_space(seat, 0),
            Action::Recover { seat } => self.set_space(seat, usize::MAX),
            Action::Disconnect { seat } => self.disconnect(seat),
            Action::Stalled { seat } => {
                if let Some(link) = self.seats[seat].link.as_ref().filter(|link| link.is_owed()) {
                    self.coverage.stalled += 1;
                    self.hub.handle_stalled(self.now, link.id);
                }
            }
            Action::Close { seat } => {
                if let Some(link) = &self.seats[seat].link {
                    self.hub.close(self.now, link.id, CloseReason::CLOSED);
                }
            }
            Action::Flush { sends_max } => {
                self.drain();
                self.flush(sends_max);
            }
            Action::HostChat { room } => self.host_chat(room),
            Action::Elsewhere { room, messages } => self.elsewhere(room, messages),
            Action::MoveElsewhere { room, user } => self.move_elsewhere(room, user_name(user)),
            Action::ChangeEpoch { room } => self.change_epoch(room),
            Action::ForgetOldest { room } => self.with_fake(|bus| bus.forget_oldest(&room_name(room))),
            Action::LoseDelivery { room } => {
                if self.settings.bus == BusKind::Lossy {
                    self.with_fake(|bus| bus.lose_delivery(&room_name(room)));
                }
            }
            Action::Kick { room, user } => drop(self.kick(room, user)),
            Action::KickForSure { room, user } => self.kick_for_sure(room, user),
            Action::CloseEverywhere { user } => {
                let user = UserId::new(&user_name(user)).expect("a user name");
                let _ = self
                    .hub
                    .moderate_for_host(self.now, &Moderation::Disconnect { user, reason: CloseReason::EXPELLED });
            }
            Action::CommandElsewhere { room, user, age_millis } => self.command_elsewhere(room, user, age_millis),
            Action::LoseCommands => {
                self.with_fake(FakeBus::lose_commands);
            }
            Action::Restrict { user, kind, life } => self.restrict(user, kind, life),
            Action::Lift { user, kind } => self.lift(user, kind),
            Action::Delete { room } => self.delete(room),
            Action::Purge { user, room } => self.purge(user, room),
            Action::Wait { millis } => self.advance_clock(millis),
            Action::Sicken => self.sicken(),
            Action::Settle => self.settle(),
        }
    }

    /// Bans or mutes a user, here or on another node.
    fn restrict(&mut self, user: usize, kind: u64, life: Option<u64>) {
        let expires_at = life.map(|millis| self.now.unix_ms + millis);
        let restriction = Restriction { expires_at, ..Restriction::new(target(user, kind)) };
        self.moderate_anywhere(&Moderation::Restrict(restriction));
    }

    /// Deletes a message, most often one that is there.
    fn delete(&mut self, room: usize) {
        let Some(live) = self.truth.live(room) else { return };
        let near = live.seq + 1 - self.chance.below(live.seq.min(20) + 1);
        let seq = self.chance.pick(&[live.seq, 1, near, near]);
        let epoch = if self.chance.one_in(2) { Some(self.truth.epoch_of(room, live)) } else { None };
        let _ = self.hub.delete_for_host(self.now, &MessageRef { room: room_name(room), seq, epoch });
    }

    fn purge(&mut self, user: usize, room: Option<usize>) {
        let user = UserId::new(&user_name(user)).expect("a user name");
        let room = room.map(room_name);
        // Refused when too many are under way.
        self.purges.extend(self.hub.purge_for_api(self.now, Owner::HOST, (&user, room.as_ref())).ok());
    }

    fn lift(&mut self, user: usize, kind: u64) {
        self.moderate_anywhere(&Moderation::Lift(target(user, kind)));
    }

    fn moderate_anywhere(&mut self, moderation: &Moderation) {
        // Refused when too many wait.
        let _ = self.hub.moderate_for_host(self.now, moderation);
        if self.chance.one_in(3)
            && let (Some(change), Some(bus)) = (moderation.change(), self.bus.fake())
        {
            bus.restrict_elsewhere(&change, moderation.body(self.now).to_vec());
        }
    }

    fn with_fake(&mut self, act: impl FnOnce(&mut super::fake_bus::FakeBus)) {
        if let Some(bus) = self.bus.fake() {
            act(bus);
        }
    }

    /// Brings a new token, which is good for another time, or not at all.
    fn refresh(&mut self, seat: usize) {
        self.say(seat, r#"{"type":"refresh","token":"t","id":"f"}"#);
        let Some(TokenRefresh { connection, user, .. }) = self.hub.poll_refresh() else { return };
        let expires_at = Some(self.now.unix_ms + self.chance.pick(&[5_000, 100_000, 1_000_000]));
        let validity = Validity { expires_at, key: None, grants: Some(Grants::everything()) };
        let identity = RefreshedIdentity { user: Some(user), name: None, validity };
        let bad = (ErrorCode::InvalidToken, "the token is not accepted".to_owned());
        let outcome = if self.chance.one_in(4) { Err(bad) } else { Ok(identity) };
        self.hub.finish_refresh(self.now, connection, outcome);
    }

    pub(crate) fn connect(&mut self, seat: usize) {
        if self.seats[seat].link.is_some() {
            return;
        }
        let user = UserId::new(&user_name(self.seats[seat].user)).expect("a user name");
        if self.hub.bans(self.now, &user) {
            // The server refuses the handshake.
            self.coverage.banned += 1;
            return;
        }
        let id = self.take_slot(seat);
        let name = self.chance.pick(&[None, Some("Ann"), Some("Zoë \"quoted\"")]);
        let owner = self.seats[seat].owner;
        self.seats[seat].connect(Link::new(id));
        let life = self.chance.pick(&[None, None, Some(60_000), Some(1_000_000)]);
        let expires_at = life.map(|millis| self.now.unix_ms + millis);
        let validity = Validity { expires_at, ..Validity::default() };
        self.hub.connect(self.now, id, NewConnection { name, validity, ..NewConnection::new(&user, owner) });
    }

    pub(crate) fn disconnect(&mut self, seat: usize) {
        let Some(link) = &self.seats[seat].link else { return };
        self.hub.disconnect(self.now, link.id);
        self.read(seat);
        let user = self.seats[seat].user;
        for room in 0..self.settings.rooms {
            let is_leaving = self.seats.iter().any(|seat| seat.user == user && seat.views[room].is_leaving());
            if self.seats[seat].views[room].is_in() && !is_leaving {
                self.in_grace.insert((room, user), self.now.millis());
            }
        }
        self.forget_link(seat);
    }

    pub(crate) fn set_space(&mut self, seat: usize, bytes: usize) {
        if let Some(link) = &mut self.seats[seat].link {
            link.set_space(bytes);
            self.pump(seat);
            self.read(seat);
        }
    }

    /// A client sends a text; says whether the hub has looked at it.
    pub(crate) fn say(&mut self, seat: usize, text: &str) -> bool {
        let Some(id) = self.readable(seat) else { return false };
        let before = self.hub.stats();
        assert!(text.len() <= self.settings.config.net.message_bytes_max, "net refuses such texts");
        self.hub.handle_text(self.now, id, text);
        let after = self.hub.stats();
        self.coverage.rate_limited += after.rate_limited - before.rate_limited;
        self.coverage.deliveries_limited += after.deliveries_limited - before.deliveries_limited;
        self.coverage.owner_limited += after.owner_limited - before.owner_limited;
        let refused = |stats: &HubStats| (stats.rate_limited, stats.owner_limited);
        refused(&after) == refused(&before) && after.connections == before.connections
    }

    /// The connection of a seat, unless it is not read because its own output is above half its bound.
    fn readable(&self, seat: usize) -> Option<ConnectionId> {
        let link = self.seats[seat].link.as_ref()?;
        (link.own_bytes() <= self.settings.config.net.output_bytes_max / 2).then_some(link.id)
    }

    pub(crate) fn next_text(&mut self) -> u64 {
        self.texts += 1;
        self.texts
    }

    fn join(&mut self, seat: usize, room: usize) {
        let id = format!("j{}", self.next_text());
        let choice = self.chance.below(10);
        let is_told = (4..8).contains(&choice);
        let since = match choice {
            0..4 => None,
            4..8 => self.seats[seat].known[room].map(|at| (Some(at.epoch), at.seq)),
            8 => Some((self.truth.live(room).map(|at| at.epoch), self.chance.below(200))),
            _ => self.seen_elsewhere(room),
        };
        let most = self.settings.config.history.messages_max;
        let history = self.chance.pick(&[0, 0, 1, 5, most, most]).min(most);
        let mut text = format!(r#"{{"type":"join","room":"r{room}","id":"{id}","history":{history}"#);
        if let Some((epoch, seq)) = since {
            let epoch = epoch.map(|epoch| self.truth.epoch_of(room, super::truth::Position { epoch, seq }));
            let epoch = epoch.as_ref().map_or("never", |epoch| epoch.as_str());
            text += &format!(r#","since":{{"epoch":"{epoch}","seq":{seq}}}"#);
        }
        text += "}";
        if self.say(seat, &text) {
            self.seats[seat].views[room].join_sent(Join { id, since, is_told });
        }
    }

    /// A position that a client may have from another node, which is ahead of this one.
    fn seen_elsewhere(&mut self, room: usize) -> Option<(Option<usize>, u64)> {
        let (epoch, top) = self.bus.fake()?.top(&room_name(room));
        let epoch = self.truth.epoch(room, epoch.as_str());
        Some((Some(epoch), top - self.chance.below(top.min(3) + 1)))
    }

    fn leave(&mut self, seat: usize, room: usize) {
        let id = format!("l{}", self.next_text());
        if self.say(seat, &format!(r#"{{"type":"leave","room":"r{room}","id":"{id}"}}"#)) {
            self.seats[seat].views[room].leave_sent(id);
            self.in_grace.remove(&(room, self.seats[seat].user));
        }
    }

    fn look_back(&mut self, seat: usize, room: usize) {
        let id = format!("o{}", self.next_text());
        let at = self.truth.live(room);
        let top = at.map_or(0, |at| at.seq);
        let before = match self.chance.below(4) {
            0 => None,
            1 => Some(top + self.chance.below(3)),
            _ => Some(self.chance.below(top + 1)),
        };
        let limit = self.chance.pick(&[1, 2, 20, 100]);
        let mut text = format!(r#"{{"type":"history","room":"r{room}","id":"{id}","limit":{limit}"#);
        if let Some(before) = before {
            text += &format!(r#","before":{before}"#);
        }
        text += "}";
        if self.say(seat, &text) {
            self.seats[seat].looks_back.sent(id, LookBack { room, before, limit, at });
        }
    }

    /// A text that nobody has said before.
    fn words(&mut self) -> String {
        let number = self.next_text();
        let most = if self.chance.one_in(3) { self.settings.text_bytes } else { 40 };
        let bytes = self.chance.below(most.min(self.settings.config.net.message_bytes_max as u64 - 400));
        format!("t{number} {}", "x".repeat(bytes as usize))
    }

    fn chat(&mut self, seat: usize, room: usize) {
        let id = if self.chance.one_in(3) { None } else { Some(format!("c{}", self.next_text())) };
        self.chat_with(seat, room, id);
    }

    fn chat_with(&mut self, seat: usize, room: usize, id: Option<String>) {
        let words = self.words();
        let data_bytes = self.chance.pick(&[0, 0, 0, 10, 70, 200]);
        let mut text = format!(r#"{{"type":"chat","room":"r{room}","text":"{words}""#);
        if data_bytes > 0 {
            text += &format!(r#","data":{{"k":[1, {}]}}"#, "9".repeat(data_bytes));
        }
        if let Some(id) = &id {
            text += &format!(r#","id":"{id}""#);
        }
        text += "}";
        if self.say(seat, &text)
            && let Some(id) = id
        {
            self.seats[seat].chat_sent(&id, room);
            self.said.push((self.seats[seat].user, room, id));
            self.said.drain(..self.said.len().saturating_sub(8));
        }
    }

    fn chat_again(&mut self, seat: usize) {
        let user = self.seats[seat].user;
        if let Some((_, room, id)) = self.said.iter().find(|(who, ..)| *who == user).cloned() {
            self.chat_with(seat, room, Some(id));
        }
    }

    fn garbage(&mut self, seat: usize) {
        let long = "i".repeat(65);
        let texts = [
            "",
            "[]",
            "{}",
            "{\"type\":",
            r#"{"type":"dance","room":"r0"}"#,
            r#"{"type":"join"}"#,
            r#"{"type":"join","room":"no blanks"}"#,
            r#"{"type":"join","room":"r0","history":4000000000}"#,
            r#"{"type":"join","room":"r0","since":5}"#,
            r#"{"type":"chat","room":"r0","text":""}"#,
            r#"{"type":"leave","room":"r9"}"#,
            &format!(r#"{{"type":"ping","id":"{long}"}}"#),
        ];
        let text = self.chance.pick(&texts);
        self.say(seat, text);
    }

    fn host_chat(&mut self, room: usize) {
        let text = self.words();
        let id = if self.chance.one_in(2) { Some(format!("h{}", self.next_text())) } else { None };
        let user = UserId::new("host").expect("a user name");
        let publication =
            HostPublication { room: room_name(room), user, name: Some("Host".to_owned()), text, data: None, id };
        // Refused when too many wait.
        let _ = self.hub.publish_for_host(self.now, &publication);
    }

    /// Refused when too many wait.
    fn kick(&mut self, room: usize, user: usize) -> Option<Ticket> {
        self.kicked.insert((room, user));
        let kick =
            Moderation::Kick { room: room_name(room), user: UserId::new(&user_name(user)).expect("a user name") };
        self.hub.moderate_for_host(self.now, &kick).ok()
    }

    /// With nothing else in between: if the bus took the command, the user is out.
    fn kick_for_sure(&mut self, room: usize, user: usize) {
        let Some(ticket) = self.kick(room, user) else { return };
        self.settle();
        if !self.commands.contains(&ticket) {
            return;
        }
        self.coverage.kicked_for_sure += 1;
        // No grace is left to it, either.
        self.lost.remove(&(room, user));
        self.check_presence(room);
        for (at, seat) in self.seats.iter().enumerate().filter(|(_, seat)| seat.user == user) {
            assert!(!seat.views[room].is_in(), "seat {at} (u{user}) was kicked out of r{room} and is still in it");
        }
    }

    /// Another node has somebody kicked, or closed, and may have said so long ago.
    fn command_elsewhere(&mut self, room: usize, user: usize, age_millis: u64) {
        let (name, ts) = (user_name(user), self.now.unix_ms - age_millis);
        let body = match self.chance.below(4) {
            0 => format!(r#"{{"type":"disconnect","userId":"{name}","code":4600,"reason":"out","ts":{ts}"#),
            1 => format!(r#"{{"type":"dance","userId":"{name}","ts":{ts}"#),
            _ => {
                self.kicked.insert((room, user));
                format!(r#"{{"type":"kick","room":"r{room}","userId":"{name}","ts":{ts}"#)
            }
        };
        self.with_fake(|bus| bus.command_elsewhere(body.into_bytes()));
    }

    /// The body of a message that another node has taken.
    fn body(&mut self, room: usize) -> Vec<u8> {
        let (text, room, ts) = (self.words(), room_name(room), self.now.unix_ms);
        protocol::chat_body(&Chat {
            room: room.as_str(),
            user_id: "remote",
            name: None,
            text: &text,
            data: None,
            id: None,
            ts,
        })
    }

    fn elsewhere(&mut self, room: usize, messages: usize) {
        if self.settings.bus == BusKind::Local {
            return (0..messages).for_each(|_| self.host_chat(room));
        }
        for _ in 0..messages {
            let body = self.body(room);
            self.with_fake(|bus| bus.publish_elsewhere(&room_name(room), body));
        }
    }

    fn change_epoch(&mut self, room: usize) {
        let bodies = (0..self.chance.below(4)).map(|_| self.body(room)).collect();
        self.with_fake(|bus| bus.change_epoch(&room_name(room), bodies));
    }
}

/// A ban, or a mute everywhere or in one of two rooms.
fn target(user: usize, kind: u64) -> RestrictionTarget {
    let user = UserId::new(&user_name(user)).expect("a user name");
    match kind {
        0 => RestrictionTarget::BannedUser(user),
        1 => RestrictionTarget::Muted { user, room: None },
        other => RestrictionTarget::Muted { user, room: Some(room_name(other as usize - 2)) },
    }
}
