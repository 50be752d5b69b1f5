//! Draws the Grafana dashboard as an SVG, from its panels and the query results of Prometheus.

use dispatcher_tests::prometheus::Series;
use plotters::coord::Shift;
use plotters::prelude::*;
use serde_json::Value;

const WIDTH: u32 = 1440;
/// The grid of Grafana has 24 columns.
const COLUMN: u32 = WIDTH / 24;
const ROW: u32 = 26;
/// Height of the header with the annotations.
const HEADER: u32 = 44;
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(23, 150, 170),
    RGBColor(227, 119, 194),
    RGBColor(110, 110, 110),
];
/// A line is interrupted where points are further apart than this, in seconds.
const GAP: f64 = 3.0;
const ANNOTATION: RGBColor = RGBColor(240, 150, 90);
const GREY: RGBColor = RGBColor(110, 110, 110);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A panel of the dashboard, and the series of its queries with their legends.
pub(crate) struct Panel {
    pub(crate) panel: Value,
    pub(crate) series: Vec<(String, Series)>,
}

/// What happened during the run, with the time in seconds since its start.
pub(crate) type Annotations = Vec<(f64, &'static str)>;

/// Draws a run from `start` to `end`, in Unix seconds.
pub(crate) fn draw(panels: &[Panel], annotations: &Annotations, (start, end): (f64, f64)) -> String {
    let number = |panel: &Value, field: &str| panel["gridPos"][field].as_u64().unwrap() as u32;
    let height =
        panels.iter().map(|Panel { panel, .. }| number(panel, "y") + number(panel, "h")).max().unwrap();
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEADER + height * ROW + 4)).into_drawing_area();
        root.fill(&WHITE).unwrap();
        draw_header(&root, annotations);
        for Panel { panel, series } in panels {
            let (x, y) = (number(panel, "x") * COLUMN, HEADER + number(panel, "y") * ROW);
            let (w, h) = (number(panel, "w") * COLUMN, number(panel, "h") * ROW);
            let area = root.clone().shrink((x + 3, y + 3), (w - 6, h - 6));
            let title = panel["title"].as_str().unwrap();
            match panel["type"].as_str().unwrap() {
                "row" => text(&area, title, (4, 2), 15, BLACK),
                "stat" => stat(&area, title, panel, series),
                _ => graph(&area, title, panel, series, annotations, (start, end)),
            }
        }
        root.present().unwrap();
    }
    svg
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), size: u32, colour: RGBColor) {
    area.draw(&Text::new(text.to_owned(), at, ("sans-serif", size).into_font().color(&colour))).unwrap();
}

fn draw_header(root: &Area<'_>, annotations: &Annotations) {
    text(root, "Dispatcher", (8, 4), 18, BLACK);
    let labels: Vec<String> = annotations.iter().map(|(at, what)| format!("{at:.0} s: {what}")).collect();
    text(root, &labels.join("   |   "), (8, 26), 12, GREY);
}

fn stat(area: &Area<'_>, title: &str, panel: &Value, series: &[(String, Series)]) {
    let value = series.first().and_then(|(_, series)| series.points.last()).map(|point| point.1);
    let steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array().unwrap();
    let reached = |step: &&Value| step["value"].as_f64().is_none_or(|from| value.unwrap_or(0.0) >= from);
    let colour = match steps.iter().rev().find(reached).unwrap()["color"].as_str().unwrap() {
        "green" => RGBColor(86, 166, 75),
        "yellow" => RGBColor(222, 168, 20),
        _ => RGBColor(204, 64, 56),
    };
    area.fill(&colour).unwrap();
    text(area, title, (8, 8), 13, WHITE);
    let label = value.map_or_else(|| "no data".to_owned(), |value| in_unit(value, unit(panel)));
    text(area, &label, (8, 36), 34, WHITE);
}

fn unit(panel: &Value) -> &str {
    panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default()
}

fn in_unit(value: f64, unit: &str) -> String {
    let short = |value: f64| {
        let text = if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") };
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match unit {
        "s" if value > 0.0 && value < 1.0 => format!("{} ms", short(value * 1000.0)),
        "s" => format!("{} s", short(value)),
        "reqps" | "ops" => format!("{}/s", short(value)),
        _ => short(value),
    }
}

fn graph(
    area: &Area<'_>,
    title: &str,
    panel: &Value,
    series: &[(String, Series)],
    annotations: &Annotations,
    (start, end): (f64, f64),
) {
    area.draw(&Rectangle::new([(0, 0), area.dim_in_pixel_i32()], RGBColor(225, 225, 225))).unwrap();
    let values = series.iter().flat_map(|(_, series)| &series.points).map(|point| point.1);
    let top = values.fold(0.0_f64, f64::max);
    let top = if top > 0.0 { top * 1.1 } else { 1.0 };
    let (upper, legend) = area.split_vertically(area.dim_in_pixel().1 - 20);
    let mut chart = ChartBuilder::on(&upper)
        .caption(title, ("sans-serif", 13))
        .margin_right(10)
        .x_label_area_size(18)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..end - start, 0.0..top)
        .unwrap();
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(230, 230, 230))
        .axis_style(RGBColor(180, 180, 180))
        .x_labels(6)
        .y_labels(5)
        .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
        .y_label_formatter(&|value| in_unit(*value, unit(panel)))
        .label_style(("sans-serif", 10))
        .draw()
        .unwrap();
    for (at, _) in annotations {
        let line = [(*at, 0.0), (*at, top)];
        chart.draw_series(LineSeries::new(line, ANNOTATION.stroke_width(1))).unwrap();
    }
    let mut left = 6;
    for (index, (name, series)) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        // Failed scrapes leave a gap.
        for points in series.points.chunk_by(|(before, _), (at, _)| at - before < GAP) {
            let points = points.iter().map(|(at, value)| (at - start, *value));
            chart.draw_series(LineSeries::new(points, colour.stroke_width(2))).unwrap();
        }
        text(&legend, name, (left, 4), 11, colour);
        left += 12 + 6 * i32::try_from(name.len()).unwrap();
    }
}

/// The lower right corner of an area.
trait Corner {
    fn dim_in_pixel_i32(&self) -> (i32, i32);
}

impl Corner for Area<'_> {
    fn dim_in_pixel_i32(&self) -> (i32, i32) {
        let (w, h) = self.dim_in_pixel();
        (i32::try_from(w).unwrap() - 1, i32::try_from(h).unwrap() - 1)
    }
}
