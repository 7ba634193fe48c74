//! The page with tables and plots, in one self-contained file.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::LoadError;
use crate::machine;
use crate::machine::Cores;
use crate::plots::{self, Palette, Plot};
use crate::record::Record;
use crate::summary::{self, Row, Table};

const STYLE: &str = include_str!("report.css");

#[derive(Debug)]
pub(crate) struct Report {
    path: PathBuf,
    file: File,
    began: SystemTime,
}

impl Report {
    /// Creates the file before anything is measured, so that a wrong path fails at once.
    pub(crate) fn create(path: &Path) -> Result<Self, LoadError> {
        let error = |source| LoadError::Write { path: path.display().to_string(), source };
        let file = File::create(path).map_err(error)?;
        Ok(Self { path: path.to_owned(), file, began: SystemTime::now() })
    }

    pub(crate) fn write(mut self, cores: &Cores, records: &[Record], medians: &[Record]) -> Result<(), LoadError> {
        let facts = facts(self.began, cores);
        let result = page(&facts, records, medians).and_then(|page| self.file.write_all(page.as_bytes()));
        result.map_err(|source| LoadError::Write { path: self.path.display().to_string(), source })
    }
}

/// Where, when and how it was measured.
fn facts(began: SystemTime, cores: &Cores) -> Vec<(&'static str, String)> {
    let list = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    vec![
        ("Began", humantime::format_rfc3339_seconds(began).to_string().replace('T', " ").replace('Z', " UTC")),
        ("Processor", machine::processor()),
        ("System", machine::system()),
        ("Cores", format!("server on {}, load on {}", list(&cores.server), list(&cores.load))),
        ("Version", format!("roomcast-load {}", env!("CARGO_PKG_VERSION"))),
        ("Command", std::env::args().map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")),
    ]
}

/// Quotes an argument for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn page(facts: &[(&str, String)], records: &[Record], medians: &[Record]) -> io::Result<String> {
    let palette = Palette::of(medians);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Roomcast load test</title>\n<style>\n{STYLE}</style>\n<h1>Roomcast load test</h1>\n<dl>\n"
    );
    for (name, value) in facts {
        out += &format!("<dt>{name}<dd>{}\n", escaped(value));
    }
    out += "</dl>\n<p class=\"faint\">Compare only figures of this page. The floor is not a server: a bare sender writes \
            the same bytes to as many sockets and does nothing else. “×floor” is a server’s figure divided by the floor’s \
            in the same step and round. Of several servers the best is <span class=\"best\">marked</span>, unless it lost \
            deliveries. Figures and ratios are medians of all rounds; curves are of one round.</p>\n";
    for table in summary::tables(medians) {
        out += &format!("<section>\n<h2>{}</h2>\n<p>{}</p>\n", escaped(&table.workload), escaped(table.explanation));
        push_table(&mut out, &table);
        let plots = plots::of_workload(&table.workload, medians, &palette)?;
        if !plots.is_empty() {
            out += "<div class=\"plots\">\n";
            plots.iter().for_each(|plot| push_plot(&mut out, plot));
            out += "</div>\n";
        }
        out += "</section>\n";
    }
    out += &format!("<details>\n<summary>{} records, one line of JSON each</summary>\n<pre>", records.len());
    for record in records {
        out += &escaped(&serde_json::to_string(record)?);
        out.push('\n');
    }
    out += "</pre>\n</details>\n</html>\n";
    Ok(out)
}

fn push_table(out: &mut String, table: &Table) {
    *out += "<div class=\"wide\"><table>\n<thead><tr><th class=\"word\">step<th class=\"word\">target";
    for [first, second] in &table.headings {
        *out += &format!("<th>{}<br>{}", escaped(first), escaped(second));
    }
    *out += "<th></thead>\n<tbody>\n";
    table.rows.iter().for_each(|row| push_row(out, row));
    *out += "</tbody>\n</table></div>\n";
    if !table.notes.is_empty() {
        *out += "<ol class=\"notes\">\n";
        for note in &table.notes {
            *out += &format!("<li>{}\n", escaped(note));
        }
        *out += "</ol>\n";
    }
}

