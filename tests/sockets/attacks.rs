//! However a crowd behaves, no phase of a turn does more than its budget. Units are counted, not time.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use roomcast::{Config, HostLoop, Now, OpenPolicy, Server, TokenAuthenticator, TokenConfig, WebhookAuthenticator};

use crate::support::back_end::{BackEnd, Reply};
use crate::support::host::Host;
use crate::support::tokens::{Files, SECRET, good};
use crate::support::{TEXT, frame, request, upgrade_request};

const CROWD: u32 = 200;
const ROOMS: u32 = 60;

/// The units of a phase, and one connection's share of it: the last one may begin while a unit is left.
const PHASE: u32 = 1024;
const SHARE: u32 = 1 + 256 + 64 + 64 + ROOMS;

/// A crowd of sockets beside a server in the same thread.
struct Crowd {
    host: Host,
    address: SocketAddr,
    sockets: Vec<TcpStream>,
}

thread_local! {
    static MILLIS: Cell<u64> = const { Cell::new(1000) };
}

/// Time that goes on when a test says so.
fn clock() -> Now {
    Now { uptime: Duration::from_millis(MILLIS.get()), unix_ms: MILLIS.get() }
}

/// The most units of each phase in a turn.
type Units = BTreeMap<&'static str, u32>;

fn limits() -> Config {
    let mut config = Config::default();
    config.net.connections_max = CROWD;
    (config.net.connections_per_address_max, config.net.connects_per_address) = (0, 0);
    config.net.requests_per_address = 0;
    config.hub.message_rate = 0;
    config.hub.deliveries_per_owner = 0;
    // Only units bound a phase here, whatever the machine does meanwhile.
    config.net.work_time_per_phase = Duration::from_secs(1);
    config.hub.send_time_per_turn = Duration::from_secs(1);
    config
}

impl Crowd {
    fn connect(config: Config) -> Self {
        Self::connect_to(Host::new(config))
    }

    fn connect_to(mut host: Host) -> Self {
        host.see_events(1024);
        let address = host.listen();
        let sockets: Vec<_> = (0..CROWD)
            .map(|_| {
                let socket = TcpStream::connect(address).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket.set_nodelay(true).unwrap();
                socket
            })
            .collect();
        Self { host, address, sockets }
    }

    /// All are WebSockets.
    fn open(config: Config) -> Self {
        Self::open_in(Host::new(config))
    }

    fn open_in(host: Host) -> Self {
        let mut crowd = Self::connect_to(host);
        crowd.say(|_| upgrade_request("/ws", &[]).into_bytes());
        crowd.host.turn_until("all are open", |host| host.server.stats().hub.connections == CROWD as usize);
        crowd
    }

    /// Each sends something at once. Bytes that its socket does not take are left out.
    fn say(&mut self, bytes: impl Fn(u32) -> Vec<u8>) {
        for (nth, mut socket) in (0..).zip(&self.sockets) {
            // A socket that the server has closed takes nothing more.
            let _ = socket.write(&bytes(nth));
        }
    }

    /// So many times each sends something, and takes all that the server sends, between turns.
    fn say_and_read(&mut self, times: u32, bytes: impl Fn(u32, u32) -> Vec<u8>) {
        for time in 0..times {
            self.say(|nth| bytes(nth, time));
            self.turns(20);
        }
        self.settle();
    }

    fn turns(&mut self, count: u32) {
        for _ in 0..count {
            self.host.turn(Duration::ZERO);
            self.read();
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 64 * 1024];
        for mut socket in &self.sockets {
            while socket.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
        }
    }

    /// Turns until nothing is left to do at once.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            self.read();
            self.host.turn(Duration::ZERO);
            if self.host.server.timeout().is_none_or(|timeout| !timeout.is_zero()) {
                return;
            }
        }
        panic!("there always is something to do: {:?}", self.host.server);
    }

    /// The most units of each phase, none of which is more than it may be.
    fn units(&self) -> Units {
        let units: Units = self.host.server.stats().units_max.by_phase().collect();
        for (phase, most) in &units {
            let max = match *phase {
                "commands" | "answers" => PHASE,
                "accepts" => 64,
                "reads" | "write buffers" => PHASE + SHARE,
                // Of sockets, of members that catch up, of timers.
                "deadlines" => 3 * (PHASE + SHARE),
                // A page has 64 KiB.
                "bus" => 3 * PHASE + SHARE,
                // Each connection that drains may have a share.
                "sends" => 2 * 64 + SHARE,
                "freeing" => 256,
                "shutdown" => 0,
                other => panic!("no bound for {other}"),
            };
            assert!(*most <= max, "{phase}: {most} units in a turn, of at most {max}; {units:?}");
        }
        units
    }
}

fn text(json: &str) -> Vec<u8> {
    frame(TEXT, true, json.as_bytes())
}

