//! A client's view of one room, and checks of everything that the server says about it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::coverage::Coverage;
use super::truth::Position;

/// A client's sight of one room, over one connection.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) phase: Phase,
    joins: Vec<Join>,
    leaves: Vec<String>,
    /// Messages before `joined`. Only `joined` tells whether they follow the earlier ones.
    provisional: Vec<Position>,
    /// The first so many of them are tombstones. Those of two epochs may be equal, so only `joined` tells theirs.
    tombstones_first: usize,
    /// Whether the provisional messages were declared void. The answer to the join then does not claim that
    /// everything was recovered.
    is_restarted: bool,
    /// Whether a message did not follow the one before, so that a `joined` has to come.
    has_hole: bool,
    /// A message that the server has left out, because its history does not hold it any more.
    pub(crate) left_out: Option<Position>,
    /// The users online, while the room lists them.
    pub(crate) users: Option<BTreeSet<String>>,
    pub(crate) count: usize,
    /// It was told that it is taken out; `left` follows.
    is_removed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Out,
    /// Joined; everything up to there has come.
    Live(Position),
}

/// A `join` that is not answered yet.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) id: String,
    /// The position to resume after: an epoch that the server knows or not, and a number.
    pub(crate) since: Option<(Option<usize>, u64)>,
    /// Whether this server has told it that position: then it has no excuse for not knowing it.
    pub(crate) is_told: bool,
}

/// A `joined`, with its epoch as a number.
#[derive(Debug)]
pub(crate) struct Joined<'a> {
    pub(crate) at: Position,
    pub(crate) recovered: Option<bool>,
    pub(crate) id: Option<&'a str>,
}

type Checked = Result<(), String>;

impl View {
    pub(crate) fn join_sent(&mut self, join: Join) {
        self.joins.push(join);
    }

    pub(crate) fn leave_sent(&mut self, id: String) {
        self.leaves.push(id);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        !self.leaves.is_empty()
    }

    pub(crate) fn is_in(&self) -> bool {
        self.phase != Phase::Out
    }

    /// Whether nothing is under way: no request unanswered, no hole unexplained.
    pub(crate) fn is_settled(&self) -> bool {
        self.joins.is_empty()
            && self.leaves.is_empty()
            && !self.is_removed
            && self.provisional.is_empty()
            && !self.has_hole
    }

    /// The last position up to which the client has everything.
    pub(crate) fn position(&self) -> Option<Position> {
        match self.phase {
            Phase::Live(at) => Some(at),
            Phase::Out => None,
        }
    }

    /// The epoch of what came last.
    pub(crate) fn epoch(&self) -> Option<usize> {
        self.provisional.last().copied().or(self.position()).map(|at| at.epoch)
    }

    /// Something of the room was received that only members are sent.
    pub(crate) fn on_any(&self, kind: &str) -> Checked {
        if self.phase == Phase::Out && self.joins.is_empty() {
            return Err(format!("{kind} in a room that the client is not in"));
        }
        Ok(())
    }

    /// What comes next is a tombstone.
    pub(crate) fn expect_tombstone(&mut self) {
        if self.phase == Phase::Out && self.provisional.len() == self.tombstones_first {
            self.tombstones_first += 1;
        }
    }

    pub(crate) fn on_chat(&mut self, at: Position) -> Checked {
        self.on_any("chat")?;
        match &mut self.phase {
            Phase::Live(last) if !self.has_hole && at == last.next() => *last = at,
            Phase::Live(last) if !self.has_hole && at.epoch == last.epoch && at.seq <= last.seq => {
                return Err(format!("{at:?} came again after {last:?}"));
            }
            Phase::Live(_) => {
                self.has_hole = true;
                self.provisional.push(at);
            }
            Phase::Out => self.provisional.push(at),
        }
        Ok(())
    }

    pub(crate) fn on_joined(&mut self, joined: &Joined<'_>, coverage: &mut Coverage) -> Checked {
        let asked = joined.id.and_then(|id| self.joins.iter().position(|join| join.id == id));
        let of_any_epoch = std::mem::take(&mut self.tombstones_first).min(self.provisional.len());
        self.provisional[..of_any_epoch].iter_mut().for_each(|at| at.epoch = joined.at.epoch);
        match asked {
            Some(asked) => {
                let join = self.joins.remove(asked);
                self.check_asked(&join, joined, coverage)?;
            }
            None if joined.id.is_some() => return Err(format!("joined to no join: {joined:?}")),
            None => self.check_unasked(joined, coverage)?,
        }
        self.has_hole = false;
        if asked.is_none() && self.phase == Phase::Out {
            self.provisional.clear();
            self.is_restarted = true;
            return Ok(());
        }
        self.phase = Phase::Live(joined.at);
        self.is_restarted = false;
        self.provisional.clear();
        Ok(())
    }

