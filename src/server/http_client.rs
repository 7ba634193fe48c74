//! What all requests that the server sends by HTTP have in common. They wait, so they belong on threads of their own.

use std::sync::Arc;

use http::Uri;
use ureq::config::{Config, ConfigBuilder};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::Duration;
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

/// Reads a URL of HTTP or HTTPS.
///
/// # Errors
/// Why it is none. The URL is not repeated, since it may have a password.
pub(super) fn read_url(url: &str) -> Result<Uri, String> {
    let parsed: Uri = url.parse().map_err(|error| format!("the URL cannot be read: {error}"))?;
    let is_http = ["https://", "http://"].iter().any(|start| url.starts_with(start)) && parsed.host().is_some();
    if is_http { Ok(parsed) } else { Err("a URL that begins with https:// or http:// is needed".to_owned()) }
}

/// Whether everybody on the way can read and change what is sent.
pub(super) fn is_plain(url: &Uri) -> bool {
    let is_local = url.host().is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host));
    url.scheme_str() == Some("http") && !is_local
}

/// The settings of a client that trusts the certificates of the system.
pub(super) fn settings() -> ConfigBuilder<AgentScope> {
    let roots = rustls_native_certs::load_native_certs().certs;
    let roots: RootCerts = roots.iter().map(|root| Certificate::from_der(root).to_owned()).into();
    let tls = TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    Agent::config_builder().tls_config(tls).user_agent(concat!("roomcast/", env!("CARGO_PKG_VERSION")))
}

/// A client with these settings.
pub(super) fn agent(settings: ConfigBuilder<AgentScope>) -> Agent {
    Agent::with_parts(settings.build(), DefaultConnector::default(), SameThreadResolver::default())
}

/// Looks names up on the thread that asks.
///
/// The resolver of ureq starts a thread for each look-up that has a time limit, and panics if the system has none left. This
/// one takes as long as the resolver of the system does.
#[derive(Debug, Default)]
struct SameThreadResolver(DefaultResolver);

impl Resolver for SameThreadResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        self.0.resolve(uri, config, NextTimeout { after: Duration::NotHappening, ..timeout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_one_of_http() {
        for (good, expected) in [
            ("https://id.example/keys", false),
            ("http://127.0.0.1:8080/jwks?x=1", false),
            ("http://[::1]/", false),
            ("http://ann:secret@id.example/keys", true),
        ] {
            assert_eq!(is_plain(&read_url(good).unwrap()), expected, "{good}");
        }
        for bad in ["", "id.example/keys", "/keys", "file:///etc/passwd", "ftp://ann:secret@id.example/", "https://"] {
            assert!(!read_url(bad).unwrap_err().contains("secret"), "{bad}");
        }
    }
}
