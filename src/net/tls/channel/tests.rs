//! Records behind a handshake, made by hand and by a client of rustls: the ones that are allowed, and the ones that end a session.

use super::super::peers::{Forger, SUITE_12, SUITE_13, SUITES, Trust, is_new};
use super::super::record::{HEADER_BYTES, SEALED_BYTES_MAX, WIRE_RECORD_BYTES_MAX};
use super::super::session::Session;
use super::*;

mod key_changes;
mod records;

const REQUEST: [u8; 5] = [24, 0, 0, 1, 1];
const NOTICE: [u8; 5] = [24, 0, 0, 1, 0];

const UNEXPECTED: u8 = 10;
const BAD_MAC: u8 = 20;
const OVERFLOW: u8 = 22;
const ILLEGAL: u8 = 47;
const DECODE: u8 = 50;
const NO_RENEGOTIATION: u8 = 100;

fn receive(session: &mut Session, bytes: &[u8]) -> (Received, Vec<u8>) {
    let mut said = Vec::new();
    let received = session.receive(&mut bytes.to_vec(), &mut said);
    (received, said)
}

/// Receives what is all right and says nothing; tells how many units that was.
fn receive_silence(session: &mut Session, bytes: &[u8]) -> u32 {
    let (received, said) = receive(session, bytes);
    assert!(received.end.is_none() && received.answer.is_empty() && said.is_empty(), "{received:?}");
    received.units
}

/// Something is said by both, each with the key that it has.
fn talk(session: &mut Session, forger: &mut Forger) {
    let record = forger.speaks.record(APPLICATION_DATA, b"hello");
    assert_eq!(receive(session, &record).1, b"hello");
    assert_eq!(hear(session, forger), [(APPLICATION_DATA, b"hello".to_vec())]);
}

/// The records that the session makes when it says hello, and before.
fn hear(session: &mut Session, forger: &mut Forger) -> Vec<(u8, Vec<u8>)> {
    let mut out = vec![0; SEALED_BYTES_MAX];
    let bytes = session.encrypt(b"hello", &mut out).unwrap();
    let (mut records, mut rest) = (Vec::new(), &mut out[..bytes]);
    while let Some(record) = first_record(rest, WIRE_RECORD_BYTES_MAX).unwrap() {
        let length = record.len();
        let content = forger.hears.open(record);
        if content.0 == HANDSHAKE {
            assert_eq!(content.1, NOTICE);
            forger.hears.update();
        }
        records.push(content);
        rest = &mut rest[length..];
    }
    assert!(rest.is_empty());
    records
}

/// A session fails over what it receives, and says why with an alert.
fn check_failure(session: &mut Session, forger: &mut Forger, bytes: &[u8], alert: u8) {
    let (received, said) = receive(session, bytes);
    assert!(matches!(received.end, Some(SessionEnd::Failed(_))) && said.is_empty(), "{received:?}");
    assert_eq!(forger.alert(&received.answer), (FATAL, alert), "{received:?}");
}
