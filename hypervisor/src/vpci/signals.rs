//! Which functions of a domain assert their interrupts, and how the domain hears of it: by the bridge's INTx lines or by messages.
//!
//! All sources are levels here, since that is what the framework samples. A line follows the level. A message is sent when it rises,
//! and that is where one could get lost: the domain acknowledges in registers that are mapped to it, so nobody sees the level
//! fall, and the device may have raised it again by the next sample. A real device would have sent another message.
//! So after a message the source is *looked at* again: when the domain ends the interrupt, and from then on at growing intervals until
//! the level is seen low, which ends it, or [`PATIENCE`] is over: the message is sent again. A driver gets one that it
//! needn't have had at the worst, never one too few. A level that never falls costs one message a second in the end. (A domain that
//! never ends the interrupt, since it took its pending state away, is waited for a second.)
//!
//! What can't be sent yet (masked, no bus mastering, MSI off) is owed for as long as the level is high.

use super::bus::{SLOTS, VirtualBus, intx_line};
use super::msi::Message;
use coproc_core::time::{Duration, Instant};

/// How long after the end of an interrupt whose source is still asserted it's looked at first; then after twice as long, and so on.
const FIRST: Duration = Duration::from_micros(100);
/// How long a level may stay high before its message is sent again; doubled each time.
pub const PATIENCE: Duration = Duration::from_millis(10);
/// Neither grows beyond.
const LONGEST: Duration = Duration::from_secs(1);

/// When a source is looked at again.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    interval: Duration,
    patience: Duration,
}

impl Look {
    const NEW: Self = Self {
        at: Instant::from_nanos(0),
        interval: FIRST,
        patience: PATIENCE,
    };
}

const fn twice(span: Duration) -> Duration {
    let doubled = span.as_nanos().saturating_mul(2);
    if doubled < LONGEST.as_nanos() {
        Duration::from_nanos(doubled)
    } else {
        LONGEST
    }
}

/// The interrupts of the functions on a bus, by slot.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Asserted.
    pending: u32,
    /// Asserted, and no message was sent for it.
    owed: u32,
    /// Looked at again: those in `looks`.
    looking: u32,
    looks: [Look; SLOTS],
}

impl Default for Signals {
    fn default() -> Self {
        Self::new()
    }
}

const fn bit(slot: u8) -> u32 {
    1u32.wrapping_shl(slot as u32)
}

/// The numbers of the bits set.
fn slots(mut mask: u32) -> impl Iterator<Item = u8> {
    core::iter::from_fn(move || {
        let slot = mask.trailing_zeros() as u8;
        mask &= mask.wrapping_sub(1);
        (slot < SLOTS as u8).then_some(slot)
    })
}

impl Signals {
    /// Nothing is asserted.
    pub const fn new() -> Self {
        Self {
            pending: 0,
            owed: 0,
            looking: 0,
            looks: [Look::NEW; SLOTS],
        }
    }

    /// Whether the function in `slot` asserts its interrupt.
    pub const fn pending(&self, slot: u8) -> bool {
        self.pending & bit(slot) != 0
    }

    /// The function in `slot` asserts its interrupt, or doesn't; returns whether that is news.
    pub fn set(&mut self, slot: u8, level: bool) -> bool {
        if self.pending(slot) == level {
            return false;
        }
        self.pending ^= bit(slot);
        if level {
            self.owed |= bit(slot);
        } else {
            self.owed &= !bit(slot);
            self.looking &= !bit(slot);
        }
        true
    }

    /// Levels of the four INTx lines, as all functions on them make them: bit n is line n.
    pub fn levels(&self, bus: &VirtualBus) -> u8 {
        let mut levels = 0u8;
        for slot in slots(self.pending) {
            let line = bus
                .function(slot)
                .filter(|function| !function.interrupt_disabled() && !function.msi().enabled())
                .and_then(|function| intx_line(slot, function.description().interrupt_pin));
            if let Some(line) = line {
                levels |= 1u8.wrapping_shl(u32::from(line));
            }
        }
        levels
    }

    /// Sends the messages that are owed and may go. `send` answers whether the source may fall and rise unseen, so that it's
    /// to be looked at again.
    pub fn send(
        &mut self,
        bus: &VirtualBus,
        now: impl Fn() -> Instant,
        mut send: impl FnMut(u8, Message) -> bool,
    ) {
        for slot in slots(self.owed) {
            let Some(message) = bus.function(slot).and_then(|function| function.message()) else {
                continue;
            };
            self.owed &= !bit(slot);
            let repeated = self.looking & bit(slot) != 0;
            self.looking &= !bit(slot);
            if send(slot, message)
                && let Some(look) = self.looks.get_mut(usize::from(slot))
            {
                *look = Look {
                    at: now().saturating_add(LONGEST),
                    patience: if repeated { look.patience } else { PATIENCE },
                    ..Look::NEW
                };
                self.looking |= bit(slot);
            }
        }
    }

    /// The domain ended the interrupt that was the message of `slot`, and the source was sampled since.
    pub fn ended(&mut self, slot: u8, now: Instant) {
        if let Some(look) = self.look(slot) {
            look.interval = FIRST;
            look.at = look.at.min(now.saturating_add(FIRST));
        }
    }

    fn look(&mut self, slot: u8) -> Option<&mut Look> {
        let looking = self.looking & bit(slot) != 0;
        self.looks.get_mut(usize::from(slot)).filter(|_| looking)
    }

    /// When [`due`](Self::due) has something to say.
    pub fn next_look(&self) -> Option<Instant> {
        let looks = slots(self.looking).filter_map(|slot| self.looks.get(usize::from(slot)));
        looks.map(|look| look.at).min()
    }

    /// The slots whose sources must be sampled now; [`looked`](Self::looked) after that.
    pub fn due(&self, now: Instant) -> impl Iterator<Item = u8> + use<> {
        let mut due = 0;
        for slot in slots(self.looking) {
            if self
                .looks
                .get(usize::from(slot))
                .is_some_and(|look| look.at <= now)
            {
                due |= bit(slot);
            }
        }
        slots(due)
    }

    /// The source of `slot` was sampled because it was due. If it is still asserted its message may be owed again.
    pub fn looked(&mut self, slot: u8, now: Instant) {
        let Some(look) = self.look(slot).filter(|look| look.at <= now) else {
            return;
        };
        look.interval = twice(look.interval);
        if look.interval < look.patience {
            look.at = now.saturating_add(look.interval);
        } else {
            look.patience = twice(look.patience);
            look.at = now.saturating_add(look.patience);
            self.owed |= bit(slot);
        }
    }
}
