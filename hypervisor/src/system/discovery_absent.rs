//! A build without the feature `sharing`: there is nothing to be found. Whoever describes a coprocessor was told so when
//! the configuration was read.

use super::sharing::Instance;
use super::site::Site;
use crate::arch::gic::Gic;
use hypervisor::config::CoprocConfig;
use hypervisor::config::machine::Machine;
use hypervisor::devicetree::Error;

/// Leaves the IOMMU as the boot loader left it.
pub const fn start_iommu(_: &Machine, _: &mut Gic) {}

/// Never called: no driver has a name.
///
/// # Errors
/// Always.
pub fn start_coproc(_: &mut Site<'_>, config: &CoprocConfig) -> Result<Instance, Error> {
    Err(config.device_absent())
}
