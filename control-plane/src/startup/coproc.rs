//! Whether a coproc can be shared, as far as the device tree and its driver tell, and how it is to be.
//!
//! Asked at boot, beside what only the hardware can answer, and by whoever checks a tree without booting; so it is here and not where
//! the hardware is touched.

use super::Voice;
use crate::config::machine::{Interrupt, PciHost};
use crate::config::{CoprocConfig, Dma, PciFunction, SharedNode};
use crate::devicetree::Error;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use coproc_core::algorithm::Algorithm;
use coproc_core::coproc::Settings;
use coproc_core::driver::{Confinement, Description, Driver, Match, Unconfined};
use coproc_core::id::StreamId;
use core::fmt;

/// What a PCI function says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Which INTx it has: 1 is INTA, 0 none.
    pub pin: u8,
}

impl CoprocConfig {
    /// An error about its device.
    pub fn device_error(&self, found: String, expected: &'static str) -> Error {
        Error::new(self.path.clone(), found, expected).property("device")
    }

    /// The error that the driver doesn't take the device.
    pub fn not_taken(&self, error: impl fmt::Display) -> Error {
        let found = format!("{}: {error}", self.device);
        self.device_error(found, "a device that the driver takes")
    }

    /// A CPU as a firmware core: its `number` if it runs, 0 being the one that booted.
    ///
    /// # Errors
    /// Why it can't be one.
    pub fn firmware_core(
        &self,
        driver: &Description,
        number: Option<usize>,
    ) -> Result<usize, Error> {
        if !driver.matches.contains(&Match::FirmwareCore) {
            return Err(self.device_unsuitable("a CPU"));
        }
        let (why, expected) = match number {
            None => ("which does not run", "a CPU that Baton could start"),
            Some(0) => ("which Baton booted on", "another CPU"),
            Some(number) => return Ok(number),
        };
        Err(self.device_error(format!("{}, {why}", self.device), expected))
    }

    /// A device that the tree describes. `works`: whether there is an IOMMU that does.
    ///
    /// # Errors
    /// Why the driver can't share it.
    pub fn described(
        &self,
        driver: &Description,
        works: bool,
        voice: &mut dyn Voice,
    ) -> Result<&SharedNode, Error> {
        let found = self.node.as_ref().ok_or_else(|| self.device_absent())?;
        found.suits(self, driver, works)?;
        if found.node.dma == Dma::Unconfined {
            let Self { path, device, .. } = self;
            let line = format_args!(
                "{path}: {device} can reach all memory: all who share it are trusted with that"
            );
            voice.warning(path, line);
        }
        Ok(found)
    }

