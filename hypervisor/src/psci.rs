//! Firmware calls of a domain: PSCI and the SMC calling convention's own functions.
//!
//! A domain reaches this "firmware" by HVC or SMC alike; what it may do is change the power state
//! of its *own* vCPUs. Two steps, so that each can be tested alone: [`Call::decode`] says what was
//! asked, [`DomainPower::serve`] what follows from it. Nothing here runs or stops a vCPU; the
//! [`Outcome`] tells the caller to.
//!
//! Arguments are decoded by the `arm-psci` crate; the answers are ours. Every value is returned
//! sign-extended to 64 bits, also for the 32-bit forms: callers compare either half.
//!
//! Sources: Arm DEN 0022 (PSCI 1.1), Arm DEN 0028 (SMCCC 1.2, SMCCC_ARCH_WORKAROUND_*).

use crate::speculation::{Remedies, Remedy, Workaround};
use alloc::vec::Vec;
use arm_psci::{ErrorCode, Function, FunctionId, PowerState};

/// What PSCI_VERSION answers: 1.1.
pub const PSCI_VERSION: u32 = 0x0001_0001;
/// What SMCCC_VERSION answers: 1.2.
pub const SMCCC_VERSION: u32 = 0x0001_0002;

const ID_SMCCC_VERSION: u32 = 0x8000_0000;
const ID_SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;

const ID_VERSION: u32 = FunctionId::PsciVersion as u32;
const ID_FEATURES: u32 = FunctionId::PsciFeatures as u32;
const ID_MIGRATE_INFO_TYPE: u32 = FunctionId::MigrateInfoType as u32;

/// MIGRATE_INFO_TYPE: no trusted OS to migrate.
const MIGRATE_NOT_NEEDED: i64 = 2;
/// CPU_SUSPEND's features: bit 1, power_state in the extended StateID format.
const CPU_SUSPEND_EXTENDED_FORMAT: i64 = 1 << 1;
/// SMCCC's NOT_SUPPORTED, the same number as PSCI's.
const NOT_SUPPORTED: i64 = -1;

/// A decoded call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// A PSCI function that this firmware implements, its arguments well formed.
    Psci(Function),
    /// A PSCI function whose arguments are refused, or one that isn't implemented.
    Refused(ErrorCode),
    /// A call that has one answer at all times ([`constant`]).
    Constant(u64),
    /// SMCCC_ARCH_FEATURES of this function identifier.
    ArchFeatures(u32),
    /// One of the SMCCC_ARCH_WORKAROUND calls.
    Workaround(Workaround),
    /// A function identifier that nobody here knows.
    Unknown(u32),
}

/// What PSCI_FEATURES answers about the functions numbered 0 to 31: flags, or NOT_SUPPORTED; each number's 32-bit form, then its
/// 64-bit form, two unused entries. A table, since a question about a function isn't to cost more than a call of it.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler: an index out of range doesn't build"
)]
const FEATURES: [i8; 128] = {
    const fn place(id: FunctionId) -> usize {
        place_of(id as u32) as usize
    }
    let mut table = [NOT_SUPPORTED as i8; 128];
    table[place(FunctionId::PsciVersion)] = 0;
    table[place(FunctionId::CpuSuspend32)] = CPU_SUSPEND_EXTENDED_FORMAT as i8;
    table[place(FunctionId::CpuSuspend64)] = CPU_SUSPEND_EXTENDED_FORMAT as i8;
    table[place(FunctionId::CpuOff)] = 0;
    table[place(FunctionId::CpuOn32)] = 0;
    table[place(FunctionId::CpuOn64)] = 0;
    table[place(FunctionId::AffinityInfo32)] = 0;
    table[place(FunctionId::AffinityInfo64)] = 0;
    table[place(FunctionId::MigrateInfoType)] = 0;
    table[place(FunctionId::SystemOff)] = 0;
    table[place(FunctionId::SystemReset)] = 0;
    table[place(FunctionId::PsciFeatures)] = 0;
    table
};

/// Where [`FEATURES`] has a function: bit 30, which says that it is the 64-bit form, comes next to the number.
const fn place_of(id: u32) -> u32 {
    (id ^ ID_VERSION).rotate_left(2)
}

/// What PSCI_FEATURES answers about a function.
#[inline]
fn features(id: u32) -> i64 {
    match FEATURES.get(place_of(id) as usize) {
        Some(answer) => i64::from(*answer),
        None if id == ID_SMCCC_VERSION => 0,
        None => NOT_SUPPORTED,
    }
}

