//! The page and the JavaScript client as files: content codings, tags, and requests of caches.

use std::collections::HashSet;
use std::io::Read;

use crate::support::tokens::{Files, SECRET};
use crate::support::{Raw, Response, Server, request};

const PATHS: [&str; 2] = ["/", "/roomcast.js"];

fn ask(server: &Server, method: &str, path: &str, headers: &[(&str, &str)]) -> Raw {
    let mut raw = Raw::connect(server.address());
    raw.send(request(method, path, headers).as_bytes());
    raw
}

/// The answer to a GET, which must be the last on its connection.
fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut raw = ask(server, "GET", path, headers);
    let response = raw.response();
    assert!(raw.at_end(), "the connection stays open after {path}");
    response
}

/// A GET that offers codings.
fn get_coded(server: &Server, path: &str, codings: &str) -> Response {
    let response = get(server, path, &[("Accept-Encoding", codings)]);
    assert_eq!(response.status, 200, "{path}, {codings}");
    assert_eq!(response.header("vary"), Some("Accept-Encoding"), "{path}, {codings}");
    assert_eq!(response.header("cache-control"), Some("no-cache"), "{path}, {codings}");
    response
}

/// The answer to a GET of a cache that has `tags`.
fn get_again(server: &Server, path: &str, tags: &str) -> Response {
    let mut raw = ask(server, "GET", path, &[("If-None-Match", tags)]);
    let head = raw.response_head();
    assert!(head.status == 200 || raw.at_end(), "a body follows {head:?}");
    head
}

fn tag(response: &Response) -> String {
    let tag = response.header("etag").expect("an ETag").to_owned();
    assert!(tag.len() > 10 && tag.starts_with('"') && tag.ends_with('"'), "a strong tag: {tag}");
    tag
}

fn decode(response: &Response) -> Vec<u8> {
    let mut decoded = Vec::new();
    match response.header("content-encoding") {
        None => decoded.extend(&response.body),
        Some("gzip") => {
            flate2::read::GzDecoder::new(&response.body[..]).read_to_end(&mut decoded).expect("gzip");
        }
        Some("br") => {
            brotli_decompressor::Decompressor::new(&response.body[..], 4096).read_to_end(&mut decoded).expect("brotli");
        }
        Some(coding) => panic!("unknown coding {coding}"),
    }
    decoded
}

#[test]
fn each_coding_decodes_to_the_same_file() {
    let server = Server::spawn(&[]);
    for path in PATHS {
        let plain = get(&server, path, &[]);
        assert_eq!(plain.header("content-encoding"), None, "{path}");
        let mut tags = HashSet::from([tag(&plain)]);
        for coding in ["gzip", "br"] {
            let coded = get_coded(&server, path, coding);
            assert_eq!(coded.header("content-encoding"), Some(coding), "{path}");
            // If they differ, src/page/build.mjs was not run after a change.
            assert!(decode(&coded) == plain.body, "{path} in {coding} is another file");
            assert!(coded.body.len() * 2 < plain.body.len(), "{path} in {coding} has {} bytes", coded.body.len());
            assert!(tags.insert(tag(&coded)), "{path} in {coding} has the tag of another coding");
            for name in ["content-type", "content-security-policy", "access-control-allow-origin"] {
                assert_eq!(coded.header(name), plain.header(name), "{name} of {path} in {coding}");
            }
        }
    }
}

#[test]
fn the_page_for_tokens_is_compressed_as_well() {
    let files = Files::new();
    let server = Server::spawn(&["--token-secret-file", &files.write("secret", SECRET)]);
    let plain = get(&server, "/", &[]);
    assert!(plain.text().contains("data-tokens=\"needed\""));
    for coding in ["gzip", "br"] {
        assert!(decode(&get_coded(&server, "/", coding)) == plain.body, "{coding}");
    }
}

