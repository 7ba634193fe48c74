//! What back-ends ask at one node about rooms whose users are on several.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::nodes::{epoch, node_with, wait_ready, wait_unready};
use crate::harness::redis::{Redis, eventually};
use crate::support::api::{KEY, command, publish};
use crate::support::{Client, Server};

fn node(redis: &Redis) -> Server {
    node_with(redis, &["--api-key", KEY, "--redis-hold", "500ms"])
}

fn members(address: SocketAddr, room: &str) -> Value {
    command(address, "/api/members", &json!({"room": room}))
}

/// The list of a room once it is this.
fn wait_members(server: &Server, room: &str, members_of_room: &Value, nodes: &str) {
    let users = members_of_room.as_array().unwrap().len();
    let expected = json!({"room": room, "users": users, "members": members_of_room, "more": false, "nodes": nodes});
    eventually(&format!("{expected}"), || members(server.address(), room) == expected);
}

fn here(user: &str, connections: u32, elsewhere: bool) -> Value {
    json!({"userId": user, "connections": connections, "elsewhere": elsewhere})
}

fn elsewhere(user: &str) -> Value {
    json!({"userId": user, "elsewhere": true})
}

#[test]
fn each_node_knows_the_members_of_all_rooms_also_of_those_that_it_has_not_open() {
    let redis = Redis::start();
    let [a, b] = [node(&redis), node(&redis)];
    let mut ann = [Client::connect_as(&a, "ann"), Client::connect_as(&a, "ann"), Client::connect_as(&b, "ann")];
    let mut bob = Client::connect_as(&b, "bob");
    ann.iter_mut().for_each(|client| drop(client.join("lobby")));
    bob.join("lobby");
    let joined = bob.join("other");
    wait_members(&a, "lobby", &json!([here("ann", 2, true), elsewhere("bob")]), "all");
    wait_members(&b, "lobby", &json!([here("ann", 1, true), here("bob", 1, false)]), "all");
    wait_members(&b, "other", &json!([here("bob", 1, false)]), "all");
    // This node has not heard of it before.
    wait_members(&a, "other", &json!([elsewhere("bob")]), "all");
    assert_eq!(publish(b.address(), &json!({"room": "other", "text": "hello"})).status, 200);
    let room = command(a.address(), "/api/room", &json!({"room": "other"}));
    let found = [&room["epoch"], &room["seq"], &room["users"], &room["connections"], &room["nodes"]];
    assert_eq!(found, [&json!(epoch(&joined)), &json!(1), &json!(1), &json!(0), &json!("all")]);
    // Who leaves is not listed any more, and nobody was told of a user by a question.
    bob.send_json(&json!({"type": "leave", "room": "other"}));
    bob.recv_type("left");
    wait_members(&a, "other", &json!([]), "all");
    let rooms = command(a.address(), "/api/rooms", &json!({}));
    let lobby = json!({"room": "lobby", "users": 2, "connections": 2, "seq": 0});
    assert_eq!(rooms, json!({"rooms": [lobby], "more": false, "nodes": "this"}));
    let stats = [&a, &b].map(|node| command(node.address(), "/api/stats", &json!({})));
    assert_eq!(stats[0]["bus"], json!({"ready": true, "shared": true, "nodesAlive": 2}));
    assert_ne!(stats[0]["nodeId"], stats[1]["nodeId"]);
    assert!(
        a.log().iter().any(|line| line.contains(&format!("this is node {}", stats[0]["nodeId"].as_str().unwrap())))
    );
}

#[test]
fn while_redis_is_away_a_list_says_that_it_is_what_this_node_knew() {
    let mut redis = Redis::start();
    let [a, b] = [node(&redis), node(&redis)];
    let (mut ann, mut bob) = (Client::connect_as(&a, "ann"), Client::connect_as(&b, "bob"));
    ann.join("lobby");
    bob.join("lobby");
    bob.join("other");
    let both = json!([here("ann", 1, false), elsewhere("bob")]);
    wait_members(&a, "lobby", &both, "all");
    // It takes questions, and gives no answers.
    redis.signal(Signal::STOP);
    let nobody = json!({"room": "other", "users": 0, "members": [], "more": false, "nodes": "this"});
    assert_eq!(members(a.address(), "other"), nobody);
    redis.signal(Signal::CONT);
    wait_members(&a, "other", &json!([elsewhere("bob")]), "all");
    redis.kill();
    wait_unready(&a);
    wait_members(&a, "lobby", &both, "this");
    let room = command(a.address(), "/api/room", &json!({"room": "quiet"}));
    assert_eq!((&room["epoch"], &room["seq"], &room["nodes"]), (&Value::Null, &Value::Null, &json!("this")));
    redis.restart();
    wait_ready(&a);
    wait_members(&a, "lobby", &both, "all");
    wait_members(&a, "other", &json!([elsewhere("bob")]), "all");
}
