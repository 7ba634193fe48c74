//! A Redis Cluster of the test's own: three masters with a third of the slots each.

use crate::harness::redis::{Redis, eventually, free_port};

/// See the [module](self).
pub(crate) struct RedisCluster {
    pub(crate) masters: Vec<Redis>,
}

/// One node that knows no other.
fn lone(options: &[&str]) -> (Redis, String) {
    let port = free_port().to_string();
    let mut all = vec!["--cluster-enabled", "yes", "--cluster-port", &port, "--cluster-node-timeout", "2000"];
    all.extend(["--cluster-require-full-coverage", "no", "--save", ""]);
    all.extend(options);
    (Redis::with(&all), port)
}

fn meet(nodes: &[(Redis, String)], first: &Redis) {
    for (node, port) in nodes {
        first.ask::<String>(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), port]);
    }
}

impl RedisCluster {
    /// One that keeps everything on disk.
    pub(crate) fn start() -> Self {
        const BOUNDS: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
        let nodes: Vec<_> = BOUNDS.iter().map(|_| lone(&["--appendonly", "yes", "--appendfsync", "always"])).collect();
        for (i, ((node, _), (first, last))) in nodes.iter().zip(BOUNDS).enumerate() {
            node.ask::<String>(&["CLUSTER", "SET-CONFIG-EPOCH", &(i + 1).to_string()]);
            node.ask::<String>(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
        }
        meet(&nodes[1..], &nodes[0].0);
        let cluster = Self { masters: nodes.into_iter().map(|(node, _)| node).collect() };
        cluster.wait_until_whole();
        cluster
    }

    /// Waits until every node knows who has which slots.
    pub(crate) fn wait_until_whole(&self) {
        eventually("the cluster is whole", || {
            self.masters.iter().all(|node| {
                let info: String = node.ask(&["CLUSTER", "INFO"]);
                let has = |line: &str| info.lines().any(|found| found == line);
                has("cluster_state:ok") && has("cluster_slots_ok:16384") && has("cluster_size:3")
            })
        });
    }

    /// A replica of a master, which has caught up.
    pub(crate) fn replica(&self, of: usize) -> Redis {
        let node = [lone(&[])];
        meet(&node, &self.masters[of]);
        let [(replica, _)] = node;
        let id: String = self.masters[of].ask(&["CLUSTER", "MYID"]);
        eventually("the replica knows its master", || replica.ask::<String>(&["CLUSTER", "NODES"]).contains(&id));
        replica.ask::<String>(&["CLUSTER", "REPLICATE", &id]);
        eventually("the replica has caught up", || replica.info("master_link_status").as_deref() == Some("up"));
        replica
    }

    /// Where nodes begin to ask: the last is not there.
    pub(crate) fn url(&self) -> String {
        let ports: Vec<_> = self.masters.iter().map(|node| format!("localhost:{}", node.port)).collect();
        format!("redis+cluster://{},127.0.0.1:1", ports.join(","))
    }

    pub(crate) fn slot(&self, room: &str) -> u16 {
        self.masters[1].ask(&["CLUSTER", "KEYSLOT", &format!("roomcast:{{{room}}}")])
    }

    /// Which master a room has at first.
    pub(crate) fn home(&self, room: &str) -> usize {
        match self.slot(room) {
            0..=5460 => 0,
            5461..=10922 => 1,
            _ => 2,
        }
    }

    /// A room of each master.
    pub(crate) fn rooms(&self) -> [String; 3] {
        [0, 1, 2].map(|master| (0..).map(|i| format!("room{i}")).find(|room| self.home(room) == master).unwrap())
    }
}

/// How often a node has answered with an error of a kind.
pub(crate) fn errors(node: &Redis, kind: &str) -> usize {
    let info: String = node.ask(&["INFO", "errorstats"]);
    let prefix = format!("errorstat_{kind}:count=");
    info.lines().find_map(|line| line.strip_prefix(&prefix)?.parse().ok()).unwrap_or(0)
}
