//! System registers: what they are after reset, and those that are more than a place.

use super::{Board, Event, FREQUENCY, LISTS, State};
use crate::arch::processor::by_name;
use hypervisor::processor::fake::Step;
use std::collections::BTreeMap;

/// What a CPU begins with; what the architecture leaves open is nonsense.
pub fn after_reset(board: &Board, index: usize) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([
        ("midr_el1", board.midr[index]),
        ("mpidr_el1", 1 << 31 | index as u64),
        // AArch64 alone, a GICv3's registers; no CSV2. By this name, and by that of trapped ones.
        ("id_aa64pfr0_el1", 0x0100_0111),
        ("s3_0_c0_c4_0", 0x0100_0111),
        ("id_aa64isar0_el1", 0),
        // 40 bits of physical address.
        ("id_aa64mmfr0_el1", 2),
        ("dczid_el0", 4),
        ("cntfrq_el0", FREQUENCY),
        ("pmcr_el0", 6 << 11),
        ("ich_vtr_el2", 4 << 26 | (LISTS.len() as u64 - 1)),
        ("cnthp_ctl_el2", 0),
        ("cntv_ctl_el0", 0),
        ("vttbr_el2", 0xdead_0000),
        ("vtcr_el2", 0xdead),
        ("hcr_el2", 0),
        ("cptr_el2", 0xdead),
        ("mdcr_el2", 0xdead),
        ("hstr_el2", 0xdead),
        ("sctlr_el1", 0xdead),
    ])
}

impl State {
    /// What a register holds.
    pub fn value(&self, cpu: usize, name: &str) -> u64 {
        self.cpus[cpu].registers.get(name).copied().unwrap_or(0)
    }

    /// MRS.
    pub fn read(&mut self, this: usize, name: &'static str) -> u64 {
        match by_name(name) {
            Some(register) => self.note(this, Event::Step(Step::Read(register))),
            // This one says which CPU it is, and is read all the time.
            None if name == "tpidr_el2" => {}
            None => self.note(this, Event::Read(name)),
        }
        match name {
            "cntpct_el0" => {
                self.counter += 1;
                self.devices.advance(self.counter);
                self.counter
            }
            "cntv_ctl_el0" => {
                let now = self.counter.wrapping_sub(self.value(this, "cntvoff_el2"));
                let fired = self.value(this, "cntv_cval_el0") <= now;
                self.value(this, name) & 3 | u64::from(fired) << 2
            }
            "icc_iar1_el1" => {
                let levels = self.levels();
                u64::from(self.devices.gic.acknowledge(this, &levels).unwrap_or(1023))
            }
            _ => self.value(this, name),
        }
    }

    /// MSR.
    pub fn write(&mut self, this: usize, name: &'static str, value: u64) {
        match by_name(name) {
            Some(register) => self.note(this, Event::Step(Step::Write(register, value))),
            None => self.note(this, Event::Write(name, value)),
        }
        match name {
            "icc_eoir1_el1" => {}
            "icc_dir_el1" => self.devices.gic.deactivate(this, value as u32),
            _ => {
                self.cpus[this].registers.insert(name, value);
            }
        }
    }

    /// ICC_SGI1R_EL1, for CPUs that differ in Aff0 alone.
    pub fn send_sgi(&mut self, this: usize, value: u64) {
        for target in (0..self.cpus.len()).filter(|target| value & 1 << target != 0) {
            self.devices
                .gic
                .raise(target, value as u32 >> 24 & 0xf, this);
        }
        super::machine().changed.notify_all();
    }
}
