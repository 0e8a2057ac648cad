//! Arm's PrimeCell GPIO (PL061; Arm DDI 0190), shared: `arm,pl061`.
//!
//! A device that a machine's tree describes, on a machine that everybody has (QEMU `virt`), and without DMA; so it shows, on
//! a small scale, what the coprocessors of real boards are. Sharing pins in time is for pins whose owner changes with the program: while a
//! domain is away, its pins are inputs.
//!
//! What is peculiar to it:
//! - The data register's address says which bits are meant.
//! - The raw status shows levels as they are and edges until they are cleared. Levels are computed anew, in the device or in the context. Edges can't be
//!   put back, so a context that comes back with one that nobody has cleared keeps it ([`Register::held`]).
//! - A pin that changes its direction looks to the edge detector as if it had changed, so what a restore leaves there is cleared
//!   before interrupts are enabled.
//! - Inputs are the board's, not the domain's: while away they read as they were last seen, and what happens on them then is nobody's. So a
//!   domain that only waits for an input, and touches nothing, waits for good.

#[cfg(any(test, feature = "model"))]
pub mod model;
#[cfg(test)]
mod tests;

use coproc_core::driver::{Description, Hardware, Match, Step, Window, WorstCase};
use coproc_core::register::Width::{Byte, Word};
use coproc_core::table::{
    Context, Device, Hole, Identity, Interrupt, Narrow, Poll, Reg, Register, Rules, Table,
    TableDriver,
};
use coproc_core::time::Duration;

/// Offsets of the registers (Arm DDI 0190, 3.2); eight bits each.
pub mod offset {
    /// GPIODATA, all bits: what outputs drive and inputs see. At each word below, the bits that address bits \[9:2\] have set.
    pub const DATA: u64 = 0x3fc;
    /// GPIODIR: 1 is an output.
    pub const DIRECTION: u64 = 0x400;
    /// GPIOIS: 1 is sensitive to a level, 0 to an edge.
    pub const SENSE: u64 = 0x404;
    /// GPIOIBE: to both edges.
    pub const BOTH: u64 = 0x408;
    /// GPIOIEV: 1 is a rising edge or a high level.
    pub const EVENT: u64 = 0x40c;
    /// GPIOIE: which raw status bits assert the interrupt.
    pub const ENABLE: u64 = 0x410;
    /// GPIORIS: raw status.
    pub const RAW: u64 = 0x414;
    /// GPIOMIS: raw status that is enabled.
    pub const MASKED: u64 = 0x418;
    /// GPIOIC: a 1 forgets an edge. Reads 0.
    pub const CLEAR: u64 = 0x41c;
    /// GPIOAFSEL: 1 gives the pin to the hardware behind it.
    pub const FUNCTION: u64 = 0x420;
    /// GPIOPeriphID0, first of four.
    pub const PERIPHERAL: u64 = 0xfe0;
    /// GPIOPCellID0, first of four.
    pub const CELL: u64 = 0xff0;
}

const PINS: u64 = 0xff;

/// An eight-bit register, which takes bytes as well as words.
const fn plain(name: &'static str, offset: u64) -> Register {
    Register::read_write(name, offset, Word)
        .narrow(Narrow::ZeroExtended)
        .writable(PINS)
}

const fn constant(name: &'static str, offset: u64, value: u64) -> Register {
    Register::constant(name, offset, Word, value).narrow(Narrow::ZeroExtended)
}

const fn status(name: &'static str, offset: u64) -> Register {
    Register::status(name, offset, Word)
        .narrow(Narrow::ZeroExtended)
        .volatile(PINS)
}

const TABLE: &Table = &Table {
    description: Description {
        name: "arm,pl061",
        matches: &[Match::Compatible("arm,pl061")],
        windows: &[Window {
            name: "registers",
            index: 0,
            size: 0x1000,
            direct: true,
        }],
        interrupts: 1,
        streams: 0,
        own_iommu: false,
        save_area: 0,
        worst_case: WorstCase {
            refusal: Duration::from_micros(20),
            stop: Duration::from_micros(50),
            save: Duration::from_micros(50),
            restore: Duration::from_micros(50),
        },
        refusal_bound: Duration::from_millis(1),
        slice: Duration::from_millis(5),
    },
    rules: &[Rules {
        window: 0,
        narrowest: Byte,
        widest: Word,
        hole: Hole::Zero,
    }],
    identity: &[
        Identity {
            what: "PL061: GPIOPeriphID0",
            window: 0,
            offset: offset::PERIPHERAL,
            mask: PINS,
            value: 0x61,
        },
        Identity {
            what: "PL061: GPIOPeriphID1",
            window: 0,
            offset: offset::PERIPHERAL + 4,
            mask: PINS,
            value: 0x10,
        },
    ],
    registers: &[
        // Before the data: an input takes none.
        plain("direction", offset::DIRECTION),
        plain("data", offset::DATA)
            .narrow(Narrow::Addressed(0))
            .volatile(PINS),
        plain("function", offset::FUNCTION),
        plain("both edges", offset::BOTH),
        plain("event", offset::EVENT),
        plain("sense", offset::SENSE),
        // Aliased bits that can't be set.
        status("raw status", offset::RAW).held(),
        status("masked status", offset::MASKED),
        Register::clear_of("clear", offset::CLEAR, Word, offset::RAW)
            .narrow(Narrow::ZeroExtended)
            .reads(0),
        // By `start`: a restore is silent.
        plain("enable", offset::ENABLE).not_restored(),
        constant("peripheral id 0", offset::PERIPHERAL, 0x61),
        constant("peripheral id 1", offset::PERIPHERAL + 4, 0x10),
        constant("peripheral id 2", offset::PERIPHERAL + 8, 0x04),
        constant("peripheral id 3", offset::PERIPHERAL + 12, 0x00),
        constant("cell id 0", offset::CELL, 0x0d),
        constant("cell id 1", offset::CELL + 4, 0xf0),
        constant("cell id 2", offset::CELL + 8, 0x05),
        constant("cell id 3", offset::CELL + 12, 0xb1),
    ],
    interrupts: &[Interrupt {
        window: 0,
        status: offset::RAW,
        enable: Some(offset::ENABLE),
    }],
    poll: Poll {
        first: Duration::from_micros(20),
        last: Duration::from_millis(1),
    },
};

