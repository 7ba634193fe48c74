//! What users may do in rooms: rights, granted for rooms by the patterns of their names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use smol_str::SmolStr;

use crate::id::{NameError, RoomName, check_name, name_heap_bytes};

/// Something that a user may do in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// To become a member. Without it the others mean nothing.
    Join,
    /// To send messages.
    Say,
    /// To show that one is typing.
    Typing,
    /// To read what was said before one joined.
    History,
}

impl Right {
    const ALL: [Self; 4] = [Self::Say, Self::Typing, Self::History, Self::Join];

    fn bit(self) -> u8 {
        match self {
            Self::Say => 1,
            Self::Typing => 2,
            Self::History => 4,
            Self::Join => 8,
        }
    }
}

/// A set of rights; the empty one allows nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// All rights that there are.
    pub const ALL: Self = Self(15);

    /// Whether a right is among them.
    pub fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// Those of them that show nothing to others.
    pub(crate) fn silent(self) -> Self {
        Self(self.0 & !(Right::Say.bit() | Right::Typing.bit()))
    }

    /// The rights of a member, which has joined, in three bits.
    pub(crate) fn member_bits(self) -> u32 {
        u32::from(self.0 & 7)
    }

    /// The opposite of [`Rights::member_bits`].
    pub(crate) fn of_member(bits: u32) -> Self {
        Self(bits as u8 & 7 | Right::Join.bit())
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<T: IntoIterator<Item = Right>>(rights: T) -> Self {
        Self(rights.into_iter().fold(0, |bits, right| bits | right.bit()))
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Right::ALL.iter().filter(|right| self.has(**right))).finish()
    }
}

/// Rooms by name: `lobby` is one, `team-*` are all that begin with `team-`, `*` are all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomPattern(Pattern);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Name(RoomName),
    Prefix(SmolStr),
}

impl RoomPattern {
    /// Whether a room is among them.
    pub fn matches(&self, room: &RoomName) -> bool {
        match &self.0 {
            Pattern::Name(name) => name == room,
            Pattern::Prefix(prefix) => room.as_str().starts_with(prefix.as_str()),
        }
    }

    /// The least name that may be among them, in the order of bytes. Those that are among them follow it without others in between.
    pub(crate) fn beginning(&self) -> &str {
        match &self.0 {
            Pattern::Name(name) => name.as_str(),
            Pattern::Prefix(prefix) => prefix,
        }
    }

    /// How much of a name it says; a whole name is more than a beginning of the same length.
    pub(crate) fn rank(&self) -> (usize, bool) {
        match &self.0 {
            Pattern::Name(name) => (name.as_str().len(), true),
            Pattern::Prefix(prefix) => (prefix.len(), false),
        }
    }
}

impl fmt::Display for RoomPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pattern::Name(name) => write!(f, "{name}"),
            Pattern::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl FromStr for RoomPattern {
    type Err = NameError;

    /// Reads a name, with a star at its end or without.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let Some(prefix) = text.strip_suffix('*') else { return RoomName::new(text).map(Pattern::Name).map(Self) };
        if !prefix.is_empty() {
            check_name(prefix)?;
        }
        Ok(Self(Pattern::Prefix(prefix.into())))
    }
}

/// Rights in the rooms of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The rooms.
    pub rooms: RoomPattern,
    /// What is allowed there.
    pub rights: Rights,
}

/// The most grants of an identity. With names of 128 bytes they take 45 KiB.
#[cfg(any(feature = "tokens", feature = "webhook"))]
pub(crate) const GRANTS_MAX: usize = 256;

/// What a user may do in which rooms. In a room that several grants match, the rights of all of them count; in one that none
/// matches, nothing is allowed.
///
/// A clone costs no copy of the grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants(Arc<[Grant]>);

impl Grants {
    /// All rights in all rooms.
    pub fn everything() -> Self {
        let all = Grant { rooms: RoomPattern(Pattern::Prefix(SmolStr::default())), rights: Rights::ALL };
        Self::from_iter([all])
    }

    /// Checks that an identity from outside has no more than [`GRANTS_MAX`] of them.
    ///
    /// # Errors
    /// How many there are, and how many are allowed.
    #[cfg(any(feature = "tokens", feature = "webhook"))]
    pub(crate) fn check_count(&self) -> Result<(), String> {
        match self.0.len() {
            0..=GRANTS_MAX => Ok(()),
            found => Err(format!("{found} grants; {GRANTS_MAX} are allowed")),
        }
    }

    /// The memory that they take, once for all clones.
    pub(crate) fn held_bytes(&self) -> usize {
        let names = self.0.iter().map(|grant| name_heap_bytes(grant.rooms.beginning())).sum::<usize>();
        2 * size_of::<usize>() + self.0.len() * size_of::<Grant>() + names
    }

