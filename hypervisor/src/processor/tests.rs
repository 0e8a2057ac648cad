//! DESIGN.md's hardware rules, each a test: kept, and by every step of its sequence ([`prove`]).

mod break_before_make;

use super::fake::{Fake, Guest, LINE, Model, Rule, Step, prove};
use super::vcpu::{MMU, Place, SWITCHED, Vcpu};
use super::*;
use crate::errata::Errata;
use crate::processor::controls::Newer;
use crate::speculation::{BranchPredictor, Workaround};
use crate::trap::controls::{GUEST, GUEST_DEBUG, GUEST_NO_FLOAT};
use alloc::string::String;
use alloc::vec::Vec;

const NOBODY: u64 = 0x0000_0000_4000_0000;
const VTCR: u64 = 0x8002_3558;
const MIDR: u64 = 0x410f_d034;

/// A guest whose registers are no other's.
fn guest(number: u64, mmu: bool) -> Guest {
    let mut guest = Guest::default();
    for (index, register) in (1..).zip(SWITCHED) {
        guest
            .0
            .insert(*register, number << 40 | index << 32 | 0xabc);
    }
    for (register, value) in [
        (Register::Vttbr, number << 48 | number << 20),
        (Register::Sctlr, 0x30d0_0800 | u64::from(mmu)),
        (Register::Tcr, number << 32 | 0x3510),
        (Register::Vmpidr, 1 << 31 | number),
        (Register::CntVoff, number * 1000),
        (Register::CntvCval, number * 77),
        (Register::CntvCtl, number),
    ] {
        guest.0.insert(register, value);
    }
    guest
}

fn place(guest: &Guest) -> Place {
    Place {
        vttbr: guest.0[&Register::Vttbr],
        timer_offset: guest.0[&Register::CntVoff],
    }
}

/// A CPU that runs the first guest, or has left it for nobody's tables.
fn running(guests: &[Guest], left: bool, speculates: bool) -> Model {
    let mut model = Model::default();
    model.registers.speculates = speculates;
    model.registers.guests = guests.to_vec();
    model.registers.nobody.insert(NOBODY);
    model.registers.set(Register::Hcr, GUEST.bits());
    for (register, value) in &guests[0].0 {
        model.registers.set(*register, *value);
    }
    if left {
        model.registers.set(Register::Vttbr, NOBODY);
    }
    model
}

/// What is kept of a guest that isn't in a CPU.
fn saved(guest: &Guest) -> Vcpu {
    let mut fake = Fake::new(running(core::slice::from_ref(guest), false, false));
    let affinity = guest.0[&Register::Vmpidr] & 0xff_ff;
    let mut vcpu = Vcpu::new(affinity);
    let mut others = 0;
    vcpu.save(&mut fake, |_| others += 1);
    assert_eq!(others, 1);
    assert_eq!(fake.model.registers.value(Register::CntvCtl), 0);
    vcpu
}

/// Pairs of guests: with and without their MMUs on.
fn pairs() -> impl Iterator<Item = [Guest; 2]> {
    [(false, false), (false, true), (true, false), (true, true)]
        .into_iter()
        .map(|(a, b)| [guest(1, a), guest(2, b)])
}

fn switches(speculates: bool) -> Vec<(Fake, [Guest; 2])> {
    let mut all = Vec::new();
    for guests in pairs() {
        for left in [false, true] {
            let mut fake = Fake::new(running(&guests, left, speculates));
            let vcpu = saved(&guests[1]);
            let mut others = 0;
            vcpu.load(&mut fake, place(&guests[1]), speculates, |fake| {
                // FP and the CPU interface: by then nothing of the first guest's is translated.
                others += 1;
                assert_eq!(
                    fake.model.registers.value(Register::Vttbr),
                    place(&guests[1]).vttbr
                );
            });
            assert_eq!(others, 1);
            all.push((fake, guests.clone()));
        }
    }
    all
}

