//! The load test as a program: its measurements of real servers, its output, and its failures.

pub mod support;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use roomcast::internals::frame::{self, Payload};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use serde_json::Value;
use support::tls::Files;
use support::{Server, program};
use tempfile::TempDir;

/// So little that a slow machine is done with it in seconds.
const TINY: [&str; 5] = ["--quick", "--members", "20", "--duration", "150ms"];

/// How long a run may take before a test gives up: generous, since nothing here measures speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// One run at a time: each wants both cores for its server and its load.
static CORES: Mutex<()> = Mutex::new(());

/// A run that has ended.
struct Finished {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Finished {
    #[track_caller]
    fn check_refused(&self, needles: &[&str]) {
        let Self { code, out, err } = self;
        assert_eq!(*code, Some(2), "{out}\n{err}");
        for needle in needles {
            assert!(err.contains(needle), "no {needle:?} in: {err}");
        }
    }
}

/// Runs the load test to its end, and sees that nothing it started is left.
#[track_caller]
fn load(flags: &[&str]) -> Finished {
    load_with(flags, &[])
}

/// The same, with variables of its environment.
#[track_caller]
fn load_with(flags: &[&str], variables: &[(&str, &str)]) -> Finished {
    let _cores = CORES.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = TempDir::new().expect("a folder");
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let file = |path: &Path| File::create(path).expect("a file for what it says");
    let mut command = program(Path::new(env!("CARGO_BIN_EXE_roomcast-load")));
    command
        .args(flags)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(file(&out))
        .stderr(file(&err))
        .process_group(0);
    let mut child = command.spawn().expect("start the load test");
    let group = Pid::from_child(&child);
    let deadline = Instant::now() + PATIENCE;
    let read = |path: &Path| fs::read_to_string(path).expect("what it said is UTF-8");
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for the load test") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = kill_process_group(group, Signal::KILL);
            let _ = child.wait();
            panic!("{flags:?} did not end within {PATIENCE:?}: {}\n{}", read(&out), read(&err));
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let finished = Finished { code: status.code(), out: read(&out), err: read(&err) };
    let has_left_some = test_kill_process_group(group).is_ok();
    if has_left_some {
        let _ = kill_process_group(group, Signal::KILL);
    }
    assert!(!has_left_some, "{flags:?} left processes behind: {}", finished.err);
    finished
}

/// The records that a run wrote, which must have gone well.
#[track_caller]
fn records(flags: &[&str]) -> (Vec<Value>, Finished) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("records.jsonl").display().to_string();
    let finished = load(&[flags, &["--json", &path]].concat());
    assert_eq!(finished.code, Some(0), "{}\n{}", finished.out, finished.err);
    let lines = fs::read_to_string(&path).expect("the records are there");
    let records = lines.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect();
    (records, finished)
}

#[track_caller]
fn check_conversation(record: &Value) {
    assert!(record["values"]["deliveries_per_s"].as_f64() > Some(0.0), "{record}");
    assert_eq!(record["values"]["lost"], 0.0, "{record}");
    assert!(record["values"]["p99_ms"].as_f64() > Some(0.0), "{record}");
}

fn names<'a>(records: &'a [Value], field: &str) -> Vec<&'a str> {
    records.iter().map(|record| record[field].as_str().expect("a name")).collect()
}

#[test]
fn roomcast_is_measured_next_to_the_floor_with_table_and_page() {
    let folder = TempDir::new().expect("a folder");
    let page = folder.path().join("report.html").display().to_string();
    let (records, finished) = records(&[&TINY[..], &["--workload", "fan-out", "--report", &page]].concat());
    assert_eq!(names(&records, "target"), ["roomcast", "roomcast", "roomcast", "floor", "floor", "floor"]);
    for record in &records {
        check_conversation(record);
        assert!(!record["timeline"].as_array().expect("a timeline").is_empty(), "{record}");
        assert!(!record["latency_curve"].as_array().expect("a curve").is_empty(), "{record}");
        let is_open = record["step"] == "100 messages/s";
        assert_eq!(record["values"]["offered_per_s"].as_f64(), is_open.then_some(100.0), "{record}");
    }
    for needle in ["fan-out", "closed loop", "open loop", "deliveries", "×floor", "window 8", "roomcast", "floor"] {
        assert!(finished.out.contains(needle), "no {needle:?} in:\n{}", finished.out);
    }

    let html = fs::read_to_string(&page).expect("the page is there");
    // Bars, two timelines, one curve of latencies.
    assert_eq!(html.matches("<svg").count(), 4);
    assert_eq!(html.matches("</svg>").count(), 4);
    for needle in ["Processor", "UTC", "--workload fan-out", "window 8", "×floor", "&quot;deliveries_per_s&quot;"] {
        assert!(html.contains(needle), "no {needle:?} in the page");
    }
    for needle in ["src=", "href=", "url(", "@import", "<script", "<link"] {
        assert!(!html.contains(needle), "{needle:?} in the page: it needs something else");
    }
}

