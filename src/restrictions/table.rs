//! The table of restrictions that are in force: looked up by user and by address, loaded page by page, and emptied of what
//! has expired.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;

use super::{Network, PeerAddress, Restriction, RestrictionTarget};
use crate::id::{RoomName, UserId};

/// Which restrictions a list has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestrictionKind {
    Bans,
    Mutes,
}

/// What is known of a restriction beside its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) reason: Option<Box<str>>,
    /// When it expires, in Unix milliseconds.
    pub(crate) expires_at: Option<u64>,
}

impl Term {
    fn is_over(&self, unix_ms: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= unix_ms)
    }

    /// Of two the one that lasts longer comes later.
    fn end(&self) -> u64 {
        self.expires_at.unwrap_or(u64::MAX)
    }
}

/// What tells of a restriction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Teller {
    /// A page of the load under way, or of an earlier one.
    Page,
    /// A message that came after the beginning of the load. All later changes come as messages, too, so that no page is needed any more.
    Message,
}

#[derive(Debug)]
struct Entry {
    /// None if it was lifted during a load: a page that was read before might bring it back otherwise.
    term: Option<Term>,
    /// The load in which it was last told of.
    load: u32,
    teller: Teller,
}

/// How far the load of the table has come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Load {
    /// Nothing is known yet, or the first load is under way.
    First,
    Idle,
    /// Pages come. What was known before holds meanwhile.
    Again,
    /// All pages have come. What none of them had goes; the targets up to this one were looked at.
    Sweeping(Option<RestrictionTarget>),
}

/// All restrictions, by target.
///
/// **Bounds:** the bus bounds how many there are. A look-up by address takes one step for each length of prefix that is in
/// use, at most 33 for IPv4 and 129 for IPv6.
#[derive(Debug)]
pub(crate) struct Restrictions {
    entries: BTreeMap<RestrictionTarget, Entry>,
    expiries: BTreeSet<(u64, RestrictionTarget)>,
    /// How many networks there are of each length: of IPv4, and of IPv6.
    prefixes: [BTreeMap<u8, u32>; 2],
    /// How many entries were lifted and are still there.
    lifted: usize,
    load: Load,
    loads: u32,
}

impl Default for Restrictions {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            expiries: BTreeSet::new(),
            prefixes: [BTreeMap::new(), BTreeMap::new()],
            lifted: 0,
            load: Load::First,
            loads: 0,
        }
    }
}

