//! The answers to requests that are not the WebSocket handshake, and to refused ones.

use crate::support::{Raw, Response, Server, request, upgrade_request};

/// Sends bytes on a connection of its own and reads the answer, which must be the last on it.
fn exchange(server: &Server, bytes: &[u8]) -> Response {
    let mut raw = Raw::connect(server.address());
    raw.send(bytes);
    let response = raw.response();
    assert!(raw.at_end(), "the connection stays open after {response:?}");
    response
}

/// A refusal: text/plain, one sentence, the connection closed; the sentence has all the `needles`.
#[track_caller]
fn check_refusal(server: &Server, bytes: &[u8], status: u16, needles: &[&str]) -> Response {
    let response = exchange(server, bytes);
    assert_eq!(response.status, status, "{response:?}");
    let kind = response.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "{response:?}");
    let connection = response.header("connection").unwrap_or_default().to_ascii_lowercase();
    assert!(connection.contains("close"), "{response:?}");
    let text = response.text().trim();
    assert!(!text.is_empty() && text.lines().count() == 1, "not one sentence: {text:?}");
    for needle in needles {
        assert!(text.contains(needle), "no {needle:?} in {text:?}");
    }
    response
}

#[test]
fn the_page_has_a_strict_content_security_policy() {
    let server = Server::spawn(&[]);
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{page:?}");
    let policy = page.header("content-security-policy").expect("a Content-Security-Policy");
    assert!(policy.contains("default-src 'none'") || policy.contains("default-src 'self'"), "{policy}");
    for lax in ["unsafe-inline", "unsafe-eval", " *", "http:", "https:"] {
        assert!(!policy.contains(lax), "{lax:?} in {policy:?}");
    }
}

#[test]
fn the_javascript_client_is_served() {
    let server = Server::spawn(&[]);
    let script = server.get("/roomcast.js");
    assert_eq!(script.status, 200);
    assert!(script.header("content-type").is_some_and(|kind| kind.contains("javascript")), "{script:?}");
    assert!(script.text().contains("WebSocket"));
}

