//! What a device says about its registers.
//!
//! Everything here is `const`: a driver's table is built by the compiler, costs nothing at start-up, and is checked
//! before there is a program that could run with it. The builders ([`Register::read_write`] and so on) set what is usual for a
//! kind; a table then names only what is unusual.

use crate::driver::{Description, Hardware};
use crate::register::{Access, Width};
use crate::time::Duration;

/// A driver's data.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// The constant facts.
    pub description: Description,
    /// How each window takes accesses: one entry for each window of the description.
    pub rules: &'static [Rules],
    /// What must be read in which register for the device to be accepted.
    pub identity: &'static [Identity],
    /// The registers. Their order is the order in which they are looked at, restored and scrubbed; so a status register stands before the interrupt
    /// status that its end raises, and an "enable" after what it enables.
    pub registers: &'static [Register],
    /// What each interrupt means: as many as the description has.
    pub interrupts: &'static [Interrupt],
    /// How often to ask a device that refuses.
    pub poll: Poll,
}

/// First and last wait between two questions whether the device is quiet; doubled between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Poll {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub last: Duration,
}

/// How a window takes accesses, by their shape alone. Misaligned ones and those outside the window are bus errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// [`Window::index`](crate::driver::Window::index).
    pub window: usize,
    /// Narrower accesses are bus errors.
    pub narrowest: Width,
    /// Wider accesses are bus errors.
    pub widest: Width,
    /// What an access gets that meets no register, or not in a width that it takes.
    pub hole: Hole,
}

/// What an access to nothing gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hole {
    /// Reads all-ones, writes nothing.
    Ones,
    /// Reads zero, writes nothing.
    Zero,
    /// A bus error.
    Fault,
}

/// What tells that it is the right device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// What it is called in messages.
    pub what: &'static str,
    /// Window of the register.
    pub window: usize,
    /// Offset of the register.
    pub offset: u64,
    /// Bits that are looked at.
    pub mask: u64,
    /// What they must be.
    pub value: u64,
}

/// What an interrupt means: it is pending while `status & enable` isn't 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// Window of both registers.
    pub window: usize,
    /// Offset of the status register.
    pub status: u64,
    /// Offset of the register that enables status bits; `None` if all count.
    pub enable: Option<u64>,
}

/// What a register is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Holds what was written, in its [`Register::writable`] bits.
    ReadWrite,
    /// Reads as the inverse of what was written.
    Inverted,
    /// Isn't changed by writes. With [`Kind::Set`] and [`Kind::Clear`] aliases: a register that is changed through these only.
    ReadOnly,
    /// Status bits that the device sets; a 1 written clears one.
    WriteOneToClear,
    /// Status bits that the device sets; a read clears them all. Must be always trapped: the driver's own looking takes the bits too.
    ReadToClear,
    /// A 1 written sets this bit in the register at the offset.
    Set(u64),
    /// A 1 written clears this bit in the register at the offset.
    Clear(u64),
    /// A write starts work.
    Doorbell(Doorbell),
    /// Reads or writes do something that can be neither saved nor told from a value (a FIFO's port). Never touched by the driver.
    SideEffect,
}

/// A write that starts work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Doorbell {
    /// Only a write with one of these bits starts; others are ignored. 0: every write does.
    pub starts: u64,
    /// Offset of the register, and the bits in it, that read as set while the work goes on.
    pub busy: Option<(u64, u64)>,
    /// How many the device takes at once. With 1, a write while busy finds it full.
    pub depth: u8,
    /// What a write gets when it is full.
    pub full: Full,
    /// Offsets of registers in the same window whose writes are ignored while it is busy: the work's parameters.
    pub locks: &'static [u64],
}

impl Doorbell {
    /// Every write starts; one at a time, more are ignored.
    pub const ANY: Self = Self {
        starts: 0,
        busy: None,
        depth: 1,
        full: Full::Ignore,
        locks: &[],
    };
}

/// What a doorbell does with one more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// The device ignores it.
    Ignore,
    /// The vCPU waits until the vcoproc is current, and the device decides.
    Park,
}

/// What an access gets while the vcoproc isn't current.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Away {
    /// The shadow answers and takes writes.
    Shadow,
    /// The shadow answers reads; writes are queued and replayed, and make the vcoproc willing.
    Queue,
    /// The vCPU waits until the vcoproc is current.
    Park,
    /// A bus error.
    Fault,
}

