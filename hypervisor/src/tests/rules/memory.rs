//! Caches, TLBs, and EL2's own translation.

use super::boards::{self, A53, A76, MEMORY, RAM, Wanted, first_word};
use super::*;
use crate::arch::fake::devices::SEND;
use crate::arch::fake::{image, own_translation};
use crate::arch::mmu::{DEVICE_BASE, DIRECT_BASE};
use hypervisor::processor::fake::LINE;

/// Where EL2 sees a page of a domain's RAM.
fn in_el2(domain: usize, offset: u64) -> usize {
    let system = system::get().unwrap();
    let memory = system.domains[domain].memory.read();
    assert_eq!(memory.len(), 1, "in one piece");
    DIRECT_BASE + (memory[0].start.get() + offset) as usize
}

/// Lines of a domain's kernel: its first and its last; and besides of its tree, and of what is only scrubbed.
fn lines(domain: usize) -> [usize; 4] {
    let kernel = 0x20_0000;
    [0, kernel, kernel + 0x1_2340, MEMORY - LINE as u64].map(|offset| {
        let line = in_el2(domain, offset);
        assert_eq!(line % LINE, 0);
        line
    })
}

/// Whoever starts finds all that was written for it, with its caches off, and no CPU executes what it fetched before.
fn loaded(trace: &[Event], domain: usize) -> Verdict {
    loaded_by(Model::default(), trace, domain)
}

/// The same by a CPU of which more is known.
fn loaded_by(start: Model, trace: &[Event], domain: usize) -> Verdict {
    let lines = lines(domain);
    for line in lines {
        let stored = |event: &Event| matches!(event, Event::Stored { address, bytes } if *address <= line && line < address + bytes);
        if !trace.iter().any(stored) {
            return Err(alloc::format!("{line:#x} wasn't written"));
        }
    }
    from(start.clone(), trace, &lines).in_memory()?;
    from(start, trace, &lines[1..3]).executes(true)
}

#[test]
fn caches_are_maintained_before_a_domain_starts() {
    in_own_process(|| {
        let cpus = boards::two(Version::V2, A76);
        let trace = cpus[0].trace(0);
        let first = until(&trace, |event| matches!(event, Event::Enter(..)));
        holds(first, |trace| loaded(trace, 0), &[is_ic, is_dc, is_dsb]);
        let first = until(&trace, |event| matches!(event, Event::Store(SEND, _)));
        holds(first, |trace| loaded(trace, 1), &[is_ic, is_dc, is_dsb]);
    });
}

/// Cortex-A53: a line that is cleaned may be left in a cache, unless it is invalidated as well.
#[test]
fn caches_that_clean_badly_are_maintained_before_a_domain_starts() {
    in_own_process(|| {
        let trace = boards::two(Version::V2, A53)[0].trace(0);
        let first = until(&trace, |event| matches!(event, Event::Enter(..)));
        let loaded = |trace: &[Event]| loaded_by(Model::that_cleans_badly(), trace, 0);
        holds(first, loaded, &[is_ic, is_dc, is_dsb]);
    });
}

