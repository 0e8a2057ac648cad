//! Random numbers for domains: what they ask for, and what their device trees bring.

use crate::arch::exits::Registers;
use crate::arch::{entropy as hardware, memory};
use coproc_core::address::HostPhysical;
use entropy::Source;
use entropy::seeds::{Pool, Seeds};
use entropy::trng;
use hypervisor::config::machine;
use hypervisor::devicetree::Tree;
use spin::Mutex;

static POOL: Mutex<Pool> = Mutex::new(Pool::new());

/// Takes the seed of the machine's tree, which is in `blob`, at this address. Returns where it is: to be wiped when nobody reads the
/// tree any more ([`wipe`]), or who could read it later would know every domain's.
#[inline(never)]
pub fn begin(tree: &Tree<'_>, blob: &[u8], at: HostPhysical) -> (HostPhysical, u64) {
    let secret = machine::seed(tree);
    POOL.lock().begin(secret);
    let offset = secret.as_ptr().addr().wrapping_sub(blob.as_ptr().addr());
    (at.wrapping_add(offset as u64), secret.len() as u64)
}

/// Wipes what [`begin`] found.
pub fn wipe((place, bytes): (HostPhysical, u64)) {
    memory::zero(place, bytes);
}

/// Seeds for a domain that starts, its own; none if the machine has no entropy.
pub fn seeds() -> Option<Seeds> {
    let mut source = hardware::source();
    let source = source.as_mut().map(|source| source as &mut dyn Source);
    POOL.lock().draw(source)
}

/// Answers a call of the TRNG firmware interface. Returns whether it was one that is there.
#[inline(never)]
pub fn call(registers: &mut Registers) -> bool {
    let (Some(mut source), Some((arguments, _))) =
        (hardware::source(), registers.x.split_first_chunk_mut())
    else {
        return false;
    };
    match trng::answer(*arguments, &mut source) {
        Some(answer) => *arguments = answer,
        None => return false,
    }
    true
}
