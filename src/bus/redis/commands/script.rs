//! The scripts that Redis runs for the bus, one atomic step each.

/// Helpers that scripts share.
const BEGIN: &str = include_str!("begin.lua");
const STAND: &str = include_str!("position.lua");
const CLOCK: &str = include_str!("clock.lua");

/// Who hears what is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelKind {
    /// Whoever has subscribed, at any server that the message reaches.
    Global,
    /// In a cluster, whoever has subscribed where the slot is: the message goes nowhere else, and who subscribes learns when the
    /// slot gets another master.
    Sharded,
}

/// Which script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    Publish,
    Read,
    Renew,
    Confirm,
    UpdatePresence,
    QueryPresence,
    Heartbeat,
    Typing,
}

impl Script {
    pub(crate) const ALL: [Self; 8] = [
        Self::Publish,
        Self::Read,
        Self::Renew,
        Self::Confirm,
        Self::UpdatePresence,
        Self::QueryPresence,
        Self::Heartbeat,
        Self::Typing,
    ];

    pub(crate) fn source(self, channels: ChannelKind) -> String {
        let source = match self {
            Self::Publish => [BEGIN, CLOCK, include_str!("publish.lua")].concat(),
            Self::Read => [BEGIN, STAND, CLOCK, include_str!("read.lua")].concat(),
            Self::Renew => [BEGIN, STAND, include_str!("renew.lua")].concat(),
            Self::Confirm => [BEGIN, STAND, include_str!("confirm.lua")].concat(),
            Self::UpdatePresence => include_str!("update_presence.lua").to_owned(),
            Self::QueryPresence => include_str!("query_presence.lua").to_owned(),
            Self::Heartbeat => include_str!("heartbeat.lua").to_owned(),
            Self::Typing => include_str!("typing.lua").to_owned(),
        };
        match channels {
            ChannelKind::Global => source,
            ChannelKind::Sharded => source.replace("'PUBLISH'", "'SPUBLISH'"),
        }
    }
}
