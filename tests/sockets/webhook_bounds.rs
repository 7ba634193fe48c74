//! Many logins at once: they hold up nobody else, and none of them longer than the back-end does.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};

use roomcast::{Config, HostLoop, Now, Server as Library, WebhookAuthenticator};
use serde_json::json;

use super::user_limit::frozen;
use super::webhook::asking;
use crate::support::back_end::{Asked, BackEnd, Reply};
use crate::support::chat::frame_of_json;
use crate::support::host::{Host, config};
use crate::support::{Client, PATIENCE, Raw, upgrade_request, wait_until};

/// Holds the answers of a back-end back until a test lets them go, one by one or all.
#[derive(Default)]
struct Gate {
    held: Mutex<(VecDeque<String>, usize)>,
    changed: Condvar,
}

impl Gate {
    /// A back-end that admits those at once whose names begin with `vip`, and others when they are let go.
    fn back_end() -> (Arc<Self>, BackEnd) {
        let gate = Arc::new(Self::default());
        let inside = Arc::clone(&gate);
        let back_end = BackEnd::new(move |asked| {
            if !asked.user().starts_with("vip") {
                inside.wait(asked);
            }
            Reply::user(asked.user())
        });
        (gate, back_end)
    }

    fn wait(&self, asked: &Asked) {
        let mut held = self.held.lock().unwrap();
        held.0.push_back(asked.user().to_owned());
        self.changed.notify_all();
        let (_held, timeout) = self
            .changed
            .wait_timeout_while(held, PATIENCE, |held| {
                held.1 == 0 || {
                    held.1 -= 1;
                    false
                }
            })
            .unwrap();
        assert!(!timeout.timed_out(), "nobody let {} go", asked.user());
    }

    /// The users that were asked about so far.
    fn users(&self) -> Vec<String> {
        self.held.lock().unwrap().0.iter().cloned().collect()
    }

    fn wait_for(&self, count: usize) {
        wait_until(&format!("{count} are asked about"), || self.users().len() >= count);
    }

    /// Lets so many go.
    fn open(&self, count: usize) {
        self.held.lock().unwrap().1 += count;
        self.changed.notify_all();
    }
}

fn knock(server: SocketAddr, source: &str, user: &str) -> Raw {
    let mut raw = Raw::connect_from(source, server);
    raw.send(upgrade_request(&format!("/ws?userId={user}"), &[]).as_bytes());
    raw
}

#[test]
fn a_hundred_logins_hold_up_neither_each_other_nor_the_chat() {
    let (gate, back_end) = Gate::back_end();
    let server = asking(&back_end, &[]);
    let (mut ann, mut bob) = (Client::connect_as(&server, "vip-ann"), Client::connect_as(&server, "vip-bob"));
    ann.join("lobby");
    bob.join("lobby");
    let mut crowd: Vec<_> =
        (0..100).map(|number| knock(server.address(), "127.0.0.1", &format!("user-{number}"))).collect();
    // The back-end has all hundred questions before it answers one.
    gate.wait_for(100);
    for (one, other) in [(0, 1), (1, 0)].into_iter().cycle().take(20) {
        let pair = [&mut ann, &mut bob];
        pair[one].say("lobby", "hello");
        pair[other].recv_type("chat");
        pair[one].recv_type("chat");
    }
    // Others can log in meanwhile.
    knock(server.address(), "127.0.0.2", "vip-cid").upgraded();
    assert_eq!(gate.users().len(), 100);
    gate.open(100);
    for (number, raw) in crowd.iter_mut().enumerate() {
        raw.upgraded();
        assert_eq!(raw.json_of("welcome")["userId"], format!("user-{number}"));
    }
}

/// A host whose authenticator asks a back-end.
fn host(config: Config, back_end: &BackEnd) -> (Host, SocketAddr) {
    host_with_clock(config, back_end, Now::system)
}

fn host_with_clock(config: Config, back_end: &BackEnd, clock: fn() -> Now) -> (Host, SocketAddr) {
    let url = back_end.url();
    let mut host = Host::start(config, |config, host: HostLoop| {
        let host = HostLoop { clock, ..host };
        let authenticator = WebhookAuthenticator::new(&url, &config, &host)?;
        Library::builder(config, host).authenticator(authenticator).build()
    });
    let address = host.listen();
    (host, address)
}

