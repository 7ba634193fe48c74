//! A master that is watched by sentinels. Before each connection, a sentinel is asked where the
//! master is.

#![expect(clippy::disallowed_types, reason = "only links and lookups take the lock, on threads of their own")]

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::blocking_query::blocking_query;
use super::endpoint::{Endpoint, HostPort, ResolvedAddress};
use super::hello::Login;
use super::resp::Value;

/// All links of a bus share one, so that they lead to the same master.
pub(crate) struct Sentinels {
    nodes: Vec<HostPort>,
    master: String,
    login: Login,
    /// The sentinel that the next lookup asks first. This way a sentinel that does not know about
    /// a failover yet is not asked twice in a row.
    turn: AtomicUsize,
    /// Where a link last found the master. Only links and lookups take this lock, so it never
    /// blocks the loop.
    master_at: Mutex<Option<HostPort>>,
    move_count: AtomicU64,
    /// Whether the next lookup returns `master_at`. Sentinels may know one server by different
    /// names. If each link used the name that it was told, the links could follow each other for
    /// ever.
    follows_move: AtomicBool,
}

impl Sentinels {
    /// `login` is for the sentinels, not for the master.
    pub(crate) fn new(nodes: Vec<HostPort>, master: String, login: Login) -> Self {
        Self {
            nodes,
            master,
            login,
            turn: AtomicUsize::new(0),
            master_at: Mutex::new(None),
            move_count: AtomicU64::new(0),
            follows_move: AtomicBool::new(false),
        }
    }

    fn master_at(&self) -> MutexGuard<'_, Option<HostPort>> {
        self.master_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, sentinel: &HostPort) -> io::Result<HostPort> {
        let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &self.master];
        let master = blocking_query(sentinel, &self.login, &command, |value| match value {
            Value::Nil => Some(None),
            value => {
                let mut items = value.items()?;
                let host = items.next()?.text()?.to_owned();
                Some(Some(HostPort { host, port: items.next()?.number()?.try_into().ok()? }))
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

impl Endpoint for Sentinels {
    fn known_address(&self) -> Option<ResolvedAddress> {
        None
    }

    fn resolve(&self) -> io::Result<ResolvedAddress> {
        if self.follows_move.swap(false, SeqCst) {
            let master_at = self.master_at().clone();
            if let Some(node) = master_at {
                return node.resolve();
            }
        }
        let first = self.turn.fetch_add(1, SeqCst);
        let mut result = Err(io::Error::other("there are no sentinels"));
        for i in 0..self.nodes.len() {
            let sentinel = &self.nodes[(first + i) % self.nodes.len()];
            result = self.ask(sentinel).and_then(|master| master.resolve());
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn requires_master(&self) -> bool {
        true
    }

    fn link_up(&self, node: &HostPort) -> u64 {
        let mut master_at = self.master_at();
        if master_at.as_ref() != Some(node) {
            *master_at = Some(node.clone());
            self.move_count.fetch_add(1, SeqCst);
        }
        self.move_count.load(SeqCst)
    }

    fn move_count(&self) -> u64 {
        self.move_count.load(SeqCst)
    }

    fn follow(&self) {
        self.follows_move.store(true, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_arrives_elsewhere_is_noticed_by_those_that_stand() {
        let node = |port| HostPort { host: "redis".to_owned(), port };
        let sentinels = Sentinels::new(vec![node(26379)], "main".to_owned(), Login::default());
        let first = sentinels.link_up(&node(1));
        assert_eq!((sentinels.link_up(&node(1)), sentinels.move_count()), (first, first));
        assert_ne!(sentinels.link_up(&node(2)), first);
        assert_ne!(sentinels.move_count(), first);
        assert_eq!(sentinels.to_string(), "main of sentinels redis:26379");
    }

    #[test]
    fn a_link_that_follows_another_asks_no_sentinel_once() {
        let node = |port| HostPort { host: "127.0.0.1".to_owned(), port };
        let sentinels = Sentinels::new(vec![node(1)], "main".to_owned(), Login::default());
        sentinels.follow();
        assert!(sentinels.resolve().is_err(), "nobody has arrived anywhere");
        sentinels.link_up(&node(7));
        assert!(sentinels.resolve().is_err());
        sentinels.follow();
        assert!(matches!(sentinels.resolve().unwrap(), ResolvedAddress::Tcp { node: found, .. } if found == node(7)));
        assert!(sentinels.resolve().is_err());
    }
}