/// What it wrote in its first life is gone, whichever CPU sees to that, and so is what CPUs know of it.
#[test]
fn caches_and_tlbs_are_maintained_before_a_domain_starts_again() {
    in_own_process(|| {
        let [cpu, other] = boards::two(Version::V2, A76);
        let (entry, page) = (cpu.guest().elr, layout::RAM_BASE + 0x38_0000);
        cpu.guest_store(entry, 1).unwrap();
        cpu.guest_store(page, 1).unwrap();
        let (from, others) = (cpu.events(), other.events());
        exits::smccc(cpu, [0x8400_0009, 0, 0, 0]); // SYSTEM_RESET
        fake::pass(Duration::from_secs(2));
        let console = fake::console();
        assert!(console.contains("d1: restarted"), "{console}");
        assert_eq!(cpu.guest_load(entry), Some(first_word(1)));
        assert_eq!(cpu.guest_load(page), Some(0));
        assert_eq!(cpu.guest().elr, entry);
        assert!(other.is_in_guest());
        // Whichever of the CPUs did it: the steps come by its timer.
        let is_last = |event: &Event| *event == Event::Step(Step::Tlbi(Tlbi::VmallS12E1Is));
        let traces = [cpu.trace(from), other.trace(others)];
        let mut did = traces.iter().filter(|trace| trace.iter().any(is_last));
        let trace = did.next().unwrap();
        assert!(did.next().is_none());
        let last = trace.iter().rposition(is_last).unwrap();
        let told = |event: &Event| matches!(event, Event::Enter(..) | Event::Store(SEND, _));
        let end = last + trace[last..].iter().position(told).unwrap();
        let trace = &trace[..end];
        holds(trace, |trace| loaded(trace, 0), &[is_ic, is_dc, is_dsb]);
        holds(
            trace,
            |trace| match at_end(trace, &[]).unused() {
                Ok(()) if trace.iter().any(is_tlbi) => Ok(()),
                Ok(()) => Err("nothing was forgotten".to_string()),
                Err(broken) => Err(broken),
            },
            &[is_tlbi, is_dsb],
        );
    });
}

/// The machine looks at each entry to a guest whether its TLB has what the tables say (`check_tlb`): a VMID may come back with other memory.
#[test]
fn a_domain_that_is_gone_leaves_nothing_in_tlbs() {
    in_own_process(|| {
        let [cpu, other] = boards::two(Version::V2, A76);
        let pages = (layout::RAM_BASE..layout::RAM_BASE + MEMORY).step_by(0x8_0000);
        let touch = |cpu: Cpu| {
            for page in pages.clone() {
                assert!(cpu.guest_load(page).is_some());
            }
        };
        touch(cpu);
        touch(other);
        let before = in_el2(0, 0);
        let vttbr = cpu.register("vttbr_el2");
        assert_ne!(cpu.remembers(vttbr), 0);
        let operate = |domain: usize, operation| {
            other.run(move || {
                let system = system::get().unwrap();
                assert!(lifecycle::request(&system.domains[domain], operation).is_ok());
            });
            fake::pass(Duration::from_secs(2));
        };
        operate(0, Operation::Destroy);
        assert!(
            fake::console().contains("d1: destroyed"),
            "{}",
            fake::console()
        );
        assert!(!cpu.is_in_guest());
        // Before its memory, its tables and its VMID are anybody else's.
        assert_eq!([cpu, other].map(|cpu| cpu.remembers(vttbr)), [0; 2]);
        // Somebody else has its memory when it comes back.
        let taken = system::FRAMES.lock().allocate(MEMORY, MEMORY).unwrap();
        operate(0, Operation::Create);
        assert!(cpu.is_in_guest(), "{}", fake::console());
        touch(cpu);
        assert!(taken.start.get() as usize + DIRECT_BASE == before || in_el2(0, 0) != before);
        assert_eq!(cpu.guest_load(cpu.guest().elr), Some(first_word(1)));
    });
}

/// By the CPU that runs the domain, and by another one.
#[test]
fn what_is_unmapped_is_forgotten_by_all_cpus() {
    in_own_process(|| {
        let cpus = boards::two(Version::V2, A76);
        let page = layout::RAM_BASE + 0x30_0000;
        for (number, by) in [(0, cpus[0]), (1, cpus[0])] {
            let cpu = cpus[number];
            assert_eq!(cpu.guest_load(page), Some(0));
            // Else the block that it is in is split by this, which is another rule.
            let unmap = move |at: u64| {
                let domain = &system::get().unwrap().domains[number];
                domain.stage2.lock().unmap(at, 0x1000).unwrap();
            };
            let from = by.events();
            by.run(move || unmap(page));
            assert_eq!(cpu.guest_load(page), None);
            assert_eq!(cpu.guest_load(page + 0x1000), Some(0));
            let vttbr = cpu.register("vttbr_el2");
            let trace = by.trace(from);
            let rule = |trace: &[Event]| {
                let mut model = Model::default();
                model
                    .registers
                    .set(Register::Vttbr, by.register("vttbr_el2"));
                model.step(Step::Unmapped(page >> 12, (page >> 12) + 1, vttbr));
                for step in fake::steps(trace, &[]) {
                    model.step(step);
                }
                model.unused()
            };
            holds(&trace, rule, &[is_tlbi, is_dsb, is_isb]);
        }
    });
}