fn implemented(id: FunctionId) -> bool {
    features(id as u32) != NOT_SUPPORTED
}

/// The answer to a call that depends on nothing but its arguments (x0, x1) and changes nothing. So it needs neither the domain
/// nor a lock.
#[inline]
pub fn constant(x0: u64, x1: u64) -> Option<u64> {
    match x0 as u32 {
        ID_FEATURES => Some(features(x1 as u32) as u64),
        id => fixed(id),
    }
}

/// The answer to a call without arguments. Out of line: a call that isn't here shouldn't pay for those that are.
#[inline(never)]
const fn fixed(id: u32) -> Option<u64> {
    match id {
        ID_VERSION => Some(PSCI_VERSION as u64),
        ID_MIGRATE_INFO_TYPE => Some(MIGRATE_NOT_NEEDED as u64),
        ID_SMCCC_VERSION => Some(SMCCC_VERSION as u64),
        _ => None,
    }
}

impl Call {
    /// Decodes x0 to x3 of an HVC or SMC with immediate 0 from AArch64.
    ///
    /// The function identifier is w0 alone (DEN 0028, 2.5).
    pub fn decode(registers: [u64; 4]) -> Self {
        let [x0, x1, ..] = registers;
        let id = x0 as u32;
        if let Some(value) = constant(x0, x1) {
            return Self::Constant(value);
        }
        if id == ID_SMCCC_ARCH_FEATURES {
            return Self::ArchFeatures(x1 as u32);
        }
        if let Some(workaround) = Workaround::by_id(id) {
            return Self::Workaround(workaround);
        }
        match FunctionId::try_from(id) {
            Ok(known) if implemented(known) => match Function::try_from(&registers) {
                Ok(function) => Self::Psci(function),
                Err(error) => Self::Refused(error.into()),
            },
            Ok(_) => Self::Refused(ErrorCode::NotSupported),
            Err(_) => Self::Unknown(id),
        }
    }
}

/// What the caller must do after a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Put this into the calling vCPU's x0 and let it go on.
    Return(u64),
    /// Reset vCPU `index`, let it start at `entry` (guest physical, EL1h, MMU off) with `context`
    /// in x0, report it by [`DomainPower::started`]; the calling vCPU gets x0 = 0 and goes on.
    StartVcpu {
        /// Index of the vCPU within the domain.
        index: usize,
        /// Guest physical address of the first instruction.
        entry: u64,
        /// Value of x0 at that instruction.
        context: u64,
    },
    /// Take the calling vCPU off; it doesn't return.
    StopVcpu,
    /// The calling vCPU gets x0 = 0 and then waits for an interrupt, as by WFI. Power-down states
    /// are served alike: PSCI lets a suspend end early (DEN 0022, 5.4.5).
    Suspend,
    /// Make this call of the firmware below EL2, x0 = 0, and go on.
    Mitigate(Workaround),
    /// The domain has switched itself off.
    SystemOff,
    /// The domain asks for a restart.
    SystemReset,
}

impl Outcome {
    fn error(code: ErrorCode) -> Self {
        Self::Return(u64::from(code))
    }

    const fn value(value: i64) -> Self {
        Self::Return(value as u64)
    }
}

/// Power state of one vCPU, with AFFINITY_INFO's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VcpuPower {
    /// Runs or may run.
    On,
    /// Off.
    Off,
    /// CPU_ON accepted, first instruction not yet executed.
    OnPending,
}

/// The vCPUs of one domain: their MPIDR affinities and power states. Guarded by its owner's lock.
#[derive(Clone, Debug)]
pub struct DomainPower {
    vcpus: Vec<(u64, VcpuPower)>,
    remedies: Remedies,
}

impl DomainPower {
    /// A domain whose vCPUs have these affinities (MPIDR_EL1's Aff3..Aff0, other bits zero), in
    /// the order of their indices. The first is on, the others off. `remedies`: what there is on the CPUs that they may run on.
    pub fn new(affinities: impl IntoIterator<Item = u64>, remedies: Remedies) -> Self {
        let vcpus = affinities
            .into_iter()
            .map(|affinity| (affinity, VcpuPower::Off))
            .collect();
        let mut power = Self { vcpus, remedies };
        power.reset();
        power
    }

    /// Back to the state at boot: the first vCPU on, the others off.
    pub fn reset(&mut self) {
        for (index, (_, state)) in self.vcpus.iter_mut().enumerate() {
            *state = if index == 0 {
                VcpuPower::On
            } else {
                VcpuPower::Off
            };
        }
    }

