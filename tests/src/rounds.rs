//! Shares of a coprocessor whose slices are long: taken from whole rounds, since between two moments one domain may have had a slice more.

use anyhow::Result;
use qemu_boot::report::{CoprocReport, Slice};

use crate::{Machine, PATIENCE, number, overrun, poll};

/// Waits until a coproc was switched this often since `since`.
///
/// # Errors
/// If that doesn't come.
pub fn after_switches(
    machine: &Machine,
    since: &CoprocReport,
    coproc: usize,
    more: u64,
) -> Result<CoprocReport> {
    poll("switches", PATIENCE, || {
        let report = machine.query()?;
        let at = |report: &CoprocReport| number(&report.coprocs[coproc], "switches");
        Ok((at(&report) >= at(since) + more).then_some(report))
    })
}

/// Whole rounds of a coproc: from one beginning of a turn of the domain `of` to another one.
#[derive(Clone, Debug)]
pub struct Rounds {
    /// Their slices.
    pub slices: Vec<Slice>,
    /// How many they are.
    pub count: usize,
}

impl Rounds {
    /// All rounds that began after `since`, and are over.
    pub fn since(since: &CoprocReport, report: &CoprocReport, coproc: usize, of: &str) -> Self {
        let slices = |report: &CoprocReport| -> Vec<Slice> {
            let slices = report.slices.iter();
            let own = slices.filter(|slice| slice.coproc == coproc as u64);
            own.cloned().collect()
        };
        let from = slices(since).last().map_or(0, |slice| slice.to_ns);
        let mut slices = slices(report);
        slices.retain(|slice| slice.from_ns >= from);
        let begins: Vec<usize> = (0..slices.len())
            .filter(|at| slices[*at].domain == of && (*at == 0 || slices[*at - 1].domain != of))
            .collect();
        match begins.as_slice() {
            [first, .., last] => Self {
                slices: slices[*first..*last].to_vec(),
                count: begins.len() - 1,
            },
            _ => Self {
                slices: Vec::new(),
                count: 0,
            },
        }
    }

    /// Waits until there are so many, `of` being a domain that has one turn in each; the last report, too.
    ///
    /// # Errors
    /// If they don't come.
    pub fn wait(
        machine: &Machine,
        since: &CoprocReport,
        coproc: usize,
        of: &str,
        count: usize,
    ) -> Result<(Self, CoprocReport)> {
        poll("rounds", PATIENCE, || {
            let report = machine.query()?;
            let rounds = Self::since(since, &report, coproc, of);
            Ok((rounds.count >= count).then_some((rounds, report)))
        })
    }

    /// Asserts that `domain` has this share of the time that all held, in per cent, within five points. If a slice was cut late, by an emulator that waited
    /// for its host, so much of it as its owner's usual ones aren't long is still owed, or isn't anybody's share.
    ///
    /// # Panics
    /// If it doesn't.
    #[track_caller]
    pub fn assert_share(&self, domain: &str, expected: f64) {
        let held = |slice: &Slice| slice.to_ns - slice.from_ns;
        let all: u64 = self.slices.iter().map(held).sum();
        let own = self.slices.iter().filter(|slice| slice.domain == domain);
        let found = own.map(held).sum::<u64>() as f64 * 100.0 / all as f64;
        let owed = self.overrun() as f64 * 100.0 / all as f64;
        let count = self.count;
        eprintln!(
            "{domain} has {found:.2} % of {count} rounds, {expected} % expected, {owed:.2} % owed"
        );
        assert!(
            (found - expected).abs() <= 5.0 + owed,
            "{found:.2} %, {expected} % was configured, {owed:.2} % owed: {self:?}"
        );
    }

    /// By how much the longest slice was longer than its owner's usual ones, in ns.
    fn overrun(&self) -> u64 {
        let mut domains: Vec<&str> = self.slices.iter().map(|s| s.domain.as_str()).collect();
        domains.sort_unstable();
        domains.dedup();
        let lengths = |domain| -> Vec<u64> {
            let own = self.slices.iter().filter(|slice| slice.domain == domain);
            own.map(|slice| slice.to_ns - slice.from_ns).collect()
        };
        let overruns = domains.into_iter().map(|domain| overrun(lengths(domain)));
        overruns.max().unwrap_or(0)
    }
}
