//! Plots as inline SVG: lines and grouped bars. Colours are classes, so that the page's style, light or dark, applies.

use std::fmt::Write;

/// Width of a plot in its own units; the page scales it to the column's width.
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;

/// A line with a mark at every point.
pub(super) struct Series {
    /// Name in the legend.
    pub(super) name: String,
    /// Horizontal and vertical value, in the order of the first.
    pub(super) points: Vec<(f64, f64)>,
    /// Drawn as a reference: dashed, without marks.
    pub(super) reference: bool,
}

/// A line plot.
pub(super) struct Lines {
    /// Below the horizontal axis.
    pub(super) x_label: &'static str,
    /// Whether the horizontal axis is logarithmic.
    pub(super) logarithmic: bool,
    /// Whether the vertical axis begins at 0.
    pub(super) from_zero: bool,
    /// The lines.
    pub(super) series: Vec<Series>,
}

impl Lines {
    /// The plot, with its legend.
    pub(super) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let along = |value: f64| if self.logarithmic { value.ln() } else { value };
        let x = Scale::new(
            points().map(|point| along(point.0)),
            LEFT + 6.0,
            WIDTH - RIGHT - 6.0,
        );
        let zero = self.from_zero.then_some(0.0);
        let y = Scale::new(
            points().map(|point| point.1).chain(zero),
            HEIGHT - BOTTOM,
            TOP + 4.0,
        );
        let mut body = y_axis(&y);
        let mut marks: Vec<f64> = points().map(|point| point.0).collect();
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        let ticks = if marks.len() <= 10 { marks } else { x.ticks() };
        // Labels that would overlap are omitted.
        let mut free = f64::MIN;
        for tick in ticks {
            let at = x.at(along(tick));
            if at - free >= 0.0 {
                text(
                    &mut body,
                    at,
                    HEIGHT - BOTTOM + 14.0,
                    "middle",
                    &number(tick),
                );
                free = at + 26.0;
            }
        }
        x_label(&mut body, self.x_label);
        for (place, series) in self.series.iter().enumerate() {
            let path: Vec<String> = series
                .points
                .iter()
                .map(|point| format!("{:.1},{:.1}", x.at(along(point.0)), y.at(point.1)))
                .collect();
            let class = if series.reference {
                "reference".to_owned()
            } else {
                format!("s{place}")
            };
            let _ = write!(
                body,
                r#"<polyline class="line {class}" points="{}"/>"#,
                path.join(" ")
            );
            if !series.reference {
                for (at, point) in path.iter().zip(&series.points) {
                    let (cx, cy) = at.split_once(',').unwrap_or_default();
                    let _ = write!(
                        body,
                        r#"<circle class="mark {class}" cx="{cx}" cy="{cy}" r="2.6"><title>{}: {} → {}</title></circle>"#,
                        escape(&series.name),
                        number(point.0),
                        number(point.1)
                    );
                }
            }
        }
        let shown = self.series.iter().enumerate();
        let legend: Vec<(usize, &str)> = shown
            .filter(|(_, series)| !series.reference)
            .map(|(place, series)| (place, series.name.as_str()))
            .collect();
        figure(&body, &legend)
    }
}

/// A bar plot: a group of bars for each value.
pub(super) struct Bars {
    /// Below the horizontal axis.
    pub(super) x_label: String,
    /// Names of the bars within a group.
    pub(super) names: Vec<String>,
    /// The value of a group and the heights of its bars.
    pub(super) groups: Vec<(String, Vec<f64>)>,
}

impl Bars {
    /// The plot, with its legend.
    pub(super) fn svg(&self) -> String {
        let heights = self.groups.iter().flat_map(|group| group.1.iter().copied());
        let y = Scale::new(heights.chain([0.0]), HEIGHT - BOTTOM, TOP + 4.0);
        let mut body = y_axis(&y);
        let width = (WIDTH - LEFT - RIGHT) / self.groups.len().max(1) as f64;
        let every = (22.0 / width).ceil().max(1.0) as usize;
        for (place, (value, heights)) in self.groups.iter().enumerate() {
            let from = LEFT + width * place as f64 + 0.12 * width;
            let bar = 0.76 * width / heights.len().max(1) as f64;
            for (series, &height) in heights.iter().enumerate() {
                let (top, bottom) = (y.at(height), y.at(0.0));
                let _ = write!(
                    body,
                    r#"<rect class="bar s{series}" x="{:.1}" y="{top:.1}" width="{:.1}" height="{:.1}"><title>{} {}: {}</title></rect>"#,
                    from + bar * series as f64,
                    (bar - 0.6).max(0.4),
                    (bottom - top).max(0.0),
                    escape(value),
                    escape(self.names.get(series).map_or("", String::as_str)),
                    number(height)
                );
            }
            if place % every == 0 {
                let at = LEFT + width * (place as f64 + 0.5);
                text(&mut body, at, HEIGHT - BOTTOM + 14.0, "middle", value);
            }
        }
        x_label(&mut body, &self.x_label);
        let names = self.names.iter().map(String::as_str);
        figure(&body, &names.enumerate().collect::<Vec<_>>())
    }
}

fn figure(body: &str, legend: &[(usize, &str)]) -> String {
    let mut keys = String::new();
    for (place, name) in legend {
        let _ = write!(
            keys,
            r#"<span class="key s{place}">{}</span>"#,
            escape(name)
        );
    }
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{body}</svg><div class="legend">{keys}</div>"#
    )
}

fn y_axis(y: &Scale) -> String {
    let mut body = String::new();
    for tick in y.ticks() {
        let at = y.at(tick);
        let _ = write!(
            body,
            r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{at:.1}" y2="{at:.1}"/>"#,
            WIDTH - RIGHT
        );
        text(&mut body, LEFT - 6.0, at + 4.0, "end", &number(tick));
    }
    body
}

fn x_label(body: &mut String, label: &str) {
    text(
        body,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 4.0,
        "middle",
        label,
    );
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = write!(
        body,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
        escape(text)
    );
}

/// A linear map from values to positions.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::MAX, f64::MIN);
        for value in values.filter(|value| value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if high - low < 1e-12 {
            high = low + 1.0;
        }
        Self {
            low,
            high,
            from,
            to,
        }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Four or so round numbers within the values.
    fn ticks(&self) -> Vec<f64> {
        let rough = (self.high - self.low) / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power);
        let step = steps
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|tick| tick as f64 * step).collect()
    }
}

/// A number with no more digits than a reader needs.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        large if large >= 100.0 || value.fract() == 0.0 => 0,
        large if large >= 1.0 => 2,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Escapes a text for HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let scale = Scale::new([0.0, 0.113].into_iter(), 0.0, 1.0);
        assert_eq!(scale.ticks().len(), 3);
        assert!((scale.ticks()[1] - 0.05).abs() < 1e-12);
        let constant = Scale::new([2.0, 2.0].into_iter(), 0.0, 1.0);
        assert!(
            constant
                .ticks()
                .iter()
                .all(|tick| (2.0..=3.0).contains(tick))
        );
        assert!(Scale::new(std::iter::empty(), 0.0, 1.0).at(0.5).is_finite());
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.05, 0.12345, 1.5, 300.0, 12.0].map(number),
            ["0", "0.05", "0.1235", "1.5", "300", "12"]
        );
    }

    #[test]
    fn names_cannot_break_the_page() {
        let bars = Bars {
            x_label: "a & b".into(),
            names: vec!["<x>".into()],
            groups: vec![("\"1\"".into(), vec![0.5])],
        };
        let svg = bars.svg();
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;x&gt;") && !svg.contains("<x>"));
    }
}
