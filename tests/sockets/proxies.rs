//! Where requests come from behind proxies: what a trusted one says counts, and what others say does not.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use roomcast::{Authentication, Authenticator, Config, Error, Listener, Now, Preamble, Refusal};

use crate::support::host::{Host, config};
use crate::support::{Raw, Server, Stream, request, upgrade_request};

/// Refuses everybody with the address that they come from.
struct TellAddress;

impl Authenticator for TellAddress {
    fn authenticate(&mut self, _now: Now, request: &http::Request<()>) -> Authentication {
        let address = request.extensions().get::<SocketAddr>().map(|address| address.ip().to_string());
        Authentication::Refuse(Refusal::new(http::StatusCode::FORBIDDEN, address.unwrap_or("no address".to_owned())))
    }
}

fn trusting(proxies: &[&str]) -> Config {
    let mut config = config();
    config.trusted_proxies = proxies.iter().map(|proxy| proxy.parse().unwrap()).collect();
    config
}

/// A host that tells where requests come from, and its address.
fn telling(proxies: &[&str]) -> (Host, SocketAddr) {
    let mut host = Host::build(trusting(proxies), |builder| builder.authenticator(TellAddress));
    let address = host.listen();
    (host, address)
}

/// A host that expects PROXY headers, and its address.
fn expecting_header(config: Config) -> (Host, SocketAddr) {
    let mut host = Host::build(config, |builder| builder.authenticator(TellAddress));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    host.server.listen_after(Preamble::ProxyHeader, Listener::Tcp(listener)).unwrap();
    (host, address)
}

/// What a connection is told of where it comes from.
fn told<S: Stream>(raw: &mut Raw<S>, headers: &[(&str, &str)]) -> String {
    raw.send(upgrade_request("/ws", headers).as_bytes());
    raw.response().text().trim().to_owned()
}

const FROM_V1: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n";
const FROM_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x12\x67\0\x50";

#[test]
fn a_trusted_proxy_says_where_a_request_comes_from() {
    let (mut host, address) = telling(&["127.0.0.2", "10.0.0.0/8"]);
    host.serve(|| {
        let from = |source: &str, headers: &[(&str, &str)]| told(&mut Raw::connect_from(source, address), headers);
        assert_eq!(from("127.0.0.2", &[]), "127.0.0.2");
        assert_eq!(from("127.0.0.2", &[("X-Forwarded-For", "6.6.6.6, 192.0.2.1, 10.0.0.9")]), "192.0.2.1");
        assert_eq!(from("127.0.0.2", &[("Forwarded", "for=\"[2001:db8::7]:80\";proto=https")]), "2001:db8::7");
        assert_eq!(from("127.0.0.2", &[("X-Forwarded-For", "192.0.2.1, nonsense")]), "127.0.0.2");
        assert_eq!(from("127.0.0.3", &[("X-Forwarded-For", "192.0.2.1")]), "127.0.0.3");
    });
}

#[test]
fn a_header_of_a_stranger_is_ignored_and_one_warning_tells_the_flag() {
    let server = Server::spawn(&[]);
    for name in ["X-Forwarded-For", "Forwarded", "X-Forwarded-For"] {
        let mut raw = Raw::connect(server.address());
        raw.send(request("GET", "/healthz", &[(name, "for=192.0.2.1")]).as_bytes());
        assert_eq!(raw.response().status, 200);
    }
    let line = server.wait_for_log("--trusted-proxy");
    assert!(line.contains("WARN") && line.contains("--trusted-proxy 127.0.0.1"), "{line}");
    assert_eq!(server.log_lines("--trusted-proxy").len(), 1);
    let server = Server::spawn(&["--trusted-proxy", "127.0.0.0/8"]);
    let mut raw = Raw::connect(server.address());
    raw.send(request("GET", "/healthz", &[("X-Forwarded-For", "192.0.2.1")]).as_bytes());
    assert_eq!(raw.response().status, 200);
    assert_eq!(server.log_lines("--trusted-proxy"), [""; 0]);
}

#[test]
fn peers_of_a_unix_socket_are_a_proxy_if_they_are_trusted() {
    for (proxies, expected) in [(&["unix"][..], "192.0.2.1"), (&["127.0.0.1"], "no address")] {
        let (mut host, _) = telling(proxies);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        host.server.listen_unix(&path).unwrap();
        let found = host.serve(|| {
            let mut raw = Raw::over(UnixStream::connect(&path).unwrap());
            told(&mut raw, &[("X-Forwarded-For", "192.0.2.1")])
        });
        assert_eq!(found, expected, "{proxies:?}");
    }
}

