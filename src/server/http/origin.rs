//! The origins whose pages may connect. A browser names the origin of its page (RFC 6454); other
//! programs need not.

use std::collections::HashSet;

use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};

use crate::error::Error;
use crate::net::Response;

/// How many refused origins are remembered. The log has one warning for each, and a flood of origins
/// does not fill it.
const WARNED_MAX: usize = 64;

/// Checks the origins of handshakes, and warns of those that are refused.
pub(super) struct Origins {
    policy: OriginPolicy,
    warned: HashSet<String>,
}

impl Origins {
    pub(super) fn new(allowed: &[String]) -> Result<Self, Error> {
        let policy = OriginPolicy::new(allowed).map_err(Error::Config)?;
        Ok(Self { policy, warned: HashSet::new() })
    }

    /// Checks the `Origin` of a request.
    ///
    /// # Errors
    /// The answer that says how to allow it.
    pub(super) fn check(&mut self, headers: &HeaderMap) -> Result<(), Response> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("(not text)"));
        let (origin, host) = (text("Origin"), text("Host"));
        if self.policy.allows(origin, host) {
            return Ok(());
        }
        let origin = origin.unwrap_or_default();
        // An opaque origin has no name by which it could be allowed.
        let flag = match origin.contains("://") {
            true => format!("--allow-origin {origin}"),
            false => "--allow-origin '*'".to_owned(),
        };
        let reason = format!("pages of origin {origin} may not connect; to allow them start the server with {flag}");
        if self.warned.len() < WARNED_MAX && self.warned.insert(origin.to_owned()) {
            log::warn!("{reason}");
        }
        Err(Response::text(StatusCode::FORBIDDEN, &reason))
    }
}

/// The origins that are allowed besides the server's own host.
#[derive(Clone, Debug, Default)]
struct OriginPolicy {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    /// Scheme, host, port; `*.` in front of the host stands for one or more labels.
    Origin {
        scheme: String,
        host: String,
        is_wildcard: bool,
        port: Option<u16>,
    },
}

impl OriginPolicy {
    /// Reads patterns: `https://chat.example`, `https://*.example:8443`, `*`.
    ///
    /// # Errors
    /// A sentence that names the pattern that cannot be read, and shows valid ones.
    fn new(patterns: &[String]) -> Result<Self, String> {
        let patterns = patterns.iter().map(|pattern| Pattern::parse(pattern)).collect::<Result<_, _>>()?;
        Ok(Self { patterns })
    }

    /// Whether a request with this `Origin` header may connect to the host of this `Host` header.
    fn allows(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if self.patterns.contains(&Pattern::Any) {
            return true;
        }
        let Some(Pattern::Origin { scheme, host: origin_host, is_wildcard: false, port }) = Pattern::parse(origin).ok()
        else {
            return false;
        };
        is_same_host(&scheme, &origin_host, port, host)
            || self.patterns.iter().any(|pattern| pattern.matches(&scheme, &origin_host, port))
    }
}

/// The scheme is not compared: behind a proxy that ends TLS the server cannot know it.
fn is_same_host(scheme: &str, origin_host: &str, port: Option<u16>, host: Option<&str>) -> bool {
    let Some(host) = host.and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let host_port = host.port_u16().or(default_port(scheme));
    host.host().eq_ignore_ascii_case(origin_host) && host_port == port.or(default_port(scheme))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let error = || {
            format!(
                "origin {text:?} is not one; https://chat.example, https://*.example, http://localhost:3000 and * are"
            )
        };
        if text == "*" {
            return Ok(Self::Any);
        }
        let (is_wildcard, plain) = match text.split_once("://*.") {
            Some((scheme, rest)) => (true, format!("{scheme}://{rest}")),
            None => (false, text.to_owned()),
        };
        let uri: Uri = plain.parse().map_err(|_| error())?;
        let is_bare = matches!(uri.path(), "" | "/") && !plain.ends_with('/') && uri.query().is_none();
        let (Some(scheme), Some(host), true) = (uri.scheme_str(), uri.host(), is_bare) else { return Err(error()) };
        if host.is_empty() || host.contains('*') || plain.contains('@') {
            return Err(error());
        }
        Ok(Self::Origin {
            scheme: scheme.to_ascii_lowercase(),
            host: host.to_ascii_lowercase(),
            is_wildcard,
            port: uri.port_u16(),
        })
    }

    fn matches(&self, origin_scheme: &str, origin_host: &str, origin_port: Option<u16>) -> bool {
        let Pattern::Origin { scheme, host, is_wildcard, port } = self else { return true };
        let host_matches = match is_wildcard {
            false => origin_host == host,
            true => origin_host.strip_suffix(host.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        };
        let port_of = |port: Option<u16>| port.or(default_port(scheme));
        scheme == origin_scheme && host_matches && port_of(*port) == port_of(origin_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_whole() {
        let check = |patterns: &[&str], origin: &str, host: &str, expected: bool| {
            let patterns: Vec<_> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            let policy = OriginPolicy::new(&patterns).unwrap();
            let found = policy.allows(Some(origin), Some(host));
            assert_eq!(found, expected, "{patterns:?} {origin} {host}");
        };
        check(&[], "http://localhost:8080", "localhost:8080", true);
        check(&[], "http://localhost", "localhost:8080", false);
        check(&[], "https://chat.example", "chat.example", true);
        check(&[], "https://chat.example", "chat.example:443", true);
        check(&[], "http://[::1]:8080", "[::1]:8080", true);
        check(&[], "http://evil.example", "localhost:8080", false);
        check(&[], "null", "localhost:8080", false);
        check(&[], "http://localhost:8080@evil.example", "localhost:8080", false);
        check(&["https://chat.example"], "https://chat.example", "x", true);
        check(&["https://chat.example"], "https://CHAT.example:443", "x", true);
        check(&["https://chat.example"], "http://chat.example", "x", false);
        check(&["https://chat.example"], "https://chat.example.evil", "x", false);
        check(&["https://*.example"], "https://a.b.example", "x", true);
        check(&["https://*.example"], "https://example", "x", false);
        check(&["https://*.example"], "https://.example", "x", false);
        check(&["https://*.example"], "https://notexample", "x", false);
        check(&["https://*.example:8443"], "https://a.example", "x", false);
        check(&["*"], "null", "x", true);
    }

    #[test]
    fn an_absent_origin_is_allowed() {
        assert!(OriginPolicy::default().allows(None, None));
    }

    #[test]
    fn patterns_that_are_none_are_refused() {
        for bad in ["", "chat.example", "https://", "https://chat.example/", "https://chat.example/x", "https://*"] {
            assert!(OriginPolicy::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
