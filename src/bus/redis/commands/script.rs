//! The Lua scripts that the bus runs in Redis. Each is one atomic step.

/// Functions that several scripts share.
const BEGIN: &str = include_str!("begin.lua");
const POSITION: &str = include_str!("position.lua");
const CLOCK: &str = include_str!("clock.lua");
const GONE: &str = include_str!("gone.lua");
const PURGE: &str = include_str!("purge.lua");
const PUBLISH: &str = include_str!("publish.lua");

/// Who receives a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelKind {
    /// All subscribers, on any server that the message reaches.
    Global,
    /// In a cluster, the subscribers at the master of the slot. Their subscription ends when the
    /// slot gets another master.
    Sharded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    Publish,
    Delete,
    Read,
    ReadBefore,
    Renew,
    Confirm,
    UpdatePresence,
    QueryPresence,
    Heartbeat,
    Signal,
    Restrict,
    ReadRestrictions,
    CheckRights,
}

impl Script {
    pub(crate) const ALL: [Self; 13] = [
        Self::Publish,
        Self::Delete,
        Self::Read,
        Self::ReadBefore,
        Self::Renew,
        Self::Confirm,
        Self::UpdatePresence,
        Self::QueryPresence,
        Self::Heartbeat,
        Self::Signal,
        Self::Restrict,
        Self::ReadRestrictions,
        Self::CheckRights,
    ];

    pub(crate) fn source(self, channels: ChannelKind) -> String {
        let publish = ["local function publish()\n", PUBLISH, "end\n"].concat();
        let source = match self {
            Self::Publish => [BEGIN, CLOCK, PUBLISH].concat(),
            Self::Read => [BEGIN, POSITION, CLOCK, GONE, include_str!("read.lua")].concat(),
            Self::ReadBefore => [BEGIN, POSITION, CLOCK, GONE, include_str!("read_before.lua")].concat(),
            Self::Renew => [BEGIN, POSITION, include_str!("renew.lua")].concat(),
            Self::Confirm => [BEGIN, POSITION, include_str!("confirm.lua")].concat(),
            Self::UpdatePresence => include_str!("update_presence.lua").to_owned(),
            Self::QueryPresence => include_str!("query_presence.lua").to_owned(),
            Self::Heartbeat => include_str!("heartbeat.lua").to_owned(),
            Self::Signal => include_str!("signal.lua").to_owned(),
            Self::Delete => [BEGIN, CLOCK, &publish, include_str!("delete.lua")].concat(),
            Self::Restrict => [BEGIN, CLOCK, PURGE, &publish, include_str!("restrict.lua")].concat(),
            Self::ReadRestrictions => [CLOCK, PURGE, include_str!("read_restrictions.lua")].concat(),
            Self::CheckRights => include_str!("check_rights.lua").to_owned(),
        };
        match channels {
            ChannelKind::Global => source,
            ChannelKind::Sharded => source.replace("'PUBLISH'", "'SPUBLISH'"),
        }
    }
}
