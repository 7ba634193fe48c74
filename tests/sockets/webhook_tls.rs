//! A back-end that is asked over TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::webhook::refused;
use crate::support::tokens::Files;
use crate::support::{Client, Server, roomcast};

/// Admits alice, whatever is asked. Returns its address and its certificate in PEM.
fn start() -> (SocketAddr, String) {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("a key that fits");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            // A client that does not trust the certificate goes.
            let _ = answer(StreamOwned::new(connection, stream));
        }
    });
    (address, certified.cert.pem())
}

fn answer(mut stream: StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
    let mut read = Vec::new();
    // The body is one object, with which the request ends.
    while !read.ends_with(b"}") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        read.push(byte[0]);
    }
    let body = r#"{"user":"alice"}"#;
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")?;
    stream.flush()
}

#[test]
fn the_certificate_of_the_back_end_is_checked() {
    let (address, certificate) = start();
    let url = format!("https://localhost:{}/", address.port());
    let files = Files::new();
    let mut command = roomcast();
    command.env("SSL_CERT_FILE", files.write("ca.pem", certificate));
    command.args(["--listen", "127.0.0.1:0", "--auth-url", &url]);
    let trusting = Server::spawn_command(command, 1);
    assert_eq!(Client::connect(&trusting).user_id(), "alice");
    let server = Server::spawn(&["--auth-url", &url]);
    assert_eq!(refused(&server, "alice").status, 503);
    let line = server.wait_for_log("gives no decisions");
    assert!(line.contains("certificate"), "{line}");
}