#[test]
fn several_rounds_of_several_servers_are_interleaved() {
    let command = format!("{} --listen {{address}} {{no-limits}} {{flags}}", env!("CARGO_BIN_EXE_roomcast"));
    let (one, two) = (format!("one={command}"), format!("two={command} --big-room 100"));
    let serve = ["--serve", &one, "--serve", &two];
    let (records, finished) = records(&[&TINY[..], &["--workload", "rooms", "--rounds", "2"], &serve].concat());
    assert_eq!(names(&records, "target"), ["one", "two", "one", "two"]);
    records.iter().for_each(check_conversation);
    // Medians: one row each; and of two servers one is the best.
    assert_eq!(finished.out.lines().filter(|line| line.contains(" two ")).count(), 1, "{}", finished.out);
    assert!(finished.out.contains('*'), "{}", finished.out);
}

#[test]
fn a_server_that_runs_already_is_measured_by_its_url_and_pid() {
    let server = Server::spawn(&["--message-rate", "0"]);
    let url = format!("ws://{}/ws", server.address());
    let pid = server.pid().as_raw_nonzero().to_string();
    let target = ["--workload", "fan-out", "--url", &url, "--server-pid", &pid];
    let (records, _) = records(&[&TINY[..], &target].concat());
    assert_eq!(records.len(), 3);
    records.iter().for_each(check_conversation);
    assert!(records.iter().all(|record| record["values"]["server_busy"].is_number()), "{records:?}");
    assert_eq!(server.get("/healthz").status, 200, "the load test must leave it alone");
}

#[test]
fn other_workloads_find_nothing_lost_and_nobody_gone() {
    let flags = ["--quick", "--duration", "150ms", "--conns", "50", "--workload", "idle,churn,resume"];
    let (records, _) = records(&flags);
    assert_eq!(names(&records, "workload"), ["idle", "churn", "resume"]);
    let value = |nth: usize, name: &str| records[nth]["values"][name].as_f64();
    assert_eq!(value(0, "connections"), Some(50.0));
    assert!(value(0, "handshakes_per_s") > Some(0.0));
    assert!(value(1, "cycles_per_s") > Some(0.0));
    assert_eq!((value(2, "lost"), value(2, "doubled")), (Some(0.0), Some(0.0)), "{}", records[2]);
    assert!(value(2, "said") > Some(0.0));
}

#[test]
fn two_nodes_are_measured_through_a_redis_of_their_own() {
    let (records, finished) = records(&["--quick", "--duration", "150ms", "--workload", "cluster"]);
    let found: Vec<_> = names(&records, "step").into_iter().zip(names(&records, "target")).collect();
    let expected = [
        ("one room", "roomcast"),
        ("one room", "redis alone"),
        ("16 rooms", "roomcast"),
        ("16 rooms", "redis alone"),
        ("a message, the bus alone", "roomcast"),
        ("a message, the bus alone", "redis alone"),
        ("the script", "redis alone"),
        ("to the other node", "roomcast"),
        ("to the same node", "roomcast"),
        ("to the same node", "without Redis"),
        ("listening", "roomcast"),
        ("1000 quiet rooms", "roomcast"),
        ("cut: link back", "roomcast"),
        ("cut: subscribed", "roomcast"),
        ("cut: subscribed", "redis alone"),
        ("cut: compared", "roomcast"),
        ("cut: compared", "redis alone"),
    ];
    assert_eq!(found, expected, "{}", finished.err);
    for record in &records {
        let value = |name: &str| record["values"][name].as_f64();
        let is_of_node = record["target"] == "roomcast";
        match record["step"].as_str().expect("a step") {
            "one room" | "16 rooms" => {
                assert!(value("messages_per_s") > Some(0.0) && value("redis_us_per_message") > Some(0.0), "{record}");
                assert_eq!(
                    (value("lost"), value("of_alone").is_some()),
                    (is_of_node.then_some(0.0), is_of_node),
                    "{record}"
                );
                assert_eq!(value("commander_us_per_message") > Some(0.0), is_of_node, "{record}");
            }
            "listening" => {
                assert!(
                    value("messages_per_s") > Some(0.0) && value("listener_us_per_message") > Some(0.0),
                    "{record}"
                );
                assert_eq!(value("lost"), Some(0.0), "{record}");
            }
            "1000 quiet rooms" => {
                let threads = ["commander_busy", "listener_busy"].map(value);
                assert!(threads.into_iter().all(|busy| busy.is_some_and(|busy| busy < 1.0)), "{record}");
            }
            _ => assert!(value("p50_ms") > Some(0.0), "{record}"),
        }
    }
    for needle in ["redis alone", "×alone", "by redis-benchmark", "without Redis"] {
        assert!(finished.out.contains(needle), "no {needle:?} in:\n{}", finished.out);
    }
}

