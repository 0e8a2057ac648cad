//! Tests of the facade: real trees, built trees, broken trees.

extern crate std;

mod fuzz;

use super::*;
use alloc::string::{String, ToString};
use alloc::vec;
use vm_fdt::{FdtReserveEntry, FdtWriter};

/// `qemu-system-aarch64 -M virt,virtualization=on,gic-version=3,iommu=smmuv3,dumpdtb=F -cpu cortex-a57 -smp 2 -m 1G
/// -nic none` of QEMU 10.0.2, without the free space at its end.
pub(crate) const QEMU_GICV3: &[u8] = include_bytes!("fixtures/qemu-virt-gicv3.dtb");
/// The same with `gic-version=2`.
pub(crate) const QEMU_GICV2: &[u8] = include_bytes!("fixtures/qemu-virt-gicv2.dtb");

/// Builds a tree from nested closures, with one memory reservation.
pub(crate) fn build(body: impl FnOnce(&mut FdtWriter)) -> Vec<u8> {
    let mut fdt =
        FdtWriter::new_with_mem_reserv(&[FdtReserveEntry::new(0x8000_0000, 0x1000).unwrap()])
            .unwrap();
    node(&mut fdt, "", body);
    fdt.finish().unwrap()
}

pub(crate) fn node(fdt: &mut FdtWriter, name: &str, body: impl FnOnce(&mut FdtWriter)) {
    let node = fdt.begin_node(name).unwrap();
    body(fdt);
    fdt.end_node(node).unwrap();
}

pub(crate) fn cells(fdt: &mut FdtWriter, name: &str, cells: &[u32]) {
    fdt.property_array_u32(name, cells).unwrap();
}

const LONG: &str =
    "a-node-name-of-a-real-board-that-is-longer-than-the-specification-allows@12345678";

/// Gives the node `long` the name `LONG` and the last property name a longer one, which vm-fdt refuses to write.
fn lengthen(mut blob: Vec<u8>) -> Vec<u8> {
    let name = word_at(&blob, u32::from_be_bytes(*b"long"), structure(&blob));
    let mut text = LONG.as_bytes().to_vec();
    text.resize((LONG.len() + 1).next_multiple_of(4), 0);
    let growth = (text.len() - 8) as u32;
    blob.splice(name..name + 8, text);
    // totalsize, off_dt_strings, size_dt_struct
    for at in [4, 12, 36] {
        let value = u32::from_be_bytes(blob[at..at + 4].try_into().unwrap());
        set(&mut blob, at, value + growth);
    }
    // The strings block is the last, and this name the last in it.
    assert_eq!(blob.pop(), Some(0));
    blob.extend_from_slice(b"-name-that-is-longer-than-thirty-one-characters\0");
    for at in [4, 32] {
        let value = u32::from_be_bytes(blob[at..at + 4].try_into().unwrap());
        set(&mut blob, at, value + 47);
    }
    blob
}

