//! WebSocket frames.

use crate::embedded::{Embedded, Transcript, config};
use crate::mutation::{Corpus, pieces};
use crate::run::run;
use crate::support::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame, frame_of, upgrade_request};

/// The codes of Closes that frames can cause.
const CLOSE_CODES: [u16; 4] = [1002, 1003, 1007, 1009];

/// No message has an effect that is seen by the next connection.
fn corpus() -> Corpus {
    let ping = br#"{"type":"ping","id":"a"}"#;
    let umlauts = r#"{"type":"chat","room":"lobby","text":"日本𝄞ü"}"#.as_bytes();
    let long = [ping.as_slice(), &[b' '; 400]].concat();
    let inputs = [
        vec![frame(TEXT, true, ping), frame(TEXT, true, ping)],
        vec![frame(TEXT, false, &ping[..7]), frame(PING, true, b"between"), frame(CONTINUATION, true, &ping[7..])],
        vec![frame(TEXT, false, &umlauts[..41]), frame(CONTINUATION, true, &umlauts[41..])],
        vec![frame(TEXT, true, umlauts), frame(PONG, true, b"unasked"), close_frame(1000)],
        vec![frame(TEXT, true, &long), frame(CLOSE, true, b"\x03\xe8goodbye"), frame(TEXT, true, ping)],
        vec![frame(TEXT, false, b""), frame(CONTINUATION, false, b""), frame(CONTINUATION, true, ping)],
        vec![frame(TEXT, true, b"{}"), frame(BINARY, true, b"binary")],
        vec![frame(PING, true, &[0xff; 125]), frame(TEXT, true, br#"{"type":"dance","id":"7"}"#)],
        // The bytes of a mask of zeros are those of the text, so that mutations reach it.
        vec![frame_of(0x81, Some([0; 4]), umlauts), frame_of(0x89, Some([0; 4]), b"x"), close_frame(1001)],
    ];
    Corpus {
        inputs: inputs.map(|frames| frames.concat()).into(),
        words: &[
            &[0x81, 0x80, 0, 0, 0, 0],
            &[0x80, 0x80, 0, 0, 0, 0],
            &[0x01, 0x81, 0, 0, 0, 0, b'{'],
            &[0x89, 0x80, 0, 0, 0, 0],
            &[0x88, 0x80, 0, 0, 0, 0],
            &[0x88, 0x81, 0, 0, 0, 0, 3],
            &[0x88, 0x82, 0, 0, 0, 0, 3, 0xed],
            &[0x81, 0xfe, 0, 5],
            &[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0],
            &[0xc1],
            &[0xff],
            b"\xed\xa0\x80",
            b"\xf4\x90",
        ],
    }
}

/// The opcode and payload of each frame of the server.
fn frames_of(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        assert_eq!((first & 0xf0, length & 0x80), (0x80, 0), "a whole unmasked frame without reserved bits");
        let (length, rest) = match (length, rest) {
            (126, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            (length, rest) if *length < 126 => (usize::from(*length), rest),
            _ => panic!("a frame of a length that no answer has: {}", bytes.escape_ascii()),
        };
        let (payload, rest) = rest.split_at_checked(length).expect("a frame on the wire is whole");
        frames.push((first & 0x0f, payload));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "a frame on the wire is whole");
    frames
}

/// Texts, pongs and Closes, each in their order.
///
/// A pong does not wait for the answers to messages before it, so their order depends on what comes at once.
fn sorted(bytes: &[u8]) -> [Vec<&[u8]>; 3] {
    let frames = frames_of(bytes);
    [TEXT, PONG, CLOSE]
        .map(|wanted| frames.iter().filter(|(opcode, _)| *opcode == wanted).map(|(_, payload)| *payload).collect())
}

/// The same texts, pongs and Close, and the same end.
fn is_alike(whole: &Transcript, pieces: &Transcript) -> bool {
    whole.is_closed == pieces.is_closed && sorted(&whole.bytes) == sorted(&pieces.bytes)
}

/// Whether the server may close with a code: its own ones, and those of the peer, which it repeats.
fn is_close_code(code: u16) -> bool {
    CLOSE_CODES.contains(&code) || (1000..=4999).contains(&code) && !(1004..=1006).contains(&code)
}

#[test]
fn frames() {
    let corpus = corpus();
    let mut server = Embedded::with(config());
    let upgrade = upgrade_request("/ws?userId=fuzz", &[]);
    run(
        "frames",
        |rng| corpus.mutated(rng),
        |rng, input| {
            let answer = server.check_split(upgrade.as_bytes(), &pieces(rng, input), is_alike);
            let frames = frames_of(&answer.bytes);
            for (index, (opcode, payload)) in frames.iter().enumerate() {
                match *opcode {
                    TEXT => drop(serde_json::from_slice::<serde_json::Value>(payload).expect("a message is JSON")),
                    PONG => assert!(payload.len() <= 125),
                    CLOSE => {
                        assert_eq!(index, frames.len() - 1, "nothing follows a Close");
                        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                        assert!(code.is_none_or(is_close_code), "closed with {code:?}");
                    }
                    opcode => panic!("opcode {opcode}"),
                }
            }
            server.check_health();
        },
    );
}
