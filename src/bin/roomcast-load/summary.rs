//! What the tables show: each workload's columns, and rows made of records. Terminal and page render the same.

use clap::ValueEnum;

use crate::record::Record;
use crate::target::FLOOR;
use crate::workloads::Workload;

/// What is shown of one workload.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) workload: String,
    pub(crate) explanation: &'static str,
    /// Two short lines for each column of figures.
    pub(crate) headings: Vec<[String; 2]>,
    pub(crate) rows: Vec<Row>,
    /// What rows remark, each once; rows have their numbers.
    pub(crate) notes: Vec<String>,
}

/// A step of one target.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) step: String,
    /// Whether the row above is of another step.
    pub(crate) begins_step: bool,
    pub(crate) target: String,
    pub(crate) cells: Vec<Cell>,
    /// Of the table's notes, beginning with 1.
    pub(crate) notes: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    /// Empty if there is no such figure.
    pub(crate) text: String,
    /// Whether no other server did better in this step. The floor does not take part.
    pub(crate) is_best: bool,
}

#[derive(Clone, Copy, Debug)]
struct Column<'a> {
    heading: [&'a str; 2],
    source: Source<'a>,
    format: Format,
    better: Better,
}

/// Where a column's figures are from.
#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    Value(&'a str),
    /// The value divided by the floor's in the same step and round, in closed loops.
    TimesFloorClosed(&'a str),
    /// The same in open loops.
    TimesFloorOpen(&'a str),
}

/// How a figure is written.
#[derive(Clone, Copy, Debug)]
enum Format {
    /// See [`short`].
    Short,
    /// A fraction of one.
    Percent,
    /// Bytes.
    Kib,
}

/// Which of two figures is the better one, if that can be said.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Better {
    Neither,
    Higher,
    Lower,
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

/// Of the workloads in which rooms are talked to.
const TALK: &[Column<'static>] = &[
    higher(["deliveries", "/s"], "deliveries_per_s"),
    plain(["messages", "a read"], "messages_per_read"),
    lower(["CPU µs a", "delivery"], "cpu_per_delivery_us"),
    plain(["of it", "user"], "user_per_delivery_us"),
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
    lower(["CPU ms of a turn", "p99.9"], "turn_cpu_p99.9_ms"),
    lower(["CPU µs a", "delivery"], "cpu_per_delivery_us"),
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
    kib(["in kernel,", "both ends"], "kernel_bytes_both_ends"),
    kib(["KiB after", "speaking"], "bytes_after_4_kib_each"),
    kib(["opened", "2nd time"], "bytes_in_round_2"),
    kib(["", "3rd"], "bytes_in_round_3"),
    kib(["", "4th"], "bytes_in_round_4"),
];

const CHURN: &[Column<'static>] = &[
    higher(["cycles", "/s"], "cycles_per_s"),
    lower(["CPU µs", "a cycle"], "cpu_per_cycle_us"),
    lower(["cycle", "p50 ms"], "cycle_p50_ms"),
    lower(["", "p99 ms"], "cycle_p99_ms"),
    lower(["", "p99.9 ms"], "cycle_p99.9_ms"),
    SERVER,
    LOAD,
];

const SLOW: &[Column<'static>] = &[
    lower(["p99 ms", "before"], "p99_before_ms"),
    lower(["p99 ms", "then"], "p99_ms"),
    plain(["closed", "of 50"], "slow_closed"),
    plain(["first", "after s"], "first_closed_after_s"),
    plain(["last", "after s"], "last_closed_after_s"),
    plain(["missed", "by them"], "slow_missed"),
    plain(["told of", "holes"], "holes_told"),
    lower(["peak", "+MiB"], "peak_rise_mib"),
    SERVER,
    LOAD,
];

const RESUME: &[Column<'static>] = &[
    plain(["away", "s"], "away_s"),
    lower(["level again", "after s"], "level_after_s"),
    plain(["messages", "said"], "said"),
    lower(["", "lost"], "lost"),
    lower(["", "doubled"], "doubled"),
    plain(["told of", "holes"], "holes_told"),
];

const CLUSTER: &[Column<'static>] = &[
    plain(["messages", "/s"], "messages_per_s"),
    plain(["p50", "ms"], "p50_ms"),
    plain(["p99", "ms"], "p99_ms"),
    plain(["", "×alone"], "of_alone"),
    plain(["loop µs", "a message"], "loop_us_per_message"),
    plain(["comman-", "der µs"], "commander_us_per_message"),
    plain(["listener", "µs"], "listener_us_per_message"),
    plain(["redis", "µs"], "redis_us_per_message"),
    percent(["loop", "core %"], "loop_busy"),
    percent(["comman-", "der %"], "commander_busy"),
    percent(["listener", "%"], "listener_busy"),
    percent(["redis", "%"], "redis_busy"),
];

/// The columns of a workload; all there is, if it is not known.
fn columns_of<'a>(workload: &str, records: &[&'a Record]) -> Vec<Column<'a>> {
    let known = match workload {
        "fan-out" | "rooms" | "growth" | "floor" | "batching" => TALK,
        "giant" => GIANT,
        "idle" => IDLE,
        "churn" => CHURN,
        "slow" => SLOW,
        "resume" => RESUME,
        "cluster" => CLUSTER,
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

/// One table for each workload, in the order in which they first came.
pub(crate) fn tables(medians: &[Record]) -> Vec<Table> {
    distinct(medians.iter().map(|record| record.workload.as_str()))
        .into_iter()
        .map(|workload| {
            let records: Vec<_> = medians.iter().filter(|record| record.workload == workload).collect();
            table(workload, &records)
        })
        .collect()
}

/// Each once, in the order of coming.
pub(crate) fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut distinct = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    distinct
}

