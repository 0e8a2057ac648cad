//! Both ends of a UART's wire, for the drivers' tests: the driver on this one, whoever types and reads on the other.

use super::Uart;
use alloc::vec::Vec;
use proptest::prelude::*;

/// A model of a device, from its other end.
pub trait Model {
    /// Bytes in each FIFO.
    const FIFO: usize;
    /// A byte arrives; returns whether it had room.
    fn type_in(&mut self, byte: u8) -> bool;
    /// A byte leaves, if one waits.
    fn shift_out(&mut self);
    /// Bytes that wait to leave.
    fn waiting(&self) -> usize;
    /// Those that left.
    fn sent(&self) -> &[u8];
    /// The interrupt line.
    fn asserted(&self) -> bool;
}

/// A driver on a model.
pub trait Wired: Uart {
    /// The model.
    type Model: Model;
    /// It.
    fn model(&mut self) -> &mut Self::Model;
}

/// Whatever comes when, nothing is lost that had room, doubled or out of order, and a byte that waits asserts the line. Each step is one of four, and a byte.
pub fn bytes_pass_in_order<U: Wired>(
    uart: &mut U,
    steps: &[(u8, u8)],
) -> Result<(), TestCaseError> {
    uart.listen();
    let (mut typed, mut taken, mut given) = (Vec::new(), Vec::new(), Vec::new());
    for (step, byte) in steps {
        match step {
            0 => {
                let room = uart.model().type_in(*byte);
                typed.extend(room.then_some(*byte));
                prop_assert!(uart.model().asserted());
            }
            1 => {
                uart.acknowledge();
                taken.extend(uart.receive());
            }
            2 => {
                let room = uart.model().waiting() < U::Model::FIFO;
                prop_assert_eq!(uart.try_send(*byte), room);
                given.extend(room.then_some(*byte));
            }
            _ => uart.model().shift_out(),
        }
    }
    while let Some(byte) = uart.receive() {
        taken.push(byte);
    }
    while uart.model().waiting() != 0 {
        uart.model().shift_out();
    }
    prop_assert_eq!(typed, taken);
    prop_assert_eq!(&given, uart.model().sent());
    Ok(())
}
