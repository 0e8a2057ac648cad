//! What TLBs remember of pages that were unmapped: entries of stage 2, and those that stage 1 and 2 made together, on this CPU and on the others,
//! which run the same guest meanwhile.

use super::*;

#[derive(Clone, Copy, Debug, Default)]
struct Page {
    /// A walker may still find the old descriptor.
    visible: bool,
    /// This CPU's and the others'.
    stage2: [Held; 2],
    combined: [Held; 2],
}

#[derive(Clone, Default)]
pub struct Tlb {
    pages: BTreeMap<u64, Page>,
    /// What this CPU has of another address space, by this one's VMID and ASID.
    other: Held,
    /// Whose pages.
    vttbr: u64,
    /// This CPU may have fetched or begun something by an entry that is gone.
    begun: bool,
    /// An invalidation isn't complete.
    incomplete: bool,
}

impl Tlb {
    /// `vttbr` is VTTBR_EL2, if that is certain.
    pub fn step(&mut self, step: Step, vttbr: Option<u64>) {
        if let Step::Tlbi(_) = step {
            self.begun = true;
            self.incomplete = true;
        }
        match step {
            Step::Unmapped(first, end, whose) => {
                let page = Page {
                    visible: true,
                    ..Page::default()
                };
                self.pages.extend((first..end).map(|at| (at, page)));
                self.vttbr = whose;
                self.begun = true;
            }
            Step::Shared(whose) => {
                self.other = Held::Here;
                self.vttbr = whose;
                self.begun = true;
            }
            Step::Tlbi(which) if which == Tlbi::AllE1 || vttbr == Some(self.vttbr) => {
                self.forget(which);
            }
            Step::Dsb(dsb) => {
                self.incomplete &= completes(dsb).is_none();
                if completes(dsb).is_some() {
                    self.other.complete();
                }
                for page in self.pages.values_mut() {
                    page.visible &= !matches!(dsb, Dsb::Sy | Dsb::Ish | Dsb::Ishst);
                    for (cpu, everywhere) in [(0, false), (1, true)] {
                        if completes(dsb).is_some_and(|reach| reach >= everywhere) {
                            page.stage2[cpu].complete();
                            page.combined[cpu].complete();
                        }
                    }
                }
            }
            Step::Isb => self.begun = self.incomplete || self.remembered(),
            _ => {}
        }
        for page in self.pages.values_mut() {
            for cpu in 0..2 {
                if page.visible {
                    page.stage2[cpu] = Held::Here;
                }
                if matches!(page.stage2[cpu], Held::Here | Held::Leaving) {
                    page.combined[cpu] = Held::Here;
                }
            }
        }
    }

    fn forget(&mut self, which: Tlbi) {
        if !matches!(which, Tlbi::IpaS2E1Is(_)) {
            self.other.leave();
        }
        for (number, page) in &mut self.pages {
            let cpus = match which {
                Tlbi::AllE1 | Tlbi::VmallE1 => 1,
                _ => 2,
            };
            for cpu in 0..cpus {
                let (stage2, combined) = (&mut page.stage2[cpu], &mut page.combined[cpu]);
                match which {
                    Tlbi::AllE1 | Tlbi::VmallS12E1Is => {
                        *stage2 = Held::LeavingWithAll;
                        combined.leave();
                    }
                    Tlbi::VmallE1 | Tlbi::VmallE1Is => combined.leave(),
                    Tlbi::IpaS2E1Is(page) if page == *number => stage2.leave(),
                    Tlbi::IpaS2E1Is(_) => {}
                }
            }
        }
    }

    fn remembered(&self) -> bool {
        let held = |held: &Held| *held != Held::Gone;
        let used = |page: &Page| {
            page.visible || page.stage2.iter().any(held) || page.combined.iter().any(held)
        };
        held(&self.other) || self.pages.values().any(used)
    }

    pub fn unused(&self) -> Result<(), String> {
        if self.remembered() {
            return Err(alloc::format!("still translated: {:x?}", self.pages));
        }
        if self.begun {
            return Err("this CPU may have begun something by an old translation".into());
        }
        Ok(())
    }
}
