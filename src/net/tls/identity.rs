//! The certificates that a server shows, and how it speaks TLS.

use std::fmt;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};

use crate::error::Error;

/// A longer chain is refused: every handshake sends it whole, and real ones have some 4 KiB.
const CHAIN_BYTES_MAX: usize = 64 * 1024;

/// More certificates are refused: a handshake looks at all of them.
const CERTIFICATES_MAX: usize = 64;

/// Certificates, each with the chain behind it and its key.
///
/// A session is shown the first certificate that is good for the name that the client asks for (SNI, RFC 6066 section 3), and the
/// first of all if none is, or if the client asks for none.
///
/// With them come the rest of what a session begins with: TLS 1.2 and 1.3, ALPN `http/1.1`, and keys for tickets, with which a
/// client resumes a session for twelve hours at most and only while this identity is the server's.
#[derive(Clone)]
pub struct TlsIdentity {
    config: Arc<ServerConfig>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Reads PEM: the server's certificate and those that lead from it towards the root, in this order, and its key (PKCS #8,
    /// PKCS #1 or SEC 1, without a passphrase).
    ///
    /// # Errors
    /// [`Error::Config`] with what was found in the place of a chain or a key, or if the two do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        Self::from_pems(&[(chain, key)])
    }

    /// As [`TlsIdentity::from_pem`], for up to 64 chains, each with its key.
    ///
    /// # Errors
    /// As there, with the first that cannot be used, or if there are none or too many.
    pub fn from_pems(pairs: &[(&[u8], &[u8])]) -> Result<Self, Error> {
        let read = |(index, (chain, key)): (usize, &(&[u8], &[u8]))| {
            let number = if pairs.len() == 1 { String::new() } else { format!(" {}", index + 1) };
            let chain = read_chain(chain).map_err(|problem| format!("certificate{number}: {problem}"))?;
            let key = read_key(key).map_err(|problem| format!("key of the certificate{number}: {problem}"))?;
            certified(chain, key).map_err(|problem| format!("certificate{number}: {problem}"))
        };
        let certificates = pairs.iter().enumerate().map(read).collect::<Result<_, _>>().map_err(Error::Config)?;
        Self::new(certificates).map_err(Error::Config)
    }

    /// # Errors
    /// There are none or too many.
    pub(crate) fn new(certificates: Vec<CertifiedKey>) -> Result<Self, String> {
        if !(1..=CERTIFICATES_MAX).contains(&certificates.len()) {
            return Err(format!("{} certificates; 1 to {CERTIFICATES_MAX} are allowed", certificates.len()));
        }
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let by_name = CertificatesByName(certificates.into_iter().map(Arc::new).collect());
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(by_name));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Tickets lie with the clients. Nothing is stored for those that take none.
        config.ticketer = Ticketer::new().map_err(|error| error.to_string())?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // Our own records are made with the keys that a handshake agrees on.
        config.enable_secret_extraction = true;
        Ok(Self { config: Arc::new(config) })
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// See [`TlsIdentity`].
#[derive(Debug)]
struct CertificatesByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for CertificatesByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Self(certificates) = self;
        let asked = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = asked.and_then(|name| certificates.iter().find(|certificate| is_good_for(certificate, &name)));
        named.or(certificates.first()).cloned()
    }
}

fn is_good_for(certificate: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = certificate.end_entity_cert().and_then(ParsedCertificate::try_from);
    parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
}

/// A chain with its key.
///
/// # Errors
/// Why they cannot be used together.
pub(crate) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, String> {
    CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "the key is not that of the first certificate, which has to be the server's own".to_owned()
        }
        rustls::Error::General(problem) => format!("the key cannot be used: {problem}"),
        error => error.to_string(),
    })
}

/// Reads a chain of certificates.
///
/// # Errors
/// What was found instead.
pub(crate) fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut chain = Vec::new();
    for (kind, der) in sections(pem)? {
        match kind {
            SectionKind::Certificate => chain.push(CertificateDer::from(der)),
            // Both may lie in one file.
            kind if is_key(kind) => {}
            kind => return Err(format!("{} where certificates are expected", name(kind))),
        }
    }
    let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
    match chain.len() {
        0 => Err(format!("no certificate (-----BEGIN CERTIFICATE-----), but {}", found(pem))),
        _ if bytes > CHAIN_BYTES_MAX => Err(format!("certificates of {bytes} bytes exceed {CHAIN_BYTES_MAX}")),
        _ => Ok(chain),
    }
}