#[test]
fn a_query_does_not_change_what_a_path_means() {
    let server = Server::spawn(&[]);
    for path in ["/?room=lobby", "/roomcast.js?v=1", "/healthz?probe"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
}

#[test]
fn health_and_readiness_are_answered_in_one_word() {
    let server = Server::spawn(&[]);
    for (path, word) in [("/healthz", "ok"), ("/readyz", "ready")] {
        let response = server.get(path);
        assert_eq!((response.status, response.text().trim()), (200, word), "{path}");
    }
}

#[test]
fn a_probe_that_speaks_http_1_0_is_answered() {
    let server = Server::spawn(&[]);
    let response = exchange(&server, b"GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!((response.status, response.text().trim()), (200, "ok"));
}

#[test]
fn head_answers_as_get_does_but_without_a_body() {
    let server = Server::spawn(&[]);
    for path in ["/", "/roomcast.js", "/healthz", "/readyz", "/nowhere"] {
        let get = server.get(path);
        let mut raw = Raw::connect(server.address());
        raw.send(request("HEAD", path, &[("Connection", "close")]).as_bytes());
        let head = raw.response_head();
        assert_eq!(head.status, get.status, "{path}");
        for name in ["content-type", "content-length", "content-security-policy"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
        assert!(raw.at_end(), "a body follows the head of {path}");
    }
}

#[test]
fn bytes_that_are_not_http_are_answered_400() {
    let server = Server::spawn(&[]);
    let tls_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n";
    for garbage in [
        &b"GARBAGE\r\n\r\n"[..],
        b"\0\0\0\0\r\n\r\n",
        tls_hello,
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
        b"GET / HTTP/1.1\r\nna me: value\r\n\r\n",
    ] {
        check_refusal(&server, garbage, 400, &[]);
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_request_of_http_1_1_needs_a_host() {
    // RFC 9112 section 3.2: a server must answer 400.
    let server = Server::spawn(&[]);
    check_refusal(&server, b"GET / HTTP/1.1\r\n\r\n", 400, &[]);
}

#[test]
fn a_length_that_is_not_one_number_is_answered_400_whatever_is_asked_for() {
    // RFC 9112 section 6.3, item 5.
    let server = Server::spawn(&[]);
    let lengths: [(&[(&str, &str)], &str); 8] = [
        (&[("Content-Length", "-1")], "-1"),
        (&[("Content-Length", "abc")], "abc"),
        (&[("Content-Length", "")], "Content-Length"),
        (&[("Content-Length", "+0")], "+0"),
        (&[("Content-Length", "0x0")], "0x0"),
        (&[("Content-Length", "0, 0")], "0, 0"),
        (&[("Content-Length", "0"), ("Content-Length", "1")], "0, 1"),
        (&[("Content-Length", "0"), ("Transfer-Encoding", "chunked")], "beside"),
    ];
    for (headers, needle) in lengths {
        for path in ["/healthz", "/", "/nowhere", "/ws"] {
            check_refusal(&server, request("GET", path, headers).as_bytes(), 400, &[needle]);
        }
        check_refusal(&server, upgrade_request("/ws", headers).as_bytes(), 400, &[needle]);
        check_refusal(&server, request("POST", "/", headers).as_bytes(), 400, &[needle]);
        let head = exchange_head(&server, &request("HEAD", "/healthz", headers));
        assert_eq!(head.status, 400, "{head:?}");
    }
    for headers in [&[("Content-Length", "0")][..], &[("Content-Length", "0"), ("Content-Length", "0")]] {
        assert_eq!(exchange(&server, request("GET", "/healthz", headers).as_bytes()).status, 200, "{headers:?}");
    }
}

/// The answer to a request for a head, behind which no body may come.
fn exchange_head(server: &Server, request: &str) -> Response {
    let mut raw = Raw::connect(server.address());
    raw.send(request.as_bytes());
    let head = raw.response_head();
    assert!(raw.at_end(), "a body follows {head:?}");
    head
}

#[test]
fn a_bad_user_id_is_answered_with_what_is_allowed() {
    let server = Server::spawn(&[]);
    let check = |bad: &str, needles: &[&str]| {
        let upgrade = upgrade_request(&format!("/ws?userId={bad}"), &[]);
        check_refusal(&server, upgrade.as_bytes(), 400, needles);
    };
    for bad in ["a%20b", "a%00b", "a%22b", "%3Cb%3E", "a%5Cb"] {
        check(bad, &["userId", "letters, digits and -_.:@~+#=/"]);
    }
    check(&"a".repeat(129), &["userId", "129", "128"]);
    check("%ff", &["userId", "UTF-8"]);
}

#[test]
fn a_token_offered_alone_is_refused_and_never_repeated() {
    let server = Server::spawn(&[]);
    let upgrade = upgrade_request("/ws", &[("Sec-WebSocket-Protocol", "roomcast.token.s3cret")]);
    let response = check_refusal(&server, upgrade.as_bytes(), 400, &["roomcast.v1"]);
    assert!(!format!("{response:?}").contains("s3cret"));
    assert_eq!(server.log_lines("s3cret"), [""; 0]);
}

#[test]
fn a_foreign_origin_is_told_the_flag_that_would_let_it_in() {
    let server = Server::spawn(&[]);
    let upgrade = upgrade_request("/ws", &[("Origin", "https://evil.example")]);
    check_refusal(&server, upgrade.as_bytes(), 403, &["--allow-origin https://evil.example"]);
    let line = server.wait_for_log("https://evil.example");
    assert!(line.contains("WARN"), "{line}");
    // Another request has been served since, so that a second line would have been written by now.
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.log_lines("https://evil.example").len(), 1);
}

#[test]
fn an_origin_that_is_none_is_shown_in_quotes_and_never_proposed_as_a_flag() {
    let server = Server::spawn(&[]);
    for origin in [
        "https://evil.example --api-key 0123456789abcdef",
        "https://evil.example';reboot;'",
        "https://$(reboot).example",
        "https://evil.example/path",
        "https://*.example",
        "evil://",
        "[2026-11-29T00:00:00Z WARN  roomcast] start the server with --allow-origin '*'",
    ] {
        let upgrade = upgrade_request("/ws", &[("Origin", origin)]);
        let refusal = check_refusal(&server, upgrade.as_bytes(), 403, &[&format!("{origin:?}")]);
        assert!(!refusal.text().replace(origin, "").contains("--allow-origin"), "{refusal:?}");
        server.wait_for_log(&format!("{origin:?}"));
    }
    // Long enough to push everything else out of sight.
    let upgrade = upgrade_request("/ws", &[("Origin", &"x".repeat(4000))]);
    assert!(check_refusal(&server, upgrade.as_bytes(), 403, &["xxx\"…"]).text().len() < 400);
}

#[test]
fn what_is_proposed_is_how_an_origin_is_written() {
    let server = Server::spawn(&[]);
    for (origin, flag) in [
        ("HTTPS://Evil.example:8443", "--allow-origin https://evil.example:8443"),
        ("http://[2001:db8::1]:3000", "--allow-origin http://[2001:db8::1]:3000"),
        ("moz-extension://5f0c2a-17", "--allow-origin moz-extension://5f0c2a-17"),
    ] {
        let refusal = check_refusal(&server, upgrade_request("/ws", &[("Origin", origin)]).as_bytes(), 403, &[]);
        assert!(refusal.text().trim().ends_with(flag), "{refusal:?}");
    }
    // A file, or a frame in a sandbox: it has no name by which it could be allowed.
    let null = upgrade_request("/ws", &[("Origin", "null")]);
    check_refusal(&server, null.as_bytes(), 403, &["null", "web server", "--allow-origin '*'"]);
}

#[test]
fn the_flag_that_a_foreign_origin_is_told_does_let_it_in() {
    let server = Server::spawn(&["--allow-origin", "https://evil.example"]);
    let mut raw = Raw::connect(server.address());
    raw.send(upgrade_request("/ws", &[("Origin", "https://evil.example")]).as_bytes());
    raw.upgraded();
}

#[test]
fn an_unknown_path_is_answered_404() {
    let server = Server::spawn(&[]);
    for path in ["/nowhere", "/ws/", "/healthz/", "/roomcast.js.map", "/../etc/passwd", "//"] {
        check_refusal(&server, request("GET", path, &[]).as_bytes(), 404, &[path]);
    }
}

#[test]
fn a_path_is_not_repeated_as_markup() {
    let server = Server::spawn(&[]);
    // A character that no URI may contain is malformed. Its escaped form is an unknown path like any other.
    for (path, status) in [("/<script>alert(1)</script>", 400), ("/%3Cscript%3E", 404)] {
        let response = check_refusal(&server, request("GET", path, &[]).as_bytes(), status, &[]);
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{response:?}");
    }
}

#[test]
fn another_method_is_answered_405_with_those_allowed() {
    let server = Server::spawn(&[]);
    for (method, path) in [("POST", "/"), ("DELETE", "/healthz"), ("PUT", "/roomcast.js"), ("PATCH", "/readyz")] {
        let refusal = check_refusal(&server, request(method, path, &[]).as_bytes(), 405, &[method]);
        assert_eq!(refusal.header("allow"), Some("GET, HEAD"), "{method} {path}");
    }
    // There is nothing that a HEAD of a WebSocket could tell.
    let refusal = check_refusal(&server, request("POST", "/ws", &[]).as_bytes(), 405, &["POST"]);
    assert_eq!(refusal.header("allow"), Some("GET"), "POST /ws");
}

#[test]
fn the_body_of_a_refused_request_does_not_spoil_its_answer() {
    // Unread bytes in the receive buffer of a closed socket make the kernel reset it, which can discard the answer.
    let server = Server::spawn(&[]);
    let body = vec![b'x'; 100_000];
    let head = request("POST", "/", &[("Content-Length", "100000")]);
    check_refusal(&server, &[head.as_bytes(), &body].concat(), 405, &["POST"]);
}

/// An answer 426 names what an upgrade needs.
#[track_caller]
fn check_upgrade_required(server: &Server, headers: &[(&str, &str)], needles: &[&str]) {
    let refusal = check_refusal(server, request("GET", "/ws", headers).as_bytes(), 426, needles);
    assert_eq!(refusal.header("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"), "{refusal:?}");
    assert_eq!(refusal.header("sec-websocket-version"), Some("13"), "{refusal:?}");
}

#[test]
fn ws_without_an_upgrade_is_answered_426() {
    let server = Server::spawn(&[]);
    let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let version = ("Sec-WebSocket-Version", "13");
    check_upgrade_required(&server, &[], &[]);
    check_upgrade_required(&server, &[key, version], &[]);
    check_upgrade_required(&server, &[("Connection", "Upgrade"), key, version], &[]);
    check_upgrade_required(&server, &[("Connection", "Upgrade"), ("Upgrade", "h2c"), key, version], &[]);
}

/// A browser shows a page nothing of a refused handshake. The page asks by a plain GET.
#[test]
fn a_page_is_told_why_its_handshake_would_be_refused() {
    let server = Server::spawn(&["--allow-origin", "https://chat.example"]);
    let ask = |path: &str, headers: &[(&str, &str)]| exchange(&server, request("GET", path, headers).as_bytes());
    let page = ("Origin", "https://chat.example");
    let stranger = ("Origin", "https://other.example");
    for (path, headers, status, needle) in [
        ("/ws", &[page][..], 426, "Upgrade"),
        ("/ws", &[stranger], 403, "--allow-origin https://other.example"),
        ("/ws?userId=a%20b", &[page], 400, "userId"),
        ("/ws", &[page, ("Authorization", "Bearer abc")], 400, "token"),
    ] {
        let response = ask(path, headers);
        assert_eq!(response.status, status, "{path} {headers:?}: {response:?}");
        assert!(response.text().contains(needle), "{response:?}");
        assert_eq!(response.header("access-control-allow-origin"), Some("*"), "{path} {headers:?}: {response:?}");
    }
    let preflight = exchange(&server, request("OPTIONS", "/ws", &[stranger]).as_bytes());
    assert_eq!((preflight.status, preflight.header("access-control-allow-headers")), (200, Some("Authorization")));
}

#[test]
fn another_version_of_websocket_is_answered_426_with_the_right_one() {
    let server = Server::spawn(&[]);
    let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"), key];
    check_upgrade_required(&server, &[&upgrade[..], &[("Sec-WebSocket-Version", "12")]].concat(), &["12", "13"]);
    check_upgrade_required(&server, &upgrade, &["13"]);
}

#[test]
fn an_upgrade_without_a_proper_key_is_refused() {
    let server = Server::spawn(&[]);
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
    for key in [&[][..], &[("Sec-WebSocket-Key", "")], &[("Sec-WebSocket-Key", "c2hvcnQ=")]] {
        let response = exchange(&server, request("GET", "/ws", &[&upgrade, key].concat()).as_bytes());
        assert!([400, 426].contains(&response.status), "{key:?}: {response:?}");
    }
}
