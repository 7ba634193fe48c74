//! Commands of a host about a user reach all nodes, including those that were cut at the time.

use std::time::Instant;

use roomcast::CloseReason;
use roomcast::bus::{Outcome, Ticket};
use roomcast::bus::{RedisBus, RedisConfig};
use roomcast::{Config, Error, Notice, RoomName, UserId};
use serde_json::Value;

use crate::harness::cluster::RedisCluster;
use crate::harness::nodes::{node_with, nodes, recv_long, say_and_see, wait_ready, wait_unready};
use crate::harness::redis::{LONG, Redis, eventually};
use crate::harness::way::{Course, Way};
use crate::support::chat::{is, settle, texts};
use crate::support::host::{Host, LOOK, config};
use crate::support::{Client, Server};

/// A node of the test's own, which gives the commands.
struct Judge {
    host: Host,
}

impl Judge {
    fn at(url: &str) -> Self {
        Self::with(url, config())
    }

    fn with(url: &str, config: Config) -> Self {
        let redis = RedisConfig::new(url);
        Self { host: Host::over(config, |config, waker| RedisBus::new(config, &redis, waker, 77).unwrap()) }
    }

    fn kick(&mut self, room: &str, user: &str) {
        let (room, user) = (RoomName::new(room).unwrap(), UserId::new(user).unwrap());
        self.command(|server| server.kick(&room, &user));
    }

    fn disconnect(&mut self, user: &str) {
        let user = UserId::new(user).unwrap();
        let reason = CloseReason::new(4711, "enough").unwrap();
        self.command(|server| server.disconnect_user(&user, reason.clone()));
    }

    /// Says it, until Redis has taken it.
    fn command(&mut self, mut say: impl FnMut(&mut roomcast::Server) -> Result<Ticket, Error>) {
        let ticket = say(&mut self.host.server).unwrap();
        let deadline = Instant::now() + LONG;
        loop {
            assert!(Instant::now() < deadline, "the command is not taken");
            self.host.turn(LOOK);
            while let Some(notice) = self.host.server.poll_notice() {
                if let Notice::Published { ticket: answered, outcome } = notice
                    && answered == ticket
                {
                    return assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
                }
            }
        }
    }
}

fn join(server: &Server, user: &str, rooms: &[&str]) -> Client {
    let mut client = Client::connect_as(server, user);
    rooms.iter().for_each(|room| drop(client.join(room)));
    client
}

fn recv_removal(client: &mut Client, room: &str) {
    let mut messages = recv_long(client, "left", |message| is(message, "left") && message["room"] == room);
    messages.pop();
    let error = messages.pop().expect("an error before it");
    assert_eq!((error["code"].as_str(), error["room"].as_str()), (Some("removed"), Some(room)));
}

/// How many nodes hear commands.
fn listeners(redis: &Redis) -> usize {
    redis.ask::<(String, usize)>(&["PUBSUB", "NUMSUB", "roomcast:{%control}"]).1
}

fn is_offline(message: &Value, user: &str) -> bool {
    is(message, "presence") && message["userId"] == user && message["status"] == "offline"
}

