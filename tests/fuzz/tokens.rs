//! JSON Web Tokens: one that is changed is refused.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use mio::{Poll, Token, Waker};
use ring::hmac;
use roomcast::{Authentication, Authenticator, Now, TokenAuthenticator, TokenConfig};
use serde_json::json;

use crate::mutation::Corpus;
use crate::run::run;
use crate::support::tokens::{EdIssuer, Files, SECRET, hmac_token};

/// Always the same bytes, so that a seed gives the same input: the tokens expire in 2100.
fn tokens(issuer: &EdIssuer) -> Vec<Vec<u8>> {
    let alice = json!({"sub": "alice", "exp": 4_102_444_800_u64});
    let bob = json!({
        "sub": "bob", "exp": 4_102_444_800_u64, "nbf": 1, "name": "Bob",
        "rooms": [{"match": "team-*", "allow": ["join", "say"]}, {"match": "lobby", "allow": ["join"]}],
    });
    let by =
        |hash, name: &str, claims| hmac_token(hash, SECRET.as_bytes(), &json!({"alg": name, "typ": "JWT"}), claims);
    let tokens = [
        by(hmac::HMAC_SHA256, "HS256", &alice),
        by(hmac::HMAC_SHA256, "HS256", &bob),
        by(hmac::HMAC_SHA384, "HS384", &bob),
        by(hmac::HMAC_SHA512, "HS512", &alice),
        issuer.token(&json!({}), &alice),
        issuer.token(&json!({"kid": "one"}), &bob),
    ];
    tokens.map(String::into_bytes).into()
}

const WORDS: &[&[u8]] = &[
    b".",
    b"=",
    b"+",
    b"/",
    b"\"",
    b"none",
    b"HS256",
    b"EdDSA",
    b"\"alg\":\"none\"",
    b",\"alg\":\"HS256\"",
    b",\"sub\":\"mallory\"",
    b",\"exp\":99999999999",
    b",\"crit\":[\"exp\"]",
    b"AAAA",
    b"e30",
    b" ",
];

/// Changes what one part of a token encodes.
fn change_part(corpus: &Corpus, rng: &mut fastrand::Rng, token: &[u8]) -> Vec<u8> {
    let mut parts: Vec<_> = token.split(|byte| *byte == b'.').map(<[u8]>::to_vec).collect();
    let part = rng.usize(..parts.len());
    if let Ok(mut content) = BASE64URL_NOPAD.decode(&parts[part]) {
        corpus.mutate(rng, &mut content);
        parts[part] = BASE64URL_NOPAD.encode(&content).into_bytes();
    }
    parts.join(&b'.')
}

#[test]
fn tokens_are_accepted_unchanged_alone() {
    let issuer = EdIssuer::new(1);
    let (corpus, files) = (Corpus { inputs: tokens(&issuer), words: WORDS }, Files::new());
    let config = TokenConfig {
        secret_files: vec![files.write("secret", SECRET).into()],
        key_files: vec![files.write("keys.pem", issuer.public_pem()).into()],
        ..TokenConfig::default()
    };
    let poll = Poll::new().expect("a poll");
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker"));
    let mut authenticator = TokenAuthenticator::new(config, waker).expect("keys");
    let (mut accepted, mut refused) = (0_u64, 0_u64);
    run(
        "tokens",
        |rng| match rng.u32(..3) {
            0 => {
                let token = rng.choice(&corpus.inputs).expect("a token");
                change_part(&corpus, rng, token)
            }
            // A part of one token in place of that of another.
            1 => {
                let mut part = |index| {
                    let token = rng.choice(&corpus.inputs).expect("a token");
                    token.split(|byte| *byte == b'.').nth(index).expect("three parts")
                };
                [part(0), part(1), part(2)].join(&b'.')
            }
            _ => corpus.mutated(rng),
        },
        |_, input| {
            let mut request = http::Request::new(());
            let header = [b"Bearer ", input].concat();
            let Ok(header) = http::HeaderValue::from_bytes(&header) else { return };
            request.headers_mut().insert(http::header::AUTHORIZATION, header);
            // Spaces around it belong to the header.
            let is_known = corpus.inputs.iter().any(|token| token == input.trim_ascii());
            match authenticator.authenticate(Now::system(), &request) {
                Authentication::Admit(identity) => {
                    assert!(is_known, "accepted as {:?}", identity.user);
                    accepted += 1;
                }
                Authentication::Refuse(refusal) => {
                    assert!(!is_known, "refused: {refusal:?}");
                    refused += 1;
                }
                Authentication::Later(ticket) => panic!("{ticket:?}: there is no set of keys to wait for"),
            }
        },
    );
    println!("{accepted} accepted, {refused} refused");
}
