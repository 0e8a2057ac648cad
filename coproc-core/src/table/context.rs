//! One vcoproc's context: a shadow of each register, and the doorbells that were rung while away.

use alloc::vec::Vec;

use super::register::{Doorbell, Kind, Reads, Reg, Register, Scrub, Table, Trap};
use crate::driver::{Failure, Hardware, Step};
use crate::time::{Duration, Instant};

/// Who holds the truth: see the module's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Away,
    Present,
    Leaving,
}

/// A step that takes several calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    Drain,
    Save,
    Scrub,
    Restore,
}

#[derive(Clone, Copy, Debug, Default)]
struct Shadow {
    /// As it reads; of a latched status only while leaving, as last seen in the device.
    value: u64,
    /// Bits of a latched status that are in the context and not in the device.
    carried: u64,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    which: Which,
    begun: Instant,
    stage: u8,
    since: Instant,
}

/// One vcoproc's context. `S` is what the device's own functions keep in it.
#[derive(Debug)]
pub struct Context<S> {
    /// The device's own.
    pub own: S,
    table: &'static Table,
    pub(super) phase: Phase,
    pub(super) refusals: u32,
    shadows: Vec<Shadow>,
    /// Doorbells in the order in which they were rung; as many places as all doorbells have together.
    queue: Vec<(usize, u64)>,
    progress: Option<Progress>,
    /// What was written while away is to be seen in the device.
    wanted: bool,
}

impl<S: Default> Context<S> {
    /// As the device is after reset; `None` without memory.
    pub(super) fn new(table: &'static Table) -> Option<Self> {
        let mut shadows = Vec::new();
        shadows.try_reserve_exact(table.registers.len()).ok()?;
        let mut places = 0_usize;
        for register in table.registers {
            let value = register.reset;
            shadows.push(Shadow { value, carried: 0 });
            places = places.saturating_add(depth(&register.kind));
        }
        let mut queue = Vec::new();
        queue.try_reserve_exact(places).ok()?;
        Some(Self {
            own: S::default(),
            table,
            phase: Phase::Away,
            refusals: 0,
            shadows,
            queue,
            progress: None,
            wanted: false,
        })
    }
}

fn depth(kind: &Kind) -> usize {
    match kind {
        Kind::Doorbell(bell) => bell.depth.into(),
        Kind::SideEffect => 1,
        _ => 0,
    }
}

impl<S> Context<S> {
    /// A register as the domain reads it out of the context: queued doorbells read as rung, their busy bits as set.
    pub fn get(&self, reg: Reg) -> u64 {
        self.effective(reg.index)
    }

    /// A register as it was left, without what queued doorbells add.
    pub fn saved(&self, reg: Reg) -> u64 {
        self.value(reg.index)
    }

    /// Changes a register in the context.
    pub fn set(&mut self, reg: Reg, value: u64) {
        self.set_value(reg.index, value);
    }

    /// Adds bits to a latched status in the context: the domain will find them, and get their interrupt.
    pub fn raise(&mut self, reg: Reg, bits: u64) {
        if let Some(shadow) = self.shadows.get_mut(reg.index) {
            shadow.carried |= bits & reg.width.mask();
        }
    }

    /// Takes bits of a status out of the context again.
    pub fn lower(&mut self, reg: Reg, bits: u64) {
        self.uncarry(reg.index, bits);
    }

    /// The bits of a status that are in the context, and not in the device.
    pub fn held(&self, reg: Reg) -> u64 {
        self.carried(reg.index)
    }

    /// The vcoproc has work although it rang no doorbell: what was written while it is away has an effect only in the device.
    pub fn want(&mut self) {
        self.wanted = self.phase == Phase::Away;
    }

    /// How far the step under way is: 0 at its first call, then as often as [`Context::advance`] was called.
    pub fn stage(&self) -> u8 {
        self.progress.map_or(0, |progress| progress.stage)
    }

    /// How long the step has been at this stage.
    pub fn waited(&self, now: Instant) -> Duration {
        let since = self.progress.map(|progress| progress.since);
        since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// The step goes on to its next stage.
    pub fn advance(&mut self, now: Instant) {
        if let Some(progress) = &mut self.progress {
            progress.stage = progress.stage.saturating_add(1);
            progress.since = now;
        }
    }

    /// Begins the step, unless it is under way already, which is what it answers.
    pub(super) fn under_way(&mut self, which: Which, now: Instant) -> bool {
        if self.progress.is_some_and(|p| p.which == which) {
            return true;
        }
        self.progress = Some(Progress {
            which,
            begun: now,
            stage: 0,
            since: now,
        });
        false
    }

    /// Ends the step unless it is to go on, and that not for ever.
    #[inline]
    pub(super) fn judge(&mut self, answer: Step, now: Instant, declared: Duration) -> Step {
        let limit = declared.saturating_mul(10).max(Duration::from_secs(2));
        match (answer, self.progress) {
            (Step::Again(_), Some(p)) if now.since(p.begun) <= limit => answer,
            (Step::Again(_), Some(_)) => {
                self.progress = None;
                Step::Failed(Failure("a step of the driver doesn't end"))
            }
            _ => {
                self.progress = None;
                answer
            }
        }
    }

    /// Whether it has status bits that the device can't show.
    pub(super) fn holds(&self) -> bool {
        let mut pairs = self.table.registers.iter().zip(&self.shadows);
        pairs.any(|(register, shadow)| register.held && shadow.carried != 0)
    }

    pub(super) fn forget_progress(&mut self) {
        self.progress = None;
    }

    pub(super) fn register(&self, reg: Reg) -> Option<&'static Register> {
        self.table.registers.get(reg.index)
    }

