//! Questions to the back-end: those that wait and those under way, fairly by the owners of the handshakes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rustc_hash::FxBuildHasher;

use crate::owner::Owner;
use crate::quota::Quota;

/// A question that waits until it may be asked.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) ticket: u64,
    pub(super) body: Vec<u8>,
    /// The uptime at which nobody waits for the answer any more.
    pub(super) until: Duration,
}

/// The questions of an owner that wait, by their tickets.
#[derive(Debug)]
struct WaitingLine {
    questions: BTreeMap<u64, Question>,
    rank: Rank,
}

/// Whose turn it is: first the owner that has the fewest questions under way, and of those the one that waits for its turn the
/// longest.
type Rank = (usize, u64);

/// Questions that wait, and those under way.
///
/// **Bounds:** all, and those under way. Of both each owner has a [quota](crate::quota).
#[derive(Debug)]
pub(super) struct QuestionQueue {
    all: Quota,
    under_way: Quota,
    lines: HashMap<Owner, WaitingLine, FxBuildHasher>,
    order: BTreeMap<Rank, Owner>,
    /// Of all questions, by their tickets.
    owners: HashMap<u64, Owner, FxBuildHasher>,
    turns: u64,
}

impl QuestionQueue {
    pub(super) fn new(pending_max: usize, under_way_max: usize) -> Self {
        Self {
            all: Quota::new(pending_max),
            under_way: Quota::new(under_way_max),
            lines: HashMap::default(),
            order: BTreeMap::new(),
            owners: HashMap::default(),
            turns: 0,
        }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.all.held() - self.under_way.held()
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way.held()
    }

    /// Whether an owner may have another question.
    pub(super) fn has_space(&self, owner: Owner) -> bool {
        self.all.has_space(owner, 1)
    }

    /// A question waits from now on.
    pub(super) fn push(&mut self, owner: Owner, question: Question) {
        self.all.charge(owner, 1);
        self.owners.insert(question.ticket, owner);
        if !self.lines.contains_key(&owner) {
            let rank = self.last_rank(owner);
            self.order.insert(rank, owner);
            self.lines.insert(owner, WaitingLine { questions: BTreeMap::new(), rank });
        }
        if let Some(line) = self.lines.get_mut(&owner) {
            line.questions.insert(question.ticket, question);
        }
    }

    /// The next question that may be asked; it is under way then.
    pub(super) fn start(&mut self) -> Option<Question> {
        // If this owner has too many under way for what is free, so have all others.
        let owner = *self.order.first_key_value()?.1;
        if !self.under_way.has_space(owner, 1) {
            return None;
        }
        let (_, question) = self.lines.get_mut(&owner)?.questions.pop_first()?;
        self.under_way.charge(owner, 1);
        self.note_change(owner);
        Some(question)
    }

    /// The question that was under way with a ticket has been answered.
    pub(super) fn end(&mut self, ticket: u64) {
        let Some(owner) = self.owners.remove(&ticket) else { return };
        self.all.release(owner, 1);
        self.under_way.release(owner, 1);
        self.note_change(owner);
    }

    /// Nobody waits for an answer any more. A question that waits is not asked; one under way stays until it is answered.
    pub(super) fn abandon(&mut self, ticket: u64) {
        let Some(owner) = self.owners.get(&ticket).copied() else { return };
        let waiting = self.lines.get_mut(&owner).and_then(|line| line.questions.remove(&ticket));
        if waiting.is_some() {
            self.owners.remove(&ticket);
            self.all.release(owner, 1);
            self.note_change(owner);
        }
    }

    /// An owner has fewer questions that wait, or more or fewer under way.
    fn note_change(&mut self, owner: Owner) {
        let rank = self.last_rank(owner);
        let Some(line) = self.lines.get_mut(&owner) else { return };
        self.order.remove(&line.rank);
        if line.questions.is_empty() {
            self.lines.remove(&owner);
        } else {
            line.rank = rank;
            self.order.insert(rank, owner);
        }
    }

    /// The rank of an owner behind those that have as many under way.
    fn last_rank(&mut self, owner: Owner) -> Rank {
        self.turns += 1;
        (self.under_way.held_by(owner), self.turns)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::owner::Owners;

    fn owner(number: u32) -> Owner {
        Owners::new(1).address(Ipv4Addr::from_bits(number).into())
    }

    fn push(queue: &mut QuestionQueue, number: u32, ticket: u64) {
        assert!(queue.has_space(owner(number)), "{ticket}");
        queue.push(owner(number), Question { ticket, body: Vec::new(), until: Duration::ZERO });
    }

    fn started(queue: &mut QuestionQueue) -> Vec<u64> {
        std::iter::from_fn(|| queue.start()).map(|question| question.ticket).collect()
    }

    /// Nothing is left of questions that are over.
    fn check_empty(queue: &QuestionQueue) {
        assert_eq!((queue.waiting(), queue.under_way()), (0, 0));
        assert!(queue.lines.is_empty() && queue.order.is_empty() && queue.owners.is_empty());
    }

    #[test]
    fn an_owner_that_has_fewer_under_way_is_first() {
        let mut queue = QuestionQueue::new(100, 10);
        (0..20).for_each(|ticket| push(&mut queue, 1, ticket));
        assert_eq!(started(&mut queue), [0, 1, 2, 3], "its quota");
        push(&mut queue, 2, 100);
        push(&mut queue, 3, 200);
        push(&mut queue, 2, 101);
        push(&mut queue, 2, 102);
        assert_eq!(started(&mut queue), [100, 200, 101], "some are left for newcomers");
        queue.end(0);
        assert_eq!(started(&mut queue), [] as [u64; 0]);
        for ticket in [1, 2, 100, 200, 101] {
            queue.end(ticket);
        }
        assert_eq!(started(&mut queue), [102, 4, 5, 6]);
    }

    #[test]
    fn the_bound_of_all_counts_those_under_way_whether_anybody_waits_for_them() {
        let mut queue = QuestionQueue::new(12, 4);
        (0..5).for_each(|ticket| push(&mut queue, 1, ticket));
        assert!(!queue.has_space(owner(1)) && queue.has_space(owner(2)));
        assert_eq!(started(&mut queue), [0, 1]);
        (0..5).for_each(|ticket| queue.abandon(ticket));
        assert_eq!((queue.waiting(), queue.under_way()), (0, 2));
        (5..8).for_each(|ticket| push(&mut queue, 1, ticket));
        assert!(!queue.has_space(owner(1)));
        assert_eq!(started(&mut queue), [] as [u64; 0]);
        (0..8).for_each(|ticket| queue.abandon(ticket));
        (0..8).for_each(|ticket| queue.end(ticket));
        check_empty(&queue);
    }

    #[test]
    fn owners_with_equally_many_under_way_take_turns() {
        let mut queue = QuestionQueue::new(1000, 1);
        for ticket in 0..10 {
            push(&mut queue, 1, ticket);
            push(&mut queue, 2, 100 + ticket);
        }
        let mut order = Vec::new();
        for _ in 0..20 {
            let [ticket] = started(&mut queue)[..] else { panic!("one at a time") };
            order.push(ticket);
            queue.end(ticket);
        }
        let expected: Vec<u64> = (0..10).flat_map(|ticket| [ticket, 100 + ticket]).collect();
        assert_eq!(order, expected);
        check_empty(&queue);
    }
}
