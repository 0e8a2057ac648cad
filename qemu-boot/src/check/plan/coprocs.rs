//! Coprocs as boot would make them ready: `discovery.rs`.

use control_plane::config::{CoprocConfig, DeviceLocator, Dma};
use control_plane::devicetree::Error;
use coproc_core::Driver;
use coproc_core::coproc::Settings;
use coproc_core::driver::Match;

use super::super::findings;
use super::{INTA, Instance, Kind, Plan};

impl Plan<'_> {
    /// What sharing this one comes to. `None`: it can't be told.
    pub(super) fn instance(&mut self, config: &CoprocConfig) -> Result<Option<Instance>, Error> {
        let Some(driver) = platforms::coproc::by_name(&config.driver) else {
            let text = format!(
                "{}: driver {} is unknown to this program",
                config.path, config.driver
            );
            self.unchecked(text);
            return Ok(None);
        };
        let facts = driver.description();
        let works = !self.machine.smmus.is_empty();
        let (interrupts, kind) = match &config.device {
            DeviceLocator::Cpu { index, .. } => {
                self.firmware_core(config, *index, facts.matches)?;
                (Vec::new(), Kind::Firmware)
            }
            DeviceLocator::Pci(function) => {
                let host = self.machine.pci_hosts.first();
                let host = host.ok_or_else(|| config.device_absent())?;
                config.is_below(host, *function)?;
                let pci = |one: &Match| matches!(one, Match::Pci { .. });
                if !facts.matches.iter().any(pci) {
                    return Err(config.device_unsuitable("a PCI function"));
                }
                config.stream(host, *function, facts, works)?;
                let ids: Vec<String> = facts
                    .matches
                    .iter()
                    .filter_map(|one| match one {
                        Match::Pci { vendor, device } => Some(format!("{vendor:04x}:{device:04x}")),
                        _ => None,
                    })
                    .collect();
                self.unchecked(format!(
                    "{}: that {} is there, is {}, and has its interrupt at INTA",
                    config.path,
                    config.device,
                    ids.join(" or ")
                ));
                let interrupt = config.interrupt(host, *function, INTA)?;
                (vec![interrupt.intid.0], Kind::Function)
            }
            DeviceLocator::Node(_) => {
                let found = config.node.as_ref().ok_or_else(|| config.device_absent())?;
                found.suits(config, facts, works)?;
                if found.node.dma == Dma::Unconfined {
                    let text = format!(
                        "{}: {} can reach all memory: all who share it are trusted with that",
                        config.path, config.device
                    );
                    self.findings.remark(&config.path, text);
                }
                let interrupts = found.node.interrupts.iter().take(facts.interrupts);
                let confined = !found.streams().is_empty();
                (
                    interrupts.map(|interrupt| interrupt.intid.0).collect(),
                    Kind::Node { confined },
                )
            }
        };
        self.share(config, driver, interrupts, kind).map(Some)
    }

    /// `start_firmware_core`.
    fn firmware_core(
        &mut self,
        config: &CoprocConfig,
        index: usize,
        matches: &[Match],
    ) -> Result<(), Error> {
        if !matches.contains(&Match::FirmwareCore) {
            return Err(config.device_unsuitable("a CPU"));
        }
        let refused = |found: String, expected| Err(config.device_error(found, expected));
        match self.online.get(index).copied().flatten() {
            None => refused(
                format!("{}, which does not run", config.device),
                "a CPU that Baton could start",
            ),
            Some(0) => refused(
                format!("{}, which Baton booted on", config.device),
                "another CPU",
            ),
            Some(_) => Ok(()),
        }
    }

    /// `share`, `custody::begin`.
    fn share(
        &mut self,
        config: &CoprocConfig,
        driver: Box<dyn Driver>,
        interrupts: Vec<u32>,
        kind: Kind,
    ) -> Result<Instance, Error> {
        let defaults = Settings::of(&*driver);
        let settings = Settings {
            slice: config.slice.unwrap_or(defaults.slice),
            refusal_bound: config.refusal_bound.unwrap_or(defaults.refusal_bound),
            starvation_bound: config.starvation_bound,
        };
        let tuning = settings.tuning(&*driver);
        let algorithm = sched_algos::by_name(&config.scheduler, &tuning);
        // All are in this program, and the name is one of theirs.
        let mut algorithm = algorithm.ok_or_else(|| {
            let found = config.scheduler.clone();
            config.device_error(found, "an algorithm that is compiled in")
        })?;
        if config.shared {
            algorithm.tune(&tuning).map_err(|error| {
                let found = format!("{}: {error}", config.device);
                config.device_error(found, "a device that the driver takes")
            })?;
        }
        let mut text = format!(
            "slices of {}, may refuse for {}",
            settings.slice, settings.refusal_bound
        );
        if let Some(bound) = settings.starvation_bound {
            text += &format!(", nobody starves for more than {bound}");
        }
        if config.record {
            text += ", recorded";
        }
        self.findings.coprocs.push(findings::Coproc {
            id: config.id.0,
            device: config.device.to_string(),
            driver: config.driver.clone(),
            scheduler: config.scheduler.clone(),
            settings: text,
            shared: config.shared,
        });
        Ok(Instance {
            id: config.id,
            path: config.path.clone(),
            driver,
            algorithm,
            interrupts,
            kind,
        })
    }
}
