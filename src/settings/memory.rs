//! The total of what is held for peers, and its shares.

#[cfg(target_os = "linux")]
use std::{fs, path::Path};

use super::declare::settings;

const MIB: usize = 1024 * 1024;

/// The least total that is allowed: every share is then larger than what a few connections need at default settings.
pub(super) const TOTAL_MIN: usize = 16 * MIB;

settings! {
    /// The bound of all that is held for peers in memory.
    struct MemoryLimits at memory, "Memory" {
        /// Most memory for all that is held for peers; 16MiB at least. Of it, 25 % are for history, 10 % for message ids, 25 % for
        /// the logs of rooms, 20 % for write buffers and unfinished messages, 15 % for rooms, memberships and users, and 5 %
        /// for publications that wait for the bus. What exceeds a share is refused or dropped, at the cost of the user or
        /// address that holds the most. 0 is a quarter of what the machine has, or its control group may have.
        total: usize = Bytes(0), 0 => usize::MAX, "memory";
    }
}

/// How much memory each kind of thing may take that is held for peers, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShares {
    /// History in memory; at most [`HistoryLimits::bytes_max`](super::HistoryLimits::bytes_max).
    pub history: usize,
    /// Remembered message ids.
    pub dedupe: usize,
    /// The logs of all rooms; at most [`HubLimits::log_bytes_total_max`](super::HubLimits::log_bytes_total_max).
    pub logs: usize,
    /// Write buffers, and what was received and is not complete yet.
    pub buffers: usize,
    /// Rooms, memberships, users, and those of them in grace.
    pub rooms: usize,
    /// Publications that wait for the bus.
    pub publications: usize,
}

impl MemoryShares {
    /// The shares by the names that metrics have for them.
    pub(crate) fn by_name(&self) -> [(&'static str, usize); 6] {
        let Self { history, dedupe, logs, buffers, rooms, publications } = *self;
        [
            ("history", history),
            ("dedupe", dedupe),
            ("logs", logs),
            ("buffers", buffers),
            ("rooms", rooms),
            ("publications", publications),
        ]
    }
}

impl MemoryLimits {
    /// The total in bytes.
    fn bytes(&self) -> usize {
        match self.total {
            0 => machine_bytes().map_or(usize::MAX, |bytes| bytes / 4).max(TOTAL_MIN),
            total => total,
        }
    }

    /// The shares of the total.
    pub(super) fn shares(&self) -> MemoryShares {
        let total = self.bytes();
        let share = |percent| total / 100 * percent;
        MemoryShares {
            history: share(25),
            dedupe: share(10),
            logs: share(25),
            buffers: share(20),
            rooms: share(15),
            publications: share(5),
        }
    }
}

/// What the machine has, or the control group of this process may have, in bytes.
#[cfg(target_os = "linux")]
fn machine_bytes() -> Option<usize> {
    use procfs::Current;
    let installed = procfs::Meminfo::current().ok().and_then(|info| usize::try_from(info.mem_total).ok());
    let groups = procfs::process::Process::myself().and_then(|process| process.cgroups()).into_iter().flatten();
    let limits = groups.flat_map(|group| {
        let (root, file) = match group.hierarchy {
            0 => ("/sys/fs/cgroup", "memory.max"),
            _ => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        };
        let is_of_memory = group.hierarchy == 0 || group.controllers.iter().any(|controller| controller == "memory");
        group_limit(Path::new(root), Path::new(&group.pathname), file).filter(|_| is_of_memory)
    });
    installed.into_iter().chain(limits).min()
}

#[cfg(not(target_os = "linux"))]
fn machine_bytes() -> Option<usize> {
    None
}

/// The least limit of a control group and of those around it. A path that is the machine's, not the container's, is not there, but
/// its root is.
#[cfg(target_os = "linux")]
fn group_limit(root: &Path, group: &Path, file: &str) -> Option<usize> {
    let folders = group.ancestors().map(|group| root.join(group.strip_prefix("/").unwrap_or(group)));
    folders.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_the_total() {
        let shares = |total| MemoryLimits { total }.shares();
        let MemoryShares { history, dedupe, logs, buffers, rooms, publications } = shares(100 * MIB);
        assert_eq!(history + dedupe + logs + buffers + rooms + publications, 100 * MIB);
        assert_eq!((history, logs), (25 * MIB, 25 * MIB));
        assert!(shares(0).rooms >= TOTAL_MIN / 100 * 15);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_limits_of_all_groups_around_a_process_count() {
        let root = tempfile::tempdir().unwrap();
        let limit = |folder: &str, text: &str| {
            fs::create_dir_all(root.path().join(folder)).unwrap();
            fs::write(root.path().join(folder).join("memory.max"), text).unwrap();
        };
        let found = |group: &str| group_limit(root.path(), Path::new(group), "memory.max");
        assert_eq!(found("/a/b"), None);
        limit("a/b", "max\n");
        assert_eq!(found("/a/b"), None);
        limit("a", "4096\n");
        assert_eq!((found("/a/b"), found("/"), found("/elsewhere")), (Some(4096), None, None));
        limit("", "1024\n");
        assert_eq!((found("/a/b"), found("/of/the/machine")), (Some(1024), Some(1024)));
    }
}
