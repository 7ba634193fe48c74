//! Two nodes through a Redis of their own: what publishing, subscribing, quiet rooms and a cut subscription cost, and how
//! long a message takes. Each step also measures Redis without a node.

mod alone;
mod blocking_client;
mod cpu_seconds;
mod latency;
mod listen;
mod nodes;
mod own_bus;
mod publish;
mod quiet;
mod resubscribe;
mod script;

use std::time::Instant;

use self::nodes::Cluster;
use self::quiet::Quiet;
use crate::bench::Bench;
use crate::error::LoadError;
use crate::redis_server::RedisServer;

/// How many records it makes, for the progress bar.
pub(super) const STEPS: u64 = 17;

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), LoadError> {
    let Ok(program) = which::which("redis-server") else {
        let reason = "left out: there is no redis-server in PATH";
        bench.results.note(&format!("cluster was {reason}"));
        return bench.record("left out", |record| {
            record.remark(reason);
        });
    };
    let redis = RedisServer::start(&program, bench.cores)?;
    let mut cluster = Cluster { bench, redis, began: Instant::now() };
    // The quiet node runs beside all other steps: what it does rarely needs a long time to be measured.
    let quiet = Quiet::begin(&cluster)?;
    publish::run(&mut cluster)?;
    latency::run(&mut cluster)?;
    listen::run(&mut cluster)?;
    quiet.end(&mut cluster)?;
    resubscribe::run(&mut cluster)
}
