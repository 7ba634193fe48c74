//! Which Redis, and how to log in: what the URL says.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use redis::{ConnectionAddr, IntoConnectionInfo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::resolver::{Place, UnixPlace};
use crate::error::Error;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Node {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Who we are to a Redis, and how to recognise it.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: i64,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// See the [module](self). It is shown without the password.
pub(super) struct Target {
    pub(super) place: Arc<dyn Place>,
    pub(super) login: Arc<Login>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

impl Target {
    /// Reads `redis://[user][:password@]host[:port][/db]`, `rediss://` for TLS, `unix:///path`. `ca` is a file of
    /// certificates to trust instead of the system's.
    ///
    /// # Errors
    /// [`Error::Config`]; it does not repeat the URL, which may have a password in it.
    pub(super) fn parse(url: &str, ca: Option<&Path>) -> Result<Self, Error> {
        let refuse = |words: String| Error::Config(format!("redis: {words}"));
        let allowed = "redis://[[user]:password@]host[:port][/db], rediss://… for TLS and unix:///path are allowed";
        let info = url.into_connection_info().map_err(|error| refuse(format!("{error}; {allowed}")))?;
        let mut tls = None;
        let place: Arc<dyn Place> = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Arc::new(Node { host: host.clone(), port: *port }),
            ConnectionAddr::TcpTls { host, port, insecure: false, .. } => {
                ServerName::try_from(host.as_str()).map_err(|error| refuse(error.to_string()))?;
                tls = Some(Arc::new(client_config(ca).map_err(refuse)?));
                Arc::new(Node { host: host.clone(), port: *port })
            }
            ConnectionAddr::Unix(path) => Arc::new(UnixPlace(path.clone())),
            _ => {
                return Err(refuse("TLS without a check of the certificate; name the one to trust instead".to_owned()));
            }
        };
        let settings = info.redis_settings();
        let login = Login {
            username: settings.username().map(str::to_owned),
            password: settings.password().map(str::to_owned),
            database: settings.db(),
            tls,
        };
        Ok(Self { place, login: Arc::new(login) })
    }
}

fn client_config(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        let read = |error: &dyn fmt::Display| format!("cannot read certificates from {}: {error}", path.display());
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| read(&error))? {
            roots.add(certificate.map_err(|error| read(&error))?).map_err(|error| read(&error))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err("no certificates to trust were found".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_passwords_not_shown() {
        for (url, shown, username, password, database) in [
            ("redis://localhost", "localhost:6379", None, None, 0),
            ("redis://:secret@[::1]:7000/3", "[::1]:7000", None, Some("secret"), 3),
            ("redis://ann:sec%40ret@redis.example", "redis.example:6379", Some("ann"), Some("sec@ret"), 0),
            ("unix:///run/redis.sock?db=2", "/run/redis.sock", None, None, 2),
        ] {
            let target = Target::parse(url, None).unwrap();
            assert_eq!(target.to_string(), shown);
            let Login { username: user, password: word, database: number, .. } = &*target.login;
            let found = (user.as_deref(), word.as_deref(), *number);
            assert_eq!(found, (username, password, database), "{url}");
        }
        for bad in ["", "localhost:6379", "http://localhost", "redis://:secret@host:port", "rediss://host/#insecure"] {
            let error = Target::parse(bad, None).map(|_| ()).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