fn join(room: &str) -> Vec<u8> {
    text(&format!(r#"{{"type":"join","room":"{room}","history":50}}"#))
}

fn chat(room: &str, id: &str, length: usize) -> Vec<u8> {
    let filler = "x".repeat(length);
    text(&format!(r#"{{"type":"chat","room":"{room}","id":"{id}","text":"{filler}"}}"#))
}

#[test]
fn messages_in_fragments_of_a_byte() {
    let mut crowd = Crowd::open(limits());
    let crumbs = |_, _| (0..2000_u32).flat_map(|at| frame(u8::from(at == 0), at == 1999, b"x")).collect();
    crowd.say_and_read(3, crumbs);
    assert!(crowd.units()["reads"] > PHASE / 2);
}

#[test]
fn many_messages_in_many_rooms_with_fresh_ids() {
    let mut crowd = Crowd::open(limits());
    crowd.say_and_read(1, |nth, _| (0..20).flat_map(|room| join(&format!("room-{nth}-{room}"))).collect());
    crowd.say_and_read(5, |nth, time| {
        (0..60).flat_map(|at| chat(&format!("room-{nth}-{}", at % 20), &format!("{nth}-{time}-{at}"), 100)).collect()
    });
    let units = crowd.units();
    assert!(units["reads"] > PHASE / 2 && units["bus"] > PHASE / 2, "{units:?}");
}

#[test]
fn fresh_rooms_and_a_message_in_each() {
    let mut crowd = Crowd::open(limits());
    crowd.say_and_read(5, |nth, time| {
        let of_room = |room: u32| {
            let name = format!("{nth}-{time}-{room}-{}", "n".repeat(40));
            let leave = text(&format!(r#"{{"type":"leave","room":"{name}"}}"#));
            [join(&name), chat(&name, "1", 10), leave].concat()
        };
        (0..30).flat_map(of_room).collect()
    });
    assert!(crowd.units()["bus"] > PHASE / 2);
}

#[test]
fn a_client_that_joins_many_rooms_at_once_joins_some_in_each_turn() {
    let mut crowd = Crowd::open(limits());
    let joins: Vec<u8> = (0..ROOMS).flat_map(|room| join(&format!("room-{room}"))).collect();
    crowd.sockets[0].write_all(&joins).unwrap();
    let rooms = |crowd: &Crowd| crowd.host.server.stats().hub.rooms;
    let mut most = 0;
    while rooms(&crowd) < ROOMS as usize {
        let before = rooms(&crowd);
        crowd.turns(1);
        most = most.max(rooms(&crowd) - before);
    }
    assert!((1..=8).contains(&most), "{most} rooms in a turn");
}

#[test]
fn members_that_read_pages_again_and_again() {
    let mut crowd = Crowd::open(limits());
    crowd.say_and_read(1, |_, _| join("archive"));
    crowd.say_and_read(1, |nth, _| if nth < 50 { chat("archive", "1", 15_000) } else { Vec::new() });
    let again = |_, _| [text(r#"{"type":"leave","room":"archive"}"#), join("archive")].concat();
    crowd.say_and_read(5, again);
    let units = crowd.units();
    assert!(units["bus"] > PHASE, "{units:?}");
}

#[test]
fn members_that_look_back_again_and_again() {
    let mut crowd = Crowd::open(limits());
    crowd.say_and_read(1, |_, _| join("archive"));
    crowd.say_and_read(1, |nth, _| if nth < 50 { chat("archive", "1", 15_000) } else { Vec::new() });
    let look_back = |nth: u32, time: u32| {
        let ask = |at| text(&format!(r#"{{"type":"history","room":"archive","limit":100,"before":{}}}"#, at + time));
        (nth..nth + 20).flat_map(ask).collect()
    };
    crowd.say_and_read(5, look_back);
    let units = crowd.units();
    assert!(units["bus"] > PHASE, "{units:?}");
    // Those that do not read what they have asked for hold no more than others.
    for time in 0..20 {
        crowd.say(|nth| look_back(nth, time));
        for _ in 0..20 {
            crowd.host.turn(Duration::ZERO);
        }
        crowd.units();
    }
    crowd.settle();
    crowd.units();
}

#[test]
fn members_that_read_nothing() {
    let mut crowd = Crowd::open(limits());
    for time in 0..40 {
        crowd.say(|nth| [join("flood"), chat("flood", &format!("{nth}-{time}"), 15_000)].concat());
        for _ in 0..20 {
            crowd.host.turn(Duration::ZERO);
        }
        crowd.units();
    }
    let held = crowd.host.server.stats().net.buffer_bytes;
    assert!(held > 1 << 20, "{held} bytes wait for them");
    crowd.settle();
    crowd.units();
}

#[test]
fn members_of_many_rooms_that_all_hang_up_at_once() {
    let mut crowd = Crowd::open(limits());
    crowd.say_and_read(1, |_, _| (0..ROOMS).flat_map(|room| join(&format!("big-{room}"))).collect());
    assert_eq!(crowd.host.server.stats().hub.rooms, ROOMS as usize);
    crowd.sockets.clear();
    crowd.host.turn_until("all have gone", |host| host.server.stats().net.sockets == 0);
    let units = crowd.units();
    assert!(units["reads"] > PHASE / 2 && units["freeing"] > 16, "{units:?}");
}

#[test]
fn members_of_many_rooms_that_all_fall_silent_at_once() {
    let mut config = limits();
    (config.timing.ping_interval, config.timing.pong_timeout) = (Duration::from_secs(1), Duration::from_secs(1));
    let mut crowd = Crowd::open_in(Host::with(config, OpenPolicy, clock));
    crowd.say_and_read(1, |_, _| (0..ROOMS).flat_map(|room| join(&format!("big-{room}"))).collect());
    assert_eq!(crowd.host.server.stats().hub.rooms, ROOMS as usize);
    crowd.host.turn_until("all are closed", |host| {
        MILLIS.set(MILLIS.get() + 100);
        host.server.stats().net.open == 0
    });
    let units = crowd.units();
    assert!(units["deadlines"] > PHASE / 2, "{units:?}");
}

#[test]
fn requests_and_garbage_without_end() {
    let mut crowd = Crowd::connect(limits());
    let pages = (0..CROWD).map(|_| request("GET", "/", &[])).collect::<Vec<_>>();
    crowd.say(|nth| pages[nth as usize].clone().into_bytes());
    crowd.settle();
    crowd.units();
    for hello in [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), vec![b'a'; 60_000]] {
        let mut crowd = Crowd::connect(limits());
        crowd.say(|_| hello.clone());
        crowd.settle();
        let units = crowd.units();
        assert!(units["accepts"] == 64 && units["reads"] >= 64, "{units:?}");
        let address = crowd.address;
        crowd.sockets.clear();
        check_health(&mut crowd.host, address);
    }
}

/// Somebody else is still served.
fn check_health(host: &mut Host, address: SocketAddr) {
    let page = host.serve(move || {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(request("GET", "/healthz", &[("Connection", "close")]).as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
}

#[test]
fn tokens_that_are_forged_and_tokens_that_are_good() {
    let files = Files::new();
    let secret_files = vec![files.write("secret", SECRET).into()];
    let tokens = TokenConfig { secret_files, ..TokenConfig::default() };
    let start = |config: Config, host: HostLoop| {
        let authenticator = TokenAuthenticator::new(tokens.clone(), Arc::clone(&host.waker))?;
        Server::builder(config, host).authenticator(authenticator).build()
    };
    let (good, forged) = (good(), format!("{}{}", good(), "A".repeat(3000)));
    let mut crowd = Crowd::connect_to(Host::start(limits(), start));
    // Each asks many times at once.
    let ask = |token: &str| upgrade_request("/ws", &[("Authorization", &format!("Bearer {token}"))]).into_bytes();
    crowd.say_and_read(3, |_, _| ask(&forged).repeat(10));
    assert_eq!(crowd.host.server.stats().net.open, 0);
    assert!(crowd.units()["reads"] > PHASE / 2);
    check_health(&mut crowd.host, crowd.address);
    let mut crowd = Crowd::connect_to(Host::start(limits(), start));
    crowd.say_and_read(1, |_, _| ask(&good));
    assert!(crowd.host.server.stats().net.open > 0);
    assert!(crowd.units()["reads"] > PHASE / 2);
}

#[test]
fn logins_that_a_back_end_refuses() {
    let back_end = BackEnd::new(|_| Reply::json(403, &serde_json::json!({})));
    let url = back_end.url();
    let start = |config: Config, host: HostLoop| {
        let authenticator = WebhookAuthenticator::new(&url, &config, &host)?;
        Server::builder(config, host).authenticator(authenticator).build()
    };
    let mut crowd = Crowd::connect_to(Host::start(limits(), start));
    crowd.say(|nth| upgrade_request(&format!("/ws?userId=user-{nth}"), &[]).into_bytes());
    // The back-end is asked about a few of one address at a time; the others are told to come again.
    let mut answered = 0;
    let sockets = &crowd.sockets;
    crowd.host.turn_until("all are answered", |_| {
        let mut buffer = [0; 4096];
        for mut socket in sockets {
            answered +=
                u32::from(socket.read(&mut buffer).is_ok_and(|bytes| buffer[..bytes].starts_with(b"HTTP/1.1 ")));
        }
        answered >= CROWD
    });
    assert!(back_end.asked().len() > 1 && crowd.host.server.stats().net.open == 0);
    crowd.units();
    check_health(&mut crowd.host, crowd.address);
}