    /// The host bridge that the function is below.
    ///
    /// # Errors
    /// If it isn't below the one that is driven.
    pub fn bridge<'a>(
        &self,
        host: Option<&'a PciHost>,
        function: PciFunction,
    ) -> Result<&'a PciHost, Error> {
        let host = host.ok_or_else(|| self.device_absent())?;
        if host.has_bus_of(function) {
            return Ok(host);
        }
        let found = format!("{}, which is not below {}", self.device, host.path);
        Err(self.device_error(
            found,
            "a function of the first host bridge; more are not built yet",
        ))
    }

    /// Stream and interrupt of a function which was `found` below `host`. `works`: whether there is an IOMMU that does.
    ///
    /// # Errors
    /// Why the function can't be shared by this driver.
    pub fn function(
        &self,
        host: &PciHost,
        function: PciFunction,
        driver: &Description,
        works: bool,
        found: Identity,
    ) -> Result<(StreamId, Interrupt), Error> {
        let own = Match::Pci {
            vendor: found.vendor,
            device: found.device,
        };
        if !driver.matches.contains(&own) {
            let found = format!("PCI device {:04x}:{:04x}", found.vendor, found.device);
            return Err(self.device_unsuitable(found));
        }
        let stream = self.stream(host, function, driver, works)?;
        let interrupt = host.intx_interrupt(function, found.pin);
        let interrupt = interrupt.ok_or_else(|| {
            let found = format!("{} without an interrupt", self.device);
            self.device_error(found, "an entry in interrupt-map")
        })?;
        Ok((stream, interrupt))
    }

    /// The settings in force: where nothing is configured, the driver's own.
    pub fn settings(&self, driver: &dyn Driver) -> Settings {
        let defaults = Settings::of(driver);
        Settings {
            slice: self.slice.unwrap_or(defaults.slice),
            refusal_bound: self.refusal_bound.unwrap_or(defaults.refusal_bound),
            starvation_bound: self.starvation_bound,
        }
    }

    /// Its algorithm, with nobody to schedule yet.
    ///
    /// # Errors
    /// If it isn't compiled in.
    pub fn algorithm(
        &self,
        settings: &Settings,
        driver: &dyn Driver,
    ) -> Result<Box<dyn Algorithm>, Error> {
        let made = sched_algos::by_name(&self.scheduler, &settings.tuning(driver));
        made.ok_or_else(|| {
            let found = self.scheduler.clone();
            self.device_error(found, "an algorithm that is compiled in")
        })
    }

    fn stream(
        &self,
        host: &PciHost,
        function: PciFunction,
        driver: &Description,
        works: bool,
    ) -> Result<StreamId, Error> {
        let stream = host.stream(function);
        match driver.confinement(stream.is_some()) {
            // A function can master the bus, whatever its driver says.
            Ok(Confinement::Iommu | Confinement::NoDma) | Err(Unconfined::Nothing) => {}
            Ok(Confinement::Own) => {
                let found = format!("{}, whose only IOMMU is its own", self.device);
                let expected = "a device behind an IOMMU; PCI functions that confine themselves are not built yet";
                return Err(self.device_error(found, expected));
            }
            Err(error) => {
                let found = format!("{}: {error}", self.device);
                return Err(self.device_error(found, "a device that one IOMMU confines"));
            }
        }
        // Only the first SMMU is driven: a device behind another one would not be confined by it.
        match stream {
            Some((0, stream)) if works => Ok(stream),
            Some((index, _)) if index > 0 => {
                let found = format!("{} behind SMMU number {index}", self.device);
                let expected = "a device behind the first SMMU; more are not built yet";
                Err(self.device_error(found, expected))
            }
            _ => {
                let found = format!("{}, which no IOMMU confines", self.device);
                Err(self.device_error(found, "a device behind an IOMMU"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{self, FACTS};
    use crate::config::{CoprocConfig, DeviceLocator};
    use crate::devicetree::tests::QEMU_GICV3;
    use alloc::string::ToString as _;
    use coproc_core::id::CoprocId;

    const FUNCTION: PciFunction = PciFunction {
        segment: 0,
        bus: 0,
        device: 1,
        function: 0,
    };

    fn coproc() -> CoprocConfig {
        CoprocConfig {
            id: CoprocId(0),
            path: "/chosen/coprocs/coproc@0".into(),
            device: DeviceLocator::Pci(FUNCTION),
            node: None,
            driver: "qemu,edu".into(),
            scheduler: "rr".into(),
            slice: None,
            refusal_bound: None,
            starvation_bound: None,
            record: false,
            shared: true,
        }
    }

    const EDU: Match = Match::Pci {
        vendor: 0x1234,
        device: 0x11e8,
    };

    const fn driver(own_iommu: bool) -> Description {
        Description {
            matches: &[EDU],
            own_iommu,
            ..FACTS
        }
    }

    #[test]
    fn a_function_is_shared_only_behind_the_first_iommu_that_works() {
        let machine = tests::machine(QEMU_GICV3);
        let mut host = machine.pci_hosts[0].clone();
        let coproc = coproc();
        let answer = |host: &PciHost, own, works| {
            let stream = coproc.stream(host, FUNCTION, &driver(own), works);
            stream.map_err(|error| error.to_string())
        };
        assert_eq!(answer(&host, false, true), Ok(StreamId(8)));
        for (own, works, text) in [
            (false, false, "pci:0000:00:01.0, which no IOMMU confines"),
            (true, true, "it is behind another one too"),
        ] {
            let error = answer(&host, own, works).unwrap_err();
            assert!(
                error.starts_with("/chosen/coprocs/coproc@0: device: "),
                "{error}"
            );
            assert!(error.contains(text), "{error}");
        }
        assert_eq!(coproc.bridge(Some(&host), FUNCTION), Ok(&host));
        let error = coproc.bridge(None, FUNCTION).unwrap_err().to_string();
        assert!(error.contains("where no device answers"), "{error}");
        host.segment = 1;
        let error = coproc.bridge(Some(&host), FUNCTION).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("not below /pcie@10000000"), "{error}");
    }

    #[test]
    fn a_function_must_be_what_its_driver_drives_and_have_an_interrupt() {
        let machine = tests::machine(QEMU_GICV3);
        let host = &machine.pci_hosts[0];
        let ask = |vendor, device, pin| {
            let found = Identity {
                vendor,
                device,
                pin,
            };
            let answer = coproc().function(host, FUNCTION, &driver(false), true, found);
            answer.map_err(|error| error.to_string())
        };
        let (stream, interrupt) = ask(0x1234, 0x11e8, 1).unwrap();
        assert_eq!((stream, interrupt.intid.0), (StreamId(8), 36));
        let other = ask(0x1b36, 0x0005, 1).unwrap_err();
        assert!(
            other.contains("pci:0000:00:01.0 is PCI device 1b36:0005; expected a device that"),
            "{other}"
        );
        let silent = ask(0x1234, 0x11e8, 0).unwrap_err();
        assert!(silent.contains("without an interrupt"), "{silent}");
    }

    #[test]
    fn a_firmware_core_is_a_cpu_that_runs_and_did_not_boot() {
        let core = Description {
            matches: &[Match::FirmwareCore],
            ..driver(false)
        };
        let ask = |driver: &Description, number| {
            let answer = coproc().firmware_core(driver, number);
            answer.map_err(|error| error.to_string())
        };
        assert_eq!(ask(&core, Some(3)), Ok(3));
        for (driver, number, text) in [
            (&core, None, "which does not run; expected a CPU"),
            (&core, Some(0), "which Baton booted on; expected another"),
            (&driver(false), Some(3), "is a CPU; expected a device that"),
        ] {
            let error = ask(driver, number).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
