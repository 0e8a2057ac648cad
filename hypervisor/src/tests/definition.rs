//! A domain that is gone comes back from a file: whole, or as it was.

use super::boards::{
    self, A76, KERNEL_SIZE, MEMORY, Wanted, cells, first_word, kernel_at, node, text,
};
use super::exits::smccc;
use crate::arch::fake::{self, Cpu, in_own_process};
use alloc::string::String;
use alloc::vec::Vec;
use base64ct::{Base64, Encoding as _};
use hypervisor::devicetree::Tree;
use hypervisor::guest_tree::layout;
use hypervisor::vgic::Version;
use std::format;
use std::time::Duration;
use vm_fdt::FdtWriter;

/// A file with a domain.
struct File {
    number: u32,
    cpus: u32,
    memory: u64,
    /// Where its kernel is.
    kernel: u64,
    bootargs: &'static str,
    /// Phandle of its coproc; 2 is coproc 0, 3 is coproc 1.
    coproc: Option<u32>,
}

/// As it is at boot.
const BOOT: File = File {
    number: 2,
    cpus: 1,
    memory: MEMORY,
    kernel: kernel_at(2),
    bootargs: "number=2",
    coproc: None,
};

impl File {
    fn blob(&self) -> Vec<u8> {
        let mut fdt = FdtWriter::new().unwrap();
        node(&mut fdt, "", |fdt| {
            node(fdt, "chosen", |fdt| {
                node(fdt, "coprocs", |fdt| {
                    for number in [0, 1] {
                        node(fdt, &format!("coproc@{number}"), |fdt| {
                            cells(fdt, "reg", &[number]);
                            cells(fdt, "phandle", &[2 + number]);
                        });
                    }
                });
                node(fdt, &format!("domain@{:x}", self.number), |fdt| {
                    self.write(fdt);
                });
            });
        });
        fdt.finish().unwrap()
    }

    fn write(&self, fdt: &mut FdtWriter) {
        text(fdt, "compatible", "xen,domain");
        cells(fdt, "cpus", &[self.cpus]);
        cells(fdt, "memory", &[0, (self.memory >> 10) as u32]);
        cells(fdt, "baton,cpu-affinity", &[1]);
        if let Some(coproc) = self.coproc {
            cells(fdt, "baton,coprocs", &[coproc]);
        }
        fdt.property_null("vpl011").unwrap();
        node(fdt, "module", |fdt| {
            text(fdt, "compatible", "multiboot,kernel");
            cells(fdt, "reg", &[0, self.kernel as u32, KERNEL_SIZE as u32]);
            text(fdt, "bootargs", self.bootargs);
        });
    }

    /// Types it in, and what is to be done with it; returns the answer.
    fn define(&self) -> String {
        let mut offset = 0;
        for part in self.blob().chunks(120) {
            let mut buffer = [0; 160];
            let part64 = Base64::encode(part, &mut buffer).unwrap();
            let said = command(&format!("file put {offset} {part64}"));
            offset += part.len();
            assert!(said.contains(&format!("file bytes={offset}")), "{said}");
        }
        command(&format!("domain define d{}", self.number))
    }
}

/// The end of an answer.
const DONE: &str = "[baton] ok";

/// Types a command; returns what is said then and in the following second.
fn command(line: &str) -> String {
    let before = fake::console().len();
    fake::type_in(&format!("{line}\r"));
    fake::pass(Duration::from_secs(1));
    fake::console()[before..].into()
}

fn create() {
    let said = command("domain create d2");
    assert!(said.contains("d2: created, starts"), "{said}");
}

fn destroy() {
    let said = command("domain destroy d2");
    assert!(said.contains("d2: destroyed"), "{said}");
}

/// What the domain on this CPU is: bytes of RAM, first word of its kernel, and its command line.
fn found(cpu: Cpu) -> (u64, Option<u64>, String) {
    assert!(cpu.is_in_guest(), "{}", fake::console());
    let guest = cpu.guest();
    let size = cpu.guest_load(guest.x[0]).unwrap() >> 32;
    let size = u64::from(u32::from_be(size as u32));
    let words = (0..size.div_ceil(8)).map(|word| cpu.guest_load(guest.x[0] + word * 8));
    let blob: Vec<u8> = words.flat_map(|word| word.unwrap().to_le_bytes()).collect();
    let tree = Tree::new(&blob).unwrap();
    let bootargs = tree.find("/chosen").unwrap().property("bootargs").unwrap();
    let pages = (layout::RAM_BASE..).step_by(0x1000);
    let ram = pages.take_while(|page| cpu.guest_load(*page).is_some());
    (
        ram.count() as u64 * 0x1000,
        cpu.guest_load(guest.elr),
        bootargs.string().unwrap().into(),
    )
}

