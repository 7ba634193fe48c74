//! The contents that records may carry, and the ones that end a session.

use super::*;

#[test]
fn renegotiation_is_refused_and_ends_the_session_the_second_time() {
    let trust = Trust::new();
    let hello = trust.pair(SUITE_12).flight();
    for suite in SUITES.into_iter().filter(|suite| !is_new(*suite)) {
        let (mut session, mut forger) = trust.forged(suite);
        talk(&mut session, &mut forger);
        let (received, _) = receive(&mut session, &forger.speaks.record(HANDSHAKE, &hello[5..]));
        assert!(received.end.is_none(), "{received:?}");
        assert_eq!(forger.alert(&received.answer), (WARNING, NO_RENEGOTIATION));
        talk(&mut session, &mut forger);
        let again = forger.speaks.record(HANDSHAKE, &hello[5..]);
        check_failure(&mut session, &mut forger, &again, UNEXPECTED);
    }
    // Not whole, more than one, or another message.
    for message in [&hello[5..20], &[&hello[5..], &[0]].concat(), &[1], &[20, 0, 0, 0], &NOTICE] {
        let (mut session, mut forger) = trust.forged(SUITE_12);
        let record = forger.speaks.record(HANDSHAKE, message);
        check_failure(&mut session, &mut forger, &record, UNEXPECTED);
    }
}

/// The effect of an alert of the peer.
#[derive(Debug, PartialEq)]
enum Fate {
    GoesOn,
    Told,
    Failed(Option<u8>),
}

#[test]
fn alerts_are_the_end_unless_they_are_warnings() {
    let trust = Trust::new();
    for suite in SUITES {
        for (alert, new, old) in [
            (&[1, 0][..], Fate::Told, Fate::Told),
            (&[2, 0], Fate::Told, Fate::Told),
            (&[2, 80], Fate::Failed(None), Fate::Failed(None)),
            (&[2, 90], Fate::Failed(None), Fate::Failed(None)),
            (&[1, 90], Fate::GoesOn, Fate::GoesOn),
            (&[1, 100], Fate::Failed(Some(DECODE)), Fate::GoesOn),
            (&[3, 80], Fate::Failed(Some(ILLEGAL)), Fate::Failed(Some(ILLEGAL))),
            (&[1], Fate::Failed(Some(DECODE)), Fate::Failed(Some(DECODE))),
            (&[1, 0, 0], Fate::Failed(Some(DECODE)), Fate::Failed(Some(DECODE))),
        ] {
            let (mut session, mut forger) = trust.forged(suite);
            let received = receive(&mut session, &forger.speaks.record(ALERT, alert)).0;
            let told = (!received.answer.is_empty()).then(|| forger.alert(&received.answer));
            let fate = match received.end {
                None => Fate::GoesOn,
                Some(SessionEnd::Told) => Fate::Told,
                Some(SessionEnd::Failed(_)) => Fate::Failed(told.map(|(level, description)| {
                    assert_eq!(level, FATAL);
                    description
                })),
            };
            assert_eq!(&fate, if is_new(suite) { &new } else { &old }, "{suite:?}: {alert:?}");
        }
        let (mut session, mut forger) = trust.forged(suite);
        for _ in 0..4 {
            let warning = forger.speaks.record(ALERT, &[WARNING, 90]);
            receive_silence(&mut session, &warning);
            talk(&mut session, &mut forger);
        }
        let warning = forger.speaks.record(ALERT, &[WARNING, 90]);
        check_failure(&mut session, &mut forger, &warning, UNEXPECTED);
    }
}

#[test]
fn a_record_that_is_changed_anywhere_ends_the_session() {
    let trust = Trust::new();
    for suite in SUITES {
        let length = {
            let (_, mut forger) = trust.forged(suite);
            forger.speaks.record(APPLICATION_DATA, b"hello").len()
        };
        for at in 0..length {
            let (mut session, mut forger) = trust.forged(suite);
            let mut record = forger.speaks.record(APPLICATION_DATA, b"hello");
            record[at] ^= 1;
            // A length that is less leaves the beginning of another record.
            let alert = match at {
                0 => UNEXPECTED,
                1 => DECODE,
                // The version of the header is to be ignored with TLS 1.3 (RFC 8446 section 5.1).
                2 if is_new(suite) => {
                    assert_eq!(receive(&mut session, &record).1, b"hello");
                    continue;
                }
                3 => {
                    // More than has come.
                    assert_eq!(receive_silence(&mut session, &record), 0);
                    continue;
                }
                4 if record[4] > (length - HEADER_BYTES) as u8 => {
                    assert_eq!(receive_silence(&mut session, &record), 0);
                    record = [0; 1].to_vec();
                    BAD_MAC
                }
                _ => BAD_MAC,
            };
            if at == 0 && !is_new(suite) {
                // The type of a handshake, that is: it is authenticated.
                check_failure(&mut session, &mut forger, &record, BAD_MAC);
            } else {
                check_failure(&mut session, &mut forger, &record, alert);
            }
        }
        // A record comes twice, or one is missing.
        let (mut session, mut forger) = trust.forged(suite);
        let record = forger.speaks.record(APPLICATION_DATA, b"hello");
        assert_eq!(receive(&mut session, &record).1, b"hello");
        check_failure(&mut session, &mut forger, &record, BAD_MAC);
        let (mut session, mut forger) = trust.forged(suite);
        let _missing = forger.speaks.record(APPLICATION_DATA, b"hello");
        let record = forger.speaks.record(APPLICATION_DATA, b"hello");
        check_failure(&mut session, &mut forger, &record, BAD_MAC);
    }
}

