//! What `stress-ng` and `cyclictest` print, as numbers.

use std::collections::BTreeMap;

/// What each class of stressors did, in its own units, from `stress-ng --metrics`.
pub fn operations(output: &str) -> BTreeMap<String, u64> {
    // "stress-ng: metrc: [77] cpu   123   5.01 …": the name, the operations, the seconds.
    let rows = output.lines().filter_map(|line| {
        let (start, row) = line.split_once("] ")?;
        let mut words = row.split_whitespace();
        let (name, operations, seconds) = (words.next()?, words.next()?, words.next()?);
        let _: f64 = seconds.parse().ok()?;
        start
            .starts_with("stress-ng")
            .then(|| Some((name.to_owned(), operations.parse().ok()?)))?
    });
    rows.collect()
}

/// One thread's latencies, in µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// How often it was woken.
    pub wakeups: u64,
    /// The least.
    pub min: u64,
    /// The mean.
    pub average: u64,
    /// The greatest.
    pub max: u64,
}

/// The last that `cyclictest` says about each of its threads.
pub fn latencies(output: &str) -> Vec<Latency> {
    let mut threads = BTreeMap::new();
    // "T: 0 (  123) P:80 I:10000 C:   6000 Min:     12 Act:   30 Avg:   45 Max:    1000"
    for line in output
        .lines()
        .filter_map(|line| line.trim().strip_prefix("T:"))
    {
        let number = |key: &str| -> Option<u64> {
            let (_, rest) = line.split_once(key)?;
            rest.split_whitespace().next()?.parse().ok()
        };
        let thread = || {
            Some(Latency {
                wakeups: number(" C:")?,
                min: number(" Min:")?,
                average: number(" Avg:")?,
                max: number(" Max:")?,
            })
        };
        let name = line.split_whitespace().next().unwrap_or_default();
        if let Some(latency) = thread() {
            threads.insert(name.to_owned(), latency);
        }
    }
    threads.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_each_class() {
        let output = "\
stress-ng: info:  [71] setting to a 60 second run per stressor
stress-ng: info:  [71] dispatching hogs: 1 cpu, 1 vm
stress-ng: metrc: [71] stressor       bogo ops real time  usr time  sys time   bogo ops/s     bogo ops/s
stress-ng: metrc: [71]                           (secs)    (secs)    (secs)   (real time) (usr+sys time)
stress-ng: metrc: [71] cpu                 416      5.09      2.40      0.01        81.70         172.61
stress-ng: info:  [71] vm                    0      5.02      2.40      0.01        81.70         172.61
stress-ng: info:  [71] successful run completed in 60.09s (1 min)
";
        let expected = [("cpu".to_owned(), 416), ("vm".to_owned(), 0)];
        assert_eq!(operations(output), BTreeMap::from(expected));
        assert!(operations("stress-ng: fail: [71] cpu: wrong result\n").is_empty());
    }

    #[test]
    fn the_last_latencies_of_each_thread() {
        let output = "\
# /dev/cpu_dma_latency set to 0us
T: 0 (  123) P:80 I:10000 C:    600 Min:     12 Act:   30 Avg:   45 Max:    1000
T: 0 (  123) P:80 I:10000 C:   6000 Min:     11 Act:   30 Avg:   46 Max:    2000
T: 1 (  124) P:80 I:10500 C:   5714 Min:     15 Act:   31 Avg:   50 Max:     900
";
        let latency = |wakeups, min, average, max| Latency {
            wakeups,
            min,
            average,
            max,
        };
        let expected = [latency(6000, 11, 46, 2000), latency(5714, 15, 50, 900)];
        assert_eq!(latencies(output), expected);
        assert!(latencies("T: 0 no numbers\n").is_empty());
    }
}