#[test]
fn a_domain_comes_back_as_its_file_says_and_as_it_was() {
    in_own_process(|| {
        let [_, cpu] = boards::two(Version::V3, A76);
        let of_boot = (MEMORY, Some(first_word(2)), String::from("number=2"));
        assert_eq!(found(cpu), of_boot);
        let other = File {
            memory: MEMORY * 2,
            kernel: kernel_at(1),
            bootargs: "of=file",
            ..BOOT
        };
        let said = other.define();
        let refused = "error: a domain that is running can't be defined, `domains` tells its state";
        assert!(said.contains(refused), "{said}");
        destroy();

        // Each with a mistake, which is told; and the domain is what it was at boot.
        let mistakes = [
            (
                File { cpus: 2, ..other },
                "cpus: 2; expected at most 1, as it was before",
            ),
            (
                File {
                    memory: 5 << 10,
                    ..other
                },
                "memory: 5 KiB; expected a multiple of 2048 KiB",
            ),
            (
                File {
                    kernel: kernel_at(1) + 8,
                    ..other
                },
                "which is not kept since boot; expected",
            ),
            (
                File {
                    coproc: Some(3),
                    ..other
                },
                "baton,coprocs: phandle 0x3 names /chosen/coprocs/coproc@1, which has a mistake",
            ),
        ];
        for (file, mistake) in mistakes {
            let said = file.define();
            assert!(said.contains(mistake), "{mistake}\n{said}");
            assert!(said.contains("mistakes, nothing was changed"), "{said}");
        }
        create();
        assert_eq!(found(cpu), of_boot);
        destroy();

        let said = other.define();
        assert!(said.contains(DONE), "{said}");
        // Once is enough: the file is gone.
        let said = command("domain define d2");
        assert!(said.contains("error: no file of yours is here"), "{said}");
        for _ in 0..2 {
            create();
            let expected = (MEMORY * 2, Some(first_word(1)), String::from("of=file"));
            assert_eq!(found(cpu), expected);
            let told = command("domains");
            assert!(
                told.contains("id=d2 state=running vcpus=1 memory_mib=8"),
                "{told}"
            );
            destroy();
        }

        let said = BOOT.define();
        assert!(said.contains(DONE), "{said}");
        create();
        assert_eq!(found(cpu), of_boot);
    });
}

/// What is right in itself, but can't be had: creating it fails as a whole, and the configuration stays for another try.
#[test]
fn a_domain_that_can_not_be_made_from_its_file_stays_gone() {
    in_own_process(|| {
        let [_, cpu] = boards::two(Version::V3, A76);
        destroy();
        let free = || crate::system::FRAMES.lock().total();
        let before = free();
        let said = File {
            memory: 1 << 30,
            ..BOOT
        }
        .define();
        assert!(said.contains(DONE), "{said}");
        let said = command("domain create d2");
        assert!(
            said.contains("memory: 1048576 KiB; expected at most"),
            "{said}"
        );
        assert!(said.contains("d2: destroyed"), "{said}");
        assert_eq!(free(), before);
        assert!(!cpu.is_in_guest());
        BOOT.define();
        create();
        assert_eq!(found(cpu).0, MEMORY);
    });
}