#[test]
fn behind_a_proxy_the_caps_count_for_those_whom_it_names() {
    let caps = ["--connections-per-address", "2", "--requests-per-address", "2"];
    let server = Server::spawn(&[&["--trusted-proxy", "127.0.0.1"][..], &caps].concat());
    let open = |client: &str| {
        let mut raw = Raw::connect(server.address());
        raw.send(upgrade_request("/ws", &[("X-Forwarded-For", client)]).as_bytes());
        let response = raw.response();
        (raw, response)
    };
    let crowd: Vec<_> = (0..3).map(|_| open("192.0.2.1")).collect();
    let statuses: Vec<_> = crowd.iter().map(|(_, response)| response.status).collect();
    assert_eq!(statuses, [101, 101, 503]);
    let refusal = &crowd[2].1;
    assert!(refusal.header("retry-after").is_some() && refusal.text().contains("address"), "{refusal:?}");
    assert_eq!(open("192.0.2.2").1.status, 101);
    // A proxy may send requests of several people over one connection.
    let ask = |client: &str| {
        let mut raw = Raw::connect(server.address());
        raw.send(request("GET", "/healthz", &[("X-Forwarded-For", client)]).as_bytes());
        raw.response().status
    };
    let statuses: Vec<_> = (0..40).map(|_| ask("192.0.2.3")).collect();
    assert_eq!((statuses[0], statuses[39]), (200, 429), "{statuses:?}");
    assert_eq!(ask("192.0.2.4"), 200);
    drop(crowd);
}

#[test]
fn a_proxy_header_says_where_a_connection_comes_from_wherever_it_is_cut() {
    let (mut host, address) = expecting_header(trusting(&["127.0.0.0/8"]));
    for header in [FROM_V1, FROM_V2] {
        let upgrade = upgrade_request("/ws", &[]);
        let bytes = [header, upgrade.as_bytes()].concat();
        for cut in 0..=header.len() + 1 {
            host.serve(|| {
                let mut raw = Raw::connect(address);
                raw.send(&bytes[..cut]);
                std::thread::sleep(Duration::from_millis(1));
                raw.send(&bytes[cut..]);
                assert_eq!(raw.response().text().trim(), "192.0.2.7", "cut at {cut}");
            });
        }
    }
}

#[test]
fn a_proxy_header_of_a_trusted_client_leads_on_to_what_that_one_forwards() {
    let (mut host, address) = expecting_header(trusting(&["127.0.0.0/8", "192.0.2.0/24"]));
    host.serve(|| {
        let mut raw = Raw::connect(address);
        raw.send(FROM_V1);
        assert_eq!(told(&mut raw, &[("X-Forwarded-For", "198.51.100.1")]), "198.51.100.1");
        let mut raw = Raw::connect(address);
        raw.send(b"PROXY UNKNOWN\r\n");
        assert_eq!(told(&mut raw, &[]), "127.0.0.1", "the proxy speaks for itself");
    });
}

#[test]
fn without_a_proxy_header_of_a_trusted_proxy_a_connection_is_closed() {
    let (mut host, address) = expecting_header(trusting(&["127.0.0.2"]));
    host.serve(|| {
        let is_closed = |source: &str, bytes: &[u8]| {
            let mut raw = Raw::connect_from(source, address);
            let _ = raw.try_send(bytes);
            raw.at_end()
        };
        assert!(is_closed("127.0.0.1", FROM_V1), "no trusted proxy");
        assert!(is_closed("127.0.0.2", upgrade_request("/ws", &[]).as_bytes()), "no header");
        assert!(is_closed("127.0.0.2", b"PROXY TCP4 192.0.2.300 10.0.0.1 4711 80\r\n"), "a bad header");
    });
}

#[test]
fn a_proxy_header_must_come_within_the_handshake_timeout() {
    let mut config = trusting(&["127.0.0.1"]);
    config.timing.handshake_timeout = Duration::from_millis(300);
    let (mut host, address) = expecting_header(config);
    let taken = host.serve(|| {
        let start = Instant::now();
        let mut raw = Raw::connect(address);
        raw.send(&FROM_V1[..10]);
        assert!(raw.at_end());
        start.elapsed()
    });
    assert!((Duration::from_millis(250)..Duration::from_secs(5)).contains(&taken), "{taken:?}");
}

#[test]
fn a_client_of_a_proxy_header_is_capped_as_one_that_connects_itself() {
    let mut config = trusting(&["127.0.0.1"]);
    config.net.connections_per_address_max = 1;
    let (mut host, address) = expecting_header(config);
    host.serve(|| {
        let mut first = Raw::connect(address);
        first.send(FROM_V1);
        first.send(b"GET /");
        let mut second = Raw::connect(address);
        second.send(FROM_V2);
        assert!(second.at_end());
        let mut other = Raw::connect(address);
        other.send(b"PROXY TCP4 192.0.2.8 10.0.0.1 4711 80\r\n");
        assert_eq!(told(&mut other, &[]), "192.0.2.8");
        drop(first);
    });
}

#[test]
fn proxy_headers_need_a_trusted_proxy() {
    let mut host = Host::new(config());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = host.server.listen_after(Preamble::ProxyHeader, Listener::Tcp(listener)).unwrap_err();
    assert!(matches!(&error, Error::Config(reason) if reason.contains("--trusted-proxy")), "{error}");
}

#[test]
fn the_program_reads_proxy_headers_where_it_is_told_to() {
    let server = Server::spawn(&["--listen=proxy:127.0.0.1:0", "--trusted-proxy", "127.0.0.1"]);
    let mut raw = Raw::connect(server.address());
    raw.send(&[FROM_V2, request("GET", "/healthz", &[]).as_bytes()].concat());
    assert_eq!(raw.response().text().trim(), "ok");
}
