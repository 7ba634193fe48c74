//! The page and the JavaScript client that the server serves.

use bytes::Bytes;
use data_encoding::BASE64;
use http::StatusCode;
use sha2::{Digest, Sha256};

use crate::net::Response;
use crate::server::authenticator::TokenPolicy;

const PAGE: &str = include_str!("../../page/index.html");
const STYLE: &str = include_str!("../../page/dist/page.css");
const CLIENT: &str = include_str!("../../../client/js/dist/roomcast.js");
const PAGE_SCRIPT: &str = include_str!("../../page/dist/page.js");

/// The page, with style and scripts inlined.
pub(super) struct Page {
    html: Bytes,
    content_security_policy: String,
}

impl Page {
    /// The page of a server that asks for tokens, or of one that does not.
    pub(super) fn new(tokens: TokenPolicy) -> Self {
        let tokens = match tokens {
            TokenPolicy::Needed => "needed",
            TokenPolicy::NotNeeded => "not-needed",
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
        Self { html: html.into(), content_security_policy }
    }

    pub(super) fn response(&self) -> Response {
        Response::new(StatusCode::OK, "text/html; charset=utf-8", self.html.clone())
            .with("Content-Security-Policy", self.content_security_policy.clone())
            .with("Referrer-Policy", "no-referrer")
            .with("Cache-Control", "no-cache")
    }
}

/// The JavaScript client as a classic script, which lies in the program.
pub(super) fn client() -> Response {
    // Pages of other origins load it from here.
    Response::new(StatusCode::OK, "text/javascript; charset=utf-8", CLIENT.as_bytes())
        .with("Cache-Control", "no-cache")
        .with("Access-Control-Allow-Origin", "*")
        .with("Cross-Origin-Resource-Policy", "cross-origin")
}