/// The attacks of the workload `hostile`, in order.
const ATTACKS: [&str; 17] = [
    "ids, borrowed",
    "history, borrowed",
    "unread, borrowed",
    "trickle, borrowed",
    "unfinished, borrowed",
    "epochs, borrowed",
    "rooms, borrowed",
    "hang-ups, borrowed",
    "fragments, borrowed",
    "pages, borrowed",
    "gets",
    "big-rooms, borrowed",
    "loud-rooms, borrowed",
    "moves, borrowed",
    "silent",
    "tls",
    "refused",
];

#[test]
fn every_attack_is_measured_beside_a_pair_that_loses_nothing() {
    let flags = ["--workload", "hostile", "--quick", "--duration", "150ms", "--hostile-conns", "5"];
    let (records, finished) =
        records(&[&flags[..], &["--attack-names", "borrowed", "--serve", &hostile_target("")]].concat());
    assert_eq!(names(&records, "step"), ATTACKS);
    for record in &records {
        let value = |name: &str| record["values"][name].as_f64();
        assert!(value("published") > Some(0.0) && value("during_p99_ms") > Some(0.0), "{record}");
        assert!(value("turn_cpu_max_ms") > Some(0.0) && value("memory_peak_mib") > Some(0.0), "{record}");
        assert_eq!(value("hostile_open"), Some(5.0), "{record}");
        for harm in ["lost", "refused", "history_lost", "ids_forgotten"] {
            assert_eq!(value(harm), Some(0.0), "{harm}: {record}");
        }
    }
    assert!(finished.out.contains("forgotten:"), "{}", finished.out);
}

#[test]
fn what_the_pair_suffers_is_counted() {
    let flags =
        ["--workload", "hostile", "--quick", "--duration", "300ms", "--hostile-conns", "1", "--attack", "silent"];
    let forgetful = hostile_target("--history-age 50ms --dedupe-window 0s");
    let (forgotten, _) = records(&[&flags[..], &["--serve", &forgetful]].concat());
    let lost = forgotten[0]["values"]["history_lost"].as_f64();
    assert!(lost > Some(0.0), "the history keeps messages for 50 ms: {}", forgotten[0]);
    let strict = hostile_target("--message-rate 1 --message-burst 2");
    let (refused, _) = records(&[&flags[..], &["--serve", &strict]].concat());
    let value = |name: &str| refused[0]["values"][name].as_f64();
    assert!(value("refused") > Some(0.0) && value("lost") > Some(0.0), "the pair may say one thing: {}", refused[0]);
}

/// The program with these flags, for `--serve`.
fn hostile_target(flags: &str) -> String {
    format!("it={} --listen {{address}} {flags} {{flags}}", env!("CARGO_BIN_EXE_roomcast"))
}

#[test]
fn without_a_redis_the_cluster_is_left_out_and_that_is_said() {
    let folder = TempDir::new().expect("a folder");
    let path = [("PATH", folder.path().to_str().expect("UTF-8"))];
    let finished = load_with(&["--quick", "--workload", "cluster"], &path);
    assert_eq!(finished.code, Some(0), "{}", finished.err);
    for said in [&finished.out, &finished.err] {
        assert!(said.contains("no redis-server in PATH"), "{said}");
    }
}

