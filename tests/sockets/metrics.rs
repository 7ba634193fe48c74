//! What `/metrics` exports, read by a strict parser of the text format (OpenMetrics 1.0).

use std::collections::BTreeMap;
use std::time::Duration;

use roomcast::{Caller, Now, Policy, RoomName};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::support::host::{self, Host};
use crate::support::{Client, Connect, Raw, Server, request, roomcast};

/// One metric: its type and its samples, by what follows its name.
#[derive(Debug)]
struct Family {
    kind: String,
    samples: Vec<(String, f64)>,
}

type Families = BTreeMap<String, Family>;

fn is_name(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with("roomcast_") && name.chars().all(is_word) && !name.ends_with('_')
}

/// Parses an exposition; anything that is not as the format wants it is a failure.
fn parse(text: &str) -> Families {
    let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no EOF in {text:?}"));
    let mut families = Families::new();
    let mut lines = body.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).expect(line);
        assert!(is_name(name) && help.ends_with('.') && !help.contains('\\'), "{line}");
        let kind = lines.next().and_then(|next| next.strip_prefix(&format!("# TYPE {name} "))).expect(line);
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind} of {line}");
        assert!(kind != "counter" || !name.ends_with("_total"), "OpenMetrics keeps the suffix out of the name: {line}");
        let mut samples = Vec::new();
        while let Some(sample) = lines.next_if(|next| !next.starts_with('#')) {
            let (key, value) = sample.rsplit_once(' ').expect(sample);
            let key = key.strip_prefix(name).unwrap_or_else(|| panic!("{sample:?} is no sample of {name}"));
            let value: f64 = value.parse().expect(sample);
            assert!(value.is_finite() && value >= 0.0, "{sample}");
            samples.push((key.to_owned(), value));
        }
        check_keys(name, kind, &samples);
        let family = Family { kind: kind.to_owned(), samples };
        assert!(families.insert(name.to_owned(), family).is_none(), "{name} comes twice");
    }
    families
}

fn check_keys(name: &str, kind: &str, samples: &[(String, f64)]) {
    let keys: Vec<&str> = samples.iter().map(|(key, _)| key.as_str()).collect();
    match kind {
        "counter" => assert_eq!(keys, ["_total"], "{name}"),
        "gauge" if name.starts_with("roomcast_memory_bytes") => {
            assert!(keys.iter().all(|key| key.starts_with("{share=\"") && key.ends_with("\"}")), "{name}: {keys:?}");
        }
        "gauge" if name == "roomcast_turn_units_max" => {
            assert!(keys.iter().all(|key| key.starts_with("{phase=\"") && key.ends_with("\"}")), "{name}: {keys:?}");
        }
        "gauge" => assert_eq!(keys, [""], "{name}"),
        _ => {
            assert_eq!(keys.iter().filter(|key| **key == "_sum").count(), 1, "{name}");
            assert_eq!(keys.iter().filter(|key| **key == "_count").count(), 1, "{name}");
            let bounds = keys.iter().filter(|key| bound(key).is_some()).count();
            assert_eq!(bounds + 2, keys.len(), "{name}: {keys:?}");
        }
    }
}

/// The upper bound that names a bucket.
fn bound(key: &str) -> Option<f64> {
    let text = key.strip_prefix("_bucket{le=\"")?.strip_suffix("\"}")?;
    Some(if text == "+Inf" { f64::INFINITY } else { text.parse().expect(key) })
}

/// The value of a counter or a gauge.
#[track_caller]
fn value(families: &Families, name: &str) -> f64 {
    let family = families.get(name).unwrap_or_else(|| panic!("no {name}"));
    assert!(family.kind != "histogram" && family.samples.len() == 1, "{family:?}");
    family.samples[0].1
}

