//! The plots of each workload, made of records.

use std::io;

use plotters::style::RGBColor;

use crate::chart::{self, Axis, Bar, Line, Lines, Scale};
use crate::figure::short;
use crate::record::Record;
use crate::summary::distinct;
use crate::target::FLOOR;

/// A plot and how to read it.
#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) legend: Vec<(String, RGBColor)>,
    /// An `svg` element.
    pub(crate) svg: String,
}

/// Easy to tell from each other, from white and from black.
const COLORS: [RGBColor; 8] = [
    RGBColor(47, 129, 216),
    RGBColor(222, 115, 24),
    RGBColor(31, 158, 110),
    RGBColor(192, 80, 159),
    RGBColor(147, 132, 19),
    RGBColor(138, 109, 224),
    RGBColor(214, 69, 69),
    RGBColor(18, 143, 163),
];

const COLOR_OF_FLOOR: RGBColor = RGBColor(128, 136, 144);

const BUCKETS_PER_SECOND: f64 = 10.0;

/// A target's colour is the same in all plots.
#[derive(Debug)]
pub(crate) struct Palette(Vec<String>);

impl Palette {
    pub(crate) fn of(records: &[Record]) -> Self {
        let targets = distinct(records.iter().map(|record| record.target.as_str()));
        Self(targets.into_iter().filter(|target| *target != FLOOR).map(str::to_owned).collect())
    }

    fn color(&self, target: &str) -> RGBColor {
        if target == FLOOR {
            return COLOR_OF_FLOOR;
        }
        let nth = self.0.iter().position(|name| name == target).unwrap_or(0);
        COLORS[nth % COLORS.len()]
    }
}

/// All plots of a workload that have figures.
pub(crate) fn of_workload(workload: &str, medians: &[Record], palette: &Palette) -> io::Result<Vec<Plot>> {
    let records: Vec<&Record> = medians.iter().filter(|record| record.workload == workload).collect();
    let mut plots = Vec::new();
    match workload {
        "fan-out" => {
            plots.extend(rates(&records, palette)?);
            for step in distinct(records.iter().map(|record| record.step.as_str())) {
                let of_step: Vec<_> = records.iter().copied().filter(|record| record.step == step).collect();
                plots.extend(latencies(step, &of_step, palette)?);
                plots.extend(timelines(step, &of_step, palette)?);
            }
        }
        "rooms" => plots.extend(rates(&records, palette)?),
        "growth" => plots.extend(growth(&records, palette)?),
        "batching" => {
            plots.extend(batching_cpu(&records)?);
            plots.extend(batching_latency(&records)?);
        }
        _ => {}
    }
    Ok(plots)
}

/// Leaves out lines without points; no plot if none is left.
fn plot(title: String, mut lines: Lines) -> io::Result<Option<Plot>> {
    lines.lines.retain(|line| !line.points.is_empty());
    let legend = lines.lines.iter().map(|line| (line.name.clone(), line.color)).collect();
    Ok(lines.svg()?.map(|svg| Plot { title, legend, svg }))
}

/// One line for each target.
fn by_target(records: &[&Record], palette: &Palette, points: impl Fn(&Record) -> Vec<(f64, f64)>) -> Vec<Line> {
    let targets = distinct(records.iter().map(|record| record.target.as_str()));
    let line = |target: &str| Line {
        name: target.to_owned(),
        color: palette.color(target),
        points: records.iter().filter(|record| record.target == target).flat_map(|record| points(record)).collect(),
    };
    targets.into_iter().map(line).collect()
}

/// Deliveries per second in closed loops, if there are several targets.
fn rates(records: &[&Record], palette: &Palette) -> io::Result<Option<Plot>> {
    let closed: Vec<_> = records.iter().copied().filter(|record| !record.is_open_loop()).collect();
    if distinct(closed.iter().map(|record| record.target.as_str())).len() < 2 {
        return Ok(None);
    }
    let mut bars = Vec::new();
    for step in distinct(closed.iter().map(|record| record.step.as_str())) {
        let mut begins_group = !bars.is_empty();
        for record in closed.iter().filter(|record| record.step == step) {
            let Some(value) = record.get("deliveries_per_s") else { continue };
            let (name, color) = (format!("{step}, {}", record.target), palette.color(&record.target));
            bars.push(Bar { name, color, value, text: short(value), begins_group });
            begins_group = false;
        }
    }
    let targets = distinct(closed.iter().map(|record| record.target.as_str()));
    let legend = targets.into_iter().map(|target| (target.to_owned(), palette.color(target))).collect();
    let title = "Deliveries per second, closed loop".to_owned();
    Ok(chart::bars(&bars, "deliveries/s")?.map(|svg| Plot { title, legend, svg }))
}

