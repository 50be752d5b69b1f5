//! Draws the curves of a report as SVG.

use std::path::Path;

use plotters::prelude::*;

use crate::report::{Curve, Report, median};

const SIZE: (u32, u32) = (720, 360);
const COLOURS: [RGBColor; 3] = [RGBColor(31, 119, 180), RGBColor(255, 127, 14), RGBColor(44, 160, 44)];
const FONT: &str = "sans-serif";

/// The curves of a report, each with the name of its file without the extension.
pub(crate) fn curves(report: &Report) -> Vec<(String, &Curve)> {
    let named = |(name, results): (&String, &'_ crate::report::Results)| {
        (1..=results.curves.len()).map(|number| format!("{name}-{number}")).collect::<Vec<_>>()
    };
    let names = report.results.iter().flat_map(named);
    names.zip(report.results.values().flat_map(|results| &results.curves)).collect()
}

/// Draws every curve into a file in this folder.
pub(crate) fn draw_all(report: &Report, folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for (name, curve) in curves(report) {
        let path = folder.join(format!("{name}.svg"));
        let svg = draw(curve).map_err(|error| format!("{}: {error}", path.display()))?;
        std::fs::write(&path, svg).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// A line through the medians of each side; a dot per sample.
fn draw(curve: &Curve) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let points = || curve.lines.values().flatten();
    let right = points().map(|point| point.x).fold(1.0, f64::max);
    let top = points().flat_map(|point| &point.samples).copied().fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|error| failed(&error))?;
        let mut chart = ChartBuilder::on(&root)
            .caption(&curve.title, (FONT, 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..right * 1.05, 0.0..top * 1.1)
            .map_err(|error| failed(&error))?;
        let count = |value: &f64| format!("{value:.0}");
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(&curve.x).y_desc(&curve.unit).x_labels(6).x_label_formatter(&count);
        mesh.light_line_style(TRANSPARENT).label_style((FONT, 13)).draw().map_err(|error| failed(&error))?;
        for ((side, line), colour) in curve.lines.iter().zip(COLOURS.iter().cycle()) {
            let medians = line.iter().map(|point| (point.x, median(&point.samples)));
            let drawn = chart.draw_series(LineSeries::new(medians, colour.stroke_width(2)));
            let legend = move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour.stroke_width(2));
            drawn.map_err(|error| failed(&error))?.label(side).legend(legend);
            let samples = line.iter().flat_map(|point| point.samples.iter().map(|value| (point.x, *value)));
            let dots = samples.map(|place| Circle::new(place, 3, colour.filled()));
            chart.draw_series(dots).map_err(|error| failed(&error))?;
        }
        let mut labels = chart.configure_series_labels();
        labels.position(SeriesLabelPosition::LowerRight).background_style(WHITE.mix(0.8));
        labels.label_font((FONT, 13)).draw().map_err(|error| failed(&error))?;
        root.present().map_err(|error| failed(&error))?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curve_is_drawn_with_its_title_axes_sides_and_samples() {
        let mut curve = Curve::new("Start", "finished Jobs", "seconds");
        for (line, x, value) in [("dispatcher", 0, 0.2), ("dispatcher", 500, 0.3), ("baseline", 500, 0.9)] {
            curve.add(line, x, value);
        }
        let svg = draw(&curve).unwrap();
        for part in ["<svg", "Start", "finished Jobs", "seconds", "dispatcher", "baseline", "</svg>"] {
            assert!(svg.contains(part), "{part:?} is missing");
        }
        assert_eq!(svg.matches("<circle").count(), 3);
    }

    #[test]
    fn curve_without_points_is_drawn_empty() {
        assert!(draw(&Curve::new("t", "x", "y")).unwrap().contains("</svg>"));
    }
}
