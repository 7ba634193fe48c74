//! The identifiers of connections, rooms, users and epochs.

use std::borrow::Borrow;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::LazyLock;

use data_encoding::{Encoding, Specification};
use smol_str::SmolStr;

use crate::unicode::{first_not_nfc, is_hidden};

/// The longest room or user name, in bytes of UTF-8.
pub(crate) const NAME_BYTES_MAX: usize = 128;

/// The punctuation that names may contain beside Unicode letters and digits.
pub(crate) const NAME_PUNCTUATION: &str = "-_.:@~+#=/";

/// The place of a connection in the server's table of connections. Later connections use the same slot again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

impl Slot {
    /// The slot as an index into a table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The number of a connection in the order of arrival, over all slots: a later connection has a later serial.
///
/// Serials begin again after 2^32 connections. Two that are compared are never further apart than half of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectionSerial(pub u32);

impl ConnectionSerial {
    /// The serial of the next connection.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether the connection came after another one.
    pub fn is_after(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) > 0
    }
}

/// Identifies a connection, even after it has gone.
///
/// The serial tells it from earlier and later connections in the same slot. So a late answer of the
/// bus, deadline or command of another thread never reaches another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// Its place in the table of connections.
    pub slot: Slot,
    /// Tells it from other connections in the same slot, and which of two came first.
    pub serial: ConnectionSerial,
}

impl ConnectionId {
    /// The connection with these numbers.
    pub const fn new(slot: u32, serial: u32) -> Self {
        Self { slot: Slot(slot), serial: ConnectionSerial(serial) }
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot.0, self.serial.0)
    }
}

/// The number of a key with which an authenticator verifies identities. It chooses one for each key, and uses none twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyNumber(pub NonZeroU32);

impl KeyNumber {
    /// The number of the first key.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The number of the next key. Numbers begin again after 2^32 keys.
    #[must_use]
    pub fn next(self) -> Self {
        self.0.checked_add(1).map_or(Self::FIRST, Self)
    }
}

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("name is empty; 1 to {NAME_BYTES_MAX} bytes are allowed")]
    Empty,
    /// The name has so many bytes of UTF-8, more than 128.
    #[error("name of {0} bytes exceeds {NAME_BYTES_MAX}")]
    TooLong(usize),
    /// The name contains a character outside the alphabet.
    #[error("name contains {}; letters, digits and {NAME_PUNCTUATION} are allowed", quoted(*.0))]
    Character(char),
    /// The name is not in Unicode's normalisation form C, from this character on: another sequence of characters that looks
    /// the same is.
    #[error("name is not in Unicode form NFC, from U+{:04X} on; only the NFC spelling of a name is allowed", u32::from(*.0))]
    NotNfc(char),
}

/// A character that somebody can see, or recognise by its number.
fn quoted(c: char) -> String {
    if is_hidden(c) { format!("'{}'", c.escape_default()) } else { format!("{c:?}") }
}

/// Checks a room or user name. Names are compared by bytes, so each has one spelling. The alphabet needs no escaping in JSON, nor as part of a Redis key.
pub(crate) fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong(name.len()));
    }
    // Some letters cannot be seen, as the fillers of Hangul.
    let is_letter = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() && c.is_alphanumeric() && !is_hidden(c);
    let allowed = |c: char| is_letter(c) || NAME_PUNCTUATION.contains(c);
    if let Some(c) = name.chars().find(|c| !allowed(*c)) {
        return Err(NameError::Character(c));
    }
    first_not_nfc(name).map_or(Ok(()), |c| Err(NameError::NotNfc(c)))
}