    /// The shadow of a register as such, without what queued doorbells add.
    pub(super) fn value(&self, index: usize) -> u64 {
        self.shadows.get(index).map_or(0, |shadow| shadow.value)
    }

    pub(super) fn set_value(&mut self, index: usize, value: u64) {
        if let Some(shadow) = self.shadows.get_mut(index) {
            shadow.value = value;
        }
    }

    pub(super) fn carried(&self, index: usize) -> u64 {
        self.shadows.get(index).map_or(0, |shadow| shadow.carried)
    }

    pub(super) fn carry(&mut self, index: usize, bits: u64) {
        if let Some(shadow) = self.shadows.get_mut(index) {
            shadow.carried |= bits;
        }
    }

    pub(super) fn uncarry(&mut self, index: usize, bits: u64) {
        if let Some(shadow) = self.shadows.get_mut(index) {
            shadow.carried &= !bits;
        }
    }

    /// A register as it reads out of the context.
    pub(super) fn effective(&self, index: usize) -> u64 {
        let Some(register) = self.table.registers.get(index) else {
            return 0;
        };
        if let Reads::Fixed(value) = register.reads {
            return value;
        }
        if let Kind::Set(of) | Kind::Clear(of) = register.kind {
            let target = self.table.find(register.window, of);
            return target.map_or(0, |target| self.value(target) | self.carried(target));
        }
        let mut value = self.value(index) | self.carried(index);
        if let Some(&(_, rung)) = self.queue.iter().rev().find(|(bell, _)| *bell == index) {
            value = rung;
        }
        for &(bell, _) in &self.queue {
            if let Some(other) = self.table.registers.get(bell)
                && let Kind::Doorbell(bell) = other.kind
                && let Some((offset, bits)) = bell.busy
                && (other.window, offset) == (register.window, register.offset)
            {
                value |= bits;
            }
        }
        value
    }

    /// Whether a doorbell's work goes on in the device, as last seen.
    #[inline]
    fn works(&self, window: usize, bell: &Doorbell) -> bool {
        self.phase == Phase::Leaving
            && bell.busy.is_some_and(|(offset, bits)| {
                let at = self.table.find(window, offset);
                at.is_some_and(|at| self.value(at) & bits != 0)
            })
    }

    /// Whether a doorbell takes no more.
    pub(super) fn full(&self, index: usize) -> bool {
        let Some(register) = self.table.registers.get(index) else {
            return true;
        };
        let rung = self.queue.iter().filter(|(i, _)| *i == index).count();
        let places = depth(&register.kind);
        rung >= places
            || matches!(&register.kind, Kind::Doorbell(bell)
                if places == 1 && self.works(register.window, bell))
    }

    /// Whether a register is a parameter of work that is queued or under way.
    pub(super) fn locked(&self, index: usize) -> bool {
        let Some(register) = self.table.registers.get(index) else {
            return true;
        };
        self.table.registers.iter().enumerate().any(|(i, other)| {
            matches!(&other.kind, Kind::Doorbell(bell)
                if other.window == register.window
                    && bell.locks.contains(&register.offset)
                    && (self.queue.iter().any(|(rung, _)| *rung == i)
                        || self.works(other.window, bell)))
        })
    }

