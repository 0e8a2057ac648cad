//! The generated tree, read back through the facade and compared with QEMU's own.

use super::layout::*;
use super::*;
use crate::config::Machine;
use crate::config::PciFunction;
use crate::config::machine::{Conduit, Gic, WindowKind};
use crate::config::machine::{IntId, Interrupt, Trigger};
use crate::config::{Dma, PassedNode};
use crate::devicetree::tests::{QEMU_GICV2, QEMU_GICV3};
use crate::devicetree::{Node, Tree};
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

fn full() -> GuestTree<'static> {
    GuestTree {
        memory: 256 << 20,
        cpus: 2,
        gic: GicVersion::V3,
        uart: true,
        management: false,
        flash: true,
        pci: true,
        bootargs: "console=ttyAMA0 quiet",
        initrd: Some(Region {
            address: 0x4800_0000,
            size: 0x12_3456,
        }),
        seeds: Some(Seeds {
            rng: [7; 32],
            kaslr: 0x1122_3344_5566_7788,
        }),
        devices: &[],
        fixtures: &[],
        host_memory: &[],
    }
}

/// The tree as a host's: with the maintenance interrupt, which a guest's GIC hasn't, copied node by node.
fn as_host(blob: &[u8]) -> Vec<u8> {
    fn copy(node: &Node<'_>, fdt: &mut FdtWriter) {
        let writer = fdt.begin_node(node.name()).unwrap();
        for property in node.properties() {
            fdt.property(property.name(), property.value()).unwrap();
        }
        if node.is_compatible(&["arm,gic-v3"]) {
            fdt.property_array_u32("interrupts", &[PPI, 9, LEVEL_HIGH])
                .unwrap();
        }
        for child in node.children() {
            copy(&child, fdt);
        }
        fdt.end_node(writer).unwrap();
    }
    let tree = Tree::new(blob).unwrap();
    let mut fdt = FdtWriter::new().unwrap();
    copy(&tree.root(), &mut fdt);
    fdt.finish().unwrap()
}

/// A second UART, at the place of QEMU's secure one: the kernel's ttyAMA1, whether there is a first one or not.
#[test]
fn who_may_manage_has_a_second_uart() {
    for uart in [true, false] {
        let guest = GuestTree {
            uart,
            management: true,
            ..full()
        };
        let blob = build(&guest).unwrap();
        let tree = Tree::new(&blob).unwrap();
        let aliases = tree.find("/aliases").unwrap();
        let alias = |name| aliases.property(name).map(|path| path.string().unwrap());
        assert_eq!(alias("serial0").is_some(), uart);
        assert_eq!(alias("serial1"), Some("/pl011@9040000"));
        let port = tree.find("/pl011@9040000").unwrap();
        assert!(port.is_compatible(&["arm,pl011"]));
        let cells: Vec<u32> = port
            .property("interrupts")
            .unwrap()
            .cells()
            .unwrap()
            .collect();
        assert_eq!(cells, [SPI, 8, LEVEL_HIGH]);
    }
    let blob = build(&full()).unwrap();
    assert!(Tree::new(&blob).unwrap().find("/pl011@9040000").is_none());
}

