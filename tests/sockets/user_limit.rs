//! Limits of a user: `--connections-per-user`, where the oldest connection gives way or the newest one is refused, and
//! `--messages-per-owner`.

use roomcast::settings::UserLimitPolicy;
use std::time::Duration;

use roomcast::{AdmissionTicket, Authentication, Authenticator, Config, Identity, Now, OpenPolicy, UserId};
use serde_json::json;

use crate::support::chat::{frame_of_json, settle, texts};
use crate::support::host::{Host, LOOK, config};
use crate::support::{Client, Raw, Response, Server, upgrade_request};

const REFUSE: &str = "--connections-per-user-policy=refuse-newest";

fn answer(server: &Server, user: &str) -> Response {
    let mut raw = Raw::connect(server.address());
    raw.send(upgrade_request(&format!("/ws?userId={user}"), &[]).as_bytes());
    raw.response()
}

#[test]
fn the_oldest_connection_of_a_user_gives_way() {
    let server = Server::spawn(&["--connections-per-user=2", "--metrics"]);
    let mut bob = Client::connect_as(&server, "bob");
    let mut first = Client::connect_as(&server, "alice");
    let mut second = Client::connect_as(&server, "alice");
    let third = Client::connect_as(&server, "alice");
    assert_eq!(first.expect_close(), 4504);
    // One that goes by itself leaves its place to the next.
    second.join("lobby");
    assert_eq!(third.close(), 1000);
    let mut fourth = Client::connect_as(&server, "alice");
    fourth.join("lobby");
    bob.join("lobby");
    bob.say("lobby", "hello");
    for client in [&mut second, &mut fourth, &mut bob] {
        client.recv_type("chat");
    }
    Client::connect_as(&server, "alice");
    assert_eq!(second.expect_close(), 4504);
    fourth.say("lobby", "still here");
    assert_eq!(texts(&settle(&mut fourth)), ["still here"]);
    assert!(server.get("/metrics").text().contains("\nroomcast_connections_replaced_total 2\n"));
}

#[test]
fn the_newest_connection_of_a_user_is_refused() {
    let server = Server::spawn(&["--connections-per-user=2", REFUSE, "--metrics"]);
    let mut clients = [Client::connect_as(&server, "alice"), Client::connect_as(&server, "alice")];
    let response = answer(&server, "alice");
    assert_eq!(response.status, 429, "{response:?}");
    assert!(response.text().contains("as many connections as are allowed"), "{response:?}");
    assert_eq!(answer(&server, "bob").status, 101);
    let [first, second] = &mut clients;
    assert_eq!((settle(first).len(), settle(second).len()), (0, 0), "they are left alone");
    let [first, second] = clients;
    assert_eq!(first.close(), 1000);
    let third = Client::connect_as(&server, "alice");
    assert_eq!(answer(&server, "alice").status, 429);
    drop((second, third));
    assert!(server.get("/metrics").text().contains("\nroomcast_connections_user_limited_total 2\n"));
}

#[test]
fn guests_and_an_unlimited_user_have_as_many_as_they_like() {
    let server = Server::spawn(&["--connections-per-user=1", REFUSE]);
    let guests: Vec<_> = (0..5).map(|_| Client::connect(&server)).collect();
    drop(guests);
    let server = Server::spawn(&[REFUSE]);
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect_as(&server, "alice")).collect();
    clients.iter_mut().for_each(|client| assert!(settle(client).is_empty()));
}

#[cfg(feature = "tokens")]
#[test]
fn a_verified_user_is_told_by_the_token() {
    use crate::support::tokens::{claims, good, hs256, refused, server_with_secret, with_token};
    let (server, _files) = server_with_secret(&["--connections-per-user=1"]);
    let mut first = with_token(&server, &good()).connect();
    with_token(&server, &hs256(&claims(&json!({"sub": "bob"})))).connect();
    let _second = with_token(&server, &hs256(&claims(&json!({"name": "Alice"})))).connect();
    assert_eq!(first.expect_close(), 4504);
    let (server, _files) = server_with_secret(&["--connections-per-user=1", REFUSE]);
    let _first = with_token(&server, &good()).connect();
    assert_eq!(refused(&server, Some(&good())).status, 429);
}

