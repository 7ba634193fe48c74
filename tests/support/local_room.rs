//! A room without sockets: a hub, a bus in memory, and members who take everything.

use roomcast::OpenPolicy;
use roomcast::bus::{Bus, LocalBus};
use roomcast::internals::{Hub, NewConnection};
use roomcast::{Config, ConnectionId, Now, Owner, UserId};

/// One room with its hub and bus, driven by method calls alone.
pub struct LocalRoom {
    /// The hub itself, for deadlines, notices and statistics.
    pub hub: Hub,
    bus: LocalBus,
}

impl LocalRoom {
    /// A room that `members` connections have joined, each of a user of its own, with nothing left to send.
    pub fn new(members: u32) -> Self {
        let mut config = Config::default();
        config.hub.message_rate = 0;
        // A full history, so that it does not grow while it is measured.
        config.history.messages_max = 10;
        let mut room = Self { hub: Hub::new(&config, Box::new(OpenPolicy)), bus: LocalBus::new(&config, 1) };
        for slot in 0..members {
            let id = ConnectionId::new(slot, 1);
            room.hub.connect(
                Now::default(),
                id,
                NewConnection::new(&UserId::new(&format!("user-{slot:06}")).unwrap(), Owner::HOST),
            );
            room.hub.handle_text(Now::default(), id, r#"{"type":"join","room":"lobby"}"#);
            room.run_bus();
        }
        room.hub.poll_output(|_| {});
        room.flush(|_| {});
        room
    }

    /// A member says something; it is in the log now.
    pub fn say(&mut self, message: &str) {
        let sender = ConnectionId::new(0, 1);
        self.hub.handle_text(Now::default(), sender, message);
        self.run_bus();
    }

    /// Hands all frames that are owed to `take`. Returns how many members were served.
    pub fn flush(&mut self, mut take: impl FnMut(&[u8])) -> u64 {
        let mut sends = 0;
        while self.hub.has_work() {
            self.hub.poll_sends(Now::default(), 64, &mut Now::default, &mut |_, frames| {
                sends += 1;
                take(frames);
                frames.len()
            });
        }
        sends
    }

    fn run_bus(&mut self) {
        run_bus(&mut self.hub, &mut self.bus, Now::default());
    }
}

/// Carries requests to the bus and events to the hub, until neither has any.
pub fn run_bus(hub: &mut Hub, bus: &mut LocalBus, now: Now) {
    bus.begin_turn(now);
    loop {
        match hub.poll_bus_request() {
            Some(request) => bus.submit(request),
            None => match bus.poll_event() {
                Some(event) => hub.handle_bus_event(now, event),
                None => return,
            },
        }
    }
}
