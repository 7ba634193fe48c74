//! The URL of a Redis: where it is and how to log in.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::cluster::{Cluster, Topology};
use super::connection::{HostPort, Login, Sentinels, UnixPath};
use crate::error::Error;

/// It is displayed without the password.
pub(crate) struct RedisUrl {
    pub(crate) topology: Topology,
    pub(crate) login: Arc<Login>,
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.topology {
            Topology::One(endpoint) => endpoint.fmt(f),
            Topology::Cluster(cluster) => cluster.fmt(f),
        }
    }
}

impl RedisUrl {
    /// Parses `redis://[user][:password@]host[:port][/db]`, `rediss://` for TLS and
    /// `unix:///path`. With `+sentinel` after the scheme it takes several hosts and the name of a
    /// master, with `+cluster` several hosts. `ca` is a file of certificates that replaces those
    /// of the system.
    ///
    /// # Errors
    /// [`Error::Config`]. The message does not repeat the URL, which may contain a password.
    pub(crate) fn parse(url: &str, ca: Option<&Path>) -> Result<Self, Error> {
        let result = if let Some((scheme, rest)) = url.split_once("+sentinel://") {
            Self::parse_sentinels(scheme, rest, ca)
        } else if let Some((scheme, rest)) = url.split_once("+cluster://") {
            Self::parse_cluster(scheme, rest, ca)
        } else {
            Self::parse_one(url, ca)
        };
        result.map_err(|reason| Error::Config(format!("redis: {reason}")))
    }

    fn parse_one(url: &str, ca: Option<&Path>) -> Result<Self, String> {
        if let Ok(info) = url.into_connection_info()
            && let ConnectionAddr::Unix(path) = info.addr()
        {
            return Ok(Self {
                topology: Topology::One(Arc::new(UnixPath(path.clone()))),
                login: Arc::new(login(&info, None)),
            });
        }
        let (node, login) = node(url, ca)?;
        Ok(Self { topology: Topology::One(Arc::new(node)), login: Arc::new(login) })
    }

    /// `[[user]:password@]host:port[,host:port…]/master[/db][?sentinel_password=…]`. User and
    /// password are for the master.
    fn parse_sentinels(scheme: &str, rest: &str, ca: Option<&Path>) -> Result<Self, String> {
        let allowed = "redis+sentinel://[[user]:password@]host:port[,host:port…]/master-name[/db][?sentinel_password=…] \
                       and rediss+sentinel://… are allowed";
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, path) = rest.split_once('/').ok_or(format!("the master has no name; {allowed}"))?;
        let (master, database) = path.split_once('/').unwrap_or((path, "0"));
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        if master.is_empty() {
            return Err(format!("the master has no name; {allowed}"));
        }
        let password = match query.split_once('=') {
            None if query.is_empty() => None,
            Some(("sentinel_password", password)) => Some(decode(password)),
            _ => return Err(format!("the query is not known; {allowed}")),
        };
        let (nodes, login) = nodes(scheme, hosts, database, ca)?;
        let for_sentinels = Login { username: None, password, database: 0, tls: login.tls.clone() };
        let sentinels = Sentinels::new(nodes, decode(master), for_sentinels);
        Ok(Self { topology: Topology::One(Arc::new(sentinels)), login: Arc::new(login) })
    }

    /// `[[user]:password@]host:port[,host:port…]`.
    fn parse_cluster(scheme: &str, rest: &str, ca: Option<&Path>) -> Result<Self, String> {
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        if !["", "0"].contains(&database) {
            let allowed = "redis+cluster://[[user]:password@]host:port[,host:port…] and rediss+cluster://… are allowed";
            return Err(format!("a cluster has no databases but 0; {allowed}"));
        }
        let (nodes, login) = nodes(scheme, hosts, "0", ca)?;
        let login = Arc::new(login);
        Ok(Self { topology: Topology::Cluster(Arc::new(Cluster::new(nodes, Arc::clone(&login)))), login })
    }
}

/// Parses a list of hosts that share one login.
fn nodes(scheme: &str, hosts: &str, database: &str, ca: Option<&Path>) -> Result<(Vec<HostPort>, Login), String> {
    let (user, hosts) = hosts.rsplit_once('@').map_or(("", hosts), |(user, hosts)| (user, hosts));
    let mut found = Vec::new();
    let mut common = None;
    for host in hosts.split(',') {
        let at = if user.is_empty() { "" } else { "@" };
        // The certificates are read once.
        let url = format!("{}://{user}{at}{host}/{database}", if common.is_none() { scheme } else { "redis" });
        let (node, login) = node(&url, ca)?;
        found.push(node);
        common.get_or_insert(login);
    }
    Ok((found, common.unwrap_or_default()))
}

fn node(url: &str, ca: Option<&Path>) -> Result<(HostPort, Login), String> {
    let allowed = "redis://[[user]:password@]host[:port][/db], rediss://… for TLS, redis+sentinel://…, redis+cluster://… and \
                   unix:///path are allowed";
    let info = url.into_connection_info().map_err(|error| format!("{error}; {allowed}"))?;
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => Ok((HostPort { host: host.clone(), port: *port }, login(&info, None))),
        ConnectionAddr::TcpTls { host, port, insecure: false, .. } => {
            ServerName::try_from(host.as_str()).map_err(|error| error.to_string())?;
            let tls = Arc::new(client_config(ca)?);
            Ok((HostPort { host: host.clone(), port: *port }, login(&info, Some(tls))))
        }
        ConnectionAddr::TcpTls { .. } => {
            Err("TLS without a check of the certificate; name the one to trust instead".to_owned())
        }
        _ => Err(format!("a host was expected; {allowed}")),
    }
}

fn login(info: &ConnectionInfo, tls: Option<Arc<ClientConfig>>) -> Login {
    let settings = info.redis_settings();
    Login {
        username: settings.username().map(str::to_owned),
        password: settings.password().map(str::to_owned),
        database: settings.db(),
        tls,
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
            ("redis+sentinel://a:1,[::1]:2,b/main", "main of sentinels a:1 [::1]:2 b:6379", None, None, 0),
            ("redis+cluster://:x@a:1,b:2", "cluster a:1 b:2", None, Some("x"), 0),
            (
                "redis+sentinel://ann:sec%40ret@a:1/main/3?sentinel_password=x",
                "main of sentinels a:1",
                Some("ann"),
                Some("sec@ret"),
                3,
            ),
        ] {
            let target = RedisUrl::parse(url, None).unwrap();
            assert_eq!(target.to_string(), shown);
            let Login { username: user, password: word, database: number, .. } = &*target.login;
            let found = (user.as_deref(), word.as_deref(), *number);
            assert_eq!(found, (username, password, database), "{url}");
        }
        for bad in [
            "",
            "localhost:6379",
            "http://localhost",
            "redis://:secret@host:port",
            "rediss://host/#insecure",
            "redis+sentinel://:secret@host:1",
            "redis+sentinel://:secret@host:1/",
            "redis+sentinel://:secret@host:1,:2/main",
            "redis+sentinel://host:1/main/x",
            "redis+sentinel://host:1/main?password=secret",
            "http+sentinel://host:1/main",
            "redis+cluster://:secret@host:1/1",
            "redis+cluster://:secret@",
        ] {
            let error = RedisUrl::parse(bad, None).map(|_| ()).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
