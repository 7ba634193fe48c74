//! Makes tokens of every kind, good and forged, with code of the test's own.

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Connect, Raw, Response, Server, upgrade_request};

/// Long enough for HS512.
pub const SECRET: &str = "a secret of the tests, which is long enough for the longest hash";

/// A moment so many seconds from now.
pub fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    now.cast_signed() + seconds
}

/// The claims of a token of alice that is good for an hour, with others added or in their place.
pub fn claims(others: &Value) -> Value {
    let mut claims = json!({"sub": "alice", "exp": in_seconds(3600)});
    for (name, value) in others.as_object().expect("claims are an object") {
        claims[name] = value.clone();
    }
    claims
}

/// Header and claims of a token, still without a signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let [header, claims] = [header, claims].map(|part| BASE64URL_NOPAD.encode(part.to_string().as_bytes()));
    format!("{header}.{claims}")
}

fn with_signature(message: &str, signature: &[u8]) -> String {
    format!("{message}.{}", BASE64URL_NOPAD.encode(signature))
}

/// A token that is signed with a secret.
pub fn hmac_token(hash: hmac::Algorithm, secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = unsigned(header, claims);
    let tag = hmac::sign(&hmac::Key::new(hash, secret), message.as_bytes());
    with_signature(&message, tag.as_ref())
}

/// A token that is signed with [`SECRET`] by HS256.
pub fn hs256(claims: &Value) -> String {
    hmac_token(hmac::HMAC_SHA256, SECRET.as_bytes(), &json!({"alg": "HS256", "typ": "JWT"}), claims)
}

/// A token of alice that is good for an hour.
pub fn good() -> String {
    hs256(&claims(&json!({})))
}

/// The issuer of tokens that are signed by EdDSA; each number has a key of its own.
pub struct EdIssuer(Ed25519KeyPair);

impl EdIssuer {
    pub fn new(number: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[number; 32]).expect("a seed of 32 bytes"))
    }

    pub fn token(&self, header: &Value, claims: &Value) -> String {
        let mut header = header.clone();
        header["alg"] = json!("EdDSA");
        let message = unsigned(&header, claims);
        with_signature(&message, self.0.sign(message.as_bytes()).as_ref())
    }

    pub fn public_pem(&self) -> String {
        public_pem(b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", self.0.public_key().as_ref())
    }

    /// The public key in a JSON Web Key Set.
    pub fn jwk(&self, kid: &str) -> Value {
        let x = BASE64URL_NOPAD.encode(self.0.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig"})
    }
}

/// A key of P-256 in PEM, and a token that it has signed.
pub fn es256(claims: &Value) -> (String, String) {
    let random = SystemRandom::new();
    let private = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, private.as_ref(), &random).expect("a key");
    let message = unsigned(&json!({"alg": "ES256"}), claims);
    let token = with_signature(&message, key.sign(&random, message.as_bytes()).expect("a signature").as_ref());
    let prefix =
        b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
    (public_pem(prefix, key.public_key().as_ref()), token)
}

fn public_pem(prefix: &[u8], key: &[u8]) -> String {
    let der = BASE64.encode(&[prefix, key].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
}

/// A folder with the files of a server that takes tokens.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and returns its path as a flag takes it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        // As operators do it: whoever reads at this moment finds the old file or the new one.
        let fresh = self.path(&format!("{name}.new"));
        std::fs::write(&fresh, content).and_then(|()| std::fs::rename(&fresh, &path)).expect("write the file");
        text(&path)
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// A server that takes tokens signed with [`SECRET`], and the folder with its files.
pub fn server_with_secret(flags: &[&str]) -> (Server, Files) {
    let files = Files::new();
    let path = files.write("secret", format!("{SECRET}\n"));
    let server = Server::spawn(&[&["--token-secret-file", &path], flags].concat());
    (server, files)
}

/// A connection that brings a token as browsers do.
pub fn with_token(server: &Server, token: &str) -> Connect {
    Connect::to(server.address()).protocol("roomcast.v1").protocol(&format!("roomcast.token.{token}"))
}

/// The answer to a handshake that brings a token, or none, and is refused.
pub fn refused(server: &Server, token: Option<&str>) -> Response {
    let authorization = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = authorization.iter().map(|value| ("Authorization", value.as_str())).collect();
    let mut raw = Raw::connect(server.address());
    raw.send(upgrade_request("/ws", &headers).as_bytes());
    raw.response()
}
