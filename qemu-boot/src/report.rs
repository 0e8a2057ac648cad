//! Reading what Baton and the workloads print.
//!
//! Both print lines meant for people *and* programs: a word for the kind, then `key=value`. They are
//! read leniently — unknown keys, other orders and surrounding text are fine — since a newer Baton
//! may say more, and what matters is checked by whoever uses the values. Lines are tagged by where they
//! come from: `[d1] ` for a domain's console, `[baton] ` for EL2's own.

use std::collections::BTreeMap;

/// Who a console line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// EL2 itself.
    Baton,
    /// A domain, by its name.
    Domain(&'a str),
    /// An untagged line (a Linux without Baton, or QEMU).
    Untagged,
}

/// Splits a console line into its origin and its text.
///
/// A kernel's own time stamp, `[    0.000000] `, isn't a tag.
pub fn split_tag(line: &str) -> (Origin<'_>, &str) {
    let tagged = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let Some((tag, text)) = tagged else {
        return (Origin::Untagged, line);
    };
    let text = text.strip_prefix(' ').unwrap_or(text);
    if tag == "baton" {
        (Origin::Baton, text)
    } else if tag.starts_with(|c: char| c.is_ascii_alphabetic()) && tag.chars().all(is_name) {
        (Origin::Domain(tag), text)
    } else {
        (Origin::Untagged, line)
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

/// A line of the form `kind key=value key=value …`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The words before the first `key=value`, such as `vcoproc` or `workload: done`.
    pub kind: String,
    /// The values by key.
    pub fields: BTreeMap<String, String>,
}

impl Record {
    /// Reads a line's text (without tag).
    pub fn parse(text: &str) -> Self {
        let mut record = Self::default();
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) if !key.is_empty() => {
                    let value = value.trim_matches(|c| c == ',' || c == '"');
                    record.fields.insert(key.to_owned(), value.to_owned());
                }
                _ if record.fields.is_empty() => {
                    if !record.kind.is_empty() {
                        record.kind.push(' ');
                    }
                    record.kind.push_str(word);
                }
                _ => {}
            }
        }
        record
    }

    /// A value as text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.fields.get(key).map(String::as_str)
    }

    /// A whole number; a unit behind it is ignored.
    pub fn number(&self, key: &str) -> Option<u64> {
        let value = self.text(key)?;
        if let Some(hex) = value.strip_prefix("0x") {
            return u64::from_str_radix(hex, 16).ok();
        }
        let digits = value
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(value.len());
        value.get(..digits)?.parse().ok()
    }
}

/// What one domain's workload reported at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadResult {
    /// Jobs done.
    pub jobs: u64,
    /// Jobs whose result was wrong.
    pub wrong: u64,
    /// Factorials computed.
    pub factorials: u64,
    /// Bytes moved by DMA.
    pub dma_bytes: u64,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Time it took, in ms of the domain's clock.
    pub elapsed_ms: u64,
}

/// A workload's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadLine {
    /// This many jobs are done.
    Progress(u64),
    /// The end, with the result; `None` if the line has no number of jobs or of wrong results.
    Done(Option<WorkloadResult>),
    /// It gave up, for this reason.
    Failed(String),
}

/// Reads a line that begins with `workload: `.
pub fn workload_line(text: &str) -> Option<WorkloadLine> {
    let rest = text.trim_start().strip_prefix("workload: ")?;
    let record = Record::parse(rest);
    let number = |key| record.number(key).unwrap_or(0);
    let word = record.kind.split([' ', ':']).next()?.to_ascii_lowercase();
    match word.as_str() {
        "progress" => Some(WorkloadLine::Progress(number("jobs"))),
        "done" => Some(WorkloadLine::Done(
            record
                .number("jobs")
                .zip(record.number("wrong"))
                .map(|(jobs, wrong)| WorkloadResult {
                    jobs,
                    wrong,
                    factorials: number("factorials"),
                    dma_bytes: number("dma_bytes"),
                    interrupts: number("interrupts"),
                    elapsed_ms: number("elapsed_ms"),
                }),
        )),
        "failed" | "error" => Some(WorkloadLine::Failed(rest.to_owned())),
        _ => None,
    }
}

/// One time slice of a coproc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The coproc's number.
    pub coproc: u64,
    /// The vcoproc that held it.
    pub vcoproc: String,
    /// That vcoproc's domain.
    pub domain: String,
    /// Start in ns since Baton's start.
    pub from_ns: u64,
    /// End in ns since Baton's start.
    pub to_ns: u64,
}

