//! Who holds the log of a room: blocked members, and members with a pin.

use crate::room_log::Offset;

use super::{BLOCKED, LiveMember, Members};
use crate::hub::holds::Holds;
use crate::hub::index::{CatchUpIndex, LiveIndex, Place};
use crate::hub::reader::{CatchUp, CatchUpStep};

impl Members {
    /// The blocked members, by their cursors.
    #[cfg(test)]
    pub(in crate::hub) fn blocked(&self) -> impl Iterator<Item = LiveMember> {
        self.holds.iter().flat_map(|holds| holds.blocked.iter()).filter_map(|at| self.live(at))
    }

    /// Where those stand that hold the log, at most one blocked member and one pin: nobody else holds it from further
    /// forward.
    pub(in crate::hub) fn lowest_holds(&self) -> impl Iterator<Item = Offset> {
        self.holds.iter().flat_map(|holds| [holds.blocked.lowest(), holds.pinned.lowest()]).flatten()
    }

    /// The place of a live member whose socket refused bytes.
    pub(in crate::hub) fn blocked_at(&self, place: Place) -> Option<LiveIndex> {
        match place {
            Place::CatchingUp(_) => None,
            Place::Live(at) => self.live(at).is_some_and(LiveMember::is_blocked).then_some(at),
        }
    }

    /// How many live members are blocked.
    pub(in crate::hub) fn blocked_count(&self) -> usize {
        self.holds.as_ref().map_or(0, |holds| holds.blocked.len())
    }

    /// How many blocked members and pins hold the log.
    pub(in crate::hub) fn holds_count(&self) -> usize {
        self.holds.as_ref().map_or(0, |holds| holds.blocked.len() + holds.pinned.len())
    }

    /// A blocked member, of those that hold most of the log.
    pub(in crate::hub) fn lowest_blocked(&self) -> Option<LiveIndex> {
        self.holds.as_ref()?.blocked.first()
    }

    /// The member that catches up and has the lowest pin loses it, unless a blocked member holds more of the log, which begins at
    /// `front`; it will read more pages instead. Says whether one did.
    pub(in crate::hub) fn drop_lowest_pin(&mut self, front: Offset) -> bool {
        let Some(holds) = &mut self.holds else { return false };
        let Some((offset, at)) = holds.pinned.lowest().zip(holds.pinned.first()) else { return false };
        if holds.blocked.lowest().is_some_and(|blocked| front.behind(blocked) < front.behind(offset)) {
            return false;
        }
        holds.pinned.remove(offset, at);
        if let Some(CatchUp { step: CatchUpStep::Page { pin, .. }, .. }) = self.catching_up.get_mut(at.0 as usize) {
            *pin = None;
        }
        self.forget_holds();
        true
    }

    /// The socket of a live member refused bytes.
    pub(in crate::hub) fn block(&mut self, at: LiveIndex) {
        if let Some(member) = self.live.get_mut(at.0 as usize).filter(|member| !member.is_blocked()) {
            member.slot_and_blocked |= BLOCKED;
            self.holds.get_or_insert_default().blocked.insert(member.cursor, at);
        }
    }

    /// The socket of a blocked member has taken what the log holds up to `cursor`.
    pub(in crate::hub) fn advance_blocked(&mut self, at: LiveIndex, cursor: Offset) {
        if let Some((member, holds)) = self.blocked_mut(at) {
            holds.blocked.remove(member.cursor, at);
            member.cursor = cursor;
            holds.blocked.insert(cursor, at);
        }
    }

    /// The socket of a live member has taken all that the log holds for it.
    pub(in crate::hub) fn unblock(&mut self, at: LiveIndex) {
        if let Some((member, holds)) = self.blocked_mut(at) {
            member.slot_and_blocked &= !BLOCKED;
            holds.blocked.remove(member.cursor, at);
        }
        self.forget_holds();
    }

    fn blocked_mut(&mut self, at: LiveIndex) -> Option<(&mut LiveMember, &mut Holds)> {
        let member = self.live.get_mut(at.0 as usize).filter(|member| member.is_blocked())?;
        Some((member, self.holds.as_deref_mut()?))
    }

    /// Nobody holds the log most of the time.
    pub(super) fn forget_holds(&mut self) {
        if self.holds.as_ref().is_some_and(|holds| holds.blocked.is_empty() && holds.pinned.is_empty()) {
            self.holds = None;
        }
    }

    /// Whether a member that waits for a page will go on in the log.
    pub(in crate::hub) fn has_pins(&self) -> bool {
        self.holds.as_ref().is_some_and(|holds| !holds.pinned.is_empty())
    }

    /// Members that catch up lose their place in the log; they will read more pages instead.
    pub(in crate::hub) fn drop_pins(&mut self) {
        let Some(holds) = &mut self.holds else { return };
        for at in std::mem::take(&mut holds.pinned).iter() {
            if let Some(CatchUp { step: CatchUpStep::Page { pin, .. }, .. }) = self.catching_up.get_mut(at.0 as usize) {
                *pin = None;
            }
        }
        self.forget_holds();
    }

    pub(super) fn drop_pin(&mut self, at: CatchUpIndex) {
        let pinned = self.catch_up(at).and_then(|member| member.step.pinned());
        if let Some((pinned, holds)) = pinned.zip(self.holds.as_mut()) {
            holds.pinned.remove(pinned, at);
            self.forget_holds();
        }
    }
}
