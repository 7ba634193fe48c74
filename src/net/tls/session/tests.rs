//! A session against a client of rustls in memory: every suite, every cut, and all that may come in one read.

use std::io::Write;

use rustls::HandshakeKind;

use super::super::peers::{Pair, SUITE_12, SUITE_13, SUITES, Trust, is_new, words};
use super::super::record::{RECORD_BYTES, SEALED_BYTES_MAX};
use super::*;

/// Talks in both directions, the client's bytes cut as `cut` says.
fn converse(mut pair: Pair, cut: impl Fn(&[u8]) -> Vec<Vec<u8>>) {
    pair.exchange(&cut);
    assert!(!pair.session.is_handshaking() && !pair.client.is_handshaking());
    let mut expected = Vec::new();
    for count in [1, 100, 3 * RECORD_BYTES + 1] {
        pair.client.writer().write_all(&words(count)).unwrap();
        expected.extend(words(count));
        pair.exchange(&cut);
        assert!(pair.said == expected, "{count} bytes");
        assert_eq!(pair.session.unread_capacity(), 0, "nothing is kept of whole records");
        pair.answer(&words(count));
    }
    pair.client.send_close_notify();
    let flight = pair.flight();
    assert!(matches!(pair.give(&flight).end, Some(SessionEnd::Told)));
    assert!(matches!(pair.give(&flight).end, Some(SessionEnd::Told)), "nothing more is looked at");
    // It may still speak.
    pair.answer(b"goodbye");
    let mut record = vec![0; SEALED_BYTES_MAX];
    let bytes = pair.session.say_goodbye(&mut record).unwrap();
    pair.client.read_tls(&mut &record[..bytes]).unwrap();
    assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
}

fn chunks(size: usize) -> impl Fn(&[u8]) -> Vec<Vec<u8>> {
    move |flight| flight.chunks(size).map(<[u8]>::to_vec).collect()
}

#[test]
fn all_suites_are_spoken_with_both_versions() {
    let trust = Trust::new();
    for suite in SUITES {
        for size in [1, 7, 1000, usize::MAX] {
            let pair = trust.pair(suite);
            converse(pair, chunks(size));
        }
        let mut pair = trust.pair(suite);
        pair.shake_hands();
        assert_eq!(pair.client.negotiated_cipher_suite(), Some(suite));
        // Each length once around the size of a block, and those at the end.
        for count in (1..70).chain(RECORD_BYTES - 2..=RECORD_BYTES) {
            pair.say(&words(count));
            pair.answer(&words(count));
        }
    }
}

#[test]
fn bytes_may_come_in_pieces_of_any_size() {
    let trust = Trust::new();
    for suite in [SUITE_12, SUITE_13] {
        for size in (1..40).chain([100, 1000, 5000, WIRE_RECORD_BYTES_MAX, usize::MAX]) {
            converse(trust.pair(suite), chunks(size));
        }
    }
}

#[test]
fn a_handshake_may_be_cut_anywhere() {
    let trust = Trust::new();
    for suite in [SUITE_12, SUITE_13] {
        let config = trust.client_config(suite);
        let mut cut = 0;
        loop {
            let mut pair = trust.pair_with(&config);
            // The longest flight of the client is the first.
            let longest = pair.flight();
            if cut > longest.len() {
                break;
            }
            assert!(pair.give(&longest[..cut]).end.is_none());
            assert!(pair.give(&longest[cut..]).end.is_none());
            pair.exchange(&|flight| {
                let (one, other) = flight.split_at(cut.min(flight.len()));
                vec![one.to_vec(), other.to_vec()]
            });
            assert!(!pair.session.is_handshaking() && !pair.client.is_handshaking(), "cut at {cut}");
            // Every other one resumes what the one before has begun: its hello is longer.
            cut += 1;
        }
        assert!(cut > 150, "{cut}");
    }
}

