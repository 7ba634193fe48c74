//! A back-end that is asked over TLS.

use super::webhook::refused;
use crate::support::https::{Authority, named, response};
use crate::support::tokens::Files;
use crate::support::{Client, Server, roomcast};

#[test]
fn the_certificate_of_the_back_end_is_checked() {
    let authority = Authority::default();
    let address = authority.serve(&named("localhost"), |_, _| response("200 OK", "", r#"{"user":"alice"}"#));
    let url = format!("https://localhost:{}/", address.port());
    let files = Files::new();
    let mut command = roomcast();
    command.env("SSL_CERT_FILE", files.write("ca.pem", &authority.certificate));
    command.args(["--listen", "127.0.0.1:0", "--auth-url", &url]);
    let trusting = Server::spawn_command(command, 1);
    assert_eq!(Client::connect(&trusting).user_id(), "alice");
    let server = Server::spawn(&["--auth-url", &url]);
    assert_eq!(refused(&server, "alice").status, 503);
    let line = server.wait_for_log("gives no decisions");
    assert!(line.contains("certificate"), "{line}");
}
