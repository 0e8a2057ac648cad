//! Register by register, then as Linux's driver brings the GIC up.

use super::*;
use coproc_core::register::Width::{self, Byte, Double, Half, Word};
use proptest::prelude::*;

const SGI: u64 = 0x1_0000;

fn write(vgic: &mut Vgic, offset: u64, width: Width, value: u64) {
    let _ = vgic.distributor_write(0, offset, width, value);
}

#[test]
fn identification() {
    let mut vgic = Vgic::new(3, 96);
    assert_eq!(vgic.distributor_read(0, 0, Word), 0x50);
    let typer = vgic.distributor_read(0, 4, Word);
    assert_eq!(typer & 0x1f, 3);
    assert_eq!(typer >> 19 & 0x1f, 9);
    assert_eq!(
        typer & (1 << 10 | 1 << 16 | 1 << 17),
        0,
        "no security, MBIS, LPIs"
    );
    assert_eq!(vgic.distributor_read(0, 0xffe8, Word) & 0xf0, 0x30);
    assert_eq!(vgic.redistributor_read(2, 0xffe8, Word) & 0xf0, 0x30);
    assert_eq!(vgic.distributor_read(0, 8, Word) & 0xfff, 0x43b);
    for (vcpu, last) in [(0, 0), (1, 0), (2, 1)] {
        let typer = vgic.redistributor_read(vcpu, 8, Double);
        assert_eq!(typer, (vcpu as u64) << 32 | (vcpu as u64) << 8 | last << 4);
        assert_eq!(vgic.redistributor_read(vcpu, 8, Word), typer & 0xffff_ffff);
        assert_eq!(vgic.redistributor_read(vcpu, 12, Word), typer >> 32);
    }
    assert_eq!(vgic.redistributor_read(3, 8, Double), 0);
}

#[test]
fn control_keeps_only_the_enables() {
    let mut vgic = Vgic::new(1, 32);
    write(&mut vgic, 0, Word, 0xffff_ffff);
    assert_eq!(vgic.distributor_read(0, 0, Word), 0x53);
    write(&mut vgic, 0, Word, 0x12);
    assert_eq!(vgic.distributor_read(0, 0, Word), 0x52);
}

#[test]
fn waker_handshake() {
    let mut vgic = Vgic::new(1, 32);
    assert_eq!(vgic.redistributor_read(0, 0x14, Word), 6);
    let _ = vgic.redistributor_write(0, 0x14, Word, 0);
    assert_eq!(vgic.redistributor_read(0, 0x14, Word), 0);
    let _ = vgic.redistributor_write(0, 0x14, Word, 2);
    assert_eq!(vgic.redistributor_read(0, 0x14, Word), 6);
}

#[test]
fn set_and_clear_pairs() {
    for (set, clear) in [(0x100, 0x180), (0x200, 0x280), (0x300, 0x380)] {
        let mut vgic = Vgic::new(2, 64);
        write(&mut vgic, set + 8, Word, 0xf0f0);
        write(&mut vgic, set + 8, Word, 0x1);
        write(&mut vgic, clear + 8, Word, 0xf000);
        for register in [set, clear] {
            assert_eq!(vgic.distributor_read(0, register + 8, Word), 0xf1);
            assert_eq!(vgic.distributor_read(0, register + 4, Word), 0);
        }
        // Word 0 is banked: not in the distributor, per vCPU in the redistributor.
        write(&mut vgic, set, Word, 0xffff_ffff);
        assert_eq!(vgic.distributor_read(0, set, Word), 0);
        let _ = vgic.redistributor_write(1, SGI + set, Word, 0x8001_0000);
        assert_eq!(vgic.redistributor_read(1, SGI + clear, Word), 0x8001_0000);
        assert_eq!(vgic.redistributor_read(0, SGI + set, Word), 0);
        // Words beyond those implemented.
        write(&mut vgic, set + 12, Word, 0xffff_ffff);
        assert_eq!(vgic.distributor_read(0, set + 12, Word), 0);
        assert_eq!(vgic.redistributor_read(1, SGI + set + 4, Word), 0);
    }
}

#[test]
fn group_is_stored_and_modifier_is_not() {
    let mut vgic = Vgic::new(1, 32);
    write(&mut vgic, 0x84, Word, 0x1234_5678);
    write(&mut vgic, 0xd04, Word, 0x1234_5678);
    assert_eq!(vgic.distributor_read(0, 0x84, Word), 0x1234_5678);
    assert_eq!(vgic.distributor_read(0, 0xd04, Word), 0);
}