fn push_row(out: &mut String, row: &Row) {
    let (class, step) = if row.begins_step { (" class=\"begins\"", row.step.as_str()) } else { ("", "") };
    *out += &format!("<tr{class}><td class=\"word\">{}<td class=\"word\">{}", escaped(step), escaped(&row.target));
    for cell in &row.cells {
        let class = if cell.is_best { " class=\"best\"" } else { "" };
        *out += &format!("<td{class}>{}", escaped(&cell.text));
    }
    let numbers: String = row.notes.iter().map(|note| format!("[{note}]")).collect();
    *out += &format!("<td class=\"faint\">{numbers}");
    out.push('\n');
}

fn push_plot(out: &mut String, plot: &Plot) {
    *out += &format!("<figure>\n<figcaption>{}<br>\n", escaped(&plot.title));
    for (name, color) in &plot.legend {
        let [red, green, blue] = [color.0, color.1, color.2];
        *out += &format!("<span><i style=\"background:rgb({red},{green},{blue})\"></i>{}</span>\n", escaped(name));
    }
    *out += &format!("</figcaption>\n{}\n</figure>\n", plot.svg.trim_end());
}

/// Escapes text for HTML, attributes included.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(workload: &str, step: &str, target: &str) -> Record {
        let (workload, step, target) = (workload.to_owned(), step.to_owned(), target.to_owned());
        Record { workload, step, target, ..Record::default() }
    }

    #[test]
    fn names_and_remarks_are_text_and_not_markup() {
        let mut record = record("fan-out", "<script>1", "\"a\" & 'b'");
        record.set("deliveries_per_s", 1.0).remark("</details><b>");
        record.timeline = vec![1, 2];
        let records = [record];
        let page = page(&[("Command", quoted("<i>")), ("System", "x".to_owned())], &records, &records).unwrap();
        assert!(!page.contains("<script") && !page.contains("</details><b>") && !page.contains("<i>"), "{page}");
        assert!(page.contains("&lt;script&gt;1") && page.contains("&quot;a&quot; &amp; &#39;b&#39;"), "{page}");
    }

    #[test]
    fn plots_are_there_for_which_there_are_figures() {
        let mut open = record("fan-out", "100 messages/s", "roomcast");
        open.set("offered_per_s", 100.0);
        open.latency_curve = vec![(0.0, 100.0), (0.5, 200.0), (0.99, 900.0)];
        let mut closed = record("fan-out", "window 1", "roomcast");
        closed.set("deliveries_per_s", 1e6);
        closed.timeline = vec![100, 200, 150];
        let floor = Record { target: "floor".to_owned(), ..closed.clone() };
        let sized = |members: f64| {
            let mut record = record("growth", &format!("{members} members"), "roomcast");
            record.set("members", members).set("cpu_per_delivery_us", 1.0);
            record
        };
        let delayed = |millis: f64| {
            let mut record = record("batching", &format!("{millis} ms"), "roomcast");
            record.set("offered_per_s", 200.0).set("batch_delay_ms", millis).set("server_busy", 0.5);
            record
        };
        let all = [open.clone(), closed.clone(), floor, sized(10.0), sized(100.0), delayed(0.0), delayed(20.0)];
        let svgs = |records: &[Record]| page(&[], records, records).unwrap().matches("<svg").count();
        // The bars, a curve of latency, a timeline, growth, and of batching CPU time, but no latency: it has none.
        assert_eq!(svgs(&all), 5);
        // One target alone needs no bars.
        assert_eq!(svgs(&[closed]), 1);
        assert_eq!(svgs(&[open]), 1);
        assert_eq!(svgs(&[record("idle", "10 connections", "roomcast")]), 0);
    }

    #[test]
    fn the_command_can_be_given_to_a_shell_again() {
        assert_eq!(quoted("--workload=fan-out,rooms"), "--workload=fan-out,rooms");
        assert_eq!(quoted("a b's"), r"'a b'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
