//! The page and the JavaScript client that the server serves.

use bytes::Bytes;
use data_encoding::BASE64;
use sha2::{Digest, Sha256};

use super::static_file::{Copies, StaticFile};
use crate::server::authenticator::TokenPolicy;

const PAGE: &str = include_str!("../../page/index.html");
const STYLE: &str = include_str!("../../page/dist/page.css");
const CLIENT: &str = include_str!("../../../client/js/dist/roomcast.js");
const PAGE_SCRIPT: &str = include_str!("../../page/dist/page.js");

/// The page of a server that asks for tokens, or of one that does not, with style and scripts inlined.
pub(super) fn page(tokens: TokenPolicy) -> StaticFile {
    // Compressed when the page is built, so that neither the start nor a request has to wait for it.
    let (tokens, gzip, brotli): (_, &[u8], &[u8]) = match tokens {
        TokenPolicy::Needed => (
            "needed",
            include_bytes!("../../page/dist/index-tokens.html.gz"),
            include_bytes!("../../page/dist/index-tokens.html.br"),
        ),
        TokenPolicy::NotNeeded => (
            "not-needed",
            include_bytes!("../../page/dist/index.html.gz"),
            include_bytes!("../../page/dist/index.html.br"),
        ),
    };
    let html = PAGE
        .replace("/*TOKENS*/", tokens)
        .replace("/*STYLE*/", STYLE)
        .replace("/*CLIENT*/", CLIENT)
        .replace("/*PAGE*/", PAGE_SCRIPT);
    let hash = |text: &str| format!("'sha256-{}'", BASE64.encode(&Sha256::digest(text)));
    // The browser runs only the inlined scripts. Even a hole in the page's own code does not turn a
    // message into a script.
    let content_security_policy = format!(
        "default-src 'none'; script-src {} {}; style-src {}; connect-src 'self' ws: wss:; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(CLIENT),
        hash(PAGE_SCRIPT),
        hash(STYLE)
    );
    StaticFile::new("text/html; charset=utf-8", Copies { identity: html.into(), gzip, brotli })
        .with("Content-Security-Policy", content_security_policy)
        .with("Referrer-Policy", "no-referrer")
}

/// The JavaScript client as a classic script.
pub(super) fn client() -> StaticFile {
    let copies = Copies {
        identity: Bytes::from_static(CLIENT.as_bytes()),
        gzip: include_bytes!("../../page/dist/roomcast.js.gz"),
        brotli: include_bytes!("../../page/dist/roomcast.js.br"),
    };
    // Pages of other origins load it from here.
    StaticFile::new("text/javascript; charset=utf-8", copies)
        .with("Access-Control-Allow-Origin", "*")
        .with("Cross-Origin-Resource-Policy", "cross-origin")
}