#[test]
fn priorities_by_byte_and_word() {
    let mut vgic = Vgic::new(1, 32);
    write(&mut vgic, 0x424, Word, 0xff80_a0c7);
    assert_eq!(vgic.distributor_read(0, 0x424, Word), 0xf880_a0c0);
    write(&mut vgic, 0x426, Byte, 0x08);
    assert_eq!(vgic.distributor_read(0, 0x426, Byte), 0x08);
    assert_eq!(vgic.distributor_read(0, 0x424, Word), 0xf808_a0c0);
    // Neither a half word, nor SGIs here, nor beyond the last.
    write(&mut vgic, 0x424, Half, 0);
    write(&mut vgic, 0x404, Word, 0xffff_ffff);
    write(&mut vgic, 0x440, Word, 0xffff_ffff);
    assert_eq!(vgic.distributor_read(0, 0x424, Word), 0xf808_a0c0);
    assert_eq!(vgic.distributor_read(0, 0x404, Word), 0);
    assert_eq!(vgic.distributor_read(0, 0x440, Word), 0);
    let _ = vgic.redistributor_write(0, SGI + 0x41c, Word, 0xa0a0_a0a0);
    assert_eq!(vgic.redistributor_read(0, SGI + 0x41f, Byte), 0xa0);
    assert_eq!(vgic.redistributor_read(0, SGI + 0x420, Word), 0);
}

#[test]
fn configuration() {
    let mut vgic = Vgic::new(1, 64);
    write(&mut vgic, 0xc0c, Word, 0xffff_ffff);
    write(&mut vgic, 0xc10, Word, 0x8000_0002);
    assert_eq!(vgic.distributor_read(0, 0xc08, Word), 0);
    assert_eq!(vgic.distributor_read(0, 0xc0c, Word), 0xaaaa_aaaa);
    assert_eq!(vgic.distributor_read(0, 0xc10, Word), 0x8000_0002);
    // SGIs are edge-triggered and stay so; PPIs can change.
    let _ = vgic.redistributor_write(0, SGI + 0xc00, Word, 0);
    let _ = vgic.redistributor_write(0, SGI + 0xc04, Word, 8);
    assert_eq!(vgic.redistributor_read(0, SGI + 0xc00, Word), 0xaaaa_aaaa);
    assert_eq!(vgic.redistributor_read(0, SGI + 0xc04, Word), 8);
}

#[test]
fn routes_whole_and_by_halves() {
    let mut vgic = Vgic::new(2, 32);
    write(&mut vgic, 0x6108, Double, u64::MAX);
    assert_eq!(vgic.distributor_read(0, 0x6108, Double), 0xff_00ff_ffff);
    write(&mut vgic, 0x6108, Word, 1);
    assert_eq!(vgic.distributor_read(0, 0x6108, Double), 0xff_0000_0001);
    assert_eq!(vgic.distributor_read(0, 0x610c, Word), 0xff);
    write(&mut vgic, 0x101 + 3, Word, 2);
    assert_eq!(vgic.distributor_write(0, 0x204, Word, 2), Kicks::NONE);
    write(&mut vgic, 0, Word, 1);
    // Nobody has the affinity 255.0.0.1; vCPU 1 has 0.0.0.1.
    assert!(!vgic.needs_sync(1));
    assert_eq!(vgic.distributor_write(0, 0x610c, Word, 0), Kicks::one(1));
    assert_eq!(vgic.distributor_write(0, 0x6108, Double, 0), Kicks::one(0));
    assert!(!vgic.needs_sync(1));
    // SGIs and PPIs have none, nor has what isn't implemented.
    for offset in [0x6000, 0x60f8, 0x6200, 0x7fd8, 0x7ff8] {
        write(&mut vgic, offset, Double, 1);
        assert_eq!(vgic.distributor_read(0, offset, Double), 0);
    }
}

#[test]
fn wrong_widths_and_alignment() {
    let mut vgic = Vgic::new(1, 32);
    write(&mut vgic, 0x104, Word, 0xffff_ffff);
    for (offset, width) in [
        (0x104, Byte),
        (0x104, Half),
        (0x105, Word),
        (0x100, Double),
        (0x6102, Word),
        (0x6104, Double),
        (0x4, Double),
        (0x1_0104, Word),
    ] {
        write(&mut vgic, offset + 0x80, width, u64::MAX);
        assert_eq!(vgic.distributor_read(0, offset, width), 0, "{offset:#x}");
    }
    assert_eq!(vgic.distributor_read(0, 0x104, Word), 0xffff_ffff);
}