    /// What is allowed in a room.
    pub fn in_room(&self, room: &RoomName) -> Rights {
        let matching = self.0.iter().filter(|grant| grant.rooms.matches(room));
        Rights(matching.fold(0, |bits, grant| bits | grant.rights.0))
    }
}

impl Default for Grants {
    /// [`Grants::everything`], what an open server allows.
    fn default() -> Self {
        Self::everything()
    }
}

impl FromIterator<Grant> for Grants {
    fn from_iter<T: IntoIterator<Item = Grant>>(grants: T) -> Self {
        Self(grants.into_iter().collect())
    }
}

/// A grant as it stands in JSON. A field that is not known could take something back, so it is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrant {
    #[serde(rename = "match")]
    rooms: String,
    allow: Vec<Right>,
}

impl<'de> Deserialize<'de> for Grants {
    /// Reads `[{"match": "team-*", "allow": ["join", "say", "typing", "history"]}]`.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |RawGrant { rooms, allow }: RawGrant| {
            let rooms = rooms.parse().map_err(|error| serde::de::Error::custom(format!("match: {error}")))?;
            Ok(Grant { rooms, rights: allow.into_iter().collect() })
        };
        Vec::<RawGrant>::deserialize(deserializer)?.into_iter().map(read).collect()
    }
}

impl FromStr for Grants {
    type Err = String;

    /// Reads the JSON of [`Grants`]: a list of `match` and `allow`.
    fn from_str(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|error| {
            format!(r#"{error}; a list as [{{"match": "team-*", "allow": ["join", "say"]}}] is needed"#)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_room(grants: &str, room: &str) -> Rights {
        grants.parse::<Grants>().unwrap().in_room(&RoomName::new(room).unwrap())
    }

    #[test]
    fn a_star_stands_for_the_rest_of_a_name() {
        for (pattern, matching, others) in [
            ("lobby", &["lobby"][..], &["lobby2", "Lobby", "my-lobby"][..]),
            ("team-*", &["team-", "team-a", "team-a*b#"], &["team", "Team-a", "my-team-a"]),
            ("*", &["a", "team-a"], &[]),
        ] {
            let pattern: RoomPattern = pattern.parse().unwrap();
            let name = |room: &str| RoomName::new(&room.replace('*', "-")).unwrap();
            assert!(matching.iter().all(|room| pattern.matches(&name(room))), "{pattern:?}");
            assert!(!others.iter().any(|room| pattern.matches(&name(room))), "{pattern:?}");
        }
        for bad in ["", "a*b", "**", "*a", "a b", "a b*", &"a".repeat(129)] {
            bad.parse::<RoomPattern>().unwrap_err();
        }
    }

    #[test]
    fn grants_add_up_and_what_none_of_them_names_is_not_allowed() {
        let grants = r#"[{"match":"team-*","allow":["join","history"]},{"match":"team-a","allow":["say"]},{"match":"b","allow":[]}]"#;
        let rights = |rights: &[Right]| rights.iter().copied().collect::<Rights>();
        assert_eq!(in_room(grants, "team-a"), rights(&[Right::Join, Right::History, Right::Say]));
        assert_eq!(in_room(grants, "team-b"), rights(&[Right::Join, Right::History]));
        assert_eq!((in_room(grants, "b"), in_room(grants, "c")), (Rights::default(), Rights::default()));
        assert_eq!(
            (in_room("[]", "a"), Grants::default().in_room(&RoomName::new("a").unwrap())),
            (Rights::default(), Rights::ALL)
        );
        assert_eq!(in_room(r#"[{"match":"*","allow":["typing","say","join","history"]}]"#, "a"), Rights::ALL);
    }

    #[test]
    fn what_is_not_understood_allows_nothing() {
        for bad in [
            "",
            "null",
            "{}",
            r#"["lobby"]"#,
            r#"[{"match":"a"}]"#,
            r#"[{"allow":["join"]}]"#,
            r#"[{"match":"a","allow":"join"}]"#,
            r#"[{"match":"a","allow":["Join"]}]"#,
            r#"[{"match":"a","allow":["write"]}]"#,
            r#"[{"match":"a","allow":["join"],"deny":["say"]}]"#,
            r#"[{"match":"a*b","allow":["join"]}]"#,
        ] {
            bad.parse::<Grants>().unwrap_err();
        }
    }

    #[test]
    fn the_rights_of_a_member_fit_into_three_bits() {
        for bits in 0..16 {
            let rights = Rights(bits);
            assert!(rights.member_bits() < 8);
            let member = Rights::of_member(rights.member_bits());
            assert!(member.has(Right::Join));
            for right in [Right::Say, Right::Typing, Right::History] {
                assert_eq!(member.has(right), rights.has(right));
            }
        }
    }
}
