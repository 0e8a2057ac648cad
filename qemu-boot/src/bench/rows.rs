//! The rows: what each means, and how the guest's lines become numbers.

use anyhow::{Context, Result, bail, ensure};

/// What a row's number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Executed instructions.
    Instructions,
    /// Bytes.
    Bytes,
}

/// A row that every run must have.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name in the table and in JSON.
    pub name: &'static str,
    /// What is measured.
    pub what: &'static str,
    /// Unit of the number.
    pub unit: Unit,
    /// What it is meant to stay at or below.
    pub limit: Option<u64>,
}

const fn row(name: &'static str, what: &'static str) -> Known {
    Known {
        name,
        what,
        unit: Unit::Instructions,
        limit: None,
    }
}

const fn limited(name: &'static str, what: &'static str, limit: u64) -> Known {
    Known {
        limit: Some(limit),
        ..row(name, what)
    }
}

/// All rows, in the table's order.
pub const KNOWN: &[Known] = &[
    limited(
        "coproc_switch_framework",
        "switch of a coprocessor with first touch, driver and IOMMU left out",
        1500,
    ),
    row(
        "coproc_switch_framework_dma",
        "the same if the device saves its context by DMA",
    ),
    row(
        "coproc_switch_framework_untouched",
        "the same in slices that nobody used",
    ),
    row(
        "coproc_switch_framework_weighted",
        "coproc_switch_framework with the algorithm weighted, not rr",
    ),
    row("coproc_switch_framework_priority", "the same with priority"),
    row(
        "coproc_switch_framework_reservation",
        "the same with reservation",
    ),
    row(
        "iommu_repoint",
        "stream to abort and to the next domain's tables, confirmed; SMMUv3 driver on null registers",
    ),
    row(
        "coproc_direct_read",
        "register read by the domain that has the device",
    ),
    row(
        "coproc_emulated_read",
        "register read by a domain that hasn't, answered from its context",
    ),
    row(
        "coproc_irq_delivery",
        "device raises its interrupt until the domain's handler begins",
    ),
    row(
        "coproc_irq_round_trip",
        "the same with acknowledgement, end of interrupt and the way back",
    ),
    limited("hvc", "HVC, PSCI_VERSION", 90),
    row("hvc_features", "HVC, PSCI_FEATURES"),
    limited("gicd_read", "GICD_TYPER read", 165),
    row("gicd_isenabler_read", "GICD_ISENABLER1 read"),
    limited("uart_read", "PL011 UARTFR read", 170),
    row("uart_ris_read", "PL011 UARTRIS read"),
    limited("sgi_none", "ICC_SGI1R_EL1 write without a target", 130),
    row("sgi_self", "SGI to the same CPU until its handler begins"),
    row(
        "sgi_self_round_trip",
        "the same with end of interrupt and the way back",
    ),
    row("timer_irq", "virtual timer set until its handler begins"),
    row(
        "timer_irq_round_trip",
        "the same with end of interrupt and the way back",
    ),
    row(
        "sgi_other_cpu",
        "SGI to the other vCPU, on another CPU: both wait in WFI; one way",
    ),
    // Half of Xen's.
    limited(
        "switch_pingpong",
        "the same on one CPU: a switch between vCPUs",
        2708,
    ),
    row(
        "spi_irq",
        "a device's SPI until the domain's handler begins: the device is the domain's own",
    ),
    row(
        "spi_irq_round_trip",
        "the same with acknowledgement, end of interrupt and the way back",
    ),
    row("eoi", "end of an SGI: ICC_EOIR1_EL1 written"),
    row("loop", "the empty loop, for reference: 2 instructions"),
    row(
        "boot",
        "reset of the machine to the domain's first instruction, without copying its image",
    ),
    Known {
        unit: Unit::Bytes,
        limit: Some(256 << 10),
        ..row("image_bytes", "Baton's image: code, constants, data")
    },
    Known {
        unit: Unit::Bytes,
        ..row(
            "ram_bytes",
            "memory that Baton takes: image, stacks, heap, its own tables",
        )
    },
];

/// Nanoseconds of virtual time in a second, each of them one instruction.
const INSTRUCTIONS_PER_SECOND: u64 = 1_000_000_000;