#[test]
fn linux_brings_it_up() {
    let mut vgic = Vgic::new(2, 64);
    // gic_dist_init: off, wait for RWP, group 1, level, priorities, clear, on, routes.
    write(&mut vgic, 0, Word, 0);
    assert_eq!(vgic.distributor_read(0, 0, Word) >> 31, 0);
    for n in 1..3 {
        write(&mut vgic, 0x80 + 4 * n, Word, 0xffff_ffff);
        write(&mut vgic, 0x380 + 4 * n, Word, 0xffff_ffff);
        write(&mut vgic, 0x180 + 4 * n, Word, 0xffff_ffff);
    }
    for n in 2..6 {
        write(&mut vgic, 0xc00 + 4 * n, Word, 0);
    }
    for n in 8..24 {
        write(&mut vgic, 0x400 + 4 * n, Word, 0xa0a0_a0a0);
    }
    write(&mut vgic, 0, Word, 0x13);
    assert_eq!(vgic.distributor_read(0, 0, Word) & 0x13, 0x13);
    for intid in 32..96 {
        write(&mut vgic, 0x6000 + 8 * intid, Double, 0);
    }
    for vcpu in 0..2 {
        // gic_enable_redist, gic_cpu_init.
        let _ = vgic.redistributor_write(vcpu, 0x14, Word, 0);
        assert_eq!(vgic.redistributor_read(vcpu, 0x14, Word) & 4, 0);
        let _ = vgic.redistributor_write(vcpu, SGI + 0x80, Word, 0xffff_ffff);
        let _ = vgic.redistributor_write(vcpu, SGI + 0x380, Word, 0xffff_ffff);
        let _ = vgic.redistributor_write(vcpu, SGI + 0x180, Word, 0xffff_ffff);
        for n in 0..8 {
            let _ = vgic.redistributor_write(vcpu, SGI + 0x400 + 4 * n, Word, 0xa0a0_a0a0);
        }
        assert_eq!(vgic.redistributor_read(vcpu, 0, Word) & (1 << 3), 0, "RWP");
        let _ = vgic.redistributor_write(vcpu, SGI + 0x100, Word, 0xff | 1 << 27);
    }
    write(&mut vgic, 0x104, Word, 2);
    // An SGI, the timer and the UART's SPI arrive, as virtual IRQs of the usual priority.
    assert_eq!(vgic.sgi1r_write(1, 1), Kicks::one(0));
    assert_eq!(vgic.hardware_interrupt(0, 27, 27), Kicks::one(0));
    assert_eq!(vgic.set_line(Line::Spi(33), true), Kicks::one(0));
    let mut lists = ListRegisters::new(4);
    assert_eq!(vgic.deliver(0, &mut lists), Maintenance::default());
    let seen: Vec<_> = lists
        .entries()
        .map(|e| (e.intid(), e.priority(), e.group1(), e.pending()))
        .collect();
    assert_eq!(seen, [0, 27, 33].map(|intid| (intid, 0xa0, true, true)));
}

proptest! {
    #[test]
    fn no_access_panics(accesses in proptest::collection::vec(
        (any::<bool>(), 0usize..10, prop_oneof![0u64..0x1000, 0x6000u64..0x8000, 0u64..0x2_1000,
            0x1_0000u64..0x1_1000, any::<u64>()], 0..4u8, any::<u64>()), 0..200))
    {
        let mut vgic = Vgic::new(3, 64);
        let mut lists = ListRegisters::new(4);
        for (distributor, vcpu, offset, width, value) in accesses {
            let width = [Byte, Half, Word, Double][usize::from(width)];
            let read = if distributor {
                let _ = vgic.distributor_write(vcpu, offset, width, value);
                vgic.distributor_read(vcpu, offset, width)
            } else {
                let _ = vgic.redistributor_write(vcpu, offset, width, value);
                vgic.redistributor_read(vcpu, offset, width)
            };
            prop_assert_eq!(read & !width.mask(), 0);
            let _ = vgic.collect(vcpu, &mut lists, &mut |_| true);
            let _ = vgic.deliver(vcpu, &mut lists);
        }
    }
}
