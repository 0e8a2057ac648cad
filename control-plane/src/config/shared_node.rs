//! A coproc's device that the tree describes: what is read of its node, and whether that suits the driver.
//!
//! The same rules as for devices that are given away (`passthrough`): pages and interrupts of its own, since a domain gets both. What
//! differs is who knows whether the device does DMA. A tree need not say it; the driver that shares the device must ([`Description::streams`]), so
//! its word counts here.

use super::coprocs::CoprocConfig;
use super::machine::Machine;
use super::passthrough::{self, Dma, Mastery, PassedNode};
use crate::devicetree::{Error, Node, Property, quote};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use coproc_core::driver::{Confinement, Description, Match, Unconfined};
use coproc_core::id::StreamId;

/// The property of a coproc's node that trusts every domain which shares the device with DMA that nothing confines.
pub const TRUSTED: &str = passthrough::TRUSTED;

/// A coproc's device that the tree describes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedNode {
    /// What is the same as of a device given away; its DMA is as configured.
    pub node: PassedNode,
    /// Its `compatible`.
    pub compatible: Vec<String>,
    /// What the tree says of its DMA.
    pub mastery: Mastery,
}

/// Reads the node at `path`, which `property` of a coproc names.
pub(super) fn read(
    property: &Property<'_>,
    path: &str,
    machine: &Machine,
    trusted: bool,
    warnings: &mut Vec<Error>,
) -> Result<SharedNode, Error> {
    let found = property.node().tree().find(path);
    let Some(node) = found.filter(|node| node.path() == path) else {
        let found = format!("{}, which is no node", quote(path));
        return Err(property.error(found, "the full path of a node, or a phandle"));
    };
    if !node.is_available() {
        let error = property.error(format!("{path}, which is disabled"), "a device in use");
        return Err(error.remedy("set its status to \"okay\" or drop the coproc"));
    }
    passthrough::unused(property, &node, machine)?;
    let described = passthrough::described(property, &node, machine, warnings)?;
    let mastery = passthrough::mastery(&node, machine)?;
    let dma = match &mastery {
        Mastery::Confined(streams) => {
            own_streams(property, &node, streams, machine)?;
            Dma::Confined(streams.clone())
        }
        _ if trusted => Dma::Unconfined,
        _ => Dma::None,
    };
    let compatible = match node.property("compatible") {
        Some(compatible) => compatible.strings()?.map(String::from).collect(),
        None => Vec::new(),
    };
    Ok(SharedNode {
        node: PassedNode { dma, ..described },
        compatible,
        mastery,
    })
}

/// A stream that two devices have would be pointed at two domains' memory in turn.
fn own_streams(
    property: &Property<'_>,
    node: &Node<'_>,
    streams: &[StreamId],
    machine: &Machine,
) -> Result<(), Error> {
    for other in node.tree().nodes().filter(|other| other != node) {
        let Ok(Mastery::Confined(others)) = passthrough::mastery(&other, machine) else {
            continue;
        };
        if let Some(stream) = streams.iter().find(|stream| others.contains(stream)) {
            let found = format!("{}, whose {stream} is {}'s, too", node.path(), other.path());
            let error = property.error(found, "a device that shares no stream");
            return Err(error.remedy("a stream reaches one domain's memory at a time"));
        }
    }
    Ok(())
}

impl SharedNode {
    /// Whether a driver can share it. `iommu`: whether the IOMMU works.
    ///
    /// # Errors
    /// What is wrong, naming node and property.
    pub fn suits(
        &self,
        config: &CoprocConfig,
        facts: &Description,
        iommu: bool,
    ) -> Result<(), Error> {
        let path = &self.node.path;
        let other = |found: String, expected: String| {
            Error::new(config.path.clone(), format!("{path}, {found}"), expected).property("device")
        };
        let known = |name: &String| {
            let mut matches = facts.matches.iter();
            matches.any(|one| matches!(one, Match::Compatible(driven) if *driven == name.as_str()))
        };
        if !self.compatible.iter().any(known) {
            return Err(match self.compatible.as_slice() {
                [] => config.device_unsuitable("a node without compatible"),
                [first, ..] => {
                    config.device_unsuitable(format!("compatible with {}", quote(first)))
                }
            });
        }
        for window in facts.windows {
            let there = self.node.registers.get(window.index);
            let size = there.map_or(0, |region| region.size);
            // A direct window is mapped in pages, and none of them is anybody else's.
            let pages = size.checked_next_multiple_of(coproc_core::address::PAGE_SIZE);
            if pages.unwrap_or(0) < window.size {
                let found = match there {
                    Some(_) => format!("whose reg entry {} has {size:#x} bytes", window.index),
                    None => format!("which has no reg entry {}", window.index),
                };
                let expected = format!(
                    "{:#x} bytes there, window {} of the driver",
                    window.size,
                    quote(window.name)
                );
                return Err(other(found, expected).remedy("correct reg or the driver"));
            }
        }
        if self.node.interrupts.len() < facts.interrupts {
            let found = format!("which has {} interrupts", self.node.interrupts.len());
            let expected = format!("{}, as its driver has", facts.interrupts);
            return Err(other(found, expected).remedy("correct interrupts or the driver"));
        }
        self.confined(facts, iommu, &other)
    }

    fn confined(
        &self,
        facts: &Description,
        iommu: bool,
        other: &dyn Fn(String, String) -> Error,
    ) -> Result<(), Error> {
        let streams = self.streams();
        if !streams.is_empty() && !iommu {
            let expected = "an IOMMU that works".to_string();
            return Err(other("whose IOMMU doesn't work".to_string(), expected)
                .remedy("see the error of the IOMMU"));
        }
        match facts.confinement(!streams.is_empty()) {
            Ok(Confinement::Iommu) if streams.len() < facts.streams => {
                let found = format!("whose iommus has {} streams", streams.len());
                let expected = format!("{}, as its driver has", facts.streams);
                Err(other(found, expected)
                    .remedy("name all of them: the others are confined by nothing"))
            }
            Ok(Confinement::Iommu) => Ok(()),
            _ if facts.save_area != 0 => {
                let found = "which no IOMMU confines".to_string();
                let expected = "an IOMMU, which shows the device its save area".to_string();
                Err(other(found, expected).remedy("put it behind the first SMMUv3"))
            }
            Ok(Confinement::NoDma) => Ok(()),
            Ok(Confinement::Own) => {
                let found = "whose only IOMMU is its own".to_string();
                let expected = "a device behind the first SMMUv3; devices of the tree that confine themselves are not built yet";
                Err(other(found, expected.to_string()).remedy("drop the coproc"))
            }
            Err(Unconfined::Nothing) if self.node.dma == Dma::Unconfined => Ok(()),
            Err(Unconfined::Nothing) => {
                let found = match &self.mastery {
                    Mastery::Loose(why) => why.clone(),
                    _ => "which has no iommus, and whose driver says that it does DMA".to_string(),
                };
                let expected = "a device whose DMA the first SMMUv3 confines".to_string();
                Err(other(found, expected).remedy(format!(
                    "if all domains that share it may reach all memory of the machine, say so by {TRUSTED} in the coproc's node"
                )))
            }
            Err(error) => {
                let expected = "a device that one IOMMU confines".to_string();
                Err(other(error.to_string(), expected).remedy("correct iommus or the driver"))
            }
        }
    }

    /// Its streams at the first SMMUv3.
    pub fn streams(&self) -> &[StreamId] {
        match &self.node.dma {
            Dma::Confined(streams) => streams,
            Dma::None | Dma::Unconfined => &[],
        }
    }
}
