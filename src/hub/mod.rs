//! What is said to whom: rooms, members, presence, policy.
//!
//! Sans-IO: no sockets, no clock, no randomness. What happens comes in through methods that take the time. What is to be
//! done is polled: [`Hub::poll_bus_request`] for the bus, [`Hub::poll_output`] for single connections,
//! [`Hub::poll_sends`] for what rooms owe their members, [`Hub::poll_notice`] for the host, [`Hub::poll_answer`] for the
//! HTTP API. The loop contract in one sentence: *hand in what happened, then poll until nothing is left.*
//!
//! A hub is composed of a few parts, each of which keeps its own rules:
//!
//! - `Connections` (`connection.rs`): by slot, with their memberships and rate limits (`rate_limit.rs`).
//! - `Credentials` (`credentials.rs`): until when the identities of connections are good, by which keys, and for which rooms.
//! - `Users` (`users.rs`): by number and by name, counted by what holds them.
//! - `UserLimit` (`user_limit.rs`): how many connections a user may have, and which one gives way.
//! - `Rooms` (`rooms.rs`): by index and by name, and what their logs hold together. A room has a `Fanout`
//!   (`fanout.rs`: log, round, promised bytes), `Members` (`members.rs`: live, blocked, catching up, leaving),
//!   a `Schedule` and `RoomUsers` (`room_users.rs`: who is present, and who learns that it changes). A member that
//!   catches up is a `CatchUp` (`reader.rs`).
//!   `Account` (`account.rs`) is what they and their members are charged to owners.
//! - `Scheduler` (`scheduler.rs`): whose turn it is, in two queues that are fair to owners (`FairQueue`), and the batch
//!   delay.
//! - `OwnerRates` (`owner_rates.rs`), twice: how many deliveries an owner may cause, and how many messages it may send.
//! - `SlowMode` (`slow_mode.rs`): when users may speak again in slow rooms.
//! - `Timers` (`timers.rs`): what is looked at again, and when; with the `Graces` (`graces.rs`).
//! - `Pending` (`pending.rs`): what the bus is asked, and where each answer goes. Its `Reads` (`reads.rs`) are the pages of history
//!   that wait.
//! - `Purges` (`purges.rs`): whose messages are being deleted, and how far that has come.
//! - `Moderator` (`moderation/moderator.rs`): commands for all nodes.
//! - `RestrictionState` (`moderation/restriction_state.rs`): bans, mutes, and the addresses that connections come from.
//! - `RoomQuestions` (`room_questions.rs`): what is asked about single rooms, until it is answered.
//! - `Outgoing` (`outgoing.rs`): what connections and the host are told.
//!
//! A method is the hub's if it needs three of these parts or more. What needs one or two is a method of the part.
//!
//! `index.rs` has the types of the numbers by which these parts speak of each other. A member's place in its room's lists
//! and its connection's memory of that place change only in `Members`, together. The other files are what happens when
//! something comes in: each handler calls the parts in order.

mod account;
mod arrivals;
mod budget;
mod catch_up;
mod charged_members;
mod connection;
mod credentials;
#[cfg(test)]
mod crowd_tests;
mod deletion;
mod delivery;
mod error_reply;
mod fanout;
mod flush;
mod graces;
mod history;
mod holds;
mod identities;
mod index;
mod key_check;
mod leaving;
mod log_quota;
mod log_space;
mod members;
mod membership;
mod moderation;
mod notice;
mod outbox;
mod outgoing;
mod owner_rates;
mod pending;
mod policy;
mod presence;
mod presence_checks;
mod publish;
mod purge;
mod purges;
mod rate_limit;
mod rate_refusals;
mod reader;
mod reads;
mod refresh;
mod room;
mod room_answers;
mod room_list;
mod room_questions;
mod room_users;
mod rooms;
mod schedule;
mod scheduler;
mod signals;
mod slow_mode;
mod speakers;
mod stalls;
mod stats;
mod timers;
mod user_limit;
mod users;

use std::collections::VecDeque;
use std::time::Duration;

use self::account::Held;
pub use self::credentials::{RefreshedIdentity, TokenRefresh, Validity};
pub use self::deletion::MessageRef;
pub(crate) use self::error_reply::Refused;
pub use self::moderation::Moderation;
pub use self::notice::{ChatFields, Notice};
pub use self::outbox::Output;
pub use self::policy::{Caller, OpenPolicy, Policy};
pub use self::publish::HostPublication;
pub use self::purges::Purged;
pub(crate) use self::reads::HistoryQuestion;
pub(crate) use self::room_list::RoomSummary;
pub(crate) use self::room_questions::{PresentUser, RoomAnswer, RoomContent, RoomDetail, RoomQuestion, UserPage};
pub use self::stats::HubStats;