/// Whether accesses of the *current* vcoproc are trapped. All but [`Trap::Never`] need a window that isn't direct.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trap {
    /// The domain may reach it directly.
    Never,
    /// Always trapped; judged, then passed on to the device.
    Forward,
    /// Always trapped and answered by the shadow: the domain's writes never reach the device (registers of the device's own IOMMU).
    Shadow,
    /// Always trapped, a bus error.
    Fault,
}

/// What reads return.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reads {
    /// Its value; of an alias, the value of the register that it belongs to.
    Value,
    /// Always this: a write-only register.
    Fixed(u64),
}

/// What an access narrower than the register does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Narrow {
    /// It meets no register ([`Rules::hole`]).
    Refused,
    /// At the register's own offset: reads its low bits; writes all of it, zero-extended.
    ZeroExtended,
    /// Anywhere in the register: reads and writes that part.
    Merged,
    /// The register is at every word from this offset up to its own, and the number of the word says which bits an access reads and writes, of
    /// whatever width it is (the data register of Arm's PrimeCell GPIO). At its own offset, where the driver uses it, these are all.
    Addressed(u64),
}

/// What is left in the register after a context was taken out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scrub {
    /// [`Register::reset`].
    Reset,
    /// This value.
    Value(u64),
    /// It isn't written.
    Never,
}

/// One register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Register {
    /// What it is called in messages.
    pub name: &'static str,
    /// [`Window::index`](crate::driver::Window::index) of its window.
    pub window: usize,
    /// Offset in bytes.
    pub offset: u64,
    /// Its width.
    pub width: Width,
    /// What narrower accesses do.
    pub narrow: Narrow,
    /// What it is.
    pub kind: Kind,
    /// What a non-current access gets.
    pub away: Away,
    /// Whether a current access is trapped.
    pub trap: Trap,
    /// What reads return.
    pub reads: Reads,
    /// Bits that a domain can change, by itself or through aliases.
    pub writable: u64,
    /// Bits that the device changes by itself.
    pub volatile: u64,
    /// Whether the table restores it: written (or, changed by aliases only, cleared and set) when the context goes in.
    pub restored: bool,
    /// A latched status that the restored device raises again by itself.
    pub regenerated: bool,
    /// A latched status that can't be put back: while the context has bits of it, direct windows aren't mapped.
    pub held: bool,
    /// Value in a new context.
    pub reset: u64,
    /// What a scrub leaves.
    pub scrub: Scrub,
    /// The first offset where it is met, and for how many bytes: of [`Narrow::Addressed`] more than its own.
    pub(super) first: u64,
    span: u64,
}

impl Register {
    const fn new(name: &'static str, offset: u64, width: Width, kind: Kind) -> Self {
        Self {
            name,
            window: 0,
            offset,
            width,
            narrow: Narrow::Refused,
            kind,
            away: Away::Shadow,
            trap: Trap::Never,
            reads: Reads::Value,
            writable: width.mask(),
            volatile: 0,
            restored: false,
            regenerated: false,
            held: false,
            reset: 0,
            scrub: Scrub::Never,
            first: offset,
            span: width.bytes(),
        }
    }

    /// A register that holds what was written: restored, and scrubbed to its reset value.
    pub const fn read_write(name: &'static str, offset: u64, width: Width) -> Self {
        let mut register = Self::new(name, offset, width, Kind::ReadWrite);
        register.restored = true;
        register.scrub = Scrub::Reset;
        register
    }

    /// As [`Register::read_write`], but reads as the inverse. Reset and scrub values are as it reads.
    pub const fn inverted(name: &'static str, offset: u64, width: Width) -> Self {
        let mut register = Self::read_write(name, offset, width);
        register.kind = Kind::Inverted;
        register
    }

    /// A constant.
    pub const fn constant(name: &'static str, offset: u64, width: Width, value: u64) -> Self {
        Self::new(name, offset, width, Kind::ReadOnly).reset(value)
    }

    /// A status that the device changes by itself.
    pub const fn status(name: &'static str, offset: u64, width: Width) -> Self {
        Self::new(name, offset, width, Kind::ReadOnly).volatile(width.mask())
    }

    /// A register that is changed through its aliases only: restored by clearing all and setting what was set.
    pub const fn aliased(name: &'static str, offset: u64, width: Width) -> Self {
        let mut register = Self::new(name, offset, width, Kind::ReadOnly);
        register.restored = true;
        register.scrub = Scrub::Reset;
        register
    }

    /// Status bits that a 1 clears.
    pub const fn write_one_to_clear(name: &'static str, offset: u64, width: Width) -> Self {
        Self::new(name, offset, width, Kind::WriteOneToClear).volatile(width.mask())
    }

