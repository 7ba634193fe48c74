//! The tables on the terminal.

use crate::record::Record;
use crate::summary::{self, Row, Table};

/// Fits a terminal that is a little wider than usual.
const WIDTH: usize = 108;

const GAP: &str = "  ";

/// All of them, one below the other.
pub(crate) fn render(medians: &[Record]) -> String {
    summary::tables(medians).iter().map(render_one).collect()
}

fn render_one(table: &Table) -> String {
    let mut out = format!("\n{}\n", table.workload);
    wrap(&mut out, "  ", table.explanation);
    let has_best: Vec<bool> = (0..table.headings.len()).map(|column| has_best(table, column)).collect();
    if has_best.contains(&true) {
        wrap(&mut out, "  ", "* the best of the servers in this step");
    }
    out += "\n";
    let mut lines: Vec<Vec<String>> = (0..2).map(|line| heading(table, line, &has_best)).collect();
    lines.extend(table.rows.iter().map(|row| texts(row, &has_best)));
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    for (nth, line) in lines.iter().enumerate().filter(|(_, line)| line.iter().any(|text| !text.trim().is_empty())) {
        if nth == 2 {
            let width = widths.iter().sum::<usize>() + GAP.len() * (widths.len() - 1);
            out += &format!("{}\n", "─".repeat(width));
        }
        let cells = line.iter().zip(&widths).enumerate();
        let aligned: Vec<_> = cells.map(|(nth, (text, width))| align(nth, text, *width)).collect();
        out += &format!("{}\n", aligned.join(GAP).trim_end());
    }
    for (nth, note) in table.notes.iter().enumerate() {
        wrap(&mut out, "  ", &format!("[{}] {note}", nth + 1));
    }
    out
}

/// Step and target are words, everything behind them is figures.
fn align(column: usize, text: &str, width: usize) -> String {
    if column < 2 { format!("{text:<width$}") } else { format!("{text:>width$}") }
}

fn has_best(table: &Table, column: usize) -> bool {
    table.rows.iter().any(|row| row.cells[column].is_best)
}

/// Figures with room for a mark, so that they stay aligned.
fn marked(text: &str, is_best: bool, has_best: bool) -> String {
    let mark = if is_best { "*" } else { " " };
    format!("{text}{}", if has_best { mark } else { "" })
}

fn heading(table: &Table, line: usize, has_best: &[bool]) -> Vec<String> {
    let words: [&str; 2] = if line == 1 { ["step", "target"] } else { ["", ""] };
    let figures = table.headings.iter().zip(has_best).map(|(heading, best)| marked(&heading[line], false, *best));
    words.map(str::to_owned).into_iter().chain(figures).chain([String::new()]).collect()
}

fn texts(row: &Row, has_best: &[bool]) -> Vec<String> {
    let step = if row.begins_step { row.step.clone() } else { String::new() };
    let figures = row.cells.iter().zip(has_best).map(|(cell, best)| marked(&cell.text, cell.is_best, *best));
    let notes = row.notes.iter().map(|note| format!("[{note}]")).collect();
    [step, row.target.clone()].into_iter().chain(figures).chain([notes]).collect()
}

/// Adds words, broken into lines that all begin with an indentation.
fn wrap(out: &mut String, indentation: &str, words: &str) {
    let mut width = 0;
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        let next = width + 1 + word.chars().count();
        if width > 0 && next <= WIDTH {
            out.push(' ');
            width = next;
        } else {
            out.push_str(if width > 0 { "\n" } else { "" });
            out.push_str(indentation);
            width = indentation.len() + word.chars().count();
        }
        out.push_str(word);
    }
    if width > 0 {
        out.push('\n');
    }
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
        let mut out = String::new();
        wrap(&mut out, "  ", &"ten letters ".repeat(40));
        assert!(out.lines().all(|line| line.starts_with("  ten") || line.starts_with("  letters")));
        assert!(out.lines().all(|line| line.len() <= WIDTH));
        assert_eq!(out.split_whitespace().count(), 80);
    }
}
