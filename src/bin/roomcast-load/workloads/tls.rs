//! The same room with TLS and without, on one server; and silent connections of both kinds.

use std::net::{SocketAddr, TcpListener};

use super::idle::Idle;
use super::one_room::{self, Step};
use crate::bench::Bench;
use crate::conversation::{Group, Pace};
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::target::Running;
use crate::tls::{ServerCertificate, TlsConnector, Trust};

/// A server that listens at two addresses, and crowds for both.
struct TwoCrowds {
    running: Running,
    plain: Crowd,
    encrypted: Crowd,
}

fn windows(quick: bool) -> &'static [u32] {
    if quick { &[1, 8] } else { &[1, 3, 8, 64] }
}

/// How many records it makes.
pub(super) fn steps(quick: bool) -> u64 {
    2 + 3 * windows(quick).len() as u64
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let certificate = ServerCertificate::new()?;
    let default = if bench.flags.quick { 1000 } else { 5000 };
    let count = bench.flags.conns.unwrap_or(default) as usize;
    for (name, crowd) in [
        ("silent", TwoCrowds::take_plain as fn(TwoCrowds) -> (Running, Crowd)),
        ("silent, TLS", TwoCrowds::take_encrypted),
    ] {
        bench.announce(name);
        let (running, mut crowd) = crowd(start(bench, &certificate)?);
        let bytes = Idle { count, pid: running.pid }.bytes_each(&mut crowd)?;
        bench.record(name, |record| {
            record.set("connections", count as f64).set("bytes_per_connection", bytes.unwrap_or(f64::NAN));
        })?;
    }
    let members = bench.flags.members as usize;
    let TwoCrowds { running, mut plain, mut encrypted } = start(bench, &certificate)?;
    let publishers = [one_room::open(&mut plain, members)?, one_room::open(&mut encrypted, members)?];
    for window in windows(bench.flags.quick) {
        let mut cpu = Vec::new();
        for (crowd, publishers, suffix) in [(&mut plain, &publishers[0], ""), (&mut encrypted, &publishers[1], ", TLS")]
        {
            let group = Group { publishers: publishers.clone(), members, pace: Pace::Closed { window: *window } };
            let name = format!("window {window}{suffix}");
            one_room::run_step(bench, crowd, running.pid, &Step { name, group, settings: &[] })?;
            cpu.push(bench.results.records.last().and_then(|record| record.get("cpu_per_delivery_us")));
        }
        bench.record(&format!("window {window}, TLS beside none"), |record| {
            if let [Some(plain), Some(encrypted)] = cpu[..] {
                record.set("tls_cpu_ratio", encrypted / plain).set("tls_more_us", encrypted - plain);
            }
        })?;
    }
    Ok(())
}

fn start(bench: &Bench<'_>, certificate: &ServerCertificate) -> Result<TwoCrowds, LoadError> {
    // Another program could take the port in between; the server then ends with an error.
    let address: SocketAddr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let (running, plain) = bench.start(&format!("--listen tls:{address} {}", certificate.flags()))?;
    let connector = TlsConnector::new(Trust::Authorities(&certificate.path()), "localhost")?;
    let encrypted = Crowd::new(address, running.wire.clone().with_tls(connector))?;
    Ok(TwoCrowds { running, plain, encrypted })
}

impl TwoCrowds {
    fn take_plain(self) -> (Running, Crowd) {
        (self.running, self.plain)
    }

    fn take_encrypted(self) -> (Running, Crowd) {
        (self.running, self.encrypted)
    }
}
