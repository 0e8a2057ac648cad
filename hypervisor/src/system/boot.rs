//! What boot finds before there is a system, and everybody uses afterwards.

use super::pci::ConfigSpace;
use alloc::boxed::Box;
use coproc_core::Iommu;
use spin::{Mutex, Once};

static IOMMU: Once<Mutex<Box<dyn Iommu>>> = Once::new();
static CONFIG_SPACE: Once<Mutex<ConfigSpace>> = Once::new();

/// The IOMMU, if there is one that works.
pub fn iommu() -> Option<&'static Mutex<Box<dyn Iommu>>> {
    IOMMU.get()
}

/// Makes the IOMMU known.
#[cfg(feature = "sharing")]
pub fn set_iommu(iommu: Box<dyn Iommu>) {
    IOMMU.call_once(|| Mutex::new(iommu));
}

/// The physical PCI configuration space, if there is one.
pub fn config_space() -> Option<&'static Mutex<ConfigSpace>> {
    CONFIG_SPACE.get()
}

/// Makes the configuration space known.
pub fn set_config_space(space: ConfigSpace) {
    CONFIG_SPACE.call_once(|| Mutex::new(space));
}