fn table(workload: &str, records: &[&Record]) -> Table {
    let mut columns = columns_of(workload, records);
    columns.retain(|column| records.iter().any(|record| figure(column, record).is_some()));
    let mut rows = Vec::new();
    let mut notes: Vec<String> = Vec::new();
    for step in distinct(records.iter().map(|record| record.step.as_str())) {
        let of_step: Vec<&Record> = records.iter().copied().filter(|record| record.step == step).collect();
        let best: Vec<_> = columns.iter().map(|column| best(column, &of_step)).collect();
        for (nth, record) in of_step.iter().enumerate() {
            let cell = |(column, best): (&Column<'_>, &Option<f64>)| {
                let Some(value) = figure(column, record) else { return Cell::default() };
                Cell { text: column.format.write(value), is_best: record.target != FLOOR && *best == Some(value) }
            };
            let mut number = |remark: &String| {
                let found = notes.iter().position(|note| note == remark);
                found.unwrap_or_else(|| {
                    notes.push(remark.clone());
                    notes.len() - 1
                }) + 1
            };
            rows.push(Row {
                step: step.to_owned(),
                begins_step: nth == 0,
                target: record.target.clone(),
                cells: columns.iter().zip(&best).map(cell).collect(),
                notes: record.remarks.iter().map(&mut number).collect(),
            });
        }
    }
    let explanation = Workload::from_str(workload, false).map_or("", Workload::explanation);
    let headings = columns.iter().map(|column| column.heading.map(str::to_owned)).collect();
    Table { workload: workload.to_owned(), explanation, headings, rows, notes }
}

