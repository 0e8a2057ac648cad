//! The driver against [`model`](super::model), which caches and reorders whatever it is allowed to.

use super::model::{Loss, Model, Shared};
use super::registers::*;
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

const M2: u64 = 0x20_0000;
const DEVICE: u64 = 0x4000_0000;

fn setup() -> Setup {
    Setup {
        command_bits: 3,
        event_bits: 3,
        polls: 100,
        ..Setup::new(8, 40, 1..4)
    }
}

fn start() -> (Shared, Smmu<Shared>) {
    let shared = Shared::new();
    let smmu = Smmu::new(shared.clone(), setup()).unwrap();
    (shared, smmu)
}

/// 2 MiB and a page at `DEVICE`, in host memory that tells the spaces apart.
fn mappings(number: u64) -> [Mapping; 2] {
    let host = 0x10_0000_0000 + number * 16 * M2;
    let mapping = |offset, size| Mapping {
        device: DeviceAddress::new(DEVICE + offset),
        host: HostPhysical::new(host + offset),
        size,
    };
    [mapping(0, M2), mapping(M2, 0x1000)]
}

fn host(number: u64, offset: u64) -> u64 {
    mappings(number)[0].host.get() + offset
}

fn again(step: Step) -> bool {
    matches!(step, Step::Again(_))
}

fn single(model: &mut Model, stream: u32, address: u64) -> Option<u64> {
    let outcome = model.access(stream, address, true);
    assert_eq!(outcome.len(), 1, "not settled: {outcome:x?}");
    outcome.into_iter().next().unwrap()
}

#[test]
fn comes_up_with_everything_on_abort() {
    let (shared, smmu) = start();
    let mut model = shared.lock();
    assert_eq!(model.get(CR0), CR0_SMMUEN | CR0_CMDQEN | CR0_EVENTQEN);
    assert_eq!(model.get(CR1), 0xd75);
    assert_eq!(model.get(CR2), CR2_RECINVSID);
    assert_eq!(model.get(GBPA), GBPA_ABORT);
    assert_eq!(model.get(IRQ_CTRL), IRQ_EVENTQ | IRQ_GERROR);
    assert_eq!(model.get(STRTAB_BASE_CFG), 8);
    let opcodes: Vec<u8> = model.log.iter().map(|command| command.0).collect();
    assert_eq!(opcodes, [0x04, 0x46, 0x30, 0x46]);
    for stream in [0, 8, 255] {
        assert_eq!(single(&mut model, stream, DEVICE), None);
    }
    assert_eq!(model.get(EVENTQ_PROD), 0);
    let features = smmu.features();
    assert!(features.coherent);
    assert_eq!((features.vmid_bits, features.output_bits), (16, 44));
}

#[test]
fn refuses_what_it_cannot_drive() {
    let cases: [(u64, u64, &str); 6] = [
        (IDR0, 0x0d44_101a, "no stage 2"),
        (IDR0, 0x0d44_1017, "no VMSAv8-64"),
        (IDR0, 0x0e44_101b, "always stall"),
        (IDR1, 0x4273_0010, "preset"),
        (IDR1, 0x0273_0007, "stream number"),
        (IDR5, 0x64, "granule"),
    ];
    for (register, value, expected) in cases {
        let shared = Shared::new();
        shared.lock().registers.insert(register, value);
        let error = Smmu::new(shared.clone(), setup()).unwrap_err();
        let text = std::string::ToString::to_string(&error);
        assert!(text.contains(expected), "{text}");
        assert_eq!(shared.lock().frames_used(), 0);
    }
    // 8-bit VMIDs only.
    let shared = Shared::new();
    shared.lock().registers.insert(IDR0, 0x0d40_101b);
    let wide = Setup::new(8, 40, 1..300);
    assert!(Smmu::new(shared, wide).is_err());
    // It doesn't answer.
    let shared = Shared::new();
    shared.lock().stuck = true;
    assert!(matches!(
        Smmu::new(shared.clone(), setup()),
        Err(IommuError::Hardware(_))
    ));
    // It refuses the first command.
    let shared = Shared::new();
    shared.lock().refuse = Some(0x04);
    assert!(Smmu::new(shared.clone(), setup()).is_err());
    assert_eq!(shared.lock().frames_used(), 0);
    // No memory.
    for frames in 0..6 {
        let shared = Shared::new();
        shared.lock().frames_left = frames;
        assert_eq!(
            Smmu::new(shared.clone(), setup()).unwrap_err(),
            IommuError::OutOfMemory
        );
        assert_eq!(shared.lock().frames_used(), 0);
    }
}

