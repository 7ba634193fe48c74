//! TLS of the load: whom it trusts, and a certificate for servers that it starts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::LoadError;

/// The certificates that are accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trust<'a> {
    /// Those that this machine trusts.
    Machine,
    /// Those of a PEM file.
    Authorities(&'a Path),
    Everybody,
}

/// Makes connections that speak TLS.
#[derive(Clone, Debug)]
pub(crate) struct TlsConnector {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsConnector {
    /// To a server of this name.
    pub(crate) fn new(trust: Trust<'_>, name: &str) -> Result<Self, LoadError> {
        let usage = |error: &dyn std::fmt::Display| LoadError::Usage(format!("TLS to {name}: {error}"));
        let provider = Arc::new(default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| usage(&error))?;
        let mut config = match trust {
            Trust::Everybody => {
                let verifier = Arc::new(TrustEverybody(provider));
                builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
            }
            Trust::Machine => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            Trust::Authorities(path) => {
                let failed =
                    |error: &dyn std::fmt::Display| LoadError::Usage(format!("--ca {}: {error}", path.display()));
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))? {
                    roots.add(certificate.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
                }
                builder.with_root_certificates(roots).with_no_client_auth()
            }
        };
        // Each client stands for another machine, which has no session to resume.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(name.to_owned()).map_err(|error| usage(&error))?;
        Ok(Self { config: Arc::new(config), name })
    }

    pub(crate) fn connect(&self) -> io::Result<Box<ClientConnection>> {
        let connection =
            ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(io::Error::other)?;
        let mut connection = Box::new(connection);
        connection.set_buffer_limit(None);
        Ok(connection)
    }
}

/// For servers with a certificate that nobody has signed.
#[derive(Debug)]
struct TrustEverybody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustEverybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A certificate for `localhost` in files that are removed at the end.
pub(crate) struct ServerCertificate {
    folder: PathBuf,
}

impl ServerCertificate {
    pub(crate) fn new() -> Result<Self, LoadError> {
        let folder = std::env::temp_dir().join(format!("roomcast-load-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let new = Self { folder };
        let key = rcgen::KeyPair::generate().map_err(io::Error::other)?;
        let parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).map_err(io::Error::other)?;
        fs::write(new.path(), parameters.self_signed(&key).map_err(io::Error::other)?.pem())?;
        fs::write(new.key(), key.serialize_pem())?;
        Ok(new)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    /// The flags with which a Roomcast shows it.
    pub(crate) fn flags(&self) -> String {
        format!("--tls-cert {} --tls-key {}", self.path().display(), self.key().display())
    }
}

impl Drop for ServerCertificate {
    fn drop(&mut self) {
        // A folder that stays is of no use to anybody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
