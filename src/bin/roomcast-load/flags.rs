//! The flags of the load test.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::hostile_flags::HostileFlags;
use crate::tls::Trust;
use crate::workload::Workload;

/// Loads a chat server and measures deliveries, latency, CPU time and memory.
///
/// Without --url and --serve it measures the `roomcast` in its own folder, and beside it the floor: a bare sender that
/// writes the same bytes to as many sockets and does nothing else. No server on this machine can be faster than that.
/// The server is pinned to one core and the load to another. scripts/load-test builds both in release mode and runs this.
#[derive(Debug, Parser)]
#[command(
    name = "roomcast-load",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    after_help = "Compare only figures of one run. Where a note says that the load was the bottleneck, the row shows \
                  the speed of the load and not of the server. The exit status is 0 only if all steps succeeded."
)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) role: Option<Role>,

    /// A running server to measure, such as ws://127.0.0.1:8080/ws or wss://chat.example/ws; --serve adds others beside it.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,

    /// The process of the server at --url, if it is on this machine: for its CPU time and memory.
    #[arg(long, value_name = "PID", requires = "url")]
    pub(crate) server_pid: Option<u32>,

    /// A server to start for each workload. Repeat it to compare several; their runs are interleaved. In COMMAND,
    /// {address} becomes the address to listen on and {flags} the flags that a workload needs: a command with {flags} is
    /// a Roomcast. {tls-address} is the address of a server that speaks TLS, as `localhost`. {no-limits} becomes the flags that turn rate limits off, in all workloads but hostile. `floor` alone is
    /// the bare sender.
    #[arg(long, value_name = "NAME=COMMAND")]
    pub(crate) serve: Vec<String>,

    /// A PEM file of certificates to trust instead of those that this machine trusts, for wss:// and {tls-address}.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Accept any certificate.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,

    /// What to run; repeat it or separate by commas. [default: all but hostile; with --quick all but hostile and cluster]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) workload: Vec<Workload>,

    /// Fewer and shorter steps: under a minute in all.
    #[arg(long)]
    pub(crate) quick: bool,

    /// How often everything is run, with servers interleaved; the table shows medians.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,

    /// How long each step is measured. [default: 4s; with --quick 800ms]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) duration: Option<Duration>,

    /// Members of the room in fan-out, floor and batching.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=19_500))]
    pub(crate) members: u32,

    /// Connections of the idle workload. [default: 10000; with --quick 2000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) conns: Option<u32>,

    #[command(flatten)]
    pub(crate) hostile: HostileFlags,

    /// Length of a text in bytes; the first 26 are a marker.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(26..=15_000))]
    pub(crate) text_bytes: u32,

    /// The message that joins a room.
    #[arg(long, value_name = "JSON", default_value = r#"{"type":"join","room":"{room}"}"#)]
    pub(crate) join_template: String,

    /// The message that publishes a text.
    #[arg(long, value_name = "JSON", default_value = r#"{"type":"chat","room":"{room}","text":"{text}"}"#)]
    pub(crate) chat_template: String,

    /// Write every record as a line of JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Write a page with tables and plots.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

impl Flags {
    /// The certificates that are accepted.
    pub(crate) fn trust(&self) -> Trust<'_> {
        match &self.ca {
            Some(path) => Trust::Authorities(path),
            None if self.insecure => Trust::Everybody,
            None => Trust::Machine,
        }
    }
}

/// What this program can be instead of the load test.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// The bare sender, which the load test starts itself.
    #[command(hide = true)]
    Floor {
        address: std::net::SocketAddr,
        /// Messages per write; all that there are, if not given.
        #[arg(long)]
        batch: Option<usize>,
    },
}
