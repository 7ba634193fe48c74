//! A master, a replica and a sentinel: what a failover keeps is there exactly once, and what it loses is told.

#[path = "support/chat.rs"]
mod chat_support;
#[path = "support/nodes.rs"]
mod nodes_support;
#[path = "support/redis.rs"]
mod redis_support;
mod support;
#[path = "support/talk.rs"]
mod talk;

use chat_support::{is, texts};
use nodes_support::{epoch, history, is_text, recv_long, say_and_see, wait_ready};
use redis_support::{Redis, eventually};
use rustix::process::Signal;
use support::{Client, Server};
use talk::{check_all_kept, counts, talk};

const ROOMS: [&str; 2] = ["lobby"; 2];

struct Trio {
    master: Redis,
    replica: Redis,
    sentinel: Redis,
}

impl Trio {
    fn start() -> Self {
        let master = Redis::start();
        let replica = Redis::replica(&master);
        let sentinel = Redis::sentinel(&master, "main", 1);
        Self { master, replica, sentinel }
    }

    fn node(&self) -> Server {
        // The first sentinel is not there.
        let url = format!("redis+sentinel://127.0.0.1:1,localhost:{}/main", self.sentinel.port);
        let server = Server::spawn(&["--redis", &url, "--message-rate", "0", "--history-messages", "100000"]);
        wait_ready(&server);
        server
    }

    /// Waits until the sentinel says that what was the replica is the master, and it is.
    fn wait_for_failover(&self) {
        eventually("the replica is the master", || {
            let (_, port): (String, u16) = self.sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]);
            port == self.replica.port && self.replica.info("role").as_deref() == Some("master")
        });
    }
}

/// How many links of nodes a server has.
fn links(redis: &Redis) -> usize {
    redis.ask::<String>(&["CLIENT", "LIST"]).lines().filter(|line| line.contains(" name=roomcast ")).count()
}

fn said_so_far(redis: &Redis) -> usize {
    redis.ask::<Option<usize>>(&["HGET", "roomcast:{lobby}:meta", "seq"]).unwrap_or(0)
}

fn grow(redis: &Redis, more: usize) {
    let enough = said_so_far(redis) + more;
    eventually("the talk goes on", || said_so_far(redis) >= enough);
}

#[test]
fn a_master_that_dies_with_all_replicated_costs_nothing() {
    let mut trio = Trio::start();
    let servers = [trio.node(), trio.node()];
    let said = talk(&servers, &ROOMS, || {
        grow(&trio.master, 200);
        // From here on nothing more is acknowledged, so that everything that is, is also on the replica.
        trio.master.ask::<String>(&["CLIENT", "PAUSE", "60000", "WRITE"]);
        trio.master.wait_until_replicated();
        trio.master.kill();
        trio.wait_for_failover();
        servers.iter().for_each(wait_ready);
        grow(&trio.replica, 200);
    });
    check_all_kept(&servers, &said);
    assert!(said.iter().all(|said| said.breaks == 0), "the epoch goes on");
}

#[test]
fn all_links_follow_a_failover_that_was_asked_for() {
    let trio = Trio::start();
    let servers = [trio.node(), trio.node()];
    let said = talk(&servers, &ROOMS, || {
        grow(&trio.master, 200);
        trio.sentinel.ask::<String>(&["SENTINEL", "FAILOVER", "main"]);
        trio.wait_for_failover();
        eventually("all links have moved", || links(&trio.replica) == 4 && links(&trio.master) == 0);
        grow(&trio.replica, 200);
    });
    // The old master goes on taking messages for a moment, which are lost; that is told.
    for server in &servers {
        let counts = counts(server, "lobby", &said);
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
        for said in &said {
            let is_there = |id: &String| counts.contains_key(&(said.user.clone(), id.clone()));
            assert!(said.breaks > 0 || said.acknowledged.iter().all(is_there), "{} was not told", said.user);
        }
    }
}

#[test]
fn what_a_failover_loses_begins_a_new_epoch() {
    let mut trio = Trio::start();
    let (a, b) = (trio.node(), trio.node());
    let mut clients = [Client::connect_as(&a, "ann"), Client::connect_as(&b, "bob")];
    let old = clients.each_mut().map(|client| epoch(&client.join("lobby")));
    say_and_see(&mut clients[0], "lobby", "kept");
    trio.master.wait_until_replicated();
    // The replica hears no more of it.
    trio.replica.signal(Signal::STOP);
    trio.master.ask::<usize>(&["CLIENT", "KILL", "TYPE", "replica"]);
    for i in 0..5 {
        say_and_see(&mut clients[0], "lobby", &format!("lost {i}"));
    }
    recv_long(&mut clients[1], "the last message", |message| is_text(message, "lost 4"));
    trio.master.kill();
    trio.replica.signal(Signal::CONT);
    trio.wait_for_failover();
    let new = clients.each_mut().map(|client| {
        let joined = recv_long(client, "a joined, unasked", |message| is(message, "joined")).pop().unwrap();
        assert_eq!(joined["recovered"], false);
        epoch(&joined)
    });
    assert!(new[0] == new[1] && new[0] != old[0], "{old:?} {new:?}");
    let message = say_and_see(&mut clients[1], "lobby", "after");
    recv_long(&mut clients[0], "the message", |message| is_text(message, "after"));
    let shown = history(&a, "lobby", message["seq"].as_u64().unwrap());
    assert_eq!(texts(&shown), ["kept", "after"]);
}

#[test]
fn a_master_that_no_sentinel_knows_is_said_clearly() {
    let trio = Trio::start();
    let url = format!("redis+sentinel://:the-secret@127.0.0.1:{}/other", trio.sentinel.port);
    let server = Server::spawn(&["--redis", &url]);
    server.wait_for_log("knows no master other");
    assert_eq!((server.get("/readyz").status, server.get("/healthz").status), (503, 200));
    assert_eq!(server.log_lines("the-secret"), [""; 0]);
}