#[test]
fn a_switch_passes_through_abort() {
    let (shared, mut smmu) = start();
    let first = smmu.create_space(&mappings(1)).unwrap();
    let second = smmu.create_space(&mappings(2)).unwrap();
    let stream = StreamId(8);
    smmu.point(stream, Target::Space(first)).unwrap();
    assert_eq!(smmu.sync(), Step::Done);
    assert_eq!(
        single(&mut shared.lock(), 8, DEVICE + M2),
        Some(host(1, M2))
    );
    assert_eq!(single(&mut shared.lock(), 9, DEVICE), None);
    shared.lock().log.clear();

    smmu.point(stream, Target::Abort).unwrap();
    assert_eq!(smmu.sync(), Step::Done);
    assert_eq!(single(&mut shared.lock(), 8, DEVICE), None);
    // VMID 1 only after the stream's own invalidation completed.
    let expected = [(0x03, 8), (0x46, 0), (0x28, 1), (0x46, 0)];
    assert_eq!(shared.lock().log, expected);
    assert!(shared.lock().tlb().is_empty());

    // Directly from one to the other: the same, by itself.
    smmu.point(stream, Target::Space(first)).unwrap();
    assert_eq!(smmu.sync(), Step::Done);
    shared.lock().log.clear();
    smmu.point(stream, Target::Space(second)).unwrap();
    assert_eq!(smmu.sync(), Step::Done);
    assert_eq!(single(&mut shared.lock(), 8, DEVICE), Some(host(2, 0)));
    let rounds = shared.lock().log.iter().filter(|c| c.0 == 0x03).count();
    assert_eq!(rounds, 3);
    // Nothing to do: no commands.
    shared.lock().log.clear();
    smmu.point(stream, Target::Space(second)).unwrap();
    assert_eq!(smmu.sync(), Step::Done);
    assert!(shared.lock().log.is_empty());
}

#[test]
fn entry_as_the_manual_has_it() {
    let (shared, mut smmu) = start();
    let space = smmu.create_space(&mappings(1)).unwrap();
    smmu.point(StreamId(3), Target::Space(space)).unwrap();
    assert_eq!(smmu.sync(), Step::Done);
    let base = shared.lock().registers[&STRTAB_BASE] & 0x000f_ffff_ffff_ffc0;
    let words: Vec<u64> = (0..8)
        .map(|word| shared.read_memory(HostPhysical::new(base + 3 * 64 + word * 8)))
        .collect();
    assert_eq!(words[0], 0xd);
    assert_eq!(words[1], 1 << 19);
    assert_eq!(words[2] & 0xffff, 1);
    assert_eq!(words[2] >> 32 & 0x3f, 24, "S2T0SZ");
    assert_eq!(words[2] >> 38 & 3, 1, "S2SL0");
    assert_eq!(words[2] >> 40 & 0xff, 0b00_11_01_01, "S2TG, SH0, OR0, IR0");
    assert_eq!(words[2] >> 48 & 7, 4, "S2PS");
    assert_eq!(words[2] >> 51 & 1, 1, "S2AA64");
    assert_eq!(words[2] >> 52, 1 << 6, "S2R and nothing else");
    assert_eq!(words[3] % 0x2000, 0, "concatenated root");
    assert_eq!(words[4..], [0; 4]);
}

#[test]
fn slow_hardware_is_asked_again_and_never_waited_for() {
    let (shared, mut smmu) = start();
    let space = smmu.create_space(&mappings(1)).unwrap();
    shared.lock().prompt = false;
    smmu.point(StreamId(8), Target::Space(space)).unwrap();
    let mut steps = 0;
    while again(smmu.sync()) {
        let allowed: BTreeSet<_> = [None, Some(host(1, 0))].into();
        assert!(shared.lock().access(8, DEVICE, false).is_subset(&allowed));
        shared.lock().consume(1);
        steps += 1;
    }
    // Two rounds of two commands.
    assert_eq!(steps, 4);
    assert_eq!(single(&mut shared.lock(), 8, DEVICE), Some(host(1, 0)));
    // Dead: Again for ever, without another command.
    smmu.point(StreamId(8), Target::Abort).unwrap();
    let produced = shared.lock().get(CMDQ_PROD);
    for _ in 0..100 {
        assert!(again(smmu.sync()));
    }
    assert_eq!(shared.lock().get(CMDQ_PROD), produced);
}

