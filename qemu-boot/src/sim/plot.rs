//! Pictures that compare the algorithms.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::measure::Row;
use super::run::Outcomes;

const COLOURS: [RGBColor; 6] = [
    RGBColor(0x33, 0x66, 0xaa),
    RGBColor(0xdd, 0x88, 0x22),
    RGBColor(0x55, 0x99, 0x44),
    RGBColor(0xbb, 0x44, 0x55),
    RGBColor(0x77, 0x66, 0xaa),
    RGBColor(0x66, 0x66, 0x66),
];
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x44, 0x44, 0x44);

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// Something measured, and how to show it.
struct Quantity {
    file: &'static str,
    title: &'static str,
    workloads: &'static [&'static str],
    value: fn(&Row) -> f64,
    unit: &'static str,
}

const QUANTITIES: &[Quantity] = &[
    Quantity {
        file: "share-error",
        title: "Largest deviation of a share from its weight",
        workloads: &["equal", "weights", "refuser", "idle", "bursty", "thousand"],
        value: |row| row.share_error_max * 100.0,
        unit: "%",
    },
    Quantity {
        file: "deadline-misses",
        title: "Deadlines missed, workload steady",
        workloads: &["steady"],
        value: |row| row.deadline_misses as f64 / row.deadline_jobs.max(1) as f64 * 100.0,
        unit: "%",
    },
    Quantity {
        file: "wait",
        title: "99th percentile of the wait for the device",
        workloads: &["equal", "weights", "refuser", "idle", "bursty", "steady"],
        value: |row| row.wait_p99_ns as f64 / 1e6,
        unit: "ms",
    },
    Quantity {
        file: "overhead",
        title: "Time spent switching",
        workloads: &["single", "equal", "refuser", "bursty", "steady", "thousand"],
        value: |row| row.overhead * 100.0,
        unit: "%",
    },
];

/// Draws everything into `directory` and returns the files.
///
/// # Errors
/// If a file can't be written.
pub fn draw(
    directory: &Path,
    rows: &[Row],
    services: &[(String, Outcomes)],
) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(directory)?;
    let mut files = Vec::new();
    for quantity in QUANTITIES {
        let path = directory.join(format!("{}.svg", quantity.file));
        bars(&path, quantity, rows).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        files.push(path);
    }
    let path = directory.join("service.svg");
    service(&path, services).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    files.push(path);
    Ok(files)
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn bars(path: &Path, quantity: &Quantity, rows: &[Row]) -> Drawn {
    let mut algorithms: Vec<&str> = Vec::new();
    for row in rows {
        if !algorithms.contains(&row.algorithm.as_str()) {
            algorithms.push(&row.algorithm);
        }
    }
    let groups: Vec<&str> = quantity.workloads.to_vec();
    let find = |workload: &str, algorithm: &str| {
        let row = rows
            .iter()
            .find(|row| row.workload == workload && row.algorithm == algorithm);
        row.map(quantity.value)
    };
    // Who is never in the picture isn't in its legend either.
    algorithms.retain(|algorithm| groups.iter().any(|group| find(group, algorithm).is_some()));
    let values = groups
        .iter()
        .flat_map(|group| algorithms.iter().filter_map(|name| find(group, name)));
    let top = values.fold(0.0_f64, f64::max).max(0.01);
    let root = SVGBackend::new(path, (860, 380)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(quantity.title, (FONT, 18).into_font().color(&INK))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..groups.len() as f64 * 1.18, 0.0..top * 1.12)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_desc(quantity.unit)
        .axis_style(INK)
        .light_line_style(WHITE)
        .label_style((FONT, 13).into_font().color(&INK))
        .draw()?;
    let width = 0.8 / algorithms.len().max(1) as f64;
    for (nth, algorithm) in algorithms.iter().enumerate() {
        let fill = colour(nth).filled();
        let bar = |(group, value): (usize, f64)| {
            let left = group as f64 + 0.1 + nth as f64 * width;
            Rectangle::new([(left, 0.0), (left + width * 0.9, value)], fill)
        };
        let values: Vec<_> = groups
            .iter()
            .enumerate()
            .filter_map(|(at, group)| Some((at, find(group, algorithm)?)))
            .collect();
        chart
            .draw_series(values.iter().copied().map(bar))?
            .label(*algorithm)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], fill));
        // Numbers above the bars: the small ones can't be seen otherwise.
        chart.draw_series(values.iter().map(|(group, value)| {
            let left = *group as f64 + 0.1 + nth as f64 * width;
            let digits = if *value >= 10.0 {
                0
            } else if *value >= 0.1 {
                1
            } else {
                2
            };
            let at = (left, value + top * 0.045);
            Text::new(
                format!("{value:.digits$}"),
                at,
                (FONT, 10).into_font().color(&colour(nth)),
            )
        }))?;
    }
    // The workloads' names, centred under their groups.
    let area = chart.plotting_area();
    for (at, group) in groups.iter().enumerate() {
        let (x, y) = area.map_coordinate(&(at as f64 + 0.3, 0.0));
        root.draw(&Text::new(
            *group,
            (x, y + 10),
            (FONT, 13).into_font().color(&INK),
        ))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font((FONT, 13).into_font().color(&INK))
        .draw()?;
    root.present()?;
    Ok(())
}

/// Time received over time, one picture for each algorithm side by side.
fn service(path: &Path, services: &[(String, Outcomes)]) -> Drawn {
    let root = SVGBackend::new(path, (860, 340)).into_drawing_area();
    root.fill(&WHITE)?;
    let top = services
        .iter()
        .flat_map(|(_, outcomes)| outcomes.samples.last())
        .flat_map(|(_, charges)| charges.iter().max())
        .max()
        .copied()
        .unwrap_or(1) as f64
        / 1e9;
    let areas = root.split_evenly((1, services.len().max(1)));
    for (area, (name, outcomes)) in areas.iter().zip(services) {
        let end = outcomes.samples.last().map_or(1, |(at, _)| *at) as f64 / 1e9;
        let mut chart = ChartBuilder::on(area)
            .caption(name, (FONT, 18).into_font().color(&INK))
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(46)
            .build_cartesian_2d(0.0..end, 0.0..top)?;
        chart
            .configure_mesh()
            .x_labels(5)
            .x_desc("time, s")
            .y_desc("received, s")
            .axis_style(INK)
            .light_line_style(WHITE)
            .label_style((FONT, 12).into_font().color(&INK))
            .draw()?;
        let actors = outcomes
            .samples
            .last()
            .map_or(0, |(_, charges)| charges.len());
        for actor in 0..actors {
            let points = outcomes.samples.iter().map(|(at, charges)| {
                let charge = charges.get(actor).copied().unwrap_or(0);
                (*at as f64 / 1e9, charge as f64 / 1e9)
            });
            let points = std::iter::once((0.0, 0.0)).chain(points);
            chart.draw_series(LineSeries::new(points, colour(actor).stroke_width(2)))?;
        }
    }
    root.present()?;
    Ok(())
}