#[test]
fn the_machine_reads_as_the_layout_says() {
    let blob = as_host(&build(&full()).unwrap());
    let tree = Tree::new(&blob).unwrap();
    let ours = Machine::from_tree(&tree).unwrap();
    let qemu = Machine::from_tree(&Tree::new(QEMU_GICV3).unwrap()).unwrap();
    assert_eq!(
        ours.memory,
        [Region {
            address: RAM_BASE,
            size: 256 << 20
        }]
    );
    let cpus = |machine: &Machine| -> Vec<_> {
        let cpus = machine.cpus.iter();
        cpus.map(|cpu| (cpu.path.clone(), cpu.mpidr, cpu.enable))
            .collect()
    };
    assert_eq!(cpus(&ours), cpus(&qemu));
    assert_eq!(ours.psci.unwrap().conduit, Conduit::Hvc);
    assert_eq!(ours.psci.unwrap().version, qemu.psci.unwrap().version);
    assert_eq!(ours.timer, qemu.timer);
    let (Gic::V3(ours_gic), Gic::V3(qemu_gic)) = (&ours.gic, &qemu.gic) else {
        panic!()
    };
    assert_eq!(ours_gic.distributor, qemu_gic.distributor);
    assert_eq!(
        ours_gic.redistributors,
        [Region {
            address: GICR_BASE,
            size: 2 * GICR_SIZE
        }]
    );
    assert!(qemu_gic.redistributors[0].contains(&ours_gic.redistributors[0]));
    assert_eq!(ours.uart, qemu.uart);
    assert_eq!(ours.rtc, qemu.rtc);
    assert!(ours.rtc.is_some());
    let (host, other) = (&ours.pci_hosts[0], &qemu.pci_hosts[0]);
    assert_eq!((host.ecam, &host.windows), (other.ecam, &other.windows));
    assert_eq!(host.windows[1].kind, WindowKind::Mem32);
    for device in 0..32 {
        let function = PciFunction {
            segment: 0,
            bus: 0,
            device,
            function: 0,
        };
        for pin in 1..=4 {
            let interrupt = host.intx_interrupt(function, pin).unwrap();
            assert_eq!(Some(interrupt), other.intx_interrupt(function, pin));
            assert_eq!(interrupt.intid.0, intx_intid(device, pin - 1));
        }
        assert_eq!(host.stream(function), None, "a guest gets no IOMMU");
    }
}

/// Every node that we write is in QEMU's tree too, and every property that we write has QEMU's value, but for those here.
#[test]
fn nothing_differs_from_qemu_but_what_must() {
    compare(GicVersion::V3, QEMU_GICV3);
}

#[test]
fn nothing_differs_from_qemu_with_a_gicv2() {
    compare(GicVersion::V2, QEMU_GICV2);
}

fn compare(gic: GicVersion, qemu: &[u8]) {
    let differs = [
        ("/", "interrupt-parent"),
        ("/chosen", ""),
        ("/cpus/cpu@0", "compatible"),
        ("/cpus/cpu@1", "compatible"),
        ("/memory@40000000", "reg"),
        ("/psci", "method"),
        ("/psci", "compatible"),
        ("/timer", "compatible"),
        ("/intc@8000000", "reg"),
        // Not in QEMU's tree for want of virtualisation, or numbered differently.
        ("/pl011@9000000", "clocks"),
        ("/pl031@9010000", "clocks"),
        ("/pcie@10000000", "interrupt-map"),
        // To the frame in place of the ITS.
        ("/pcie@10000000", "msi-map"),
    ];
    let blob = build(&GuestTree { gic, ..full() }).unwrap();
    let (ours, qemu) = (Tree::new(&blob).unwrap(), Tree::new(qemu).unwrap());
    for node in ours.nodes() {
        let path = node.path();
        // What QEMU hasn't, or not with a GICv3.
        if node.is_compatible(&["arm,sbsa-gwdt", "arm,gic-v2m-frame"]) {
            continue;
        }
        let other = qemu
            .find(&path)
            .unwrap_or_else(|| panic!("{path} isn't in QEMU's tree"));
        for property in node
            .properties()
            .filter(|property| property.name() != "phandle")
        {
            let name = property.name();
            if differs.contains(&(path.as_str(), name)) || differs.contains(&(path.as_str(), "")) {
                continue;
            }
            let value = other.property(name).map(|property| property.value());
            assert_eq!(Some(property.value()), value, "{path}: {name}");
        }
    }
    for (path, name) in differs.iter().filter(|(_, name)| !name.is_empty()) {
        let value = |tree: &Tree<'_>| {
            tree.find(path)
                .unwrap()
                .property(name)
                .map(|one| one.value().to_vec())
        };
        assert_ne!(value(&ours), value(&qemu), "{path}: {name} doesn't differ");
    }
    let parts = |tree: &Tree<'_>| {
        let map = tree
            .find("/pcie")
            .unwrap()
            .interrupt_map()
            .unwrap()
            .unwrap();
        let rows = map.entries.iter().map(|entry| {
            (
                entry.child.collect::<Vec<_>>(),
                entry.target.controller.path(),
                entry.target.cells.collect::<Vec<_>>(),
            )
        });
        (map.mask.clone(), rows.collect::<Vec<_>>())
    };
    assert_eq!(parts(&ours), parts(&qemu));
}

