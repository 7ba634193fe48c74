//! The columns of each workload's table: headings, where figures come from, how they are written, which is better.

use crate::figure::short;
use crate::record::Record;
use crate::target::FLOOR;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Column<'a> {
    /// Two short lines.
    pub(crate) heading: [&'a str; 2],
    source: Source<'a>,
    format: Format,
    better: Better,
}

/// Where the figures of a column come from.
#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    Value(&'a str),
    /// The value divided by the floor's of the same step and round, in closed loops.
    TimesFloorClosed(&'a str),
    /// The same in open loops.
    TimesFloorOpen(&'a str),
}

#[derive(Clone, Copy, Debug)]
enum Format {
    /// See [`short`].
    Short,
    /// A fraction of one.
    Percent,
    /// Bytes.
    Kib,
}

/// Which of two figures is better.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Better {
    Neither,
    Higher,
    Lower,
}

impl Column<'_> {
    pub(crate) fn figure(&self, record: &Record) -> Option<f64> {
        let name = match self.source {
            Source::Value(name) => return record.get(name),
            Source::TimesFloorClosed(name) if !record.is_open_loop() => name,
            Source::TimesFloorOpen(name) if record.is_open_loop() => name,
            _ => return None,
        };
        if record.target == FLOOR {
            return None;
        }
        record.times_floor.get(name).copied()
    }

    pub(crate) fn text(&self, value: f64) -> String {
        match self.format {
            Format::Short => short(value),
            Format::Kib => short(value / 1024.0),
            Format::Percent if value >= 0.1 => format!("{:.0}", value * 100.0),
            Format::Percent => short(value * 100.0),
        }
    }

    /// The best figure of a step's servers, if there are several to choose from.
    pub(crate) fn best(&self, of_step: &[&Record]) -> Option<f64> {
        let can_be_best = |record: &&&Record| {
            // In an open loop every server delivers what is offered.
            let is_comparable = !(self.better == Better::Higher && record.is_open_loop());
            record.target != FLOOR && is_comparable && record.is_complete()
        };
        let figures: Vec<f64> = of_step.iter().filter(can_be_best).filter_map(|record| self.figure(record)).collect();
        if figures.len() < 2 {
            return None;
        }
        match self.better {
            Better::Neither => None,
            Better::Higher => figures.into_iter().max_by(f64::total_cmp),
            Better::Lower => figures.into_iter().min_by(f64::total_cmp),
        }
    }
}

const fn plain<'a>(heading: [&'a str; 2], value: &'a str) -> Column<'a> {
    Column { heading, source: Source::Value(value), format: Format::Short, better: Better::Neither }
}

const fn percent<'a>(heading: [&'a str; 2], value: &'a str) -> Column<'a> {
    Column { format: Format::Percent, ..plain(heading, value) }
}

const fn kib<'a>(heading: [&'a str; 2], value: &'a str) -> Column<'a> {
    Column { format: Format::Kib, ..lower(heading, value) }
}

const fn higher<'a>(heading: [&'a str; 2], value: &'a str) -> Column<'a> {
    Column { better: Better::Higher, ..plain(heading, value) }
}

const fn lower<'a>(heading: [&'a str; 2], value: &'a str) -> Column<'a> {
    Column { better: Better::Lower, ..plain(heading, value) }
}

const SERVER: Column<'static> = percent(["server", "core %"], "server_busy");
const LOAD: Column<'static> = percent(["load", "core %"], "load_busy");

const CONVERSATION: &[Column<'static>] = &[
    higher(["deliveries", "/s"], "deliveries_per_s"),
    plain(["messages", "per read"], "messages_per_read"),
    lower(["CPU µs per", "delivery"], "cpu_per_delivery_us"),
    plain(["in user", "mode µs"], "user_per_delivery_us"),
    lower(["p50", "ms"], "p50_ms"),
    lower(["p99", "ms"], "p99_ms"),
    SERVER,
    LOAD,
    Column { source: Source::TimesFloorClosed("cpu_per_delivery_us"), ..plain(["CPU", "×floor"], "") },
    Column { source: Source::TimesFloorClosed("deliveries_per_s"), ..plain(["rate", "×floor"], "") },
    Column { source: Source::TimesFloorOpen("p99_ms"), ..plain(["p99", "×floor"], "") },
];

const GIANT: &[Column<'static>] = &[
    lower(["small rooms", "p50 ms"], "p50_ms"),
    lower(["", "p99 ms"], "p99_ms"),
    lower(["", "p99.9 ms"], "p99.9_ms"),
    lower(["giant room", "p50 ms"], "giant_p50_ms"),
    lower(["", "p99 ms"], "giant_p99_ms"),
    lower(["CPU per turn", "p99.9 ms"], "turn_cpu_p99.9_ms"),
    lower(["CPU µs per", "delivery"], "cpu_per_delivery_us"),
    plain(["deliveries", "/s"], "deliveries_per_s"),
    SERVER,
    LOAD,
];

