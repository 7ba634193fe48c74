//! PROXY headers of both versions.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use roomcast::{Authentication, Authenticator, Listener, Now, Preamble, Refusal};

use crate::embedded::{Embedded, Transcript, config};
use crate::mutation::{Corpus, pieces};
use crate::run::run;
use crate::support::host::Host;
use crate::support::upgrade_request;

/// Refuses everybody with the address that they come from.
struct TellAddress;

impl Authenticator for TellAddress {
    fn authenticate(&mut self, _now: Now, request: &http::Request<()>) -> Authentication {
        let address = request.extensions().get::<SocketAddr>();
        // The test's own port is another one each time.
        let told = address.filter(|address| address.ip() != Ipv4Addr::LOCALHOST);
        let address = told.map_or("the proxy's own".to_owned(), ToString::to_string);
        Authentication::Refuse(Refusal::new(http::StatusCode::FORBIDDEN, address))
    }
}

fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = (addresses.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x20 | command, family], &length, addresses].concat()
}

fn corpus() -> Corpus {
    let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x67, 0, 80];
    let upgrade = upgrade_request("/ws", &[]);
    let headers = [
        b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::1 ::1 4711 80\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
        binary(1, 0x11, &v4),
        binary(1, 0x11, &[v4.as_slice(), &[4, 0, 1, 0]].concat()),
        binary(1, 0x21, &[7; 36]),
        binary(0, 0, &[]),
        binary(1, 0x31, &[7; 216]),
    ];
    Corpus {
        inputs: headers.map(|header| [&header, upgrade.as_bytes()].concat()).into(),
        words: &[
            b"\r\n",
            b"PROXY ",
            b"TCP4",
            b"UNKNOWN",
            b"::",
            b"255.255.255.255",
            b" ",
            &[0x21, 0x11],
            &[0xff, 0xff],
            &[0; 12],
            b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        ],
    }
}

#[test]
fn proxy_headers() {
    let corpus = corpus();
    let mut config = config();
    config.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    let mut host = Host::build(config, |builder| builder.authenticator(TellAddress));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("its address");
    host.server.listen_after(Preamble::ProxyHeader, Listener::Tcp(listener)).expect("listen");
    let mut server = Embedded::new(host, address);
    let mut told = 0;
    run(
        "proxy_headers",
        // Of an incomplete request only the first bytes are looked at, however many come at once.
        |rng| [corpus.mutated(rng).as_slice(), b"\r\n\r\n"].concat(),
        |rng, input| {
            let answer = server.check_split(b"", &pieces(rng, input), Transcript::eq);
            let is_told = answer.bytes.starts_with(b"HTTP/1.1 403 ");
            told += u32::from(is_told);
            assert!(
                !is_told || input.starts_with(b"PROXY ") || input.starts_with(b"\r\n\r\n\0\r\nQUIT\n"),
                "no header"
            );
        },
    );
    println!("{told} headers led on to a request");
}
