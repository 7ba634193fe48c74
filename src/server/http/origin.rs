//! The origins whose pages may connect. A browser names the origin of its page (RFC 6454); other
//! programs need not.

use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};

use crate::error::Error;
use crate::net::Response;

/// How many refused origins are remembered. The log has one warning for each, and a flood of origins
/// does not fill it.
const WARNED_MAX: usize = 64;

/// The longest origin that is named: a scheme, a name of 253 bytes and a port.
const NAMED_BYTES_MAX: usize = 300;

/// How much is shown of what is no origin.
const SHOWN_CHARS_MAX: usize = 100;

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

    /// Whether a request comes from a page that may connect, or from no page.
    pub(super) fn allow(&self, headers: &HeaderMap) -> bool {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("(not text)"));
        self.policy.allows(text("Origin"), text("Host"))
    }

    /// Checks the `Origin` of a request.
    ///
    /// # Errors
    /// The answer that says how to allow it.
    pub(super) fn check(&mut self, headers: &HeaderMap) -> Result<(), Response> {
        if self.allow(headers) {
            return Ok(());
        }
        let origin = headers.get("Origin").map(|value| value.to_str().unwrap_or("(not text)"));
        let reason = refusal(origin.unwrap_or_default());
        if self.warned.len() < WARNED_MAX && self.warned.insert(reason.clone()) {
            log::warn!("{reason}");
        }
        Err(Response::text(StatusCode::FORBIDDEN, &reason))
    }
}

/// Why an origin may not connect. Its words come from outside: what is proposed to an operator is made of what was understood, and
/// everything else stands in quotes, in one line.
fn refusal(origin: &str) -> String {
    match Pattern::parse(origin) {
        Ok(named @ Pattern::Origin { is_wildcard: false, .. }) if origin.len() <= NAMED_BYTES_MAX => {
            format!("pages of origin {named} may not connect; to allow them start the server with --allow-origin {named}")
        }
        _ if origin == "null" => {
            "pages of origin null may not connect: files, and frames in a sandbox, have no origin to be allowed by; open the \
             page from a web server, or let all pages connect with --allow-origin '*'"
                .to_owned()
        }
        _ => {
            let shown: String = origin.chars().take(SHOWN_CHARS_MAX).collect();
            let ellipsis = if shown.len() < origin.len() { "…" } else { "" };
            format!("pages of origin {shown:?}{ellipsis} may not connect: it is not an origin as https://chat.example is")
        }
    }
}

/// The origins that are allowed besides the server's own host, as far as that is an IP address or `localhost`.
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
        let read = |text: &String| match (Pattern::parse(text), text.strip_suffix('/').map(Pattern::parse)) {
            // As it is copied from an address bar.
            (Err(_), Some(Ok(bare))) => Err(format!("origin {text:?} ends with a slash; write {bare}")),
            (read, _) => read,
        };
        Ok(Self { patterns: patterns.iter().map(read).collect::<Result<_, _>>()? })
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

/// Whether a page came from the host that it connects to. The scheme is not compared: behind a proxy that ends TLS the server
/// cannot know it.
///
/// An agreeing name proves nothing: whoever owns a name can point it at this server once the page is loaded (DNS rebinding). Nobody
/// else can point an IP address or `localhost` anywhere.
fn is_same_host(scheme: &str, origin_host: &str, port: Option<u16>, host: Option<&str>) -> bool {
    if !is_beyond_dns(origin_host) {
        return false;
    }
    let Some(host) = host.and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let host_port = host.port_u16().or(default_port(scheme));
    host.host().eq_ignore_ascii_case(origin_host) && host_port == port.or(default_port(scheme))
}

/// Whether a host, in lower case, means the same machine to everybody's browser, whatever DNS says.
fn is_beyond_dns(host: &str) -> bool {
    host == "localhost" || host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok()
}

/// Whether it is a name, or an IP address. A URI allows more (RFC 3986 section 3.2.2), down to quotes and semicolons, and no
/// host is called so.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Origin { scheme, host, is_wildcard, port } = self else { return f.write_str("*") };
        write!(f, "{scheme}://{}{host}", if *is_wildcard { "*." } else { "" })?;
        port.map_or(Ok(()), |port| write!(f, ":{port}"))
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
        if !is_host(host) || plain.contains('@') {
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
        check(&[], "http://LocalHost:8080", "localhost:8080", true);
        check(&[], "https://127.0.0.1", "127.0.0.1:443", true);
        check(&[], "http://127.0.0.1", "127.0.0.1:443", false);
        check(&[], "https://chat.example", "chat.example", false);
        check(&[], "http://localhost.example", "localhost.example", false);
        check(&[], "http://1.2.3", "1.2.3", false);
        check(&["https://chat.example"], "http://chat.example", "chat.example", false);
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