/// Everything that `coproc query` and `coproc timeline` answered.
#[derive(Clone, Debug, Default)]
pub struct CoprocReport {
    /// `coproc` lines.
    pub coprocs: Vec<Record>,
    /// `vcoproc` lines.
    pub vcoprocs: Vec<Record>,
    /// `slice` lines.
    pub slices: Vec<Slice>,
}

impl CoprocReport {
    /// Takes in one line of an answer; lines of other kinds are passed over.
    pub fn take(&mut self, text: &str) {
        let record = Record::parse(text);
        match record.kind.as_str() {
            "coproc" if record.text("id").is_some() => self.coprocs.push(record),
            "vcoproc" if record.text("id").is_some() => self.vcoprocs.push(record),
            "slice" => {
                let name = |key| record.text(key).unwrap_or("?").to_owned();
                if let Some((from_ns, to_ns)) = record.number("from_ns").zip(record.number("to_ns"))
                    && from_ns <= to_ns
                {
                    self.slices.push(Slice {
                        coproc: record.number("coproc").unwrap_or(0),
                        vcoproc: name("vcoproc"),
                        domain: name("domain"),
                        from_ns,
                        to_ns,
                    });
                }
            }
            _ => {}
        }
    }

    /// A domain's vcoproc of this coproc.
    pub fn vcoproc_of(&self, coproc: &str, domain: &str) -> Option<&Record> {
        self.vcoprocs.iter().find(|record| {
            record.text("domain") == Some(domain)
                && record.text("coproc").is_none_or(|c| c == coproc)
        })
    }

    /// A domain's share of a coproc's charged time, in per cent, from the charges themselves.
    pub fn share(&self, coproc: &str, domain: &str) -> Option<f64> {
        let charge = |record: &Record| record.number("charge_ns");
        let own = charge(self.vcoproc_of(coproc, domain)?)?;
        let total: u64 = self
            .vcoprocs
            .iter()
            .filter(|record| record.text("coproc").is_none_or(|c| c == coproc))
            .filter_map(charge)
            .sum();
        (total > 0).then(|| own as f64 * 100.0 / total as f64)
    }

    /// The domains' shares of a coproc's charged time while all of them wanted it, in per cent, and the number of slices in
    /// that time: whole rounds from the last one's first slice on, until the first one has had its last. Whoever has work left when the others are
    /// done gets the coproc alone, which says nothing about fairness; and a round begun is a slice more for some.
    pub fn contended(&self, coproc: &str) -> Option<Contended> {
        let slices = || {
            self.slices
                .iter()
                .filter(|slice| slice.coproc.to_string() == coproc)
        };
        // Of each domain: when its first slice began, and when its last one ended.
        let mut spans: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for slice in slices() {
            let span = spans
                .entry(&slice.domain)
                .or_insert((slice.from_ns, slice.to_ns));
            *span = (span.0.min(slice.from_ns), span.1.max(slice.to_ns));
        }
        let (&last, &(from, _)) = spans.iter().max_by_key(|(_, span)| span.0)?;
        let end = spans.values().map(|span| span.1).min()?;
        let begins = slices().filter(|slice| slice.domain == last && slice.from_ns <= end);
        let to = begins.map(|slice| slice.from_ns).max()?;
        let mut used: BTreeMap<String, u64> = BTreeMap::new();
        let mut count = 0;
        for slice in slices() {
            let time = slice.to_ns.min(to).saturating_sub(slice.from_ns.max(from));
            count += usize::from(time > 0);
            *used.entry(slice.domain.clone()).or_default() += time;
        }
        let total: u64 = used.values().sum();
        (total > 0).then(|| Contended {
            shares: used
                .into_iter()
                .map(|(name, time)| (name, time as f64 * 100.0 / total as f64))
                .collect(),
            slices: count,
        })
    }
}

