//! What comes due at once is done in several turns.

use std::time::Duration;

use roomcast::hub::{Hub, OpenPolicy};
use roomcast::{Config, ConnectionId, Now, UserId};

#[test]
fn a_rush_of_deadlines_is_spread_over_turns() {
    let config = Config::default();
    let mut hub = Hub::new(&config, Box::new(OpenPolicy));
    let at = |millis| Now { uptime: Duration::from_millis(millis), unix_ms: millis };
    // Each was in a room of its own and is gone: it is absent only after a grace.
    let mut bus = roomcast::bus::LocalBus::new(&config, 1);
    let count = 2000;
    for slot in 0..count {
        let id = ConnectionId { slot, generation: 1 };
        hub.connect(id, &UserId::new(&format!("user-{slot}")).unwrap(), None);
        hub.handle_text(at(1), id, &format!(r#"{{"type":"join","room":"room-{slot}"}}"#));
        run_bus(&mut hub, &mut bus, at(1));
        hub.disconnect(at(1), id);
    }
    let late = at(60_000);
    let mut turns = 0;
    hub.handle_deadlines(late);
    assert!(hub.stats().users > 0, "all at once");
    while hub.stats().users > 0 {
        assert_eq!(hub.timeout(late), Some(Duration::ZERO), "the rest is forgotten");
        hub.handle_deadlines(late);
        turns += 1;
        assert!(turns < 100, "{} users are left", hub.stats().users);
    }
    assert_eq!(hub.stats().rooms, 0);
}

fn run_bus(hub: &mut Hub, bus: &mut roomcast::bus::LocalBus, now: Now) {
    use roomcast::bus::Bus;
    use roomcast::publication::BusRequest;
    loop {
        match hub.poll_bus_request() {
            Some(BusRequest::Open(room)) => bus.open(now, &room),
            Some(BusRequest::Close(room)) => bus.close(now, &room),
            Some(BusRequest::Publish { ticket, publication }) => bus.publish(now, ticket, publication),
            Some(BusRequest::Read { ticket, room, from, bytes_max }) => bus.read(now, ticket, &room, from, bytes_max),
            None => match bus.poll_event() {
                Some(event) => hub.handle_bus_event(now, event),
                None => return,
            },
        }
    }
}
