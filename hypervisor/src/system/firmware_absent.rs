//! A build without the feature `fw-core`: there are no firmware cores, and the types say so.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::domain::Domain;
use crate::arch::exits::{Exit, Registers};
use alloc::string::{String, ToString};
#[cfg(feature = "sharing")]
use coproc_core::address::HostPhysical;
use coproc_core::driver::{Hardware, Step};
use coproc_core::id::VcoprocId;
use coproc_core::iommu::Faults;
use coproc_core::register::{Access, Width};
use coproc_core::time::Instant;
use hypervisor::memory::frames::Piece;
#[cfg(feature = "sharing")]
use hypervisor::vpci::FunctionDescription;
use platforms::translation::Geometry;

const ABSENT: &str = "a firmware core, which needs the cargo feature fw-core";

/// A firmware core: there is none.
pub enum FirmwareCore {}

/// Registers of a firmware core: there are none.
pub struct CoreRegisters(pub &'static FirmwareCore);

/// A share of a firmware core: there is none.
pub enum FirmwareShare {}

/// No CPU is a firmware core.
pub const fn here() -> Option<&'static FirmwareCore> {
    None
}

/// None.
pub const fn vmids_in_use() -> u32 {
    0
}

/// No CPU is a firmware core.
pub const fn is_core(_number: usize) -> bool {
    false
}

/// Never called: there is no core.
pub fn handle(core: &'static FirmwareCore, _: &mut Registers, _: Exit) -> *mut Registers {
    match *core {}
}

/// Refuses.
///
/// # Errors
/// Always.
#[cfg(feature = "sharing")]
pub fn reserve(_: usize, _: HostPhysical) -> Result<&'static FirmwareCore, &'static str> {
    Err(ABSENT)
}

impl FirmwareCore {
    /// Never called.
    pub fn run(&'static self) -> ! {
        match *self {}
    }

    /// Never called.
    #[cfg(feature = "sharing")]
    pub fn belongs_to(&self, _instance: usize) {}

    /// Never called.
    pub fn interrupt_asserted(&self) -> bool {
        match *self {}
    }

    /// Never called.
    pub fn aim(&self, _: Option<VcoprocId>) {}

    /// Never called.
    pub fn aimed(&self) -> Step {
        match *self {}
    }

    /// Never called.
    pub fn take_faults(&self) -> Faults {
        match *self {}
    }

    /// Never called.
    pub fn forget(&self, _: VcoprocId) -> bool {
        match *self {}
    }

    /// Never called.
    #[cfg(feature = "sharing")]
    pub fn function(&self) -> FunctionDescription {
        match *self {}
    }
}

impl Hardware for CoreRegisters {
    fn read(&mut self, _: usize, _: u64, _: Width) -> u64 {
        match *self.0 {}
    }

    fn write(&mut self, _: usize, _: u64, _: Width, _: u64) {}

    fn now(&self) -> Instant {
        match *self.0 {}
    }
}

impl FirmwareShare {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn new(_: &'static FirmwareCore, _: VcoprocId, _: Geometry) -> Result<Self, String> {
        Err(ABSENT.to_string())
    }

    /// Never called.
    pub fn end(self) -> Piece {
        match self {}
    }

    /// Never called.
    pub fn place(&mut self, _: &Domain, _: usize, _: u64) -> bool {
        match *self {}
    }

    /// Never called.
    pub fn displace(&mut self, _: &Domain) {}

    /// Never called.
    pub fn grant_access(&mut self, _: &Domain, _: &Access, _: bool) -> Option<u64> {
        match *self {}
    }
}

/// Which of a firmware core's registers an access is to: no such core, no such register.
pub const fn target(_: &Access) -> Target {
    Target::Device
}

/// Never asked.
pub const fn status() -> Access {
    Access {
        window: 0,
        offset: 0,
        width: Width::Word,
        operation: coproc_core::register::Operation::Read,
    }
}

/// Never asked.
pub const fn is_stopped(_: u64) -> bool {
    true
}

/// What a domain's access to the function reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(dead_code, reason = "the same type with and without firmware cores")]
pub enum Target {
    /// The device's registers.
    Device,
    /// The registers of the grants.
    Grants,
    /// Image or shared memory.
    Memory,
}