/// A tree with a bus, a nexus, a controller behind it and names of any length.
pub(crate) fn small() -> Vec<u8> {
    let blob = build(|fdt| {
        cells(fdt, "#address-cells", &[2]);
        cells(fdt, "#size-cells", &[2]);
        cells(fdt, "interrupt-parent", &[1]);
        node(fdt, "aliases", |fdt| {
            fdt.property_string("serial0", "/soc@0/uart@1000").unwrap()
        });
        node(fdt, "chosen", |fdt| {
            fdt.property_string("stdout-path", "serial0:115200n8")
                .unwrap()
        });
        node(fdt, "gic@8000000", |fdt| {
            fdt.property_string("compatible", "arm,gic-v3").unwrap();
            cells(fdt, "#interrupt-cells", &[3]);
            cells(
                fdt,
                "reg",
                &[0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, 0x4_0000],
            );
            cells(fdt, "interrupts", &[1, 9, 4]);
            fdt.property_phandle(1).unwrap();
        });
        node(fdt, "soc@0", |fdt| {
            fdt.property_string("compatible", "simple-bus").unwrap();
            cells(fdt, "#address-cells", &[1]);
            cells(fdt, "#size-cells", &[1]);
            cells(
                fdt,
                "ranges",
                &[0, 1, 0x4000_0000, 0x1_0000, 0x10_0000, 2, 0, 0x1000],
            );
            node(fdt, "uart@1000", |fdt| {
                fdt.property_string_list(
                    "compatible",
                    vec!["arm,pl011".into(), "arm,primecell".into()],
                )
                .unwrap();
                cells(fdt, "reg", &[0x1000, 0x1000]);
                cells(fdt, "interrupts", &[0, 5, 4, 0, 6, 1]);
                fdt.property_string_list("interrupt-names", vec!["rx".into(), "tx".into()])
                    .unwrap();
                fdt.property_string("status", "okay").unwrap();
            });
            node(fdt, "nexus", |fdt| {
                cells(fdt, "#address-cells", &[1]);
                cells(fdt, "#interrupt-cells", &[1]);
                cells(fdt, "interrupt-map-mask", &[0xf000, 3]);
                cells(
                    fdt,
                    "interrupt-map",
                    &[0x1000, 1, 1, 0, 40, 4, 0x2000, 1, 1, 0, 41, 1],
                );
                cells(fdt, "#size-cells", &[0]);
                fdt.property_phandle(2).unwrap();
                node(fdt, "child@2004", |fdt| {
                    cells(fdt, "reg", &[0x2004]);
                    cells(fdt, "interrupts", &[5]);
                });
            });
            node(fdt, "split", |fdt| {
                cells(fdt, "interrupts-extended", &[1, 1, 7, 4, 2, 1]);
                cells(fdt, "reg", &[0x2_0000, 0x10]);
                fdt.property_string("status", "disabled").unwrap();
            });
        });
        node(fdt, "long", |fdt| {
            cells(fdt, "a-property", &[7]);
        });
    });
    lengthen(blob)
}

#[test]
fn a_small_tree_reads_as_it_was_written() {
    let blob = small();
    let tree = Tree::new(&blob).unwrap();
    assert_eq!(tree.total_size(), blob.len());
    assert_eq!(
        tree.memory_reservations().collect::<Vec<_>>(),
        [Region {
            address: 0x8000_0000,
            size: 0x1000
        }]
    );
    let uart = tree.find("serial0").unwrap();
    assert_eq!(uart.path(), "/soc@0/uart@1000");
    assert_eq!(
        (uart.base_name(), uart.unit_address()),
        ("uart", Some("1000"))
    );
    assert_eq!(
        uart.compatible().collect::<Vec<_>>(),
        ["arm,pl011", "arm,primecell"]
    );
    assert!(uart.is_compatible(&["arm,primecell"]));
    assert!(
        !uart.is_compatible(&["arm,pl01", "arm,pl0111"]),
        "names match exactly"
    );
    assert_eq!(
        uart.reg().unwrap(),
        [Region {
            address: 0x1000,
            size: 0x1000
        }]
    );
    assert_eq!(
        uart.cpu_reg().unwrap(),
        [Region {
            address: 0x1_4000_1000,
            size: 0x1000
        }]
    );
    assert_eq!(uart.parent().unwrap().name(), "soc@0");
    assert_eq!(tree.root().path(), "/");
    assert!(tree.root().parent().is_none());
    assert_eq!(tree.find("/soc/uart").unwrap(), uart);
    assert!(tree.find("/so/uart@1000").is_none());
    assert!(tree.find("/soc@0/uart@100").is_none());
    assert!(tree.find("/soc@0/uart@1000/none").is_none());
    let long = tree.root().child(LONG).unwrap();
    let property = long
        .property("a-property-name-that-is-longer-than-thirty-one-characters")
        .unwrap();
    assert_eq!(property.u32(), Ok(7));
    assert_eq!(tree.by_phandle(2).unwrap().path(), "/soc@0/nexus");
    assert!(tree.by_phandle(3).is_none());
    let names: Vec<_> = tree
        .find("/soc@0")
        .unwrap()
        .children()
        .map(|node| node.name())
        .collect();
    assert_eq!(names, ["uart@1000", "nexus", "split"]);
    assert_eq!(tree.nodes().count(), 10);
}

