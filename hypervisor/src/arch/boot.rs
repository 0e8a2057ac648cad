//! From the first Rust instruction to `main`: the vectors, the device tree, the other CPUs.

use super::processor::This;
use super::registers::isb;
use super::{cpu, heap, memory, mmu};
use coproc_core::address::HostPhysical;
use core::cell::UnsafeCell;
use hypervisor::processor::{Processor, Vectors, caches};

/// What a CPU that starts later needs; the boot code reads it with the MMU off.
#[repr(C, align(64))]
struct SecondaryBoot {
    /// The affinity of the CPU that it is for, and bit 63: 0 as long as the rest isn't there.
    key: u64,
    tables: u64,
    stack: u64,
    index: u64,
}

// The boot code knows both.
const _: () = assert!(cpu::MAX_CPUS == 8 && size_of::<SecondaryBoot>() == 64);

struct SecondaryBoots(UnsafeCell<[SecondaryBoot; cpu::MAX_CPUS]>);
// SAFETY: each entry is written by the boot CPU before it starts the CPU that reads it.
unsafe impl Sync for SecondaryBoots {}

#[unsafe(export_name = "baton_secondaries")]
static SECONDARIES: SecondaryBoots = SecondaryBoots(UnsafeCell::new(
    [const {
        SecondaryBoot {
            key: 0,
            tables: 0,
            stack: 0,
            index: 0,
        }
    }; cpu::MAX_CPUS],
));

unsafe extern "C" {
    fn secondary_entry();
}

fn adopt(index: usize) {
    This.vectors(Vectors::Plain);
    cpu::adopt(index);
    isb(); // vectors in force
}

/// The boot code comes here with translation on, on the first stack.
#[unsafe(no_mangle)]
pub(super) extern "C" fn baton_start(tree: u64, image: u64) -> ! {
    adopt(0);
    heap::start();
    let image = HostPhysical::new(image);
    let tree = HostPhysical::new(tree);
    mmu::map_tree_early(image, tree);
    // The header says how long the tree is: big-endian word 1. A bad one is refused by the facade.
    let size = memory::shared(tree, 8)
        .and_then(|header| header.get(4..8)?.try_into().ok())
        .map_or(0, u32::from_be_bytes);
    crate::system::start::boot(tree, u64::from(size.min(2 << 20)), image)
}

/// The same for CPUs started later, each on its own stack.
#[unsafe(no_mangle)]
pub(super) extern "C" fn baton_start_secondary(index: u64) -> ! {
    adopt(index as usize);
    crate::system::start::secondary(index as usize)
}

/// Where the CPU with this affinity shall start, to become CPU `index`; its boot data is in memory when this returns.
pub fn prepare_secondary(index: usize, affinity: u64) -> Option<HostPhysical> {
    let (root, image) = mmu::root()?;
    if index >= cpu::MAX_CPUS {
        return None;
    }
    // SAFETY: `index` is in range. No CPU reads more of the entry than its key before the key is there.
    let entry = unsafe { SECONDARIES.0.get().cast::<SecondaryBoot>().add(index) };
    // SAFETY: as above, and the boot CPU alone writes entries.
    unsafe {
        entry.write(SecondaryBoot {
            key: 0,
            tables: root.get(),
            stack: cpu::stack_top(index, false) as u64,
            index: index as u64,
        });
    }
    clean(entry);
    // SAFETY: as above.
    unsafe { (&raw mut (*entry).key).write_volatile(affinity | 1 << 63) };
    clean(entry);
    Some(mmu::physical(image, secondary_entry as *const () as usize))
}

/// Memory, not only caches, must hold what a CPU reads whose MMU is off.
fn clean(entry: *mut SecondaryBoot) {
    caches::clean(&mut This, entry as usize, size_of::<SecondaryBoot>());
}
