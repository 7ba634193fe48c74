//! JSON Web Tokens of every algorithm: one that is changed is refused.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use mio::{Poll, Token, Waker};
use ring::hmac;
use roomcast::{Authentication, Authenticator, Now, TokenAuthenticator, TokenConfig};
use serde_json::json;

use crate::mutation::Corpus;
use crate::run::run;
use crate::support::tokens::{EdIssuer, Files, SECRET, hmac_token};

/// The keys of the issuers of [`RS256`] and [`ES256`], which were made by OpenSSL: RSA of 2048 bits, and P-256.
const ISSUERS: &str = include_str!("tokens/issuers.pem");

/// Tokens, one a line, of issuers whose private keys nobody has.
const RS256: &str = include_str!("tokens/rs256.jwt");
const ES256: &str = include_str!("tokens/es256.jwt");

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
    let issued = RS256.lines().chain(ES256.lines()).map(|token| token.as_bytes().to_vec());
    tokens.map(String::into_bytes).into_iter().chain(issued).collect()
}

/// Tokens that anybody can make who knows the public keys: signed as if these were secrets.
fn forged_tokens() -> Vec<Vec<u8>> {
    let mallory = json!({"sub": "mallory", "exp": 4_102_444_800_u64});
    let by = |secret: &str, name| {
        hmac_token(hmac::HMAC_SHA256, secret.as_bytes(), &json!({"alg": name, "typ": "JWT"}), &mallory).into_bytes()
    };
    ["HS256", "RS256", "ES256", "EdDSA"]
        .into_iter()
        .flat_map(|name| [by(ISSUERS, name), by(ISSUERS.trim_end(), name)])
        .collect()
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
    b"RS256",
    b"ES256",
    b"\"alg\":\"none\"",
    b",\"alg\":\"HS256\"",
    b",\"alg\":\"ES256\"",
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
    let (issuer, files) = (EdIssuer::new(1), Files::new());
    let good = tokens(&issuer);
    let corpus = Corpus { inputs: [good.clone(), forged_tokens()].concat(), words: WORDS };
    let config = TokenConfig {
        secret_files: vec![files.write("secret", SECRET).into()],
        key_files: vec![files.write("keys.pem", [ISSUERS, &issuer.public_pem()].concat()).into()],
        ..TokenConfig::default()
    };
    let poll = Poll::new().expect("a poll");
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker"));
    let mut authenticator = TokenAuthenticator::new(config, waker).expect("keys");
    let (mut accepted, mut refused) = (0_u64, 0_u64);
    let mut check = |input: &[u8]| {
        let mut request = http::Request::new(());
        let header = [b"Bearer ", input].concat();
        let Ok(header) = http::HeaderValue::from_bytes(&header) else { return };
        request.headers_mut().insert(http::header::AUTHORIZATION, header);
        // Spaces around it belong to the header.
        let is_good = good.iter().any(|token| token == input.trim_ascii());
        match authenticator.authenticate(Now::system(), &request) {
            Authentication::Admit(identity) => {
                assert!(is_good, "accepted as {:?}", identity.user);
                accepted += 1;
            }
            Authentication::Refuse(refusal) => {
                assert!(!is_good, "refused: {refusal:?}");
                refused += 1;
            }
            Authentication::Later(ticket) => panic!("{ticket:?}: there is no set of keys to wait for"),
        }
    };
    // In a short run some are not chosen unchanged.
    corpus.inputs.iter().for_each(|token| check(token));
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
        |_, input| check(input),
    );
    println!("{accepted} accepted, {refused} refused");
}
