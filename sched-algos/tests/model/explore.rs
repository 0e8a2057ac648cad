//! The checker: `stateright` walks the states, the world plays them.
//!
//! A state is the script that leads to it; two are the same if their fingerprints are. A step runs the script again from the beginning
//! (the framework's own values can't be copied, and needn't be), makes one move more, and goes through all decisions inside it. From every
//! new state the world is also run to its end on a machine that is sound from then on, which turns "something good
//! happens in the end" into a property of the state.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

use stateright::{Checker, Model, Property};

use crate::world::{Setup, World};

#[derive(Clone, Debug)]
pub struct Node {
    script: Arc<[u8]>,
    print: u64,
    violation: Option<Arc<str>>,
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.print.hash(state);
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

/// A move with its inner decisions, and where it leads.
#[derive(Clone, Debug, PartialEq)]
pub struct Leap(Node);

/// How the states that were run to their end, ended.
type Ends = Mutex<HashMap<u64, Option<Arc<str>>>>;

pub struct Switch {
    setup: Setup,
    ends: Ends,
}

/// The moves of a script, for people.
pub fn story(setup: &Setup, script: &[u8]) -> Vec<String> {
    let mut world = World::new(setup, script);
    let mut story = Vec::new();
    while !world.m().oracle.over() {
        let chosen = world.step();
        let m = world.m();
        let state = world.coproc.state();
        let told = format!(
            "{chosen:?} -> {} {:?}",
            world.coproc.stage().state(),
            state.holder()
        );
        story.push(format!("{told} {:?}", m.violation));
    }
    // What a sound machine makes of it.
    world.m().oracle.sound = true;
    for _ in 0..20 {
        let Some(chosen) = world.step() else { break };
        let state = world.coproc.state();
        story.push(format!("  then {chosen:?} -> {state:?}"));
    }
    story
}

impl Switch {
    fn node(&self, mut world: World) -> Node {
        let script = world.m().oracle.path().into();
        let print = world.fingerprint();
        let mut violation = world.m().violation.clone().map(Arc::from);
        let known = self.ends.lock().unwrap().get(&print).cloned();
        match known {
            Some(end) if violation.is_none() => violation = end,
            _ => {
                if violation.is_none() {
                    world.settle();
                    violation = world.m().violation.clone().map(Arc::from);
                }
                self.ends.lock().unwrap().insert(print, violation.clone());
            }
        }
        Node {
            script,
            print,
            violation,
        }
    }
}

impl Model for Switch {
    type State = Node;
    type Action = Leap;

    fn init_states(&self) -> Vec<Node> {
        vec![self.node(World::new(&self.setup, &[]))]
    }

    fn actions(&self, state: &Node, leaps: &mut Vec<Leap>) {
        if state.violation.is_some() {
            return;
        }
        let fixed = state.script.len();
        let mut script = Some(state.script.to_vec());
        let mut seen = Vec::new();
        while let Some(next) = script {
            let mut world = replay_to(&self.setup, &next, fixed);
            if world.step().is_none() {
                return;
            }
            script = world.m().oracle.next_script(fixed);
            let print = world.fingerprint();
            // Running it to its end costs most: once is enough.
            if world.m().violation.is_none() && (print == state.print || seen.contains(&print)) {
                continue;
            }
            seen.push(print);
            leaps.push(Leap(self.node(world)));
        }
    }

    fn next_state(&self, _: &Node, leap: Leap) -> Option<Node> {
        Some(leap.0)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("sound", |_, node: &Node| {
            node.violation.is_none()
        })]
    }
}

/// Plays the first `fixed` decisions of a script.
fn replay_to(setup: &Setup, script: &[u8], fixed: usize) -> World {
    let mut world = World::new(setup, script);
    // The way there was looked at when it was found.
    world.checking = false;
    while world.m().oracle.taken.len() < fixed {
        world.step();
    }
    world.checking = true;
    world
}

/// What was explored.
#[derive(Debug)]
pub struct Explored {
    pub states: usize,
    pub transitions: usize,
    pub depth: usize,
    /// Nothing was left out.
    pub complete: bool,
    /// The first broken rule, and the moves that lead to it.
    pub broken: Option<(String, Vec<String>)>,
}

/// All states within `depth` moves of the start; `None`: all there are.
pub fn explore(setup: &Setup, depth: Option<usize>) -> Explored {
    let mut builder = Switch {
        setup: setup.clone(),
        ends: Ends::default(),
    }
    .checker()
    .threads(2);
    if let Some(depth) = depth {
        builder = builder.target_max_depth(depth);
    }
    let checker = builder.spawn_bfs().join();
    let broken = checker.discovery("sound").map(|path| {
        let node = path.last_state().clone();
        let why = node.violation.clone().unwrap_or_else(|| Arc::from("?"));
        (why.to_string(), story(setup, &node.script))
    });
    Explored {
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        complete: broken.is_none() && depth.is_none_or(|depth| checker.max_depth() < depth),
        broken,
    }
}
