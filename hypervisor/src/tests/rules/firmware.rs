//! CPUs that are firmware cores.

use super::boards::{self, A57, A76, Wanted};
use super::cores;
use super::exits::Access;
use super::*;
use hypervisor::processor::Dc;
use hypervisor::trap::controls::GUEST;

fn with_firmware(midr: u64) -> [Cpu; 2] {
    boards::start(Wanted {
        gic: Version::V3,
        midr: &[midr; 2],
        domains: &[&[0]],
        coproc: Some(boards::Shared::Core(1)),
        ..Wanted::default()
    });
    let [cpu, core] = [Cpu(0), Cpu(1)];
    cores::place(cpu);
    cores::start(cpu);
    assert!(core.is_in_guest(), "{}", fake::console());
    assert_eq!(core.guest().elr, fw_core_abi::IMAGE_BASE);
    [cpu, core]
}

/// The same for firmware: it isn't a fault of its domain's, and nothing was read.
#[test]
fn firmware_is_not_blamed_for_a_misreported_load() {
    in_own_process(|| {
        let [_, core] = with_firmware(A57);
        let id = Access {
            address: fw_core_abi::LOCAL_BASE,
            write: false,
            register: 3,
            size: 2,
        };
        let elr = core.guest().elr;
        core.set_translations([1; 2]);
        exits::access(core, id);
        assert_eq!((core.guest().elr, core.guest().x[3]), (elr, 0));
        core.set_translations([fw_core_abi::LOCAL_BASE; 2]);
        exits::access(core, id);
        assert_eq!(
            (core.guest().elr, core.guest().x[3]),
            (elr + 4, fw_core_abi::ID.into())
        );
        // Outside of its memory there is nothing but an abort, unless stage 1 refused it.
        let outside = Access {
            address: 0x1000,
            ..id
        };
        core.set_translations([1; 2]);
        exits::access(core, outside);
        assert_eq!(core.guest().elr, elr + 4);
        core.set_translations([0x1000; 2]);
        exits::access(core, outside);
        assert_eq!(core.guest().elr, core.register("vbar_el1") + 0x200);
    });
}

/// A firmware core begins as other CPUs do; nothing it knew of an image that is new is left, and it has no CPU interface.
#[test]
fn firmware_starts_on_a_core_without_a_past() {
    in_own_process(|| {
        let [_, core] = with_firmware(A76);
        let trace = core.trace(0);
        let trace = until(&trace, |event| matches!(event, Event::Enter(..)));
        let vttbr = core.register("vttbr_el2");
        let rule = |trace: &[Event]| {
            let mut model = Model::default();
            let image = 0x4000;
            model.step(Step::Stored(image));
            model.step(Step::Dc(Dc::Clean, image));
            model.step(Step::Dsb(Dsb::Sy));
            model.step(Step::Shared(vttbr));
            for step in fake::steps(trace, &[]) {
                model.step(step);
            }
            model.unused()?;
            model.executes(false)?;
            match model.registers.value(Register::Hcr) {
                value if value == GUEST.bits() => Ok(()),
                value => Err(alloc::format!("HCR_EL2 {value:#x}")),
            }
        };
        holds(trace, rule, &[is_tlbi, is_ic, is_dsb]);
        let control =
            |event: &Event| matches!(event, Event::Write("ich_hcr_el2" | "icc_sre_el2", _));
        let in_force = |trace: &[Event]| synchronised(trace, control, is_isb, ends);
        holds(trace, in_force, &[is_isb]);
        assert_eq!(core.register("ich_hcr_el2"), 0b111 << 10);
        assert_eq!(core.register("icc_sre_el2") & 1 << 3, 0);
    });
}
