//! Request heads.

use crate::embedded::{Embedded, Transcript, config};
use crate::mutation::{Corpus, pieces};
use crate::run::run;
use crate::support::{request, upgrade_request};

/// The statuses that a head may be answered with.
const STATUSES: [u16; 21] =
    [101, 200, 204, 304, 400, 401, 403, 404, 405, 406, 408, 411, 413, 414, 415, 417, 426, 429, 431, 501, 505];

fn corpus() -> Corpus {
    let browser = [("Origin", "http://roomcast.test"), ("Sec-WebSocket-Protocol", "roomcast.v1")];
    let body = [("Content-Type", "application/json"), ("Content-Length", "2")];
    let inputs = [
        request("GET", "/", &[]),
        request("GET", "/", &[("Accept-Encoding", "gzip;q=0, br;q=0.5, *;q=0")]),
        request("GET", "/roomcast.js", &[("If-None-Match", "W/\"x, y\", *"), ("If-None-Match", "*")]),
        request("HEAD", "/roomcast.js", &[("If-None-Match", "\"x\"")]),
        request("GET", "/healthz", &[]) + &request("GET", "/readyz", &[("Connection", "close")]),
        request("GET", "/metrics", &[("Accept-Encoding", "gzip")]),
        request("OPTIONS", "/ws", &[("Origin", "http://a.test"), ("Access-Control-Request-Method", "GET")]),
        request("POST", "/api/publish", &body) + "{}",
        request("POST", "/nothing", &[("Transfer-Encoding", "chunked")]) + "0\r\n\r\n",
        "\r\n\r\n".to_owned() + &request("GET", "/healthz", &[]),
        "GET http://roomcast.test/healthz HTTP/1.0\r\n\r\n".to_owned(),
        upgrade_request("/ws?userId=ann&name=Ann%20B", &browser),
        upgrade_request("/ws", &[("X-Forwarded-For", "192.0.2.1"), ("Authorization", "Bearer x.y.z")]),
    ];
    Corpus {
        inputs: inputs.map(String::into_bytes).into(),
        words: &[
            b"\r\n",
            b"\n",
            b"\r\n\r\n",
            b"\0",
            b"%",
            b"%00",
            b"Host: x\r\n",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            b"Expect: 100-continue\r\n",
            b"Upgrade: h2c\r\n",
            b" HTTP/1.1",
            b"HTTP/2.0",
            b"PRI * ",
            b"\x16\x03\x01",
            b"a: b\r\n",
            b"\xc3\xbc",
        ],
    }
}

/// Whether the bytes contain the end of a head, behind empty lines that may come first.
fn is_complete(input: &[u8]) -> bool {
    let head = input.trim_ascii_start();
    head.windows(2).any(|pair| pair == b"\n\n") || head.windows(3).any(|three| three == b"\n\r\n")
}

/// The same answers; those of `/metrics` are never the same twice.
fn is_alike(whole: &Transcript, pieces: &Transcript) -> bool {
    let are_metrics = [whole, pieces].map(|answer| answer.bytes.windows(11).any(|bytes| bytes == b"openmetrics"));
    whole == pieces || are_metrics == [true; 2]
}

#[test]
fn heads() {
    let corpus = corpus();
    let mut config = config();
    config.metrics = true;
    let mut server = Embedded::with(config);
    run(
        "heads",
        |rng| corpus.mutated(rng),
        |rng, input| {
            let pieces = pieces(rng, input);
            let mut peer = server.connect();
            server.send(&mut peer, input);
            let answer = std::mem::take(&mut peer.transcript);
            drop(peer);
            server.check_health();
            if answer.bytes.is_empty() {
                assert!(answer.is_closed || !is_complete(input), "a whole head without an answer");
            } else {
                let status = answer.bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
                let status = status.and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
                let status = status.unwrap_or_else(|| panic!("no status line: {}", answer.bytes.escape_ascii()));
                assert!(STATUSES.contains(&status), "{}", answer.bytes.escape_ascii());
                // A connection that is open has a welcome, which is different each time.
                let is_open = answer.bytes.windows(13).any(|bytes| bytes == b"HTTP/1.1 101 ");
                // Of an incomplete head only the first bytes are looked at, however many come at once.
                if is_complete(input) && !is_open {
                    server.check_split(b"", &pieces, is_alike);
                }
            }
        },
    );
}
