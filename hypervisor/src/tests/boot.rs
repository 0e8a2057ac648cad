//! From the boot loader to guests.

use super::boards::{self, A76, KERNEL_SIZE, MEMORY, first_word, kernel};
use crate::arch::fake::{self, Cpu, in_own_process};
use alloc::vec::Vec;
use hypervisor::devicetree::Tree;
use hypervisor::guest_tree::layout;
use hypervisor::vgic::Version;

/// A domain's memory, as its vCPU on this CPU sees it.
fn seen(cpu: Cpu, at: u64, bytes: usize) -> Vec<u8> {
    let words = (0..bytes.div_ceil(8) as u64).map(|word| cpu.guest_load(at + word * 8));
    let all = words.flat_map(|word| word.expect("RAM of the domain").to_le_bytes());
    all.take(bytes).collect()
}

fn two_domains_come_up(gic: Version) {
    let cpus = boards::two(gic, A76);
    let console = fake::console();
    for line in [
        "Baton 0.1.0 on 2 CPUs",
        "2 domains, 0 coprocs",
        "d1: starts (/chosen/domain@1)",
        "d2: starts (/chosen/domain@2)",
    ] {
        assert!(console.contains(line), "{line:?} isn't in\n{console}");
    }
    assert!(!console.contains("error"), "{console}");
    for (cpu, number) in cpus.into_iter().zip(1u64..) {
        assert!(cpu.is_in_guest(), "{console}");
        let guest = cpu.guest();
        // Documentation/arch/arm64/booting.rst: x0 has the tree, EL1h with everything masked.
        assert_eq!(
            (guest.elr, guest.spsr),
            (layout::RAM_BASE + 0x20_0000, 0x3c5)
        );
        assert_eq!(guest.x[0], layout::RAM_BASE);
        // Virtual time begins with the domain.
        let offset = cpu.register("cntvoff_el2");
        assert!((1_000_001..=fake::counter()).contains(&offset), "{offset}");
        assert_eq!(guest.x[1..], [0; 30]);
        assert_eq!(cpu.guest_load(guest.elr), Some(first_word(number)));
        assert_eq!(seen(cpu, guest.elr, KERNEL_SIZE), kernel(number));

        let size = cpu.guest_load(guest.x[0]).unwrap() >> 32;
        let size = u32::from_be(size as u32) as usize;
        let blob = seen(cpu, guest.x[0], size);
        let tree = Tree::new(&blob).unwrap();
        let chosen = tree.find("/chosen").unwrap();
        let bootargs = chosen.property("bootargs").unwrap();
        assert_eq!(bootargs.string().unwrap(), std::format!("number={number}"));
        // The rest is zeroes, whatever there was.
        let end = layout::RAM_BASE + MEMORY;
        for page in (guest.elr + 0x2_0000..end).step_by(4096) {
            assert_eq!(cpu.guest_load(page), Some(0), "{page:#x}");
        }
        assert_eq!(cpu.guest_load(end), None);
        assert_eq!(cpu.guest_load(layout::UART_BASE), None);
    }
    // One's memory isn't the other's.
    cpus[0].guest_store(layout::RAM_BASE, 7).unwrap();
    assert_ne!(cpus[1].guest_load(layout::RAM_BASE), Some(7));
}

#[test]
fn two_domains_come_up_on_a_gicv2() {
    in_own_process(|| two_domains_come_up(Version::V2));
}

#[test]
fn two_domains_come_up_on_a_gicv3() {
    in_own_process(|| two_domains_come_up(Version::V3));
}