#[test]
fn interrupts_are_followed_to_their_controller() {
    let blob = small();
    let tree = Tree::new(&blob).unwrap();
    let list = |path: &str| -> Vec<(String, Vec<u32>)> {
        let node = tree.find(path).unwrap();
        node.interrupts()
            .unwrap()
            .iter()
            .map(|one| (one.controller.path(), one.cells.collect()))
            .collect()
    };
    let gic = || String::from("/gic@8000000");
    assert_eq!(
        list("/soc@0/uart@1000"),
        [(gic(), vec![0, 5, 4]), (gic(), vec![0, 6, 1])]
    );
    // The unit address 0x2004 and the specifier 5 match 0x2000 and 1 under the mask.
    assert_eq!(list("/soc@0/nexus/child@2004"), [(gic(), vec![0, 41, 1])]);
    assert_eq!(list("/gic@8000000"), [(gic(), vec![1, 9, 4])]);
    let tx = tree
        .find("serial0")
        .unwrap()
        .interrupt_by_name("tx")
        .unwrap()
        .unwrap();
    assert_eq!(tx.cells.collect::<Vec<_>>(), [0, 6, 1]);
    assert!(
        tree.find("serial0")
            .unwrap()
            .interrupt_by_name("t")
            .unwrap()
            .is_none()
    );
    // Unit address 0x20000 is outside the map.
    let error = tree.find("/soc@0/split").unwrap().interrupts().unwrap_err();
    assert_eq!(
        error.to_string(),
        "/soc@0/nexus: interrupt-map: no entry for an interrupt of /soc@0/split; expected an entry for it"
    );
}

#[test]
fn translation_fails_where_no_window_is() {
    let blob = small();
    let tree = Tree::new(&blob).unwrap();
    let split = tree.find("/soc@0/split").unwrap();
    assert_eq!(
        split.reg().unwrap(),
        [Region {
            address: 0x2_0000,
            size: 0x10
        }]
    );
    let error = split.cpu_reg().unwrap_err().to_string();
    assert!(
        error.starts_with("/soc@0: ranges: no window that holds 0x20000+0x10; expected"),
        "{error}"
    );
    // The second window is taken, too; half a region outside it is refused.
    let soc = tree.find("/soc@0").unwrap();
    let inside = Region {
        address: 0x10_0ff0,
        size: 0x10,
    };
    assert_eq!(
        soc.to_cpu(inside).unwrap(),
        Region {
            address: 0x2_0000_0ff0,
            size: 0x10
        }
    );
    assert!(
        soc.to_cpu(Region {
            address: 0x10_0ff0,
            size: 0x11
        })
        .is_err()
    );
}

#[test]
fn errors_name_node_property_and_both_values() {
    let blob = build(|fdt| {
        cells(fdt, "#address-cells", &[2]);
        fdt.property("#size-cells", &[1, 2, 3]).unwrap();
        node(fdt, "a@1", |fdt| {
            cells(fdt, "reg", &[1, 2]);
            fdt.property("text", b"no end").unwrap();
            fdt.property_string_list("list", vec!["one".into(), "two".into()])
                .unwrap();
            cells(fdt, "link", &[77]);
        });
    });
    let tree = Tree::new(&blob).unwrap();
    let node = tree.find("/a@1").unwrap();
    let text = |result: Result<(), Error>| result.unwrap_err().to_string();
    assert_eq!(
        text(node.reg().map(|_| ())),
        "/: #size-cells: 3 bytes; expected one cell (4 bytes)"
    );
    assert_eq!(
        text(node.property("text").unwrap().string().map(|_| ())),
        "/a@1: text: 6 bytes that are no text ending in NUL; expected a string"
    );
    assert_eq!(
        text(node.property("list").unwrap().string().map(|_| ())),
        "/a@1: list: \"one\\u{0}two\"; expected one string, not a list"
    );
    assert_eq!(
        text(node.property("link").unwrap().phandle().map(|_| ())),
        "/a@1: link: phandle 0x4d, which no node has; expected the phandle of a node"
    );
    assert_eq!(
        text(node.property("reg").unwrap().u32().map(|_| ())),
        "/a@1: reg: 8 bytes; expected one cell (4 bytes)"
    );
}

