//! Facts that the system tells: cores, and the CPU time, memory and files of processes.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use procfs::process::{ClearRefs, Process};
use procfs::{CpuInfo, Current, Meminfo};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Which processes run on which cores.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    pub(crate) server: Vec<usize>,
    pub(crate) load: Vec<usize>,
    /// For a second and third server: the remaining cores, or that of the load.
    pub(crate) rest: Vec<usize>,
}

/// CPU time that a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl Cpu {
    /// Of a process and all its threads, including those that have ended; `None` if the process has ended.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = process(pid)?.stat().ok()?;
        let ticks_per_second = procfs::ticks_per_second() as f64;
        let time = |ticks: u64| Duration::from_secs_f64(ticks as f64 / ticks_per_second);
        Some(Self { user: time(stat.utime), system: time(stat.stime) })
    }

    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { user: self.user.saturating_sub(earlier.user), system: self.system.saturating_sub(earlier.system) }
    }
}

/// The key of a process' first thread in [`ThreadTimes`]; the system calls that thread by the program's name.
pub(crate) const MAIN_THREAD: &str = "main";

/// CPU time of a process' threads by name. Threads of the same name are added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ThreadTimes(BTreeMap<String, Duration>);

impl ThreadTimes {
    /// Of the threads that run now; empty if the process has ended.
    pub(crate) fn of(pid: u32) -> Self {
        let tasks = process(pid).and_then(|process| process.tasks().ok());
        let mut times = BTreeMap::new();
        for task in tasks.into_iter().flatten().flatten() {
            // A thread may end meanwhile.
            let Ok(stat) = task.stat() else { continue };
            let name = if task.tid == task.pid { MAIN_THREAD.to_owned() } else { stat.comm };
            // In nanoseconds, where `stat` counts hundredths of a second.
            let nanos = task.schedstat().map_or(0, |schedule| schedule.sum_exec_runtime);
            *times.entry(name).or_default() += Duration::from_nanos(nanos);
        }
        Self(times)
    }

    /// In seconds; `None` if there is no thread of that name.
    pub(crate) fn seconds_of(&self, name: &str) -> Option<f64> {
        self.0.get(name).map(Duration::as_secs_f64)
    }
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) resident: u64,
    /// The maximum since [`reset_peak`].
    pub(crate) peak: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let status = process(pid)?.status().ok()?;
        Some(Self { resident: status.vmrss? * 1024, peak: status.vmhwm? * 1024 })
    }
}

/// Makes the present memory of a process its peak (proc(5), clear_refs).
pub(crate) fn reset_peak(pid: u32) -> io::Result<()> {
    let reset = || Process::new(pid as i32)?.clear_refs(ClearRefs::PeakRSS);
    reset().map_err(io::Error::other)
}

/// The number of files that a process has open.
pub(crate) fn open_files(pid: u32) -> Option<usize> {
    process(pid)?.fd_count().ok()
}

/// Memory of the kernel's own structures on the whole machine, in bytes. Sockets are among them.
pub(crate) fn kernel_memory() -> Option<u64> {
    Some(Meminfo::current().ok()?.slab)
}

fn process(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

/// The cores that this process may use.
pub(crate) fn cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// Pins this thread, and all that it starts from now on, to some cores.
pub(crate) fn pin_to(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Raises the limit of open files as far as this process may.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // If that fails, a workload that needs more files fails with an error of its own.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The processor's name, for the report.
pub(crate) fn processor() -> String {
    let name = CpuInfo::current().ok().and_then(|info| info.model_name(0).map(str::to_owned));
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The system's name and version, for the report.
pub(crate) fn system() -> String {
    let names = rustix::system::uname();
    format!("{} {}", names.sysname().to_string_lossy(), names.release().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_this_process_are_read() {
        let me = std::process::id();
        let before = Cpu::of(me).unwrap();
        let mut sum = 0_u64;
        while Cpu::of(me).unwrap().since(before).total() < Duration::from_millis(50) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        // Other tests run in this process and use CPU time, too.
        let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let mut threads = ThreadTimes::of(me);
        while threads.seconds_of(name.trim_end()).is_none_or(|seconds| seconds < 0.05) {
            assert!(std::time::Instant::now() < deadline, "{threads:?}");
            threads = ThreadTimes::of(me);
        }
        assert!(threads.seconds_of(MAIN_THREAD).is_some(), "{threads:?}");
        let memory = Memory::of(me).unwrap();
        assert!(memory.resident > 100_000 && memory.peak >= memory.resident);
        assert!(open_files(me).unwrap() >= 3);
        assert!(!cores().is_empty());
        assert_eq!(Cpu::of(u32::MAX), None);
    }
}
