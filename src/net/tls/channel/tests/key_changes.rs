//! New keys of clients, and our own.

use super::*;

#[test]
fn a_client_may_take_new_keys_and_need_not_be_asked() {
    let trust = Trust::new();
    for suite in SUITES.into_iter().filter(|suite| is_new(*suite)) {
        let (mut session, mut forger) = trust.forged(suite);
        for cut in (0..5).chain(0..40) {
            let update = match cut % 5 {
                0 => forger.speaks.record(HANDSHAKE, &NOTICE),
                cut => {
                    let first = forger.speaks.record(HANDSHAKE, &NOTICE[..cut]);
                    [first, forger.speaks.record(HANDSHAKE, &NOTICE[cut..])].concat()
                }
            };
            forger.speaks.update();
            let units = receive_silence(&mut session, &update);
            assert!((KEY_UNITS + 1..KEY_UNITS + 3).contains(&units), "{units}");
            talk(&mut session, &mut forger);
        }
    }
}

#[test]
fn a_new_key_that_is_asked_for_is_taken_once_before_something_is_said() {
    let (mut session, mut forger) = Trust::new().forged(SUITE_13);
    for requests in 1..4 {
        for _ in 0..requests {
            let update = forger.speaks.record(HANDSHAKE, &REQUEST);
            forger.speaks.update();
            receive_silence(&mut session, &update);
        }
        let heard = hear(&mut session, &mut forger);
        assert_eq!(heard, [(HANDSHAKE, NOTICE.to_vec()), (APPLICATION_DATA, b"hello".to_vec())]);
        assert_eq!(hear(&mut session, &mut forger), [(APPLICATION_DATA, b"hello".to_vec())]);
    }
    talk(&mut session, &mut forger);
}

#[test]
fn a_client_of_rustls_may_ask_for_new_keys() {
    let trust = Trust::new();
    for suite in SUITES.into_iter().filter(|suite| is_new(*suite)) {
        let mut pair = trust.pair(suite);
        pair.shake_hands();
        for requests in [1, 2, 0, 1] {
            for _ in 0..requests {
                pair.client.refresh_traffic_keys().unwrap();
            }
            pair.say(b"hello");
            // A record with a tag, and before it one with a message of five bytes.
            let expected = HEADER_BYTES + 17 + 5 + if requests > 0 { HEADER_BYTES + 17 + 5 } else { 0 };
            assert_eq!(pair.answer(b"hello"), expected);
            pair.answer(b"and more");
        }
    }
}

#[test]
fn new_keys_without_a_word_in_between_end_the_session() {
    let (mut session, mut forger) = Trust::new().forged(SUITE_13);
    for round in 0..3 {
        for _ in 0..32 {
            let update = forger.speaks.record(HANDSHAKE, &NOTICE);
            forger.speaks.update();
            receive_silence(&mut session, &update);
        }
        if round < 2 {
            talk(&mut session, &mut forger);
        }
    }
    // An empty record is no word.
    let nothing = forger.speaks.record(APPLICATION_DATA, b"");
    receive_silence(&mut session, &nothing);
    let update = forger.speaks.record(HANDSHAKE, &NOTICE);
    check_failure(&mut session, &mut forger, &update, UNEXPECTED);
}