/// A chat with another protocol than Roomcast's: a thread for each connection, which passes on the first messages that it
/// reads to all members of their room.
fn other_chat(messages_max: usize) -> SocketAddr {
    type Rooms = Arc<Mutex<HashMap<String, Vec<TcpStream>>>>;
    fn serve(stream: &TcpStream, rooms: &Rooms, messages_max: usize) -> Option<()> {
        let mut passed_on = 0;
        let mut socket = tungstenite::accept(stream.try_clone().ok()?).ok()?;
        loop {
            let message = socket.read().ok()?;
            let Ok(message) = serde_json::from_slice::<Value>(&message.into_data()) else { continue };
            let mut rooms = rooms.lock().ok()?;
            let members = rooms.entry(message["channel"].as_str()?.to_owned()).or_default();
            match message["words"].as_str() {
                None => members.push(stream.try_clone().ok()?),
                Some(_) if passed_on == messages_max => {}
                Some(words) => {
                    passed_on += 1;
                    let text = format!("somebody says {words}");
                    let mut bytes = Vec::new();
                    frame::append_header(&mut bytes, Payload::Text, text.len());
                    bytes.extend_from_slice(text.as_bytes());
                    members.iter_mut().try_for_each(|member| member.write_all(&bytes)).ok()?;
                }
            }
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("its address");
    let rooms = Rooms::default();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let rooms = Arc::clone(&rooms);
            std::thread::spawn(move || serve(&stream, &rooms, messages_max));
        }
    });
    address
}