#[test]
fn a_kick_and_a_disconnection_reach_all_nodes() {
    let redis = Redis::start();
    let servers = nodes::<2>(&redis);
    let mut judge = Judge::at(&redis.url());
    let [mut here, mut there] = [0, 1].map(|i| join(&servers[i], "ann", &["red", "blue"]));
    let mut elsewhere = join(&servers[1], "ann", &["blue"]);
    let mut bob = join(&servers[0], "bob", &["red", "blue"]);
    eventually("ann is seen in red", || {
        let mut eve = join(&servers[0], "eve", &[]);
        eve.join("red")["count"] == 3
    });
    judge.kick("red", "ann");
    recv_removal(&mut here, "red");
    recv_removal(&mut there, "red");
    recv_long(&mut bob, "that ann is gone", |message| is_offline(message, "ann") && message["room"] == "red");
    // The connection on the same node that is not in the room, and the other rooms, go on.
    say_and_see(&mut bob, "blue", "still with us");
    for client in [&mut here, &mut there, &mut elsewhere] {
        recv_long(client, "blue", |message| is(message, "chat") && message["text"] == "still with us");
    }
    there.join("red");
    judge.disconnect("ann");
    for client in [&mut here, &mut there, &mut elsewhere] {
        assert_eq!(client.expect_close(), 4711);
    }
    // The other clients have seen nothing of it.
    say_and_see(&mut bob, "red", "quiet now");
    assert!(texts(&settle(&mut bob)).is_empty());
    assert_eq!(servers.iter().flat_map(|server| server.log_lines("WARN")).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_node_that_was_cut_carries_out_missed_commands_on_connections_of_that_time() {
    let redis = Redis::start();
    let way = Way::to(redis.port, Course::default());
    let far = Server::spawn(&["--redis", &way.url(), "--message-rate", "0"]);
    let near = node_with(&redis, &[]);
    wait_ready(&far);
    let mut judge = Judge::at(&redis.url());
    let mut ann = join(&far, "ann", &["red", "blue"]);
    let mut cat = join(&far, "cat", &["red"]);
    let mut bob = join(&near, "ann", &["red"]);
    way.cut();
    wait_unready(&far);
    judge.kick("red", "ann");
    judge.disconnect("cat");
    recv_removal(&mut bob, "red");
    assert!(settle(&mut ann).iter().all(|message| !is(message, "left")), "the node cannot know yet");
    way.mend();
    recv_removal(&mut ann, "red");
    assert_eq!(cat.expect_close(), 4711);
    wait_ready(&far);
    say_and_see(&mut ann, "blue", "goes on");
    // And it is carried out once.
    ann.join("red");
    say_and_see(&mut ann, "red", "is back");
}

#[test]
fn commands_from_before_a_node_started_are_not_carried_out_there() {
    let redis = Redis::start();
    let first = node_with(&redis, &[]);
    let mut judge = Judge::at(&redis.url());
    let mut ann = join(&first, "ann", &["red"]);
    judge.kick("red", "ann");
    recv_removal(&mut ann, "red");
    judge.disconnect("ann");
    assert_eq!(ann.expect_close(), 4711);
    let second = node_with(&redis, &[]);
    let mut ann = join(&second, "ann", &["red"]);
    eventually("all hear commands", || listeners(&redis) == 3);
    // The next command comes after all that would come before it.
    judge.kick("other", "ann");
    let mut eve = join(&second, "eve", &["red"]);
    judge.disconnect("eve");
    assert_eq!(eve.expect_close(), 4711);
    say_and_see(&mut ann, "red", "still here");
}

#[test]
fn commands_are_live_without_history_and_readable_in_redis() {
    let redis = Redis::start();
    let server = Server::spawn(&["--redis", &redis.url(), "--history-messages", "0"]);
    wait_ready(&server);
    let mut config = config();
    config.history.messages_max = 0;
    let mut judge = Judge::with(&redis.url(), config);
    for _ in 0..3 {
        let mut ann = join(&server, "ann", &["red"]);
        judge.kick("red", "ann");
        recv_removal(&mut ann, "red");
        judge.disconnect("ann");
        assert_eq!(ann.expect_close(), 4711);
    }
    assert_eq!(redis.ask::<u32>(&["HGET", "roomcast:{%control}:meta", "seq"]), 6);
    assert_eq!(redis.ask::<u32>(&["XLEN", "roomcast:{%control}:log"]), 0);
}

#[test]
fn a_command_that_is_gone_is_owned_up_to() {
    let redis = Redis::start();
    let way = Way::to(redis.port, Course::default());
    let far = Server::spawn(&["--redis", &way.url()]);
    wait_ready(&far);
    let mut judge = Judge::at(&redis.url());
    let mut ann = join(&far, "ann", &["red"]);
    judge.kick("red", "nobody");
    way.cut();
    wait_unready(&far);
    judge.kick("red", "ann");
    redis.ask::<u32>(&["XTRIM", "roomcast:{%control}:log", "MAXLEN", "0"]);
    way.mend();
    far.wait_for_log("some may not have been carried out here");
    // It goes on with later commands.
    judge.kick("red", "ann");
    recv_removal(&mut ann, "red");
}

#[test]
fn commands_go_through_a_cluster() {
    let cluster = RedisCluster::start();
    let servers = [(); 2].map(|()| Server::spawn(&["--redis", &cluster.url()]));
    servers.iter().for_each(wait_ready);
    let mut judge = Judge::at(&cluster.url());
    for room in &cluster.rooms() {
        let mut clients = [0, 1].map(|i| join(&servers[i], "ann", &[room]));
        judge.kick(room, "ann");
        clients.iter_mut().for_each(|client| recv_removal(client, room));
        judge.disconnect("ann");
        clients.iter_mut().for_each(|client| assert_eq!(client.expect_close(), 4711));
    }
}
