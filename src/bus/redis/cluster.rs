//! A Redis Cluster: which master has which slots, as its nodes say.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
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
    /// Where the next question begins: a node that was cut off does not know what has happened.
    turn: AtomicUsize,
}

impl Cluster {
    pub(super) fn new(seeds: Vec<Node>, login: Arc<Login>) -> Self {
        Self { seeds, login, known: Mutex::default(), turn: AtomicUsize::new(0) }
    }

    /// Asks one node after another. This blocks.
    pub(super) fn find(&self) -> io::Result<Chart> {
        let mut nodes = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        nodes.extend(self.seeds.iter().cloned());
        let first = self.turn.fetch_add(1, SeqCst);
        let mut result = Err(io::Error::other("no node of the cluster is named"));
        for i in 0..nodes.len() {
            let node = &nodes[(first + i) % nodes.len()];
            result = inquiry::ask(node, &self.login, &["CLUSTER", "SLOTS"], |value| Chart::read(value, node));
            if let Ok(chart) = &result
                && !chart.masters.is_empty()
            {
                self.known.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&chart.masters);
                break;
            }
        }
        result
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
    use super::*;

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
