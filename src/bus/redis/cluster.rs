//! A Redis Cluster: which master has which slots, as its nodes say.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use crc16::{State, XMODEM};

use super::inquiry;
use super::resp::Value;
use super::target::{Login, Node};

/// How many slots there are; a key's is CRC16 of the part in braces.
pub(super) const SLOTS: usize = 16384;

/// The slot of a key: that of the part in braces, by the cluster specification. Whatever has a key here has such a part, or no
/// braces at all.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    State::<XMODEM>::calculate(tag.unwrap_or(key).as_bytes()) % SLOTS as u16
}

/// Who has which slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chart {
    pub(super) masters: Vec<Node>,
    /// For each slot the place of its master in that list.
    pub(super) owners: Vec<Option<u16>>,
}

impl Chart {
    /// From the answer to `CLUSTER SLOTS`; `asked` is who has given it, and may say nothing about its own host.
    fn read(value: Value<'_>, asked: &Node) -> Option<Self> {
        let mut chart = Self { masters: Vec::new(), owners: vec![None; SLOTS] };
        for range in value.items()? {
            let mut range = range.items()?;
            let (first, last) = (range.next()?.number()? as usize, range.next()?.number()? as usize);
            let mut master = range.next()?.items()?;
            let host = master.next()?.text().filter(|host| !host.is_empty()).unwrap_or(&asked.host).to_owned();
            let node = Node { host, port: master.next()?.number()?.try_into().ok()? };
            let index = chart.masters.iter().position(|known| *known == node).unwrap_or_else(|| {
                chart.masters.push(node);
                chart.masters.len() - 1
            });
            chart.owners.get_mut(first..=last)?.fill(Some(index.try_into().ok()?));
        }
        Some(chart)
    }
}

/// See the [module](self).
pub(super) struct Cluster {
    seeds: Vec<Node>,
    login: Arc<Login>,
    /// Masters that were named since, should no seed live any more; only lookups see them, so that the lock holds up no loop.
    known: Mutex<Vec<Node>>,
    /// Where the next question begins.
    turn: AtomicUsize,
    /// The latest epoch of the cluster that a node has named: a node with an earlier one was cut off, and its map is old.
    epoch: AtomicU64,
    /// How often a thread has found that a slot has another master.
    changes: AtomicU64,
}

/// How much a node knows of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    epoch: u64,
    /// Whether it takes commands; one that hears too few others does not.
    is_ok: bool,
}

impl Standing {
    /// From the answer to `CLUSTER INFO`.
    fn read(value: &Value<'_>) -> Option<Self> {
        let line = |name: &str| value.text()?.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let epoch = line("cluster_current_epoch")?.parse().ok()?;
        Some(Self { epoch, is_ok: line("cluster_state") == Some("ok") })
    }
}

impl Cluster {
    pub(super) fn new(seeds: Vec<Node>, login: Arc<Login>) -> Self {
        let (known, turn) = (Mutex::default(), AtomicUsize::new(0));
        Self { seeds, login, known, turn, epoch: AtomicU64::new(0), changes: AtomicU64::new(0) }
    }

    /// A thread has found that a slot has another master; the other has to look, too, since where a master is cut off a
    /// subscription to it is silent and does not end.
    pub(super) fn change(&self) {
        self.changes.fetch_add(1, SeqCst);
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(SeqCst)
    }

    /// Asks one node after another, until one knows as much as any before; otherwise the one that knows most is believed. This
    /// blocks.
    pub(super) fn find(&self) -> io::Result<Chart> {
        let mut nodes = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        nodes.extend(self.seeds.iter().cloned());
        let first = self.turn.fetch_add(1, SeqCst);
        let mut best = Err(io::Error::other("no node of the cluster is named"));
        for i in 0..nodes.len() {
            match (self.ask(&nodes[(first + i) % nodes.len()]), &best) {
                (Ok((standing, chart)), _) if standing.is_ok && standing.epoch >= self.epoch.load(SeqCst) => {
                    best = Ok((standing, chart));
                    break;
                }
                (Ok(found), Ok((known, _))) if found.0 > *known => best = Ok(found),
                (found, Err(_)) => best = found,
                _ => {}
            }
        }
        let (standing, chart) = best?;
        self.epoch.store(standing.epoch, SeqCst);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&chart.masters);
        Ok(chart)
    }

    fn ask(&self, node: &Node) -> io::Result<(Standing, Chart)> {
        let standing = inquiry::ask(node, &self.login, &["CLUSTER", "INFO"], |value| Standing::read(&value))?;
        let chart = inquiry::ask(node, &self.login, &["CLUSTER", "SLOTS"], |value| Chart::read(value, node))?;
        Ok((standing, chart))
    }
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

    /// A node that stands like this and has all slots. It lives as long as the test.
    fn node(standing: &str) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let info = format!("${}\r\n{standing}\r\n", standing.len());
        let slots = "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:PORT\r\n".replace("PORT", &port.to_string());
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let word = BufReader::new(&stream).lines().nth(4).unwrap().unwrap();
                let _ = (&stream).write_all(if word == "INFO" { info.as_bytes() } else { slots.as_bytes() });
            }
        });
        Node { host: "127.0.0.1".to_owned(), port }
    }

    #[test]
    fn a_node_that_was_cut_off_is_not_believed_while_there_is_another() {
        let text = |epoch: u64, state: &str| format!("cluster_state:{state}\r\ncluster_current_epoch:{epoch}\r\n");
        let [old, new, deaf] = [text(3, "ok"), text(7, "ok"), text(9, "fail")].map(|text| node(&text));
        let gone = Node { host: "127.0.0.1".to_owned(), port: 1 };
        let masters = |cluster: &Cluster| cluster.find().unwrap().masters;
        let cluster = Cluster::new(vec![new.clone(), gone.clone(), old.clone()], Arc::default());
        for _ in 0..5 {
            assert_eq!(masters(&cluster), std::slice::from_ref(&new));
        }
        // Where nobody is better it has to do.
        let cluster = Cluster::new(vec![gone.clone(), deaf.clone()], Arc::default());
        assert_eq!(masters(&cluster), [deaf]);
        assert!(Cluster::new(vec![gone], Arc::default()).find().is_err());
        assert_eq!(masters(&Cluster::new(vec![old.clone()], Arc::default())), [old]);
    }

    #[test]
    fn a_chart_is_read_and_what_is_none_refused() {
        let asked = Node { host: "here".to_owned(), port: 1 };
        let read = |text: &str| {
            let (value, _) = super::super::resp::parse(text.as_bytes()).unwrap().unwrap();
            Chart::read(value, &asked)
        };
        let chart = read(
            "*2\r\n*4\r\n:0\r\n:9\r\n*4\r\n$1\r\na\r\n:7\r\n$2\r\nid\r\n*0\r\n*2\r\n$1\r\nr\r\n:8\r\n\
             *3\r\n:11\r\n:16383\r\n*2\r\n$0\r\n\r\n:9\r\n",
        );
        let chart = chart.unwrap();
        assert_eq!(chart.masters.iter().map(Node::to_string).collect::<Vec<_>>(), ["a:7", "here:9"]);
        assert_eq!([0, 9, 10, 11, 16383].map(|slot| chart.owners[slot]), [Some(0), Some(0), None, Some(1), Some(1)]);
        for bad in ["+OK\r\n", "*1\r\n:1\r\n", "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:7\r\n"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn slots_are_those_of_redis() {
        for (key, number) in [("123456789", 0x31c3), ("roomcast:{123456789}:meta", 0x31c3), ("foo", 12182)] {
            assert_eq!(slot(key), number, "{key}");
        }
    }
}