/// Two vCPUs of a domain may use one ASID for two address spaces.
#[test]
fn a_cpu_forgets_the_translations_of_a_domains_other_vcpu() {
    in_own_process(|| {
        boards::start(Wanted {
            midr: &[A76],
            domains: &[&[0, 0]],
            ..Wanted::default()
        });
        let cpu = Cpu(0);
        let entry = layout::RAM_BASE + 0x30_0000;
        assert_eq!(
            exits::smccc(cpu, [0xc400_0003, 1, entry, 77]).unwrap()[0],
            0
        );
        let vttbr = cpu.register("vttbr_el2");
        let from = cpu.events();
        exits::wait(cpu);
        assert_eq!((cpu.guest().elr, cpu.guest().x[0]), (entry, 77));
        let rule = |trace: &[Event]| {
            let mut model = Model::default();
            model.registers.set(Register::Vttbr, vttbr);
            model.step(Step::Shared(vttbr));
            for step in fake::steps(trace, &[]) {
                model.step(step);
            }
            model.unused()
        };
        holds(&cpu.trace(from), rule, &[is_tlbi, is_dsb, is_isb]);
    });
}

/// `arch/mmu.rs`: the machine walks EL2's tables for each access (`check_ram`); here what else they say, and that they were visible before they were used.
#[test]
fn el2_has_its_own_memory_and_nothing_twice() {
    in_own_process(|| {
        boards::two(Version::V2, A76);
        for (at, how) in image::parts() {
            let found = own_translation(at).map(|(_, write, execute)| (write, execute));
            assert_eq!(found, how, "{at:#x}");
        }
        let base = RAM + 0x20_0000;
        for page in (RAM..RAM + (256 << 20)).step_by(4096) {
            let found = own_translation(DIRECT_BASE + page as usize);
            let expected =
                (!(base..base + image::size()).contains(&page)).then_some((page, true, false));
            assert_eq!(found, expected, "{page:#x}");
        }
        // The page that the MMU is switched on from, and no more than that.
        assert_eq!(own_translation(base as usize), Some((base, false, true)));
        assert_eq!(own_translation(base as usize + 0x1000), None);
        assert_eq!(
            own_translation(DEVICE_BASE + 0x900_0000),
            Some((0x900_0000, true, false))
        );
        assert_eq!(own_translation(DEVICE_BASE + 0xa00_0000), None);

        let trace = Cpu(0).trace(0);
        let live = trace
            .iter()
            .position(|event| matches!(event, Event::Tables(_)));
        let (early, late) = trace.split_at(live.unwrap());
        // The tree is read through an entry that was made with translation on.
        assert!(
            early
                .windows(2)
                .any(|pair| pair[0] == Event::Step(Step::Dsb(Dsb::Sy)) && is_isb(&pair[1])),
            "{early:x?}"
        );
        let entry = |event: &Event| matches!(event, Event::Stored { address, .. } if image::is_table(*address));
        let used = |event: &Event| {
            matches!(event, Event::Load(..) | Event::Store(..))
                || matches!(event, Event::Stored { address, .. } if !image::is_table(*address))
        };
        let visible = |trace: &[Event]| {
            synchronised(trace, entry, is_dsb, |event| used(event) || is_isb(event))
        };
        holds(late, visible, &[is_dsb]);
        let in_force = |trace: &[Event]| synchronised(trace, entry, is_isb, used);
        holds(late, in_force, &[is_isb]);
    });
}
