//! `cargo xtask sim`: the framework and its algorithms in virtual time.
//!
//! Questions of fairness take thousands of slices to answer, and questions of deadlines a million jobs; a machine, even an emulated
//! one, is too slow and too noisy for them. Here the same two crates that run in the hypervisor run on the host, on a
//! model of a device and of the domains, with a clock that jumps from event to event. Everything follows from the seed.

pub mod machine;
pub mod measure;
pub mod plot;
pub mod run;
#[cfg(test)]
mod tests;
pub mod workload;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use measure::Row;
use run::Options;

/// Everything that was simulated.
#[derive(Debug)]
pub struct Comparison {
    /// One row for each algorithm and each workload that it admits.
    pub rows: Vec<Row>,
    /// Outcomes of the workload `weights`, for the picture of service over time.
    pub services: Vec<(String, run::Outcomes)>,
}

/// Runs every algorithm on every workload, or those whose name is given.
///
/// # Errors
/// If a name isn't known, or the framework breaks a promise.
pub fn compare(
    options: &Options,
    algorithm: Option<&str>,
    workload: Option<&str>,
) -> Result<Comparison> {
    let all = workload::all();
    if let Some(name) = workload
        && !all.iter().any(|workload| workload.name == name)
    {
        let names: Vec<_> = all.iter().map(|workload| workload.name).collect();
        anyhow::bail!(
            "no workload is called {name}; there are {}",
            names.join(", ")
        );
    }
    let names = sched_algos::KNOWN.iter().map(|(name, _, _)| *name);
    let names: Vec<&str> = match algorithm {
        Some(algorithm) => vec![algorithm],
        None => names.collect(),
    };
    let mut comparison = Comparison {
        rows: Vec::new(),
        services: Vec::new(),
    };
    for work in all {
        if workload.is_some_and(|name| name != work.name) {
            continue;
        }
        for name in &names {
            let Some(outcomes) = run::run(name, &work, options)? else {
                continue;
            };
            comparison
                .rows
                .push(measure::measure(name, &work, options, &outcomes));
            if work.name == "weights" {
                comparison.services.push(((*name).to_owned(), outcomes));
            }
        }
    }
    Ok(comparison)
}

/// The rows as people read them.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut last = "";
    for row in rows {
        if row.workload != last {
            last = row.workload;
            let about = workload::all();
            let about = about.iter().find(|workload| workload.name == last);
            let about = about.map_or("", |workload| workload.about);
            let _ = write!(text, "\n{last}: {about}\n");
            let _ = writeln!(
                text,
                "  {:12} {:>8} {:>10} {:>10} {:>14} {:>9} {:>9} {:>10} {:>10}",
                "algorithm",
                "Jain",
                "share err",
                "refuser",
                "missed",
                "jobs",
                "overhead",
                "wait p99",
                "wait max",
            );
        }
        let _ = writeln!(
            text,
            "  {:12} {:8.5} {:8.2} % {:8.2} % {:>14} {:9} {:7.3} % {:7.1} ms {:7.1} ms",
            row.algorithm,
            row.jain,
            row.share_error_max * 100.0,
            row.refuser_gain * 100.0,
            format!("{}/{}", row.deadline_misses, row.deadline_jobs),
            row.jobs,
            row.overhead * 100.0,
            row.wait_p99_ns as f64 / 1e6,
            row.wait_max_ns as f64 / 1e6,
        );
    }
    text
}

/// The rows as programs read them: a list of objects.
///
/// # Errors
/// If a number can't be written.
pub fn json(rows: &[Row]) -> Result<String> {
    serde_json::to_string_pretty(rows).context("writing the measurements")
}

/// Draws the pictures.
///
/// # Errors
/// If a file can't be written.
pub fn pictures(comparison: &Comparison, directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    plot::draw(directory, &comparison.rows, &comparison.services)
}
