//! The few functions that are truly a device's own.
//!
//! All have defaults that fit a device whose registers tell everything. A function that may take time answers
//! [`Step::Again`] and is called again; [`Context::stage`] counts how far it is, so that most need no state of their own.

use alloc::boxed::Box;

use super::context::Context;
use super::register::{Kind, Reg, Table};
use crate::address::DeviceAddress;
use crate::driver::{DriverError, Failure, Hardware, Step};
use crate::id::VcoprocId;
use crate::memory::Memory;

/// A kind of device that is driven by a table.
pub trait Device: Send {
    /// The table.
    const TABLE: &'static Table;
    /// What these functions keep for each vcoproc.
    type Own: Default + Send;

    /// Takes the memory that a device with its own IOMMU needs: [`Driver::connect`](crate::Driver::connect).
    fn connect(&mut self, _memory: Box<dyn Memory>) {}

    /// Takes for a new context what it needs besides the shadows.
    ///
    /// # Errors
    /// [`DriverError`]; nothing is left behind.
    fn create(
        &mut self,
        _who: VcoprocId,
        _context: &mut Context<Self::Own>,
    ) -> Result<(), DriverError> {
        Ok(())
    }

    /// Gives back what [`Device::create`] took.
    fn destroy(&mut self, _who: VcoprocId, _context: &mut Context<Self::Own>) {}

    /// Looks at the device further than the table does, which has found it to be the right one and quiet, has scrubbed it and cleared its statuses.
    ///
    /// # Errors
    /// [`DriverError::WrongDevice`].
    fn probe(&mut self, _hardware: &mut dyn Hardware) -> Result<(), DriverError> {
        Ok(())
    }

    /// Whether the device works, by its own status; `get` reads a register. As it is: any doorbell's busy bits are set.
    fn busy(&self, get: &mut dyn FnMut(Reg) -> u64) -> bool {
        default_busy(Self::TABLE, get)
    }

    /// What the interrupt `index` means; `get` reads a register, from the device or from the context. As it is: what the table says.
    fn pending(&self, index: usize, get: &mut dyn FnMut(Reg) -> u64) -> bool {
        default_pending(Self::TABLE, index, get)
    }

    /// Whether this value may be written to this doorbell; `get` reads its parameters. If not the domain gets a bus
    /// error and the device never sees it. In a direct window nobody asks.
    fn allows(&self, _bell: Reg, _value: u64, _get: &mut dyn FnMut(Reg) -> u64) -> bool {
        true
    }

    /// Asks the device to stop at its next boundary. Called once, when its domain has lost the direct access.
    fn request_stop(&mut self, _context: &mut Context<Self::Own>, _hardware: &mut dyn Hardware) {}

    /// The volatile registers were looked at while the context is leaving.
    fn looked(&mut self, _context: &mut Context<Self::Own>) {}

    /// The domain wrote this register and the context took it.
    fn wrote(&mut self, _context: &mut Context<Self::Own>, _reg: Reg, _value: u64) {}

    /// The domain wrote this register, the device took it, and the context what is carried for it.
    fn forwarded(&mut self, _context: &mut Context<Self::Own>, _reg: Reg, _value: u64) {}

    /// The domain wrote this register, which is kept from the device ([`Trap::Shadow`](super::Trap::Shadow)), and the context took it. What it means for the device is done
    /// here: at once if the vcoproc is current (`hardware` given), else when the context goes in.
    fn shadowed(
        &mut self,
        _context: &mut Context<Self::Own>,
        _reg: Reg,
        _value: u64,
        _hardware: Option<&mut dyn Hardware>,
    ) {
    }

    /// The device is quiet, the registers are in the context: waits until no interrupt can come any more.
    fn settle(&mut self, _context: &mut Context<Self::Own>, _hardware: &mut dyn Hardware) -> Step {
        Step::Done
    }

    /// Saves what no register shows.
    fn save(
        &mut self,
        _context: &mut Context<Self::Own>,
        _hardware: &mut dyn Hardware,
        _area: Option<DeviceAddress>,
    ) -> Step {
        Step::Done
    }

    /// Clears what no register shows; the table's registers are scrubbed after it.
    fn scrub(&mut self, _context: &mut Context<Self::Own>, _hardware: &mut dyn Hardware) -> Step {
        Step::Done
    }

    /// Restores what no register shows; the table's registers are written after it.
    fn restore(
        &mut self,
        _context: &mut Context<Self::Own>,
        _hardware: &mut dyn Hardware,
        _area: Option<DeviceAddress>,
    ) -> Step {
        Step::Done
    }

    /// The context is back in the device, the streams point at the domain, the queued doorbells come next: lets a device go on that was stopped.
    fn start(&mut self, _context: &mut Context<Self::Own>, _hardware: &mut dyn Hardware) {}

    /// Stops the device by force.
    fn abort(&mut self, _hardware: &mut dyn Hardware) -> Step {
        Step::Failed(Failure("the device has no means to stop its work"))
    }

    /// Resets the device; the table's registers are scrubbed and its statuses cleared after it.
    fn reset(&mut self, _hardware: &mut dyn Hardware) -> Step {
        Step::Failed(Failure("the device has no reset"))
    }
}

/// Whether any doorbell's busy bits are set.
#[inline]
pub fn default_busy(table: &Table, get: &mut dyn FnMut(Reg) -> u64) -> bool {
    table.registers.iter().any(|register| {
        let Kind::Doorbell(bell) = register.kind else {
            return false;
        };
        bell.busy.is_some_and(|(offset, bits)| {
            let reg = table.find(register.window, offset);
            let reg = reg.and_then(|index| table.at(index));
            reg.is_some_and(|reg| get(reg) & bits != 0)
        })
    })
}

/// Whether the interrupt's status has an enabled bit.
#[inline]
pub fn default_pending(table: &Table, index: usize, get: &mut dyn FnMut(Reg) -> u64) -> bool {
    let Some(interrupt) = table.interrupts.get(index) else {
        return false;
    };
    let mut read = |offset| {
        let index = table.find(interrupt.window, offset);
        let reg = index.and_then(|index| table.at(index));
        reg.map_or(0, &mut *get)
    };
    let status = read(interrupt.status);
    status != 0 && status & interrupt.enable.map_or(u64::MAX, read) != 0
}