    /// Status bits that a read clears, always trapped.
    pub const fn read_to_clear(name: &'static str, offset: u64, width: Width) -> Self {
        Self::new(name, offset, width, Kind::ReadToClear)
            .volatile(width.mask())
            .trap(Trap::Forward)
    }

    /// Sets bits of the register at `of`.
    pub const fn set_of(name: &'static str, offset: u64, width: Width, of: u64) -> Self {
        Self::new(name, offset, width, Kind::Set(of))
    }

    /// Clears bits of the register at `of`.
    pub const fn clear_of(name: &'static str, offset: u64, width: Width, of: u64) -> Self {
        Self::new(name, offset, width, Kind::Clear(of))
    }

    /// Starts work; its writes are queued while away.
    pub const fn doorbell(name: &'static str, offset: u64, width: Width, bell: Doorbell) -> Self {
        Self::new(name, offset, width, Kind::Doorbell(bell)).away(Away::Queue)
    }

    /// A port with side effects: while away, the vCPU waits.
    pub const fn side_effect(name: &'static str, offset: u64, width: Width) -> Self {
        Self::new(name, offset, width, Kind::SideEffect).away(Away::Park)
    }

    /// Puts it into another window than 0.
    #[must_use]
    pub const fn window(mut self, index: usize) -> Self {
        self.window = index;
        self
    }

    /// Says what narrower accesses do.
    #[must_use]
    pub const fn narrow(mut self, narrow: Narrow) -> Self {
        self.narrow = narrow;
        self.first = match narrow {
            Narrow::Addressed(from) => from,
            _ => self.offset,
        };
        // One that begins behind its end is refused by the check.
        self.span = self
            .offset
            .wrapping_add(self.width.bytes())
            .wrapping_sub(self.first);
        self
    }

    /// Says what a non-current access gets.
    #[must_use]
    pub const fn away(mut self, away: Away) -> Self {
        self.away = away;
        self
    }

    /// Says what a current access gets.
    #[must_use]
    pub const fn trap(mut self, trap: Trap) -> Self {
        self.trap = trap;
        self
    }

    /// Reads always return `value`.
    #[must_use]
    pub const fn reads(mut self, value: u64) -> Self {
        self.reads = Reads::Fixed(value);
        self
    }

    /// Only these bits can be changed by the domain.
    #[must_use]
    pub const fn writable(mut self, bits: u64) -> Self {
        self.writable = bits;
        self
    }

    /// The device changes these bits by itself.
    #[must_use]
    pub const fn volatile(mut self, bits: u64) -> Self {
        self.volatile = bits;
        self
    }

    /// The table doesn't restore it: [`Device::restore`](super::Device::restore) does, or nothing can.
    #[must_use]
    pub const fn not_restored(mut self) -> Self {
        self.restored = false;
        self
    }

    /// The restored device raises these status bits again by itself.
    #[must_use]
    pub const fn regenerated(mut self) -> Self {
        self.regenerated = true;
        self
    }

    /// These status bits can't be put back into the device. The context keeps those that a switch found, and shows them together with the
    /// device's until the domain has acknowledged them; so long its accesses are trapped, in a direct window too.
    #[must_use]
    pub const fn held(mut self) -> Self {
        self.held = true;
        self
    }

    /// Its value in a new context.
    #[must_use]
    pub const fn reset(mut self, value: u64) -> Self {
        self.reset = value;
        self
    }

    /// What a scrub leaves.
    #[must_use]
    pub const fn scrub(mut self, scrub: Scrub) -> Self {
        self.scrub = scrub;
        self
    }

    /// Whether the driver may read it without changing anything, and finds its value.
    pub(super) const fn readable(&self) -> bool {
        matches!(
            self.kind,
            Kind::ReadWrite
                | Kind::Inverted
                | Kind::ReadOnly
                | Kind::WriteOneToClear
                | Kind::Doorbell(_)
        ) && matches!(self.reads, Reads::Value)
            && !matches!(self.trap, Trap::Shadow)
    }
}

/// A register of a table, for a driver's own functions. Made by [`Table::reg`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reg {
    pub(super) index: usize,
    pub(super) window: usize,
    pub(super) offset: u64,
    pub(super) width: Width,
}

impl Reg {
    /// Reads the device's register.
    #[inline]
    pub fn read(self, hardware: &mut dyn Hardware) -> u64 {
        hardware.read(self.window, self.offset, self.width) & self.width.mask()
    }