/// What stands in a column for a record.
fn figure(column: &Column<'_>, record: &Record) -> Option<f64> {
    let name = match column.source {
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

/// The best figure of a step's servers, if there are several to choose from.
fn best(column: &Column<'_>, of_step: &[&Record]) -> Option<f64> {
    let is_rated = |record: &&&Record| {
        // In an open loop everybody delivers what is offered.
        record.target != FLOOR && !(column.better == Better::Higher && record.is_open_loop())
    };
    let figures: Vec<f64> = of_step.iter().filter(is_rated).filter_map(|record| figure(column, record)).collect();
    if figures.len() < 2 {
        return None;
    }
    match column.better {
        Better::Neither => None,
        Better::Higher => figures.into_iter().max_by(f64::total_cmp),
        Better::Lower => figures.into_iter().min_by(f64::total_cmp),
    }
}

impl Format {
    fn write(self, value: f64) -> String {
        match self {
            Self::Short => short(value),
            Self::Kib => short(value / 1024.0),
            Self::Percent if value >= 0.1 => format!("{:.0}", value * 100.0),
            Self::Percent => short(value * 100.0),
        }
    }
}

/// Three digits that matter, and at most three behind the point: `12.9 M`, `808 k`, `10.1`, `0.850`. What has no fraction
/// is written in full below ten thousand.
pub(crate) fn short(value: f64) -> String {
    let magnitude = value.abs();
    let (scaled, unit) = match magnitude {
        9_999.5..999_500.0 => (value / 1e3, " k"),
        999_500.0..999.5e6 => (value / 1e6, " M"),
        999.5e6.. => (value / 1e9, " G"),
        _ if value.fract() == 0.0 => return format!("{value:.0}"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        99.95.. => 0,
        9.995.. => 1,
        0.9995.. => 2,
        _ => 3,
    };
    format!("{scaled:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::medians;

    fn record(step: &str, target: &str, values: &[(&str, f64)]) -> Record {
        let mut record = Record {
            workload: "fan-out".to_owned(),
            step: step.to_owned(),
            target: target.to_owned(),
            ..Record::default()
        };
        for (name, value) in values {
            record.set(name, *value);
        }
        record
    }

    #[track_caller]
    fn cell<'a>(table: &'a Table, row: usize, heading: [&str; 2]) -> &'a Cell {
        let column = table.headings.iter().position(|found| *found == heading).expect("the column is there");
        &table.rows[row].cells[column]
    }

    #[test]
    fn figures_are_short_and_never_lose_their_size() {
        let cases = [
            (0.0, "0"),
            (0.0154, "0.015"),
            (0.85, "0.850"),
            (1.0, "1"),
            (9.9999, "10.0"),
            (10.055, "10.1"),
            (536.575, "537"),
            (5298.7, "5299"),
            (10_000.0, "10.0 k"),
            (808_109.0, "808 k"),
            (999_900.0, "1.00 M"),
            (12_940_000.0, "12.9 M"),
            (3.2e9, "3.20 G"),
        ];
        for (value, expected) in cases {
            assert_eq!(short(value), expected, "{value}");
        }
        assert_eq!(Format::Percent.write(0.687), "69");
        assert_eq!(Format::Percent.write(0.0004), "0.040");
    }

    #[test]
    fn rows_are_by_step_and_compare_with_the_floor_of_the_same_step() {
        let closed = |rate, cpu| [("deliveries_per_s", rate), ("cpu_per_delivery_us", cpu), ("p99_ms", 1.0)];
        let open = |p99| [("offered_per_s", 100.0), ("deliveries_per_s", 1e5), ("p99_ms", p99)];
        let all = medians(&[
            record("window 1", "roomcast", &closed(9e5, 1.1)),
            record("100 messages/s", "roomcast", &open(3.0)),
            record("window 1", "floor", &closed(1e6, 1.0)),
            record("100 messages/s", "floor", &open(2.0)),
        ]);
        let [table] = &tables(&all)[..] else { panic!("there is one workload") };
        let order: Vec<_> =
            table.rows.iter().map(|row| (row.step.as_str(), row.target.as_str(), row.begins_step)).collect();
        let expected = [
            ("window 1", "roomcast", true),
            ("window 1", "floor", false),
            ("100 messages/s", "roomcast", true),
            ("100 messages/s", "floor", false),
        ];
        assert_eq!(order, expected);
        assert_eq!(cell(table, 0, ["rate", "×floor"]).text, "0.900");
        assert_eq!(cell(table, 0, ["CPU", "×floor"]).text, "1.10");
        assert_eq!(cell(table, 0, ["p99", "×floor"]).text, "");
        assert_eq!(cell(table, 1, ["rate", "×floor"]).text, "");
        assert_eq!(cell(table, 2, ["p99", "×floor"]).text, "1.50");
        // One server alone is not the best of anything, and columns without figures are not there.
        assert!(table.rows.iter().flat_map(|row| &row.cells).all(|cell| !cell.is_best));
        assert!(!table.headings.iter().any(|heading| heading[0] == "p50"));
    }

    #[test]
    fn the_best_server_is_marked_and_the_floor_is_none() {
        let values = |rate| [("deliveries_per_s", rate), ("server_busy", 1.0)];
        let all = [record("a", "x", &values(1.0)), record("a", "y", &values(2.0)), record("a", "floor", &values(3.0))];
        let [table] = &tables(&all)[..] else { panic!("there is one workload") };
        let best: Vec<_> = (0..3).map(|row| cell(table, row, ["deliveries", "/s"]).is_best).collect();
        assert_eq!(best, [false, true, false]);
        assert!(!cell(table, 0, ["server", "core %"]).is_best);
    }

    #[test]
    fn a_remark_that_several_rows_make_is_one_note() {
        let mut all = [record("a", "x", &[]), record("b", "x", &[]), record("b", "y", &[])];
        all[0].remark("hot");
        all[1].remark("cold").remark("hot");
        let [table] = &tables(&all)[..] else { panic!("there is one workload") };
        assert_eq!(table.notes, ["hot", "cold"]);
        let notes: Vec<_> = table.rows.iter().map(|row| row.notes.clone()).collect();
        assert_eq!(notes, [vec![1], vec![2, 1], vec![]]);
    }

    #[test]
    fn a_workload_that_is_not_known_shows_everything() {
        let mut unknown = record("a", "x", &[("beans", 3.0), ("apples_kg", 0.5)]);
        unknown.workload = "market".to_owned();
        let [table] = &tables(&[unknown])[..] else { panic!("there is one workload") };
        assert_eq!(table.headings, [["", "apples_kg"], ["", "beans"]]);
        assert_eq!(table.rows[0].cells[0].text, "0.500");
    }
}
