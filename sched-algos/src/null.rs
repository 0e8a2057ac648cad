//! One owner, no timer: the coprocessor is assigned, not shared.
//!
//! The name and the idea are Xen's `null` scheduler (D. Faggioli, xen/common/sched/null.c, 2017): where there is one client, every
//! scheduling event is a cost without a use. The domain still gets all of the framework's isolation and its hot detach; only its
//! slices never end.
//!
//! **Guarantees.** The owner waits for nothing but its first restore. A second vcoproc isn't admitted.
//!
//! **Cost.** O(1), no timer events.

use coproc_core::Algorithm;
use coproc_core::algorithm::{AlgorithmError, Parameters, Pick, Tuning};
use coproc_core::id::VcoprocId;
use coproc_core::time::{Duration, Instant};

/// Its name in the device tree.
pub const NAME: &str = "null";

#[derive(Clone, Copy, Debug)]
struct Owner {
    id: VcoprocId,
    parameters: Parameters,
    awake: bool,
}

/// One owner.
#[derive(Debug, Default)]
pub struct Null {
    owner: Option<Owner>,
}

impl Null {
    /// No owner yet. There is nothing to tune.
    pub const fn new(_tuning: &Tuning) -> Self {
        Self { owner: None }
    }

    fn owner(&mut self, who: VcoprocId) -> Option<&mut Owner> {
        self.owner.as_mut().filter(|owner| owner.id == who)
    }
}

impl Algorithm for Null {
    fn name(&self) -> &'static str {
        NAME
    }

    fn add(&mut self, who: VcoprocId, parameters: &Parameters) -> Result<(), AlgorithmError> {
        match self.owner {
            Some(owner) if owner.id == who => Err(AlgorithmError::Duplicate(who)),
            Some(_) => Err(AlgorithmError::NotAdmitted(
                "the null algorithm takes one vcoproc only",
            )),
            None => {
                self.owner = Some(Owner {
                    id: who,
                    parameters: *parameters,
                    awake: false,
                });
                Ok(())
            }
        }
    }

    fn remove(&mut self, who: VcoprocId) -> Result<(), AlgorithmError> {
        self.owner(who).ok_or(AlgorithmError::Unknown(who))?;
        self.owner = None;
        Ok(())
    }

    fn wake(&mut self, who: VcoprocId, _now: Instant) {
        if let Some(owner) = self.owner(who) {
            owner.awake = true;
        }
    }

    fn sleep(&mut self, who: VcoprocId, _now: Instant) {
        if let Some(owner) = self.owner(who) {
            owner.awake = false;
        }
    }

    fn charge(&mut self, _who: VcoprocId, _time: Duration, _now: Instant) {}

    fn refused(&mut self, _who: VcoprocId, _time: Duration, _now: Instant) {}

    fn pick(&mut self, _current: Option<VcoprocId>, _now: Instant) -> Option<Pick> {
        let owner = self.owner.filter(|owner| owner.awake)?;
        Some(Pick {
            who: owner.id,
            slice: None,
        })
    }

    fn set_parameters(
        &mut self,
        who: VcoprocId,
        parameters: &Parameters,
    ) -> Result<(), AlgorithmError> {
        let owner = self.owner(who).ok_or(AlgorithmError::Unknown(who))?;
        owner.parameters = *parameters;
        Ok(())
    }

    fn tune(&mut self, _tuning: &Tuning) -> Result<(), AlgorithmError> {
        Ok(())
    }

    fn snapshot(&self, visit: &mut dyn FnMut(VcoprocId, &Parameters, bool)) {
        if let Some(owner) = &self.owner {
            visit(owner.id, &owner.parameters, owner.awake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(0);

    #[test]
    fn one_owner_without_a_timer() {
        let mut null = Null::default();
        let (a, b, p) = (VcoprocId(1), VcoprocId(2), Parameters::default());
        null.add(a, &p).unwrap();
        assert_eq!(null.add(a, &p), Err(AlgorithmError::Duplicate(a)));
        assert!(matches!(
            null.add(b, &p),
            Err(AlgorithmError::NotAdmitted(_))
        ));
        null.wake(b, NOW);
        assert_eq!(null.pick(None, NOW), None);
        null.wake(a, NOW);
        let forever = Pick {
            who: a,
            slice: None,
        };
        assert_eq!(null.pick(Some(a), NOW), Some(forever));
        assert_eq!(null.next_event(NOW), None);
        assert_eq!(null.remove(b), Err(AlgorithmError::Unknown(b)));
        null.remove(a).unwrap();
        null.add(b, &p).unwrap();
        assert_eq!(null.pick(None, NOW), None);
    }
}
