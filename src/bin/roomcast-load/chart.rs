//! Charts as SVG: lines over two axes, and bars. Their colours are legible on light and on dark; text has the page's.

use std::io;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;

use crate::figure::short;

/// Small enough that labels can be read on a phone, which shows it at two thirds.
const SIZE: (u32, u32) = (520, 320);
const FONT: (&str, i32) = ("sans-serif", 17);
const GRID: RGBAColor = RGBAColor(128, 128, 128, 0.3);
const AXIS: RGBColor = RGBColor(128, 128, 128);

/// How values are mapped to places on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    /// Begins at zero.
    Linear,
    /// Logarithmic. Values are above zero.
    Log,
    /// Fractions, with equal distances between 90 %, 99 %, 99.9 % …
    Nines,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) label: &'static str,
    pub(crate) scale: Scale,
}

#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) color: RGBColor,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Lines over two axes.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
    /// Whether points are few enough to be marked.
    pub(crate) has_marks: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) color: RGBColor,
    pub(crate) value: f64,
    /// The value in writing.
    pub(crate) text: String,
    /// Whether a gap separates it from the one above.
    pub(crate) begins_group: bool,
}

/// The ends of an axis and the places of its labels. Those that plotters chooses are not round on logarithmic axes, and
/// it has none for percentiles.
#[derive(Clone, Debug)]
struct Ticks {
    from: f64,
    to: f64,
    places: Vec<f64>,
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.max(1e-9).log10(),
            Self::Nines => -(1.0 - value).max(1e-9).log10(),
        }
    }

    fn label(self, place: f64) -> String {
        match self {
            Self::Linear => round(place),
            Self::Log => round(10_f64.powf(place)),
            Self::Nines => {
                let percent = 100.0 * (1.0 - 10_f64.powf(-place));
                format!("{percent:.*}", (place.round() as usize).saturating_sub(2))
            }
        }
    }

    /// Ticks around values; `None` if there are none.
    fn ticks(self, values: impl Iterator<Item = f64>) -> Option<Ticks> {
        let places = values.map(|value| self.place(value)).filter(|place| place.is_finite());
        let (least, most) =
            places.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), place| (least.min(place), most.max(place)));
        if least > most {
            return None;
        }
        Some(match self {
            Self::Linear => Ticks::linear(most),
            Self::Log => Ticks::log(least, most),
            Self::Nines => Ticks::nines(least, most),
        })
    }
}

/// A figure without trailing zeros.
fn round(value: f64) -> String {
    let text = short((value * 1e6).round() / 1e6);
    let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{number} {unit}").trim_end().to_owned()
}

impl Ticks {
    /// Steps of 1, 2 or 5 and zeros; at most seven.
    fn linear(most: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let rough = most / 6.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough * 0.999_999);
        let step = step.unwrap_or(10.0 * power);
        // Up to the next step only if the values come close to it.
        let to = if (most / step).ceil() * step - most < step * 0.3 { (most / step).ceil() * step } else { most };
        let places = (0..8).map(|nth| f64::from(nth) * step).take_while(|place| *place <= to * 1.000_001).collect();
        Self { from: 0.0, to, places }
    }

    /// 1, 2, 5 of each power of ten that is touched; the powers alone if that would be too many.
    fn log(least: f64, most: f64) -> Self {
        let (first, last) = ((least + 1e-9).floor() as i32, (most - 1e-9).ceil().max(least.floor() + 1.0) as i32);
        let digits: &[f64] = if last - first > 2 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all = (first..=last).flat_map(|power| digits.iter().map(move |digit| f64::from(power) + digit.log10()));
        let mut places: Vec<f64> = all.collect();
        let from = places.iter().copied().rfind(|place| *place <= least + 1e-9).unwrap_or(least);
        let to = places.iter().copied().find(|place| *place >= most - 1e-9 && *place > from).unwrap_or(most);
        places.retain(|place| (from..=to).contains(place));
        Self { from, to, places }
    }

    /// 0 %, 50 %, 90 %, 99 % …
    fn nines(least: f64, most: f64) -> Self {
        let to = most.max(least + 1.0);
        let mut places = vec![0.0, 2_f64.log10()];
        places.extend((1..=to as u32).map(f64::from));
        places.retain(|place| *place >= least);
        Self { from: least, to, places }
    }
}

impl Ranged for Ticks {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (begin, end): (i32, i32)) -> i32 {
        let part = (place - self.from) / (self.to - self.from);
        begin + (part * f64::from(end - begin)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.places.clone() }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.from..self.to
    }
}