/// What a share of memory holds, or may hold.
#[track_caller]
fn share(families: &Families, name: &str, share: &str) -> f64 {
    let key = format!("{{share=\"{share}\"}}");
    let samples = &families[&format!("roomcast_{name}")].samples;
    samples.iter().find(|(found, _)| *found == key).unwrap_or_else(|| panic!("no {key} in {samples:?}")).1
}

fn scrape(server: &Server) -> Families {
    let response = server.get("/metrics");
    assert_eq!(response.status, 200);
    parse(response.text())
}

/// A histogram's buckets, sum and count.
fn histogram(families: &Families, name: &str) -> (Vec<(f64, f64)>, f64, f64) {
    let samples = &families[name].samples;
    let of = |wanted: &str| samples.iter().find(|(key, _)| key == wanted).unwrap().1;
    let buckets = samples.iter().filter_map(|(key, value)| Some((bound(key)?, *value))).collect();
    (buckets, of("_sum"), of("_count"))
}

/// Keeps this thread's processor busy.
fn work(time: Duration) {
    let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let end = used() + time;
    while used() < end {}
}

#[test]
fn nothing_is_exported_unless_asked_for() {
    let server = Server::spawn(&[]);
    let response = server.get("/metrics");
    assert_eq!(response.status, 404);
    assert!(!response.text().contains("roomcast_"), "{response:?}");
}

#[test]
fn the_exposition_says_what_it_is_and_is_not_kept() {
    let server = Server::spawn(&["--metrics"]);
    let response = server.get("/metrics?from=prometheus");
    assert_eq!(response.status, 200);
    let media_type = response.header("content-type").unwrap();
    assert_eq!(media_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let families = parse(response.text());
    assert!(families.len() > 25, "{families:?}");
}

#[test]
fn only_reading_is_allowed() {
    let server = Server::spawn(&["--metrics"]);
    for (method, status) in [("HEAD", 200), ("POST", 405)] {
        let mut raw = Raw::connect(server.address());
        raw.send(request(method, "/metrics", &[("Connection", "close")]).as_bytes());
        assert_eq!(raw.response_head().status, status, "{method}");
    }
}

#[test]
fn an_unknown_path_is_told_of_metrics_only_if_they_are_there() {
    for (flags, is_told) in [(&[][..], false), (&["--metrics"], true)] {
        let server = Server::spawn(flags);
        let response = server.get("/nowhere");
        assert_eq!((response.status, response.text().contains("/metrics")), (404, is_told), "{response:?}");
    }
}

#[test]
fn the_environment_turns_them_on_and_off() {
    for (setting, status) in [("true", 200), ("1", 200), ("false", 404), ("0", 404)] {
        let mut command = roomcast();
        command.args(["--listen", "127.0.0.1:0"]).env("ROOMCAST_METRICS", setting);
        let server = Server::spawn_command(command, 1);
        assert_eq!(server.get("/metrics").status, status, "{setting}");
    }
}

#[test]
fn counts_move_with_a_chat() {
    let server = Server::spawn(&["--metrics"]);
    let before = scrape(&server);
    assert_eq!(value(&before, "roomcast_connections"), 0.0);
    let (mut ann, mut bob) = (Client::connect_as(&server, "ann"), Client::connect_as(&server, "bob"));
    ann.join("lobby");
    bob.join("lobby");
    let joined = scrape(&server);
    ann.send_json(&json!({"type": "ping"}));
    ann.say("lobby", "hello");
    bob.recv_type("chat");
    let after = scrape(&server);
    for (gauge, expected) in [("connections", 2.0), ("users", 2.0), ("rooms", 1.0), ("websockets", 2.0)] {
        assert_eq!(value(&after, &format!("roomcast_{gauge}")), expected, "{gauge}");
    }
    assert_eq!(share(&after, "memory_bytes", "logs"), 0.0);
    assert!(share(&after, "memory_bytes", "history") > share(&before, "memory_bytes", "history"));
    let moved = |from: &Families, name: &str| value(&after, name) - value(from, name);
    assert_eq!(moved(&joined, "roomcast_messages_received"), 2.0);
    assert_eq!(moved(&joined, "roomcast_messages_delivered"), 1.0);
    assert_eq!(moved(&before, "roomcast_http_upgrades"), 2.0);
    // The scrape of before is answered, that of the two joined and this one is being.
    assert!(moved(&before, "roomcast_http_responses") >= 1.0);
    assert!(moved(&joined, "roomcast_room_sends") >= 2.0);
    let (sent, appended) = ("roomcast_room_sent_bytes", "roomcast_room_appended_bytes");
    assert!(moved(&joined, appended) > 50.0 && moved(&joined, sent) >= 2.0 * moved(&joined, appended));
}

#[test]
fn each_share_of_memory_says_what_it_holds_and_may_hold() {
    let families = scrape(&Server::spawn(&["--metrics", "--memory", "100MiB"]));
    for (name, percent) in [("history", 25), ("dedupe", 10), ("logs", 25), ("buffers", 20)] {
        let max = share(&families, "memory_bytes_max", name);
        assert!(max > 0.0 && share(&families, "memory_bytes", name) < max, "{name}");
        assert_eq!(max, f64::from(percent * (1 << 20)), "{name}");
    }
}

#[test]
fn the_buckets_of_turn_times_add_up() {
    let server = Server::spawn(&["--metrics"]);
    let mut ann = Client::connect_as(&server, "ann");
    ann.join("lobby");
    for _ in 0..20 {
        ann.say("lobby", "hello");
        ann.recv_type("chat");
    }
    let families = scrape(&server);
    let (buckets, sum, count) = histogram(&families, "roomcast_turn_cpu_seconds");
    assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{buckets:?}");
    let bounds: Vec<f64> = buckets.iter().map(|(bound, _)| *bound).collect();
    assert_eq!((bounds[0], bounds[12]), (0.000_005, 0.05));
    assert!(bounds.contains(&0.001));
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)));
    // The turn that answers is not over.
    assert_eq!(value(&families, "roomcast_turns"), count + 1.0);
    assert!(count > 20.0);
    // No clock of a processor is slower than the wall's.
    assert!(sum > 0.0 && sum < 60.0, "{sum}");
    let (_, later, _) = histogram(&scrape(&server), "roomcast_turn_cpu_seconds");
    assert!(later > sum, "{later}");
}