use self::connection::{Connection, Connections, MessageCounts};
use self::credentials::Credentials;
use self::error_reply::ErrorReply;
use self::index::RoomRef;
use self::members::Parting;
use self::moderation::{CommandBudget, Moderator, RestrictionState};
use self::notice::Notices;
use self::outgoing::Outgoing;
use self::owner_rates::OwnerRates;
use self::pending::Pending;
use self::presence_checks::PresenceChecks;
use self::purges::Purges;
use self::rate_limit::Verdict;
use self::room_questions::RoomQuestions;
use self::rooms::{LogCounts, Rooms};
use self::scheduler::Scheduler;
use self::slow_mode::SlowMode;
use self::timers::{Timer, Timers};
use self::user_limit::UserLimit;
use self::users::Users;
use crate::budget::WorkBudget;
use crate::bus::message::BusRequest;
use crate::id::{ConnectionId, UserId, name_heap_bytes};
use crate::owner::Owner;
use crate::protocol::{ClientMessage, CloseReason, ServerMessage, WelcomeLimits};
use crate::restrictions::PeerAddress;
use crate::settings::{Config, HistoryLimits, HubLimits, NetLimits, Timing};
use crate::time::Now;
use crate::timer_wheel::LOOKS_PER_TURN;
use crate::unicode;

/// A connection that was upgraded: whose it is.
#[derive(Clone, Debug)]
pub struct NewConnection<'a> {
    /// Its user.
    pub user: &'a UserId,
    /// A name to show beside the user's; at most 64 characters are kept.
    pub name: Option<&'a str>,
    /// What its costs are charged to.
    pub owner: Owner,
    /// The address that it comes from, if that is known.
    pub address: Option<PeerAddress>,
    /// Until when its identity is good, and for which rooms.
    pub validity: Validity,
}

impl<'a> NewConnection<'a> {
    /// A connection without a name to show, whose identity is good for ever and has no grants.
    pub fn new(user: &'a UserId, owner: Owner) -> Self {
        Self { user, name: None, owner, address: None, validity: Validity::default() }
    }
}

/// Rooms, members and users. The module has the contract of its loop.
pub struct Hub {
    settings: Settings,
    policy: Box<dyn Policy>,
    connections: Connections,
    credentials: Credentials,
    /// A new token that has to be looked at.
    refresh: Option<TokenRefresh>,
    users: Users,
    user_limit: UserLimit,
    rooms: Rooms,
    scheduler: Scheduler,
    delivery_rates: OwnerRates,
    message_rates: OwnerRates,
    slow_mode: SlowMode,
    timers: Timers,
    pending: Pending,
    purges: Purges,
    moderator: Moderator,
    restrictions: RestrictionState,
    /// Until when it is doubtful who is on other nodes.
    deaf_until: Duration,
    presence_checks: PresenceChecks,
    questions: RoomQuestions,
    out: Outgoing,
    /// Rooms of which members wait only for their turn to leave. Some come more than once, at most once an answer of the bus.
    level_rooms: VecDeque<RoomRef>,
    /// See [`Hub::take_work`].
    work: u32,
}

/// The settings that concern the hub.
struct Settings {
    hub: HubLimits,
    net: NetLimits,
    /// With the most messages and the longest time of any room.
    history: HistoryLimits,
    timing: Timing,
}

impl Hub {
    /// A hub without connections. `config` has been checked.
    pub fn new(config: &Config, policy: Box<dyn Policy>) -> Self {
        let (limits, mut history) = (config.room_limits(), config.history.clone());
        (history.messages_max, history.age_max) = (limits.history_messages_most(), limits.history_age_most());
        Self {
            settings: Settings {
                hub: config.hub.clone(),
                net: config.net.clone(),
                history,
                timing: config.timing.clone(),
            },
            policy,
            connections: Connections::new((config.net.connections_max + config.net.connections_reserved) as usize),
            credentials: Credentials::new(config.default_grants.clone()),
            refresh: None,
            users: Users::default(),
            user_limit: UserLimit::new(config),
            rooms: Rooms::new(config),
            scheduler: Scheduler::new(config.timing.batch_delay),
            delivery_rates: OwnerRates::new(config.hub.deliveries_per_owner),
            message_rates: OwnerRates::new(config.hub.messages_per_owner),
            slow_mode: SlowMode::default(),
            timers: Timers::new(config.timing.members_interval),
            pending: Pending::new(config.hub.publications_pending_max, config.memory_shares().publications),
            purges: Purges::default(),
            moderator: Moderator::default(),
            restrictions: RestrictionState::default(),
            deaf_until: Duration::ZERO,
            presence_checks: PresenceChecks::default(),
            questions: RoomQuestions::default(),
            out: Outgoing::new(Notices::new(config.notices, config.hub.notices_max)),
            level_rooms: VecDeque::new(),
            work: 0,
        }
    }

