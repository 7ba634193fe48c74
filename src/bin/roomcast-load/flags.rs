//! The flags of the load test.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::workloads::Workload;

/// Loads a chat server and measures what it does: deliveries, latency, CPU time and memory.
///
/// Without --url and --serve it measures the `roomcast` beside it, next to the floor: a bare sender that writes the same
/// bytes to as many sockets and does nothing else, the physical limit of this machine. The server is kept on one core
/// and the load on another. scripts/load-test builds both in release mode and starts this.
#[derive(Debug, Parser)]
#[command(
    name = "roomcast-load",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    after_help = "Compare only figures of one run. If the load's own core is the busier one, a row says so: then it was \
                  the load that was measured."
)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) role: Option<Role>,

    /// A server that runs already: ws://127.0.0.1:8080/ws.
    #[arg(long, value_name = "URL", conflicts_with = "serve")]
    pub(crate) url: Option<String>,

    /// The process of the server at --url, on this machine, for its CPU time and memory.
    #[arg(long, value_name = "PID", requires = "url")]
    pub(crate) server_pid: Option<u32>,

    /// A server to start for each workload; repeat it to compare several, interleaved. In COMMAND {address} becomes
    /// the address that it is to listen on; {flags} becomes what a workload asks of Roomcast, and marks it as one.
    /// `floor` alone is the bare sender.
    #[arg(long, value_name = "NAME=COMMAND")]
    pub(crate) serve: Vec<String>,

    /// What to run; repeat it or separate by commas. [default: all, quick all but cluster]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) workload: Vec<Workload>,

    /// Less of everything, under a minute in all.
    #[arg(long)]
    pub(crate) quick: bool,

    /// How often everything is run, servers interleaved; the table shows medians.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,

    /// How long each step is measured. [default: 4s, quick 800ms]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) duration: Option<Duration>,

    /// Members of the room of the fan-out.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=19_500))]
    pub(crate) members: u32,

    /// Connections of the idle workload. [default: 10000, quick 2000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) conns: Option<u32>,

    /// Bytes of a text; 26 at least, for the marker in it.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(26..=15_000))]
    pub(crate) text_bytes: u32,

    /// What joins a room.
    #[arg(long, value_name = "JSON", default_value = r#"{"type":"join","room":"{room}"}"#)]
    pub(crate) join_template: String,

    /// What says something.
    #[arg(long, value_name = "JSON", default_value = r#"{"type":"chat","room":"{room}","text":"{text}"}"#)]
    pub(crate) chat_template: String,

    /// Writes every measurement as a line of JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Writes a page with table and plots.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

/// What else this program can be.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// The bare sender, which the load test starts by itself.
    #[command(hide = true)]
    Floor {
        address: std::net::SocketAddr,
        /// Messages of a write; as many as there are, if not given.
        #[arg(long)]
        batch: Option<usize>,
    },
}
