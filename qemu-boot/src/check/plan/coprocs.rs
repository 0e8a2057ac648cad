//! Coprocs as boot would make them ready: `discovery.rs`.

use control_plane::config::{CoprocConfig, DeviceLocator};
use control_plane::devicetree::Error;
use control_plane::startup::Identity;
use coproc_core::Driver;
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
                let number = self.online.get(*index).copied().flatten();
                config.firmware_core(facts, number)?;
                (Vec::new(), Kind::Firmware)
            }
            DeviceLocator::Pci(function) => {
                let host = config.bridge(self.machine.pci_hosts.first(), *function)?;
                let driven: Vec<Identity> = facts.matches.iter().filter_map(identity).collect();
                let first = driven.first().copied();
                let found = first.ok_or_else(|| config.device_unsuitable("a PCI function"))?;
                let (_, interrupt) = config.function(host, *function, facts, works, found)?;
                let ids = driven
                    .iter()
                    .map(|id| format!("{:04x}:{:04x}", id.vendor, id.device));
                self.unchecked(format!(
                    "{}: that {} is there, is {}, and has its interrupt at INTA",
                    config.path,
                    config.device,
                    ids.collect::<Vec<_>>().join(" or ")
                ));
                (vec![interrupt.intid.0], Kind::Function)
            }
            DeviceLocator::Node(_) => {
                let found = config.described(facts, works, self.findings)?;
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

    /// `share`, `custody::begin`.
    fn share(
        &mut self,
        config: &CoprocConfig,
        driver: Box<dyn Driver>,
        interrupts: Vec<u32>,
        kind: Kind,
    ) -> Result<Instance, Error> {
        let settings = config.settings(&*driver);
        let mut algorithm = config.algorithm(&settings, &*driver)?;
        if config.shared {
            let told = algorithm.tune(&settings.tuning(&*driver));
            told.map_err(|error| config.not_taken(error))?;
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

/// A function that the driver drives.
fn identity(one: &Match) -> Option<Identity> {
    match *one {
        Match::Pci { vendor, device } => Some(Identity {
            vendor,
            device,
            pin: INTA,
        }),
        _ => None,
    }
}
