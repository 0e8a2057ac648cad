//! The files that a domain starts with, where the boot loader has put them.

use super::Module;
use super::reader::Reader;
use crate::config::coprocs::keep;
use crate::devicetree::{Error, Node, Region};
use crate::flash;
use alloc::format;
use alloc::string::String;

/// The files that a domain starts with.
pub(super) struct Modules {
    pub(super) kernel: Option<Module>,
    pub(super) ramdisk: Option<Module>,
    pub(super) bootargs: Option<String>,
    pub(super) firmware: bool,
}

impl Reader<'_, '_> {
    pub(super) fn boot_modules(&mut self) -> Modules {
        let mut modules = Modules {
            kernel: None,
            ramdisk: None,
            bootargs: None,
            firmware: false,
        };
        let mut kernel_seen = false;
        for node in self.node.children().filter(Node::is_available) {
            let is_firmware = node.is_compatible(&["multiboot,firmware"]);
            let is_kernel = node.is_compatible(&["multiboot,kernel"]) || is_firmware;
            let is_ramdisk = node.is_compatible(&["multiboot,ramdisk"]);
            if is_kernel == is_ramdisk {
                if node.is_compatible(&["multiboot,device-tree"]) {
                    let found = "\"multiboot,device-tree\", which is for Xen alone";
                    let error = node.error(found, "devices in the domain's baton,passthrough");
                    self.errors.push(error.property("compatible"));
                } else if node.is_compatible(&["multiboot,module"]) {
                    let expected = "either \"multiboot,kernel\" or \"multiboot,ramdisk\" besides";
                    self.errors.push(
                        node.error("\"multiboot,module\" alone or with both", expected)
                            .property("compatible"),
                    );
                } else {
                    self.warnings
                        .push(node.error("a node that Baton doesn't act on", "a module"));
                }
                continue;
            }
            if is_kernel {
                kernel_seen = true;
                modules.firmware |= is_firmware;
                let text = node
                    .property("bootargs")
                    .map(|property| property.string().map(String::from));
                modules.bootargs = keep(&mut self.errors, text.transpose()).flatten();
            }
            let region = self.module_region(&node);
            let Some(region) = keep(&mut self.errors, region) else {
                continue;
            };
            let module = Module {
                path: node.path(),
                region,
            };
            self.check_overlap(&module, modules.kernel.iter().chain(&modules.ramdisk));
            // The same file may serve two domains; half of one may not.
            self.check_overlap(
                &module,
                self.modules.iter().filter(|other| other.region != region),
            );
            let place = if is_kernel {
                &mut modules.kernel
            } else {
                &mut modules.ramdisk
            };
            match place {
                Some(first) => self.errors.push(
                    node.error(
                        format!("a second one besides {}", first.path),
                        "one kernel and at most one ramdisk",
                    )
                    .property("compatible"),
                ),
                None => *place = Some(module),
            }
        }
        if !kernel_seen {
            self.errors.push(
                self.node
                    .error(
                        "no kernel module",
                        "a child compatible with \"multiboot,kernel\"",
                    )
                    .property("compatible")
                    .remedy("add the kernel as a module"),
            );
        }
        modules
    }

    /// Firmware fetches what it starts by itself.
    pub(super) fn check_firmware(&mut self, firmware: &Module, ramdisk: Option<&Module>) {
        if firmware.region.size > flash::SIZE {
            let found = format!("{:#x} bytes", firmware.region.size);
            let error = Error::new(firmware.path.clone(), found, "at most 64 MiB of firmware");
            self.errors.push(error.property("reg"));
        }
        if let Some(ramdisk) = ramdisk {
            let error = Error::new(
                ramdisk.path.clone(),
                "a ramdisk besides firmware",
                "a ramdisk for a kernel",
            );
            self.errors.push(error.property("compatible"));
        }
    }

    fn module_region(&self, node: &Node<'_>) -> Result<Region, Error> {
        let property = node.required("reg", "address and size of the module in memory")?;
        // Xen inherits these from further up, unlike the specification.
        let address_cells = inherited(&self.node, "#address-cells", 2)?;
        let size_cells = inherited(&self.node, "#size-cells", 1)?;
        let regions = node.reg_with_cells(address_cells, size_cells)?;
        let &[region] = regions.as_slice() else {
            return Err(property.error(format!("{} regions", regions.len()), "one region"));
        };
        if region.size == 0 {
            return Err(property.error(format!("{region}"), "a size that isn't 0"));
        }
        if let Some(later) = &self.later
            && !later.modules.iter().any(|kept| kept.contains(&region))
        {
            return Err(property
                .error(
                    format!("{region}, which is not kept since boot"),
                    "a region in which the tree of boot has a domain's module",
                )
                .remedy("have the boot loader load it, as a module of some domain"));
        }
        if !self.machine.is_ram(&region) {
            return Err(property
                .error(
                    format!("{region}, which isn't in RAM"),
                    "a region inside one bank of memory",
                )
                .remedy("correct the address or give the machine more memory"));
        }
        Ok(region)
    }

    fn check_overlap<'m>(&mut self, module: &Module, others: impl Iterator<Item = &'m Module>) {
        let mut others = others;
        if let Some(other) = others.find(|other| other.region.overlaps(&module.region)) {
            let found = format!(
                "{}, which overlaps {} of {}",
                module.region, other.region, other.path
            );
            self.errors.push(
                Error::new(module.path.clone(), found, "modules that don't overlap")
                    .property("reg"),
            );
        }
    }
}

/// A number of cells from the node or the nearest ancestor that has one.
fn inherited(node: &Node<'_>, name: &str, default: usize) -> Result<usize, Error> {
    let mut node = Some(*node);
    while let Some(this) = node {
        if let Some(count) = this.cell_count(name)? {
            return Ok(count);
        }
        node = this.parent();
    }
    Ok(default)
}
