//! A master, a replica and a sentinel. After a failover each message is there once, or clients are told
//! that messages are lost.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::attendance::{join, pair, seen_by_newcomer, set, until};
use crate::harness::nodes::{epoch, history, is_text, recv_long, say_and_see, wait_ready};
use crate::harness::redis::{Certificate, Redis, eventually, free_port};
use crate::harness::talk::{check_all_kept, check_lost_is_told, talk};
use crate::support::chat::{is, presences, settle, texts};
use crate::support::{Client, Server};

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

    /// Waits until the sentinel reports the former replica as the master, and it is one.
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
    // The old master goes on taking messages for a moment, which are lost.
    check_lost_is_told(&servers, &said);
}

#[test]
fn a_failover_that_loses_messages_begins_a_new_epoch() {
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

/// A master and a replica that speak TLS alone with nodes and with each other, and a sentinel that does and wants a password.
fn trio_with_tls(certificate: &Certificate) -> (Trio, String) {
    let [master_port, replica_port, sentinel_port] = [(); 3].map(|()| free_port());
    let master = Redis::with_tls(&["--save", "", "--tls-replication", "yes"], certificate, master_port);
    let with_tls = |port, more: &[&str]| -> Vec<String> {
        certificate.options(port).into_iter().chain(more.iter().map(|word| (*word).to_owned())).collect()
    };
    let words = with_tls(replica_port, &["--tls-replication", "yes"]);
    let replica = Redis::replica_of(master_port, &words.iter().map(String::as_str).collect::<Vec<_>>());
    let words = with_tls(sentinel_port, &["--tls-replication", "yes", "--requirepass", "the-secret"]);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let sentinel = Redis::sentinel_of(&format!("127.0.0.1 {master_port}"), "main", 1, &words);
    let url = format!("rediss+sentinel://localhost:{sentinel_port}/main?sentinel_password=the-secret");
    (Trio { master, replica, sentinel }, url)
}

#[test]
fn a_failover_by_tls_makes_no_present_user_absent_and_no_absent_user_present() {
    let certificate = Certificate::new();
    let (mut trio, url) = trio_with_tls(&certificate);
    let path = certificate.path();
    let flags = ["--redis-ca", &path, "--presence-lease", "3s", "--presence-grace", "1s", "--redis"];
    let servers = [(); 2].map(|()| Server::spawn(&[&flags[..], &[&url]].concat()));
    servers.iter().for_each(wait_ready);
    let mut clients = pair(&servers[0], &servers[1]);
    let carl = join(&servers[1], "carl", "lobby");
    clients.iter_mut().for_each(|client| drop(until(client, "carl", "online")));
    trio.master.wait_until_replicated();
    trio.master.kill();
    drop(carl);
    eventually("the replica is the master", || trio.replica.info("role").as_deref() == Some("master"));
    servers.iter().for_each(wait_ready);
    let expected = set(&["ann", "bob"]);
    for client in &mut clients {
        assert_eq!(presences(&until(client, "carl", "offline")), [("carl", "offline")]);
    }
    for server in &servers {
        assert_eq!(seen_by_newcomer(server, "lobby"), expected);
    }
    // As long as a silent node would have lived.
    let beats = || trio.replica.ask::<BTreeMap<String, String>>(&["HGETALL", "roomcast:nodes"]);
    let numbers =
        || -> Vec<u64> { beats().values().map(|beat| beat.split(' ').next().unwrap().parse().unwrap()).collect() };
    let most = numbers().into_iter().max().unwrap() + 7;
    eventually("all nodes beat on", || numbers().len() == 2 && numbers().iter().all(|beat| *beat >= most));
    for client in &mut clients {
        let seen = settle(client);
        assert!(presences(&seen).iter().all(|(user, _)| *user == "newcomer"), "{seen:?}");
    }

    let stranger = Server::spawn(&[&flags[..], &[&url.replace("the-secret", "another-one")]].concat());
    stranger.wait_for_log("WRONGPASS");
    assert_eq!((stranger.get("/readyz").status, stranger.log_lines("another-one")), (503, Vec::new()));
}

#[test]
fn links_do_not_chase_each_other_where_sentinels_call_one_server_by_different_names() {
    let master = Redis::start();
    let sentinels =
        ["127.0.0.1", "localhost"].map(|host| Redis::sentinel_of(&format!("{host} {}", master.port), "main", 0, &[]));
    let names = sentinels
        .each_ref()
        .map(|sentinel| sentinel.ask::<(String, u16)>(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]).0);
    assert_ne!(names[0], names[1]);
    let [one, other] = sentinels.each_ref().map(|sentinel| sentinel.port);
    let server = Server::spawn(&["--redis", &format!("redis+sentinel://127.0.0.1:{one},127.0.0.1:{other}/main")]);
    let moves = || server.log_lines("another link has found another master").len();
    eventually("a link follows the other", || moves() > 0);
    eventually("both links stand", || links(&master) == 2 && server.get("/readyz").status == 200);
    // A link looks once a second at the latest: by then the other one would have followed it.
    thread::sleep(Duration::from_secs(3));
    assert_eq!((moves(), links(&master)), (1, 2));
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    say_and_see(&mut ann, "lobby", "hello");
}
