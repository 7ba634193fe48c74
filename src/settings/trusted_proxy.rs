//! Proxies whose word is believed.

use std::str::FromStr;

use ipnet::IpNet;

/// Proxies whose word on where a request comes from is believed: those of a network, or all peers of Unix sockets.
///
/// It is read from `10.0.0.0/8`, `2001:db8::/32`, a single address, or `unix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxy {
    network: Option<IpNet>,
}

impl TrustedProxy {
    /// The network, or `None` for the peers of Unix sockets.
    pub(crate) fn network(&self) -> Option<IpNet> {
        self.network
    }
}

impl FromStr for TrustedProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unix" {
            return Ok(Self { network: None });
        }
        let bits = if text.contains(':') { 128 } else { 32 };
        let network = if text.contains('/') { text.parse() } else { format!("{text}/{bits}").parse() };
        let error =
            |_| format!("{text:?} is no network; 10.0.0.0/8, 2001:db8::/32, a single address and unix are allowed");
        network.map(|network| Self { network: Some(network) }).map_err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_an_address_and_unix_are_read() {
        let network = |text: &str| text.parse::<TrustedProxy>().unwrap().network().map(|network| network.to_string());
        assert_eq!(network("10.0.0.0/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(network("127.0.0.1").as_deref(), Some("127.0.0.1/32"));
        assert_eq!(network("::1").as_deref(), Some("::1/128"));
        assert_eq!(network("unix"), None);
        for bad in ["", "10.0.0.0/33", "10.0.0", "localhost", "::1/129", "*"] {
            let error = bad.parse::<TrustedProxy>().unwrap_err();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }
}
