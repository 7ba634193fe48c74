//! The echo example: the server's sockets and frames without the chat.

use std::{net::SocketAddr, path::Path};

use crate::support::{BINARY, CLOSE, CONTINUATION, PING, PONG, Raw, Server, TEXT, close_frame, frame, program};

/// Sizes on both sides of every way to write a length, and one that no socket buffer holds.
const SIZES: [usize; 9] = [0, 1, 125, 126, 127, 65535, 65536, 65537, 1 << 20];

/// The example, which a plain `cargo test` builds before it runs the tests.
fn echo_server(message_bytes: &str) -> Server {
    let folder = Path::new(env!("CARGO_BIN_EXE_roomcast")).parent().expect("the folder of the program");
    let echo = folder.join("examples").join("echo");
    assert!(echo.exists(), "`cargo test --test echo` does not build it: run `cargo build --example echo` before");
    let mut command = program(&echo);
    command.args(["--listen", "127.0.0.1:0", "--message-bytes", message_bytes]);
    Server::spawn_command(command, 1)
}

fn open(address: SocketAddr) -> Raw {
    Raw::open(address, "/ws")
}

/// Text with characters of one to four bytes, `size` bytes long.
fn text_of(size: usize) -> Vec<u8> {
    let mut text: String = "aé日𝄞".chars().cycle().take(size / 2).collect();
    text.truncate((0..=size.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default());
    text.push_str(&"x".repeat(size - text.len()));
    text.into_bytes()
}

/// Bytes of every value, `size` bytes long.
fn bytes_of(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index % 251) as u8).collect()
}

/// The next message, in whatever frames it comes: its opcode and payload.
fn message(raw: &mut Raw) -> (u8, Vec<u8>) {
    let first = raw.frame();
    let (opcode, mut payload, mut fin) = (first.opcode, first.payload, first.fin);
    while !fin {
        let next = raw.frame();
        assert_eq!(next.opcode, CONTINUATION);
        payload.extend(next.payload);
        fin = next.fin;
    }
    (opcode, payload)
}

/// `input` is echoed as one message.
#[track_caller]
fn check(raw: &mut Raw, input: &[u8], opcode: u8, payload: &[u8]) {
    raw.send(input);
    let echoed = message(raw);
    // Not `assert_eq`, which would print a megabyte.
    assert!(echoed == (opcode, payload.to_vec()), "{} bytes came back as {}", payload.len(), echoed.1.len());
}

#[test]
fn messages_of_every_size_are_echoed() {
    let server = echo_server("1MiB");
    let mut raw = open(server.address());
    for size in SIZES {
        let (text, bytes) = (text_of(size), bytes_of(size));
        check(&mut raw, &frame(TEXT, true, &text), TEXT, &text);
        check(&mut raw, &frame(BINARY, true, &bytes), BINARY, &bytes);
    }
}

#[test]
fn a_message_in_fragments_is_echoed_whole() {
    let server = echo_server("1MiB");
    let mut raw = open(server.address());
    for (size, fragment) in
        [(0, 1), (10, 1), (1000, 125), (1000, 126), (70_000, 65_535), (200_000, 65_536), (1 << 20, 4_099)]
    {
        for (opcode, payload) in [(TEXT, text_of(size)), (BINARY, bytes_of(size))] {
            let mut input = frame(opcode, false, b"");
            input.extend(payload.chunks(fragment).flat_map(|part| frame(CONTINUATION, false, part)));
            input.extend(frame(CONTINUATION, true, b""));
            check(&mut raw, &input, opcode, &payload);
        }
    }
}

#[test]
fn a_message_may_have_a_fragment_for_32_of_its_bytes() {
    let server = echo_server("4MiB");
    let mut raw = open(server.address());
    for (opcode, payload) in [(TEXT, text_of(4 << 20)), (BINARY, bytes_of(4 << 20))] {
        let mut input = frame(opcode, false, &payload[..64]);
        input.extend(payload[64..].chunks(64).flat_map(|part| frame(CONTINUATION, false, part)));
        input.extend(frame(CONTINUATION, true, b""));
        check(&mut raw, &input, opcode, &payload);
    }
    // 128 Ki fragments, and one more.
    let mut raw = open(server.address());
    let input = frame(CONTINUATION, false, b"").repeat((128 << 10) - 1);
    check(&mut raw, &[&frame(TEXT, false, b"x"), &input[..], &frame(CONTINUATION, true, b"")].concat(), TEXT, b"x");
    raw.send(&[&frame(TEXT, false, b"x"), &input[..], &frame(CONTINUATION, false, b"").repeat(2)].concat());
    assert_eq!(raw.expect_close(), 1009);
}

