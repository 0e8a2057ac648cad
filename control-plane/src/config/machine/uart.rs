//! The console: what `/chosen/stdout-path` names.
//!
//! The UART's driver is chosen elsewhere, by `compatible`; so UARTs unknown here are described as well.

use super::gic::{self, Interrupt};
use crate::devicetree::{Error, Region, Tree, quote};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A UART.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uart {
    /// Path of its node.
    pub path: String,
    /// All `compatible` strings.
    pub compatible: Vec<String>,
    /// Its registers.
    pub registers: Region,
    /// Its interrupt, if it has one at the GIC.
    pub interrupt: Option<Interrupt>,
    /// What follows `:` in `stdout-path` (`115200n8`).
    pub options: Option<String>,
}

/// The UART that `/chosen` names, if it names one.
///
/// # Errors
/// What is malformed.
pub fn find(tree: &Tree<'_>) -> Result<Option<Uart>, Error> {
    let chosen = tree
        .find("/chosen")
        .and_then(|chosen| chosen.property("stdout-path"));
    let serial = || {
        tree.find("/aliases")
            .and_then(|aliases| aliases.property("serial0"))
    };
    let Some(property) = chosen.or_else(serial) else {
        return Ok(None);
    };
    let text = property.string()?;
    let (path, options) = match text.split_once(':') {
        Some((path, options)) => (path, Some(String::from(options))),
        None => (text, None),
    };
    let node = tree.find(path).ok_or_else(|| {
        property.error(
            format!("{}, which is no node", quote(path)),
            "the path or alias of a UART",
        )
    })?;
    let registers = node.cpu_reg()?.first().copied().ok_or_else(|| {
        node.error("missing", "the UART's registers")
            .property("reg")
    })?;
    // A UART whose interrupt goes elsewhere is still good for output.
    let specifier = node
        .interrupts()
        .ok()
        .and_then(|list| list.first().copied());
    Ok(Some(Uart {
        path: node.path(),
        compatible: node.compatible().map(String::from).collect(),
        registers,
        interrupt: specifier.and_then(|specifier| gic::decode(&node, &specifier).ok()),
        options,
    }))
}
