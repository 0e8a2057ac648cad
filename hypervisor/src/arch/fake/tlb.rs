//! A TLB that never forgets by itself: what it has learnt of stage 2, and what stage 1 made of it, stays until it is invalidated, in the right order.

use hypervisor::processor::Tlbi;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
struct Entry {
    to: u64,
    /// Still there as stage 2 alone; else only combined with stage 1.
    stage2: bool,
}

/// What one CPU remembers, by VMID and page.
#[derive(Clone, Debug, Default)]
pub struct Tlb(BTreeMap<(u64, u64), Entry>);

impl Tlb {
    /// Where a page leads.
    pub fn find(&self, vttbr: u64, page: u64) -> Option<u64> {
        self.0.get(&(vttbr >> 48, page)).map(|entry| entry.to)
    }

    /// All that is there of a VMID: pages, and where they lead.
    pub fn pages(&self, vttbr: u64) -> impl Iterator<Item = (u64, u64)> {
        let all = self.0.iter();
        all.filter(move |((vmid, _), _)| *vmid == vttbr >> 48)
            .map(|((_, page), entry)| (*page, entry.to))
    }

    /// A walk found this.
    pub fn learn(&mut self, vttbr: u64, page: u64, to: u64) {
        let stage2 = true;
        self.0.insert((vttbr >> 48, page), Entry { to, stage2 });
    }

    /// TLBI, by a CPU that has this VTTBR_EL2; `own`: it's this TLB's.
    pub fn invalidate(&mut self, which: Tlbi, vttbr: u64, own: bool) {
        let vmid = vttbr >> 48;
        match which {
            Tlbi::AllE1 if own => self.0.clear(),
            Tlbi::VmallS12E1Is => self.0.retain(|(of, _), _| *of != vmid),
            Tlbi::IpaS2E1Is(page) => {
                if let Some(entry) = self.0.get_mut(&(vmid, page)) {
                    entry.stage2 = false;
                }
            }
            Tlbi::VmallE1 if own => self.0.retain(|(of, _), entry| *of != vmid || entry.stage2),
            Tlbi::VmallE1Is => self.0.retain(|(of, _), entry| *of != vmid || entry.stage2),
            Tlbi::AllE1 | Tlbi::VmallE1 => {}
        }
    }
}
