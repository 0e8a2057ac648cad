//! SMMUv3s (binding `arm,smmu-v3`).

use super::gic::{self, Interrupt};
use crate::devicetree::{Error, Node, Region, Tree};
use alloc::string::String;
use alloc::vec::Vec;

/// An SMMUv3.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Smmu {
    /// Path of its node.
    pub path: String,
    /// Its registers, both pages.
    pub registers: Region,
    /// Event queue not empty.
    pub event: Option<Interrupt>,
    /// PRI queue not empty.
    pub pri: Option<Interrupt>,
    /// CMD_SYNC complete.
    pub sync: Option<Interrupt>,
    /// Global error.
    pub error: Option<Interrupt>,
    /// Several of them in one.
    pub combined: Option<Interrupt>,
    /// Whether its table walks and queues are coherent with the CPUs' caches.
    pub dma_coherent: bool,
}

/// All SMMUv3s, and the node of each.
pub(super) fn find_all<'t>(tree: &'t Tree<'_>) -> Result<(Vec<Smmu>, Vec<Node<'t>>), Error> {
    let mut smmus = Vec::new();
    let mut nodes = Vec::new();
    for node in tree.find_compatible(&["arm,smmu-v3"]) {
        let registers = node.cpu_reg()?.first().copied();
        let registers = registers.ok_or_else(|| {
            node.error("missing", "the SMMU's registers")
                .property("reg")
        })?;
        let interrupt = |name: &str| -> Result<Option<Interrupt>, Error> {
            let specifier = node.interrupt_by_name(name)?;
            specifier
                .map(|specifier| gic::decode(&node, &specifier))
                .transpose()
        };
        smmus.push(Smmu {
            path: node.path(),
            registers,
            event: interrupt("eventq")?,
            pri: interrupt("priq")?,
            sync: interrupt("cmdq-sync")?,
            error: interrupt("gerror")?,
            combined: interrupt("combined")?,
            dma_coherent: node.is_dma_coherent(),
        });
        nodes.push(node);
    }
    Ok((smmus, nodes))
}
