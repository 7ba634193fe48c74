//! What a proxy says in front of a connection: the PROXY protocol, versions 1 and 2.

use std::net::SocketAddr;

use ppp::{PartialResult, v1, v2};

use crate::id::Slot;

use super::Net;
use super::handler::Handler;
use super::phase::Phase;

/// How long a header may be. Version 1 has 107 bytes at most; the fields that proxies add in version 2 are a few hundred.
const BYTES_MAX: usize = 2048;

/// What was read from the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProxyHeader {
    /// Not complete yet.
    Partial,
    /// Complete, with so many bytes, and the client that it names. There is none if the proxy speaks for itself.
    Complete(Option<SocketAddr>, usize),
    /// It is none.
    Bad,
}

fn parse(bytes: &[u8]) -> ProxyHeader {
    let is_first_version = bytes.first() == Some(&b'P');
    let parsed = if is_first_version { parse_text(bytes) } else { parse_binary(bytes) };
    match parsed {
        ProxyHeader::Partial if bytes.len() >= BYTES_MAX => ProxyHeader::Bad,
        ProxyHeader::Complete(_, used) if used > BYTES_MAX => ProxyHeader::Bad,
        parsed => parsed,
    }
}

/// Version 1, a line.
fn parse_text(bytes: &[u8]) -> ProxyHeader {
    const PREFIX: &[u8] = b"PROXY ";
    const LINE_BYTES_MAX: usize = 107;
    let begins_one = bytes.iter().zip(PREFIX).all(|(found, wanted)| found == wanted);
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    // Half a port is a port, too: only a whole line is parsed.
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n").filter(|_| begins_one) else {
        return if begins_one && line.len() < LINE_BYTES_MAX { ProxyHeader::Partial } else { ProxyHeader::Bad };
    };
    let client = match v1::Header::try_from(&line[..end + 2]).map(|header| header.addresses) {
        Ok(v1::Addresses::Tcp4(of)) => Some(SocketAddr::from((of.source_address, of.source_port))),
        Ok(v1::Addresses::Tcp6(of)) => Some(SocketAddr::from((of.source_address, of.source_port))),
        Ok(v1::Addresses::Unknown) => None,
        Err(_) => return ProxyHeader::Bad,
    };
    ProxyHeader::Complete(client, end + 2)
}

/// Version 2.
fn parse_binary(bytes: &[u8]) -> ProxyHeader {
    let parsed = v2::Header::try_from(bytes);
    if parsed.is_incomplete() {
        return ProxyHeader::Partial;
    }
    let Ok(header) = parsed else { return ProxyHeader::Bad };
    let client = match (header.command, header.addresses) {
        (v2::Command::Proxy, v2::Addresses::IPv4(of)) => Some(SocketAddr::from((of.source_address, of.source_port))),
        (v2::Command::Proxy, v2::Addresses::IPv6(of)) => Some(SocketAddr::from((of.source_address, of.source_port))),
        // A health check of the proxy itself, or a client without an address.
        _ => None,
    };
    ProxyHeader::Complete(client, header.header.len())
}

impl<R> Net<R> {
    /// More of a connection has come whose proxy says first where it comes from.
    pub(super) fn take_proxy_header(&mut self, slot: Slot, bytes: &[u8], handler: &mut impl Handler<Route = R>) {
        let connection = &mut self.connections[slot.index()];
        let id = connection.id(slot);
        let Phase::ProxyHeader(kept) = &mut connection.phase else { return };
        let mut header = kept.take().unwrap_or_default();
        header.extend_from_slice(bytes);
        match parse(&header) {
            ProxyHeader::Partial => *kept = Some(header),
            ProxyHeader::Bad => {
                log::debug!("connection {id}: no PROXY header");
                self.end(slot, handler);
            }
            ProxyHeader::Complete(client, used) => {
                connection.phase = connection.before_request();
                if let Some(client) = client
                    && !self.take_told_address(slot, client)
                {
                    return self.end(slot, handler);
                }
                if header.len() > used {
                    self.take_received(slot, &mut header[used..], handler);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = (addresses.len() as u16).to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, addresses].concat()
    }

    #[test]
    fn a_header_is_read_wherever_it_is_cut() {
        let check = |header: &[u8], client: Option<&str>| {
            let client = client.map(|client| client.parse().unwrap());
            let whole = [header, b"GET / HTTP/1.1\r\n"].concat();
            for end in 0..whole.len() {
                let expected = match end < header.len() {
                    true => ProxyHeader::Partial,
                    false => ProxyHeader::Complete(client, header.len()),
                };
                assert_eq!(parse(&whole[..end]), expected, "{end} bytes of {:?}", header.escape_ascii().to_string());
            }
        };
        check(b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n", Some("192.0.2.1:4711"));
        check(b"PROXY TCP6 2001:db8::1 ::1 4711 80\r\n", Some("[2001:db8::1]:4711"));
        check(b"PROXY UNKNOWN\r\n", None);
        check(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None);
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x67, 0, 80];
        check(&binary(1, 0x11, &v4), Some("192.0.2.1:4711"));
        check(&binary(1, 0x11, &[&v4[..], &[4, 0, 1, 0]].concat()), Some("192.0.2.1:4711"));
        check(&binary(0, 0x11, &v4), None);
        check(&binary(0, 0, &[]), None);
        let v6 = [[0xfe; 16].as_slice(), &[0; 16], &[0, 1, 0, 2]].concat();
        check(&binary(1, 0x21, &v6), Some("[fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe]:1"));
        check(&binary(1, 0x31, &[7; 216]), None);
    }

    #[test]
    fn what_is_no_header_is_refused_as_soon_as_it_is_seen() {
        for bad in [
            &b"GET / HTTP/1.1"[..],
            b"POST",
            b"\x16\x03\x01",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4711\r\n",
            b"PROXY TCP4 2001:db8::1 ::1 4711 80\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 99999 80\r\n",
            b"PROXY TCP5 192.0.2.1 10.0.0.1 4711 80\r\n",
            b"PROXY\r\n",
            &[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 93]].concat(),
            &binary(2, 0x11, &[0; 12]),
            &binary(1, 0x11, &[0; 11]),
            &binary(1, 0x41, &[0; 12]),
        ] {
            assert_eq!(parse(bad), ProxyHeader::Bad, "{:?}", bad.escape_ascii().to_string());
        }
        let long = binary(1, 0, &[0; BYTES_MAX]);
        assert_eq!(parse(&long[..BYTES_MAX - 1]), ProxyHeader::Partial);
        assert_eq!(parse(&long[..BYTES_MAX]), ProxyHeader::Bad);
        assert_eq!(parse(&long), ProxyHeader::Bad);
    }
}
