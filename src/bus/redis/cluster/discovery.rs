//! Asks the nodes of a Redis Cluster which master has which slots.

#![expect(clippy::disallowed_types, reason = "only links and lookups take the lock, on threads of their own")]

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use super::slot_map::SlotMap;
use crate::bus::redis::connection::blocking_query::blocking_query;
use crate::bus::redis::connection::{Endpoint, HostPort, Login, Value};

/// Both threads of the bus share one.
pub(crate) struct Cluster {
    seeds: Vec<HostPort>,
    login: Arc<Login>,
    /// Masters from the last slot map, in case none of the seeds answers any more. Only lookups
    /// take this lock, so it never blocks the loop.
    known: Mutex<Vec<HostPort>>,
    /// The node that the next lookup asks first.
    turn: AtomicUsize,
    /// The highest cluster epoch that any node has reported. A node that reports a lower one was
    /// cut off, and its slot map is old.
    epoch: AtomicU64,
    /// How often a thread has found that a slot has another master.
    changes: AtomicU64,
}

/// How current a node's view of the cluster is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct ClusterInfo {
    epoch: u64,
    /// Whether the node accepts commands. A node that reaches too few other masters does not.
    is_ok: bool,
}

impl ClusterInfo {
    /// Reads the answer to `CLUSTER INFO`.
    fn read(value: &Value<'_>) -> Option<Self> {
        let line = |name: &str| value.text()?.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let epoch = line("cluster_current_epoch")?.parse().ok()?;
        Some(Self { epoch, is_ok: line("cluster_state") == Some("ok") })
    }
}

impl Cluster {
    pub(crate) fn new(seeds: Vec<HostPort>, login: Arc<Login>) -> Self {
        let (known, turn) = (Mutex::default(), AtomicUsize::new(0));
        Self { seeds, login, known, turn, epoch: AtomicU64::new(0), changes: AtomicU64::new(0) }
    }

    /// Makes the other thread look up the slot map, too. Without this a subscription to a master
    /// that was cut off would stay silent without ending.
    pub(crate) fn change(&self) {
        self.changes.fetch_add(1, SeqCst);
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(SeqCst)
    }

    /// Asks one node after another until one is as current as any seen before. If none is, the
    /// most current answer is used. This call blocks.
    pub(crate) fn find(&self) -> io::Result<SlotMap> {
        let mut nodes = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        nodes.extend(self.seeds.iter().cloned());
        let first = self.turn.fetch_add(1, SeqCst);
        let mut best = Err(io::Error::other("no node of the cluster is named"));
        for i in 0..nodes.len() {
            match (self.ask(&nodes[(first + i) % nodes.len()]), &best) {
                (Ok((info, slot_map)), _) if info.is_ok && info.epoch >= self.epoch.load(SeqCst) => {
                    best = Ok((info, slot_map));
                    break;
                }
                (Ok(found), Ok((known, _))) if found.0 > *known => best = Ok(found),
                (found, Err(_)) => best = found,
                _ => {}
            }
        }
        let (info, slot_map) = best?;
        self.epoch.store(info.epoch, SeqCst);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&slot_map.masters);
        Ok(slot_map)
    }

    fn ask(&self, node: &HostPort) -> io::Result<(ClusterInfo, SlotMap)> {
        let info = blocking_query(node, &self.login, &["CLUSTER", "INFO"], |value| ClusterInfo::read(&value))?;
        let slot_map = blocking_query(node, &self.login, &["CLUSTER", "SLOTS"], |value| SlotMap::read(value, node))?;
        Ok((info, slot_map))
    }
}

/// One server that does everything, or many servers with some slots each.
#[derive(Clone)]
pub(crate) enum Topology {
    One(Arc<dyn Endpoint>),
    Cluster(Arc<Cluster>),
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cluster")?;
        self.seeds.iter().try_for_each(|node| write!(f, " {node}"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A node that gives this answer to `CLUSTER INFO` and owns all slots. It lives as long as
    /// the test.
    fn node(info: &str) -> HostPort {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let info = format!("${}\r\n{info}\r\n", info.len());
        let slots = "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:PORT\r\n".replace("PORT", &port.to_string());
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let word = BufReader::new(&stream).lines().nth(4).unwrap().unwrap();
                let _ = (&stream).write_all(if word == "INFO" { info.as_bytes() } else { slots.as_bytes() });
            }
        });
        HostPort { host: "127.0.0.1".to_owned(), port }
    }

    #[test]
    fn a_node_that_was_cut_off_is_not_believed_while_there_is_another() {
        let text = |epoch: u64, state: &str| format!("cluster_state:{state}\r\ncluster_current_epoch:{epoch}\r\n");
        let [old, new, deaf] = [text(3, "ok"), text(7, "ok"), text(9, "fail")].map(|text| node(&text));
        let gone = HostPort { host: "127.0.0.1".to_owned(), port: 1 };
        let masters = |cluster: &Cluster| cluster.find().unwrap().masters;
        let cluster = Cluster::new(vec![new.clone(), gone.clone(), old.clone()], Arc::default());
        for _ in 0..5 {
            assert_eq!(masters(&cluster), std::slice::from_ref(&new));
        }
        // If no node is more current, its answer has to do.
        let cluster = Cluster::new(vec![gone.clone(), deaf.clone()], Arc::default());
        assert_eq!(masters(&cluster), [deaf]);
        assert!(Cluster::new(vec![gone], Arc::default()).find().is_err());
        assert_eq!(masters(&Cluster::new(vec![old.clone()], Arc::default())), [old]);
    }
}
