//! What the domains of a simulation do.

use coproc_core::algorithm::Parameters;
use coproc_core::time::Duration;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

/// A small generator of pseudo-random numbers (G. Steele, D. Lea, C. Flood, *SplitMix*, OOPSLA 2014): the same seed, the same run.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which isn't 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Exponentially distributed with this mean.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        let uniform = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (-(1.0 - uniform).ln() * mean as f64) as u64
    }
}

/// How one domain uses its vcoproc; times in ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// Always has another job of this length.
    Hog(u64),
    /// The same, and each stop takes as long as the driver allows.
    Refuser(u64),
    /// One job every period, or a little later, due within the period.
    Steady {
        /// Work of each job.
        work: u64,
        /// Shortest time from one to the next.
        period: u64,
    },
    /// Several jobs at once after a pause of random length.
    Bursty {
        /// Work of each job.
        work: u64,
        /// Most jobs in one burst.
        most: u64,
        /// Mean pause.
        pause: u64,
    },
    /// Nothing at all.
    Idle,
}

impl Behaviour {
    /// Whether it always has work.
    pub const fn is_busy(self) -> bool {
        matches!(self, Self::Hog(_) | Self::Refuser(_))
    }
}

/// One domain.
#[derive(Clone, Copy, Debug)]
pub struct Actor {
    /// What it does.
    pub behaviour: Behaviour,
    /// What its configuration says.
    pub parameters: Parameters,
}

/// A set of domains that share the coprocessor.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its name in tables and JSON.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// The domains.
    pub actors: Vec<Actor>,
}

fn actor(behaviour: Behaviour) -> Actor {
    Actor {
        behaviour,
        parameters: Parameters::default(),
    }
}

fn weighted(behaviour: Behaviour, weight: u32) -> Actor {
    let mut actor = actor(behaviour);
    actor.parameters.weight = weight;
    actor
}

/// Its work fits into its budget with a tenth to spare.
fn steady(budget: u64, period: u64) -> Actor {
    let work = budget / 10 * 9;
    let mut actor = actor(Behaviour::Steady { work, period });
    actor.parameters.budget = Some(Duration::from_nanos(budget));
    actor.parameters.period = Some(Duration::from_nanos(period));
    // Rate monotonic, for those who know priorities only.
    actor.parameters.priority = u32::try_from(10_000 * MS / period).unwrap_or(u32::MAX);
    actor
}

/// All workloads.
pub fn all() -> Vec<Workload> {
    let hog = Behaviour::Hog(3 * MS);
    let bursty = |work, most, pause| Behaviour::Bursty { work, most, pause };
    let repeat = |what: Actor, n: usize| vec![what; n];
    vec![
        Workload {
            name: "single",
            about: "one that is always busy",
            actors: vec![actor(hog)],
        },
        Workload {
            name: "equal",
            about: "four always busy, equal weights",
            actors: repeat(actor(hog), 4),
        },
        Workload {
            name: "weights",
            about: "four always busy, weights 1, 2, 3, 6",
            actors: [1, 2, 3, 6].map(|weight| weighted(hog, weight)).to_vec(),
        },
        Workload {
            name: "refuser",
            about: "three always busy, and one that refuses to stop as long as it may",
            actors: [
                repeat(actor(hog), 3),
                vec![actor(Behaviour::Refuser(20 * MS))],
            ]
            .concat(),
        },
        Workload {
            name: "idle",
            about: "two always busy, eight that never use their share",
            actors: [repeat(actor(hog), 2), repeat(actor(Behaviour::Idle), 8)].concat(),
        },
        Workload {
            name: "bursty",
            about: "two always busy, four with bursts",
            actors: [
                repeat(actor(hog), 2),
                repeat(actor(bursty(MS, 4, 60 * MS)), 4),
            ]
            .concat(),
        },
        Workload {
            name: "steady",
            about: "five with a job in every period, due within it, and one always busy",
            actors: vec![
                steady(1_500 * US, 12 * MS),
                steady(2 * MS, 20 * MS),
                steady(3 * MS, 35 * MS),
                steady(5 * MS, 60 * MS),
                steady(8 * MS, 110 * MS),
                actor(hog),
            ],
        },
        Workload {
            name: "thousand",
            about: "1,000: ten always busy, ten refusing, the others with rare bursts",
            actors: [
                repeat(actor(hog), 10),
                repeat(actor(Behaviour::Refuser(20 * MS)), 10),
                repeat(actor(bursty(MS, 2, 8_000 * MS)), 980),
            ]
            .concat(),
        },
    ]
}
