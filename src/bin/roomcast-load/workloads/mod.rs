//! What is done to a server, each in a file of its own.

mod batching;
mod churn;
mod cluster;
mod fan_out;
mod giant;
mod growth;
mod idle;
mod resume;
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
    /// The trade of --batch-delay: CPU time against latency.
    Batching,
    /// Connections that say nothing: memory, CPU time, handshakes.
    Idle,
    /// Connect, join, say, close, as fast as it goes.
    Churn,
    /// 50 of 500 members read nothing, then too little.
    Slow,
    /// 1,000 members lose their connections at once and come back.
    Resume,
    /// Two nodes through a Redis of their own: publishing, latency, listening, rest, and a cut subscription.
    Cluster,
}

impl Workload {
    /// What is run if nobody says what. The cluster takes too long to be quick.
    pub(crate) fn by_default(quick: bool) -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|workload| !quick || *workload != Self::Cluster).collect()
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FanOut => "fan-out",
            Self::Rooms => "rooms",
            Self::Growth => "growth",
            Self::Floor => "floor",
            Self::Giant => "giant",
            Self::Batching => "batching",
            Self::Idle => "idle",
            Self::Churn => "churn",
            Self::Slow => "slow",
            Self::Resume => "resume",
            Self::Cluster => "cluster",
        }
    }

    /// What it does and what to look at, for whoever reads the results.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::FanOut => {
                "One room; 10 of its members publish, everybody receives everything. Window N is a closed loop: each \
                 publisher always has N messages under way, which shows the highest rate; N messages/s is an open loop: said by \
                 schedule, whatever the server does, which shows the latency that people would feel."
            }
            Self::Rooms => {
                "200 rooms of 10 members, one publisher each with 4 messages always under way: many small fan-outs."
            }
            Self::Growth => {
                "What a delivery costs in ever bigger rooms; 10 publishers with one message under way each."
            }
            Self::Floor => {
                "The bare sender with a fixed number of messages in each write: what system calls alone cost."
            }
            Self::Giant => {
                "100 rooms of 2 talk all the time; then a giant room does, too. What the small rooms feel should not grow \
                 with the giant."
            }
            Self::Batching => {
                "One busy room under --batch-delay: a longer delay makes for bigger batches, so less CPU time and more \
                 latency. Messages are said by schedule."
            }
            Self::Idle => {
                "Connections that say nothing. KiB are the server's memory for each: at rest, after each has said 4 KiB, and \
                 after all were closed and opened again, which should not grow. The kernel's are of the whole machine."
            }
            Self::Churn => "Connect, join, say something, hear it, close; 50 at a time, as fast as it goes.",
            Self::Slow => {
                "50 of 500 members read nothing, or too little. The healthy ones should feel nothing, memory should stay \
                 bounded, and the silent ones be closed; the slow ones should miss nothing."
            }
            Self::Resume => {
                "Members lose their connections all at once while messages flow, and come back from where they were: \
                 nothing may be lost or doubled."
            }
            Self::Cluster => {
                "Two nodes through one Redis, which has a core to itself. What is said as fast as it goes is numbered, kept and \
                 published by one script; ×alone compares with Redis when that script is all it has to do. µs are CPU time a \
                 message of the first node's threads (the listening one's where there is one) and of Redis. Latency is from saying to hearing, \
                 one message under way at a time, ×alone against a bare PUBLISH. The rest is of many rooms: what the threads \
                 take while nothing is said, and how long the rooms are without their subscription when it is cut."
            }
        }
    }

    /// Whether it makes sense with a target.
    pub(crate) fn suits(self, target: &Target) -> bool {
        match self {
            Self::FanOut | Self::Rooms | Self::Growth | Self::Giant => true,
            Self::Floor => target.is_floor(),
            Self::Batching | Self::Cluster => target.takes_flags(),
            Self::Idle | Self::Churn | Self::Slow | Self::Resume => !target.is_floor(),
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
            Self::Batching => batching::steps(quick).len() as u64,
            Self::Idle => 1,
            Self::Cluster => cluster::STEPS,
        }
    }

    pub(crate) fn run(self, bench: &mut Bench<'_>) -> Result<(), LoadError> {
        match self {
            Self::FanOut => fan_out::run(bench),
            Self::Rooms => fan_out::run_rooms(bench),
            Self::Growth => growth::run(bench),
            Self::Floor => fan_out::run_floor(bench),
            Self::Giant => giant::run(bench),
            Self::Batching => batching::run(bench),
            Self::Idle => idle::run(bench),
            Self::Churn => churn::run(bench),
            Self::Slow => slow::run(bench),
            Self::Resume => resume::run(bench),
            Self::Cluster => cluster::run(bench),
        }
    }
}
