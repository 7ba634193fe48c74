//! Presence: it is per user, has a grace for reloads, and is counted in big rooms.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::chat::{is, presences, settle, users};
use crate::support::host::{self, Host};
use crate::support::{Client, Connect, Server};

fn presence(user: &str, status: &str) -> Value {
    json!({"type": "presence", "room": "lobby", "userId": user, "status": status})
}

/// Ends with a message of ann's own, so that all messages before it have come.
fn seen_by(ann: &mut Client, mark: &str) -> Vec<Value> {
    ann.say("lobby", mark);
    let mut seen = ann.recv_until(|message| message["text"] == mark);
    seen.retain(|message| message["type"] != "chat");
    seen
}

#[test]
fn a_user_comes_once_and_goes_once_however_many_tabs() {
    let server = Server::spawn(&["--presence-grace", "0s"]);
    let mut ann = Client::connect_as(&server, "ann");
    assert_eq!(ann.join("lobby")["users"], json!([]));
    assert_eq!(ann.recv(), presence("ann", "online"));
    let mut first = Client::connect_as(&server, "bob");
    assert_eq!(first.join("lobby")["users"], json!([{"userId": "ann"}]));
    let mut second = Client::connect_as(&server, "bob");
    assert_eq!(second.join("lobby")["count"], 2);
    assert_eq!(seen_by(&mut ann, "one"), [presence("bob", "online")]);
    first.close();
    assert_eq!(seen_by(&mut ann, "two"), [""; 0]);
    second.send_json(&json!({"type": "leave", "room": "lobby"}));
    second.recv_type("left");
    assert_eq!(ann.recv(), presence("bob", "offline"));
}

#[test]
fn a_reload_is_no_absence_and_an_absence_is_told_after_the_grace() {
    let server = Server::spawn(&["--presence-grace", "1s"]);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    ann.recv_type("presence");
    let mut bob = Client::connect_as(&server, "bob");
    bob.join("lobby");
    ann.recv_type("presence");
    bob.reset();
    let mut bob = Client::connect_as(&server, "bob");
    let joined = bob.join("lobby");
    assert_eq!(joined["users"], json!([{"userId": "ann"}, {"userId": "bob"}]));
    assert_eq!(seen_by(&mut ann, "still here"), [""; 0]);
    bob.reset();
    assert_eq!(ann.recv(), presence("bob", "offline"));
}

#[test]
fn big_rooms_count_and_small_ones_name() {
    let mut config = host::config();
    config.hub.users_listed_max = 4;
    config.timing.presence_grace = Duration::ZERO;
    config.timing.members_interval = Duration::ZERO;
    let mut host = Host::new(config);
    let address = host.listen();
    host.serve(|| {
        let connect = |user: &str| Connect::to(address).user(user).connect();
        let mut ann = connect("ann");
        ann.join("lobby");
        let mut others: Vec<_> = (1..=4).map(|i| connect(&format!("user-{i}"))).collect();
        for other in &mut others {
            other.join("lobby");
        }
        ann.recv_until(|message| *message == json!({"type": "members", "room": "lobby", "count": 5}));
        let mut late = connect("late");
        let joined = late.join("lobby");
        assert_eq!((&joined["count"], &joined["users"]), (&json!(5), &Value::Null));
        late.close();
        while others.len() > 1 {
            others.pop().unwrap().close();
        }
        let listed = ann.recv_until(|message| message["type"] == "members" && message["users"].is_array());
        let last = listed.last().unwrap();
        assert_eq!(last["count"], last["users"].as_array().unwrap().len());
        others.pop().unwrap().close();
        ann.recv_until(|message| *message == presence("user-1", "offline"));
    });
}

#[test]
fn a_user_that_leaves_is_gone_at_once() {
    let server = Server::spawn(&["--presence-grace", "1h"]);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let mut first = Client::connect_as(&server, "bob");
    first.join("lobby");
    let mut second = Client::connect_as(&server, "bob");
    second.join("lobby");
    settle(&mut ann);
    // A connection that closes while another is there is no absence that could have a grace.
    first.close();
    second.send_json(&json!({"type": "leave", "room": "lobby"}));
    second.recv_type("left");
    assert_eq!(presences(&settle(&mut ann)), [("bob", "offline")]);
    second.join("lobby");
    assert_eq!(presences(&settle(&mut ann)), [("bob", "online")]);
    assert_eq!(presences(&settle(&mut second)), [("bob", "online")]);
}

#[test]
fn presence_is_told_room_by_room() {
    let server = Server::spawn(&["--presence-grace", "0s"]);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    ann.join("red");
    let mut bob = Client::connect_as(&server, "bob");
    assert_eq!(users(&bob.join("red")), ["ann"]);
    settle(&mut ann);
    bob.join("lobby");
    assert_eq!(settle(&mut ann), [presence("bob", "online")]);
    bob.send_json(&json!({"type": "leave", "room": "lobby"}));
    bob.recv_type("left");
    assert_eq!(settle(&mut ann), [presence("bob", "offline")]);
    bob.close();
    let gone = json!({"type": "presence", "room": "red", "userId": "bob", "status": "offline"});
    assert_eq!(ann.recv(), gone);
}

#[test]
fn a_reload_is_not_told_later_either() {
    let server = Server::spawn(&["--presence-grace", "3s"]);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let mut bob = Client::connect_as(&server, "bob");
    bob.join("lobby");
    settle(&mut ann);
    for _ in 0..3 {
        bob.reset();
        bob = Client::connect_as(&server, "bob");
        assert_eq!(users(&bob.join("lobby")), ["ann", "bob"]);
        assert_eq!(settle(&mut bob), [""; 0], "who was there all the time does not come");
    }
    let after_the_grace = Duration::from_millis(4500);
    assert_eq!(ann.try_recv(after_the_grace), None);
}

#[test]
fn a_guest_that_comes_back_with_its_id_is_the_same_user() {
    let server = Server::spawn(&["--presence-grace", "1h"]);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let mut guest = Client::connect(&server);
    guest.join("lobby");
    let id = guest.user_id().to_owned();
    assert_ne!(Client::connect(&server).user_id(), id);
    settle(&mut ann);
    guest.reset();
    let mut guest = Client::connect_as(&server, &id);
    assert_eq!(guest.user_id(), id);
    assert_eq!(users(&guest.join("lobby")), ["ann", &id]);
    assert_eq!(settle(&mut ann), [""; 0]);
}

#[test]
fn a_crowd_is_counted_at_most_once_a_second() {
    let server = Server::spawn(&["--presence-grace", "0s", "--big-room", "3"]);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let start = Instant::now();
    let mut others: Vec<_> = (1..=30).map(|i| Client::connect_as(&server, &format!("user-{i}"))).collect();
    for other in &mut others {
        other.join("lobby");
    }
    let seen = ann.recv_until(|message| is(message, "members") && message["count"] == 31);
    let told = seen.iter().filter(|message| is(message, "members")).count();
    let allowed = 2 + start.elapsed().as_secs() as usize;
    assert!(told <= allowed, "told {told} times, {allowed} allowed: {seen:?}");
    let came = presences(&seen).len();
    assert!(came <= 4, "presence in a room of more than three: {seen:?}");

    others[0].send_json(&json!({"type": "typing", "room": "lobby", "status": "start"}));
    others[0].say("lobby", "typed");
    let seen = ann.recv_until(|message| message["text"] == "typed");
    assert!(!seen.iter().any(|message| is(message, "typing")), "typing in a big room: {seen:?}");
}