/// [`prove`] of sequences that each have two guests of their own, by a rule about them.
fn prove_all(all: &[(Fake, [Guest; 2])], rule: impl Fn(&Model, &[Guest; 2]) -> Result<(), String>) {
    let rules: Vec<_> = all
        .iter()
        .map(|(_, guests)| |model: &Model| rule(model, guests))
        .collect();
    let sequences: Vec<(Fake, Rule<'_>)> = all
        .iter()
        .zip(&rules)
        .map(|((fake, _), rule)| (fake.clone(), rule as Rule<'_>))
        .collect();
    prove(&sequences);
}

fn prove_that_they_run(all: &[(Fake, [Guest; 2])], who: usize) {
    prove_all(all, |model, guests| model.runs(&guests[who]));
}

/// Cortex-A57 1319537, Cortex-A72 1319367, Cortex-A55 1530923, Cortex-A76 1165522: switching vCPUs.
#[test]
fn speculative_translations_never_mix_two_guests() {
    prove_that_they_run(&switches(true), 1);
}

/// The cheap path isn't enough for those cores, unless neither guest has its MMU on: so the tests above can see what the other one is for.
#[test]
fn what_suffices_for_healthy_cores_does_not_for_speculating_ones() {
    for guests in pairs() {
        let mut fake = Fake::new(running(&guests, false, true));
        saved(&guests[1]).load(&mut fake, place(&guests[1]), false, |_| ());
        let translated = guests
            .iter()
            .any(|guest| guest.0[&Register::Sctlr] & MMU != 0);
        assert_eq!(fake.model.runs(&guests[1]).is_err(), translated);
    }
}

/// EL2's register writes are paired with their barriers; nothing of one guest is left for another.
#[test]
fn a_vcpu_runs_with_all_its_registers_in_force() {
    let all = switches(false);
    prove_that_they_run(&all, 1);
    // One barrier at the end is all that it takes.
    let isb = |fake: &Fake| fake.steps.iter().filter(|step| **step == Step::Isb).count();
    assert_eq!(all.iter().map(|(fake, _)| isb(fake)).max(), Some(1));
}

/// Its interrupt's state is looked at next.
#[test]
fn a_vcpu_that_is_saved_leaves_its_timer_off() {
    let guests = [guest(1, true)];
    let mut fake = Fake::new(running(&guests, false, false));
    Vcpu::new(0).save(&mut fake, |_| ());
    prove(&[(fake, &|model| {
        model.settled()?;
        match model.registers.value(Register::CntvCtl) {
            0 => Ok(()),
            _ => Err("the timer is on".into()),
        }
    })]);
}

/// A CPU that runs nobody walks nobody's tables, whatever else its registers still say.
#[test]
fn a_cpu_that_is_left_walks_no_tables() {
    let guests = [guest(1, true)];
    let mut fake = Fake::new(running(&guests, false, true));
    stage2::leave(&mut fake, NOBODY);
    prove(&[(fake, &|model| {
        model.settled()?;
        match model.registers.only(Register::Vttbr) {
            Some(NOBODY) => Ok(()),
            other => Err(alloc::format!("VTTBR_EL2 {other:x?}")),
        }
    })]);
}

/// Unmaps pages of the second guest while a CPU runs the first, of the first, or nobody.
fn unmap(pages: core::ops::Range<u64>, speculates: bool) -> Vec<(Fake, [Guest; 2])> {
    let mut all = Vec::new();
    for guests in pairs() {
        for left in [false, true] {
            let vttbr = guests[1].0[&Register::Vttbr];
            let mut fake = Fake::new(running(&guests, left, speculates));
            fake.step(Step::Unmapped(pages.start, pages.end, vttbr));
            let range = pages.start * 4096..pages.end * 4096;
            stage2::invalidate(&mut fake, vttbr, range, speculates);
            let mut now = guests.clone();
            if left {
                now[0].0.insert(Register::Vttbr, NOBODY);
            }
            all.push((fake, now));
        }
    }
    all
}

fn prove_unmapped(all: &[(Fake, [Guest; 2])]) {
    prove_all(all, |model, guests| {
        model.unused().and_then(|()| model.runs(&guests[0]))
    });
}

/// Table write visible, TLBI IPAS2E1IS, DSB ISH, TLBI VMALLE1IS, DSB ISH, ISB; VTTBR_EL2 exchanged around it.
#[test]
fn what_is_unmapped_is_used_by_no_cpu() {
    prove_unmapped(&unmap(8..9, false));
    prove_unmapped(&unmap(8..11, false));
}

/// Many pages: TLBI VMALLS12E1IS. So is a domain's whole stage 2, before its VMID is another's.
#[test]
fn a_vmid_is_another_domains_only_when_nothing_is_left_of_it() {
    prove_unmapped(&unmap(8..8 + stage2::FEW + 1, false));
    let guests = [guest(1, true), guest(2, true)];
    let vttbr = guests[1].0[&Register::Vttbr];
    let mut fake = Fake::new(running(&guests, false, false));
    fake.step(Step::Unmapped(0, 3, vttbr));
    stage2::invalidate(&mut fake, vttbr, 0..u64::MAX, false);
    fake.model.unused().unwrap();
}

/// The same errata as above: another VMID under the running guest's registers.
#[test]
fn speculative_translations_never_mix_guests_while_one_is_unmapped() {
    prove_unmapped(&unmap(8..10, true));
    prove_unmapped(&unmap(8..8 + stage2::FEW + 1, true));
}

/// A CPU that runs the guest itself changes no VTTBR_EL2, and needs no care.
#[test]
fn the_running_guests_own_pages_are_unmapped_as_well() {
    for speculates in [false, true] {
        let guests = [guest(1, true)];
        let vttbr = guests[0].0[&Register::Vttbr];
        let mut fake = Fake::new(running(&guests, false, speculates));
        fake.step(Step::Unmapped(8, 10, vttbr));
        stage2::invalidate(&mut fake, vttbr, 8 * 4096..10 * 4096, speculates);
        let writes = |step: &Step| matches!(step, Step::Write(..));
        assert!(!fake.steps.iter().any(writes), "{:?}", fake.steps);
        prove(&[(fake, &|model| {
            model.unused().and_then(|()| model.runs(&guests[0]))
        })]);
    }
}

/// Pages that a range only touches are forgotten, too.
#[test]
fn parts_of_pages_are_whole_ones() {
    let guests = [guest(1, true)];
    let vttbr = guests[0].0[&Register::Vttbr];
    let mut fake = Fake::new(running(&guests, false, false));
    fake.step(Step::Unmapped(8, 10, vttbr));
    stage2::invalidate(&mut fake, vttbr, 8 * 4096 + 100..9 * 4096 + 1, false);
    fake.model.unused().unwrap();
}

/// Two vCPUs of a domain may use one ASID for two address spaces; and firmware that starts anew has another image.
#[test]
fn a_cpu_forgets_the_translations_and_instructions_of_a_domains_other_vcpu() {
    let guests = [guest(1, true)];
    let mut start = running(&guests, false, false);
    // Code that another CPU has stored and cleaned.
    start.step(Step::Stored(0x1000));
    start.step(Step::Dc(Dc::Clean, 0x1000));
    start.step(Step::Dsb(Dsb::Sy));
    start.step(Step::Shared(guests[0].0[&Register::Vttbr]));
    let mut fake = Fake::new(start);
    stage2::forget_guest(&mut fake);
    prove(&[(fake, &|model| {
        model.unused()?;
        model.executes(false)?;
        model.runs(&guests[0])
    })]);
}

/// Stores lines of EL2's, then does something about them.
fn stored(act: impl FnOnce(&mut Fake)) -> Fake {
    let mut fake = Fake::new(Model::default());
    for line in 0..4 {
        fake.step(Step::Stored(0x1000 + line * LINE));
    }
    act(&mut fake);
    fake
}

/// Images, device trees and scrubbed memory; save areas and the SMMU's structures.
#[test]
fn memory_that_el2_wrote_is_seen_with_caches_off() {
    // Neither end is a line's.
    let (start, bytes) = (0x1000 + 8, 3 * LINE);
    let operations: [fn(&mut Fake, usize, usize); 2] = [
        |c, s, b| caches::clean(c, s, b),
        |c, s, b| caches::flush(c, s, b),
    ];
    for operation in operations {
        let fake = stored(|fake| operation(fake, start, bytes));
        prove(&[(fake, &Model::in_memory)]);
    }
}

/// The same on a Cortex-A53, whose cleaning can't be trusted.
#[test]
fn a_line_is_forgotten_too_where_cleaning_alone_may_fail() {
    let cleaned = |errata, model| {
        let mut fake = Fake::new(model);
        fake.errata = errata;
        fake.step(Step::Stored(0x1000));
        caches::clean(&mut fake, 0x1000, LINE);
        fake
    };
    let broken = Errata::CACHE_CLEANING;
    let fake = cleaned(broken, Model::that_cleans_badly());
    prove(&[(fake, &Model::in_memory)]);
    let unaware = cleaned(Errata::empty(), Model::that_cleans_badly());
    assert!(unaware.model.in_memory().is_err());
    // Others keep the line.
    for errata in [Errata::empty(), Errata::all() - broken] {
        let healthy = cleaned(errata, Model::default());
        let operations = healthy.steps.iter().filter_map(|step| match step {
            Step::Dc(operation, _) => Some(*operation),
            _ => None,
        });
        assert!(operations.eq([Dc::Clean]), "{errata:?}");
    }
}

/// IOMMU tables, where the walk isn't coherent; a CPU's own walks are.
#[test]
fn tables_are_cleaned_unless_the_walk_is_coherent() {
    let fake = stored(|fake| caches::publish(fake, 0x1000, 4 * LINE, false));
    prove(&[(fake, &Model::in_memory)]);
    let mut fake = Fake::new(Model::default());
    caches::publish(&mut fake, 0x1000, 4 * LINE, true);
    assert_eq!(fake.steps, [Step::Dsb(Dsb::Ishst)]);
}

/// Commands for the SMMU, and its events.
#[test]
fn a_device_and_el2_see_each_others_memory() {
    let fake = stored(|fake| caches::publish_to_device(fake, 0x1000, 4 * LINE, false));
    prove(&[(fake, &Model::in_memory)]);
    let mut fake = Fake::new(Model::default());
    caches::publish_to_device(&mut fake, 0x1000, 4 * LINE, true);
    assert_eq!(fake.steps, [Step::Dsb(Dsb::Sy)]);
    for coherent in [false, true] {
        let mut fake = Fake::new(Model::default());
        for line in 0..4 {
            fake.step(Step::Written(0x1000 + line * LINE, coherent));
        }
        caches::observe_device(&mut fake, 0x1000 + 8, 3 * LINE, coherent);
        prove(&[(fake, &Model::observed)]);
    }
}

/// A domain starts, anew or in memory that was another's, on any CPU.
#[test]
fn code_that_was_loaded_is_executed_by_all_cpus() {
    let fake = stored(|fake| {
        caches::clean(fake, 0x1000, 4 * LINE);
        caches::forget_instructions(fake);
    });
    prove(&[(fake, &|model| model.executes(true))]);
}

/// FB, BSU, TSW, TSC, TIDCP and the others, stage 2 and the traps: on each CPU before its first guest. Whatever its TLB has after reset is forgotten.
#[test]
fn a_cpu_begins_with_its_controls_and_without_a_past() {
    let start = |speculates, mmu| {
        let mut model = Model::default();
        model.registers.speculates = speculates;
        model.registers.nobody.insert(NOBODY);
        // Reset leaves them unknown.
        model.registers.set(Register::Vttbr, 0xdead_0000);
        model.registers.set(Register::Sctlr, mmu);
        let unknown = [
            Register::Vtcr,
            Register::Cptr,
            Register::Mdcr,
            Register::Hstr,
            Register::Vpidr,
        ];
        for register in unknown.into_iter().chain(NEWER) {
            model.registers.set(register, 0xdead);
        }
        // What was learnt until now.
        model.step(Step::Isb);
        model
    };
    let mut expected = Guest::default();
    for (register, value) in [
        (Register::Vttbr, NOBODY),
        (Register::Vtcr, VTCR),
        (Register::Hcr, GUEST.bits()),
        (Register::Cptr, GUEST_NO_FLOAT),
        (Register::Mdcr, GUEST_DEBUG.bits() | 6),
        (Register::Hstr, 0),
        (Register::Vpidr, MIDR),
    ] {
        expected.0.insert(register, value);
    }
    // Older CPUs don't have those: there they aren't touched.
    for (has, value) in [(false, 0xdead), (true, 0)] {
        expected.0.extend(NEWER.map(|register| (register, value)));
        let rule: Rule<'_> = &|model| model.unused().and_then(|()| model.runs(&expected));
        let newer = Newer {
            extended: has,
            fine_grained: has,
        };
        let sequences: Vec<_> = [(true, 0), (true, MMU), (false, 0)]
            .into_iter()
            .map(|(speculates, mmu)| {
                let mut fake = Fake::new(start(speculates, mmu));
                controls::begin(&mut fake, VTCR, NOBODY, 6, MIDR, newer);
                (fake, rule)
            })
            .collect();
        prove(&sequences);
    }
}

/// What only newer CPUs have.
const NEWER: [Register; 6] = [
    Register::Hcrx,
    Register::Hfgrtr,
    Register::Hfgwtr,
    Register::Hfgitr,
    Register::Hdfgrtr,
    Register::Hdfgwtr,
];

#[test]
fn controls_of_newer_cpus_are_told_by_their_id_registers() {
    let none = Newer::default();
    assert_eq!(Newer::of(!(0xf << 56), !(0xf << 40)), none);
    let extended = Newer {
        extended: true,
        ..none
    };
    assert_eq!(Newer::of(0, 1 << 40), extended);
    let fine_grained = Newer {
        fine_grained: true,
        ..none
    };
    assert_eq!(Newer::of(2 << 56, 0), fine_grained);
}

/// HCR_EL2 of firmware cores: the same but for the interrupt that they have no controller for.
#[test]
fn firmware_runs_under_the_controls_of_a_domain() {
    for raised in [false, true] {
        let mut fake = Fake::new(Model::default());
        controls::set_virtual_interrupt(&mut fake, raised);
        let value = fake.model.registers.value(Register::Hcr);
        assert_eq!(value, GUEST.bits() | u64::from(raised) << 7);
    }
}

/// FP and SIMD registers are touched only when CPTR_EL2 lets them be.
#[test]
fn the_trap_on_floating_point_is_in_force_before_its_registers_are_touched() {
    for trapped in [false, true] {
        let mut start = Model::default();
        start
            .registers
            .set(Register::Cptr, u64::from(!trapped) << 10);
        let mut fake = Fake::new(start);
        controls::set_float_trapped(&mut fake, trapped);
        prove(&[(fake, &move |model: &Model| {
            model.settled()?;
            match model.registers.value(Register::Cptr) >> 10 & 1 == u64::from(trapped) {
                true => Ok(()),
                false => Err("CPTR_EL2.TFP".into()),
            }
        })]);
    }
}

/// Spectre variant 2: a CPU calls its firmware at exits where that was decided, and nowhere else.
#[test]
fn exits_call_the_firmware_only_where_it_is_wanted() {
    use BranchPredictor::{Exposed, Firmware, Immune, Off};
    for (predictor, expected) in [
        (Firmware(Workaround::BranchTarget), Vectors::Hardened),
        (Firmware(Workaround::BranchHistory), Vectors::Hardened),
        (Immune, Vectors::Plain),
        (Exposed, Vectors::Plain),
        (Off, Vectors::Plain),
    ] {
        let mut start = Model::default();
        start.step(Step::Vectors(match expected {
            Vectors::Plain => Vectors::Hardened,
            Vectors::Hardened => Vectors::Plain,
        }));
        start.step(Step::Isb);
        let mut fake = Fake::new(start);
        controls::protect_exits(&mut fake, predictor);
        prove(&[(
            fake,
            &move |model: &Model| match model.registers.vectors() == Some(expected) {
                true => Ok(()),
                false => Err(String::from("other vectors")),
            },
        )]);
    }
}

/// Kicks, sleeping, and CPUs that wait at their spin table.
#[test]
fn who_is_told_something_sees_what_it_is_about() {
    let told = |act: &dyn Fn(&mut Fake)| {
        let mut fake = Fake::new(Model::default());
        fake.step(Step::Left);
        act(&mut fake);
        prove(&[(fake, &Model::told)]);
    };
    told(&|fake| signals::send(fake, 0, 0));
    told(&|fake| signals::sleep(fake));
    told(&|fake| signals::wake(fake));
    told(&|fake| {
        signals::before(fake);
        // A GICv2's distributor is told by a store.
        fake.step(Step::Sgi(0));
        fake.step(Step::Isb);
    });
    // Each affinity is where ICC_SGI1R_EL1 has it (Arm IHI 0069, 12.2.20).
    let mut fake = Fake::new(Model::default());
    signals::send(&mut fake, 0x44_0033_2205, 7);
    assert_eq!(fake.steps[1], Step::Sgi(0x0044_0033_0722_0020));
}

/// ESR_EL2 of a data abort from EL1 with a syndrome: translation fault, permission fault.
const TRANSLATION: u64 = 0x24 << 26 | 1 << 25 | 1 << 24 | 0x07;
const PERMISSION: u64 = 0x24 << 26 | 1 << 25 | 1 << 24 | 0x0f;
const FAR: u64 = 0xffff_8000_1234_5000;
const HPFAR: u64 = 0x0009_0000;
const EL0: u64 = 0;
const EL1: u64 = 0b0101;

/// The address of a fault on a CPU whose stage 1 has these for EL0 and EL1 (PAR_EL1).
fn fault(errata: Errata, esr: u64, spsr: u64, translations: [u64; 2]) -> (Option<u64>, Fake) {
    let guests = [guest(1, true)];
    let mut start = running(&guests, false, false);
    start.registers.translations = translations;
    let mut fake = Fake::new(start);
    let address = faults::address(&mut fake, errata, (esr, FAR, HPFAR), spsr);
    (address, fake)
}

/// Cortex-A57 834220: a fault of stage 2 counts only where stage 1 has none.
#[test]
fn a_stage_2_fault_is_believed_only_where_stage_1_has_none() {
    const GOOD: u64 = 0x0900_0000 | 0xff << 56;
    const FAILED: u64 = 1 | 0x0f << 1;
    let broken = Errata::STAGE2_FAULT_ADDRESS;
    for (errata, esr, spsr, translations, expected) in [
        // Others say the truth, and nothing is asked.
        (
            Errata::empty(),
            TRANSLATION,
            EL0,
            [FAILED; 2],
            Some(0x0900_0000),
        ),
        (broken, TRANSLATION, EL1, [GOOD; 2], Some(0x0900_0000)),
        (broken, TRANSLATION, EL1, [FAILED; 2], None),
        // What EL1 may read, EL0 may not.
        (broken, TRANSLATION, EL0, [FAILED, GOOD], None),
        (broken, TRANSLATION, EL1, [FAILED, GOOD], Some(0x0900_0000)),
        // HPFAR_EL2 has nothing.
        (
            Errata::empty(),
            PERMISSION,
            EL1,
            [GOOD + 0x1000; 2],
            Some(0x0900_1000),
        ),
        (Errata::empty(), PERMISSION, EL1, [FAILED; 2], None),
    ] {
        let (address, fake) = fault(errata, esr, spsr, translations);
        assert_eq!(address, expected, "{errata:?} {esr:#x} {spsr:#x}");
        let asked = fake.steps.iter().any(|step| matches!(step, Step::At(..)));
        assert_eq!(asked, errata != Errata::empty() || esr == PERMISSION);
        // The guest may be between its own AT and its reading PAR_EL1.
        let guest = guest(1, true);
        assert_eq!(
            fake.model.registers.value(Register::Par),
            guest.0[&Register::Par]
        );
        if asked {
            let after = fake
                .steps
                .iter()
                .position(|step| matches!(step, Step::At(..)));
            let mut fake = fake;
            // Up to the return to the guest, which makes PAR_EL1 what was written.
            fake.step(Step::Isb);
            let last = fake.steps.len() - 1;
            assert!(after.is_some_and(|after| after < last));
            fake.model.runs(&guest).unwrap();
        }
    }
    // An aligned access that isn't at a page's beginning crosses none.
    assert!(faults::may_cross_pages(0x0900_0000));
    assert!((1..0x1000).all(|offset| !faults::may_cross_pages(0x0900_0000 + offset)));
}

/// AT's result is in PAR_EL1 only after an ISB; and the guest's PAR_EL1 is put back.
#[test]
fn a_translation_is_read_when_it_is_there() {
    let (_, mut fake) = fault(Errata::empty(), PERMISSION, EL1, [0x0900_0000; 2]);
    fake.step(Step::Isb);
    // The return to the guest isn't the sequence's.
    let steps = fake.steps.clone();
    let rule = |model: &Model| model.runs(&guest(1, true));
    rule(&fake.model).unwrap();
    for (index, step) in steps[..steps.len() - 1].iter().enumerate() {
        if !matches!(step, Step::Read(_) | Step::At(..)) {
            assert!(rule(&fake.without(index)).is_err(), "{step:x?}");
        }
    }
}