    /// Writes the device's register.
    #[inline]
    pub fn write(self, hardware: &mut dyn Hardware, value: u64) {
        hardware.write(
            self.window,
            self.offset,
            self.width,
            value & self.width.mask(),
        );
    }

    /// Offset in its window.
    pub const fn offset(self) -> u64 {
        self.offset
    }
}

/// What an access meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Met {
    /// A bus error.
    Fault,
    /// Nothing: reads this.
    Hole(u64),
    /// A register, or a part of it.
    Register(Part),
}

/// The part of a register that an access is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) index: usize,
    /// How far up in the register, in bits; below 64.
    shift: u32,
    /// The access's bits, in the register.
    pub(super) mask: u64,
    width: Width,
}

impl Part {
    /// Takes the access's bits out of a register's value.
    pub(super) fn extract(self, value: u64) -> u64 {
        (value & self.mask).wrapping_shr(self.shift) & self.width.mask()
    }

    /// Puts a written value where it is in the register; the rest is 0.
    pub(super) fn place(self, value: u64) -> u64 {
        (value & self.width.mask()).wrapping_shl(self.shift) & self.mask
    }
}

impl Table {
    pub(super) fn at(&self, index: usize) -> Option<Reg> {
        self.registers.get(index).map(|register| Reg {
            index,
            window: register.window,
            offset: register.offset,
            width: register.width,
        })
    }

    /// Which register starts at this offset.
    #[inline]
    pub(super) fn find(&self, window: usize, offset: u64) -> Option<usize> {
        self.registers
            .iter()
            .position(|r| r.window == window && r.offset == offset)
    }

    /// Which register clears bits of that one: itself, or an alias.
    pub(super) fn clearer(&self, index: usize) -> Option<Reg> {
        let register = self.registers.get(index)?;
        match register.kind {
            Kind::WriteOneToClear => self.at(index),
            _ => self.alias(register, Kind::Clear(register.offset)),
        }
    }

    /// Which register sets bits of that one.
    #[inline]
    pub(super) fn setter(&self, index: usize) -> Option<Reg> {
        let register = self.registers.get(index)?;
        self.alias(register, Kind::Set(register.offset))
    }

    fn alias(&self, register: &Register, kind: Kind) -> Option<Reg> {
        let same = |r: &Register| r.window == register.window && r.kind == kind;
        self.at(self.registers.iter().position(same)?)
    }

    /// Whether it is a latched status: see the module's text.
    pub(super) fn latched(&self, index: usize) -> bool {
        self.registers.get(index).is_some_and(|r| match r.kind {
            Kind::WriteOneToClear | Kind::ReadToClear => true,
            Kind::ReadOnly => r.volatile != 0 && self.clearer(index).is_some(),
            _ => false,
        })
    }

    /// What an access meets, by its shape and place.
    pub(super) fn decode(&self, access: &Access) -> Met {
        let (offset, width) = (access.offset, access.width);
        let bytes = width.bytes();
        let Some(rules) = self.rules.iter().find(|r| r.window == access.window) else {
            return Met::Fault;
        };
        let mut windows = self.description.windows.iter();
        let size = windows
            .find(|w| w.index == access.window)
            .map_or(0, |w| w.size);
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= size);
        if width < rules.narrowest
            || width > rules.widest
            || offset & bytes.wrapping_sub(1) != 0
            || !inside
        {
            return Met::Fault;
        }
        let part = self.registers.iter().enumerate().find_map(|(index, r)| {
            if r.window != access.window || width > r.width {
                return None;
            }
            let into = offset.checked_sub(r.first).filter(|&into| into < r.span)?;
            let takes = match r.narrow {
                Narrow::Refused => width == r.width && into == 0,
                Narrow::ZeroExtended => into == 0,
                Narrow::Merged => true,
                Narrow::Addressed(_) => {
                    let word = into.checked_div(r.width.bytes())?;
                    return (word.wrapping_mul(r.width.bytes()) == into).then_some(Part {
                        index,
                        shift: 0,
                        mask: word & r.width.mask() & width.mask(),
                        width,
                    });
                }
            };
            // Below 8 bytes, so below 64 bits.
            let shift = u32::try_from(into).ok()?.wrapping_mul(8);
            takes.then_some(Part {
                index,
                shift,
                mask: width.mask().wrapping_shl(shift) & r.width.mask(),
                width,
            })
        });
        match (part, rules.hole) {
            (Some(part), _) => Met::Register(part),
            (None, Hole::Ones) => Met::Hole(width.mask()),
            (None, Hole::Zero) => Met::Hole(0),
            (None, Hole::Fault) => Met::Fault,
        }
    }
}