#[test]
fn numbers_beyond_64_bits_are_refused() {
    let blob = build(|fdt| {
        cells(fdt, "#address-cells", &[3]);
        cells(fdt, "#size-cells", &[1]);
        node(fdt, "fits@1", |fdt| cells(fdt, "reg", &[0, 1, 2, 3]));
        node(fdt, "large@1", |fdt| cells(fdt, "reg", &[1, 1, 2, 3]));
        node(fdt, "wraps@1", |fdt| {
            cells(fdt, "reg", &[0, u32::MAX, u32::MAX, 3])
        });
        node(fdt, "odd@1", |fdt| cells(fdt, "reg", &[0, 1, 2, 3, 4]));
    });
    let tree = Tree::new(&blob).unwrap();
    let reg = |name: &str| tree.root().child(name).unwrap().reg();
    assert_eq!(
        reg("fits@1").unwrap(),
        [Region {
            address: 0x1_0000_0002,
            size: 3
        }]
    );
    for name in ["large@1", "wraps@1", "odd@1"] {
        assert!(reg(name).is_err(), "{name}");
    }
}

/// Offset of the structure block's first word with this value, from `from` on.
fn word_at(blob: &[u8], value: u32, from: usize) -> usize {
    (from..blob.len())
        .step_by(4)
        .find(|at| blob[*at..*at + 4] == value.to_be_bytes())
        .unwrap()
}

fn structure(blob: &[u8]) -> usize {
    u32::from_be_bytes(blob[8..12].try_into().unwrap()) as usize
}

/// Offset of the root's FDT_END_NODE, in front of FDT_END.
fn last_end_node(blob: &[u8]) -> usize {
    structure(blob) + u32::from_be_bytes(blob[36..40].try_into().unwrap()) as usize - 8
}