#[test]
fn more_streams_than_the_queue_holds() {
    let (shared, mut smmu) = start();
    let space = smmu.create_space(&mappings(1)).unwrap();
    shared.lock().prompt = false;
    for stream in 0..50 {
        smmu.point(StreamId(stream), Target::Space(space)).unwrap();
    }
    let mut rounds = 0;
    while again(smmu.sync()) {
        let (produced, consumed) = {
            let model = shared.lock();
            (model.get(CMDQ_PROD), model.get(CMDQ_CONS))
        };
        assert!(produced.wrapping_sub(consumed) & 0xf <= 8, "overrun");
        shared.lock().consume(3);
        rounds += 1;
        assert!(rounds < 1000);
    }
    for stream in 0..50 {
        assert_eq!(single(&mut shared.lock(), stream, DEVICE), Some(host(1, 0)));
    }
}

#[test]
fn spaces_end_only_after_their_invalidation() {
    let (shared, mut smmu) = start();
    let before = shared.lock().frames_used();
    let spaces: Vec<SpaceId> = (1..4)
        .map(|number| smmu.create_space(&mappings(number)).unwrap())
        .collect();
    assert_eq!(
        smmu.create_space(&mappings(4)),
        Err(IommuError::OutOfSpaces)
    );
    let stream = StreamId(1);
    smmu.point(stream, Target::Space(spaces[0])).unwrap();
    assert_eq!(smmu.sync(), Step::Done);
    assert_eq!(
        smmu.destroy_space(spaces[0]),
        Err(IommuError::SpaceInUse(spaces[0]))
    );
    shared.lock().prompt = false;
    smmu.point(stream, Target::Abort).unwrap();
    smmu.destroy_space(spaces[0]).unwrap();
    assert_eq!(
        smmu.destroy_space(spaces[0]),
        Err(IommuError::UnknownSpace(spaces[0]))
    );
    assert_eq!(
        smmu.point(stream, Target::Space(spaces[0])),
        Err(IommuError::UnknownSpace(spaces[0]))
    );
    // Not before the CMD_SYNC behind its CMD_TLBI was consumed: CFGI, SYNC, TLBI, SYNC.
    for _ in 0..4 {
        assert!(again(smmu.sync()));
        assert_eq!(
            smmu.create_space(&mappings(4)),
            Err(IommuError::OutOfSpaces)
        );
        shared.lock().consume(1);
    }
    assert_eq!(smmu.sync(), Step::Done);
    let fourth = smmu.create_space(&mappings(4)).unwrap();
    assert!(!spaces.contains(&fourth));
    shared.lock().prompt = true;
    for space in [spaces[1], spaces[2], fourth] {
        smmu.destroy_space(space).unwrap();
    }
    assert_eq!(smmu.sync(), Step::Done);
    assert_eq!(shared.lock().frames_used(), before);
}

#[test]
fn bad_mappings_leave_nothing_behind() {
    let (shared, mut smmu) = start();
    let before = shared.lock().frames_used();
    let good = mappings(1)[0];
    let cases = [
        Mapping { size: 0, ..good },
        Mapping {
            size: 0x800,
            ..good
        },
        Mapping {
            device: DeviceAddress::new(0x10),
            ..good
        },
        Mapping {
            device: DeviceAddress::new(1 << 40),
            ..good
        },
        Mapping {
            host: HostPhysical::new(1 << 44),
            ..good
        },
        Mapping {
            size: !0xfff,
            ..good
        },
        good,
    ];
    for bad in cases {
        let expected = IommuError::BadMapping {
            device: bad.device,
            size: bad.size,
        };
        assert_eq!(smmu.create_space(&[good, bad]), Err(expected));
        assert_eq!(shared.lock().frames_used(), before);
    }
    for frames in 0..5 {
        shared.lock().frames_left = frames;
        // Root (2), level 2, level 3: four.
        let result = smmu.create_space(&mappings(1));
        if frames < 4 {
            assert_eq!(result, Err(IommuError::OutOfMemory));
            assert_eq!(shared.lock().frames_used(), before);
        } else {
            result.unwrap();
        }
    }
    assert_eq!(
        smmu.point(StreamId(256), Target::Abort),
        Err(IommuError::UnknownStream(StreamId(256)))
    );
    assert_eq!(
        smmu.point(StreamId(1), Target::Space(SpaceId(99))),
        Err(IommuError::UnknownSpace(SpaceId(99)))
    );
}