/// It has fewer vCPUs than its place, and more again: as many as it may start, and as its tree has.
#[test]
fn vcpus_that_a_file_leaves_out_stay_off() {
    in_own_process(|| {
        boards::start(Wanted {
            gic: Version::V3,
            domains: &[&[0], &[1, 1]],
            ..Wanted::default()
        });
        let cpu = Cpu(1);
        const CPU_ON: u64 = 0xc400_0003;
        const INVALID_PARAMETERS: u32 = -2_i32 as u32;
        let second = || smccc(cpu, [CPU_ON, 1, layout::RAM_BASE + MEMORY, 0]).unwrap()[0] as u32;
        // No RAM is there (PSCI: invalid address), and nothing starts.
        let there = second();
        assert_ne!(there, INVALID_PARAMETERS);
        for (cpus, answer) in [(1, INVALID_PARAMETERS), (2, there)] {
            destroy();
            let said = File { cpus, ..BOOT }.define();
            assert!(said.contains(DONE), "{said}");
            create();
            assert_eq!(second(), answer, "{cpus} vCPUs");
            let told = command("domains");
            assert!(
                told.contains(&format!("id=d2 state=running vcpus={cpus} ")),
                "{told}"
            );
        }
    });
}

/// A coproc is given and taken by a file, with its place in the domain's tree.
#[cfg(feature = "sharing")]
#[test]
fn a_coproc_is_given_and_taken_by_a_file() {
    in_own_process(|| {
        boards::start(Wanted {
            gic: Version::V3,
            coproc: Some(boards::Shared::Accumulator),
            ..Wanted::default()
        });
        let shared = || command("coproc query 0").contains("domain=d2");
        assert!(shared());
        destroy();
        for has in [false, true] {
            let coproc = has.then_some(2);
            let said = File { coproc, ..BOOT }.define();
            assert!(said.contains(DONE), "{said}");
            create();
            assert_eq!(shared(), has);
            let domain = &crate::system::get().unwrap().domains[1];
            assert_eq!(domain.fixtures.read().len(), usize::from(has));
            destroy();
        }
        let gone = File {
            coproc: Some(3),
            ..BOOT
        }
        .define();
        assert!(
            gone.contains("coproc@1: reg: 1; expected the number of a coproc of this"),
            "{gone}"
        );
    });
}

/// A number that boot knew nothing of: a domain with a place of its own, on a CPU that it shares, and with a console.
#[test]
fn a_new_domain_comes_from_a_file() {
    in_own_process(|| {
        let [_, cpu] = boards::two(Version::V3, A76);
        let new = File {
            number: 9,
            memory: MEMORY * 2,
            bootargs: "new=9",
            coproc: Some(2),
            ..BOOT
        };
        let known = || {
            let said = command("domains");
            said.lines()
                .filter(|line| line.contains("domain id="))
                .count()
        };
        // There's no coproc: nothing of it is known then.
        let said = new.define();
        assert!(said.contains("2 mistakes, nothing was changed"), "{said}");
        assert!(command("domain create d9").contains("error: no domain d9"));
        assert_eq!(known(), 2);
        let new = File {
            coproc: None,
            ..new
        };
        // Nor where its pool has no CPU for it.
        command("pool set 0 scheduler null");
        let said = new.define();
        let refused = "mistake /chosen/domain@9: ";
        assert!(
            said.contains(refused) && said.contains("in pool 0 (null)"),
            "{said}"
        );
        assert_eq!(known(), 2);
        command("pool set 0 scheduler weighted");
        let said = new.define();
        assert!(said.contains(DONE), "{said}");
        assert_eq!(known(), 3);
        let said = command("domain create d9");
        assert!(
            said.contains("d9: created, starts (/chosen/domain@9)"),
            "{said}"
        );
        destroy();
        let expected = (MEMORY * 2, Some(first_word(2)), String::from("new=9"));
        assert_eq!(found(cpu), expected);
        assert!(command("console d9").contains("input to d9"));
        fake::type_in("\u{1}\u{1}\u{1}");
        // It can be changed like any other.
        assert!(command("domain destroy d9").contains("d9: destroyed"));
        let said = File {
            bootargs: "again",
            ..new
        }
        .define();
        assert!(said.contains(DONE), "{said}");
        command("domain create d9");
        assert_eq!(found(cpu).2, "again");
        assert_eq!(known(), 3);

        // Until there is no place left.
        for number in 10..41 {
            let said = File { number, ..new }.define();
            assert!(said.contains(DONE), "{number}: {said}");
        }
        let said = File { number: 41, ..new }.define();
        let full = "error: no place is left for a new domain, use the number of one that is gone";
        assert!(said.contains(full), "{said}");
        assert_eq!(known(), 34);
    });
}
