//! The end of a phase: all sockets are fast again, everything is delivered, and checks follow.

use std::collections::BTreeSet;

use roomcast::UserId;
use roomcast::bus::Ticket;

use super::seat::user_name;
use super::truth::{Position, room_name};
use super::world::{DEAF_MILLIS, World};

/// Purges that may be under way at once.
const PURGES_MAX: usize = 16;

/// How long after the end of a grace members may still count the user: the bus may have to be asked twice, each look comes after as long as
/// the grace is overdue, and members are counted a second and two ticks later.
const LATE_MILLIS: u64 = 5000;

/// Rounds of 300 ms in which nothing happens. A grace whose question was answered just now ends within two seconds and two ticks, and
/// members are counted a second and two ticks later. That is put off for as long again while pins of members that catch up hold a log.
const QUIET_ROUNDS: u32 = 30;

impl World {
    /// Lets everything come to rest, and checks that nobody was forgotten.
    pub(crate) fn settle(&mut self) {
        if let Some(bus) = self.bus.fake() {
            bus.set_calm(true);
        }
        for seat in 0..self.seats.len() {
            self.set_space(seat, usize::MAX);
        }
        let mut quiet_rounds = 0;
        for _ in 0..1000 {
            if quiet_rounds == QUIET_ROUNDS {
                break;
            }
            self.advance_clock(300);
            self.handle_deadlines();
            self.exchange();
            self.drain();
            self.flush(1000);
            self.check_bounds();
            let is_idle = self.bus.fake().is_none_or(|bus| bus.is_idle()) && self.tickets_pending() == 0;
            // A grace that ends in between has something sent again, after the batch delay.
            let is_quiet = is_idle && !self.hub.has_work() && self.hub.is_flushed();
            quiet_rounds = if is_quiet { quiet_rounds + 1 } else { 0 };
        }
        assert!(quiet_rounds == QUIET_ROUNDS, "hub and bus do not come to rest");
        self.in_grace.retain(|key, _| !self.kicked.contains(key));
        self.kicked.clear();
        self.check_rest();
        self.coverage.levelled += 1;
        if let Some(bus) = self.bus.fake() {
            bus.set_calm(false);
        }
    }

    /// For five seconds history cannot be read: the bus is asked again now and then, not all the time.
    pub(crate) fn sicken(&mut self) {
        let members: usize = self.seats.iter().map(super::seat::Seat::memberships).sum();
        self.exchange();
        let Some(bus) = self.bus.fake() else { return };
        bus.set_sick(true);
        let before = self.reads;
        for _ in 0..100 {
            self.advance_clock(50);
            self.handle_deadlines();
            self.exchange();
            self.drain();
            self.flush(1000);
        }
        // One under way, and one every half second. A purge, which needs no member, gives up at its first refusal.
        let most = members * 12 + PURGES_MAX;
        let reads = self.reads - before;
        assert!(reads <= most, "{reads} reads in five seconds; {most} are enough for {members} members");
        self.bus.fake().into_iter().for_each(|bus| bus.set_sick(false));
    }

    fn check_rest(&mut self) {
        self.check_restrictions();
        assert!(self.hub.is_flushed(), "something is not flushed");
        assert!(self.purges.is_empty(), "purges are not answered: {:?}", self.purges);
        assert_eq!(self.hub.stats().log_bytes, 0, "a log is not empty");
        for room in 0..self.settings.rooms {
            let live = self.truth.live(room);
            if let (Some(live), Some(bus)) = (live, self.bus.fake()) {
                let (epoch, seq) = bus.top(&room_name(room));
                let top = Position { epoch: self.truth.epoch(room, epoch.as_str()), seq };
                assert_eq!(live, top, "r{room}: the bus did not deliver everything");
            }
            self.check_presence(room);
        }
        for (at, seat) in self.seats.iter().enumerate() {
            let Some(link) = &seat.link else { continue };
            assert!(link.own_bytes() == 0 && link.unread().is_empty(), "seat {at} has a torn frame");
            for room in 0..self.settings.rooms {
                if let Err(words) = seat.check_level(room, &self.truth) {
                    panic!("seat {at} (u{}): {words}", seat.user);
                }
            }
            if let Some(id) = seat.unanswered() {
                panic!("seat {at} (u{}): nothing came back for chat {id}", seat.user);
            }
            if let Some(id) = seat.looks_back.unanswered() {
                panic!("seat {at} (u{}): nothing came back for history {id}", seat.user);
            }
        }
    }

    /// What is in force is what is kept, and nobody who is banned is here.
    fn check_restrictions(&mut self) {
        if let Some(bus) = self.bus.fake() {
            let kept: Vec<_> = bus.restrictions().map(str::to_owned).collect();
            assert_eq!(self.hub.restrictions_in_force(self.now), kept, "not what is kept");
        }
        for (at, seat) in self.seats.iter().enumerate().filter(|(_, seat)| seat.link.is_some()) {
            let user = UserId::new(&user_name(seat.user)).expect("a user name");
            assert!(!self.hub.bans(self.now, &user), "seat {at} (u{}) is banned and still here", seat.user);
        }
    }