/// A clock that stands still: no bucket is filled.
pub(crate) fn frozen() -> Now {
    Now { uptime: Duration::from_secs(100), unix_ms: 1_000_000_000 }
}

#[test]
fn all_connections_of_an_owner_share_a_rate_of_messages() {
    let mut config = config();
    config.hub.messages_per_owner = 5;
    let mut host = Host::with(config, OpenPolicy, frozen);
    let address = host.listen();
    let pings = |count: usize| frame_of_json(&json!({"type": "ping"})).repeat(count);
    host.serve(|| {
        let from = |source: &str| {
            let mut raw = Raw::connect_from(source, address);
            raw.send(upgrade_request("/ws", &[]).as_bytes());
            raw.upgraded();
            raw.json_of("welcome");
            raw
        };
        let (mut first, mut second, mut other) = (from("127.0.0.2"), from("127.0.0.2"), from("127.0.0.3"));
        first.send(&pings(4));
        (0..4).for_each(|_| assert_eq!(first.json()["type"], "pong"));
        second.send(&pings(100));
        assert_eq!(second.json()["type"], "pong");
        let error = second.json();
        assert_eq!((&error["code"], &error["retryAfterMs"]), (&json!("rate_limited"), &json!(1)));
        assert!(error["message"].as_str().unwrap().contains("more than 5 messages a second, over all"), "{error}");
        other.send(&pings(5));
        (0..5).for_each(|_| assert_eq!(other.json()["type"], "pong"));
        assert_eq!(second.frame_within(LOOK), None, "it is told once a second");
    });
    assert_eq!(host.server.stats().hub.owner_limited, 99);
}

/// Everybody is admitted when a test says so; tickets are 1, 2, 3 ….
#[derive(Default)]
struct Later(u64);

impl Authenticator for Later {
    fn authenticate(&mut self, _now: Now, _request: &http::Request<()>) -> Authentication {
        self.0 += 1;
        Authentication::Later(AdmissionTicket(self.0))
    }
}

/// Two handshakes that wait, and are then both admitted as alice.
fn two_late_ones(policy: UserLimitPolicy) -> (Host, [Raw; 2]) {
    let mut config: Config = config();
    (config.net.connections_per_user_max, config.connections_per_user_policy) = (1, policy);
    let mut host = Host::build(config, |builder| builder.authenticator(Later::default()));
    let address = host.listen();
    let raws = [1, 2].map(|count| {
        let mut raw = Raw::connect(address);
        raw.send(upgrade_request("/ws", &[]).as_bytes());
        host.turn_until("it waits", |host| host.server.stats().net.admissions_pending == count);
        raw
    });
    for ticket in [1, 2] {
        let identity = Identity::verified(UserId::new("alice").unwrap());
        assert!(host.server.admit(AdmissionTicket(ticket), Ok(identity)));
    }
    (host, raws)
}

#[test]
fn late_admissions_count_when_they_come() {
    let (mut host, [mut first, mut second]) = two_late_ones(UserLimitPolicy::CloseOldest);
    host.serve(|| {
        first.upgraded();
        second.upgraded();
        assert_eq!(first.expect_close(), 4504);
        assert_eq!(second.json_of("welcome")["userId"], "alice");
    });
    assert_eq!(host.server.stats().hub.connections, 1);
    let (mut host, [mut first, mut second]) = two_late_ones(UserLimitPolicy::RefuseNewest);
    host.serve(|| {
        first.upgraded();
        assert_eq!(second.response().status, 429);
    });
    assert_eq!((host.server.stats().hub.connections, host.server.stats().hub.user_limited), (1, 1));
}
