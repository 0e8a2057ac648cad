//! The boards that QEMU offers and Baton boots on, and in what they differ for whoever starts one.
//!
//! `virt` describes itself and takes any CPUs and memory. The Raspberry Pi is what it is: its device tree is the Linux kernel's, as on the
//! real board, and QEMU adds memory to it and takes out what it doesn't model.

use std::ops::Range;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::scenario::Scenario;

/// A board of QEMU's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Board {
    /// QEMU's own board, with an SMMUv3 and PCI.
    #[default]
    Virt,
    /// A Raspberry Pi 4: GIC-400, four Cortex-A72 that wait in a spin table, mini-UART; neither PSCI nor an IOMMU.
    Raspi4b,
}

impl Board {
    /// Where RAM is that modules can lie in.
    pub fn ram(self, scenario: &Scenario) -> Range<u64> {
        match self {
            Self::Virt => 0x4000_0000..0x4000_0000 + (u64::from(scenario.memory_mib) << 20),
            // Of the lowest GiB the last 64 MiB are the VideoCore's; what lies above it QEMU doesn't describe.
            Self::Raspi4b => 0..0x3c00_0000,
        }
    }

    /// QEMU's arguments for the board itself; `more` is added to the machine's properties.
    ///
    /// # Errors
    /// If the board can't be as the scenario wants it.
    pub fn arguments(self, scenario: &Scenario, more: &str) -> Result<Vec<String>> {
        let (machine, cpu) = match self {
            Self::Virt => (
                format!(
                    "virt,virtualization=on,gic-version={},iommu=smmuv3{more}",
                    scenario.gic
                ),
                Some(scenario.cpu.as_str()),
            ),
            Self::Raspi4b => {
                ensure!(
                    (scenario.cpus, scenario.memory_mib) == (4, 2048),
                    "raspi4b has 4 CPUs and 2048 MiB, not {} and {}",
                    scenario.cpus,
                    scenario.memory_mib
                );
                ensure!(scenario.edu_devices == 0, "raspi4b has no place for an edu");
                (format!("raspi4b{more}"), None)
            }
        };
        let mut arguments = vec!["-M".to_owned(), machine];
        if let Some(cpu) = cpu {
            arguments.extend(["-cpu".to_owned(), cpu.to_owned()]);
        }
        arguments.extend([
            "-smp".to_owned(),
            scenario.cpus.to_string(),
            "-m".to_owned(),
            scenario.memory_mib.to_string(),
        ]);
        Ok(arguments)
    }

    /// QEMU's arguments that put the board's console there (`stdio` and the like).
    pub fn console(self, target: &str) -> Vec<String> {
        // The mini-UART is the second one.
        let before = match self {
            Self::Virt => None,
            Self::Raspi4b => Some("null"),
        };
        let all = before.into_iter().chain([target]);
        all.flat_map(|target| ["-serial".to_owned(), target.to_owned()])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raspberry_pi_is_what_it_is() {
        let scenario = Scenario::raspi4b("x");
        let arguments = Board::Raspi4b.arguments(&scenario, ",a=b").unwrap();
        assert_eq!(arguments, ["-M", "raspi4b,a=b", "-smp", "4", "-m", "2048"]);
        let two = Scenario {
            cpus: 2,
            ..scenario.clone()
        };
        assert!(Board::Raspi4b.arguments(&two, "").is_err());
        let edu = Scenario {
            edu_devices: 1,
            ..scenario
        };
        assert!(Board::Raspi4b.arguments(&edu, "").is_err());
        assert_eq!(
            Board::Raspi4b.console("stdio"),
            ["-serial", "null", "-serial", "stdio"]
        );
    }
}
