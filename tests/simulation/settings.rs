//! The settings of a seed, drawn at random: limits, times, and the size of the world.

use std::time::Duration;

use roomcast::Config;

use super::chance::Chance;

/// One seed's world.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) rooms: usize,
    pub(crate) users: usize,
    pub(crate) seats: usize,
    /// Seats that are charged together have the same remainder.
    pub(crate) owners: usize,
    pub(crate) bus: BusKind,
    /// The most steps that the fake bus takes for anything.
    pub(crate) delay_steps_max: u64,
    /// How often a socket that is slow is made fast again, in relation to how often one is made slow.
    pub(crate) recovery: u32,
    /// How long a send takes.
    pub(crate) send_micros: u64,
    /// The longest usual text.
    pub(crate) text_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BusKind {
    Local,
    /// Late and out of step, but it keeps its promises.
    Fake,
    /// As [`BusKind::Fake`], and sometimes a delivery is lost.
    Lossy,
}

impl Settings {
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        let mut config = Config::default();
        draw_limits(chance, &mut config);
        draw_timing(chance, &mut config);
        config.notices = chance.one_in(2);
        config.check().expect("the limits go together");
        let users = 2 + chance.index(11);
        Self {
            config,
            rooms: chance.pick(&[1, 2, 4, 4, 6]),
            users,
            seats: users + chance.index(2 * users + 1),
            owners: chance.pick(&[1, 2, 3, 100]),
            bus: chance.pick(&[BusKind::Local, BusKind::Local, BusKind::Fake, BusKind::Lossy]),
            delay_steps_max: chance.pick(&[1, 10, 100]),
            recovery: chance.pick(&[3, 6, 12, 40]),
            send_micros: chance.pick(&[0, 8, 300, 5000]),
            text_bytes: chance.pick(&[40, 600, 1500]),
        }
    }
}

fn draw_limits(chance: &mut Chance, config: &mut Config) {
    let kib = 1024;
    config.hub.log_bytes_max = 16 * kib;
    config.hub.log_bytes_total_max = chance.pick(&[16 * kib, 16 * kib, 17 * kib, 20 * kib, 40 * kib, 1024 * kib]);
    config.net.output_bytes_max = 128 * kib;
    config.net.message_bytes_max = chance.pick(&[kib, 2 * kib, 4 * kib]);
    config.hub.data_bytes_max = chance.pick(&[0, 64, kib]);
    config.hub.users_listed_max = chance.pick(&[2, 3, 5, 200]);
    config.history.messages_max = chance.pick(&[0, 3, 50, 1000]);
    config.history.bytes_max = chance.pick(&[64 * kib, 16 * kib * kib]);
    config.hub.rooms_per_connection_max = chance.pick(&[1, 2, 2, 6]);
    config.hub.rooms_max = chance.pick(&[2, 1000, 1000]);
    config.hub.publications_pending_max = chance.pick(&[4, 1000]);
    config.hub.notices_max = 16;
    config.hub.message_rate = chance.pick(&[0, 0, 0, 1]);
    config.hub.message_burst = 2;
    config.net.connections_per_user_max = chance.pick(&[0, 0, 1, 2]);
    config.hub.messages_per_owner = chance.pick(&[0, 0, 0, 2]);
    config.hub.deliveries_per_owner = chance.pick(&[0, 0, 250_000, 20]);
}

fn draw_timing(chance: &mut Chance, config: &mut Config) {
    let seconds = Duration::from_secs;
    let millis = Duration::from_millis;
    config.timing.batch_delay = chance.pick(&[millis(0), millis(0), millis(5), millis(50), millis(1000)]);
    config.timing.presence_grace = chance.pick(&[seconds(0), seconds(2), seconds(5), seconds(40)]);
    config.timing.members_interval = chance.pick(&[seconds(0), seconds(1)]);
    config.history.age_max = chance.pick(&[seconds(0), seconds(10), seconds(3600)]);
    config.history.dedupe_window = chance.pick(&[seconds(20), seconds(120), seconds(24 * 3600)]);
}
