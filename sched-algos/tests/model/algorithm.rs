//! The algorithm in the model: the real round robin, or *any* algorithm there could be.
//!
//! [`Policy::Any`] picks whichever vcoproc with work the oracle names and preempts when it says so. What holds with it holds
//! with every algorithm that keeps to the interface, those included that nobody has written yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use coproc_core::Algorithm;
use coproc_core::algorithm::{AlgorithmError, Parameters, Pick, Tuning};
use coproc_core::id::VcoprocId;
use coproc_core::time::{Duration, Instant};
use sched_algos::rr::RoundRobin;

use crate::machine::{Mutant, SLICE, Shared};

#[derive(Debug)]
pub enum Policy {
    Exact(RoundRobin),
    Any,
}

/// What the world may see of it.
#[derive(Debug)]
pub struct Books {
    pub policy: Policy,
    pub known: BTreeMap<VcoprocId, Parameters>,
    pub awake: BTreeSet<VcoprocId>,
    /// Who had the last turn, for a sound machine's fair choice.
    last: VcoprocId,
    /// What it was told of time used.
    pub charged: BTreeMap<VcoprocId, u64>,
}

pub struct Watched {
    pub books: Arc<Mutex<Books>>,
    pub machine: Shared,
}

impl Books {
    pub fn new(any: bool) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            policy: match any {
                true => Policy::Any,
                false => Policy::Exact(RoundRobin::new(&Tuning::new(SLICE))),
            },
            known: BTreeMap::new(),
            awake: BTreeSet::new(),
            last: VcoprocId(0),
            charged: BTreeMap::new(),
        }))
    }
}

impl Watched {
    fn is(&self, mutant: Mutant) -> bool {
        self.machine.lock().unwrap().is(mutant)
    }
}

impl Algorithm for Watched {
    fn name(&self) -> &'static str {
        "watched"
    }

    fn add(&mut self, who: VcoprocId, parameters: &Parameters) -> Result<(), AlgorithmError> {
        if self.machine.lock().unwrap().fails_here() {
            return Err(AlgorithmError::NotAdmitted("injected"));
        }
        let mut books = self.books.lock().unwrap();
        if books.known.contains_key(&who) {
            return Err(AlgorithmError::Duplicate(who));
        }
        books.known.insert(who, *parameters);
        books.charged.insert(who, 0);
        match &mut books.policy {
            Policy::Exact(rr) => rr.add(who, parameters),
            Policy::Any => Ok(()),
        }
    }

    fn remove(&mut self, who: VcoprocId) -> Result<(), AlgorithmError> {
        let mut books = self.books.lock().unwrap();
        books.awake.remove(&who);
        if books.known.remove(&who).is_none() {
            return Err(AlgorithmError::Unknown(who));
        }
        match &mut books.policy {
            Policy::Exact(rr) => rr.remove(who),
            Policy::Any => Ok(()),
        }
    }

    fn wake(&mut self, who: VcoprocId, now: Instant) {
        if self.is(Mutant::ForgetsWake) && self.machine.lock().unwrap().mapped.is_some() {
            return;
        }
        let mut books = self.books.lock().unwrap();
        if books.known.contains_key(&who) {
            books.awake.insert(who);
        }
        if let Policy::Exact(rr) = &mut books.policy {
            rr.wake(who, now);
        }
    }

    fn sleep(&mut self, who: VcoprocId, now: Instant) {
        let mut books = self.books.lock().unwrap();
        books.awake.remove(&who);
        if let Policy::Exact(rr) = &mut books.policy {
            rr.sleep(who, now);
        }
    }

    fn charge(&mut self, who: VcoprocId, time: Duration, _: Instant) {
        *self.books.lock().unwrap().charged.entry(who).or_default() += time.as_nanos();
    }

    fn refused(&mut self, _: VcoprocId, _: Duration, _: Instant) {}

    fn pick(&mut self, current: Option<VcoprocId>, now: Instant) -> Option<Pick> {
        let mut books = self.books.lock().unwrap();
        let awake: Vec<VcoprocId> = books.awake.iter().copied().collect();
        if let Policy::Exact(rr) = &mut books.policy {
            return rr.pick(current, now);
        }
        let mut m = self.machine.lock().unwrap();
        if awake.is_empty() {
            return None;
        }
        let who = if m.oracle.sound {
            let last = books.last;
            *awake.iter().find(|id| **id > last).unwrap_or(&awake[0])
        } else {
            awake[m.oracle.choose(awake.len())]
        };
        // A lone one may keep the device until another wakes.
        let forever = awake.len() == 1 && m.oracle.choose(2) == 1;
        books.last = who;
        Some(Pick {
            who,
            slice: (!forever).then_some(SLICE),
        })
    }

    fn preempts(&mut self, current: VcoprocId, _: Instant) -> bool {
        let books = self.books.lock().unwrap();
        let others = books.awake.iter().any(|id| *id != current);
        let any = matches!(books.policy, Policy::Any);
        any && others && self.machine.lock().unwrap().oracle.choose(2) == 1
    }

    fn set_parameters(&mut self, who: VcoprocId, p: &Parameters) -> Result<(), AlgorithmError> {
        let mut books = self.books.lock().unwrap();
        let Some(own) = books.known.get_mut(&who) else {
            return Err(AlgorithmError::Unknown(who));
        };
        *own = *p;
        Ok(())
    }

    fn tune(&mut self, _: &Tuning) -> Result<(), AlgorithmError> {
        Ok(())
    }

    fn snapshot(&self, visit: &mut dyn FnMut(VcoprocId, &Parameters, bool)) {
        let books = self.books.lock().unwrap();
        for (who, parameters) in &books.known {
            visit(*who, parameters, books.awake.contains(who));
        }
    }
}
