//! Whether a PCI function can be shared, as far as the device tree tells.
//!
//! Asked at boot, beside what only the hardware can answer, and by whoever checks a tree without booting; so it is here and not where
//! the hardware is touched.

use super::coprocs::{CoprocConfig, PciFunction};
use super::machine::{Interrupt, PciHost};
use crate::devicetree::Error;
use alloc::format;
use alloc::string::String;
use coproc_core::driver::{Confinement, Description, Unconfined};
use coproc_core::id::StreamId;

impl CoprocConfig {
    /// An error about its device.
    pub fn device_error(&self, found: String, expected: &'static str) -> Error {
        Error::new(self.path.clone(), found, expected).property("device")
    }

    /// That the function is below this host bridge.
    ///
    /// # Errors
    /// If it isn't.
    pub fn is_below(&self, host: &PciHost, function: PciFunction) -> Result<(), Error> {
        if host.has_bus_of(function) {
            return Ok(());
        }
        let found = format!("{}, which is not below {}", self.device, host.path);
        Err(self.device_error(
            found,
            "a function of the first host bridge; more are not built yet",
        ))
    }

    /// The stream of a function that an IOMMU confines. `works`: whether there is an IOMMU that does.
    ///
    /// # Errors
    /// Why the function with a driver of this description can't be shared.
    pub fn stream(
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

    /// The interrupt that INTx `pin` (1 is INTA) of the function arrives as.
    ///
    /// # Errors
    /// If there is none.
    pub fn interrupt(
        &self,
        host: &PciHost,
        function: PciFunction,
        pin: u8,
    ) -> Result<Interrupt, Error> {
        let found = host.intx_interrupt(function, pin);
        found.ok_or_else(|| {
            let found = format!("{} without an interrupt", self.device);
            self.device_error(found, "an entry in interrupt-map")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::machine::Machine;
    use crate::config::{CoprocConfig, DeviceLocator};
    use crate::devicetree::{Tree, tests::QEMU_GICV3};
    use alloc::string::ToString as _;
    use coproc_core::driver::WorstCase;
    use coproc_core::id::CoprocId;
    use coproc_core::time::Duration;

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

    const fn driver(own_iommu: bool) -> Description {
        Description {
            name: "qemu,edu",
            matches: &[],
            windows: &[],
            interrupts: 1,
            streams: 1,
            own_iommu,
            save_area: 0,
            worst_case: WorstCase {
                refusal: Duration::ZERO,
                stop: Duration::ZERO,
                save: Duration::ZERO,
                restore: Duration::ZERO,
            },
            refusal_bound: Duration::ZERO,
            slice: Duration::ZERO,
        }
    }

    #[test]
    fn a_function_is_shared_only_behind_the_first_iommu_that_works() {
        let machine = Machine::from_tree(&Tree::new(QEMU_GICV3).unwrap()).unwrap();
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
        assert!(coproc.is_below(&host, FUNCTION).is_ok());
        assert!(coproc.interrupt(&host, FUNCTION, 1).is_ok());
        host.segment = 1;
        let error = coproc.is_below(&host, FUNCTION).unwrap_err().to_string();
        assert!(error.contains("not below /pcie@10000000"), "{error}");
    }
}
