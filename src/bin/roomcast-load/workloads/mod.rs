//! What is done to a server, each in a file of its own.

mod churn;
mod fan_out;
mod giant;
mod growth;
mod idle;
mod resume;
mod share;
mod slow;

use clap::ValueEnum;

use super::bench::Bench;
use super::error::LoadError;
use super::target::Target;

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// One room of 1,000 members, 10 publishers: closed loop with windows 1, 3, 8, 64; open loop at 50, 100, 200 a second.
    FanOut,
    /// 200 rooms of 10 members, one publisher each, window 4.
    Rooms,
    /// How CPU time a delivery grows with the room: 10, 100, 1,000, 10,000 members.
    Growth,
    /// The bare sender with 1, 8 and 64 messages a write.
    Floor,
    /// A room of 15,000 beside 100 rooms of 2: what the small ones feel.
    Giant,
    /// What --room-share trades: CPU time against latency.
    Share,
    /// Connections that say nothing: memory, CPU time, handshakes.
    Idle,
    /// Connect, join, say, close, as fast as it goes.
    Churn,
    /// 50 of 500 members read nothing, then too little.
    Slow,
    /// 1,000 members lose their connections at once and come back.
    Resume,
}

impl Workload {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FanOut => "fan-out",
            Self::Rooms => "rooms",
            Self::Growth => "growth",
            Self::Floor => "floor",
            Self::Giant => "giant",
            Self::Share => "share",
            Self::Idle => "idle",
            Self::Churn => "churn",
            Self::Slow => "slow",
            Self::Resume => "resume",
        }
    }

    /// Whether it makes sense with a target.
    pub(crate) fn suits(self, target: &Target) -> bool {
        match self {
            Self::FanOut | Self::Rooms | Self::Growth => true,
            Self::Floor => target.is_floor(),
            Self::Share => target.takes_flags(),
            Self::Giant | Self::Idle | Self::Churn | Self::Slow | Self::Resume => !target.is_floor(),
        }
    }

    /// How many records it makes, for the progress bar.
    pub(crate) fn steps(self, quick: bool) -> u64 {
        match self {
            Self::FanOut => fan_out::steps(quick).len() as u64,
            Self::Rooms | Self::Churn | Self::Resume => 1,
            Self::Growth => growth::sizes(quick).len() as u64,
            Self::Floor => 3,
            Self::Giant | Self::Slow => 2,
            Self::Share => share::steps(quick).len() as u64,
            Self::Idle => 1,
        }
    }

    pub(crate) fn run(self, bench: &mut Bench<'_>) -> Result<(), LoadError> {
        match self {
            Self::FanOut => fan_out::run(bench),
            Self::Rooms => fan_out::run_rooms(bench),
            Self::Growth => growth::run(bench),
            Self::Floor => fan_out::run_floor(bench),
            Self::Giant => giant::run(bench),
            Self::Share => share::run(bench),
            Self::Idle => idle::run(bench),
            Self::Churn => churn::run(bench),
            Self::Slow => slow::run(bench),
            Self::Resume => resume::run(bench),
        }
    }
}