#[test]
fn other_messages_of_a_handshake_end_the_session() {
    let trust = Trust::new();
    for (message, alert) in [
        // A hello, a ticket, an end of early data, a certificate, the end of a handshake.
        (&[1, 0, 0, 1, 0][..], UNEXPECTED),
        (&[4, 0, 0, 1, 0], UNEXPECTED),
        (&[5, 0, 0, 0], UNEXPECTED),
        (&[11], UNEXPECTED),
        (&[20, 0, 0, 1, 0], UNEXPECTED),
        (&[], UNEXPECTED),
        // New keys, but not like that.
        (&[24, 0, 0, 2, 0, 0], DECODE),
        (&[24, 0, 0xff, 0xff], DECODE),
        (&[24, 0, 0, 0], DECODE),
        (&[24, 0, 0, 1, 2], ILLEGAL),
        // Later records would have to be encrypted with the new key.
        (&[24, 0, 0, 1, 0, 0], UNEXPECTED),
        (&[24, 0, 0, 1, 1, 24, 0, 0, 1, 1], UNEXPECTED),
    ] {
        let (mut session, mut forger) = trust.forged(SUITE_13);
        let record = forger.speaks.record(HANDSHAKE, message);
        check_failure(&mut session, &mut forger, &record, alert);
        // In a record for each byte, the one that is wrong ends it.
        let (mut session, mut forger) = trust.forged(SUITE_13);
        let ends = message.iter().filter_map(|byte| {
            let record = forger.speaks.record(HANDSHAKE, &[*byte]);
            receive(&mut session, &record).0.end
        });
        let is_whole = message.starts_with(&KEY_UPDATE) && message.len() > 5;
        assert!(message.is_empty() || ends.count() > 0 || is_whole, "{message:?}");
    }
}

#[test]
fn nothing_stands_within_a_message_of_a_handshake_but_the_session_may_speak() {
    let trust = Trust::new();
    for cut in 1..5 {
        for (kind, content) in [(APPLICATION_DATA, &b"hello"[..]), (APPLICATION_DATA, b""), (ALERT, &[WARNING, 0])] {
            let (mut session, mut forger) = trust.forged(SUITE_13);
            let beginning = forger.speaks.record(HANDSHAKE, &NOTICE[..cut]);
            receive_silence(&mut session, &beginning);
            assert_eq!(hear(&mut session, &mut forger).len(), 1);
            let record = forger.speaks.record(kind, content);
            check_failure(&mut session, &mut forger, &record, UNEXPECTED);
        }
    }
}

#[test]
fn a_key_that_may_make_no_more_records_is_changed() {
    let trust = Trust::new();
    for suite in SUITES.into_iter().filter(|suite| is_new(*suite)) {
        for limit in [3, 4, 9] {
            let mut pair = trust.pair(suite);
            pair.shake_hands();
            pair.session.set_records_max(limit);
            let sealed: Vec<_> = (0..40).map(|_| pair.answer(b"hello")).collect();
            let short = HEADER_BYTES + 17 + 5;
            // The first key has made records with tickets.
            let changes: Vec<_> = (0..40).filter(|at| sealed[*at] == 2 * short).collect();
            assert!(changes[0] < limit as usize && changes.len() >= 4, "{changes:?}");
            assert!(changes.windows(2).all(|pair| pair[1] - pair[0] == limit as usize - 1), "{limit}: {changes:?}");
            // Both go on, also if the client takes a new key now.
            pair.client.refresh_traffic_keys().unwrap();
            pair.say(b"hello");
            pair.answer(b"hello");
        }
    }
}

#[test]
fn with_tls_1_2_a_key_is_used_up_and_goodbye_may_still_be_said() {
    let trust = Trust::new();
    for suite in SUITES.into_iter().filter(|suite| !is_new(*suite)) {
        let mut pair = trust.pair(suite);
        pair.shake_hands();
        // One record was the end of the handshake.
        pair.session.set_records_max(4);
        for _ in 0..3 {
            pair.answer(b"hello");
        }
        let mut record = vec![0; SEALED_BYTES_MAX];
        assert!(pair.session.encrypt(b"hello", &mut record).is_err());
        pair.say(b"hello");
        let bytes = pair.session.say_goodbye(&mut record).unwrap();
        pair.client.read_tls(&mut &record[..bytes]).unwrap();
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
    }
}

#[test]
fn the_limits_are_those_of_the_suites() {
    let trust = Trust::new();
    for suite in SUITES {
        let (mut session, _) = trust.forged(suite);
        let expected = if format!("{suite:?}").contains("CHACHA20") { u64::MAX } else { 1 << 24 };
        assert_eq!(session.records_max(), expected, "{suite:?}");
    }
}
