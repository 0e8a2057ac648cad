//! An interrupt controller: which interrupts are enabled, pending and active. GICv2 and GICv3 have the same registers for that, in other places.

use hypervisor::vgic::Version;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

/// An interrupt: whose, if it is private, and its number.
pub type Id = (Option<usize>, u32);

/// The state of all interrupts.
pub struct Gic {
    version: Version,
    enabled: BTreeSet<Id>,
    pending: BTreeSet<Id>,
    active: BTreeSet<Id>,
    /// Who sent an SGI.
    senders: BTreeMap<Id, usize>,
    /// Registers that only keep what they're given, byte by byte: GICD's, and each CPU's.
    bytes: BTreeMap<(Option<usize>, u64), u8>,
}

/// Interrupts that there are.
const COUNT: u32 = 288;
const ITARGETSR: u64 = 0x800;
const IROUTER: u64 = 0x6000;

fn id(cpu: usize, intid: u32) -> Id {
    ((intid < 32).then_some(cpu), intid)
}

impl Gic {
    /// After reset.
    pub const fn new(version: Version) -> Self {
        Self {
            version,
            enabled: BTreeSet::new(),
            pending: BTreeSet::new(),
            active: BTreeSet::new(),
            senders: BTreeMap::new(),
            bytes: BTreeMap::new(),
        }
    }

    /// Whether the CPU is the one that a shared interrupt goes to.
    fn targets(&self, cpu: usize, intid: u32) -> bool {
        let byte = |at| self.bytes.get(&(None, at)).copied().unwrap_or(0);
        match self.version {
            Version::V2 => byte(ITARGETSR + u64::from(intid)) & 1 << cpu != 0,
            Version::V3 => usize::from(byte(IROUTER + u64::from(intid) * 8)) == cpu,
        }
    }

    /// What the CPU takes next.
    pub fn most_urgent(&self, cpu: usize, levels: &BTreeSet<Id>) -> Option<u32> {
        let waits = self.pending.iter().chain(levels);
        let mut for_this: Vec<u32> = waits
            .filter(|id| self.enabled.contains(id) && !self.active.contains(id))
            .filter(|(of, intid)| match of {
                Some(of) => *of == cpu,
                None => self.targets(cpu, *intid),
            })
            .map(|(_, intid)| *intid)
            .collect();
        for_this.sort_unstable();
        for_this.first().copied()
    }

    /// It does. An SGI of a GICv2 brings its sender along.
    pub fn acknowledge(&mut self, cpu: usize, levels: &BTreeSet<Id>) -> Option<u32> {
        let intid = self.most_urgent(cpu, levels)?;
        let id = id(cpu, intid);
        self.pending.remove(&id);
        self.active.insert(id);
        let sender = match self.version {
            Version::V2 => self.senders.remove(&id).unwrap_or(0) as u32,
            Version::V3 => 0,
        };
        Some(sender << 10 | intid)
    }

    /// The end of it.
    pub fn deactivate(&mut self, cpu: usize, intid: u32) {
        self.active.remove(&id(cpu, intid & 0x3ff));
    }

    /// Makes an interrupt pending.
    pub fn raise(&mut self, cpu: usize, intid: u32, sender: usize) {
        let id = id(cpu, intid);
        self.pending.insert(id);
        self.senders.insert(id, sender);
    }

    /// Whether it is active.
    pub fn is_active(&self, cpu: usize, intid: u32) -> bool {
        self.active.contains(&id(cpu, intid))
    }

    fn bits(&self, set: &BTreeSet<Id>, cpu: usize, word: u32) -> u32 {
        (0..32).fold(0, |bits, bit| {
            bits | u32::from(set.contains(&id(cpu, word * 32 + bit))) << bit
        })
    }

    /// A register of the distributor, or of the SGI frame of this CPU's redistributor (`private`).
    pub fn load(&self, cpu: usize, private: bool, offset: u64, bytes: u64) -> u64 {
        let word = (offset & 0x7f) as u32 / 4;
        let set = match offset {
            0x100..0x200 => &self.enabled,
            0x200..0x300 => &self.pending,
            0x300..0x400 => &self.active,
            4 if !private => return u64::from(COUNT / 32 - 1),
            ITARGETSR..0x820 if !private => return 0x0101_0101 << cpu,
            _ => {
                let of = self.owner(cpu, private, offset);
                return (0..bytes).fold(0, |value, byte| {
                    let stored = self.bytes.get(&(of, offset + byte)).copied().unwrap_or(0);
                    value | u64::from(stored) << (8 * byte)
                });
            }
        };
        u64::from(self.bits(set, cpu, word))
    }

    /// Likewise written.
    pub fn store(&mut self, cpu: usize, private: bool, offset: u64, bytes: u64, value: u64) {
        let set = match offset {
            0x100..0x200 => &mut self.enabled,
            0x200..0x300 => &mut self.pending,
            0x300..0x400 => &mut self.active,
            _ => {
                let of = self.owner(cpu, private, offset);
                for byte in 0..bytes {
                    self.bytes
                        .insert((of, offset + byte), (value >> (8 * byte)) as u8);
                }
                return;
            }
        };
        let word = (offset & 0x7f) as u32 / 4;
        for bit in (0..32).filter(|bit| value & 1 << bit != 0) {
            let id = id(cpu, word * 32 + bit);
            if offset & 0x80 == 0 {
                set.insert(id);
            } else {
                set.remove(&id);
            }
        }
    }

    /// Priorities and configuration of the first 32 interrupts are each CPU's own.
    fn owner(&self, cpu: usize, private: bool, offset: u64) -> Option<usize> {
        (private || matches!(offset, 0x400..0x420 | 0xc00..0xc08)).then_some(cpu)
    }
}
