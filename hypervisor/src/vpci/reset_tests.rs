//! Function level reset, on a function of plain registers that forgets what a reset takes.

use super::header::command;
use super::*;
use alloc::vec::Vec;
use coproc_core::address::HostPhysical;

const THERE: FunctionAddress = FunctionAddress {
    bus: 0,
    device: 3,
    function: 0,
};
const COMMAND: usize = 1;
const BAR0: usize = 4;
const CAPABILITIES: usize = 0x34 / 4;
const FIRST: usize = 0x40 / 4;

/// Configuration space with one capability of two or three registers at 0x40, then MSI-X at 0x60.
struct Function {
    registers: [u32; 64],
    /// The register and the bit of it that reset the function.
    reset: (usize, u32),
    resets: u32,
    written: Vec<(usize, u32)>,
}

impl Function {
    fn new(first: [u32; 3], reset: (usize, u32)) -> Self {
        let mut registers = [0; 64];
        registers[0] = 0x1111_1234;
        // Capabilities, and a status bit that a one would clear.
        registers[COMMAND] = (1 << 4 | 1 << 15) << 16;
        registers[CAPABILITIES] = 0x40;
        registers[FIRST..FIRST + 3].copy_from_slice(&first);
        registers[FIRST] |= 0x6000;
        registers[0x60 / 4] = 0x11 | 1 << 31;
        Self {
            registers,
            reset,
            resets: 0,
            written: Vec::new(),
        }
    }
}

impl ConfigAccess for Function {
    fn read32(&mut self, function: FunctionAddress, offset: u16) -> u32 {
        assert_eq!(function, THERE);
        self.registers[usize::from(offset / 4)]
    }

    fn write32(&mut self, _: FunctionAddress, offset: u16, value: u32) {
        let at = usize::from(offset / 4);
        self.written.push((at, value));
        if at == self.reset.0 && value & self.reset.1 != 0 {
            self.resets += 1;
            self.registers[COMMAND] &= 0xffff_0000;
            self.registers[BAR0..BAR0 + 6].fill(0);
            return;
        }
        if at == COMMAND {
            let status = self.registers[COMMAND] & !value & 0xffff_0000;
            self.registers[COMMAND] = status | value & 0xffff;
        } else {
            self.registers[at] = value;
        }
    }
}

const EXPRESS: [u32; 3] = [0x10, 1 << 28, 0x000f_2810];
const ADVANCED: [u32; 3] = [0x13 | 3 << 24, 0, 0];

#[test]
fn a_function_is_reset_by_either_capability() {
    let mut function = Function::new(EXPRESS, (FIRST + 2, 1 << 15));
    assert!(start_reset(&mut function, THERE));
    assert_eq!(function.resets, 1);
    // What a one clears in Device Status is left, and so is the rest of Device Control.
    assert_eq!(function.written, [(FIRST + 2, 0xa810)]);
    let mut function = Function::new(ADVANCED, (FIRST + 1, 1));
    assert!(start_reset(&mut function, THERE));
    assert_eq!(function.written, [(FIRST + 1, 1)]);
    for incapable in [[0x10, 0, 0], [0x13 | 1 << 24, 0, 0], [0x01, u32::MAX, 0]] {
        let mut function = Function::new(incapable, (0, 0));
        assert!(!start_reset(&mut function, THERE));
        assert_eq!(function.written, []);
    }
}

#[test]
fn after_a_reset_it_is_where_it_was_and_quiet() {
    let mut function = Function::new(EXPRESS, (FIRST + 2, 1 << 15));
    let mut bars = [None; BARS];
    bars[0] = Some(Bar {
        size: 0x1000,
        wide: false,
        prefetchable: false,
    });
    bars[2] = Some(Bar {
        size: 0x4000,
        wide: true,
        prefetchable: true,
    });
    let description = FunctionDescription {
        bars,
        ..FunctionDescription::host_bridge()
    };
    let placed = |bus, size| {
        Some(BarPlacement {
            address: HostPhysical::new(bus),
            bus,
            size,
        })
    };
    let mut placements = [None; BARS];
    placements[0] = placed(0x1000_0000, 0x1000);
    placements[2] = placed(0x80_0000_4000, 0x4000);
    function.registers[COMMAND] |= u32::from(command::BUS_MASTER | command::MEMORY_SPACE);
    assert!(start_reset(&mut function, THERE));
    function.written.clear();
    restore(&mut function, THERE, &description, &placements);
    let bars = &function.registers[BAR0..BAR0 + 6];
    assert_eq!(bars, [0x1000_0000, 0, 0x4000, 0x80, 0, 0]);
    let quiet = command::MEMORY_SPACE | command::INTERRUPT_DISABLE;
    assert_eq!(function.registers[COMMAND] as u16, quiet);
    assert_eq!(function.registers[0x60 / 4] >> 31, 0, "MSI-X is off");
    assert_ne!(
        function.registers[COMMAND] >> 31,
        0,
        "no status bit was cleared"
    );
    // It decodes only when all BARs have their addresses.
    let decodes = |value: u32| value & u32::from(command::MEMORY_SPACE) != 0;
    let last = function.written.last().unwrap();
    assert!(last.0 == COMMAND && decodes(last.1));
    let before = function
        .written
        .iter()
        .filter(|(at, value)| *at == COMMAND && decodes(*value));
    assert_eq!(before.count(), 1);
}