fn set(blob: &mut [u8], at: usize, value: u32) {
    blob[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

#[test]
fn broken_blobs_are_refused() {
    let good = small();
    assert!(Tree::new(&[]).is_err());
    for length in 0..good.len() {
        assert!(Tree::new(&good[..length]).is_err(), "truncated to {length}");
    }
    let refuses = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut blob = good.clone();
        change(&mut blob);
        let error = Tree::new(&blob).expect_err(what).to_string();
        assert!(error.starts_with("device tree blob: "), "{error}");
    };
    refuses("magic", &|blob| set(blob, 0, 0xd00d_fee0));
    refuses("structure offset", &|blob| set(blob, 8, 0xffff_fffc));
    refuses("unaligned structure", &|blob| {
        let at = structure(blob) as u32;
        set(blob, 8, at + 2);
    });
    refuses("strings offset", &|blob| set(blob, 12, 0xffff_ffff));
    refuses("reservations offset", &|blob| set(blob, 16, 0x7fff_fff8));
    refuses("version 16", &|blob| set(blob, 20, 16));
    refuses("a later format", &|blob| set(blob, 24, 18));
    refuses("strings size", &|blob| set(blob, 32, 3));
    refuses("structure size", &|blob| set(blob, 36, 8));
    refuses("a reservation beyond the end of memory", &|blob| {
        let at = u32::from_be_bytes(blob[16..20].try_into().unwrap()) as usize;
        set(blob, at, u32::MAX);
        set(blob, at + 8, u32::MAX);
    });
    refuses("no root", &|blob| {
        let at = structure(blob);
        set(blob, at, validate::END);
    });
    refuses("property length", &|blob| {
        let at = word_at(blob, validate::PROP, structure(blob));
        set(blob, at + 4, 0xffff_fffd);
    });
    refuses("property name", &|blob| {
        let at = word_at(blob, validate::PROP, structure(blob));
        set(blob, at + 8, 0xffff);
    });
    refuses("unknown token", &|blob| {
        let at = last_end_node(blob);
        set(blob, at, 5);
    });
    refuses("end too early", &|blob| {
        let at = last_end_node(blob);
        set(blob, at, validate::END);
    });
}

#[test]
fn nops_are_skipped_wherever_they_stand() {
    let mut blob = small();
    // Blank out a property of the root and one in the middle, as libfdt's fdt_nop_property does.
    let start = structure(&blob);
    let first = word_at(&blob, validate::PROP, start);
    for at in [first, word_at(&blob, 0x2004, start) - 12] {
        assert_eq!(blob[at..at + 4], validate::PROP.to_be_bytes());
        let length = u32::from_be_bytes(blob[at + 4..at + 8].try_into().unwrap()) as usize;
        for word in (at..at + 12 + length.next_multiple_of(4)).step_by(4) {
            set(&mut blob, word, validate::NOP);
        }
    }
    let tree = Tree::new(&blob).unwrap();
    assert!(tree.root().property("#address-cells").is_none());
    assert_eq!(tree.root().property("#size-cells").unwrap().u32(), Ok(2));
    assert_eq!(tree.nodes().count(), 10);
}

#[test]
fn depth_has_a_limit() {
    let deep = |levels: usize| {
        // By hand: vm-fdt has a limit of its own.
        let mut body: Vec<u32> = vec![validate::BEGIN_NODE, 0];
        for _ in 1..levels {
            body.extend([validate::BEGIN_NODE, u32::from_be_bytes(*b"a\0\0\0")]);
        }
        body.extend(core::iter::repeat_n(validate::END_NODE, levels));
        body.push(validate::END);
        let size = body.len() as u32 * 4;
        let mut words = vec![
            0xd00d_feed,
            56 + size,
            56,
            56 + size,
            40,
            17,
            16,
            0,
            0,
            size,
        ];
        words.extend([0; 4]);
        words.extend(body);
        words
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect::<Vec<u8>>()
    };
    let blob = deep(32);
    assert_eq!(
        Tree::new(&blob)
            .unwrap()
            .nodes()
            .last()
            .unwrap()
            .path()
            .len(),
        62
    );
    let error = Tree::new(&deep(33)).unwrap_err().to_string();
    assert!(
        error.contains("a node too deep; expected at most 32 levels"),
        "{error}"
    );
}

#[test]
fn a_phandle_names_one_node() {
    let blob = build(|fdt| {
        node(fdt, "one", |fdt| cells(fdt, "phandle", &[3]));
        node(fdt, "two", |fdt| cells(fdt, "phandle", &[3]));
    });
    assert_eq!(
        Tree::new(&blob).unwrap_err().to_string(),
        "/two: phandle: 0x3, which /one has already; expected a phandle of its own"
    );
}

/// The `fdt` crate as a second opinion on well-formed trees.
#[test]
fn the_fdt_crate_reads_the_same() {
    fn compare(ours: Node<'_>, theirs: fdt::node::FdtNode<'_, '_>) -> usize {
        assert_eq!(ours.name(), theirs.name.trim_start_matches('/'));
        let properties: Vec<_> = ours
            .properties()
            .map(|one| (one.name(), one.value()))
            .collect();
        assert_eq!(
            properties,
            theirs
                .properties()
                .map(|one| (one.name, one.value))
                .collect::<Vec<_>>()
        );
        let mut others = theirs.children();
        let count = ours
            .children()
            .map(|child| compare(child, others.next().unwrap()))
            .sum::<usize>();
        assert!(others.next().is_none());
        count + 1
    }
    for (blob, count) in [(QEMU_GICV3, 60), (QEMU_GICV2, 60), (small().as_slice(), 10)] {
        let ours = Tree::new(blob).unwrap();
        let theirs = fdt::Fdt::new(blob).unwrap();
        assert_eq!(
            compare(ours.root(), theirs.find_node("/").unwrap()),
            ours.nodes().count()
        );
        assert_eq!(ours.nodes().count(), count);
    }
}