    /// Whether a user has a connection here or is in grace.
    pub fn knows_user(&self, user: &UserId) -> bool {
        self.users.find(user.as_str()).is_some()
    }

    /// Whether a connection of a user is to be refused, because as many are here as are allowed.
    pub fn refuses_another(&mut self, user: &UserId) -> bool {
        self.user_limit.refuses(self.users.find(user.as_str()))
    }

    /// The owner of a connection, if it is here.
    pub fn owner(&self, id: ConnectionId) -> Option<Owner> {
        self.connections.get(id).map(|connection| connection.owner)
    }

    /// A connection was upgraded; it gets its `welcome`.
    pub fn connect(&mut self, now: Now, id: ConnectionId, new: NewConnection<'_>) {
        let NewConnection { user, name, owner, address, validity } = new;
        let name = name.and_then(shown_name);
        let key = self.users.hold_connected(user, name.as_deref(), owner);
        let mut connection = Connection::new(id.serial, key, owner);
        let welcome = ServerMessage::Welcome {
            user: self.users.view(key),
            ping_interval: self.settings.timing.ping_interval.as_millis() as u64,
            expires_at: validity.expires_at,
            limits: WelcomeLimits {
                message_bytes: self.settings.net.message_bytes_max,
                data_bytes: self.settings.hub.data_bytes_max,
                rooms_per_connection: self.settings.hub.rooms_per_connection_max,
                message_rate: self.settings.hub.message_rate,
                message_burst: self.settings.hub.message_burst,
                history_messages: self.settings.history.messages_max,
                history_age_ms: self.settings.history.age_max.as_millis() as u64,
                dedupe_window_ms: self.settings.history.dedupe_window.as_millis() as u64,
            },
        };
        self.out.outbox.message(id, &mut connection, &welcome);
        self.connections.insert(id, connection);
        self.rooms.account.charge(owner, Held::Identity(name_heap_bytes(user.as_str())));
        self.change_credential((id, owner), |credentials, timers| credentials.insert(now, id, validity, timers));
        self.settle_names();
        self.restrictions.addresses.set(id.slot, address);
        self.users.note_mutes(key, self.restrictions.table.has_mutes(user));
        self.moderator.arrivals.note(id.serial);
        self.out.notices.push(|| Notice::Connected { connection: id, user: user.clone() });
        if let Some(oldest) = self.user_limit.add(key, id) {
            self.close(now, oldest, CloseReason::REPLACED);
        }
    }

    /// A connection is gone, or going; nothing more is said to it. Says whether it was known.
    pub fn disconnect(&mut self, now: Now, id: ConnectionId) -> bool {
        while let Some((room, _)) = self.connections.get(id).and_then(|connection| connection.rooms().next_back()) {
            self.remove_member(now, id.slot, room, Parting::Lost);
        }
        let Some(connection) = self.connections.remove(id) else { return false };
        self.change_credential((id, connection.owner), |credentials, _| credentials.remove(id));
        self.user_limit.remove(connection.user, id);
        let user = self.users.id(connection.user).clone();
        self.rooms.account.release(connection.owner, Held::Identity(name_heap_bytes(user.as_str())));
        self.users.release(connection.user);
        self.settle_names();
        self.out.notices.push(|| Notice::Disconnected { connection: id, user });
        true
    }