#[test]
fn the_end_of_a_handshake_and_all_that_follows_may_come_in_one_read() {
    let trust = Trust::new();
    for suite in SUITES {
        let flight_of_all = |pair: &mut Pair| {
            let hello = pair.flight();
            assert!(pair.give(&hello).end.is_none());
            if !is_new(suite) {
                // TLS 1.2 has one flight more, unless the session is resumed.
                let finished = pair.flight();
                assert!(pair.give(&finished).handshake.is_some());
            }
            pair.client.writer().write_all(b"first").unwrap();
            if is_new(suite) {
                pair.client.refresh_traffic_keys().unwrap();
                pair.client.writer().write_all(b", second").unwrap();
                pair.client.refresh_traffic_keys().unwrap();
            }
            pair.client.writer().write_all(b", last").unwrap();
            pair.client.send_close_notify();
            pair.flight()
        };
        let expected: &[u8] = if is_new(suite) { b"first, second, last" } else { b"first, last" };
        let mut pair = trust.pair(suite);
        let flight = flight_of_all(&mut pair);
        let received = pair.give(&flight);
        assert!(matches!(received.end, Some(SessionEnd::Told)) && pair.said == expected, "{received:?}");
        assert_eq!(received.handshake.is_some(), is_new(suite));
        pair.tell(&received.answer);
        pair.answer(b"heard");
        // And cut anywhere.
        let mut pair = trust.pair(suite);
        let flight = flight_of_all(&mut pair);
        let ends: Vec<_> = flight.iter().filter_map(|byte| pair.give(&[*byte]).end).collect();
        assert!(matches!(ends[..], [SessionEnd::Told]) && pair.said == expected, "{ends:?}");
        pair.answer(b"heard");
    }
}

#[test]
fn a_client_that_comes_back_resumes_its_session() {
    let trust = Trust::new();
    for suite in SUITES {
        let config = trust.client_config(suite);
        let handshake = || {
            let mut pair = trust.pair_with(&config);
            let mut kind = None;
            while kind.is_none() {
                let flight = pair.flight();
                kind = pair.give(&flight).handshake;
            }
            pair.shake_hands();
            pair.say(b"hello");
            pair.answer(b"hello");
            kind
        };
        assert_eq!([handshake(), handshake()], [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)], "{suite:?}");
    }
}

#[test]
fn a_hello_in_records_without_end_ends_the_session() {
    let mut session = Trust::new().pair(SUITE_13).session;
    let mut records = 0;
    let hello = |content: &[u8]| [&[22, 3, 1], &(content.len() as u16).to_be_bytes()[..], content].concat();
    let mut receive = |content: &[u8]| {
        let received = session.receive(&mut hello(content), &mut Vec::new());
        assert!(session.unread_capacity() <= 2 * WIRE_RECORD_BYTES_MAX);
        received.end
    };
    let mut end = receive(&[1, 0, 0xff, 0xff]);
    while end.is_none() {
        end = receive(&[0]);
        records += 1;
        assert!(records < 10_000);
    }
    assert!(matches!(end, Some(SessionEnd::Failed(_))) && records > 3000, "{records}");
}

#[test]
fn garbage_ends_a_session_before_its_handshake() {
    for garbage in [&b"\0\0\0\0\0\0\0\0"[..], &[22, 3, 1, 0xff, 0xff, 0], &[23, 3, 3, 0, 1, 0], &[0xff; 100]] {
        let mut session = Trust::new().pair(SUITE_13).session;
        let received = session.receive(&mut garbage.to_vec(), &mut Vec::new());
        assert!(matches!(received.end, Some(SessionEnd::Failed(_))), "{garbage:?}");
        let mut record = [0; 100];
        assert!(session.encrypt(b"hello", &mut record).is_err() && session.say_goodbye(&mut record).is_err());
    }
}

#[test]
fn a_session_is_small() {
    // Two key schedules with their tables for AES-GCM are most of it. An allocator has a class of this size.
    assert!(size_of::<Session>() <= 1280, "{}", size_of::<Session>());
}