#[test]
fn the_coding_is_the_one_that_the_request_likes_best() {
    let server = Server::spawn(&[]);
    let expected = [
        ("gzip, deflate", Some("gzip")),
        ("gzip, deflate, br, zstd", Some("br")),
        ("br;q=0.5, gzip", Some("gzip")),
        ("br;q=0, gzip;q=0", None),
        ("br;q=0, *", Some("gzip")),
        ("identity, gzip;q=0.5", None),
        ("deflate", None),
    ];
    for (codings, coding) in expected {
        assert_eq!(get_coded(&server, "/", codings).header("content-encoding"), coding, "{codings}");
    }
    for nothing in ["*;q=0", "identity;q=0, deflate"] {
        let refused = get(&server, "/", &[("Accept-Encoding", nothing)]);
        assert_eq!((refused.status, refused.header("vary")), (406, Some("Accept-Encoding")), "{nothing}");
        assert!(refused.text().contains("br, gzip and identity"), "{}", refused.text());
    }
}

#[test]
fn a_cache_that_has_the_file_is_not_sent_it_again() {
    let server = Server::spawn(&[]);
    for path in PATHS {
        let plain = get(&server, path, &[]);
        let tag = tag(&plain);
        let lists = [tag.clone(), format!("W/{tag}"), format!("\"x, y\", W/\"z\" ,{tag}"), "*".to_owned()];
        for list in &lists {
            let answer = get_again(&server, path, list);
            assert_eq!(answer.status, 304, "{path}, {list}");
            assert_eq!(answer.header("content-length"), None, "{path}, {list}");
            for name in ["etag", "cache-control", "vary", "access-control-allow-origin"] {
                assert_eq!(answer.header(name), plain.header(name), "{name} of {path}, {list}");
            }
        }
        for list in ["", "\"other\"", &tag[1..tag.len() - 1], &tag[..tag.len() - 1], "\"*\""] {
            assert_eq!(get_again(&server, path, list).status, 200, "{path}, {list}");
        }
        // The tag of another coding is that of other bytes.
        let coded = get(&server, path, &[("If-None-Match", &tag), ("Accept-Encoding", "gzip")]);
        assert_eq!(coded.status, 200, "{path}");
        let known = [
            ("If-None-Match", "\"other\""),
            ("If-None-Match", coded.header("etag").unwrap()),
            ("Accept-Encoding", "gzip"),
        ];
        let mut raw = ask(&server, "GET", path, &known);
        let head = raw.response_head();
        assert_eq!((head.status, head.header("content-encoding")), (304, None), "{path}");
        assert!(raw.at_end());
    }
}

#[test]
fn head_is_answered_as_get_is() {
    let server = Server::spawn(&[]);
    for path in PATHS {
        for codings in ["", "gzip", "br"] {
            let get = get_coded(&server, path, codings);
            let mut raw = ask(&server, "HEAD", path, &[("Accept-Encoding", codings)]);
            let head = raw.response_head();
            assert_eq!((head.status, head.headers), (200, get.headers), "{path}, {codings}");
            assert!(raw.at_end(), "a body follows the head of {path}");
        }
        let tag = tag(&get(&server, path, &[]));
        let mut raw = ask(&server, "HEAD", path, &[("If-None-Match", &tag)]);
        assert_eq!(raw.response_head().status, 304, "{path}");
        assert!(raw.at_end(), "a body follows the head of {path}");
        assert_eq!(get(&server, path, &[]).status, 200);
    }
}

#[test]
fn a_tag_stays_with_the_file_and_changes_with_it() {
    let (one, other) = (Server::spawn(&[]), Server::spawn(&[]));
    for path in PATHS {
        assert_eq!(tag(&get(&one, path, &[])), tag(&get(&other, path, &[])), "{path}");
    }
    // One word of the page differs where tokens are needed.
    let files = Files::new();
    let strict = Server::spawn(&["--token-secret-file", &files.write("secret", SECRET)]);
    for codings in ["", "gzip", "br"] {
        let (open, strict) = (get_coded(&one, "/", codings), get_coded(&strict, "/", codings));
        assert_ne!(tag(&open), tag(&strict), "{codings}");
    }
    assert_eq!(get_again(&strict, "/", &tag(&get(&one, "/", &[]))).status, 200);
}
