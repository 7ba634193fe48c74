//! The commands of a host about a user, on one node and over real sockets.

use std::net::SocketAddr;
use std::time::Instant;

use roomcast::CloseReason;
use roomcast::bus::{Outcome, Ticket};
use roomcast::{Caller, Notice, Now, Policy, Remote, RoomName, UserId};
use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::chat::{is, join_with, presences, settle, texts};
use crate::support::host::{Host, LOOK, config};
use crate::support::{Client, Connect, PATIENCE};

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn reason() -> CloseReason {
    CloseReason::new(4711, "„genug“").unwrap()
}

fn join(address: SocketAddr, user: &str, rooms: &[&str]) -> Client {
    let mut client = Connect::to(address).user(user).connect();
    rooms.iter().for_each(|room| drop(client.join(room)));
    client
}

/// Reads what a client is told when it is taken out of a room. Returns the messages before that.
fn recv_removal(client: &mut Client, room: &str) -> Vec<Value> {
    let mut messages = client.recv_until(|message| is(message, "left"));
    assert_eq!(messages.pop().unwrap(), json!({"type": "left", "room": room}));
    let error = messages.pop().expect("an error before it");
    assert_eq!((&error["code"], &error["temporary"], &error["room"]), (&json!("removed"), &json!(false), &json!(room)));
    messages
}

fn expect_reason(client: &mut Client) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.recv_frame(deadline).expect("a Close").expect("a frame") {
            Message::Close(close) => {
                let close = close.expect("a code");
                assert_eq!((u16::from(close.code), close.reason.as_str()), (4711, "„genug“"));
                return;
            }
            _ => continue,
        }
    }
}

/// Serves clients of one thread, which speaks to the server as another thread does.
fn serve(host: &mut Host, work: impl FnOnce(SocketAddr, Remote) + Send) {
    let (address, remote) = (host.listen(), host.server.remote());
    host.serve(move || work(address, remote));
}

/// The outcomes of commands.
fn outcomes(notices: &[Notice]) -> Vec<(Ticket, Outcome)> {
    let outcome = |notice: &Notice| match notice {
        Notice::Published { ticket, outcome } => Some((*ticket, outcome.clone())),
        _ => None,
    };
    notices.iter().filter_map(outcome).collect()
}

#[test]
fn a_kicked_user_is_out_of_the_room_at_once_and_goes_on_elsewhere() {
    let mut host = Host::new(config());
    serve(&mut host, |address, remote| {
        let mut bob = join(address, "bob", &["red", "blue"]);
        let mut phone = join(address, "ann", &["red", "blue"]);
        let mut desk = join(address, "ann", &["red"]);
        let mut tab = join(address, "ann", &["blue"]);
        settle(&mut bob);
        bob.say("red", "before");
        bob.recv_type("chat");
        phone.send_json(&json!({"type": "typing", "room": "red", "status": "start"}));
        bob.recv_type("typing");
        remote.kick(room("red"), user("ann")).unwrap();
        for client in [&mut phone, &mut desk] {
            assert!(texts(&recv_removal(client, "red")).contains(&"before"));
        }
        // Without the grace that a lost connection has.
        let seen = bob.recv_until(|message| is(message, "presence"));
        assert_eq!(presences(&seen), [("ann", "offline")]);
        bob.say("red", "she does not hear it");
        bob.say("blue", "she hears it");
        for client in [&mut phone, &mut tab] {
            assert_eq!(texts(&settle(client)), ["she hears it"]);
        }
        assert!(settle(&mut desk).is_empty());
        phone.send_json(&json!({"type": "chat", "room": "red", "text": "hello?", "id": "1"}));
        assert_eq!(phone.recv_type("error")["code"], "not_joined");
        // It forbids nothing, and nothing of it is in history.
        let (history, joined) = join_with(&mut phone, &json!({"room": "red", "history": 50}));
        assert_eq!((texts(&history), &joined["seq"]), (vec!["before", "she does not hear it"], &json!(2)));
    });
    let left = |notice: &&Notice| matches!(notice, Notice::Left { room, .. } if room.as_str() == "red");
    let stayed = host.notices.iter().take_while(|notice| !matches!(notice, Notice::Disconnected { .. }));
    assert_eq!(stayed.filter(left).count(), 2);
    assert!(matches!(outcomes(&host.notices)[..], [(_, Outcome::Accepted(1))]), "{:?}", host.notices);
}