/// A policy that breaks its promise not to block.
struct Sleepy;

impl Policy for Sleepy {
    fn allow_join(&mut self, _caller: &Caller<'_>, _room: &RoomName) -> Result<(), String> {
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    }
}

#[test]
fn processor_time_of_other_threads_in_a_turn_is_not_counted() {
    let mut config = host::config();
    config.metrics = true;
    let mut host = Host::with(config, Sleepy, Now::system);
    let address = host.listen();
    host.serve(|| {
        Connect::to(address).connect().join("lobby");
        work(Duration::from_millis(50));
    });
    let (_, sum, count) = histogram(&parse(&host.server.metrics()), "roomcast_turn_cpu_seconds");
    assert!(count > 3.0 && sum < 0.1, "{sum} s in {count} turns");
}

#[test]
fn a_host_gets_the_same_text_without_the_port() {
    for is_on in [false, true] {
        let mut config = host::config();
        config.metrics = is_on;
        let mut host = Host::new(config);
        host.listen();
        for _ in 0..3 {
            host.turn(host::LOOK);
            // The host's work between turns does not count.
            work(Duration::from_millis(100));
        }
        let families = parse(&host.server.metrics());
        assert_eq!(value(&families, "roomcast_turns"), 3.0);
        let times = families.contains_key("roomcast_turn_cpu_seconds");
        assert_eq!(times, is_on, "nobody measured turns");
        if is_on {
            let (_, sum, count) = histogram(&families, "roomcast_turn_cpu_seconds");
            assert!(count == 3.0 && sum < 0.1, "{sum} s in {count} turns");
        }
    }
}