    /// A connection has sent a text message.
    pub fn handle_text(&mut self, now: Now, id: ConnectionId, text: &str) {
        match self.connections.note_message(now, id, &self.settings.hub) {
            Some(Verdict::Pass) => {}
            Some(Verdict::Flood) => return self.close(now, id, CloseReason::FLOODING),
            Some(Verdict::Tell { retry_after_ms }) => return self.refuse_by_rate(id, text, retry_after_ms),
            Some(Verdict::Drop) | None => return,
        }
        if self.refuse_by_owner(now, id, text) {
            return;
        }
        match ClientMessage::parse(text) {
            Ok(message) => {
                if let Err((code, reason)) = self.handle_message(now, id, &message) {
                    let (room, message_id) = message.about();
                    self.out.error(&mut self.connections, id, ErrorReply::new(code, &reason).about(room, message_id));
                }
            }
            Err(invalid) => {
                let (room, message_id) = invalid.about();
                self.out.error(
                    &mut self.connections,
                    id,
                    ErrorReply::new(invalid.code, &invalid.message).about(room, message_id),
                );
            }
        }
    }

    fn handle_message(&mut self, now: Now, id: ConnectionId, message: &ClientMessage<'_>) -> Result<(), Refused> {
        match message {
            ClientMessage::Join(_) | ClientMessage::Chat(_) | ClientMessage::History(_)
                if self.refuse_by_deliveries(now, id, message) =>
            {
                Ok(())
            }
            ClientMessage::Join(join) => self.handle_join(now, id, join),
            ClientMessage::Leave(leave) => self.handle_leave(now, id, leave),
            ClientMessage::Chat(chat) if self.refuse_by_mute(now, id, chat) => Ok(()),
            ClientMessage::Chat(chat) => self.handle_chat(now, id, chat),
            ClientMessage::Typing(typing) => self.handle_typing(now, id, typing),
            ClientMessage::History(request) => self.handle_history(id, request),
            ClientMessage::Refresh(refresh) => self.handle_refresh(now, id, refresh),
            ClientMessage::Ping { id: ping_id } => {
                let pong = ServerMessage::Pong { id: ping_id.as_deref() };
                self.out.say(&mut self.connections, id, &pong);
                Ok(())
            }
        }
    }

    /// Closes a connection: whatever it was owed and is not in its own output is dropped.
    pub fn close(&mut self, now: Now, id: ConnectionId, reason: CloseReason) {
        if self.disconnect(now, id) {
            self.out.outbox.close(id, reason);
        }
    }

    /// Closes up to `max` of the connections that are there, in a shutdown. All slots are walked once, not once a call.
    pub fn close_some(&mut self, now: Now, max: usize, reason: &CloseReason) {
        for id in self.connections.walk(max).0 {
            self.close(now, id, reason.clone());
        }
    }

    /// A connection took no bytes for longer than it may.
    pub fn handle_stalled(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        let before = self.users.note_stall(now, connection.user);
        let reason = if before >= 2 { CloseReason::STALLED_OFTEN } else { CloseReason::STALLED };
        self.close(now, id, reason);
    }

    /// From now on publications and joins are refused, and no room waits for its batch delay.
    pub fn start_draining(&mut self) {
        self.pending.start_draining();
        self.scheduler.start_draining(&mut self.rooms);
    }

    /// Whether all that was said is answered by the bus and has been handed to the sockets, as far as they took it.
    pub fn is_flushed(&self) -> bool {
        self.pending.is_settled() && self.scheduler.is_level() && self.out.outbox.is_empty()
    }

    /// Whether there is something to poll right now.
    pub fn has_work(&self) -> bool {
        let has_output = !self.out.outbox.is_empty() || self.pending.has_requests();
        let has_more = !self.level_rooms.is_empty() || self.restrictions.has_work() || self.questions.has_work();
        let has_to_close = self.moderator.has_work() || self.credentials.key_check.is_some();
        has_output || has_more || has_to_close || self.scheduler.has_work()
    }

    /// Whether so much waits to be given to the bus that no more should be read from clients for now.
    pub fn has_backlog(&self) -> bool {
        self.pending.has_backlog()
    }

    /// The next thing the bus is asked.
    pub fn poll_bus_request(&mut self) -> Option<BusRequest> {
        self.pending.poll_request()
    }

