//! Proof by machine: the real state machine of `coproc-core`, driven through everything that its surroundings can do.
//!
//! - `protocol`: small configurations, exhaustively: every interleaving of guests, timer, interrupts, answers of the driver and of the IOMMU.
//! - `mutants`: the checker finds the faults that it is there to find.
//! - `larger`: random runs of nine vcoprocs, under every algorithm that there is; bounds on waiting.
//! - `points`: an interrupt before each single call of a switch, and a reader that looks for what was left.
//! - `rollback`: each step that can fail is made to fail.

mod algorithm;
mod driver;
mod explore;
mod larger;
mod machine;
mod mutants;
mod oracle;
mod points;
mod protocol;
mod rollback;
mod world;
