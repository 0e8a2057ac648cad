//! The switch state machine with round robin, on a model of a machine that asserts the hardware's rules.
//!
//! Only the public interfaces are used. `bench` is the machine: clock, device, IOMMU, interrupt, windows, guests; it panics the
//! moment that a rule of the switch is broken (a stream re-pointed without abort and sync, a register access with
//! somebody else's streams, windows mapped too long, an interrupt for the wrong domain).

mod bench;
mod faults;
mod live;
mod property;
mod stop;
mod switching;
mod trace;
