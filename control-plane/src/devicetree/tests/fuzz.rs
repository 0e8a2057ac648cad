//! Mutated trees: nothing may panic, whatever is asked of them.

use super::*;
use crate::config::{Configuration, Known, KnownName, Machine};
use std::thread;

/// Mutations unless the environment variable `BATON_FUZZ_ITERATIONS` says otherwise.
const ITERATIONS: u64 = 100_000;

/// xorshift64*: repeatable, and fast.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        ((self.next() >> 32) as usize) % limit
    }
}

const INTERESTING: [u32; 16] = [
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    9,
    0x7f,
    0xff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff0,
    0xffff_fffc,
    u32::MAX,
];

fn mutate(blob: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let length = blob.len();
        let word = random.below(length / 4) * 4;
        match random.below(8) {
            0 => blob[random.below(length)] ^= 1 << random.below(8),
            1 => blob[random.below(length)] = random.next() as u8,
            2 | 3 => set(blob, word, INTERESTING[random.below(INTERESTING.len())]),
            4 => {
                // A word from elsewhere: phandles, tokens, lengths that mean something.
                let from = random.below(length / 4) * 4;
                blob.copy_within(from..from + 4, word);
            }
            5 => set(blob, random.below(10) * 4, random.below(length * 2) as u32),
            6 => {
                // A length or count off by little.
                let value = u32::from_be_bytes(blob[word..word + 4].try_into().unwrap());
                set(
                    blob,
                    word,
                    value.wrapping_add(random.below(17) as u32).wrapping_sub(8),
                );
            }
            _ if random.below(16) == 0 => blob.truncate(length - random.below(length / 2)),
            _ => blob[random.below(length)] = [0, b'@', b'/', b':', b',', 0xff][random.below(6)],
        }
    }
}

const KNOWN: Known<'static> = Known {
    drivers: &[KnownName {
        name: "qemu,edu",
        feature: "edu",
        compiled_in: true,
    }],
    schedulers: &[KnownName {
        name: "rr",
        feature: "rr",
        compiled_in: true,
    }],
};

/// Asks for everything; returns how many questions were answered.
fn walk(tree: &Tree<'_>) -> usize {
    let mut answers = tree.memory_reservations().count();
    for node in tree.nodes() {
        let path = node.path();
        answers += usize::from(tree.find(&path).is_some());
        answers += node.unit_address().map_or(0, str::len)
            + node.base_name().len()
            + node.children().count();
        answers += node.compatible().count();
        answers += usize::from(node.is_available()) + usize::from(node.is_dma_coherent());
        for property in node.properties() {
            answers += usize::from(property.u32().is_ok()) + usize::from(property.u64().is_ok());
            answers += property.string().map_or(0, str::len);
            answers += property.strings().map_or(0, Iterator::count);
            answers += property.phandle().map_or(0, |target| target.name().len());
            answers += property.cells().map_or(0, Iterator::count);
            answers += property.groups(3).map_or(0, Iterator::count);
        }
        answers += node
            .cpu_reg()
            .map_or_else(|error| error.to_string().len(), |list| list.len());
        answers += node
            .interrupts()
            .map_or_else(|error| error.to_string().len(), |list| list.len());
        answers += node
            .interrupt_by_name("eventq")
            .map_or(0, |found| usize::from(found.is_some()));
        answers += node
            .interrupt_map()
            .map_or(0, |map| map.map_or(0, |map| map.entries.len()));
    }
    answers += tree.find_compatible(&["arm,pl011"]).count();
    let machine = Machine::from_tree(tree);
    answers += usize::from(machine.is_ok());
    if let Ok(machine) = machine {
        answers += machine.free_memory(&[]).len();
        for host in &machine.pci_hosts {
            let function = crate::config::PciFunction {
                segment: 0,
                bus: 0,
                device: 1,
                function: 0,
            };
            answers += usize::from(host.intx_interrupt(function, 1).is_some());
            answers += usize::from(host.stream(function).is_some());
            answers += usize::from(host.configuration_space(function).is_some());
        }
        let configuration = Configuration::from_tree(tree, &machine, &KNOWN);
        answers += configuration
            .errors()
            .map(|error| error.to_string().len())
            .sum::<usize>();
        answers += configuration.module_regions().count();
    }
    answers
}

#[test]
fn mutated_trees_never_panic() {
    let iterations = std::env::var("BATON_FUZZ_ITERATIONS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(ITERATIONS);
    let workers = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let bases = [
        small(),
        crate::config::tests::two_domains(),
        QEMU_GICV3.to_vec(),
        QEMU_GICV2.to_vec(),
    ];
    for base in &bases {
        assert!(walk(&Tree::new(base).unwrap()) > 50);
    }
    let (parsed, answers) = thread::scope(|scope| {
        let run = |worker: u64| {
            let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (worker + 1));
            let mut sums = (0_u64, 0_usize);
            let mut blob = Vec::new();
            for _ in (worker..iterations).step_by(workers as usize) {
                // The large ones less often, for the time they take.
                let base =
                    &bases[[0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3][random.below(16)]];
                blob.clear();
                blob.extend_from_slice(base);
                mutate(&mut blob, &mut random);
                if let Ok(tree) = Tree::new(&blob) {
                    sums.0 += 1;
                    sums.1 += walk(&tree);
                }
            }
            sums
        };
        let handles: Vec<_> = (0..workers)
            .map(|worker| scope.spawn(move || run(worker)))
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap())
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    });
    // The mutations are worth something only if many trees get past the first check, and many don't.
    std::println!("{parsed} of {iterations} trees parsed, {answers} answers");
    assert!(
        parsed > iterations / 5 && parsed < iterations * 4 / 5,
        "{parsed} of {iterations}"
    );
}
