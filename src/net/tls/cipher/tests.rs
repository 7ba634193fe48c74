//! Records, against those of RFC 8448, and against each other.

use ring::aead::Algorithm;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()
}

fn cipher(framing: Framing, algorithm: &'static Algorithm, key: &[u8], iv: &[u8], next: u64) -> Cipher {
    let key = LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap());
    Cipher { framing, iv: iv.try_into().unwrap(), next, key }
}

#[test]
fn records_are_those_of_rfc_8448() {
    // Section 3: what the client says first, and what the server says after a ticket.
    let words: Vec<u8> = (0..0x32).collect();
    for (key, iv, number, record) in [
        (
            "17422dda596ed5d9acd890e3c63f5051",
            "5b78923dee08579033e523d9",
            0,
            "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a62
             92a2977014bd1e3deae63aeebb21694915e4",
        ),
        (
            "9f02283b6c9c07efc26bb9f2ac92e356",
            "cf782b88dd83549aadf1e984",
            1,
            "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8fcc49c4bf2e5
             f0a21c0047c2abf332540dd032e167c2955d",
        ),
    ] {
        let cipher = || cipher(Framing::InnerType, &AES_128_GCM, &bytes(key), &bytes(iv), number);
        let mut sealed = [0; 100];
        let count = cipher().seal(APPLICATION_DATA, &words, &mut sealed).unwrap();
        assert_eq!(sealed[..count], bytes(record));
        let content = Content { kind: APPLICATION_DATA, bytes: &words };
        assert_eq!(cipher().open(&mut bytes(record)).unwrap(), content);
    }
}

const WAYS: [(Framing, &Algorithm); 6] = [
    (Framing::InnerType, &AES_128_GCM),
    (Framing::InnerType, &AES_256_GCM),
    (Framing::InnerType, &CHACHA20_POLY1305),
    (Framing::ExplicitNonce, &AES_128_GCM),
    (Framing::ExplicitNonce, &AES_256_GCM),
    (Framing::ImplicitNonce, &CHACHA20_POLY1305),
];

fn both(framing: Framing, algorithm: &'static Algorithm, next: u64) -> [Cipher; 2] {
    [(); 2].map(|()| cipher(framing, algorithm, &[7; 32][..algorithm.key_len()], &[9; 12], next))
}

#[test]
fn content_of_any_length_comes_back_and_needs_just_so_much_memory() {
    let words: Vec<u8> = (0..RECORD_BYTES).map(|at| (at % 251) as u8).collect();
    for (framing, algorithm) in WAYS {
        let [mut ours, mut theirs] = both(framing, algorithm, 0);
        for length in (0..300).chain([1000, RECORD_BYTES - 1, RECORD_BYTES]) {
            let needed = HEADER_BYTES + framing.bytes_before() + length + framing.bytes_behind() + TAG_BYTES;
            let mut out = vec![0xaa; needed + 1];
            assert!(ours.seal(22, &words[..length], &mut out[..needed - 1]).is_err());
            assert_eq!(ours.seal(22, &words[..length], &mut out).unwrap(), needed);
            assert_eq!(out.pop(), Some(0xaa));
            let content = theirs.open(&mut out).unwrap();
            assert!(content.kind == 22 && content.bytes == &words[..length], "{framing:?}: {length}");
        }
        assert_eq!(ours.records(), theirs.records());
    }
}

#[test]
fn no_nonce_is_used_twice() {
    for (framing, algorithm) in WAYS {
        let [mut ours, mut theirs] = both(framing, algorithm, u64::MAX - 2);
        let mut out = [0; 64];
        for _ in 0..2 {
            let count = ours.seal(23, b"hello", &mut out).unwrap();
            assert_eq!(theirs.open(&mut out[..count]).unwrap().bytes, b"hello");
        }
        assert!(ours.seal(23, b"hello", &mut out).is_err());
        let mut record = header(APPLICATION_DATA, 30).to_vec();
        record.extend([0; 30]);
        assert!(theirs.open(&mut record).is_err());
    }
}

#[test]
fn a_record_of_any_length_may_be_garbage() {
    for (framing, algorithm) in WAYS {
        for length in 0..100 {
            let mut record = header(APPLICATION_DATA, length).to_vec();
            record.extend(vec![0x5a; length]);
            let fault = both(framing, algorithm, 0)[0].open(&mut record).unwrap_err();
            assert_eq!(fault.alert, Some(AlertDescription::BadRecordMac), "{length}");
        }
    }
}
