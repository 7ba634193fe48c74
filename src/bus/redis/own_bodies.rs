//! The bodies of publications of this node that are under way, by which it recognises their copies.

use std::collections::HashMap;

use bytes::Bytes;

use crate::owner::Owner;

use super::commands::PendingPublication;

/// Copies come over the subscription, most often before the answer that has their number. So they are recognised by their
/// bodies, which contain the time.
///
/// **Bound:** one entry for each publication that is not answered. The body is the publication's own.
#[derive(Debug, Default)]
pub(crate) struct OwnBodies {
    /// By the end of the body, which is enough to tell nearly all apart.
    bodies: HashMap<Bytes, OwnBody>,
}

#[derive(Debug)]
struct OwnBody {
    body: Bytes,
    serial: u64,
    owner: Owner,
}

/// So many bytes are hashed.
const END_BYTES: usize = 48;

fn end_of(body: &[u8]) -> usize {
    body.len().saturating_sub(END_BYTES)
}

impl OwnBodies {
    /// A publication is on its way. Of two with the same end one is forgotten: its copy is then like one of another node.
    pub(crate) fn note(&mut self, pending: &PendingPublication) {
        let (body, owner) = (pending.publication.body.clone(), pending.publication.owner);
        self.bodies.insert(body.slice(end_of(&body)..), OwnBody { body, serial: pending.serial, owner });
    }

    /// The owner of a message that is delivered, if it is a copy of a publication that is not answered.
    pub(crate) fn owner(&self, body: &[u8]) -> Option<Owner> {
        let own = self.bodies.get(&body[end_of(body)..])?;
        (own.body == body).then_some(own.owner)
    }

    /// A publication is answered.
    pub(crate) fn forget(&mut self, pending: &PendingPublication) {
        let body = &pending.publication.body;
        let end = &body[end_of(body)..];
        if self.bodies.get(end).is_some_and(|own| own.serial == pending.serial) {
            self.bodies.remove(end);
        }
        if self.bodies.is_empty() && self.bodies.capacity() > 1024 {
            self.bodies = HashMap::new();
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.bodies.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::message::{Publication, Ticket};
    use crate::id::{RoomName, UserId};
    use crate::owner::Owners;
    use crate::settings::RuleIndex;

    fn pending(serial: u64, owner: Owner, body: &str) -> PendingPublication {
        let (room, user) = (RoomName::new("lobby").unwrap(), UserId::new("ann").unwrap());
        let publication = Publication { room, user, owner, id: None, body: body.to_owned().into(), restriction: None };
        let (rule, at) = (RuleIndex::default(), std::time::Duration::ZERO);
        PendingPublication { ticket: Ticket(serial), publication, deletes: None, rule, serial, at }
    }

    #[test]
    fn a_copy_is_recognised_by_its_whole_body_until_the_publication_is_answered() {
        let owners = [1, 2].map(|key| Owners::new(1).api_key(&[key; 32]));
        let end = "x".repeat(END_BYTES);
        let (first, second) = (format!("first {end}"), format!("second {end}"));
        let mut own = OwnBodies::default();
        let publications =
            [pending(1, owners[0], "short"), pending(2, owners[0], &first), pending(3, owners[1], &second)];
        publications.iter().for_each(|pending| own.note(pending));
        assert_eq!(own.owner(b"short"), Some(owners[0]));
        assert_eq!(own.owner(first.as_bytes()), None, "the next one has the same end");
        assert_eq!(own.owner(second.as_bytes()), Some(owners[1]));
        assert_eq!((own.owner(end.as_bytes()), own.owner(b"")), (None, None));
        own.forget(&publications[1]);
        assert_eq!(own.owner(second.as_bytes()), Some(owners[1]));
        own.forget(&publications[2]);
        own.forget(&publications[0]);
        assert_eq!((own.owner(second.as_bytes()), own.len()), (None, 0));
    }
}
