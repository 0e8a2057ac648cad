//! The EL2 program on a machine that is not there (`arch/fake`): what it does of itself, and what guests can make it do.

mod boards;
mod boot;
mod calls;
#[cfg(feature = "fw-core")]
mod cores;
mod definition;
mod devices;
mod exits;
mod hostile;
mod interrupts;
mod neighbours;
mod rules;
#[cfg(feature = "sharing")]
mod sharing;

use crate::system::domain::Domain;
use crate::system::places::Places;

impl core::ops::Index<usize> for Places {
    type Output = Domain;

    fn index(&self, position: usize) -> &Domain {
        self.get(position).expect("a domain")
    }
}
