//! Whether a domain can have a device for itself, as far as the device tree tells, and what of the machine it gets with it.

use super::Voice;
use crate::config::machine::{Interrupt, PciHost};
use crate::config::{Dma, DomainConfig, Passed, PciFunction};
use crate::devicetree::Error;
use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use coproc_core::id::StreamId;

/// What of the machine a device has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parts {
    /// Its interrupts. A function has one.
    pub interrupts: Vec<Interrupt>,
    /// Its streams at the IOMMU.
    pub streams: Vec<StreamId>,
}

/// What the devices of domains are chosen from.
#[derive(Debug)]
pub struct Stock<'a> {
    /// The bridge that PCI functions are below.
    pub host: Option<&'a PciHost>,
    /// Whether there is an IOMMU that works.
    pub iommu: bool,
    /// Interrupts that are somebody's.
    pub used: &'a mut Vec<u32>,
}

impl Stock<'_> {
    /// Takes what a device of a domain needs. `look` finds a function and says which INTx it has: 1 is INTA, 0 none.
    ///
    /// # Errors
    /// Why the domain can't have it, naming node and property.
    pub fn take(
        &mut self,
        config: &DomainConfig,
        device: &Passed,
        voice: &mut dyn Voice,
        look: &mut dyn FnMut(PciFunction) -> Result<u8, Error>,
    ) -> Result<Parts, Error> {
        let name = device.to_string();
        let other = |why: &str, expected| {
            let found = format!("{name}, {why}");
            Err(config.passthrough_error(found, expected))
        };
        let (interrupts, streams) = match device {
            Passed::Node(node) => {
                let path = &config.path;
                let streams = match &node.dma {
                    Dma::Confined(streams) => streams.clone(),
                    Dma::None => {
                        let line = format_args!("{path}: {name} has no IOMMU, and shows no DMA");
                        voice.note(path, line);
                        Vec::new()
                    }
                    Dma::Unconfined => {
                        let line = format_args!(
                            "{path}: {name} can reach all memory: the domain is trusted with that"
                        );
                        voice.warning(path, line);
                        Vec::new()
                    }
                };
                (node.interrupts.clone(), streams)
            }
            Passed::Pci(function, stream) => {
                // INTx of a function behind bridges would have to be swizzled on the way.
                let Some(host) = self.host.filter(|host| host.has_on_own_bus(*function)) else {
                    let expected = "a function there; others are not built yet";
                    return other("which is not on the first host bridge's own bus", expected);
                };
                let pin = look(*function)?;
                let Some(interrupt) = host.intx_interrupt(*function, pin) else {
                    let expected = "a function with one; messages alone are not built yet";
                    return other("which has no INTx interrupt", expected);
                };
                (Vec::from([interrupt]), Vec::from([*stream]))
            }
        };
        if !streams.is_empty() && !self.iommu {
            let expected = "a device that an IOMMU confines";
            return other("whose IOMMU doesn't work", expected);
        }
        for interrupt in &interrupts {
            if self.used.contains(&interrupt.intid.0) {
                let found = format!("{name}, whose {} is shared", interrupt.intid);
                let error = config.passthrough_error(found, "a device that shares no interrupt");
                return Err(error.remedy("for a PCI function: plug it into another slot"));
            }
            self.used.push(interrupt.intid.0);
        }
        Ok(Parts {
            interrupts,
            streams,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Notes, configuration};
    use super::*;
    use crate::config::PassedNode;
    use crate::config::machine::{IntId, Trigger};
    use crate::config::tests;
    use crate::devicetree::tests::QEMU_GICV3;
    use alloc::string::String;
    use alloc::vec;

    fn function(bus: u8, device: u8) -> Passed {
        let function = PciFunction {
            segment: 0,
            bus,
            device,
            function: 0,
        };
        Passed::Pci(function, StreamId(8))
    }

    fn node(dma: Dma) -> Passed {
        Passed::Node(PassedNode {
            path: "/uart".into(),
            name: "uart".into(),
            registers: vec![],
            interrupts: vec![Interrupt {
                intid: IntId::spi(70),
                trigger: Trigger::Level,
            }],
            dma,
            clocks: vec![],
            properties: vec![],
        })
    }

    /// Takes them one after another; functions have INTx `pin`. The answers in short, and what was said.
    fn taken(devices: &[Passed], iommu: bool, pin: u8) -> (Vec<Result<Parts, String>>, Notes) {
        let machine = tests::machine(QEMU_GICV3);
        let configuration = configuration();
        let config = configuration.domains[0].as_ref().unwrap();
        let mut used = vec![];
        let mut stock = Stock {
            host: machine.pci_hosts.first(),
            iommu,
            used: &mut used,
        };
        let mut notes = Notes::default();
        let answers = devices.iter().map(|device| {
            let answer = stock.take(config, device, &mut notes, &mut |_| Ok(pin));
            answer.map_err(|error| {
                let text = error.to_string();
                let prefix = "/chosen/domain@1: baton,passthrough: ";
                text.strip_prefix(prefix).unwrap().into()
            })
        });
        (answers.collect(), notes)
    }

    #[track_caller]
    fn refused(devices: &[Passed], iommu: bool, pin: u8, text: &str) {
        let (mut answers, _) = taken(devices, iommu, pin);
        let error = answers.pop().unwrap().unwrap_err();
        assert!(error.starts_with(text), "{error}");
    }

    #[test]
    fn a_device_comes_with_its_interrupts_and_streams() {
        let devices = [function(0, 1), node(Dma::Confined(vec![StreamId(3)]))];
        let (answers, notes) = taken(&devices, true, 1);
        let parts = |intid: IntId, stream| (vec![intid], vec![StreamId(stream)]);
        let found: Vec<_> = answers
            .into_iter()
            .map(|parts| {
                let Parts {
                    interrupts,
                    streams,
                } = parts.unwrap();
                let intids = interrupts.iter().map(|interrupt| interrupt.intid);
                (intids.collect::<Vec<_>>(), streams)
            })
            .collect();
        assert_eq!(found, [parts(IntId(36), 8), parts(IntId::spi(70), 3)]);
        assert!(notes.said.is_empty());
    }

    #[test]
    fn what_nothing_confines_is_told() {
        let (answers, notes) = taken(&[node(Dma::Unconfined)], false, 1);
        assert!(answers[0].as_ref().unwrap().streams.is_empty());
        let about = "/chosen/domain@1 /chosen/domain@1: /uart";
        let text = "can reach all memory: the domain is trusted with that";
        assert_eq!(notes.said, [format!("warning {about} {text}")]);
        let (answers, notes) = taken(&[node(Dma::None)], false, 1);
        assert!(answers[0].as_ref().unwrap().streams.is_empty());
        let text = "has no IOMMU, and shows no DMA";
        assert_eq!(notes.said, [format!("note {about} {text}")]);
    }

    #[test]
    fn what_cannot_be_a_domains_is_refused() {
        let own = "pci:0000:01:00.0, which is not on the first host bridge's own bus";
        refused(&[function(1, 0)], true, 1, own);
        let silent = "pci:0000:00:01.0, which has no INTx interrupt";
        refused(&[function(0, 1)], true, 0, silent);
        let loose = "pci:0000:00:01.0, whose IOMMU doesn't work";
        refused(&[function(0, 1)], false, 1, loose);
        let confined = node(Dma::Confined(vec![StreamId(3)]));
        refused(&[confined], false, 1, "/uart, whose IOMMU doesn't work");
        // INTx of slot 5 is that of slot 1.
        let shared = "pci:0000:00:05.0, whose INTID 36 is shared";
        refused(&[function(0, 1), function(0, 5)], true, 1, shared);
    }
}