#[test]
fn chosen_tells_the_kernel_what_it_needs() {
    let blob = build(&full()).unwrap();
    let tree = Tree::new(&blob).unwrap();
    let chosen = tree.find("/chosen").unwrap();
    let value = |name: &str| chosen.property(name).unwrap();
    assert_eq!(value("bootargs").string(), Ok("console=ttyAMA0 quiet"));
    assert_eq!(value("stdout-path").string(), Ok("/pl011@9000000"));
    assert_eq!(value("linux,initrd-start").u64(), Ok(0x4800_0000));
    assert_eq!(value("linux,initrd-end").u64(), Ok(0x4812_3456));
    assert_eq!(value("rng-seed").value(), [7; 32]);
    assert_eq!(value("kaslr-seed").u64(), Ok(0x1122_3344_5566_7788));
    assert!(tree.find_compatible(&["arm,gic-v3-its"]).next().is_none());
    for clock in tree
        .find("/pl011")
        .unwrap()
        .property("clocks")
        .unwrap()
        .cells()
        .unwrap()
    {
        assert!(
            tree.by_phandle(clock)
                .unwrap()
                .is_compatible(&["fixed-clock"])
        );
    }
}

#[test]
fn what_a_domain_lacks_is_left_out() {
    let guest = GuestTree {
        uart: false,
        flash: false,
        pci: false,
        initrd: None,
        bootargs: "",
        seeds: None,
        ..full()
    };
    let blob = build(&guest).unwrap();
    let tree = Tree::new(&blob).unwrap();
    for path in ["/pl011", "/pcie", "/aliases", "/flash"] {
        assert!(tree.find(path).is_none(), "{path}");
    }
    assert_eq!(tree.find("/chosen").unwrap().properties().count(), 0);
    let blob = as_host(&blob);
    let machine = Machine::from_tree(&Tree::new(&blob).unwrap()).unwrap();
    assert!(machine.uart.is_none() && machine.pci_hosts.is_empty());
}

#[test]
fn what_does_not_fit_is_refused() {
    assert_eq!(
        build(&GuestTree {
            memory: 0,
            ..full()
        }),
        Err(Error::Memory(0))
    );
    assert_eq!(
        build(&GuestTree {
            memory: 1 << 40,
            ..full()
        }),
        Err(Error::Memory(1 << 40))
    );
    assert_eq!(build(&GuestTree { cpus: 0, ..full() }), Err(Error::Cpus(0)));
    assert_eq!(
        build(&GuestTree { cpus: 9, ..full() })
            .unwrap_err()
            .to_string(),
        "9 vCPUs; expected 1 to 8"
    );
    let initrd = Region {
        address: RAM_BASE + (256 << 20) - 1,
        size: 2,
    };
    assert_eq!(
        build(&GuestTree {
            initrd: Some(initrd),
            ..full()
        }),
        Err(Error::Initrd(initrd))
    );
    assert!(matches!(
        build(&GuestTree {
            bootargs: "a\0b",
            ..full()
        }),
        Err(Error::Writer(_))
    ));
}

/// What `dtc` warns about: unit addresses that don't match `reg`, `reg` without a unit address, cells that don't fit.
fn check_unit_addresses(node: &Node<'_>) {
    let path = node.path();
    match (node.unit_address(), node.property("reg")) {
        (Some(unit), Some(reg)) if !node.is_compatible(&["pci-host-ecam-generic"]) => {
            let first = match node.reg().unwrap().first() {
                Some(region) => region.address,
                None => panic!("{path}: {reg:?}"),
            };
            assert_eq!(unit, format!("{first:x}"), "{path}");
        }
        (unit, reg) => assert_eq!(unit.is_some(), reg.is_some(), "{path}"),
    }
    let mut names = vec![];
    for child in node.children() {
        assert!(
            !names.contains(&child.name()),
            "{path}: {} twice",
            child.name()
        );
        names.push(child.name());
        check_unit_addresses(&child);
    }
}