#[test]
fn faults_go_to_their_stream() {
    let (shared, mut smmu) = start();
    let space = smmu.create_space(&mappings(1)).unwrap();
    for stream in [1, 2] {
        smmu.point(StreamId(stream), Target::Space(space)).unwrap();
    }
    assert_eq!(smmu.sync(), Step::Done);
    {
        let mut model = shared.lock();
        model.access(1, 0x1234_5678, true);
        model.access(1, DEVICE + 2 * M2, false);
        model.access(2, 0x10, true);
        model.access(2, DEVICE, true);
        model.access(300, DEVICE, true);
    }
    assert!(!smmu.interrupt());
    let faults = smmu.take_faults(StreamId(1));
    let expected = Faults {
        count: 2,
        last: Some(DeviceAddress::new(DEVICE + 2 * M2)),
        write: false,
        overflow: false,
    };
    assert_eq!(faults, expected);
    let second = smmu.take_faults(StreamId(2));
    assert_eq!((second.count, second.write), (1, true));
    assert_eq!(smmu.take_faults(StreamId(2)), Faults::default());
    let status = smmu.status();
    assert_eq!((status.events, status.stray_events), (4, 1));
    assert_eq!(status.last_event.map(event_name), Some("C_BAD_STREAMID"));
}

#[test]
fn lost_events_are_told_to_all_that_could_have_caused_them() {
    for loss in [Loss::Flag, Loss::Abort] {
        let (shared, mut smmu) = start();
        shared.lock().loss = loss;
        let space = smmu.create_space(&mappings(1)).unwrap();
        for stream in [1, 2] {
            smmu.point(StreamId(stream), Target::Space(space)).unwrap();
        }
        smmu.point(StreamId(3), Target::Abort).unwrap();
        assert_eq!(smmu.sync(), Step::Done);
        // Many times, so that the index wraps and the flag toggles both ways.
        for round in 1..6 {
            for address in 0..round + 8 {
                shared.lock().access(1, address * 4, true);
            }
            // The framework asks when the stream is on abort again.
            smmu.point(StreamId(1), Target::Abort).unwrap();
            assert_eq!(smmu.sync(), Step::Done);
            while smmu.collect_faults() {}
            let faults = smmu.take_faults(StreamId(1));
            assert_eq!((faults.count, faults.overflow), (8, true), "{loss:?}");
            assert_eq!(faults.last, Some(DeviceAddress::new(7 * 4)));
            let other = smmu.take_faults(StreamId(2));
            assert!(other.overflow && !other.any());
            assert_eq!(smmu.take_faults(StreamId(3)), Faults::default());
            assert_eq!(smmu.status().overflows, round);
            // Once told, it's over; and no longer stream 1's business.
            shared.lock().access(2, 0, true);
            assert!(!smmu.collect_faults());
            assert!(!smmu.take_faults(StreamId(2)).overflow);
            smmu.point(StreamId(1), Target::Space(space)).unwrap();
            assert_eq!(smmu.sync(), Step::Done);
        }
    }
}

#[test]
fn reading_events_is_bounded() {
    let shared = Shared::new();
    let setup = Setup {
        event_bits: 8,
        ..setup()
    };
    let mut smmu = Smmu::new(shared.clone(), setup).unwrap();
    let space = smmu.create_space(&mappings(1)).unwrap();
    smmu.point(StreamId(1), Target::Space(space)).unwrap();
    assert_eq!(smmu.sync(), Step::Done);
    for _ in 0..130 {
        shared.lock().access(1, 0, true);
    }
    assert!(smmu.interrupt());
    assert_eq!(smmu.take_faults(StreamId(1)).count, 64);
    assert!(smmu.interrupt());
    assert!(!smmu.interrupt());
    assert_eq!(smmu.take_faults(StreamId(1)).count, 66);
}

#[test]
fn a_refused_command_is_final() {
    let (shared, mut smmu) = start();
    let space = smmu.create_space(&mappings(1)).unwrap();
    shared.lock().refuse = Some(0x03);
    let _ = smmu.point(StreamId(1), Target::Space(space));
    assert!(matches!(smmu.sync(), Step::Failed(_)));
    {
        let model = shared.lock();
        assert_eq!(model.get(GERROR), model.get(GERRORN), "acknowledged");
        // Replaced by a CMD_SYNC, so that the queue isn't stuck.
        assert_eq!(model.get(CMDQ_CONS), model.get(CMDQ_PROD));
    }
    let status = smmu.status();
    assert_eq!((status.command_errors, status.command_error), (1, 1));
    assert!(matches!(
        smmu.point(StreamId(1), Target::Space(space)),
        Err(IommuError::Hardware(_))
    ));
    assert!(smmu.create_space(&mappings(2)).is_err());
    smmu.stop().unwrap();
    let model = shared.lock();
    assert_eq!(model.get(CR0), 0);
    assert_eq!(model.get(GBPA), GBPA_ABORT);
}

