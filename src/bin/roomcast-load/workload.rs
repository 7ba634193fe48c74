//! The workloads by name, and what each of them shows.

use clap::ValueEnum;

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// One room of 1,000 members, 10 publishers: closed loop with windows 1, 3, 8, 64; open loop at 50, 100, 200
    /// messages/s.
    FanOut,
    /// 200 rooms of 10 members, one publisher each, window 4.
    Rooms,
    /// CPU time per delivery as the room grows: 10, 100, 1,000, 10,000 members.
    Growth,
    /// The bare sender with 1, 8 and 64 messages per write.
    Floor,
    /// A room of 15,000 beside 100 rooms of 2: how it affects the small ones.
    Giant,
    /// What --batch-delay trades: CPU time against latency.
    Batching,
    /// Silent connections: memory, CPU time, handshakes.
    Idle,
    /// Connect, join, publish and close, as fast as possible.
    Churn,
    /// 50 of 500 members read nothing, then too little.
    Slow,
    /// 1,000 members lose their connections at once and come back.
    Resume,
    /// Two nodes through a Redis of their own: publishing, latency, subscribing, quiet rooms, and a cut subscription.
    Cluster,
    /// One room with TLS and without, on one server, and silent connections of both kinds.
    Tls,
    /// Attacks by peers that keep within all limits, beside a healthy pair: what the pair notices.
    Hostile,
}

impl Workload {
    /// The workloads to run if the command line names none. `cluster` takes too long for a quick run, and `hostile` for
    /// any: it waits after each attack.
    pub(crate) fn by_default(quick: bool) -> Vec<Self> {
        let is_chosen = |workload: &Self| match workload {
            Self::Hostile => false,
            Self::Cluster => !quick,
            _ => true,
        };
        Self::value_variants().iter().copied().filter(is_chosen).collect()
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
            Self::Tls => "tls",
            Self::Hostile => "hostile",
        }
    }

    /// What it does and what its figures mean, printed above the table.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::FanOut => {
                "One room. Ten of its members publish, and every member receives everything. \"Window N\" is a closed loop: \
                 each publisher always has N messages under way. It shows the highest rate. \"N messages/s\" is an open \
                 loop: messages are published by schedule, whatever the server does. It shows the latency that people \
                 would notice."
            }
            Self::Rooms => {
                "200 rooms of 10 members. One member of each publishes, with 4 messages always under way: many small \
                 fan-outs."
            }
            Self::Growth => {
                "The cost of a delivery in bigger and bigger rooms. Ten publishers have one message under way each."
            }
            Self::Floor => {
                "The bare sender with a fixed number of messages in each write: the cost of the system calls alone."
            }
            Self::Giant => {
                "100 rooms of 2 are busy all the time; then a giant room is busy, too. The latency of the small rooms \
                 should not grow with the giant."
            }
            Self::Batching => {
                "One busy room under --batch-delay. A longer delay makes bigger batches: less CPU time and more latency. \
                 Messages are published by schedule."
            }
            Self::Idle => {
                "Silent connections. KiB are the server's memory per connection: at rest, after each has published 4 KiB, \
                 and after all were closed and opened again, which should not grow. The kernel's memory is that of the \
                 whole machine."
            }
            Self::Churn => "Connect, join, publish, receive it, close: 50 clients at a time, as fast as possible.",
            Self::Slow => {
                "50 of 500 members read nothing, or too little. Latency is that of the others and should not grow, and \
                 memory should stay bounded. The server should close members that read nothing; members that read \
                 slowly should miss nothing."
            }
            Self::Resume => {
                "All members lose their connections at once while messages flow, and resume from where they were. \
                 Nothing may be lost or delivered twice."
            }
            Self::Cluster => {
                "Two nodes through one Redis, which has a core to itself. One script numbers, keeps and publishes each \
                 message; \"×alone\" compares the rate with Redis when that script is all it runs. µs are CPU time per \
                 message of the first node's threads and of Redis. Latency is from sending to receiving with one message \
                 under way at a time; its \"×alone\" compares with a bare PUBLISH. The last steps have many rooms: the \
                 CPU time of a node while nothing is published, and how long the rooms are unsubscribed after their \
                 connection to Redis is cut."
            }
            Self::Tls => {
                "The same room with TLS and without, on one server. \"×plain\" is the CPU time of a delivery with TLS divided \
                 by that without, \"more\" is the difference in µs. KiB are the server's memory for a silent connection."
            }
            Self::Hostile => {
                "Two clients on 127.0.0.1 chat 80 messages a second in a room of their own, while others attack from \
                 127.0.0.2 and on, within all limits and with the server's default settings. Each row is one attack on \
                 a server of its own. Latency is the pair's, and should not grow. Lost and refused are the pair's \
                 messages; forgotten are its messages that left the history too early, and its ids that were accepted \
                 twice. CPU per turn is the server's loop, as the upper bound of a bucket. MiB are the server's memory."
            }
        }
    }
}
