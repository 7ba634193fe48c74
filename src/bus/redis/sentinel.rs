//! A master that sentinels watch over: where it is they are asked before every connection.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::inquiry;
use super::resolver::{Place, Spot};
use super::resp::Value;
use super::target::{Login, Node};

/// See the [module](self). All links of a bus share one, so that they end up at the same master.
pub(super) struct Sentinels {
    nodes: Vec<Node>,
    master: String,
    login: Login,
    /// Where the next question begins: a sentinel that does not know yet what has happened is not asked twice in a row.
    turn: AtomicUsize,
    /// Where a link has found the master last; only links and lookups look at it, so that the lock holds up no loop.
    seat: Mutex<Option<Node>>,
    moves: AtomicU64,
    /// Whether the next look-up leads to the seat. Sentinels may call one server by different names: if each link went where
    /// the sentinel sends it whose turn it is, they could chase each other for ever.
    follows: AtomicBool,
}

impl Sentinels {
    /// `login` is for the sentinels, not for the master.
    pub(super) fn new(nodes: Vec<Node>, master: String, login: Login) -> Self {
        Self {
            nodes,
            master,
            login,
            turn: AtomicUsize::new(0),
            seat: Mutex::new(None),
            moves: AtomicU64::new(0),
            follows: AtomicBool::new(false),
        }
    }

    fn seat(&self) -> MutexGuard<'_, Option<Node>> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, sentinel: &Node) -> io::Result<Node> {
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &self.master];
        let master = inquiry::ask(sentinel, &self.login, &words, |value| match value {
            Value::Nil => Some(None),
            value => {
                let mut items = value.items()?;
                let host = items.next()?.text()?.to_owned();
                Some(Some(Node { host, port: items.next()?.number()?.try_into().ok()? }))
            }
        })?;
        master.ok_or_else(|| io::Error::other(format!("sentinel {sentinel} knows no master {}", self.master)))
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of sentinels", self.master)?;
        self.nodes.iter().try_for_each(|node| write!(f, " {node}"))
    }
}

impl Place for Sentinels {
    fn at_once(&self) -> Option<Spot> {
        None
    }

    fn find(&self) -> io::Result<Spot> {
        if self.follows.swap(false, SeqCst) {
            let seat = self.seat().clone();
            if let Some(node) = seat {
                return node.find();
            }
        }
        let first = self.turn.fetch_add(1, SeqCst);
        let mut result = Err(io::Error::other("there are no sentinels"));
        for i in 0..self.nodes.len() {
            let sentinel = &self.nodes[(first + i) % self.nodes.len()];
            result = self.ask(sentinel).and_then(|master| master.find());
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn is_of_master(&self) -> bool {
        true
    }

    fn arrive(&self, node: &Node) -> u64 {
        let mut seat = self.seat();
        if seat.as_ref() != Some(node) {
            *seat = Some(node.clone());
            self.moves.fetch_add(1, SeqCst);
        }
        self.moves.load(SeqCst)
    }

    fn moves(&self) -> u64 {
        self.moves.load(SeqCst)
    }

    fn follow(&self) {
        self.follows.store(true, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_arrives_elsewhere_is_noticed_by_those_that_stand() {
        let node = |port| Node { host: "redis".to_owned(), port };
        let sentinels = Sentinels::new(vec![node(26379)], "main".to_owned(), Login::default());
        let first = sentinels.arrive(&node(1));
        assert_eq!((sentinels.arrive(&node(1)), sentinels.moves()), (first, first));
        assert_ne!(sentinels.arrive(&node(2)), first);
        assert_ne!(sentinels.moves(), first);
        assert_eq!(sentinels.to_string(), "main of sentinels redis:26379");
    }

    #[test]
    fn a_link_that_follows_another_asks_no_sentinel_once() {
        let node = |port| Node { host: "127.0.0.1".to_owned(), port };
        let sentinels = Sentinels::new(vec![node(1)], "main".to_owned(), Login::default());
        sentinels.follow();
        assert!(sentinels.find().is_err(), "nobody has arrived anywhere");
        sentinels.arrive(&node(7));
        assert!(sentinels.find().is_err());
        sentinels.follow();
        assert!(matches!(sentinels.find().unwrap(), Spot::Tcp { node: found, .. } if found == node(7)));
        assert!(sentinels.find().is_err());
    }
}