/// The registers of the binding `arm,sbsa-gwdt`: control frame first. Nothing else lies there.
#[test]
fn the_watchdog_is_where_nothing_else_is() {
    let blob = build(&full()).unwrap();
    let tree = Tree::new(&blob).unwrap();
    let node = tree.find_compatible(&["arm,sbsa-gwdt"]).next().unwrap();
    let reg = node.reg().unwrap();
    assert_eq!(reg[0].address, WATCHDOG_BASE);
    assert_eq!(reg[1].address, WATCHDOG_BASE + WATCHDOG_FRAME);
    let mut interrupts = vec![];
    for other in tree.nodes() {
        if let Ok(list) = other.interrupts() {
            interrupts.extend(list.iter().map(|one| one.cells.collect::<Vec<_>>()));
        }
        if other.path() != node.path() && other.path().matches('/').count() == 1 {
            for region in other.reg().unwrap_or_default() {
                assert!(
                    !reg.iter().any(|own| own.overlaps(&region)),
                    "{}",
                    other.path()
                );
            }
        }
    }
    let own = interrupts
        .iter()
        .filter(|cells| cells.get(..2) == Some(&[SPI, WATCHDOG_SPI]));
    assert_eq!(own.count(), 1);
}

/// What the bindings `arm,gic-v2m-frame` and `pci-msi` ask for: a frame below the interrupt controller, which is where Linux looks,
/// and a map that leads there from every requester id. Its interrupts are nobody else's.
#[test]
fn messages_lead_to_the_frame() {
    let blob = build(&full()).unwrap();
    let tree = Tree::new(&blob).unwrap();
    let gic = tree.find_compatible(&["arm,gic-v3"]).next().unwrap();
    let frame = gic
        .children()
        .find(|child| child.is_compatible(&["arm,gic-v2m-frame"]))
        .unwrap();
    assert!(frame.property("msi-controller").is_some());
    let reg = frame.reg().unwrap();
    assert_eq!((reg[0].address, reg[0].size), (V2M_BASE, V2M_SIZE));
    let map = tree.find("/pcie").unwrap().property("msi-map").unwrap();
    let map = map.cells().unwrap().collect::<Vec<_>>();
    assert_eq!((map[0], map[2], map[3]), (0, 0, 0x1_0000));
    assert_eq!(tree.by_phandle(map[1]).unwrap().path(), frame.path());
    for node in tree.nodes() {
        let others = node.interrupts().into_iter().flat_map(|list| {
            let cells = list.iter().map(|one| one.cells.collect::<Vec<_>>());
            cells.collect::<Vec<_>>()
        });
        for cells in others {
            let shared = cells[0] == SPI && (V2M_SPI..SPIS).contains(&cells[1]);
            assert!(!shared, "{}", node.path());
        }
    }
    const { assert!(32 + SPIS - V2M_FIRST >= V2M_SPIS) };
}

proptest! {
    #[test]
    fn every_tree_is_well_formed(
        memory in 1_u64..=(RAM_END - RAM_BASE) >> 21,
        cpus in 1_u32..=CPU_LIMIT,
        uart: bool,
        pci: bool,
        bootargs in "[ -~]{0,80}",
    ) {
        let guest = GuestTree { memory: memory << 21, cpus, uart, pci, bootargs: &bootargs, ..full() };
        let guest = if guest.memory < 256 << 20 { GuestTree { initrd: None, ..guest } } else { guest };
        let blob = build(&guest).unwrap();
        let tree = Tree::new(&blob).unwrap();
        check_unit_addresses(&tree.root());
        let blob = as_host(&blob);
    let machine = Machine::from_tree(&Tree::new(&blob).unwrap()).unwrap();
        prop_assert_eq!(machine.memory[0].size, guest.memory);
        prop_assert_eq!(machine.cpus.len(), cpus as usize);
        prop_assert_eq!(machine.uart.is_some(), uart);
        prop_assert_eq!(machine.pci_hosts.len(), usize::from(pci));
    }
}

fn passed(path: &str, dma: Dma, clocks: &[u32]) -> Passed {
    let interrupt = |number, trigger| Interrupt {
        intid: IntId::spi(number),
        trigger,
    };
    Passed::Node(PassedNode {
        path: path.into(),
        name: "device".into(),
        registers: vec![Region {
            address: 0xe000_0000,
            size: 0x50,
        }],
        interrupts: vec![
            interrupt(300, Trigger::Level),
            interrupt(301, Trigger::Edge),
        ],
        dma,
        clocks: clocks.to_vec(),
        properties: vec![("compatible".into(), b"vendor,device\0".to_vec())],
    })
}

