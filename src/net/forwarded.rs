//! Where a request comes from behind proxies: `Forwarded` (RFC 7239) and `X-Forwarded-For`.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
use ipnet::IpNet;

use crate::settings::TrustedProxy;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) address: Option<SocketAddr>,
    pub(super) teller: Teller,
}

/// Who says where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Teller {
    /// Its connection: a peer that is no trusted proxy, or a trusted one that speaks for itself.
    Connection,
    /// A header of a trusted proxy.
    Header,
}

/// The proxies whose word is believed.
#[derive(Debug, Default)]
pub(super) struct TrustedProxies {
    networks: Vec<IpNet>,
    is_unix_trusted: bool,
}

impl TrustedProxies {
    pub(super) fn new(proxies: &[TrustedProxy]) -> Self {
        let networks = proxies.iter().filter_map(TrustedProxy::network).collect();
        Self { networks, is_unix_trusted: proxies.iter().any(|proxy| proxy.network().is_none()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.is_unix_trusted
    }

    /// Whether a peer is a trusted proxy; those of Unix sockets have no address.
    pub(super) fn contains(&self, peer: Option<IpAddr>) -> bool {
        let Some(address) = peer.map(|address| address.to_canonical()) else { return self.is_unix_trusted };
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Where a request of a peer comes from.
    ///
    /// Both headers name those who have passed it on, the last one at the right. Only what trusted proxies have added counts: the
    /// first address from the right that is no trusted proxy. What stands further left anybody may have written.
    pub(super) fn source(&self, peer: Option<SocketAddr>, headers: &HeaderMap) -> Source {
        let named = |address| Source { address, teller: Teller::Header };
        if !self.contains(peer.map(|peer| peer.ip())) {
            return Source { address: peer, teller: Teller::Connection };
        }
        let by_forwarded = self.walk(peer, headers, &FORWARDED, forwarded_for);
        let by_x_forwarded_for = self.walk(peer, headers, &X_FORWARDED_FOR, node);
        match (by_forwarded, by_x_forwarded_for) {
            (None, None) => Source { address: peer, teller: Teller::Connection },
            (Some(address), None) | (None, Some(address)) => named(address),
            // A proxy sets one of them, and may have passed the other one on as the client wrote it.
            (Some(address), Some(other)) if self.contradicts(address, other) => named(peer),
            (Some(address), Some(_)) => named(address),
        }
    }

    /// Whether both name somebody who is no trusted proxy, and not the same one.
    fn contradicts(&self, one: Option<SocketAddr>, other: Option<SocketAddr>) -> bool {
        let ip = |address: Option<SocketAddr>| address.map(|address| address.ip());
        ip(one) != ip(other) && !self.contains(ip(one)) && !self.contains(ip(other))
    }

    /// The address that one of the headers leads to, or `None` if there is no such header.
    fn walk(
        &self,
        peer: Option<SocketAddr>,
        headers: &HeaderMap,
        name: &HeaderName,
        read: fn(&str) -> Option<SocketAddr>,
    ) -> Option<Option<SocketAddr>> {
        if !headers.contains_key(name) {
            return None;
        }
        // No address has a comma. To look for quotes first would let the open quote of a client swallow what a proxy adds.
        let values = headers.get_all(name).iter().rev().map(HeaderValue::to_str);
        let elements = values.flat_map(|value| value.unwrap_or_default().rsplit(','));
        let mut address = peer;
        for element in elements {
            match read(element.trim_matches([' ', '\t'])) {
                Some(next) => address = Some(next),
                None => break,
            }
            if !self.contains(address.map(|address| address.ip())) {
                break;
            }
        }
        Some(address)
    }
}

/// The node that an element of `Forwarded` names as the one that the request came from.
fn forwarded_for(element: &str) -> Option<SocketAddr> {
    let mut found = None;
    let mut rest = element;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            // No address needs a backslash, and no name of a host.
            Some(quoted) => quoted.split_once('"').filter(|(value, _)| !value.contains('\\'))?,
            None => after.split_at(after.find(';').unwrap_or(after.len())),
        };
        let is_for = name.trim_matches([' ', '\t']).eq_ignore_ascii_case("for");
        if is_for && found.replace(value).is_some() {
            return None;
        }
        match after.trim_matches([' ', '\t']) {
            "" => break,
            after => rest = after.strip_prefix(';')?,
        }
    }
    node(found?)
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<SocketAddr> {
    let without_port = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = match without_port.parse() {
        Ok(address) => SocketAddr::new(address, 0),
        Err(_) => text.parse().ok()?,
    };
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(texts: &[&str]) -> TrustedProxies {
        let proxies: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
        TrustedProxies::new(&proxies)
    }

    /// With the proxies 10.0.0.0/8 and the peer 10.0.0.1, what header fields lead to.
    #[track_caller]
    fn check(fields: &[(&'static str, &'static str)], expected: &str) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let peer = "10.0.0.1:7".parse().ok();
        let source = proxies(&["10.0.0.0/8", "2001:db8::/32"]).source(peer, &headers);
        assert_eq!(source.address.map(|address| address.to_string()).as_deref(), Some(expected), "{fields:?}");
        let teller = if fields.is_empty() { Teller::Connection } else { Teller::Header };
        assert_eq!(source.teller, teller, "{fields:?}");
    }

    #[test]
    fn the_first_address_from_the_right_that_is_no_trusted_proxy_counts() {
        check(&[], "10.0.0.1:7");
        check(&[("x-forwarded-for", "192.0.2.1")], "192.0.2.1:0");
        check(&[("x-forwarded-for", "6.6.6.6, 192.0.2.1")], "192.0.2.1:0");
        check(&[("x-forwarded-for", "6.6.6.6,192.0.2.1 , 10.1.1.1,\t10.2.2.2")], "192.0.2.1:0");
        check(
            &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "10.1.1.1")],
            "192.0.2.1:0",
        );
        check(&[("x-forwarded-for", "10.3.3.3, 10.2.2.2")], "10.3.3.3:0");
        check(&[("x-forwarded-for", "2001:db9::1, 2001:db8::1")], "[2001:db9::1]:0");
        check(&[("x-forwarded-for", "192.0.2.1:4711")], "192.0.2.1:4711");
        check(&[("x-forwarded-for", "[2001:db9::1]:4711, ::ffff:10.0.0.9")], "[2001:db9::1]:4711");
    }

    #[test]
    fn forwarded_is_read_with_its_quotes_and_other_parameters() {
        for element in [
            "for=192.0.2.1",
            "For=\"192.0.2.1\"",
            "by=10.0.0.1;for=192.0.2.1;proto=https",
            "proto=https; host=\"a;b=c\"; FOR=192.0.2.1",
            "for=6.6.6.6, for=192.0.2.1",
            "for=\"6.6.6.6, for=192.0.2.1",
            "for=unknown, for=192.0.2.1;by=\"_x\", for=10.2.2.2",
        ] {
            check(&[("forwarded", element)], "192.0.2.1:0");
        }
        check(&[("forwarded", "for=\"192.0.2.1:4711\"")], "192.0.2.1:4711");
        check(&[("forwarded", "for=\"[2001:db9::1]:4711\"")], "[2001:db9::1]:4711");
        check(&[("forwarded", "for=\"[2001:db9::1]\"")], "[2001:db9::1]:0");
    }

    #[test]
    fn a_malformed_element_ends_the_walk_at_the_proxy_that_wrote_it() {
        for bad in
            ["", ",", "unknown", "192.0.2.1, nonsense", "192.0.2.1,", "192.0.2.256", "[192.0.2.1", "192.0.2.1:99999"]
        {
            check(&[("x-forwarded-for", bad)], "10.0.0.1:7");
        }
        check(&[("x-forwarded-for", "192.0.2.1, nonsense, 10.2.2.2")], "10.2.2.2:0");
        check(&[("x-forwarded-for", "nonsense"), ("x-forwarded-for", "10.2.2.2")], "10.2.2.2:0");
        for bad in [
            "",
            "for",
            "for=",
            "for=unknown",
            "for=_hidden",
            "by=192.0.2.1",
            "for=192.0.2.1;for=192.0.2.2",
            "for=\"192.0.2.1",
            "for=\"192.0.2.1\"x",
            "for=\"\\192.0.2.1\"",
            "192.0.2.1",
        ] {
            check(&[("forwarded", bad)], "10.0.0.1:7");
        }
    }

    #[test]
    fn forwarded_wins_unless_the_other_header_names_another_client() {
        check(&[("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=\"192.0.2.1:80\"")], "192.0.2.1:80");
        check(&[("x-forwarded-for", "10.2.2.2"), ("forwarded", "for=192.0.2.1")], "192.0.2.1:0");
        check(&[("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=6.6.6.6")], "10.0.0.1:7");
    }

    #[test]
    fn a_peer_that_is_no_trusted_proxy_speaks_for_itself_alone() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
        let check = |trusted: &[&str], peer: Option<&str>, expected: Option<&str>| {
            let address = |text: Option<&str>| text.map(|text| text.parse().unwrap());
            let source = proxies(trusted).source(address(peer), &headers);
            assert_eq!(source.address, address(expected), "{trusted:?} {peer:?}");
        };
        check(&[], Some("10.0.0.1:7"), Some("10.0.0.1:7"));
        check(&["10.0.0.2"], Some("10.0.0.1:7"), Some("10.0.0.1:7"));
        check(&["10.0.0.1"], Some("[::ffff:10.0.0.1]:7"), Some("192.0.2.1:0"));
        check(&["10.0.0.1"], None, None);
        check(&["unix"], None, Some("192.0.2.1:0"));
        check(&["unix"], Some("10.0.0.1:7"), Some("10.0.0.1:7"));
    }
}