    /// The power state of vCPU `index`.
    pub fn state(&self, index: usize) -> Option<VcpuPower> {
        self.vcpus.get(index).map(|(_, state)| *state)
    }

    /// Whether every vCPU is off: the domain can't wake up by itself any more.
    pub fn all_off(&self) -> bool {
        self.vcpus.iter().all(|(_, state)| *state == VcpuPower::Off)
    }

    /// The vCPU executes its first instruction; ends "on pending".
    pub fn started(&mut self, index: usize) {
        if let Some((_, state @ VcpuPower::OnPending)) = self.vcpus.get_mut(index) {
            *state = VcpuPower::On;
        }
    }

    /// Serves `call` of vCPU `caller`. `executable` tells whether a guest physical address is in
    /// the domain's RAM, so that a vCPU could start there.
    pub fn serve(
        &mut self,
        caller: usize,
        call: Call,
        executable: impl FnOnce(u64) -> bool,
    ) -> Outcome {
        match call {
            Call::Psci(function) => self.psci(caller, function, executable),
            Call::Refused(error) => Outcome::error(error),
            Call::Constant(value) => Outcome::Return(value),
            Call::ArchFeatures(ID_SMCCC_VERSION | ID_SMCCC_ARCH_FEATURES) => Outcome::value(0),
            Call::ArchFeatures(id) => {
                Outcome::value(Workaround::by_id(id).map_or(NOT_SUPPORTED, |workaround| {
                    self.remedies.answer(workaround).into()
                }))
            }
            Call::Workaround(workaround) => self.mitigate(workaround),
            Call::Unknown(_) => Outcome::value(NOT_SUPPORTED),
        }
    }

    fn psci(
        &mut self,
        caller: usize,
        function: Function,
        executable: impl FnOnce(u64) -> bool,
    ) -> Outcome {
        match function {
            Function::CpuSuspend {
                state: PowerState::StandbyOrRetention(_),
                ..
            } => Outcome::Suspend,
            Function::CpuSuspend {
                state: PowerState::PowerDown(_),
                entry,
            } => {
                if executable(entry.entry_point_address()) {
                    Outcome::Suspend
                } else {
                    Outcome::error(ErrorCode::InvalidAddress)
                }
            }
            Function::CpuOff => {
                if let Some((_, state)) = self.vcpus.get_mut(caller) {
                    *state = VcpuPower::Off;
                }
                Outcome::StopVcpu
            }
            Function::CpuOn { target_cpu, entry } => {
                let (entry, context) = (entry.entry_point_address(), entry.context_id());
                self.cpu_on(target_cpu.into(), entry, context, executable)
            }
            Function::AffinityInfo {
                mpidr,
                lowest_affinity_level: 0,
            } => {
                let target = u64::from(mpidr);
                match self.vcpus.iter().find(|(affinity, _)| *affinity == target) {
                    Some((_, VcpuPower::On)) => Outcome::value(0),
                    Some((_, VcpuPower::Off)) => Outcome::value(1),
                    Some((_, VcpuPower::OnPending)) => Outcome::value(2),
                    None => Outcome::error(ErrorCode::InvalidParameters),
                }
            }
            // From PSCI 1.0 on, levels above 0 need not be supported (DEN 0022, 5.7.4).
            Function::AffinityInfo { .. } => Outcome::error(ErrorCode::InvalidParameters),
            Function::SystemOff => Outcome::SystemOff,
            Function::SystemReset => Outcome::SystemReset,
            _ => Outcome::error(ErrorCode::NotSupported),
        }
    }

    fn cpu_on(
        &mut self,
        target: u64,
        entry: u64,
        context: u64,
        executable: impl FnOnce(u64) -> bool,
    ) -> Outcome {
        let vcpus = self.vcpus.iter_mut().enumerate();
        let Some((index, (_, state))) = vcpus
            .into_iter()
            .find(|(_, (affinity, _))| *affinity == target)
        else {
            return Outcome::error(ErrorCode::InvalidParameters);
        };
        match state {
            VcpuPower::On => Outcome::error(ErrorCode::AlreadyOn),
            VcpuPower::OnPending => Outcome::error(ErrorCode::OnPending),
            VcpuPower::Off if entry & 3 != 0 || !executable(entry) => {
                Outcome::error(ErrorCode::InvalidAddress)
            }
            VcpuPower::Off => {
                *state = VcpuPower::OnPending;
                Outcome::StartVcpu {
                    index,
                    entry,
                    context,
                }
            }
        }
    }

