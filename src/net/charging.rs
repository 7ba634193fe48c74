//! Charging connections and requests to the addresses that they come from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::{FORWARDED, UPGRADE};
use http::{HeaderMap, Request, StatusCode};

use crate::id::Slot;
use crate::owner::Owner;

use super::Net;
use super::addresses::{AddressIndex, ConnectRefusal};
use super::connection::Flag;
use super::forwarded::{Source, Teller, X_FORWARDED_FOR};
use super::handler::Handler;
use super::http::Response;

/// Whether an address is the one from which programs of the same machine connect. Behind a proxy there that is not trusted
/// everybody has it, so no cap by address applies to it.
fn is_own_machine(address: IpAddr) -> bool {
    [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)].contains(&address.to_canonical())
}

impl<R> Net<R> {
    /// What a connection of a peer is charged to, if it is accepted. A trusted proxy is charged nothing: its requests are, to those
    /// that it names.
    pub(super) fn charge_peer(&mut self, peer: Option<SocketAddr>) -> Result<Option<AddressIndex>, ConnectRefusal> {
        let Some(peer) = peer.map(|peer| peer.ip()) else { return Ok(None) };
        if !self.caps.addresses.are_capped() || is_own_machine(peer) || self.caps.proxies.contains(Some(peer)) {
            return Ok(None);
        }
        self.charge_connection(peer).map(Some)
    }

    fn charge_connection(&mut self, address: IpAddr) -> Result<AddressIndex, ConnectRefusal> {
        self.caps.addresses.connect(self.caps.owners.address(address)).inspect_err(|refusal| {
            let (counter, cap) = match refusal {
                ConnectRefusal::TooMany => (&mut self.stats.address_connections_rejected, "--connections-per-address"),
                ConnectRefusal::TooFast => (&mut self.stats.address_connects_rejected, "--connects-per-address"),
            };
            *counter += 1;
            self.caps.warnings.warn_capped(self.timers.now, address, cap);
        })
    }

    /// The header of a proxy has told where a connection comes from; says whether that address may have it.
    pub(super) fn take_told_address(&mut self, slot: Slot, client: SocketAddr) -> bool {
        let is_admin = self.connections[slot.index()].is(Flag::Admin);
        match if is_admin { Ok(None) } else { self.charge_peer(Some(client)) } {
            Ok(address) => {
                if let Some(address) = address {
                    self.caps.charge(slot, address);
                }
                self.caps.told_addresses.insert(slot, client);
                true
            }
            Err(_) => false,
        }
    }

    /// Where a request comes from.
    pub(super) fn source(&mut self, slot: Slot, headers: &HeaderMap) -> Source {
        let told = self.caps.told_addresses.get(&slot).copied();
        let peer = told.or_else(|| self.connections[slot.index()].transport.peer_address());
        let source = self.caps.proxies.source(peer, headers);
        if source.teller == Teller::Connection {
            self.warn_of_ignored_header(peer.map(|peer| peer.ip().to_canonical()), headers);
        }
        source
    }

    /// The owner of what a peer costs unless somebody vouches for its user: its address, or the listener of its Unix socket.
    pub(super) fn peer_owner(&self, slot: Slot, address: Option<IpAddr>) -> Owner {
        match address {
            Some(address) => self.caps.owners.address(address),
            None => self.caps.owners.listener(self.connections[slot.index()].transport.listener_file().as_deref()),
        }
    }

    fn warn_of_ignored_header(&mut self, peer: Option<IpAddr>, headers: &HeaderMap) {
        let Some(name) = [FORWARDED, X_FORWARDED_FOR].into_iter().find(|name| headers.contains_key(name)) else {
            return;
        };
        if self.caps.warnings.take_ignored_header(self.timers.now, peer) {
            let (peer, flag) = match peer {
                Some(peer) => (peer.to_string(), peer.to_string()),
                None => ("a Unix socket".to_owned(), "unix".to_owned()),
            };
            log::warn!(
                "a request from {peer} has {name}, which is ignored; if that is your proxy, start the server with \
                 --trusted-proxy {flag}, or all who come through it count as one"
            );
        }
    }

    /// Charges a request to where it comes from, unless the handler charges it to somebody else, or it is an operator's.
    ///
    /// # Errors
    /// The answer if there is too much of it.
    pub(super) fn charge_request(
        &mut self,
        slot: Slot,
        source: Source,
        request: &Request<()>,
        handler: &mut impl Handler<Route = R>,
    ) -> Result<(), Response> {
        if self.connections[slot.index()].is(Flag::Admin) {
            return Ok(());
        }
        let connection = self.caps.charged(slot);
        let address = source.address.map(|address| address.ip());
        let told = address.filter(|_| source.teller == Teller::Header && self.caps.addresses.are_capped());
        let is_allowed = match (told, connection) {
            (None, None) => return Ok(()),
            _ if handler.is_charged_elsewhere(request) => return Ok(()),
            (Some(told), _) => self.caps.addresses.request(self.caps.owners.address(told)),
            (None, Some(index)) => self.caps.addresses.request_of(index),
        };
        if !is_allowed {
            self.stats.address_requests_rejected += 1;
            if let Some(address) = address {
                self.caps.warnings.warn_capped(self.timers.now, address, "--requests-per-address");
            }
            let reason = "this address sends more requests than it may";
            return Err(Response::text(StatusCode::TOO_MANY_REQUESTS, reason).with("Retry-After", "1").for_pages());
        }
        match told {
            // The connection to a proxy is somebody's from the handshake on.
            Some(told) if connection.is_none() && request.headers().contains_key(UPGRADE) => {
                let address = self.charge_connection(told).map_err(|_| {
                    Response::unavailable("this address has as many connections as it may, or opens them too fast")
                })?;
                self.caps.charge(slot, address);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