/// How to speak to [`other_chat`].
const OTHER_TEMPLATES: [&str; 4] =
    ["--join-template", r#"{"channel":"{room}"}"#, "--chat-template", r#"{"channel":"{room}","words":"{text}"}"#];

#[test]
fn a_server_with_another_protocol_is_measured_by_templates() {
    let url = format!("ws://{}/any/path?of=it", other_chat(usize::MAX));
    let flags = [&TINY[..], &["--workload", "fan-out", "--url", &url], &OTHER_TEMPLATES].concat();
    let (records, finished) = records(&flags);
    assert_eq!(records.len(), 3);
    records.iter().for_each(check_conversation);
    assert!(!finished.out.contains("CPU"), "nobody knows the server's process:\n{}", finished.out);
}

#[test]
fn a_step_that_delivers_nothing_fails_the_run() {
    // Each publisher sends one message before anything is measured.
    let url = format!("ws://{}/", other_chat(1));
    let flags = ["--workload", "fan-out", "--url", &url];
    let finished = load(&[&TINY[..], &flags, &OTHER_TEMPLATES].concat());
    finished.check_refused(&["fan-out, window 1 of", "nothing was delivered", "3 of 3 measurements failed"]);
    assert!(finished.out.contains("nothing was delivered"), "the row says so, too:\n{}", finished.out);
}

#[test]
fn a_running_server_is_measured_beside_others() {
    let server = Server::spawn(&["--message-rate=0", "--connections-per-address=0", "--connects-per-address=0"]);
    let url = format!("ws://{}/ws", server.address());
    let (records, _) = records(&[&TINY[..], &["--workload", "rooms", "--url", &url, "--serve", "floor"]].concat());
    assert_eq!(names(&records, "target"), [server.address().to_string().as_str(), "floor"]);
    records.iter().for_each(check_conversation);
}

#[test]
fn the_same_room_is_measured_with_tls_and_without() {
    let flags = ["--workload", "tls", "--quick", "--duration", "150ms", "--conns", "50", "--members", "20"];
    let (records, finished) = records(&flags);
    let steps = ["silent", "silent, TLS", "window 1", "window 1, TLS", "window 1, TLS beside none"];
    assert_eq!(names(&records, "step")[..5], steps);
    records[2..4].iter().for_each(check_conversation);
    let value =
        |at: usize, name: &str| records[at]["values"][name].as_f64().unwrap_or_else(|| panic!("{}", records[at]));
    // Of 50 connections the memory is a matter of pages.
    assert!(value(0, "bytes_per_connection") >= 0.0 && value(1, "bytes_per_connection") >= 0.0, "{records:?}");
    assert!(value(4, "tls_cpu_ratio") > 0.0, "{records:?}");
    assert!(finished.out.contains("×plain"), "{}", finished.out);
}

#[test]
fn servers_that_speak_tls_are_measured_if_their_certificate_is_trusted() {
    let files = Files::default();
    let certificate = files.name("cert.pem");
    let server = files.spawn(&["--message-rate=0"]);
    let url = format!("wss://localhost:{}/ws", server.tls_address().port());
    let of_url = [&TINY[..], &["--workload", "fan-out", "--url", &url]].concat();
    records(&[&of_url[..], &["--ca", &certificate]].concat()).0.iter().for_each(check_conversation);
    let finished = load(&[&of_url[..], &["--ca", "/nowhere/ca.pem"]].concat());
    finished.check_refused(&["--ca /nowhere/ca.pem"]);
    load(&of_url).check_refused(&["invalid peer certificate"]);
    let program = env!("CARGO_BIN_EXE_roomcast");
    let key = files.name("key.pem");
    let serve = format!(
        "mine={program} --listen tls:{{tls-address}} --tls-cert {certificate} --tls-key {key} {{no-limits}} {{flags}}"
    );
    let (records, _) = records(&[&TINY[..], &["--workload", "fan-out", "--insecure", "--serve", &serve]].concat());
    records.iter().for_each(check_conversation);
}

#[test]
fn a_failure_is_told_of_once_and_without_an_empty_table() {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
    let url = format!("ws://{address}/ws");
    let finished = load(&["--quick", "--workload", "fan-out", "--url", &url]);
    finished.check_refused(&["cannot connect"]);
    let printed = finished.out.clone() + &finished.err;
    assert_eq!(printed.matches("cannot connect").count(), 1, "{printed}");
    assert!(finished.out.is_empty(), "{}", finished.out);
}

#[test]
fn templates_that_a_server_does_not_understand_fail_before_anything_is_measured() {
    let server = Server::spawn(&[]);
    let url = format!("ws://{}/ws", server.address());
    let chat = ["--chat-template", r#"{"type":"speak","words":"{text}"}"#];
    let finished = load(&[&TINY[..], &["--workload", "fan-out", "--url", &url], &chat].concat());
    finished.check_refused(&["0 of 200 deliveries", "--chat-template", "unknown_type", "1 of 1 measurements failed"]);
}

#[test]
fn a_template_without_its_placeholders_is_refused() {
    load(&["--chat-template", "{}"]).check_refused(&["--chat-template", "{text}"]);
    load(&["--join-template", r#"{"room":"lobby"}"#]).check_refused(&["--join-template", "{room}"]);
}

#[test]
fn a_url_that_cannot_be_used_is_refused() {
    load(&["--url", "https://chat.example/ws"]).check_refused(&["https://chat.example/ws", "ws://"]);
    load(&["--url", "ws:///ws"]).check_refused(&["ws:///ws"]);
    // Nobody listens there any more.
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
    let url = format!("ws://{address}/ws");
    let refused = load(&["--quick", "--workload", "fan-out", "--url", &url]);
    refused.check_refused(&["cannot connect", &address.to_string()]);
    // A server, but no WebSocket there.
    let server = Server::spawn(&[]);
    let url = format!("ws://{}/healthz", server.address());
    load(&["--quick", "--workload", "fan-out", "--url", &url]).check_refused(&["HTTP/1.1 200"]);
}

#[test]
fn a_command_that_starts_no_server_is_told_of() {
    let quick = ["--quick", "--workload", "fan-out"];
    let serve = |command: &str| load(&[&quick[..], &["--serve", command]].concat());
    serve("mine=/nowhere/server {address}").check_refused(&["cannot start", "/nowhere/server", "No such file"]);
    serve("mine=true {address}").check_refused(&["true", "ended before it listened", "exit status: 0"]);
    serve("mine=true").check_refused(&["mine=true", "{address}"]);
    serve("true {address}").check_refused(&["NAME=COMMAND"]);
}

#[test]
fn a_file_that_cannot_be_written_is_told_of_before_anything_is_measured() {
    for flag in ["--json", "--report"] {
        let finished = load(&[&TINY[..], &["--workload", "fan-out", flag, "/nowhere/file"]].concat());
        finished.check_refused(&["cannot write /nowhere/file"]);
        assert!(finished.out.is_empty(), "{}", finished.out);
    }
}