const DATA: Reg = TABLE.reg(0, offset::DATA);
const DIRECTION: Reg = TABLE.reg(0, offset::DIRECTION);
const SENSE: Reg = TABLE.reg(0, offset::SENSE);
const EVENT: Reg = TABLE.reg(0, offset::EVENT);
const BOTH: Reg = TABLE.reg(0, offset::BOTH);
const ENABLE: Reg = TABLE.reg(0, offset::ENABLE);
const RAW: Reg = TABLE.reg(0, offset::RAW);
const MASKED: Reg = TABLE.reg(0, offset::MASKED);
const CLEAR: Reg = TABLE.reg(0, offset::CLEAR);

/// The driver, for one device.
pub type Pl061 = TableDriver<Pl061Device>;

/// What is the device's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pl061Device;

/// What no register of a context shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pins {
    /// Levels of the pins that were inputs when last seen, on the board.
    inputs: u64,
    /// The data register as it was, for the edges of pins that become inputs.
    data: u64,
}

/// Brings what the device would compute up to date in a context.
fn compute(context: &mut Context<Pins>) {
    let (direction, sense) = (context.saved(DIRECTION), context.saved(SENSE));
    let event = context.saved(EVENT);
    let driven = context.saved(DATA) & direction;
    let data = driven | (context.own.inputs & !direction & PINS);
    context.set(DATA, data);
    let changed = (context.own.data ^ data) & !direction & !sense;
    context.own.data = data;
    let edges = changed & (context.saved(BOTH) | !(data ^ event)) & PINS;
    context.lower(RAW, sense);
    context.raise(RAW, edges);
    let levels = !(data ^ event) & sense & PINS;
    context.set(RAW, levels);
    let status = (levels | context.held(RAW)) & context.saved(ENABLE);
    context.set(MASKED, status);
}

impl Device for Pl061Device {
    const TABLE: &'static Table = TABLE;
    type Own = Pins;

    fn looked(&mut self, context: &mut Context<Pins>) {
        let direction = context.saved(DIRECTION);
        let seen = context.saved(DATA) & !direction;
        context.own.inputs = seen | (context.own.inputs & direction);
        context.own.data = context.saved(DATA);
    }

    fn wrote(&mut self, context: &mut Context<Pins>, reg: Reg, _: u64) {
        compute(context);
        // The pins have it only when the device has.
        if reg != CLEAR {
            context.want();
        }
    }

    fn forwarded(&mut self, context: &mut Context<Pins>, reg: Reg, value: u64) {
        // The device's masked status knows nothing of edges that are held.
        let enabled = match reg {
            ENABLE => value,
            CLEAR => context.held(MASKED),
            SENSE => {
                context.lower(RAW, value);
                context.held(MASKED)
            }
            _ => return,
        };
        context.lower(MASKED, PINS);
        context.raise(MASKED, context.held(RAW) & enabled);
    }

    /// Levels can't be cleared: the device is told to see edges only, which can.
    fn settle(&mut self, context: &mut Context<Pins>, hardware: &mut dyn Hardware) -> Step {
        ENABLE.write(hardware, 0);
        SENSE.write(hardware, 0);
        let levels = context.saved(SENSE);
        CLEAR.write(hardware, levels);
        context.lower(RAW, levels);
        context.lower(MASKED, PINS);
        compute(context);
        Step::Done
    }

    fn scrub(&mut self, _: &mut Context<Pins>, hardware: &mut dyn Hardware) -> Step {
        // As long as they are outputs.
        DATA.write(hardware, 0);
        Step::Done
    }

    fn start(&mut self, context: &mut Context<Pins>, hardware: &mut dyn Hardware) {
        CLEAR.write(hardware, PINS);
        let enabled = context.saved(ENABLE);
        ENABLE.write(hardware, enabled);
        context.raise(MASKED, context.held(RAW) & enabled);
    }

    /// It does nothing that would have to be stopped.
    fn abort(&mut self, _: &mut dyn Hardware) -> Step {
        Step::Done
    }

    /// The scrub that follows is all of it.
    fn reset(&mut self, hardware: &mut dyn Hardware) -> Step {
        ENABLE.write(hardware, 0);
        DATA.write(hardware, 0);
        SENSE.write(hardware, 0);
        Step::Done
    }
}
