//! What the system tells of processes: cores, CPU time, memory, files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// CPU time that a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl Cpu {
    /// Of a process and all its threads, ended ones included; `None` if it is gone or this is not Linux.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may contain anything: proc(5), fields 14 and 15, in ticks.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let mut next = || Some(Duration::from_secs_f64(fields.next()?.parse::<f64>().ok()? / ticks));
        Some(Self { user: next()?, system: next()? })
    }

    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { user: self.user.saturating_sub(earlier.user), system: self.system.saturating_sub(earlier.system) }
    }
}

/// What [`ThreadTimes`] calls the thread with which a process began, which has the program's name.
pub(crate) const MAIN_THREAD: &str = "main";

/// CPU time of a process' threads by their names; threads of one name together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ThreadTimes(BTreeMap<String, Duration>);

impl ThreadTimes {
    /// Of the threads that run now; empty if the process is gone or this is not Linux.
    pub(crate) fn of(pid: u32) -> Self {
        let mut times = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
            let is_main = entry.file_name() == *pid.to_string();
            let name = if is_main { Some(MAIN_THREAD.to_owned()) } else { read("comm") };
            let Some(name) = name else { continue };
            // The first field is nanoseconds on a processor; a kernel without it knows only the ticks of the whole process.
            let nanos = read("schedstat").and_then(|text| text.split(' ').next()?.parse().ok());
            *times.entry(name.trim_end().to_owned()).or_default() += Duration::from_nanos(nanos.unwrap_or(0));
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
    /// The most that was resident since [`forget_peak`].
    pub(crate) peak: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        Some(Self { resident: kilobytes("VmRSS:")? * 1024, peak: kilobytes("VmHWM:")? * 1024 })
    }
}

/// Takes the present memory of a process for its peak (proc(5), clear_refs).
pub(crate) fn forget_peak(pid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// How many files a process has open.
pub(crate) fn open_files(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// The cores that this process may use.
pub(crate) fn cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// Keeps this thread, and whatever it starts from now on, to some cores.
pub(crate) fn pin_to(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Raises the limit of open files as far as this process may; says what it is then.
pub(crate) fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // What cannot be raised is found out by whoever needs more.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The processor's name, for the report.
pub(crate) fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// The system's name and version, for the report.
pub(crate) fn system() -> String {
    let names = rustix::system::uname();
    format!("{} {}", names.sysname().to_string_lossy(), names.release().to_string_lossy())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn it_knows_itself() {
        let me = std::process::id();
        let before = Cpu::of(me).unwrap();
        let mut sum = 0_u64;
        while Cpu::of(me).unwrap().since(before).total() < Duration::from_millis(50) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        // Other tests run in this process, and have a part in what it used.
        let name = fs::read_to_string("/proc/thread-self/comm").unwrap();
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