    fn check_asked(&mut self, join: &Join, joined: &Joined<'_>, coverage: &mut Coverage) -> Checked {
        if self.phase != Phase::Out {
            return Err(format!("joined again without having left: {joined:?}"));
        }
        let Some((epoch, seq)) = join.since else {
            return match joined.recovered {
                None if !self.is_restarted => self.check_history(joined),
                Some(false) if self.is_restarted => self.check_history(joined),
                _ => Err(format!("without since, restarted {}: {joined:?}", self.is_restarted)),
            };
        };
        let is_same_epoch = epoch == Some(joined.at.epoch);
        let expected = (seq + 1..=joined.at.seq).map(|seq| Position { seq, ..joined.at });
        let is_whole = is_same_epoch && seq <= joined.at.seq && expected.eq(self.provisional.iter().copied());
        match joined.recovered {
            Some(true) if is_whole && !self.is_restarted => coverage.recovered += 1,
            Some(true) => {
                let since = join.since;
                return Err(format!("{joined:?} after {since:?}, but came {:?}", self.provisional));
            }
            Some(false) if is_whole && join.is_told => {
                return Err(format!("{joined:?}, though all came since {:?}", join.since));
            }
            Some(false) => {
                coverage.not_recovered += 1;
                self.check_history(joined)?;
                if is_same_epoch && join.is_told && seq < joined.at.seq {
                    self.left_out = Some(Position { seq: seq + 1, ..joined.at });
                }
            }
            None => return Err(format!("no recovered after since: {joined:?}")),
        }
        Ok(())
    }

    /// The messages before `joined` end where it says that the client stands, or are seen not to.
    fn check_history(&mut self, joined: &Joined<'_>) -> Checked {
        let is_next = |pair: &[Position]| pair[1] == pair[0].next();
        let is_of_epoch = |at: &Position| at.epoch == joined.at.epoch;
        if !self.provisional.windows(2).all(is_next) || !self.provisional.iter().all(is_of_epoch) {
            return Err(format!("{:?} is no piece of history before {joined:?}", self.provisional));
        }
        match self.provisional.last() {
            Some(last) if last.seq == joined.at.seq && last.epoch != joined.at.epoch => {
                Err(format!("{last:?} is taken for what precedes {joined:?}"))
            }
            Some(last) if last.epoch == joined.at.epoch && last.seq > joined.at.seq => {
                Err(format!("{last:?} came before {joined:?}"))
            }
            Some(last) if last.epoch == joined.at.epoch && last.seq < joined.at.seq => {
                self.left_out = Some(last.next());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_unasked(&mut self, joined: &Joined<'_>, coverage: &mut Coverage) -> Checked {
        let Phase::Live(last) = self.phase else {
            let is_restart = !self.joins.is_empty() && !self.provisional.is_empty() && joined.recovered == Some(false);
            coverage.restarted += u64::from(is_restart);
            return if is_restart { Ok(()) } else { Err(format!("unasked, though not in the room: {joined:?}")) };
        };
        match joined.recovered {
            None => Err(format!("unasked without recovered: {joined:?}")),
            Some(true) if self.has_hole => Err(format!("{joined:?} after {last:?}, then {:?}", self.provisional)),
            Some(true) if joined.at != last => Err(format!("{joined:?} after {last:?}")),
            Some(true) => {
                coverage.fell_back_and_recovered += 1;
                Ok(())
            }
            Some(false) => {
                coverage.told_of_holes += u64::from(joined.at.epoch == last.epoch);
                coverage.told_of_epochs += u64::from(joined.at.epoch != last.epoch);
                if joined.at.epoch == last.epoch {
                    self.left_out = Some(last.next());
                }
                Ok(())
            }
        }
    }

    pub(crate) fn on_removed(&mut self) -> Checked {
        if self.is_removed {
            return Err("removed twice".to_owned());
        }
        self.is_removed = true;
        Ok(())
    }

    pub(crate) fn on_left(&mut self, id: Option<&str>) -> Checked {
        if std::mem::take(&mut self.is_removed) {
            // With the id of a leave that waited for what was owed.
            let leaves = self.leaves.len();
            self.leaves.retain(|leave| Some(leave.as_str()) != id);
            self.leave_room();
            return if leaves == self.leaves.len() + usize::from(id.is_some()) {
                Ok(())
            } else {
                Err(format!("left to no leave: {id:?}"))
            };
        }
        let id = id.ok_or("left unasked, and not removed")?;
        let Some(at) = self.leaves.iter().position(|leave| leave == id) else {
            return Err(format!("left to no leave: {id}"));
        };
        self.leaves.remove(at);
        // A join that was still catching up has ended with it. Ids are numbered as they are sent.
        self.joins.retain(|join| number(&join.id) > number(id));
        self.leave_room();
        Ok(())
    }

    fn leave_room(&mut self) {
        self.phase = Phase::Out;
        (self.has_hole, self.is_restarted) = (false, false);
        self.provisional.clear();
        self.users = None;
    }

    /// A request was refused, perhaps one of this room.
    pub(crate) fn on_error(&mut self, id: &str, code: &str) {
        let before = self.joins.len();
        self.joins.retain(|join| join.id != id);
        self.leaves.retain(|leave| leave != id);
        // Messages that came before the join failed do not count.
        if self.joins.len() < before && code != "already_joined" {
            self.provisional.clear();
            self.is_restarted = false;
        }
    }

    pub(crate) fn on_presence(&mut self, user: &str, is_online: bool) {
        let Some(users) = &mut self.users else { return };
        if is_online {
            users.insert(user.to_owned());
        } else {
            users.remove(user);
        }
        self.count = users.len();
    }

    /// `count` and `users`, of `joined` or `members`.
    pub(crate) fn on_members(&mut self, message: &Value) -> Checked {
        self.count = message["count"].as_u64().ok_or("no count")? as usize;
        self.users = message.get("users").map(|users| {
            let users = users.as_array().into_iter().flatten();
            users.map(|user| user["userId"].as_str().unwrap_or_default().to_owned()).collect()
        });
        match &self.users {
            Some(users) if users.len() != self.count => Err(format!("count and users differ: {message}")),
            _ => Ok(()),
        }
    }
}

/// The number of an id: a letter and a number.
fn number(id: &str) -> Option<u64> {
    id.get(1..)?.parse().ok()
}