#[test]
fn records_of_other_types_end_the_session() {
    let trust = Trust::new();
    for suite in SUITES {
        let newer = is_new(suite);
        let mut cases: Vec<(Vec<u8>, u8)> = vec![
            (vec![20, 3, 3, 0, 1, 1], UNEXPECTED),
            (vec![21, 3, 3, 0, 2, 2, 80], if newer { UNEXPECTED } else { BAD_MAC }),
            (vec![22, 3, 3, 0, 0], DECODE),
            (vec![19, 3, 3, 0, 1, 0], DECODE),
            (vec![25, 3, 3, 0, 1, 0], DECODE),
            (vec![23, 2, 0, 0, 1, 0], DECODE),
            (vec![23, 3, 3, 0, 0], BAD_MAC),
            (vec![23, 3, 3, 0, 15], BAD_MAC),
            (b"GET / HTTP/1.1".to_vec(), DECODE),
        ];
        cases[7].0.extend([0; 15]);
        for (bytes, alert) in cases {
            let (mut session, mut forger) = trust.forged(suite);
            check_failure(&mut session, &mut forger, &bytes, alert);
        }
        for kind in if newer { &[24, 25, 255][..] } else { &[24] } {
            let (mut session, mut forger) = trust.forged(suite);
            let record = forger.speaks.record(*kind, b"hello");
            check_failure(&mut session, &mut forger, &record, UNEXPECTED);
        }
    }
}

#[test]
fn records_may_carry_as_much_as_the_standards_say_and_no_more() {
    let trust = Trust::new();
    for suite in SUITES {
        let (mut session, mut forger) = trust.forged(suite);
        let record = forger.speaks.record(APPLICATION_DATA, &[7; RECORD_BYTES]);
        assert_eq!(receive(&mut session, &record).1, [7; RECORD_BYTES]);
        let record = forger.speaks.record(APPLICATION_DATA, &[7; RECORD_BYTES + 1]);
        check_failure(&mut session, &mut forger, &record, OVERFLOW);
        // The header is enough.
        let body_bytes_max = RECORD_BYTES + if is_new(suite) { 256 } else { 2048 };
        for (body_bytes, is_allowed) in [(body_bytes_max, true), (body_bytes_max + 1, false), (0xffff, false)] {
            let (mut session, mut forger) = trust.forged(suite);
            let length = (body_bytes as u16).to_be_bytes();
            let bytes = [&[23, 3, 3][..], &length].concat();
            match is_allowed {
                true => assert_eq!(receive_silence(&mut session, &bytes), 0),
                false => check_failure(&mut session, &mut forger, &bytes, OVERFLOW),
            }
        }
    }
}

#[test]
fn padding_is_left_out() {
    let trust = Trust::new();
    for suite in SUITES.into_iter().filter(|suite| is_new(*suite)) {
        let (mut session, mut forger) = trust.forged(suite);
        for padding in [1, 15, 255, RECORD_BYTES - 5] {
            let record = forger.speaks.padded(APPLICATION_DATA, b"hello", padding);
            assert_eq!(receive(&mut session, &record).1, b"hello");
            // Content that ends with zeros is not shortened.
            let record = forger.speaks.padded(APPLICATION_DATA, &[0; 5], padding);
            assert_eq!(receive(&mut session, &record).1, [0; 5]);
        }
        let record = forger.speaks.padded(APPLICATION_DATA, b"hello", RECORD_BYTES - 4);
        check_failure(&mut session, &mut forger, &record, OVERFLOW);
        for (text, alert) in [
            (&[][..], UNEXPECTED),
            (&[0; 1], UNEXPECTED),
            (&[0; RECORD_BYTES + 1], UNEXPECTED),
            (&[0; RECORD_BYTES + 2], OVERFLOW),
            // A type that is never encrypted.
            (&[1, CHANGE_CIPHER_SPEC], UNEXPECTED),
        ] {
            let (mut session, mut forger) = trust.forged(suite);
            let record = forger.speaks.sealed(APPLICATION_DATA, text);
            check_failure(&mut session, &mut forger, &record, alert);
        }
    }
}

