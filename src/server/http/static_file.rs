//! A file that lies in the program, in several content codings. Caches ask by its tag whether theirs is still good (RFC 9110
//! section 13.1.2).

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::header::IF_NONE_MATCH;
use http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};

use super::content_coding::ContentCoding;
use crate::net::Response;

/// The bytes of a file in each coding.
#[derive(Clone, Debug)]
pub(super) struct Copies {
    pub(super) identity: Bytes,
    pub(super) gzip: &'static [u8],
    pub(super) brotli: &'static [u8],
}

/// A file with its header fields. A response shares its bytes.
#[derive(Clone, Debug)]
pub(super) struct StaticFile {
    media_type: &'static str,
    identity: Variant,
    gzip: Variant,
    brotli: Variant,
    headers: Vec<(&'static str, String)>,
}

/// A file in one coding. Each has a tag of its own: a strong tag promises equal bytes.
#[derive(Clone, Debug)]
struct Variant {
    body: Bytes,
    /// Without its quotes.
    tag: String,
}

impl Variant {
    fn new(body: Bytes) -> Self {
        // Half of the hash is more than chance ever repeats.
        let tag = BASE64URL_NOPAD.encode(&Sha256::digest(&body)[..16]);
        Self { body, tag }
    }
}

impl StaticFile {
    pub(super) fn new(media_type: &'static str, copies: Copies) -> Self {
        Self {
            media_type,
            identity: Variant::new(copies.identity),
            gzip: Variant::new(Bytes::from_static(copies.gzip)),
            brotli: Variant::new(Bytes::from_static(copies.brotli)),
            headers: Vec::new(),
        }
    }

    /// Adds a header field.
    #[must_use]
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The answer to a request with these header fields.
    pub(super) fn response(&self, request: &HeaderMap) -> Response {
        let Some(coding) = ContentCoding::choose(request) else {
            let reason = "Accept-Encoding refuses all codings that there are: br, gzip and identity";
            return Response::text(StatusCode::NOT_ACCEPTABLE, reason).with("Vary", "Accept-Encoding");
        };
        let variant = match coding {
            ContentCoding::Identity => &self.identity,
            ContentCoding::Gzip => &self.gzip,
            ContentCoding::Brotli => &self.brotli,
        };
        let response = if is_known(request, &variant.tag) {
            Response::new(StatusCode::NOT_MODIFIED, self.media_type, Bytes::new())
        } else {
            let response = Response::new(StatusCode::OK, self.media_type, variant.body.clone());
            match coding {
                ContentCoding::Identity => response,
                coding => response.with("Content-Encoding", coding.name()),
            }
        };
        // A new version of the server has the file under the same address, so a cache asks each time; the answer is short.
        let response = response
            .with("Cache-Control", "no-cache")
            .with("ETag", format!("\"{}\"", variant.tag))
            .with("Vary", "Accept-Encoding");
        self.headers.iter().fold(response, |response, (name, value)| response.with(name, value.clone()))
    }
}

/// Whether a request says that it has the file with this tag.
fn is_known(request: &HeaderMap, tag: &str) -> bool {
    request.get_all(IF_NONE_MATCH).iter().any(|value| lists_tag(value.as_bytes(), tag.as_bytes()))
}

/// Whether a list of tags has this one, or is `*`. A weak tag counts as a strong one, as the comparison for caches demands. A tag may
/// contain commas.
fn lists_tag(list: &[u8], tag: &[u8]) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let mut rest = list;
    loop {
        let separators = rest.iter().take_while(|byte| b", \t".contains(byte)).count();
        rest = &rest[separators..];
        rest = rest.strip_prefix(b"W/").unwrap_or(rest);
        let Some(opened) = rest.strip_prefix(b"\"") else { return false };
        let Some(end) = opened.iter().position(|byte| *byte == b'"') else { return false };
        if &opened[..end] == tag {
            return true;
        }
        rest = &opened[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_tags_are_read_whole() {
        let check = |list: &str, expected: bool| assert_eq!(lists_tag(list.as_bytes(), b"abc"), expected, "{list:?}");
        for known in [
            "\"abc\"",
            "W/\"abc\"",
            "*",
            " * ",
            "\"x\", \"abc\"",
            "\"x\",W/\"abc\" , \"y\"",
            ",,\"abc\"",
            "\"a,b\", \"abc\"",
        ] {
            check(known, true);
        }
        for unknown in [
            "",
            "abc",
            "\"abc",
            "\"ab\"",
            "\"abcd\"",
            "\"x\"",
            "\"x, abc\"",
            "w/\"abc\"",
            "\"*\"",
            "*, \"x\"",
            "x \"abc\"",
        ] {
            check(unknown, false);
        }
    }

    #[test]
    fn the_tag_follows_from_the_bytes() {
        let tag = |bytes: &'static [u8]| Variant::new(Bytes::from_static(bytes)).tag;
        assert_eq!(tag(b"one"), tag(b"one"));
        assert_ne!(tag(b"one"), tag(b"two"));
    }
}