/// What one boot of the guest said.
#[derive(Clone, Debug, Default)]
pub struct Run {
    frequency: Option<u64>,
    /// Name, ticks, repetitions.
    rows: Vec<(String, u64, u64)>,
}

impl Run {
    /// Takes a line of the console: `Some` when the guest is done.
    ///
    /// # Errors
    /// If the guest reports an error, Baton crashes, or a line of the guest's can't be understood.
    pub fn take(&mut self, line: &str) -> Result<Option<()>> {
        if line.contains("[baton] fatal") || line.contains("[baton] error") {
            bail!("{line}");
        }
        // Baton's console puts the domain's name before the line.
        let Some((_, said)) = line.split_once("bench: ") else {
            return Ok(None);
        };
        let said = said.trim();
        if said == "done" {
            return Ok(Some(()));
        }
        if let Some(error) = said.strip_prefix("error: ") {
            bail!("the bench guest: {error}");
        }
        let number = |word: Option<&str>, name: &str| -> Result<u64> {
            word.and_then(|word| word.strip_prefix(name)?.strip_prefix('='))
                .with_context(|| format!("no {name} in '{line}'"))?
                .parse()
                .with_context(|| format!("{name} in '{line}'"))
        };
        if said.starts_with("frequency=") {
            self.frequency = Some(number(Some(said), "frequency")?);
        } else if let Some(rest) = said.strip_prefix("row=") {
            let mut words = rest.split_whitespace();
            let name = words.next().context("a row without a name")?.to_owned();
            let ticks = number(words.next(), "ticks")?;
            let repetitions = number(words.next(), "repetitions")?;
            self.rows.push((name, ticks, repetitions));
        }
        Ok(None)
    }

    /// Instructions of each row.
    ///
    /// # Errors
    /// If the counter's frequency wasn't told or isn't a whole number of instructions, or a row has no repetitions.
    pub fn costs(&self) -> Result<Vec<(String, f64)>> {
        let frequency = self.frequency.context("the guest told no frequency")?;
        ensure!(
            frequency > 0 && INSTRUCTIONS_PER_SECOND.is_multiple_of(frequency),
            "a counter of {frequency} Hz doesn't count whole instructions"
        );
        let per_tick = INSTRUCTIONS_PER_SECOND / frequency;
        self.rows
            .iter()
            .map(|(name, ticks, repetitions)| {
                let tenths = ticks
                    .checked_mul(per_tick)
                    .and_then(|instructions| {
                        instructions.checked_mul(10)?.checked_add(repetitions / 2)
                    })
                    .and_then(|sum| sum.checked_div(*repetitions))
                    .with_context(|| format!("row {name} makes no sense"))?;
                let tenths =
                    u32::try_from(tenths).with_context(|| format!("row {name} is too large"))?;
                Ok((name.clone(), f64::from(tenths) / 10.0))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_instructions() {
        let mut run = Run::default();
        for line in [
            "Baton 0.1.0 bench",
            "d1: bench: frequency=62500000",
            "d1: bench: row=hvc ticks=112500 repetitions=20000",
            "bench: row=loop ticks=2501 repetitions=20000",
            "bench: holding",
        ] {
            assert!(run.take(line).unwrap().is_none(), "{line}");
        }
        assert!(run.take("d1: bench: done").unwrap().is_some());
        let costs = run.costs().unwrap();
        assert_eq!(costs, [("hvc".to_owned(), 90.0), ("loop".to_owned(), 2.0)]);
    }

    #[test]
    fn mistakes_are_told() {
        let mut run = Run::default();
        assert!(run.costs().is_err());
        for line in [
            "bench: error: there is no edu on bus 0",
            "bench: row=hvc ticks=x repetitions=1",
            "bench: row=hvc ticks=1",
        ] {
            assert!(run.take(line).is_err(), "{line}");
        }
        for line in [
            "bench: frequency=24000000",
            "bench: row=a ticks=1 repetitions=1",
        ] {
            run.take(line).unwrap();
        }
        assert!(run.costs().unwrap_err().to_string().contains("24000000"));
        run.take("bench: frequency=62500000").unwrap();
        run.take("bench: row=b ticks=1 repetitions=0").unwrap();
        assert!(run.costs().is_err());
    }
}