#[test]
fn service_failure_is_final() {
    let (shared, mut smmu) = start();
    shared.lock().raise(GERROR_SFM);
    smmu.interrupt();
    assert!(matches!(smmu.sync(), Step::Failed(_)));
}

#[derive(Debug, Clone)]
enum Op {
    Create,
    Destroy(usize),
    Point(u32, Option<usize>),
    Consume(usize),
    Sync,
    Access(u32, u64),
    Collect,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Create),
        2 => (0usize..4).prop_map(Op::Destroy),
        5 => (0u32..3, prop::option::weighted(0.7, 0usize..4)).prop_map(|(s, t)| Op::Point(s, t)),
        4 => (1usize..6).prop_map(Op::Consume),
        4 => Just(Op::Sync),
        3 => (0u32..3, 0u64..4).prop_map(|(s, a)| Op::Access(s, a)),
        1 => Just(Op::Collect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// The model itself panics on torn entries, a VMID with two sets of tables, and tables freed too early.
    #[test]
    fn no_stream_ever_uses_a_destroyed_space(ops in prop::collection::vec(op(), 1..60), qemu in any::<bool>()) {
        let (shared, mut smmu) = start();
        let idle = shared.lock().frames_used();
        shared.lock().prompt = false;
        shared.lock().loss = if qemu { Loss::Abort } else { Loss::Flag };
        let mut live: BTreeMap<SpaceId, u64> = BTreeMap::new();
        let mut targets: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        // What a stream may reach: all it was pointed at since the last time that everything was done.
        let mut allowed: BTreeMap<u32, BTreeSet<Option<u64>>> = BTreeMap::new();
        let mut number = 0;
        for op in ops {
            match op {
                Op::Create => {
                    number += 1;
                    match smmu.create_space(&mappings(number)) {
                        Ok(id) => prop_assert!(live.insert(id, number).is_none()),
                        Err(error) => prop_assert_eq!(error, IommuError::OutOfSpaces),
                    }
                }
                Op::Destroy(index) => {
                    let Some((&id, &number)) = live.iter().nth(index) else { continue };
                    let used = targets.values().any(|target| *target == Some(number));
                    match smmu.destroy_space(id) {
                        Ok(()) => {
                            prop_assert!(!used);
                            live.remove(&id);
                        }
                        Err(error) => {
                            prop_assert!(used);
                            prop_assert_eq!(error, IommuError::SpaceInUse(id));
                        }
                    }
                }
                Op::Point(stream, index) => {
                    let space = index.and_then(|index| live.iter().nth(index));
                    let target = space.map_or(Target::Abort, |(id, _)| Target::Space(*id));
                    smmu.point(StreamId(stream), target).unwrap();
                    let number = space.map(|(_, number)| *number);
                    targets.insert(stream, number);
                    let set = allowed.entry(stream).or_insert_with(|| [None].into());
                    set.insert(None);
                    set.insert(number.map(|number| host(number, 0)));
                }
                Op::Consume(count) => shared.lock().consume(count),
                Op::Sync => match smmu.sync() {
                    Step::Done => {
                        for (stream, target) in &targets {
                            let expected = target.map(|number| host(number, 0));
                            let outcome = single(&mut shared.lock(), *stream, DEVICE);
                            prop_assert_eq!(outcome, expected);
                            allowed.insert(*stream, [expected].into());
                        }
                        let model = shared.lock();
                        for (_, root) in model.tlb() {
                            let found = model.walk(root, DEVICE);
                            let known = live.values().any(|number| Some(host(*number, 0)) == found);
                            prop_assert!(known, "a destroyed space is in the TLB");
                        }
                    }
                    Step::Again(_) => {}
                    Step::Failed(failure) => prop_assert!(false, "{failure}"),
                },
                Op::Access(stream, page) => {
                    let outcome = shared.lock().access(stream, DEVICE + page * M2, true);
                    if page == 0 {
                        let none = [None].into();
                        let may = allowed.get(&stream).unwrap_or(&none);
                        prop_assert!(outcome.is_subset(may), "{:x?} not in {:x?}", outcome, may);
                    }
                }
                Op::Collect => {
                    smmu.collect_faults();
                }
            }
        }
        // All can be ended, and everything comes back.
        shared.lock().prompt = true;
        shared.lock().consume(usize::MAX);
        for stream in targets.keys() {
            smmu.point(StreamId(*stream), Target::Abort).unwrap();
        }
        for space in live.keys() {
            smmu.destroy_space(*space).unwrap();
        }
        prop_assert_eq!(smmu.sync(), Step::Done);
        prop_assert!(shared.lock().tlb().is_empty());
        prop_assert_eq!(shared.lock().frames_used(), idle);
    }
}
