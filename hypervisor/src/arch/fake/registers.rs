//! System registers and barriers of the fake machine, under the names of the real ones.

use super::fake;
use super::processor::This;
use hypervisor::processor::{Dsb, Processor, signals};
use tock_registers::interfaces::{Readable, Writeable};

/// Reads a system register by name.
macro_rules! read {
    ($name:literal) => {
        crate::arch::fake::with(|state, this| state.read(this, $name))
    };
}

/// Writes a system register by name.
macro_rules! write {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        crate::arch::fake::with(|state, this| state.write(this, $name, value))
    }};
}

/// Address of a symbol of the image, which `fake/image.rs` has. What is Rust's elsewhere has a place there.
macro_rules! far_address {
    (POOL) => {{
        let _ = &POOL;
        crate::arch::fake::image::pool()
    }};
    ($symbol:path) => {
        (&raw const $symbol) as usize
    };
}

pub(crate) use {far_address, read, write};

/// A register that the real crate has by its name.
pub struct Named(&'static str);

impl Readable for Named {
    type T = u64;
    type R = ();

    fn get(&self) -> u64 {
        fake::with(|state, this| state.read(this, self.0))
    }
}

impl Writeable for Named {
    type T = u64;
    type R = ();

    fn set(&self, value: u64) {
        fake::with(|state, this| state.write(this, self.0, value));
    }
}

macro_rules! named {
    ($($name:ident = $text:literal),*) => {
        $(pub const $name: Named = Named($text);)*
    };
}
named!(
    CNTFRQ_EL0 = "cntfrq_el0",
    CNTPCT_EL0 = "cntpct_el0",
    ESR_EL2 = "esr_el2",
    FAR_EL2 = "far_el2",
    HPFAR_EL2 = "hpfar_el2",
    MPIDR_EL1 = "mpidr_el1",
    TPIDR_EL2 = "tpidr_el2"
);

/// See the real one.
pub fn isb() {
    This.isb();
}

/// See the real one.
pub fn dsb_sy() {
    This.dsb(Dsb::Sy);
}

/// See [`signals::sleep`].
pub fn wait_for_interrupt() {
    signals::sleep(&mut This);
}

/// The fake CPUs have no FEAT_RNG.
pub fn rndrrs() -> Option<u64> {
    unreachable!("RNDRRS is UNDEFINED")
}
