//! Certificates, and a blocking client that speaks TLS.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use roomcast::settings::TlsFiles;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use tempfile::TempDir;

use super::{PATIENCE, Raw, Server, Stream, request, upgrade_request};

pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A certificate for this machine, signed by itself, with its key.
pub struct Certificate {
    pub chain: String,
    pub key: String,
}

impl Default for Certificate {
    fn default() -> Self {
        Self::of(&["localhost", "127.0.0.1"])
    }
}

impl Certificate {
    /// For these names.
    pub fn of(names: &[&str]) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = rcgen::CertificateParams::new(names).expect("names").self_signed(&key);
        Self { chain: certificate.expect("a certificate").pem(), key: key.serialize_pem() }
    }

    /// A client that trusts this certificate and no other.
    pub fn client(&self) -> TlsClient {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.chain.as_bytes()).expect("a certificate")).expect("a root");
        let name = ServerName::try_from("localhost").expect("a name");
        TlsClient { roots, name, config: None, receive_buffer_bytes: None }
    }
}

/// A certificate in files.
pub struct Files {
    folder: TempDir,
    pub certificate: Certificate,
}

impl Default for Files {
    fn default() -> Self {
        let files = Self { folder: tempfile::tempdir().expect("a folder"), certificate: Certificate::default() };
        files.write();
        files
    }
}

impl Files {
    fn write(&self) {
        fs::write(self.path("cert.pem"), &self.certificate.chain).expect("write the certificate");
        fs::write(self.path("key.pem"), &self.certificate.key).expect("write the key");
    }

    /// Puts another certificate in its place.
    pub fn renew(&mut self) {
        self.certificate = Certificate::default();
        self.write();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The path of a file as the value of a flag.
    pub fn name(&self, name: &str) -> String {
        self.path(name).to_str().expect("a path").to_owned()
    }

    pub fn settings(&self) -> TlsFiles {
        TlsFiles { certificate: self.path("cert.pem"), key: self.path("key.pem") }
    }

    /// Starts the program with this certificate. Its first address speaks TLS, its second does not.
    pub fn spawn(&self, flags: &[&str]) -> Server {
        let (chain, key) = (self.name("cert.pem"), self.name("key.pem"));
        let tls = ["--listen=tls:127.0.0.1:0", "--listen=127.0.0.1:0", "--tls-cert", &chain, "--tls-key", &key];
        Server::spawn(&[&tls, flags].concat())
    }
}

/// How to connect.
#[derive(Clone)]
pub struct TlsClient {
    roots: RootCertStore,
    name: ServerName<'static>,
    config: Option<Arc<ClientConfig>>,
    receive_buffer_bytes: Option<usize>,
}

impl TlsClient {
    /// Asks for this name; for an IP address no name is sent.
    pub fn asking_for(self, name: &str) -> Self {
        Self { name: ServerName::try_from(name.to_owned()).expect("a name"), ..self }
    }

    /// With one version of TLS. What connects with the result remembers sessions.
    pub fn version(self, version: &'static SupportedProtocolVersion) -> Self {
        self.configure(&[version], &[])
    }

    /// With both versions, and an offer of protocols.
    pub fn offering(self, protocols: &[&str]) -> Self {
        self.configure(&VERSIONS, protocols)
    }

    fn configure(self, versions: &[&'static SupportedProtocolVersion], protocols: &[&str]) -> Self {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(versions).expect("versions of TLS");
        let mut config = builder.with_root_certificates(self.roots.clone()).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self { config: Some(Arc::new(config)), ..self }
    }

    /// A receive buffer so small that a client that does not read is soon a slow one.
    pub fn small_receive_buffer(self) -> Self {
        Self { receive_buffer_bytes: Some(4096), ..self }
    }

    /// Connects; the handshake is still to come.
    pub fn connect(&self, address: SocketAddr) -> Raw<TlsStream> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        if let Some(bytes) = self.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes).expect("set the receive buffer before connecting");
        }
        socket.connect_timeout(&address.into(), PATIENCE).unwrap_or_else(|error| panic!("{address}: {error}"));
        self.over(socket.into())
    }

    /// Over a socket that is connected.
    pub fn over(&self, socket: TcpStream) -> Raw<TlsStream> {
        socket.set_nodelay(true).expect("set TCP_NODELAY");
        socket.set_read_timeout(Some(PATIENCE)).expect("set the read timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("set the write timeout");
        let config = self.config.clone().or_else(|| self.clone().offering(&["http/1.1"]).config);
        let connection = ClientConnection::new(config.expect("set above"), self.name.clone()).expect("a client");
        Raw::over(TlsStream { stream: StreamOwned::new(connection, socket), has_been_told: false })
    }

    /// Connects and does both handshakes; the `welcome` is still to come.
    pub fn open(&self, address: SocketAddr, path: &str) -> Raw<TlsStream> {
        let mut raw = self.connect(address);
        raw.send(upgrade_request(path, &[]).as_bytes());
        raw.upgraded();
        raw
    }

    /// One GET on a connection of its own.
    pub fn get(&self, address: SocketAddr, path: &str) -> super::Response {
        let mut raw = self.connect(address);
        raw.send(request("GET", path, &[("Connection", "close")]).as_bytes());
        raw.response()
    }

    /// Whether a server shows the certificate that this client trusts.
    pub fn is_shown_by(&self, address: SocketAddr) -> bool {
        self.connect(address).stream.shake_hands().is_ok()
    }
}

/// A socket that speaks TLS.
pub struct TlsStream {
    stream: StreamOwned<ClientConnection, TcpStream>,
    has_been_told: bool,
}

impl TlsStream {
    /// Completes the handshake.
    ///
    /// # Errors
    /// What the server or the client does not like.
    pub fn shake_hands(&mut self) -> io::Result<()> {
        while self.stream.conn.is_handshaking() {
            self.stream.conn.complete_io(&mut self.stream.sock)?;
        }
        Ok(())
    }

    pub fn connection(&self) -> &ClientConnection {
        &self.stream.conn
    }

    /// The socket beneath.
    pub fn socket(&self) -> &TcpStream {
        &self.stream.sock
    }

    /// Whether the server has said that it sends nothing more, so that nothing was cut off.
    pub fn has_been_told_of_the_end(&self) -> bool {
        self.has_been_told
    }

    /// Says that nothing more is sent.
    pub fn say_goodbye(&mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().expect("send close_notify");
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(buffer) {
            Ok(0) => {
                self.has_been_told = true;
                Ok(0)
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
            result => result,
        }
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Stream for TlsStream {
    fn read_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.stream.sock.set_read_timeout(Some(timeout))
    }
}