#[test]
fn what_came_whole_before_text_that_is_not_utf_8_is_echoed() {
    let server = echo_server("1MiB");
    let mut raw = open(server.address());
    let bad = frame(TEXT, true, b"\xff and more");
    raw.send(&[&frame(TEXT, true, b"good")[..], &bad[..bad.len() - 9]].concat());
    assert_eq!(message(&mut raw), (TEXT, b"good".to_vec()));
    assert_eq!(raw.expect_close(), 1007);
}

#[test]
fn pings_between_fragments_are_answered_before_the_echo() {
    let server = echo_server("1MiB");
    let mut raw = open(server.address());
    let payload = text_of(100_000);
    let (start, end) = payload.split_at(33_333);
    raw.send(&[frame(TEXT, false, start), frame(PING, true, b"between")].concat());
    let pong = raw.frame();
    assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, &b"between"[..]));
    check(&mut raw, &frame(CONTINUATION, true, end), TEXT, &payload);
}

#[test]
fn frames_in_pieces_of_odd_sizes_are_echoed() {
    let server = echo_server("1MiB");
    let mut raw = open(server.address());
    for (size, piece) in [(1, 1), (125, 1), (126, 1), (300, 1), (65_536, 4_093), (1 << 20, 65_521)] {
        let payload = bytes_of(size);
        for part in frame(BINARY, true, &payload).chunks(piece) {
            raw.send(part);
        }
        let echoed = message(&mut raw);
        assert!(echoed == (BINARY, payload), "{size} bytes in pieces of {piece}");
    }
}

#[test]
fn frames_split_at_every_byte_of_their_heads_are_echoed() {
    let server = echo_server("1MiB");
    for size in [0, 1, 125, 126, 127, 65_535, 65_536] {
        let payload = bytes_of(size);
        let input = frame(BINARY, true, &payload);
        let splits = 1..input.len().min(16);
        let mut connections: Vec<_> = splits.map(|at| (at, open(server.address()))).collect();
        for (at, raw) in &mut connections {
            raw.send(&input[..*at]);
        }
        // An answer on a younger connection: by then the server has read what was sent before.
        check(&mut open(server.address()), &frame(TEXT, true, b"turn"), TEXT, b"turn");
        for (at, raw) in &mut connections {
            check(raw, &input[*at..], BINARY, &payload);
        }
    }
}

#[test]
fn many_messages_in_one_write_are_echoed_in_order() {
    let server = echo_server("1MiB");
    let mut raw = open(server.address());
    let messages: Vec<_> = (0..1000).map(|number| text_of(number % 300)).collect();
    let input: Vec<_> = messages.iter().flat_map(|text| frame(TEXT, true, text)).collect();
    raw.send(&input);
    for text in messages {
        assert_eq!(message(&mut raw), (TEXT, text));
    }
}

#[test]
fn one_byte_too_many_is_closed_1009() {
    let server = echo_server("100KiB");
    let mut raw = open(server.address());
    let most = bytes_of(100 * 1024);
    check(&mut raw, &frame(BINARY, true, &most), BINARY, &most);
    raw.send(&frame(BINARY, true, &bytes_of(100 * 1024 + 1)));
    assert_eq!(raw.expect_close(), 1009);
}

#[test]
fn a_close_is_answered_and_ends_the_stream() {
    let server = echo_server("1MiB");
    let mut raw = open(server.address());
    raw.send(&[frame(TEXT, true, b"last words"), close_frame(1000)].concat());
    assert_eq!(message(&mut raw), (TEXT, b"last words".to_vec()));
    let close = raw.frame();
    assert_eq!((close.opcode, close.close_code()), (CLOSE, 1000));
    assert!(raw.at_end());
}