impl Lines {
    /// An `svg` element; `None` without points.
    pub(crate) fn svg(&self) -> io::Result<Option<String>> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let ticks = self.x.scale.ticks(points().map(|(x, _)| *x)).zip(self.y.scale.ticks(points().map(|(_, y)| *y)));
        let Some((x, y)) = ticks else { return Ok(None) };
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            self.draw(&area, x, y).and_then(|()| area.present()).map_err(io::Error::other)?;
        }
        Ok(Some(svg))
    }

    fn draw<'a>(
        &self,
        area: &DrawingArea<SVGBackend<'a>, Shift>,
        x: Ticks,
        y: Ticks,
    ) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
        let mut builder = ChartBuilder::on(area);
        builder.margin(8).margin_right(18).x_label_area_size(46).y_label_area_size(66);
        let mut chart = builder.build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(AXIS)
            .label_style(FONT)
            .x_label_formatter(&|place| self.x.scale.label(*place))
            .y_label_formatter(&|place| self.y.scale.label(*place))
            .x_desc(self.x.label)
            .y_desc(self.y.label)
            .draw()?;
        for line in &self.lines {
            let place = |(x, y): &(f64, f64)| (self.x.scale.place(*x), self.y.scale.place(*y));
            let style = line.color.stroke_width(2);
            chart.draw_series(LineSeries::new(line.points.iter().map(place), style))?;
            if self.has_marks {
                let mark = |point| Circle::new(place(point), 4, line.color.filled());
                chart.draw_series(line.points.iter().map(mark))?;
            }
        }
        Ok(())
    }
}

/// Horizontal bars, one below the other, as an `svg` element; `None` without bars.
pub(crate) fn bars(bars: &[Bar], label: &str) -> io::Result<Option<String>> {
    let Some(ticks) = Scale::Linear.ticks(bars.iter().map(|bar| bar.value)).filter(|ticks| ticks.to > 0.0) else {
        return Ok(None);
    };
    let gaps = bars.iter().map(|bar| if bar.begins_group { 0.5 } else { 0.0 });
    let mut next = 0.0;
    let rows: Vec<f64> = gaps.map(|gap| (next += 1.0 + gap, next - 1.0).1).collect();
    let mut svg = String::new();
    {
        let height = 68 + (next * 22.0) as u32;
        let area = SVGBackend::with_string(&mut svg, (SIZE.0, height)).into_drawing_area();
        draw_bars(&area, bars, &rows, (ticks, label)).and_then(|()| area.present()).map_err(io::Error::other)?;
    }
    Ok(Some(svg))
}

fn draw_bars<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    bars: &[Bar],
    rows: &[f64],
    (ticks, label): (Ticks, &str),
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
    let end = rows.last().copied().unwrap_or(0.0) + 1.0;
    let middles: Vec<f64> = rows.iter().map(|row| row + 0.5).collect();
    let name = |place: &f64| {
        let nth = middles.iter().position(|middle| (middle - place).abs() < 1e-6);
        nth.map_or_else(String::new, |nth| bars[nth].name.clone())
    };
    let mut builder = ChartBuilder::on(area);
    builder.margin(8).x_label_area_size(46).y_label_area_size(190);
    // The text behind the longest bar needs room.
    let x = Ticks { to: ticks.to * 1.22, ..ticks };
    let y = Ticks { from: end + 0.2, to: -0.2, places: middles.clone() };
    let mut chart = builder.build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(AXIS)
        .label_style(FONT)
        .x_label_formatter(&|place| Scale::Linear.label(*place))
        .y_label_formatter(&name)
        .x_desc(label)
        .draw()?;
    for (bar, row) in bars.iter().zip(rows) {
        let corners = [(0.0, row + 0.12), (bar.value, row + 0.88)];
        chart.draw_series([Rectangle::new(corners, bar.color.filled())])?;
        let text = EmptyElement::at((bar.value, row + 0.5)) + Text::new(bar.text.clone(), (5, -7), FONT);
        chart.draw_series([text])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale, values: &[f64]) -> Vec<String> {
        let ticks = scale.ticks(values.iter().copied()).expect("there are values");
        ticks.places.iter().map(|place| scale.label(*place)).collect()
    }

    #[test]
    fn ticks_are_round_and_surround_the_values() {
        assert_eq!(labels(Scale::Linear, &[0.3, 1.2]), ["0", "0.2", "0.4", "0.6", "0.8", "1", "1.2"]);
        assert_eq!(labels(Scale::Linear, &[12.9e6]), ["0", "5 M", "10 M"]);
        assert_eq!(labels(Scale::Log, &[3.0, 40.0]), ["2", "5", "10", "20", "50"]);
        assert_eq!(labels(Scale::Log, &[10.0, 10_000.0]), ["10", "100", "1000", "10 k"]);
        assert_eq!(labels(Scale::Log, &[10.0]), ["10", "20"]);
        assert_eq!(labels(Scale::Nines, &[0.0, 0.9995]), ["0", "50", "90", "99", "99.9"]);
        assert!(Scale::Linear.ticks([].into_iter()).is_none());
    }

    #[test]
    fn without_points_there_is_no_chart() {
        let axis = Axis { label: "x", scale: Scale::Log };
        let mut lines = Lines { x: axis, y: axis, lines: Vec::new(), has_marks: true };
        assert_eq!(lines.svg().unwrap(), None);
        lines.lines.push(Line { name: "a".to_owned(), color: AXIS, points: vec![(1.0, 5.0)] });
        assert!(lines.svg().unwrap().unwrap().starts_with("<svg"));
        assert_eq!(bars(&[], "x").unwrap(), None);
    }
}
