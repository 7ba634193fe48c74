//! Records: the figures of one step, how they are written, and medians over rounds.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::target::FLOOR;

/// One measurement of one target.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) workload: String,
    pub(crate) step: String,
    pub(crate) target: String,
    pub(crate) round: u32,
    /// Figures by name; the unit is the name's last word.
    pub(crate) values: BTreeMap<String, f64>,
    /// Only of a median over rounds: figures divided by the floor's of the same step and round, and the median of these
    /// ratios. The machine's speed changes with time, so figures of the same round compare better than medians.
    #[serde(skip)]
    pub(crate) times_floor: BTreeMap<String, f64>,
    /// Points of (fraction of all deliveries, latency in microseconds), for the plot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) latency_curve: Vec<(f64, f64)>,
    /// Deliveries in each tenth of a second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) timeline: Vec<u64>,
    /// Notes below the table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) remarks: Vec<String>,
    /// Why the step counts as failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
}

impl Record {
    pub(crate) fn set(&mut self, name: &str, value: f64) -> &mut Self {
        // JSON has neither infinity nor NaN: such figures are left out.
        if value.is_finite() {
            self.values.insert(name.to_owned(), value);
        }
        self
    }

    /// Sets how much was delivered or done in a second. A step in which nothing was has failed.
    pub(crate) fn set_rate(&mut self, name: &str, value: f64) -> &mut Self {
        if value == 0.0 {
            self.failure = Some("nothing was delivered".to_owned());
        }
        self.set(name, value)
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// Whether messages were published by schedule, whatever the server did; `offered_per_s` is set only then.
    pub(crate) fn is_open_loop(&self) -> bool {
        self.values.contains_key("offered_per_s")
    }

    /// Whether nothing failed and no delivery was lost. A server that delivers less than others is no faster for it.
    pub(crate) fn is_complete(&self) -> bool {
        self.failure.is_none() && self.get("lost").is_none_or(|lost| lost == 0.0)
    }

    pub(crate) fn remark(&mut self, remark: impl Into<String>) -> &mut Self {
        self.remarks.push(remark.into());
        self
    }

    /// Sets percentiles of latencies in microseconds; `prefix` begins their names.
    pub(crate) fn set_latency(&mut self, prefix: &str, latency: &Histogram<u64>) -> &mut Self {
        if latency.is_empty() {
            return self;
        }
        for (percentile, value) in [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)] {
            self.set(&format!("{prefix}{percentile}_ms"), latency.value_at_percentile(value) as f64 / 1000.0);
        }
        self
    }
}

/// A histogram for 1 µs to a minute, with three significant digits.
pub(crate) fn latencies() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order");
    histogram.auto(true);
    histogram
}

/// Points of a histogram at fractions that come ever closer to 1.
pub(crate) fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let mut points = Vec::new();
    let mut rest = 1.0;
    while rest > 1e-6 && rest * histogram.len() as f64 >= 0.5 {
        let fraction = 1.0 - rest;
        points.push((fraction, histogram.value_at_quantile(fraction) as f64));
        rest *= 0.8;
    }
    points.push((1.0 - rest, histogram.max() as f64));
    points
}

/// The medians over rounds of the records of each step and target, in the order of their first round.
pub(crate) fn medians(records: &[Record]) -> Vec<Record> {
    let mut groups: Vec<Vec<&Record>> = Vec::new();
    for record in records {
        let key = |record: &Record| (record.workload.clone(), record.step.clone(), record.target.clone());
        match groups.iter_mut().find(|group| key(group[0]) == key(record)) {
            Some(group) => group.push(record),
            None => groups.push(vec![record]),
        }
    }
    let floor_of = |record: &Record| {
        let is_floor = |floor: &&Record| {
            let place = |record: &Record| (record.workload.clone(), record.step.clone(), record.round);
            floor.target == FLOOR && place(floor) == place(record)
        };
        records.iter().find(is_floor)
    };
    groups.iter().map(|group| median_of(group, floor_of)).collect()
}

fn median_of<'a>(group: &[&Record], floor_of: impl Fn(&Record) -> Option<&'a Record>) -> Record {
    let mut median = group[group.len() / 2].clone();
    let pairs: Vec<_> = group.iter().filter_map(|record| Some((*record, floor_of(record)?))).collect();
    for (name, value) in &mut median.values {
        *value = middle(group.iter().filter_map(|record| record.get(name))).unwrap_or(*value);
        let ratios = pairs.iter().filter_map(|(record, floor)| Some(record.get(name)? / floor.get(name)?));
        if let Some(ratio) = middle(ratios.filter(|ratio| ratio.is_finite())) {
            median.times_floor.insert(name.clone(), ratio);
        }
    }
    median.failure = group.iter().find_map(|record| record.failure.clone());
    for record in group {
        for remark in &record.remarks {
            if !median.remarks.contains(remark) {
                median.remarks.push(remark.clone());
            }
        }
    }
    median
}

/// The median; `None` without values.
fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    Some(if values.len() % 2 == 1 { values[middle] } else { (values[middle.checked_sub(1)?] + values[middle]) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_taken_for_each_figure_and_keeps_the_order() {
        let record = |step: &str, value: f64| {
            let mut record = Record { step: step.to_owned(), ..Record::default() };
            record.set("x", value);
            record
        };
        let all = [record("b", 3.0), record("a", 10.0), record("b", 1.0), record("a", 20.0), record("b", 2.0)];
        let medians = medians(&all);
        let found: Vec<_> = medians.iter().map(|record| (record.step.as_str(), record.get("x").unwrap())).collect();
        assert_eq!(found, [("b", 2.0), ("a", 15.0)]);
    }

    #[test]
    fn the_floor_is_compared_with_in_each_round() {
        let record = |target: &str, round: u32, value: f64| {
            let mut record = Record { target: target.to_owned(), round, ..Record::default() };
            record.set("x", value);
            record
        };
        // A slow round between two fast ones, and one for which the floor is missing.
        let (ours, floors) = ([10.0, 21.0, 12.0, 99.0], [10.0, 20.0, 10.0]);
        let ours = ours.iter().zip(1..).map(|(value, round)| record("ours", round, *value));
        let floors = floors.iter().zip(1..).map(|(value, round)| record(FLOOR, round, *value));
        let medians = medians(&ours.chain(floors).collect::<Vec<_>>());
        assert_eq!(medians[0].get("x"), Some(16.5));
        assert_eq!(medians[0].times_floor["x"], 1.05);
    }

    #[test]
    fn a_curve_rises_and_ends_at_the_maximum() {
        let mut histogram = latencies();
        for value in 1..=10_000 {
            histogram.record(value).unwrap();
        }
        let curve = curve(&histogram);
        assert!(curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        assert_eq!(curve.last().unwrap().1, histogram.max() as f64);
    }
}
