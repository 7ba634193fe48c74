//! The vectors of the RFCs, and every way in which a token is not accepted.

use std::time::Duration;

use super::*;
use crate::id::KeyNumber;
use crate::server::tokens::keys::{KeySet, NamedKey, PublicKey, Secret};
use crate::server::tokens::{jwks, pem};

const SECRET: &[u8] = b"a secret that is long enough for sha-256, 384 and 512: 64 bytes.";

fn now() -> Now {
    Now { uptime: Duration::ZERO, unix_ms: 1_000_000_000 }
}

fn secrets(secrets: Vec<Secret>) -> KeyRing {
    KeyRing::new(KeySet { secrets, public: Vec::new() })
}

fn public_keys(public: Vec<NamedKey>) -> KeyRing {
    KeyRing::new(KeySet { secrets: Vec::new(), public })
}

fn keys() -> KeyRing {
    secrets(vec![Secret::read(SECRET).unwrap()])
}

fn encode(part: &str) -> String {
    BASE64URL_NOPAD.encode(part.as_bytes())
}

fn signed(header: &str, claims: &str, hash: ring::hmac::Algorithm, secret: &[u8]) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let tag = ring::hmac::sign(&ring::hmac::Key::new(hash, secret), message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

fn hs256(header: &str, claims: &str) -> String {
    signed(header, claims, ring::hmac::HMAC_SHA256, SECRET)
}

const HEADER: &str = r#"{"alg":"HS256"}"#;
const CLAIMS: &str = r#"{"sub":"ann","exp":2000000}"#;

#[track_caller]
fn check(token: &str, keys: &KeyRing, expected: Result<&str, &str>) {
    let found = verify(now(), token, keys, &TokenConfig::default());
    let found = found.map(|identity| identity.user.unwrap().to_string());
    let found = found.map_err(|error| error.sentence());
    let sentence = |reason: &str| format!("the token is not accepted: {reason}");
    assert_eq!(found, expected.map(str::to_owned).map_err(sentence));
}

/// Message and signature of a token whose claims are not ours.
fn signature_of(token: &str) -> (&str, Vec<u8>) {
    let (message, signature) = token.rsplit_once('.').unwrap();
    (message, BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap())
}

/// The token is signed with the key, and no longer if any bit of the signature or any character of the message is another one.
#[track_caller]
fn check_vector(algorithm: Algorithm, keys: &KeyRing, token: &str) {
    let (message, signature) = signature_of(token);
    assert_eq!(keys.verify(algorithm, None, message.as_bytes(), &signature), Ok(KeyNumber::FIRST));
    for at in 0..signature.len() {
        let mut forged = signature.clone();
        forged[at] ^= 1;
        assert_eq!(keys.verify(algorithm, None, message.as_bytes(), &forged), Err(KeyError::Signature));
    }
    let other = format!("{message}A");
    assert_eq!(keys.verify(algorithm, None, other.as_bytes(), &signature), Err(KeyError::Signature));
    assert_eq!(keys.verify(algorithm, None, message.as_bytes(), b""), Err(KeyError::Signature));
}

fn key_set(key: &str) -> KeyRing {
    public_keys(jwks::read_keys(format!(r#"{{"keys":[{key}]}}"#).as_bytes()).unwrap())
}

#[test]
fn hs256_as_in_rfc_7515_appendix_a_1() {
    let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let secret = Secret::read(&BASE64URL_NOPAD.decode(key.as_bytes()).unwrap()).unwrap();
    let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                 eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                 dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    check_vector(Algorithm::Hs256, &secrets(vec![secret]), token);
}

#[test]
fn es256_as_in_rfc_7515_appendix_a_3() {
    let key = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                  "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    let token = "eyJhbGciOiJFUzI1NiJ9.\
                 eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                 DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    check_vector(Algorithm::Es256, &key_set(key), token);
}

#[test]
fn eddsa_as_in_rfc_8037_appendix_a_4() {
    let key = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
                 hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    check_vector(Algorithm::EdDsa, &key_set(key), token);
}

/// Key and token were made by OpenSSL.
#[test]
fn rs256_by_a_key_in_pem() {
    let key = pem::read_keys(include_bytes!("rsa.pem")).unwrap().remove(0);
    assert!(matches!(key, PublicKey::Rsa { .. }));
    let keys = public_keys(vec![NamedKey { kid: None, key }]);
    let token = include_str!("rs256.jwt").trim();
    check_vector(Algorithm::Rs256, &keys, token);
    check(token, &keys, Ok("alice"));
}

#[test]
fn each_hash_needs_a_secret_of_its_length() {
    for (hash, name, bytes) in [
        (ring::hmac::HMAC_SHA256, "HS256", 32),
        (ring::hmac::HMAC_SHA384, "HS384", 48),
        (ring::hmac::HMAC_SHA512, "HS512", 64),
    ] {
        let token = |secret| signed(&format!(r#"{{"alg":"{name}"}}"#), CLAIMS, hash, secret);
        let keys = |secret| secrets(vec![Secret::read(secret).unwrap()]);
        check(&token(&SECRET[..bytes]), &keys(&SECRET[..bytes]), Ok("ann"));
        if bytes > 32 {
            let short = &SECRET[..bytes - 1];
            check(&token(short), &keys(short), Err(&format!("no key is for {name}")));
        }
    }
    assert!(Secret::read(&SECRET[..31]).is_err());
    assert!(Secret::read(&[&SECRET[..31], b"\n"].concat()).is_err(), "a line break is no part of the secret");
}

#[test]
fn a_line_break_at_the_end_of_a_secret_does_not_count() {
    for file in [[SECRET, b"\n"].concat(), [SECRET, b"\r\n"].concat()] {
        let keys = secrets(vec![Secret::read(&file).unwrap()]);
        check(&hs256(HEADER, CLAIMS), &keys, Ok("ann"));
    }
}

#[test]
fn any_of_several_keys_will_do() {
    let other = Secret::read(&[b'x'; 40]).unwrap();
    let keys = secrets(vec![other, Secret::read(SECRET).unwrap()]);
    check(&hs256(HEADER, CLAIMS), &keys, Ok("ann"));
    check(&hs256(r#"{"alg":"HS256","kid":"any","typ":"JWT"}"#, CLAIMS), &keys, Ok("ann"));
}

#[test]
fn no_signature_is_no_token() {
    let none = "its alg is none of HS256, HS384, HS512, RS256, ES256 and EdDSA";
    for name in ["none", "None", "NONE", "nOnE", "", "hs256", "HS1", "RS512", "PS256"] {
        let header = format!(r#"{{"alg":"{name}"}}"#);
        check(&format!("{}.{}.", encode(&header), encode(CLAIMS)), &keys(), Err(none));
        check(&hs256(&header, CLAIMS), &keys(), Err(none));
    }
    check(&format!("{}.{}.", encode(HEADER), encode(CLAIMS)), &keys(), Err("its signature is wrong"));
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let pem = include_bytes!("rsa.pem");
    let key = pem::read_keys(pem).unwrap().remove(0);
    let keys = public_keys(vec![NamedKey { kid: None, key }]);
    // What anybody who has the public key can make: its file taken for the secret of HS256.
    for secret in [&pem[..], &pem[..pem.len() - 1]] {
        check(&signed(HEADER, CLAIMS, ring::hmac::HMAC_SHA256, secret), &keys, Err("no key is for HS256"));
    }
    // The other way round: a secret verifies nothing but HS256, HS384 and HS512.
    check(&hs256(r#"{"alg":"RS256"}"#, CLAIMS), &self::keys(), Err("no key is for RS256"));
    check(&hs256(r#"{"alg":"ES256"}"#, CLAIMS), &keys, Err("no key is for ES256"));
    check(&hs256(r#"{"alg":"RS256"}"#, CLAIMS), &keys, Err("its signature is wrong"));
}

#[test]
fn a_key_with_a_name_is_for_tokens_with_that_name() {
    let key = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"one"}"#;
    let keys = key_set(key);
    let token = |header: &str| format!("{}.{}.{}", encode(header), encode(CLAIMS), "A".repeat(86));
    let error = |header: &str| verify(now(), &token(header), &keys, &TokenConfig::default()).unwrap_err();
    assert_eq!(error(r#"{"alg":"EdDSA","kid":"two"}"#), TokenError::UnknownKid);
    assert_eq!(error(r#"{"alg":"EdDSA","kid":"one"}"#), invalid("its signature is wrong"));
    assert_eq!(error(r#"{"alg":"EdDSA"}"#), invalid("its signature is wrong"));
    assert_eq!(error(r#"{"alg":"ES256","kid":"one"}"#), TokenError::NoKey(Algorithm::Es256));
}

#[test]
fn what_is_no_token_is_told_apart() {
    let parts = "it is not three parts of base64url with dots between them";
    let good = hs256(HEADER, CLAIMS);
    check(&good, &keys(), Ok("ann"));
    let [header, claims, signature] = [0, 1, 2].map(|at| good.split('.').nth(at).unwrap());
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned() + "é",
        format!("{header}.{claims}"),
        format!("{good}.{signature}"),
        format!("{header}.{claims}.{signature}="),
        format!("{header}.{claims}. {signature}"),
        format!("{header}.{claims}.{}", signature.replace(['-', '_'], "+") + "+"),
    ] {
        check(&bad, &keys(), Err(parts));
    }
    for header in ["", "[]", "{}", r#"["HS256"]"#, r#"{"alg":7}"#, r#"{"alg":"HS256","kid":null}"#] {
        check(&hs256(header, CLAIMS), &keys(), Err("its header cannot be read"));
    }
    check(&hs256(r#"{"alg":"none","alg":"HS256"}"#, CLAIMS), &keys(), Err("its header cannot be read"));
    let extensions = "its header has extensions (crit); none is known";
    for crit in ["null", "[]", r#"["exp"]"#] {
        check(&hs256(&format!(r#"{{"alg":"HS256","crit":{crit}}}"#), CLAIMS), &keys(), Err(extensions));
    }
}

#[test]
fn a_token_has_4_kib_at_most() {
    let of = |padding: usize| hs256(HEADER, &format!(r#"{{"sub":"ann","exp":2000000,"x":"{}"}}"#, "x".repeat(padding)));
    let token = (2900..).map(of).find(|token| token.len() >= TOKEN_BYTES_MAX).unwrap();
    assert_eq!(token.len(), TOKEN_BYTES_MAX);
    check(&token, &keys(), Ok("ann"));
    let longer = (2900..).map(of).find(|token| token.len() > TOKEN_BYTES_MAX).unwrap();
    check(&longer, &keys(), Err(&format!("it has {} bytes; 4096 are allowed", longer.len())));
}
