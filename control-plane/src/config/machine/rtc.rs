//! The machine's real-time clock: read once at boot, for what the domains' clocks show.

use crate::devicetree::{Region, Tree};

/// Registers of the first PL031. One that isn't described well enough is left alone: the time of day is a comfort, not a
/// condition.
pub fn find(tree: &Tree<'_>) -> Option<Region> {
    let node = tree
        .find_compatible(&["arm,pl031"])
        .find(|node| node.is_available())?;
    node.cpu_reg().ok()?.first().copied()
}
