//! Keys of tokens that are fetched over TLS: the issuer must show a certificate that the system trusts.

use rcgen::{CertificateParams, date_time_ymd};
use serde_json::json;

use super::token_keys::{server_with_keys_of, token_of};
use crate::support::Server;
use crate::support::https::{Authority, named, response};
use crate::support::tokens::{EdIssuer, Files, refused, with_token};

/// The keys of an issuer of tokens as an answer.
fn keys(issuer: &EdIssuer) -> String {
    response("200 OK", "", &json!({"keys": [issuer.jwk("one")]}).to_string())
}

/// The program, which trusts one authority.
fn server_trusting(authority: &Authority, port: u16) -> (Server, Files) {
    let files = Files::new();
    let roots = files.write("ca.pem", &authority.certificate);
    (server_with_keys_of(&format!("https://localhost:{port}/keys"), &[("SSL_CERT_FILE", &roots)]), files)
}

#[test]
fn keys_are_fetched_from_an_issuer_with_a_certificate_that_is_trusted() {
    let (authority, issuer) = (Authority::default(), EdIssuer::new(1));
    let token = token_of(&issuer, "one");
    let address = authority.serve(&named("localhost"), move |_, _| keys(&issuer));
    let (server, _files) = server_trusting(&authority, address.port());
    let mut alice = with_token(&server, &token).connect();
    alice.join("lobby");
    assert_eq!(server.log_lines("WARN"), [""; 0]);
}

#[test]
fn keys_of_an_issuer_with_another_certificate_do_not_count() {
    let outdated = || {
        let mut params = named("localhost");
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        params
    };
    let (ours, stranger) = (Authority::default(), Authority::default());
    let cases: [(&Authority, CertificateParams, &str); 3] = [
        // The two authorities have the same name.
        (&stranger, named("localhost"), "BadSignature"),
        (&ours, named("other.example"), "not valid for name"),
        (&ours, outdated(), "expired"),
    ];
    for (authority, params, reason) in cases {
        let issuer = EdIssuer::new(1);
        let token = token_of(&issuer, "one");
        let address = authority.serve(&params, move |_, _| keys(&issuer));
        let (server, _files) = server_trusting(&ours, address.port());
        let line = server.wait_for_log("the keys of --jwks-url stay as they were");
        assert!(line.contains("WARN") && line.contains("certificate") && line.contains(reason), "{reason}: {line}");
        let response = refused(&server, Some(&token));
        assert_eq!(response.status, 503, "{reason}: {response:?}");
        assert!(response.text().contains("the keys of tokens could not be fetched"), "{response:?}");
    }
}

#[test]
fn keys_do_not_count_to_which_an_issuer_leads_without_tls() {
    let (authority, issuer) = (Authority::default(), EdIssuer::new(1));
    let token = token_of(&issuer, "one");
    let plain = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let location = format!("Location: http://{}/keys\r\n", plain.local_addr().expect("its address"));
    let address = authority.serve(&named("localhost"), move |_, _| response("302 Found", &location, ""));
    let (server, _files) = server_trusting(&authority, address.port());
    let line = server.wait_for_log("the keys of --jwks-url stay as they were");
    assert!(line.contains("https"), "{line}");
    assert_eq!(refused(&server, Some(&token)).status, 503);
    plain.set_nonblocking(true).expect("ask without waiting");
    assert!(plain.accept().is_err(), "the keys were asked for without TLS");
}
