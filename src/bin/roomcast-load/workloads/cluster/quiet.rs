//! Quiet rooms: what the bus spends on them, over the whole time of the workload.

use super::cpu_seconds::CpuSeconds;
use super::nodes::Cluster;
use crate::client::ReadMode;
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::target::Running;

const ROOMS: u32 = 1000;

/// A node to which nothing is published.
pub(super) struct Quiet {
    node: Running,
    /// The one connection that is in all rooms.
    _crowd: Crowd,
    before: CpuSeconds,
}

impl Quiet {
    pub(super) fn begin(cluster: &Cluster<'_, '_>) -> Result<Self, LoadError> {
        let node = cluster.node()?;
        let mut crowd = cluster.crowd(&node)?;
        let clients = crowd.open(1, ReadMode::Count)?;
        crowd.join(&vec![clients[0]; ROOMS as usize], |nth| nth as u32)?;
        let before = CpuSeconds::until_now(cluster, &node);
        Ok(Self { node, _crowd: crowd, before })
    }

    pub(super) fn end(self, cluster: &mut Cluster<'_, '_>) -> Result<(), LoadError> {
        let spent = CpuSeconds::until_now(cluster, &self.node).since(self.before);
        cluster.bench.record(&format!("{ROOMS} quiet rooms"), |record| {
            record.set("rooms", f64::from(ROOMS)).set("quiet_s", spent.seconds);
            spent.set_busy(record);
            // Both are busy with the other steps.
            record.values.remove("load_busy");
            record.values.remove("redis_busy");
        })
    }
}