/// See [`CoprocReport::contended`].
#[derive(Clone, PartialEq, Debug)]
pub struct Contended {
    /// Per cent by domain.
    pub shares: BTreeMap<String, f64>,
    /// Slices in that time.
    pub slices: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tags() {
        assert_eq!(
            split_tag("[d1] workload: x"),
            (Origin::Domain("d1"), "workload: x")
        );
        assert_eq!(split_tag("[baton] ok"), (Origin::Baton, "ok"));
        let stamp = "[    0.000000] Booting Linux";
        assert_eq!(split_tag(stamp), (Origin::Untagged, stamp));
        assert_eq!(
            split_tag("[d2] [    0.1] x"),
            (Origin::Domain("d2"), "[    0.1] x")
        );
        assert_eq!(split_tag("plain"), (Origin::Untagged, "plain"));
    }

    #[test]
    fn workload_lines() {
        let done = "workload: done name=d1 jobs=40 wrong=0 factorials=40 dma_bytes=327680 interrupts=120 elapsed_ms=9000";
        assert_eq!(
            workload_line(done),
            Some(WorkloadLine::Done(Some(WorkloadResult {
                jobs: 40,
                wrong: 0,
                factorials: 40,
                dma_bytes: 327_680,
                interrupts: 120,
                elapsed_ms: 9000
            })))
        );
        assert_eq!(
            workload_line("workload: progress jobs=7"),
            Some(WorkloadLine::Progress(7))
        );
        assert_eq!(
            workload_line("workload: done jobs=40"),
            Some(WorkloadLine::Done(None))
        );
        assert!(matches!(
            workload_line("workload: failed reason=no device"),
            Some(WorkloadLine::Failed(_))
        ));
        assert!(matches!(
            workload_line("workload: ERROR no device"),
            Some(WorkloadLine::Failed(_))
        ));
        assert_eq!(workload_line("workload: starting name=d1"), None);
        assert_eq!(workload_line("something else"), None);
    }

    #[test]
    fn only_the_time_that_both_wanted_counts_for_fairness() {
        let mut report = CoprocReport::default();
        let slices = [
            ("d1", 0, 90),
            ("d1", 100, 200),
            ("d2", 200, 300),
            ("d1", 300, 400),
            ("d2", 400, 500),
            ("d1", 500, 510),
            ("d2", 510, 900),
        ];
        for (domain, from_ns, to_ns) in slices {
            report.take(&format!(
                "slice coproc=0 vcoproc=v0 domain={domain} from_ns={from_ns} to_ns={to_ns}"
            ));
        }
        let contended = report.contended("0").unwrap();
        assert_eq!(contended.slices, 4, "from d2's first slice on, two rounds");
        let (short, all) = (110.0 * 100.0, 310.0);
        assert_eq!(contended.shares["d1"], short / all);
        assert_eq!(contended.shares["d2"], 100.0 - short / all);
        assert_eq!(report.contended("1"), None);
    }

    #[test]
    fn answers_are_collected_and_shares_come_from_the_charges() {
        let mut report = CoprocReport::default();
        for line in [
            "> coproc query",
            "coproc id=0 driver=qemu,edu switches=12 refusals=3 elapsed_ns=1000 charge_ns=800",
            "vcoproc id=v0 coproc=0 domain=d1 state=Sleeping charge_ns=300 share=37.5%",
            "vcoproc id=v1 coproc=0 domain=d2 charge_ns=500ns",
            "vcoproc id=v2 coproc=1 domain=d2 charge_ns=900",
            "slice coproc=0 vcoproc=v0 domain=d1 from_ns=100 to_ns=0x100",
            "slice coproc=0 vcoproc=v0 domain=d1 from_ns=100 to_ns=50",
            "ok",
        ] {
            report.take(line);
        }
        assert_eq!(report.coprocs.len(), 1);
        assert_eq!(report.coprocs[0].number("switches"), Some(12));
        assert_eq!(report.slices.len(), 1);
        assert_eq!(report.slices[0].to_ns, 256);
        assert_eq!(report.share("0", "d1"), Some(37.5));
        assert_eq!(report.share("0", "d2"), Some(62.5));
        assert_eq!(report.share("0", "d3"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC*") {
            let (_, rest) = split_tag(&text);
            let _ = workload_line(rest);
            CoprocReport::default().take(rest);
        }

        #[test]
        fn fields_come_back(fields in prop::collection::btree_map("[a-z_]{1,9}", "[a-z0-9.]{1,9}", 1..6)) {
            let line: String = fields.iter().map(|(key, value)| format!(" {key}={value}")).collect();
            let record = Record::parse(&format!("kind of{line}"));
            prop_assert_eq!(record.kind, "kind of");
            prop_assert_eq!(record.fields, fields);
        }
    }
}