impl Restrictions {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.lifted
    }

    /// Whether they were loaded once, so that who is not among them is not restricted.
    pub(crate) fn are_loaded(&self) -> bool {
        self.load != Load::First
    }

    pub(crate) fn contains(&self, target: &RestrictionTarget) -> bool {
        self.entries.get(target).is_some_and(|entry| entry.term.is_some())
    }

    /// A restriction that is in force.
    pub(crate) fn find(&self, unix_ms: u64, target: &RestrictionTarget) -> Option<&Term> {
        self.entries.get(target)?.term.as_ref().filter(|term| !term.is_over(unix_ms))
    }

    /// The ban of a user.
    pub(crate) fn ban_of_user(&self, unix_ms: u64, user: &UserId) -> Option<&Term> {
        self.find(unix_ms, &RestrictionTarget::BannedUser(user.clone()))
    }

    /// The ban of an address, of which several may be the cause; the one of the smallest network counts.
    pub(crate) fn ban_of_address(&self, unix_ms: u64, address: PeerAddress) -> Option<&Term> {
        let mut lengths = self.prefixes[usize::from(IpAddr::from(address).is_ipv6())].keys().rev();
        lengths.find_map(|bits| self.find(unix_ms, &RestrictionTarget::BannedNetwork(Network::of(address, *bits))))
    }

    /// The mute of a user in a room; of two the one that lasts longer.
    pub(crate) fn mute(&self, unix_ms: u64, user: &UserId, room: &RoomName) -> Option<&Term> {
        let find = |room| self.find(unix_ms, &RestrictionTarget::Muted { user: user.clone(), room });
        [find(None), find(Some(room.clone()))].into_iter().flatten().max_by_key(|term| term.end())
    }

    /// Whether a user is muted anywhere, or was a moment ago.
    pub(crate) fn has_mutes(&self, user: &UserId) -> bool {
        let first = RestrictionTarget::Muted { user: user.clone(), room: None };
        let next = self.entries.range(first..).next();
        next.is_some_and(|(target, _)| matches!(target, RestrictionTarget::Muted { user: of, .. } if of == user))
    }

    /// A message tells of a restriction.
    pub(crate) fn put(&mut self, restriction: Restriction) {
        self.insert(restriction, Teller::Message);
    }

    /// A message tells that a restriction is lifted.
    pub(crate) fn lift(&mut self, target: &RestrictionTarget) {
        self.remove(target);
        if matches!(self.load, Load::First | Load::Again) {
            self.entries.insert(target.clone(), Entry { term: None, load: self.loads, teller: Teller::Message });
            self.lifted += 1;
        }
    }

    /// All are about to be told page by page. What is known holds until all pages have come.
    pub(crate) fn begin_load(&mut self) {
        self.loads = self.loads.wrapping_add(1);
        if self.load != Load::First {
            self.load = Load::Again;
        }
    }

    /// A page of a load has this one. What a message has told since the load began stands: the page may be older.
    pub(crate) fn load(&mut self, restriction: Restriction) {
        if !self.entries.get(&restriction.target).is_some_and(|entry| self.is_newest(entry)) {
            self.insert(restriction, Teller::Page);
        }
    }

    /// All pages have come.
    pub(crate) fn end_load(&mut self) {
        self.load = if self.entries.is_empty() { Load::Idle } else { Load::Sweeping(None) };
    }

    /// Whether [`Restrictions::sweep`] has something to do.
    pub(crate) fn is_sweeping(&self) -> bool {
        matches!(self.load, Load::Sweeping(_))
    }

    /// Looks at up to `max` entries after a load. Those that it did not have go, and are returned.
    pub(crate) fn sweep(&mut self, max: usize) -> Vec<RestrictionTarget> {
        let Load::Sweeping(last) = &self.load else { return Vec::new() };
        let from = last.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let (mut looked, mut last, mut gone) = (0, None, Vec::new());
        for (target, entry) in self.entries.range((from, Bound::Unbounded)).take(max) {
            looked += 1;
            if entry.load != self.loads || entry.term.is_none() {
                gone.push(target.clone());
            }
            last = Some(target);
        }
        self.load = if looked < max { Load::Idle } else { Load::Sweeping(last.cloned()) };
        gone.iter().for_each(|target| self.remove(target));
        gone
    }

    /// When the next one expires, in Unix milliseconds.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// Removes one that has expired, and returns its target.
    pub(crate) fn expire(&mut self, unix_ms: u64) -> Option<RestrictionTarget> {
        let (_, target) = self.expiries.first().filter(|(at, _)| *at <= unix_ms)?;
        let target = target.clone();
        if self.entries.get(&target).is_some_and(|entry| self.is_newest(entry)) {
            // An older part of the load may still come.
            self.lift(&target);
        } else {
            self.remove(&target);
        }
        Some(target)
    }

    /// Those of a kind that are in force, in their order, from behind a target on.
    pub(crate) fn list(
        &self,
        unix_ms: u64,
        kind: RestrictionKind,
        after: Option<RestrictionTarget>,
    ) -> impl Iterator<Item = (&RestrictionTarget, &Term)> {
        let is_mute = |target: &RestrictionTarget| matches!(target, RestrictionTarget::Muted { .. });
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.entries.range((from, Bound::Unbounded)).filter_map(move |(target, entry)| {
            entry.term.as_ref().filter(|term| !term.is_over(unix_ms)).map(|term| (target, term))
        });
        found.filter(move |(target, _)| is_mute(target) == (kind == RestrictionKind::Mutes))
    }

    /// Whether a message has told of an entry since the load began.
    fn is_newest(&self, entry: &Entry) -> bool {
        entry.load == self.loads && entry.teller == Teller::Message
    }

    fn insert(&mut self, restriction: Restriction, teller: Teller) {
        let Restriction { target, reason, expires_at } = restriction;
        self.remove(&target);
        if let RestrictionTarget::BannedNetwork(network) = target {
            *self.prefixes[usize::from(!network.is_ipv4())].entry(network.bits()).or_default() += 1;
        }
        if let Some(at) = expires_at {
            self.expiries.insert((at, target.clone()));
        }
        let term = Some(Term { reason: reason.map(Into::into), expires_at });
        self.entries.insert(target, Entry { term, load: self.loads, teller });
    }

    fn remove(&mut self, target: &RestrictionTarget) {
        let Some(entry) = self.entries.remove(target) else { return };
        let Some(term) = entry.term else {
            self.lifted -= 1;
            return;
        };
        if let Some(at) = term.expires_at {
            self.expiries.remove(&(at, target.clone()));
        }
        if let RestrictionTarget::BannedNetwork(network) = target {
            let lengths = &mut self.prefixes[usize::from(!network.is_ipv4())];
            if let Some(count) = lengths.get_mut(&network.bits()) {
                *count -= 1;
                if *count == 0 {
                    lengths.remove(&network.bits());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn room(name: &str) -> RoomName {
        RoomName::new(name).unwrap()
    }

    fn ban(name: &str) -> Restriction {
        Restriction::new(RestrictionTarget::BannedUser(user(name)))
    }

    fn mute(name: &str, room: Option<RoomName>, expires_at: Option<u64>) -> Restriction {
        let target = RestrictionTarget::Muted { user: user(name), room };
        Restriction { expires_at, ..Restriction::new(target) }
    }

    fn network(text: &str) -> Restriction {
        Restriction::new(RestrictionTarget::BannedNetwork(text.parse().unwrap()))
    }

    fn address(text: &str) -> PeerAddress {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn loaded() -> Restrictions {
        let mut table = Restrictions::default();
        table.begin_load();
        table.end_load();
        assert!(table.sweep(8).is_empty() && table.are_loaded());
        table
    }

    #[test]
    fn an_address_is_found_by_the_smallest_network_that_is_banned() {
        let mut table = loaded();
        for (text, reason) in [("10.0.0.0/8", "eight"), ("10.1.2.0/24", "small"), ("2001:db8::/32", "six")] {
            table.put(Restriction { reason: Some(reason.to_owned()), ..network(text) });
        }
        let found = |table: &Restrictions, text| {
            table.ban_of_address(0, address(text)).map(|term| term.reason.clone().unwrap().to_string())
        };
        assert_eq!(found(&table, "10.1.2.3").as_deref(), Some("small"));
        assert_eq!(found(&table, "10.9.2.3").as_deref(), Some("eight"));
        assert_eq!(found(&table, "::ffff:10.9.2.3").as_deref(), Some("eight"));
        assert_eq!(found(&table, "2001:db8:7::1").as_deref(), Some("six"));
        assert_eq!((found(&table, "11.0.0.1"), found(&table, "2001:db9::1")), (None, None));
        // Lengths that are not in use any more cost nothing.
        for text in ["10.0.0.0/8", "10.1.2.0/24", "2001:db8::/32"] {
            table.lift(&network(text).target);
        }
        assert!(table.prefixes.iter().all(BTreeMap::is_empty) && table.len() == 0);
    }

    #[test]
    fn a_mute_holds_in_its_room_or_everywhere_and_the_longer_one_counts() {
        let mut table = loaded();
        let end = |table: &Restrictions, name: &str, unix_ms| {
            table.mute(unix_ms, &user("ann"), &room(name)).map(|term| term.expires_at)
        };
        table.put(mute("ann", Some(room("a")), Some(10)));
        assert_eq!((end(&table, "a", 9), end(&table, "a", 10), end(&table, "b", 9)), (Some(Some(10)), None, None));
        table.put(mute("ann", None, Some(20)));
        assert_eq!((end(&table, "a", 9), end(&table, "b", 9)), (Some(Some(20)), Some(Some(20))));
        table.put(mute("ann", Some(room("a")), None));
        assert_eq!((end(&table, "a", 99), end(&table, "b", 99)), (Some(None), None));
        assert!(table.has_mutes(&user("ann")) && !table.has_mutes(&user("an")) && !table.has_mutes(&user("anna")));
        assert_eq!(table.mute(0, &user("bob"), &room("a")), None);
    }

    #[test]
    fn what_has_expired_is_not_found_and_goes_one_by_one() {
        let mut table = loaded();
        for at in 1..=3 {
            table.put(mute(&format!("u{at}"), None, Some(at)));
        }
        table.put(mute("u1", None, Some(7)));
        assert_eq!((table.next_expiry(), table.len()), (Some(2), 3));
        assert_eq!(table.list(3, RestrictionKind::Mutes, None).count(), 1, "before they have gone");
        assert_eq!(table.expire(3), Some(mute("u2", None, None).target));
        assert_eq!(table.expire(3), Some(mute("u3", None, None).target));
        assert_eq!((table.expire(3), table.len(), table.next_expiry()), (None, 1, Some(7)));
    }

    #[test]
    fn lists_are_in_order_and_go_on_behind_any_target() {
        let mut table = loaded();
        for name in ["d", "a", "c"] {
            table.put(ban(name));
            table.put(mute(name, None, None));
        }
        table.put(network("10.0.0.0/8"));
        let bans = |after: Option<RestrictionTarget>| {
            table.list(0, RestrictionKind::Bans, after).map(|(target, _)| target.key()).collect::<Vec<_>>()
        };
        assert_eq!(bans(None), ["ban user a", "ban user c", "ban user d", "ban network 10.0.0.0/8"]);
        assert_eq!(bans(Some(ban("b").target)), ["ban user c", "ban user d", "ban network 10.0.0.0/8"]);
        let mutes = |after| table.list(0, RestrictionKind::Mutes, after).map(|(target, _)| target.key()).last();
        assert_eq!((mutes(None).as_deref(), mutes(Some(mute("d", None, None).target))), (Some("mute d"), None));
    }

    #[test]
    fn a_load_replaces_all_but_what_messages_have_told_since_it_began() {
        let mut table = Restrictions::default();
        table.begin_load();
        table.load(ban("old"));
        assert!(!table.are_loaded());
        table.end_load();
        table.put(ban("gone"));
        table.sweep(8);
        table.begin_load();
        assert!(table.are_loaded() && table.contains(&ban("old").target), "what was known holds meanwhile");
        // A page may have been read before or after these.
        table.put(Restriction { expires_at: Some(9), ..ban("new") });
        table.lift(&ban("lifted").target);
        table.lift(&ban("again").target);
        table.put(ban("again"));
        for name in ["new", "lifted", "again", "kept"] {
            table.load(ban(name));
        }
        table.end_load();
        // Messages go on while what is left over is swept.
        table.put(ban("a-late"));
        let mut gone = Vec::new();
        while table.is_sweeping() {
            gone.extend(table.sweep(1).iter().map(RestrictionTarget::key));
        }
        assert_eq!(gone, ["ban user gone", "ban user lifted", "ban user old"]);
        let left: Vec<_> = table.list(0, RestrictionKind::Bans, None).map(|(target, _)| target.key()).collect();
        assert_eq!(left, ["ban user a-late", "ban user again", "ban user kept", "ban user new"]);
        assert_eq!((table.len(), table.find(9, &ban("new").target)), (4, None));
    }

    #[test]
    fn what_expires_during_a_load_does_not_come_back_in_an_older_form_and_may_in_a_newer_one() {
        let mut table = loaded();
        table.put(mute("stale", None, Some(5)));
        table.begin_load();
        table.put(mute("ann", None, Some(5)));
        assert!(table.expire(5).is_some() && table.expire(5).is_some() && table.expire(5).is_none());
        // The message was newer than the part; of the other one nothing was told since the load began.
        table.load(mute("ann", None, None));
        table.load(mute("stale", None, None));
        table.end_load();
        while table.is_sweeping() {
            table.sweep(8);
        }
        let left: Vec<_> = table.list(5, RestrictionKind::Mutes, None).map(|(target, _)| target.key()).collect();
        assert_eq!((left, table.len()), (vec!["mute stale".to_owned()], 1));
    }

    #[test]
    fn a_load_that_begins_anew_forgets_what_it_had() {
        let mut table = loaded();
        table.begin_load();
        table.load(ban("first"));
        table.lift(&ban("x").target);
        table.begin_load();
        table.load(ban("second"));
        table.load(ban("x"));
        table.end_load();
        table.sweep(8);
        let left: Vec<_> = table.list(0, RestrictionKind::Bans, None).map(|(target, _)| target.key()).collect();
        assert_eq!((left, table.len()), (vec!["ban user second".to_owned(), "ban user x".to_owned()], 2));
    }
}