struct Keeper;

impl Policy for Keeper {
    fn allow_join(&mut self, caller: &Caller<'_>, room: &RoomName) -> Result<(), String> {
        if caller.user.as_str() == "ann" && room.as_str() == "red" { Err("not you".to_owned()) } else { Ok(()) }
    }
}

#[test]
fn the_policy_decides_about_coming_back() {
    let mut host = Host::with(config(), Keeper, Now::system);
    serve(&mut host, |address, remote| {
        let mut ann = join(address, "ann", &["blue"]);
        remote.kick(room("blue"), user("ann")).unwrap();
        recv_removal(&mut ann, "blue");
        ann.join("blue");
        ann.send_json(&json!({"type": "join", "room": "red"}));
        assert_eq!(ann.recv_type("error")["code"], "forbidden");
    });
}

#[test]
fn a_disconnected_user_is_closed_with_the_hosts_words() {
    let mut host = Host::new(config());
    serve(&mut host, |address, remote| {
        let mut clients = [join(address, "ann", &["red"]), join(address, "ann", &[])];
        let mut bob = join(address, "bob", &["red"]);
        remote.disconnect_user(user("ann"), reason()).unwrap();
        clients.iter_mut().for_each(expect_reason);
        remote.disconnect_user(user("nobody"), reason()).unwrap();
        bob.say("red", "I am still here");
        assert_eq!(bob.recv_type("chat")["text"], "I am still here");
        // She may come back, as far as the server is concerned.
        join(address, "ann", &["red"]);
        assert_eq!(clients[0].user_id(), "ann");
    });
}

#[test]
fn commands_have_tickets_and_bounds_also_between_two_turns() {
    let mut config = config();
    config.hub.publications_pending_max = 2;
    let mut host = Host::new(config);
    // Before the first turn, too.
    let tickets = [
        host.server.kick(&room("red"), &user("ann")).unwrap(),
        host.server.disconnect_user(&user("ann"), CloseReason::EXPELLED).unwrap(),
    ];
    let error = host.server.kick(&room("red"), &user("ann")).unwrap_err();
    assert_eq!(error.to_string(), "2 messages wait already; try again later");
    host.turn(LOOK);
    let notices: Vec<_> = std::iter::from_fn(|| host.server.poll_notice()).collect();
    let accepted = |at: usize| (tickets[at], Outcome::Accepted(at as u64 + 1));
    assert_eq!(outcomes(&notices), [accepted(0), accepted(1)]);
    let error = host.server.disconnect_user(&user("ann"), CloseReason::GOING_AWAY).unwrap_err();
    assert_eq!(error.to_string(), "close code 1001; 4000 to 4999 are allowed");
    host.server.shutdown();
    assert!(host.server.kick(&room("red"), &user("ann")).unwrap_err().to_string().contains("shutting down"));
}

#[test]
fn it_needs_no_history() {
    let mut config = config();
    config.history.messages_max = 0;
    let mut host = Host::new(config);
    serve(&mut host, |address, remote| {
        let mut ann = join(address, "ann", &["red"]);
        for _ in 0..3 {
            remote.kick(room("red"), user("ann")).unwrap();
            recv_removal(&mut ann, "red");
            ann.join("red");
        }
        remote.disconnect_user(user("ann"), reason()).unwrap();
        expect_reason(&mut ann);
    });
}

#[test]
fn nobody_can_name_the_room_of_commands() {
    const NAME: &str = "%control";
    RoomName::new(NAME).unwrap_err();
    UserId::new(NAME).unwrap_err();
    let mut host = Host::new(config());
    serve(&mut host, |address, _| {
        let mut eve = join(address, "eve", &[]);
        let kick = r#"{"type":"kick","room":"red","userId":"eve","ts":1}"#;
        for (message, code) in [
            (json!({"type": "join", "room": NAME}), "bad_message"),
            (json!({"type": "chat", "room": NAME, "text": kick}), "not_joined"),
            (json!({"type": "typing", "room": NAME, "status": "start"}), "not_joined"),
            (json!({"type": "leave", "room": NAME}), "not_joined"),
        ] {
            eve.send_json(&message);
            assert_eq!(eve.recv_type("error")["code"], code, "{message}");
        }
    });
    assert_eq!((host.server.stats().hub.rooms, host.server.stats().hub.messages_delivered), (0, 0));
}