/// Latency by percentile, in an open loop.
fn latencies(step: &str, of_step: &[&Record], palette: &Palette) -> io::Result<Option<Plot>> {
    let points = |record: &Record| {
        let curve = if record.is_open_loop() { &record.latency_curve[..] } else { &[] };
        // The plot is about the slower half.
        curve
            .iter()
            .filter(|(fraction, _)| *fraction > 0.4)
            .map(|(fraction, micros)| (*fraction, micros / 1e3))
            .collect()
    };
    let lines = Lines {
        x: Axis { label: "percentile of deliveries", scale: Scale::Nines },
        y: Axis { label: "ms since due", scale: Scale::Log },
        lines: by_target(of_step, palette, points),
        has_marks: false,
    };
    plot(format!("Latency at {step}"), lines)
}

/// Deliveries over time, in a closed loop: whether the rate is steady.
fn timelines(step: &str, of_step: &[&Record], palette: &Palette) -> io::Result<Option<Plot>> {
    let points = |record: &Record| {
        let timeline = if record.is_open_loop() { &[] } else { &record.timeline[..] };
        let point =
            |(nth, count): (usize, &u64)| ((nth + 1) as f64 / BUCKETS_PER_SECOND, *count as f64 * BUCKETS_PER_SECOND);
        timeline.iter().enumerate().map(point).collect()
    };
    let lines = Lines {
        x: Axis { label: "seconds", scale: Scale::Linear },
        y: Axis { label: "deliveries/s", scale: Scale::Linear },
        lines: by_target(of_step, palette, points),
        has_marks: false,
    };
    plot(format!("Deliveries over time, {step}"), lines)
}

fn growth(records: &[&Record], palette: &Palette) -> io::Result<Option<Plot>> {
    let points = |record: &Record| record.get("members").zip(record.get("cpu_per_delivery_us")).into_iter().collect();
    let lines = Lines {
        x: Axis { label: "members of the room", scale: Scale::Log },
        y: Axis { label: "CPU µs per delivery", scale: Scale::Linear },
        lines: by_target(records, palette, points),
        has_marks: true,
    };
    plot("CPU time per delivery by size of the room".to_owned(), lines)
}

/// A figure over the batch delay: one line for each target and rate.
fn by_delay(records: &[&Record], value: &str, factor: f64) -> Vec<Line> {
    let key = |record: &Record| (record.target.clone(), record.get("offered_per_s").map(|rate| rate as u64));
    let mut keys: Vec<_> = records.iter().filter(|record| record.is_open_loop()).map(|record| key(record)).collect();
    keys.dedup();
    let has_several = distinct(records.iter().map(|record| record.target.as_str())).len() > 1;
    let line = |(target, rate): &(String, Option<u64>)| {
        let of_line = records.iter().filter(|record| key(record) == (target.clone(), *rate));
        let point = |record: &&Record| Some((record.get("batch_delay_ms")?, record.get(value)? * factor));
        let mut points: Vec<_> = of_line.filter_map(point).collect();
        points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let target = if has_several { format!("{target}, ") } else { String::new() };
        Line { name: format!("{target}{} messages/s", rate.unwrap_or(0)), color: COLORS[0], points }
    };
    let mut seen = Vec::new();
    keys.retain(|key| !seen.contains(key) && (seen.push(key.clone()), true).1);
    keys.iter().map(line).collect()
}

fn batching_plot(title: &str, label: &'static str, mut lines: Vec<Line>) -> io::Result<Option<Plot>> {
    for (line, color) in lines.iter_mut().zip(COLORS.iter().cycle()) {
        line.color = *color;
    }
    let x = Axis { label: "--batch-delay, ms", scale: Scale::Linear };
    plot(title.to_owned(), Lines { x, y: Axis { label, scale: Scale::Linear }, lines, has_marks: true })
}

fn batching_cpu(records: &[&Record]) -> io::Result<Option<Plot>> {
    batching_plot("CPU time by --batch-delay", "percent of the server's core", by_delay(records, "server_busy", 100.0))
}

fn batching_latency(records: &[&Record]) -> io::Result<Option<Plot>> {
    let mut lines = Vec::new();
    for (percentile, value) in [("p50", "p50_ms"), ("p99", "p99_ms")] {
        let named = by_delay(records, value, 1.0).into_iter();
        lines.extend(named.map(|line| Line { name: format!("{percentile}, {}", line.name), ..line }));
    }
    batching_plot("Latency by --batch-delay", "ms since due", lines)
}
