//! Who is there: per user, with a grace for reloads, counted in big rooms.

mod support;

use serde_json::{Value, json};
use support::{Client, Server};

fn presence(user: &str, status: &str) -> Value {
    json!({"type": "presence", "room": "lobby", "userId": user, "status": status})
}

/// Ends with a message of ann's own, so that what came before it is all that came.
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
    let server = Server::spawn(&["--presence-grace", "0s", "--big-room", "4", "--members-interval", "0s"]);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    let mut others: Vec<_> = (1..=4).map(|i| Client::connect_as(&server, &format!("user-{i}"))).collect();
    for other in &mut others {
        other.join("lobby");
    }
    ann.recv_until(|message| *message == json!({"type": "members", "room": "lobby", "count": 5}));
    let mut late = Client::connect_as(&server, "late");
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
}