/// Devices of the domain's own stand on buses that say what their DMA addresses, with registers, interrupts and clocks of this tree.
#[test]
fn devices_given_to_the_domain_are_in_its_tree() {
    let function = PciFunction {
        segment: 0,
        bus: 0,
        device: 2,
        function: 0,
    };
    let devices = [
        passed("/one", Dma::None, &[24_000_000, 1_000]),
        Passed::Pci(function, coproc_core::id::StreamId(0)),
        passed("/two", Dma::Unconfined, &[]),
    ];
    let host_memory = [(0x8000_0000, 0x800_0000), (0x1_0000_0000, 0x800_0000)]
        .map(|(address, size)| Region { address, size });
    let fixture = |path, dma| match passed(path, dma, &[48_000_000]) {
        Passed::Node(node) => Fixture {
            coproc: coproc_core::id::CoprocId(0),
            node,
        },
        Passed::Pci(..) => unreachable!(),
    };
    let fixtures = [
        fixture("/three", Dma::None),
        fixture("/four", Dma::Unconfined),
    ];
    let guest = GuestTree {
        devices: &devices,
        fixtures: &fixtures,
        host_memory: &host_memory,
        ..full()
    };
    let blob = as_host(&build(&guest).unwrap());
    let tree = Tree::new(&blob).unwrap();
    let one = tree.find("/passthrough/device@c200000").unwrap();
    assert!(one.is_compatible(&["vendor,device"]));
    assert_eq!(
        one.cpu_reg().unwrap(),
        [Region {
            address: PASSTHROUGH_BASE,
            size: 0x50
        }]
    );
    let cells: Vec<Vec<u32>> = one
        .interrupts()
        .unwrap()
        .iter()
        .map(|one| one.cells.collect())
        .collect();
    assert_eq!(cells, [[0, 16, 4], [0, 17, 1]]);
    let clocks: Vec<u32> = one.property("clocks").unwrap().cells().unwrap().collect();
    let frequencies: Vec<u32> = clocks
        .iter()
        .map(|phandle| {
            let clock = tree.by_phandle(*phandle).unwrap();
            clock.property("clock-frequency").unwrap().u32().unwrap()
        })
        .collect();
    assert_eq!(frequencies, [24_000_000, 1_000]);
    let bus = tree.find("/passthrough").unwrap();
    assert_eq!(bus.property("dma-ranges").unwrap().value(), [0; 0]);
    let bus = tree.find("/passthrough-unconfined").unwrap();
    let ranges: Vec<u32> = bus
        .property("dma-ranges")
        .unwrap()
        .cells()
        .unwrap()
        .collect();
    assert_eq!(
        ranges,
        [
            0,
            0x8000_0000,
            0,
            0x4000_0000,
            0,
            0x800_0000,
            1,
            0,
            0,
            0x4800_0000,
            0,
            0x800_0000
        ]
    );
    assert!(bus.child("device@c201000").is_some());
    // Coprocs of the tree come behind them, on buses of their own.
    let shared = tree.find("/coprocs/device@c202000").unwrap();
    let cells: Vec<Vec<u32>> = shared
        .interrupts()
        .unwrap()
        .iter()
        .map(|one| one.cells.collect())
        .collect();
    assert_eq!(cells, [[0, 21, 4], [0, 22, 1]]);
    let clock = shared.property("clocks").unwrap();
    let clock = clock.resolve(clock.u32().unwrap()).unwrap();
    let frequency = clock.property("clock-frequency").unwrap().u32().unwrap();
    assert_eq!(frequency, 48_000_000);
    let shared = tree.find("/coprocs-unconfined").unwrap();
    assert!(shared.child("device@c203000").is_some());
    assert_eq!(
        shared.property("dma-ranges").unwrap().value(),
        bus.property("dma-ranges").unwrap().value()
    );
    // The function's interrupt is its own whatever its pin, and everybody else's is where it was.
    let machine = Machine::from_tree(&tree).unwrap();
    let host = &machine.pci_hosts[0];
    for device in 0..32 {
        let function = PciFunction { device, ..function };
        for pin in 1..=4 {
            let intid = host.intx_interrupt(function, pin).unwrap().intid.0;
            let swizzled = intx_intid(device, pin - 1);
            assert_eq!(intid, if device == 31 { 32 + 18 } else { swizzled });
        }
    }
}
