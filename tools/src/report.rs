//! The lines on the console, which tests read: one event, one line, `key=value`.
//!
//! Their shape is an interface: fields may be added at the end, not moved.

use std::time::Duration;

/// What a run did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Jobs finished, right or wrong.
    pub jobs: u64,
    /// Jobs with at least one wrong result.
    pub wrong: u64,
    /// Factorials computed and checked.
    pub factorials: u64,
    /// Bytes moved by the device's DMA, both directions.
    pub dma_bytes: u64,
    /// Interrupts taken.
    pub interrupts: u64,
}

/// The first line.
pub fn start(name: &str, mode: &str, kernel: &str) -> String {
    format!("workload: start name={name} mode={mode} kernel={kernel}")
}

/// Now and then while jobs run.
pub fn progress(totals: &Totals) -> String {
    format!(
        "workload: progress jobs={} wrong={}",
        totals.jobs, totals.wrong
    )
}

/// A result that isn't what it must be; `what` is one word.
pub fn wrong(job: u64, what: &str, expected: &str, found: &str) -> String {
    format!("workload: WRONG job={job} what={what} expected={expected} found={found}")
}

/// The last line; `extra` is what the mode adds (`key=value …`), or empty.
pub fn done(name: &str, mode: &str, totals: &Totals, elapsed: Duration, extra: &str) -> String {
    let Totals {
        jobs,
        wrong,
        factorials,
        dma_bytes,
        interrupts,
    } = totals;
    let mut line = format!(
        "workload: done name={name} mode={mode} jobs={jobs} wrong={wrong} factorials={factorials} \
         dma_bytes={dma_bytes} interrupts={interrupts} elapsed_ms={}",
        elapsed.as_millis()
    );
    if !extra.is_empty() {
        line.push(' ');
        line.push_str(extra);
    }
    line
}

/// The run can't go on; newlines are flattened so that it stays one line.
pub fn error(message: &str) -> String {
    format!("workload: ERROR {}", message.replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_what_tests_read() {
        let totals = Totals {
            jobs: 40,
            wrong: 0,
            factorials: 40,
            dma_bytes: 327_680,
            interrupts: 60,
        };
        let line = done("d1", "jobs", &totals, Duration::from_millis(1234), "");
        assert_eq!(
            line,
            "workload: done name=d1 mode=jobs jobs=40 wrong=0 factorials=40 dma_bytes=327680 \
             interrupts=60 elapsed_ms=1234"
        );
        let line = done("d1", "touch", &totals, Duration::ZERO, "reads=5");
        assert!(line.ends_with("elapsed_ms=0 reads=5"));
    }

    #[test]
    fn an_error_stays_one_line() {
        assert_eq!(error("a\nb\r"), "workload: ERROR a b ");
    }
}