/// Reads a private key.
///
/// # Errors
/// What was found instead.
pub(crate) fn read_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let count = sections(pem)?.iter().filter(|(kind, _)| is_key(*kind)).count();
    match count {
        1 => PrivateKeyDer::from_pem_slice(pem).map_err(|error| format!("not PEM: {error:?}")),
        0 => Err(format!("no private key (-----BEGIN PRIVATE KEY-----), but {}", found(pem))),
        count => Err(format!("{count} private keys; one is allowed")),
    }
}

fn sections(pem: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, String> {
    let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).collect::<Result<_, _>>();
    sections.map_err(|error| format!("not PEM: {error:?}"))
}

fn is_key(kind: SectionKind) -> bool {
    matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey)
}

/// What a file has that is not what it should be.
fn found(pem: &[u8]) -> String {
    let contains = |needle: &[u8]| pem.windows(needle.len()).any(|window| window == needle);
    if contains(b"ENCRYPTED") {
        return "a key with a passphrase, which nobody can enter here".to_owned();
    }
    match sections(pem).ok().and_then(|sections| sections.first().map(|(kind, _)| *kind)) {
        Some(kind) => name(kind).to_owned(),
        None if pem.is_empty() => "nothing".to_owned(),
        None => "text that is not PEM".to_owned(),
    }
}

fn name(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::Certificate => "a certificate",
        SectionKind::PublicKey => "a public key",
        SectionKind::Csr => "a request for a certificate",
        kind if is_key(kind) => "a private key",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn what_is_no_identity_is_refused_in_words_that_say_what_was_found() {
        let ((chain, key), (other, _)) = (issued("one.example"), issued("two.example"));
        TlsIdentity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        TlsIdentity::from_pem([&*chain, &*other].concat().as_bytes(), key.as_bytes()).unwrap();
        let both = [&*key, &*chain].concat();
        TlsIdentity::from_pem(both.as_bytes(), both.as_bytes()).unwrap();
        let section = |kind: &str| format!("-----BEGIN {kind}-----\nMAMCAQE=\n-----END {kind}-----\n");
        let reversed = [&*other, &*chain].concat();
        for (chain, key, needle) in [
            (&*reversed, &*key, "the key is not that of the first certificate"),
            (&*key, &*key, "no certificate (-----BEGIN CERTIFICATE-----), but a private key"),
            ("", &*key, "but nothing"),
            ("a certificate", &*key, "but text that is not PEM"),
            (&*section("CERTIFICATE REQUEST"), &*key, "a request for a certificate where certificates are expected"),
            (&*section("CERTIFICATE"), &*key, "ertificate"),
            (&*chain, &*chain, "no private key (-----BEGIN PRIVATE KEY-----), but a certificate"),
            (&*chain, &*section("ENCRYPTED PRIVATE KEY"), "but a key with a passphrase"),
            (&*chain, &*section("PRIVATE KEY"), "the key cannot be used"),
            (&*chain, &*key.repeat(2), "2 private keys; one is allowed"),
            (&*chain, "-----BEGIN PRIVATE KEY-----\nMAMC", "not PEM"),
            (&*chain.repeat(400), &*key, "exceed 65536"),
        ] {
            let error = TlsIdentity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(needle), "{error:?} for {needle:?}");
        }
        let (one, other) = ((chain.as_bytes(), key.as_bytes()), (other.as_bytes(), key.as_bytes()));
        TlsIdentity::from_pems(&[one; CERTIFICATES_MAX]).unwrap();
        for (pairs, needle) in [
            (&[][..], "0 certificates; 1 to 64 are allowed"),
            (&[one; CERTIFICATES_MAX + 1], "65 certificates"),
            (&[one, other], "certificate 2: the key is not that of the first certificate"),
        ] {
            let error = TlsIdentity::from_pems(pairs).unwrap_err().to_string();
            assert!(error.contains(needle), "{error:?} for {needle:?}");
        }
    }
}