/// What lies on the heap of a name, once for all its clones.
pub(crate) fn name_heap_bytes(name: &str) -> usize {
    const INLINE_MAX: usize = 23;
    if name.len() > INLINE_MAX { name.len() + 16 } else { 0 }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(SmolStr);

        impl $type {
            /// Checks and takes a name: 1 to 128 bytes of Unicode letters, digits and `-_.:@~+#=/`, in
            /// normalisation form C.
            ///
            /// # Errors
            /// The first reason for which the name is refused.
            pub fn new(name: &str) -> Result<Self, NameError> {
                check_name(name)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The checked name of a room. Cloning it allocates nothing; up to 23 bytes it owns no memory either.
    RoomName
}

name! {
    /// The checked name of a user. Cloning it allocates nothing; up to 23 bytes it owns no memory either.
    UserId
}

/// No name that [`check_name`] allows: nobody can join, publish or ask for it. It needs no escaping in JSON, nor as part of a Redis key.
const CONTROL: &str = "%control";

impl RoomName {
    /// The room in which a bus keeps control messages.
    pub(crate) fn control() -> Self {
        Self(SmolStr::new_static(CONTROL))
    }

    /// Whether it is [`RoomName::control`].
    pub(crate) fn is_control(&self) -> bool {
        self.as_str() == CONTROL
    }
}

impl UserId {
    /// The user that control messages are from.
    pub(crate) fn control() -> Self {
        Self(SmolStr::new_static(CONTROL))
    }
}

/// Identifies one uninterrupted numbering of a room's messages. Sequence numbers of different epochs
/// are unrelated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch(SmolStr);

impl Epoch {
    /// Takes the opaque text of an epoch, 64 bytes at most: clients cannot name a longer one.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The epoch as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A source of values that never repeat while it lives: a bijection of a counter, keyed by the host's seed.
#[derive(Debug)]
pub(crate) struct Unique {
    key: u64,
    count: u64,
}

/// Digits and lower-case letters without i, l, o and u, which are easily misread.
#[expect(clippy::expect_used, reason = "32 distinct ASCII characters are an alphabet")]
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    specification.encoding().expect("32 distinct ASCII characters are an alphabet")
});

impl Unique {
    pub(crate) fn new(seed: u64) -> Self {
        Self { key: mix(seed ^ 0x9e37_79b9_7f4a_7c15), count: 0 }
    }

    /// A new epoch; 64 bits, so that not even another process draws it by accident.
    pub(crate) fn epoch(&mut self) -> Epoch {
        self.count += 1;
        // `mix` is a bijection of 64 bits: distinct counts give distinct epochs.
        let value = mix(self.key.wrapping_add(self.count));
        Epoch(BASE32.encode(&value.to_be_bytes()).into())
    }

    /// A new guest name, `guest-` and thirteen characters; 64 bits as well, because nodes that share rooms draw names apart.
    pub(crate) fn guest(&mut self) -> UserId {
        self.count += 1;
        let value = mix(self.key.wrapping_add(self.count));
        UserId(format!("guest-{}", BASE32.encode(&value.to_be_bytes())).into())
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that spreads every bit over all others.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn serials_are_in_the_order_of_arrival_and_begin_again() {
        let last = ConnectionSerial(u32::MAX);
        assert_eq!(last.next(), ConnectionSerial(0));
        assert!(last.next().is_after(last) && !last.is_after(last.next()));
        assert!(!last.is_after(last));
    }

    #[test]
    fn names_are_checked() {
        let long = "a".repeat(129);
        for (name, expected) in [
            ("lobby", Ok(())),
            ("Zoë:日本/1", Ok(())),
            ("", Err(NameError::Empty)),
            ("two words", Err(NameError::Character(' '))),
            ("a\"b", Err(NameError::Character('"'))),
            ("{tag}", Err(NameError::Character('{'))),
            (CONTROL, Err(NameError::Character('%'))),
            ("ann\u{202e}", Err(NameError::Character('\u{202e}'))),
            ("ann\u{200d}", Err(NameError::Character('\u{200d}'))),
            ("ann\n", Err(NameError::Character('\n'))),
            ("ann\u{3164}", Err(NameError::Character('\u{3164}'))),
            ("e\u{301}", Err(NameError::Character('\u{301}'))),
            ("Å", Ok(())),
            ("\u{212b}", Err(NameError::NotNfc('\u{212b}'))),
            ("a\u{1112}\u{1161}", Err(NameError::NotNfc('\u{1112}'))),
            (long.as_str(), Err(NameError::TooLong(129))),
        ] {
            assert_eq!(check_name(name), expected, "{name:?}");
        }
    }

    #[test]
    fn guests_of_different_nodes_have_different_names() {
        const NODES: u64 = 8;
        const GUESTS: usize = 50_000;
        let nodes = (0..NODES).map(Unique::new);
        let guests: HashSet<_> = nodes.flat_map(|mut node| (0..GUESTS).map(move |_| node.guest())).collect();
        assert_eq!(guests.len(), NODES as usize * GUESTS);
    }

    #[test]
    fn guests_and_epochs_do_not_repeat() {
        let mut unique = Unique::new(7);
        let guests: HashSet<_> = (0..20_000).map(|_| unique.guest()).collect();
        assert_eq!(guests.len(), 20_000);
        let epochs: HashSet<_> = (0..20_000).map(|_| unique.epoch().as_str().to_owned()).collect();
        assert_eq!(epochs.len(), 20_000);
        assert!(guests.iter().all(|guest| guest.as_str().len() == 19));
        assert!(epochs.iter().all(|epoch| epoch.len() == 13));
    }
}
