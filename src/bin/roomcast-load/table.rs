//! The tables on the terminal.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table as Layout};

use crate::record::Record;
use crate::summary::{self, Row, Table};

/// Fits a terminal that is a little wider than usual.
const WIDTH: u16 = 108;

const GAP: u16 = 2;

/// All tables, one below the other. A step that failed without any figure has no row: its error was printed at once.
pub(crate) fn render(medians: &[Record]) -> String {
    let has_figures = |record: &&Record| record.failure.is_none() || !record.values.is_empty();
    let shown: Vec<Record> = medians.iter().filter(has_figures).cloned().collect();
    summary::tables(&shown).iter().map(render_one).collect()
}

fn render_one(table: &Table) -> String {
    let mut out = format!("\n{}\n{}", table.workload, paragraph(table.explanation));
    let has_best: Vec<bool> = (0..table.headings.len()).map(|column| has_best(table, column)).collect();
    if has_best.contains(&true) {
        out += &paragraph("* the best of the servers in this step");
    }
    out += &format!("\n{}\n", grid(table, &has_best));
    for (nth, note) in table.notes.iter().enumerate() {
        out += &paragraph(&format!("[{}] {note}", nth + 1));
    }
    out
}

/// Steps and targets are left-aligned, figures right-aligned.
fn grid(table: &Table, has_best: &[bool]) -> String {
    let mut layout = Layout::new();
    layout.load_style(NOTHING.header_separator(LineStyle::none().fill('─')));
    layout.set_header(header(table, has_best));
    layout.add_rows(table.rows.iter().map(|row| cells(row, has_best)));
    let figures = 2..2 + table.headings.len();
    let last = layout.column_count() - 1;
    for (index, column) in layout.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { GAP }));
        if figures.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    layout.trim_fmt()
}

fn has_best(table: &Table, column: usize) -> bool {
    table.rows.iter().any(|row| row.cells[column].is_best)
}

/// In a column with a mark every figure has room for one, so that they stay aligned.
fn marked(text: &str, mark: char, has_best: bool) -> String {
    if has_best { format!("{text}{mark}") } else { text.to_owned() }
}

fn header(table: &Table, has_best: &[bool]) -> Vec<String> {
    let has_two_lines = table.headings.iter().any(|[first, _]| !first.is_empty());
    let lines = |first: &str, second: &str| {
        if has_two_lines { format!("{first}\n{second}") } else { second.to_owned() }
    };
    let figures = table
        .headings
        .iter()
        .zip(has_best)
        .map(|([first, second], best)| lines(&marked(first, ' ', *best), &marked(second, ' ', *best)));
    let names = ["step", "target"].map(|name| lines("", name));
    names.into_iter().chain(figures).chain([String::new()]).collect()
}

fn cells(row: &Row, has_best: &[bool]) -> Vec<Cell> {
    let step = if row.begins_step { row.step.as_str() } else { "" };
    let mark = |is_best| if is_best { '*' } else { ' ' };
    let figures = row.cells.iter().zip(has_best).map(|(cell, best)| marked(&cell.text, mark(cell.is_best), *best));
    let notes = row.notes.iter().map(|note| format!("[{note}]")).collect();
    [step.to_owned(), row.target.clone()].into_iter().chain(figures).chain([notes]).map(Cell::new).collect()
}

/// Indented lines that are not too long.
fn paragraph(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let mut layout = Layout::new();
    layout.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    layout.add_row([text]);
    for column in layout.column_iter_mut() {
        column.set_padding((GAP, 0));
    }
    format!("{}\n", layout.trim_fmt())
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_notes_stand_below() {
        let record = |step: &str, target: &str, rate: f64| {
            let (workload, step, target) = ("fan-out".to_owned(), step.to_owned(), target.to_owned());
            let mut record = Record { workload, step, target, ..Record::default() };
            record.set("deliveries_per_s", rate).set("server_busy", 0.5);
            record
        };
        let mut all = [record("window 1", "roomcast", 12.9e6), record("window 1", "other", 800.0)];
        all[1].remark("it was tired");
        let text = render(&all);
        let lines: Vec<_> = text.lines().skip_while(|line| !line.contains("deliveries")).collect();
        let expected = [
            "                    deliveries   server",
            "step      target            /s   core %",
            "────────────────────────────────────────────",
            "window 1  roomcast      12.9 M*      50",
            "          other            800       50  [1]",
            "  [1] it was tired",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn words_are_wrapped_and_never_cut() {
        let out = paragraph(&"ten letters ".repeat(40));
        assert!(out.lines().all(|line| line.starts_with("  ten") || line.starts_with("  letters")));
        assert!(out.lines().all(|line| line.len() <= WIDTH.into()));
        assert_eq!(out.split_whitespace().count(), 80);
    }
}
