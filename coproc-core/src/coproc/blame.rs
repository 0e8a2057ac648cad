//! Whose DMA it was that the IOMMU refused.
//!
//! The IOMMU records a fault with its stream, and all vcoprocs of a device share its stream. Whose a record is follows from
//! when it was read: the records are read to the end while the streams abort, before another address space is named.

use super::switch::{MIN_AGAIN, MIN_LIMIT};
use super::{Coproc, bump};
use crate::driver::Step;
use crate::environment::{Environment, Event};
use crate::iommu::Faults;
use crate::trace::TraceKind;

impl Coproc {
    /// Reads the IOMMU's records to the end. If they can't be read to the end in time the switch goes on: whose a fault was is
    /// book-keeping, and another device's flood of faults must not cost this device's domains anything.
    #[inline(always)]
    pub(super) fn faults_read(&mut self, env: &mut dyn Environment) -> Step {
        if self.collect_faults(env) {
            return Step::Done;
        }
        if env.now().since(self.entered) >= MIN_LIMIT {
            bump(&mut self.unattributed_faults);
            return Step::Done;
        }
        Step::Again(MIN_AGAIN)
    }

    /// The IOMMU has records: reads them and books them on the vcoproc whose memory the streams pointed at last. `false`: not all
    /// could be read in bounded time; to be called again, at the latest the switch does.
    pub fn collect_faults(&mut self, env: &mut dyn Environment) -> bool {
        let Some(faults) = env.take_faults() else {
            return false;
        };
        if faults.any() || faults.overflow {
            self.blame(env, faults);
        }
        true
    }

    fn blame(&mut self, env: &mut dyn Environment, faults: Faults) {
        let suspect = self.suspect.filter(|who| self.is_attached(*who));
        if faults.any() {
            self.note(env, suspect, TraceKind::IommuFaults(faults.count));
        }
        let Some(v) = suspect.and_then(|who| self.find_mut(who)) else {
            self.unattributed_faults = self.unattributed_faults.saturating_add(faults.count);
            return;
        };
        let who = v.id;
        let c = &mut v.counters;
        c.iommu_faults = c.iommu_faults.saturating_add(faults.count);
        c.faults_lost |= faults.overflow;
        if faults.last.is_some() {
            c.last_fault = faults.last;
        }
        if faults.any() {
            env.notify(who, Event::IommuFault(faults));
        }
    }
}
