//! The names of keys and channels.

use crate::id::RoomName;

/// Builds the names of keys and channels.
#[derive(Clone, Debug)]
pub(crate) struct KeyNames {
    prefix: String,
}

impl KeyNames {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{prefix}:{{") }
    }

    pub(crate) fn write_key(&self, text: &mut String, room: &RoomName, key: &str) {
        self.write_channel(text, room);
        text.push(':');
        text.push_str(key);
    }

    pub(crate) fn write_nodes_key(&self, text: &mut String) {
        text.clear();
        text.push_str(self.prefix.trim_end_matches('{'));
        text.push_str("nodes");
    }

    /// A key that never holds anything, in the slot of [`KeyNames::write_nodes_key`].
    pub(crate) fn write_rights_key(&self, text: &mut String) {
        self.write_nodes_key(text);
        *text = format!("{}{text}}}:rights", self.prefix);
    }

    pub(crate) fn write_channel(&self, text: &mut String, room: &RoomName) {
        text.clear();
        text.push_str(&self.prefix);
        text.push_str(room.as_str());
        text.push('}');
    }

    /// The room that a channel belongs to.
    pub(crate) fn room<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(channel).ok()?.strip_prefix(&*self.prefix)?.strip_suffix('}')
    }
}