    /// The next thing the host is told.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.out.notices.pop()
    }

    /// Whether there is so much output of single connections that it should be polled before more comes: pages of history, mostly.
    pub fn has_much_output(&self) -> bool {
        self.out.outbox.is_large()
    }

    /// Hands all output of single connections to `each`, in order.
    pub fn poll_output(&mut self, each: impl FnMut(Output<'_>)) {
        self.out.outbox.drain(each);
    }

    /// Takes the newest output out that [`Hub::poll_output`] would hand out, if it is for this connection: whole frames.
    /// Everything that was said to it in a row is one output, unless something was said to another connection in between.
    pub fn take_last_output(&mut self, id: ConnectionId) -> &[u8] {
        self.out.outbox.take_last(id)
    }

    /// Does what is due, and what the last turn left for this one, up to the turn's budget. `clock` tells the time while that
    /// takes it, after every few units. Says how many units of work it was.
    pub fn handle_deadlines(&mut self, now: Now, clock: &mut dyn FnMut() -> Now) -> u32 {
        let limits = self.settings.net.phase();
        let mut budget = WorkBudget::new(limits, clock);
        self.resume_catch_ups(now, &mut budget);
        self.finish_more_level_leavers(now, &mut budget);
        let mut resumed = budget.spent();
        let mut budget = WorkBudget::new(limits, clock);
        self.answer_questions(now, &mut budget);
        resumed += budget.spent();
        self.settle_names();
        self.scheduler.end_due_delays(now, &mut self.rooms);
        self.tidy_restrictions(now);
        let closes = &mut CommandBudget::of_turn(&self.settings.hub);
        self.carry_out_commands(now, closes);
        self.check_keys(now, closes);
        self.delivery_rates.forget_full(now);
        self.message_rates.forget_full(now);
        self.slow_mode.forget_over(now);
        // Timers have a budget of their own: members that catch up must not put off the ends of others.
        let mut budget = WorkBudget::new(limits, clock);
        for _ in 0..LOOKS_PER_TURN {
            if !budget.has_left() {
                break;
            }
            let Some(timer) = self.timers.pop(now) else { break };
            self.handle_timer(now, timer);
            budget.spend(1 + self.take_work());
        }
        resumed + budget.spent()
    }

    /// Units of work since the last call, beyond one for each message, event or timer: memberships that ended and members that
    /// fell back.
    pub fn take_work(&mut self) -> u32 {
        std::mem::take(&mut self.work)
    }

    fn handle_timer(&mut self, now: Now, timer: Timer) {
        match timer {
            Timer::Grace { room, user } => self.end_grace_if_over(now, room, user),
            Timer::Members { room } => {
                let owner = self.timers.end_count(room);
                if let Some(index) = self.rooms.find(room) {
                    self.rooms[index].users.end_count();
                    self.list_or_count_users(now, index, owner);
                }
            }
            Timer::CatchUp { room, connection } => self.retry_catch_up(now, room, connection),
            Timer::Expiry { connection, at } => {
                if self.credentials.have_expired(now, (connection, at), &mut self.timers) {
                    self.close(now, connection, CloseReason::TOKEN_EXPIRED);
                }
            }
        }
    }

    /// How long until [`Hub::handle_deadlines`] has something to do.
    pub fn timeout(&self, now: Now) -> Option<Duration> {
        [self.timers.timeout(now), self.scheduler.timeout(now), self.restrictions.timeout(now)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Counts, as of now.
    pub fn stats(&self) -> HubStats {
        let MessageCounts { received, rate_limited } = self.connections.counts();
        let LogCounts { messages, appended_bytes, sends, sent_bytes, fallbacks } = self.rooms.counts();
        HubStats {
            connections: self.connections.len(),
            users: self.users.len(),
            rooms: self.rooms.len(),
            log_bytes: self.rooms.log_bytes(),
            rooms_bytes: self.rooms.account.held(),
            publications_bytes: self.pending.bytes(),
            messages_received: received,
            messages_delivered: messages,
            sends,
            sent_bytes,
            appended_bytes,
            fallbacks,
            errors: self.out.errors,
            rounds_delayed: self.scheduler.rounds_delayed,
            rounds_hastened: self.scheduler.rounds_hastened,
            stalled: self.users.stalled(),
            moderated: self.moderator.moderated,
            replaced: self.user_limit.replaced,
            user_limited: self.user_limit.refused,
            restrictions: self.restrictions.table.len(),
            muted: self.restrictions.muted,
            banned: self.restrictions.banned,
            rate_limited,
            owner_limited: self.message_rates.refused,
            deliveries_limited: self.delivery_rates.refused,
            slow_limited: self.slow_mode.refused,
        }
    }
}

/// The most characters of a display name that are kept.
const NAME_CHARS_MAX: usize = 64;

/// As much of a display name as is kept.
fn shown_name(name: &str) -> Option<String> {
    unicode::shown_name(name, NAME_CHARS_MAX)
}