const IDLE: &[Column<'static>] = &[
    higher(["opened", "/s"], "handshakes_per_s"),
    lower(["CPU µs", "to open"], "cpu_per_handshake_us"),
    lower(["CPU µs", "to join"], "cpu_per_join_us"),
    percent(["CPU %", "at rest"], "idle_cpu"),
    kib(["KiB", "at rest"], "bytes_per_connection"),
    kib(["kernel KiB,", "both ends"], "kernel_bytes_both_ends"),
    kib(["KiB after", "publishing"], "bytes_after_4_kib_each"),
    kib(["KiB when", "reopened"], "bytes_in_round_2"),
    kib(["", "again"], "bytes_in_round_3"),
    kib(["", "and again"], "bytes_in_round_4"),
];

const CHURN: &[Column<'static>] = &[
    higher(["cycles", "/s"], "cycles_per_s"),
    lower(["CPU µs", "per cycle"], "cpu_per_cycle_us"),
    lower(["cycle", "p50 ms"], "cycle_p50_ms"),
    lower(["", "p99 ms"], "cycle_p99_ms"),
    lower(["", "p99.9 ms"], "cycle_p99.9_ms"),
    SERVER,
    LOAD,
];

const SLOW: &[Column<'static>] = &[
    lower(["p99 ms", "before"], "p99_before_ms"),
    lower(["p99 ms", "with them"], "p99_ms"),
    plain(["closed", "of 50"], "slow_closed"),
    plain(["first", "after s"], "first_closed_after_s"),
    plain(["last", "after s"], "last_closed_after_s"),
    plain(["missed", "by them"], "slow_missed"),
    plain(["told of", "gaps"], "holes_told"),
    lower(["memory", "+MiB"], "peak_rise_mib"),
    SERVER,
    LOAD,
];

const RESUME: &[Column<'static>] = &[
    plain(["away", "s"], "away_s"),
    lower(["caught up", "after s"], "level_after_s"),
    plain(["messages", "published"], "said"),
    lower(["deliveries", "lost"], "lost"),
    lower(["", "doubled"], "doubled"),
    plain(["told of", "gaps"], "holes_told"),
];

const CLUSTER: &[Column<'static>] = &[
    plain(["messages", "/s"], "messages_per_s"),
    plain(["p50", "ms"], "p50_ms"),
    plain(["p99", "ms"], "p99_ms"),
    plain(["", "×alone"], "of_alone"),
    plain(["CPU µs:", "main"], "loop_us_per_message"),
    plain(["", "commands"], "commander_us_per_message"),
    plain(["", "listener"], "listener_us_per_message"),
    plain(["", "Redis"], "redis_us_per_message"),
    percent(["core %:", "main"], "loop_busy"),
    percent(["", "commands"], "commander_busy"),
    percent(["", "listener"], "listener_busy"),
    percent(["", "Redis"], "redis_busy"),
];

const TLS: &[Column<'static>] = &[
    higher(["deliveries", "/s"], "deliveries_per_s"),
    plain(["messages", "per read"], "messages_per_read"),
    plain(["CPU µs per", "delivery"], "cpu_per_delivery_us"),
    plain(["in user", "mode µs"], "user_per_delivery_us"),
    plain(["CPU", "×plain"], "tls_cpu_ratio"),
    plain(["µs", "more"], "tls_more_us"),
    kib(["KiB", "at rest"], "bytes_per_connection"),
    SERVER,
    LOAD,
];

const HOSTILE: &[Column<'static>] = &[
    lower(["before:", "p50 ms"], "before_p50_ms"),
    lower(["", "p99 ms"], "before_p99_ms"),
    lower(["during:", "p50 ms"], "during_p50_ms"),
    lower(["", "p99 ms"], "during_p99_ms"),
    lower(["after:", "p99 ms"], "after_p99_ms"),
    lower(["", "lost"], "lost"),
    lower(["", "refused"], "refused"),
    lower(["forgotten:", "messages"], "history_lost"),
    lower(["", "ids"], "ids_forgotten"),
    lower(["CPU per turn", "p99.9 ms"], "turn_cpu_p99.9_ms"),
    lower(["", "worst ms"], "turn_cpu_max_ms"),
    lower(["MiB", "before"], "memory_before_mib"),
    lower(["", "peak"], "memory_peak_mib"),
    lower(["", "after"], "memory_after_mib"),
    plain(["hostile", "open"], "hostile_open"),
    plain(["", "MB/s"], "hostile_mb_per_s"),
    SERVER,
    LOAD,
];

/// The columns of a workload; a column for each figure if the workload is not known.
pub(crate) fn of_workload<'a>(workload: &str, records: &[&'a Record]) -> Vec<Column<'a>> {
    let known = match workload {
        "fan-out" | "rooms" | "growth" | "floor" | "batching" => CONVERSATION,
        "giant" => GIANT,
        "idle" => IDLE,
        "churn" => CHURN,
        "slow" => SLOW,
        "resume" => RESUME,
        "cluster" => CLUSTER,
        "tls" => TLS,
        "hostile" => HOSTILE,
        _ => {
            let mut names: Vec<&str> =
                records.iter().flat_map(|record| record.values.keys().map(String::as_str)).collect();
            names.sort_unstable();
            names.dedup();
            return names.into_iter().map(|name| plain(["", name], name)).collect();
        }
    };
    known.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_below_ten_keep_their_fraction() {
        assert_eq!(SERVER.text(0.687), "69");
        assert_eq!(SERVER.text(0.0004), "0.040");
    }
}
