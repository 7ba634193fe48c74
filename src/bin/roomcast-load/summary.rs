//! Tables made of records. The terminal and the page render the same ones.

use clap::ValueEnum;

use crate::columns::{self, Column};
use crate::record::Record;
use crate::target::FLOOR;
use crate::workload::Workload;

/// The table of one workload.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) workload: String,
    pub(crate) explanation: &'static str,
    /// Two short lines for each column of figures.
    pub(crate) headings: Vec<[String; 2]>,
    pub(crate) rows: Vec<Row>,
    /// The remarks of all rows, each once. Rows refer to them by number.
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
    /// Numbers of the table's notes, beginning with 1.
    pub(crate) notes: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    /// Empty if the record has no such figure.
    pub(crate) text: String,
    /// Whether no other server was better in this step. The floor is not compared.
    pub(crate) is_best: bool,
}

/// One table for each workload, in the order of their first records.
pub(crate) fn tables(medians: &[Record]) -> Vec<Table> {
    distinct(medians.iter().map(|record| record.workload.as_str()))
        .into_iter()
        .map(|workload| {
            let records: Vec<_> = medians.iter().filter(|record| record.workload == workload).collect();
            table(workload, &records)
        })
        .collect()
}

/// Each name once, in the order of first occurrence.
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
    let mut columns = columns::of_workload(workload, records);
    columns.retain(|column| records.iter().any(|record| column.figure(record).is_some()));
    let mut rows = Vec::new();
    let mut notes: Vec<String> = Vec::new();
    for step in distinct(records.iter().map(|record| record.step.as_str())) {
        let of_step: Vec<&Record> = records.iter().copied().filter(|record| record.step == step).collect();
        let best: Vec<_> = columns.iter().map(|column| column.best(&of_step)).collect();
        for (nth, record) in of_step.iter().enumerate() {
            let is_server = record.target != FLOOR && record.is_complete();
            let cell = |(column, best): (&Column<'_>, &Option<f64>)| {
                let Some(value) = column.figure(record) else { return Cell::default() };
                Cell { text: column.text(value), is_best: is_server && *best == Some(value) }
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
                notes: record.remarks.iter().chain(&record.failure).map(&mut number).collect(),
            });
        }
    }
    let explanation = Workload::from_str(workload, false).map_or("", Workload::explanation);
    let headings = columns.iter().map(|column| column.heading.map(str::to_owned)).collect();
    Table { workload: workload.to_owned(), explanation, headings, rows, notes }
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
    fn a_server_that_lost_deliveries_is_not_the_best() {
        let values = |p99, lost| [("p99_ms", p99), ("lost", lost)];
        let all = [
            record("a", "lossy", &values(1.0, 999.0)),
            record("a", "x", &values(2.0, 0.0)),
            record("a", "y", &values(3.0, 0.0)),
        ];
        let [table] = &tables(&all)[..] else { panic!("there is one workload") };
        let best: Vec<_> = (0..3).map(|row| cell(table, row, ["p99", "ms"]).is_best).collect();
        assert_eq!(best, [false, true, false]);
        // With one complete server left there is nothing to compare.
        let [table] = &tables(&all[..2])[..] else { panic!("there is one workload") };
        assert!(table.rows.iter().flat_map(|row| &row.cells).all(|cell| !cell.is_best));
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