#[test]
fn a_crowd_of_one_address_leaves_places_for_others() {
    let mut config = config();
    (config.net.admissions_pending_max, config.net.auth_requests_max) = (10, 3);
    let (gate, back_end) = Gate::back_end();
    let (mut host, address) = host(config, &back_end);
    host.serve(|| {
        let mut crowd: Vec<_> = (0..4).map(|number| knock(address, "127.0.0.2", &format!("crowd-{number}"))).collect();
        gate.wait_for(2);
        let refused = knock(address, "127.0.0.2", "crowd-4").response();
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
        assert!(refused.text().contains("too many connections wait"), "{refused:?}");
        // Of three requests at once the crowd has two.
        let mut ann = knock(address, "127.0.0.3", "ann");
        gate.wait_for(3);
        assert_eq!(gate.users()[2], "ann", "{:?}", gate.users());
        let mut bob = knock(address, "127.0.0.4", "bob");
        gate.open(1);
        // Whoever of the three was let go, bob is next: he has nothing under way, and he came last.
        gate.wait_for(4);
        assert_eq!(gate.users()[3], "bob", "{:?}", gate.users());
        gate.open(100);
        for raw in crowd.iter_mut().chain([&mut ann, &mut bob]) {
            raw.upgraded();
        }
    });
    let stats = host.server.stats();
    assert_eq!((stats.net.admissions_pending, stats.net.upgraded), (0, 6));
}

#[test]
fn who_leaves_gives_the_place_back() {
    let mut config = config();
    (config.net.admissions_pending_max, config.net.auth_requests_max) = (10, 1);
    let (gate, back_end) = Gate::back_end();
    let (mut host, address) = host(config, &back_end);
    let pending = |host: &mut Host, count: usize| {
        host.turn_until(&format!("{count} wait"), |host| host.server.stats().net.admissions_pending == count);
    };
    for round in 0..5 {
        let crowd: Vec<_> =
            (0..3).map(|number| knock(address, "127.0.0.2", &format!("crowd-{round}-{number}"))).collect();
        pending(&mut host, 3);
        drop(crowd);
        pending(&mut host, 0);
    }
    gate.wait_for(1);
    let mut ann = knock(address, "127.0.0.2", "ann");
    pending(&mut host, 1);
    gate.open(100);
    host.serve(|| ann.upgraded());
    assert_eq!(gate.users(), ["crowd-0-0", "ann"], "nobody else is asked about in vain");
    host.turn_until("all sockets but one are freed", |host| host.server.stats().net.sockets == 1);
    assert_eq!(host.server.stats().net.upgraded, 1);
}

#[test]
fn a_login_under_way_has_its_place_and_takes_none_from_others() {
    let mut config = config();
    config.net.connections_max = 1;
    let (gate, back_end) = Gate::back_end();
    let (mut host, address) = host(config, &back_end);
    host.serve(|| {
        let mut ann = knock(address, "127.0.0.1", "ann");
        gate.wait_for(1);
        assert_eq!(knock(address, "127.0.0.1", "bob").response().status, 503);
        gate.open(100);
        ann.upgraded();
        assert_eq!(knock(address, "127.0.0.1", "bob").response().status, 503);
        assert_eq!(gate.users(), ["ann"]);
    });
}

#[test]
fn a_user_whom_the_back_end_names_is_charged_from_wherever_it_comes() {
    let mut config = config();
    config.hub.messages_per_owner = 1;
    let back_end = BackEnd::obliging();
    let (mut host, address) = host_with_clock(config, &back_end, frozen);
    host.serve(|| {
        let log_in = |source: &str, user: &str| {
            let mut raw = knock(address, source, user);
            raw.upgraded();
            raw.json_of("welcome");
            raw.send(&frame_of_json(&json!({"type": "ping"})));
            raw
        };
        assert_eq!(log_in("127.0.0.2", "ann").json()["type"], "pong");
        assert_eq!(log_in("127.0.0.3", "ann").json()["code"], "rate_limited");
        assert_eq!(log_in("127.0.0.2", "bob").json()["type"], "pong");
    });
}