    /// Queues a doorbell; the caller has seen that it isn't full, so there is room.
    pub(super) fn ring(&mut self, index: usize, value: u64) {
        if self.queue.len() < self.queue.capacity() {
            self.queue.push((index, value));
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.wanted || !self.queue.is_empty()
    }

    /// The device has it all.
    pub(super) fn arrive(&mut self) {
        self.phase = Phase::Present;
        self.refusals = 0;
        self.wanted = false;
    }

    pub(super) const fn wanted(&self) -> bool {
        self.wanted
    }

    /// Takes the oldest doorbell.
    pub(super) fn next_rung(&mut self) -> Option<(Reg, u64)> {
        if self.queue.is_empty() {
            return None;
        }
        let (index, value) = self.queue.remove(0);
        self.table.at(index).map(|reg| (reg, value))
    }

    fn regs(&self) -> impl Iterator<Item = Reg> + use<S> {
        let table = self.table;
        (0..table.registers.len()).filter_map(|index| table.at(index))
    }

    /// Takes over what only the domain changes, at the moment when it has lost its direct access.
    pub(super) fn begin_leaving(&mut self, hardware: &mut dyn Hardware) {
        for reg in self.regs() {
            let register = self.table.registers.get(reg.index);
            if register.is_some_and(|r| r.readable() && r.volatile == 0) {
                self.set_value(reg.index, reg.read(hardware));
            }
        }
        self.phase = Phase::Leaving;
    }

    /// Looks at what the device changes by itself.
    pub(super) fn look(&mut self, hardware: &mut dyn Hardware) {
        for reg in self.regs() {
            match self.table.registers.get(reg.index) {
                Some(r) if r.kind == Kind::ReadToClear => {
                    let bits = reg.read(hardware);
                    self.carry(reg.index, bits);
                }
                Some(r) if r.readable() && r.volatile != 0 => {
                    self.set_value(reg.index, reg.read(hardware));
                }
                _ => {}
            }
        }
    }

    /// The device is quiet and was looked at: from here on the context is the truth.
    pub(super) fn leave(&mut self) {
        for reg in self.regs() {
            if self.table.latched(reg.index) {
                // Still in the device: `take_latched` takes it.
                self.set_value(reg.index, 0);
            }
        }
        self.phase = Phase::Away;
    }

    /// Takes all latched statuses out of the device; whether they then read 0.
    pub(super) fn take_latched(&mut self, hardware: &mut dyn Hardware) -> bool {
        let mut clear = true;
        for reg in self.regs() {
            if !self.table.latched(reg.index) {
                continue;
            }
            let bits = reg.read(hardware);
            if bits == 0 {
                continue;
            }
            self.carry(reg.index, bits);
            if let Some(clearer) = self.table.clearer(reg.index) {
                clearer.write(hardware, bits);
            }
            let left = reg.read(hardware);
            // A read that clears has taken these too.
            self.carry(reg.index, left);
            clear &= left == 0;
        }
        clear
    }

    /// Writes the registers that the table restores.
    pub(super) fn write_registers(&self, hardware: &mut dyn Hardware) {
        for reg in self.regs() {
            if let Some(r) = self.table.registers.get(reg.index)
                && r.restored
            {
                write_value(self.table, reg, self.value(reg.index), hardware);
            }
        }
    }

    /// Puts latched statuses back into the device; what can't be put back stays carried.
    pub(super) fn put_back(&mut self, hardware: &mut dyn Hardware) {
        for reg in self.regs() {
            let bits = self.carried(reg.index);
            if bits == 0 {
                continue;
            }
            if let Some(setter) = self.table.setter(reg.index) {
                setter.write(hardware, bits);
                self.uncarry(reg.index, bits);
            } else if (self.table.registers.get(reg.index)).is_some_and(|r| r.regenerated) {
                self.uncarry(reg.index, bits);
            }
        }
    }
}

/// Clears every latched status in the device, whoever's it was; the first that doesn't clear.
pub(super) fn clear_latched(
    table: &Table,
    hardware: &mut dyn Hardware,
) -> Option<(&'static str, u64)> {
    for (index, register) in table.registers.iter().enumerate() {
        let Some(reg) = table.at(index).filter(|_| table.latched(index)) else {
            continue;
        };
        match table.clearer(index) {
            Some(clearer) => clearer.write(hardware, u64::MAX),
            // Clears by being read.
            None => _ = reg.read(hardware),
        }
        let left = reg.read(hardware);
        if left != 0 {
            return Some((register.name, left));
        }
    }
    None
}

/// Writes scrub values.
pub(super) fn scrub(table: &Table, hardware: &mut dyn Hardware) {
    for (index, register) in table.registers.iter().enumerate() {
        let value = match register.scrub {
            Scrub::Never => continue,
            Scrub::Reset => register.reset,
            Scrub::Value(value) => value,
        };
        if let Some(reg) = table.at(index) {
            write_value(table, reg, value, hardware);
        }
    }
}

/// Gives a register the value that it shall read as.
fn write_value(table: &Table, reg: Reg, value: u64, hardware: &mut dyn Hardware) {
    let Some(register) = table.registers.get(reg.index) else {
        return;
    };
    if register.trap == Trap::Shadow {
        return;
    }
    match register.kind {
        Kind::Inverted => reg.write(hardware, !value),
        Kind::ReadWrite => reg.write(hardware, value & register.writable),
        Kind::ReadOnly => {
            if let Some(clearer) = table.clearer(reg.index) {
                clearer.write(hardware, register.writable);
            }
            if let Some(setter) = table.setter(reg.index) {
                setter.write(hardware, value & register.writable);
            }
        }
        _ => {}
    }
}