#[test]
fn empty_records_count_and_too_many_end_the_session() {
    let trust = Trust::new();
    for suite in SUITES {
        let (mut session, mut forger) = trust.forged(suite);
        for round in 0..3 {
            let records: Vec<u8> = (0..32).flat_map(|_| forger.speaks.record(APPLICATION_DATA, b"")).collect();
            assert_eq!(receive_silence(&mut session, &records), 32);
            if round < 2 {
                talk(&mut session, &mut forger);
            }
        }
        let record = forger.speaks.record(APPLICATION_DATA, b"");
        check_failure(&mut session, &mut forger, &record, UNEXPECTED);
    }
}

#[test]
fn many_records_in_one_read_count_each() {
    for suite in SUITES {
        let (mut session, mut forger) = Trust::new().forged(suite);
        let records: Vec<u8> = (0..100).flat_map(|at| forger.speaks.record(APPLICATION_DATA, &[at])).collect();
        let (received, said) = receive(&mut session, &records);
        assert!(received.units == 100 && said == (0..100).collect::<Vec<u8>>(), "{received:?}");
    }
}

/// Any records of a client, good and bad.
fn chaos(rng: &mut fastrand::Rng, forger: &mut Forger, suite: SupportedCipherSuite) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(1..12) {
        let text: Vec<u8> = (0..rng.usize(..40)).map(|_| rng.u8(..)).collect();
        let record = match rng.u32(..20) {
            0..8 => forger.speaks.record(APPLICATION_DATA, &text),
            8..10 => forger.speaks.padded(APPLICATION_DATA, &text, rng.usize(..20)),
            10..15 if is_new(suite) => {
                let update = if rng.bool() { REQUEST } else { NOTICE };
                let cut = rng.usize(1..=5);
                let mut record = forger.speaks.record(HANDSHAKE, &update[..cut]);
                if cut < 5 {
                    record.extend(forger.speaks.record(HANDSHAKE, &update[cut..]));
                }
                forger.speaks.update();
                record
            }
            15 => forger.speaks.record(ALERT, &[rng.u8(1..4), rng.u8(..2) * 90]),
            16 => forger.speaks.record(rng.u8(..), &text),
            17 => forger.speaks.sealed(APPLICATION_DATA, &text),
            18 => text,
            _ => forger.speaks.record(HANDSHAKE, &text),
        };
        bytes.extend(record);
    }
    if rng.u32(..4) == 0 {
        let at = rng.usize(..bytes.len().max(1));
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << rng.u32(..8);
        }
    }
    bytes
}

/// The outcome of bytes that come in pieces: the plaintext, the alerts, and how the session ends.
fn outcome(mut session: Session, pieces: impl Iterator<Item = Vec<u8>>) -> (Vec<u8>, usize, String) {
    let (mut said, mut answer_bytes) = (Vec::new(), 0);
    for mut piece in pieces {
        let received = session.receive(&mut piece, &mut said);
        assert!(session.unread_capacity() <= 2 * WIRE_RECORD_BYTES_MAX);
        answer_bytes += received.answer.len();
        if let Some(end) = received.end {
            return (said, answer_bytes, format!("{end:?}"));
        }
    }
    (said, answer_bytes, String::new())
}

#[test]
fn whatever_a_client_sends_it_does_not_matter_how_it_is_cut() {
    let trust = Trust::new();
    for seed in 0..600 {
        let suite = SUITES[seed as usize % SUITES.len()];
        let outcomes = [0, 1, 2].map(|way| {
            // Other keys, and the same words.
            let (session, mut forger) = trust.forged(suite);
            let mut rng = fastrand::Rng::with_seed(seed);
            let bytes = chaos(&mut rng, &mut forger, suite);
            match way {
                0 => outcome(session, std::iter::once(bytes)),
                1 => outcome(session, bytes.iter().map(|byte| vec![*byte])),
                _ => outcome(session, bytes.chunks(rng.usize(1..50)).map(<[u8]>::to_vec)),
            }
        });
        assert!(outcomes[0] == outcomes[1] && outcomes[0] == outcomes[2], "seed {seed}, {suite:?}: {outcomes:?}");
    }
}