    fn mitigate(&self, workaround: Workaround) -> Outcome {
        match (self.remedies.against(workaround), workaround) {
            // It's never offered: the mitigation is always on.
            (_, Workaround::StoreBypass) | (Remedy::None, _) => Outcome::value(NOT_SUPPORTED),
            (Remedy::Call, _) => Outcome::Mitigate(workaround),
            (Remedy::Unneeded, _) => Outcome::value(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RAM: u64 = 0x4000_0000;

    fn two() -> DomainPower {
        DomainPower::new([0, 1], Remedies::default())
    }

    fn call(power: &mut DomainPower, caller: usize, registers: [u64; 4]) -> Outcome {
        power.serve(caller, Call::decode(registers), |address| address >= RAM)
    }

    fn returned(outcome: Outcome) -> i64 {
        match outcome {
            Outcome::Return(value) => value as i64,
            other => panic!("{other:?}"),
        }
    }

    fn asks(power: &mut DomainPower, registers: [u64; 4]) -> i64 {
        returned(call(power, 0, registers))
    }

    #[test]
    fn versions_and_features() {
        let mut power = two();
        assert_eq!(asks(&mut power, [0x8400_0000, 0, 0, 0]), 0x1_0001);
        assert_eq!(
            asks(&mut power, [0xffff_ffff_8400_0000, 0, 0, 0]),
            0x1_0001,
            "w0 only"
        );
        assert_eq!(asks(&mut power, [0x8000_0000, 0, 0, 0]), 0x1_0002);
        for id in [
            0x8400_0000,
            0x8400_0002,
            0xc400_0003,
            0xc400_0004,
            0x8400_0008,
            0x8000_0000,
        ] {
            assert_eq!(asks(&mut power, [0x8400_000a, id, 0, 0]), 0, "{id:#x}");
        }
        assert_eq!(asks(&mut power, [0x8400_000a, 0xc400_0001, 0, 0]), 2);
        for id in [0xc400_0012, 0xc400_000e, 0xc400_0005, 0x1234, 0x8000_0001] {
            assert_eq!(asks(&mut power, [0x8400_000a, id, 0, 0]), -1, "{id:#x}");
        }
        assert_eq!(asks(&mut power, [0x8400_0006, 0, 0, 0]), 2);
    }

    #[test]
    fn what_is_not_implemented_is_not_supported_whatever_its_arguments() {
        let mut power = two();
        for id in [
            0xc400_0012u64,
            0xc400_0015,
            0x8400_000f,
            0xc600_0000,
            0x8600_ff01,
            0,
            0x8000_0002,
        ] {
            assert_eq!(
                asks(&mut power, [id, u64::MAX, u64::MAX, u64::MAX]),
                -1,
                "{id:#x}"
            );
        }
    }

    #[test]
    fn a_vcpu_s_life() {
        let mut power = two();
        let info = [0xc400_0004, 1, 0, 0];
        let on = [0xc400_0003, 1, RAM, 77];
        assert_eq!(asks(&mut power, info), 1);
        let start = Outcome::StartVcpu {
            index: 1,
            entry: RAM,
            context: 77,
        };
        assert_eq!(call(&mut power, 0, on), start);
        assert_eq!(asks(&mut power, info), 2);
        assert_eq!(asks(&mut power, on), -5, "ON_PENDING");
        power.started(1);
        assert_eq!(asks(&mut power, info), 0);
        assert_eq!(asks(&mut power, on), -4, "ALREADY_ON");
        assert_eq!(
            call(&mut power, 1, [0x8400_0002, 0, 0, 0]),
            Outcome::StopVcpu
        );
        assert_eq!(asks(&mut power, info), 1);
        assert!(!power.all_off());
        call(&mut power, 0, [0x8400_0002, 0, 0, 0]);
        assert!(power.all_off());
        power.reset();
        assert_eq!(power.state(0), Some(VcpuPower::On));
        power.started(1);
        assert_eq!(
            power.state(1),
            Some(VcpuPower::Off),
            "started() ends pending only"
        );
    }

    #[test]
    fn cpu_on_s_errors() {
        let mut power = two();
        assert_eq!(
            asks(&mut power, [0xc400_0003, 2, RAM, 0]),
            -2,
            "no such vCPU"
        );
        assert_eq!(
            asks(&mut power, [0xc400_0003, 1 | 1 << 31, RAM, 0]),
            -2,
            "must-be-zero bit"
        );
        assert_eq!(asks(&mut power, [0xc400_0003, 1, 0x1000, 0]), -9, "not RAM");
        assert_eq!(
            asks(&mut power, [0xc400_0003, 1, RAM + 2, 0]),
            -9,
            "not aligned"
        );
        assert_eq!(asks(&mut power, [0xc400_0003, 0, RAM, 0]), -4, "itself");
        assert_eq!(asks(&mut power, [0xc400_0004, 9, 0, 0]), -2);
        assert_eq!(asks(&mut power, [0xc400_0004, 0, 1, 0]), -2, "level 1");
    }

    #[test]
    fn the_32_bit_form_uses_32_bits_of_its_arguments() {
        let mut power = two();
        let junk = 0xdead_beef_0000_0000;
        let outcome = call(&mut power, 0, [0x8400_0003, junk | 1, junk | RAM, junk | 5]);
        assert_eq!(
            outcome,
            Outcome::StartVcpu {
                index: 1,
                entry: RAM,
                context: 5
            }
        );
    }

    #[test]
    fn suspend_and_system_calls() {
        let mut power = two();
        assert_eq!(
            call(&mut power, 0, [0xc400_0001, 0, 0, 0]),
            Outcome::Suspend
        );
        assert_eq!(
            call(&mut power, 0, [0xc400_0001, 1 << 30, RAM, 0]),
            Outcome::Suspend
        );
        assert_eq!(asks(&mut power, [0xc400_0001, 1 << 30, 0, 0]), -9);
        assert_eq!(asks(&mut power, [0xc400_0001, 1 << 31, RAM, 0]), -2);
        assert_eq!(
            call(&mut power, 0, [0x8400_0008, 0, 0, 0]),
            Outcome::SystemOff
        );
        assert_eq!(
            call(&mut power, 0, [0x8400_0009, 0, 0, 0]),
            Outcome::SystemReset
        );
    }

    #[test]
    fn workarounds_answer_what_the_cpus_need() {
        const IDS: [u64; 3] = [0x8000_8000, 0x8000_7fff, 0x8000_3fff];
        let with = |remedy| {
            let remedies = Remedies {
                branch_target: remedy,
                store_bypass: remedy,
                branch_history: remedy,
            };
            DomainPower::new([0], remedies)
        };
        // What is told about each, and what the call itself answers; `None`: it's made.
        for (remedy, told, called) in [
            (Remedy::Unneeded, [1, -2, 1], [Some(0), Some(-1), Some(0)]),
            (Remedy::Call, [0, -2, 0], [None, Some(-1), None]),
            (Remedy::None, [-1, -1, -1], [Some(-1); 3]),
        ] {
            let mut power = with(remedy);
            for ((id, told), called) in IDS.into_iter().zip(told).zip(called) {
                let name = alloc::format!("{remedy:?} {id:#x}");
                assert_eq!(asks(&mut power, [0x8000_0001, id, 0, 0]), told, "{name}");
                for argument in [0, 1] {
                    let outcome = call(&mut power, 0, [id, argument, 0, 0]);
                    match called {
                        Some(value) => assert_eq!(returned(outcome), value, "{name}"),
                        None => {
                            let workaround = Workaround::by_id(id as u32).unwrap();
                            assert_eq!(outcome, Outcome::Mitigate(workaround), "{name}");
                        }
                    }
                }
            }
        }
        let mut power = with(Remedy::Call);
        assert_eq!(asks(&mut power, [0x8000_0001, 0x8000_0000, 0, 0]), 0);
        assert_eq!(
            asks(&mut power, [0x8000_0001, 0x8000_0002, 0, 0]),
            -1,
            "SOC_ID"
        );
    }

    proptest! {
        #[test]
        fn any_registers_get_an_answer_and_never_start_a_foreign_address(
            ids in proptest::collection::vec(
                (prop_oneof![0x8400_0000u64..0x8400_0016, 0xc400_0000u64..0xc400_0016, any::<u64>()],
                 prop_oneof![0u64..4, any::<u64>()], any::<u64>(), any::<u64>()), 0..50)
        ) {
            let mut power = two();
            for (x0, x1, x2, x3) in ids {
                match call(&mut power, 0, [x0, x1, x2, x3]) {
                    Outcome::StartVcpu { index, entry, .. } => {
                        prop_assert!(entry >= RAM && entry & 3 == 0);
                        prop_assert_eq!(power.state(index), Some(VcpuPower::OnPending));
                    }
                    Outcome::Return(value) => {
                        let value = value as i64;
                        prop_assert!((-9..=2).contains(&value) || value >= 0x1_0001);
                    }
                    _ => {}
                }
            }
        }
    }
}
