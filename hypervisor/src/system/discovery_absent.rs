//! A build without the feature `sharing`: there is nothing to be found. Whoever describes a coprocessor was told so when
//! the configuration was read.

use super::sharing::Instance;
use crate::arch::gic::Gic;
use alloc::vec::Vec;
use hypervisor::config::Configuration;
use hypervisor::config::machine::{Machine, PciHost};
use hypervisor::vpci::WindowAllocator;

/// Leaves the IOMMU as the boot loader left it.
pub const fn start_iommu(_: &Machine, _: &mut Gic) {}

/// None.
pub const fn start_coprocs(
    _: Option<&PciHost>,
    _: &Configuration,
    _: &mut WindowAllocator,
    _: &mut Gic,
    _: &[Option<usize>],
) -> Vec<Instance> {
    Vec::new()
}
