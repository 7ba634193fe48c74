//! What comes due at once is done in several turns.

#[path = "support/local_room.rs"]
mod local_room;

use std::time::Duration;

use local_room::run_bus;
use roomcast::bus::LocalBus;
use roomcast::hub::{Hub, OpenPolicy};
use roomcast::{Config, ConnectionId, Now, UserId};

#[test]
fn a_rush_of_deadlines_is_spread_over_turns() {
    let config = Config::default();
    let mut hub = Hub::new(&config, Box::new(OpenPolicy));
    let at = |millis| Now { uptime: Duration::from_millis(millis), unix_ms: millis };
    // Each was in a room of its own and is gone: it is absent only after a grace.
    let mut bus = LocalBus::new(&config, 1);
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