    /// Members ⊆ online ⊆ members ∪ those in grace, at every member that can list them.
    pub(crate) fn check_presence(&self, room: usize) {
        let here = |seat: &&super::seat::Seat| seat.views[room].is_in();
        let members: BTreeSet<String> = self.seats.iter().filter(here).map(|seat| user_name(seat.user)).collect();
        // The end of a grace is noticed late, and big rooms count once a second.
        let grace = self.settings.config.timing.presence_grace.as_millis() as u64 + LATE_MILLIS;
        // No grace ends while the bus does not hear other nodes.
        let now = self.now.millis();
        let deaf_since = self.deaf.filter(|(_, until)| until + DEAF_MILLIS >= now).map_or(now, |(since, _)| since);
        let in_grace = |(_, lost): &(&(usize, usize), &u64)| **lost + grace >= deaf_since;
        let lost = self.lost.iter().filter(|(key, _)| key.0 == room).filter(in_grace);
        let mut allowed = members.clone();
        allowed.extend(lost.map(|((_, user), _)| user_name(*user)));
        let whole_grace = self.settings.config.timing.presence_grace.as_millis() as u64;
        let owed = self.in_grace.iter().filter(|((r, _), lost)| *r == room && **lost + whole_grace > self.now.millis());
        let mut owed: BTreeSet<String> = owed.map(|((_, user), _)| user_name(*user)).collect();
        owed.extend(members.iter().cloned());
        let elsewhere = self.elsewhere.iter().filter(|(r, _)| *r == room).map(|(_, user)| user);
        owed.extend(elsewhere.clone().cloned());
        allowed.extend(elsewhere.cloned());
        let listed_max = self.settings.config.hub.users_listed_max as usize;
        let listed_again = listed_max * 3 / 4;
        let mut common = None;
        for seat in self.seats.iter().filter(here) {
            let view = &seat.views[room];
            let words = format!("r{room}: members {members:?}, allowed {allowed:?}, but u{} has {view:?}", seat.user);
            assert!((owed.len()..=allowed.len()).contains(&view.count), "{words}, and owed are {owed:?}");
            match &view.users {
                Some(users) => {
                    assert!(owed.is_subset(users) && users.is_subset(&allowed), "{words}, and owed are {owed:?}");
                    assert!(users.len() <= listed_max, "{words}, though at most {listed_max} are listed");
                }
                None => assert!(allowed.len() >= listed_again.max(1), "{words}, though the room is small"),
            }
            assert!(*common.get_or_insert(&view.users) == &view.users, "{words}, and others differ");
        }
    }

    /// The server shuts down: nothing new is taken, everything taken is delivered, and nothing is left behind.
    pub(crate) fn end(&mut self) {
        self.hub.start_draining();
        for seat in 0..self.seats.len() {
            if let Some(room) = self.seats[seat].views.iter().position(super::view::View::is_in) {
                self.say(seat, &format!(r#"{{"type":"chat","room":"r{room}","text":"too late"}}"#));
            }
        }
        self.settle();
        for seat in 0..self.seats.len() {
            self.disconnect(seat);
        }
        let mut seconds_left = self.settings.config.timing.presence_grace.as_secs() + 3;
        while seconds_left > 0 {
            self.advance_clock(1000);
            self.handle_deadlines();
            self.exchange();
            self.drain();
            self.flush(1000);
            seconds_left -= 1;
            if self.deaf.is_some_and(|(_, until)| until == self.now.millis()) {
                // No grace ends yet.
                seconds_left = seconds_left.max(DEAF_MILLIS.div_ceil(1000));
            }
        }
        assert!(self.shared.is_empty(), "others were not told of an end: {:?}", self.shared);
        let stats = self.hub.stats();
        assert_eq!((stats.connections, stats.users, stats.rooms, stats.log_bytes), (0, 0, 0, 0), "{stats:?}");
        // A timer that outlives its grace is charged until it comes up.
        for _ in 0..self.settings.config.timing.presence_grace.as_secs() {
            self.advance_clock(1000);
            self.handle_deadlines();
        }
        let stats = self.hub.stats();
        assert_eq!((stats.rooms_bytes, stats.publications_bytes), (0, 0), "something is charged still");
        assert!(!self.hub.has_work() && self.hub.is_flushed() && self.tickets_pending() == 0);
        self.hub.handle_bus_event(self.now, stray_answer());
        self.coverage.fallbacks += stats.fallbacks;
        self.coverage.rounds_delayed += stats.rounds_delayed;
        self.coverage.moderated += stats.moderated;
        self.coverage.rounds_hastened += stats.rounds_hastened;
    }
}

/// An answer to something that was never asked, which is ignored.
fn stray_answer() -> roomcast::bus::BusEvent {
    let page = Err(roomcast::bus::BusRefusal::unavailable("nobody asked"));
    roomcast::bus::BusEvent::Page { ticket: Ticket(u64::MAX), page }
}
