//! Tests of the MSI capability as software reads and writes it, and of when messages are sent.

use super::signals::PATIENCE;
use super::*;
use alloc::vec;
use alloc::vec::Vec;
use coproc_core::register::Width;
use coproc_core::time::{Duration, Instant};
use core::cell::Cell;
use proptest::prelude::*;

const WINDOWS: Windows = Windows {
    mem32: Window {
        base: 0x1000_0000,
        size: 0x1000_0000,
    },
    mem64: Window { base: 0, size: 0 },
};
const SLOT: u8 = 1;
/// Offset of the function's configuration space.
const SPACE: u64 = 1 << 15;
const MESSAGE: Message = Message {
    address: 0x0802_0040,
    data: 80,
};
/// Message Control, from the capability on: enable; and Command's bus master bit.
const CONTROL: u64 = SPACE | 0x42;
const MASK: u64 = SPACE | 0x50;
const PENDING: u64 = SPACE | 0x54;

fn function(msi: bool) -> FunctionDescription {
    FunctionDescription {
        vendor: 0x1234,
        interrupt_pin: 1,
        msi,
        ..FunctionDescription::host_bridge()
    }
}

fn bus(msi: bool) -> VirtualBus {
    let mut bus = VirtualBus::new(WINDOWS, 1 << 20);
    bus.attach(SLOT, function(msi)).unwrap();
    bus
}

/// Enabled, with an address that a frame could have.
fn programmed() -> VirtualBus {
    let mut bus = bus(true);
    bus.write(SPACE | 4, Width::Half, 4);
    bus.write(SPACE | 0x44, Width::Word, MESSAGE.address);
    bus.write(SPACE | 0x4c, Width::Half, MESSAGE.data.into());
    bus.write(CONTROL, Width::Half, 1);
    bus
}

fn read(bus: &VirtualBus, offset: u64, width: Width) -> u64 {
    bus.read(offset, width, |_| false)
}

fn message(bus: &VirtualBus) -> Option<Message> {
    bus.function(SLOT).unwrap().message()
}

/// What is sent now, which is looked after if `again`.
fn sent(signals: &mut Signals, bus: &VirtualBus, now: Instant, again: bool) -> Vec<Message> {
    let mut sent = vec![];
    signals.send(
        bus,
        || now,
        |slot, message| {
            assert_eq!(slot, SLOT);
            sent.push(message);
            again
        },
    );
    sent
}

#[test]
fn the_capability_is_found_as_software_looks_for_it() {
    let bus = bus(true);
    assert_eq!(read(&bus, SPACE | 6, Width::Half), 0x10, "Status: a list");
    let at = read(&bus, SPACE | 0x34, Width::Byte);
    assert_eq!(
        read(&bus, SPACE | at, Width::Half),
        5,
        "MSI, the last in it"
    );
    assert_eq!(
        read(&bus, CONTROL, Width::Half),
        0x180,
        "one vector, 64 bits, a mask; off"
    );
    let without = self::bus(false);
    for offset in [6, 0x34, 0x40, 0x44, 0x48, 0x4c, 0x50, 0x54] {
        assert_eq!(
            read(&without, SPACE | offset, Width::Half),
            0,
            "{offset:#x}"
        );
    }
}

#[test]
fn what_is_written_is_kept_as_far_as_there_are_bits() {
    let mut bus = bus(true);
    for offset in (0x40..0x60).step_by(4) {
        bus.write(SPACE | offset, Width::Word, 0xffff_ffff);
    }
    let words = |bus: &VirtualBus| {
        let words = (0x40..0x60).step_by(4);
        words
            .map(|offset| read(bus, SPACE | offset, Width::Word))
            .collect::<Vec<_>>()
    };
    // Multiple Message Enable can't say more than one vector; pending is the function's.
    let all = [0x0181_0005, 0xffff_fffc, 0xffff_ffff, 0xffff, 1, 0, 0, 0];
    assert_eq!(words(&bus), all);
    bus.write(SPACE | 0x4d, Width::Byte, 0x12);
    assert_eq!(read(&bus, SPACE | 0x4c, Width::Word), 0x12ff);
    bus.reset();
    assert_eq!(words(&bus), [0x0180_0005, 0, 0, 0, 0, 0, 0, 0]);
    let mut without = self::bus(false);
    without.write(CONTROL, Width::Half, 1);
    assert!(!without.function(SLOT).unwrap().msi().enabled());
}

#[test]
fn a_message_goes_when_it_may() {
    let mut bus = programmed();
    assert_eq!(message(&bus), Some(MESSAGE));
    for (offset, off, on) in [(CONTROL, 0, 1), (MASK, 1, 0), (SPACE | 4, 0, 4)] {
        assert!(bus.write(offset, Width::Half, off).message, "{offset:#x}");
        assert_eq!(message(&bus), None);
        assert!(!bus.write(offset, Width::Half, off).message, "nothing new");
        assert!(bus.write(offset, Width::Half, on).message);
        assert_eq!(message(&bus), Some(MESSAGE));
    }
    let effect = bus.write(SPACE | 4, Width::Half, 0x404);
    assert_eq!(effect.intx_disabled, Some(true));
    assert!(
        !effect.message && message(&bus).is_some(),
        "Interrupt Disable is about INTx"
    );
    assert!(
        bus.write(SPACE | 0x4c, Width::Half, 81).message,
        "another message"
    );
    bus.write(CONTROL, Width::Half, 0);
    assert!(!bus.write(SPACE | 0x4c, Width::Half, 82).message);
}

#[test]
fn with_messages_there_is_no_intx_and_status_says_so() {
    let mut bus = programmed();
    let mut signals = Signals::new();
    assert!(signals.set(SLOT, true) && !signals.set(SLOT, true));
    let status = |bus: &VirtualBus| bus.read(SPACE | 6, Width::Half, |_| true);
    assert_eq!((signals.levels(&bus), status(&bus)), (0, 0x10));
    bus.write(CONTROL, Width::Half, 0);
    assert_eq!((signals.levels(&bus), status(&bus)), (0b10, 0x18));
    bus.write(SPACE | 4, Width::Half, 0x404);
    assert_eq!((signals.levels(&bus), status(&bus)), (0, 0x18));
}

#[test]
fn one_message_for_each_rise() {
    let bus = programmed();
    let mut signals = Signals::new();
    let now = Instant::from_nanos(5);
    for _ in 0..3 {
        signals.set(SLOT, true);
        assert_eq!(sent(&mut signals, &bus, now, false), [MESSAGE]);
        assert_eq!(sent(&mut signals, &bus, now, false), [], "sent already");
        signals.set(SLOT, false);
        assert_eq!(sent(&mut signals, &bus, now, false), []);
    }
    assert_eq!(signals.next_look(), None, "nothing to look after");
}

#[test]
fn a_masked_message_is_pending_and_goes_when_unmasked_or_is_forgotten() {
    let mut bus = programmed();
    let mut signals = Signals::new();
    bus.write(MASK, Width::Word, 1);
    for acknowledged in [false, true] {
        signals.set(SLOT, true);
        assert_eq!(sent(&mut signals, &bus, Instant::from_nanos(0), true), []);
        let pending =
            |signals: &Signals| bus.read(PENDING, Width::Word, |slot| signals.pending(slot)) == 1;
        assert!(pending(&signals));
        if acknowledged {
            signals.set(SLOT, false);
            assert!(!pending(&signals));
        }
        let mut unmasked = bus.clone();
        unmasked.write(MASK, Width::Word, 0);
        let expected: &[Message] = if acknowledged { &[] } else { &[MESSAGE] };
        let now = Instant::from_nanos(0);
        assert_eq!(sent(&mut signals, &unmasked, now, true), expected);
        signals.set(SLOT, false);
    }
}

/// A driver that never acknowledges gets ever fewer messages, one a second in the end, and is looked at hardly more often.
#[test]
fn what_is_never_acknowledged_costs_little() {
    let bus = programmed();
    let mut signals = Signals::new();
    signals.set(SLOT, true);
    let mut now = Instant::from_nanos(0);
    let minute = Instant::from_nanos(0).saturating_add(Duration::from_secs(60));
    let (mut messages, mut looks) = (0, 0);
    while now < minute {
        let count = sent(&mut signals, &bus, now, true).len();
        if count > 0 {
            messages += count;
            signals.ended(SLOT, now);
        }
        now = signals.next_look().unwrap();
        for slot in signals.due(now) {
            looks += 1;
            signals.looked(slot, now);
        }
    }
    assert!((25..70).contains(&messages), "{messages}");
    assert!(looks < 15 * messages, "{looks}");
}

/// The end that never comes, since the domain took the pending state away, is waited for a second, not for ever.
#[test]
fn without_an_end_it_is_looked_at_all_the_same() {
    let bus = programmed();
    let mut signals = Signals::new();
    signals.set(SLOT, true);
    assert_eq!(
        sent(&mut signals, &bus, Instant::from_nanos(0), true),
        [MESSAGE]
    );
    let look = signals.next_look().unwrap();
    assert_eq!(look.as_nanos(), Duration::from_secs(1).as_nanos());
    assert_eq!(signals.due(look).collect::<Vec<_>>(), [SLOT]);
    signals.set(SLOT, false);
    assert_eq!(signals.next_look(), None);
}

/// A device with status bits, a domain whose driver acknowledges them in registers that nobody watches, and the hypervisor between.
struct World {
    bus: VirtualBus,
    signals: Signals,
    now: Instant,
    /// The device's.
    status: u8,
    /// INTx of the physical function is masked.
    masked: bool,
    /// The interrupt controller's latch.
    latched: bool,
    messages: usize,
}

impl World {
    fn new() -> Self {
        Self {
            bus: programmed(),
            signals: Signals::new(),
            now: Instant::from_nanos(0),
            status: 0,
            masked: false,
            latched: false,
            messages: 0,
        }
    }

    /// As `live_lines` of the framework does it.
    fn sample(&mut self) {
        self.masked = self.status != 0;
        self.signals.set(SLOT, self.masked);
        self.send();
    }

    fn send(&mut self) {
        let count = sent(&mut self.signals, &self.bus, self.now, true).len();
        self.messages += count;
        self.latched |= count > 0;
    }

    fn raise(&mut self, bits: u8) {
        self.status |= bits;
        if self.status != 0 && !self.masked {
            self.sample();
        }
    }

    /// The driver's handler, if there is an interrupt. `between`: what the device raises after the status was read, and
    /// `after`: when it was acknowledged; `late`: the end comes before all of it.
    fn handle(&mut self, between: u8, after: u8, late: bool) {
        if !core::mem::take(&mut self.latched) {
            return;
        }
        if late {
            self.end();
        }
        let seen = self.status;
        self.raise(between);
        self.status &= !seen;
        self.raise(after);
        if !late {
            self.end();
        }
    }

    fn end(&mut self) {
        self.sample();
        self.signals.ended(SLOT, self.now);
    }

    fn configure(&mut self, offset: u64, value: u64) {
        if self.bus.write(offset, Width::Half, value).message {
            self.sample();
            self.send();
        }
    }

    fn advance(&mut self, span: Duration) {
        let end = self.now.saturating_add(span);
        while let Some(next) = self.signals.next_look().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            for slot in self.signals.due(self.now) {
                self.sample();
                self.signals.looked(slot, self.now);
            }
            self.send();
        }
        self.now = end;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Raise(u8),
    Handle(u8, u8, bool),
    Enable(bool),
    Mask(bool),
    Master(bool),
    /// In µs.
    Advance(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bits = || prop_oneof![Just(0u8), 1u8..4];
    let step = prop_oneof![
        3 => (1u8..4).prop_map(Step::Raise),
        4 => (bits(), bits(), any::<bool>())
            .prop_map(|(between, after, late)| Step::Handle(between, after, late)),
        1 => any::<bool>().prop_map(Step::Enable),
        1 => any::<bool>().prop_map(Step::Mask),
        1 => any::<bool>().prop_map(Step::Master),
        2 => (0u64..50_000).prop_map(Step::Advance),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// Whatever the order, nothing that the device raised stays without the driver being told.
    #[test]
    fn no_interrupt_is_lost(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Raise(bits) => world.raise(bits),
                Step::Handle(between, after, late) => world.handle(between, after, late),
                Step::Enable(on) => world.configure(CONTROL, on.into()),
                Step::Mask(on) => world.configure(MASK, on.into()),
                Step::Master(on) => world.configure(SPACE | 4, u64::from(on) << 2),
                Step::Advance(micros) => world.advance(Duration::from_micros(micros)),
            }
        }
        world.configure(SPACE | 4, 4);
        world.configure(CONTROL, 1);
        world.configure(MASK, 0);
        for _ in 0..40 {
            world.handle(0, 0, false);
            world.advance(Duration::from_millis(100));
        }
        prop_assert_eq!(world.status, 0);
        prop_assert!(!world.latched && !world.masked);
        prop_assert_eq!(world.signals.next_look(), None);
    }

    /// A driver that acknowledges in time gets exactly one message for each interrupt.
    #[test]
    fn nobody_gets_more_than_was_raised(rounds in proptest::collection::vec((1u8..4, 0u64..9_000), 0..40)) {
        let mut world = World::new();
        let raised = Cell::new(0);
        for (bits, micros) in rounds {
            world.raise(bits);
            raised.set(raised.get() + 1);
            prop_assert!(Duration::from_micros(micros) < PATIENCE);
            world.advance(Duration::from_micros(micros));
            world.handle(0, 0, false);
            world.advance(Duration::from_micros(micros));
            prop_assert_eq!(world.messages, raised.get());
            prop_assert!(!world.latched);
        }
    }

    #[test]
    fn random_writes_do_no_harm(
        writes in proptest::collection::vec((0u64..0x100, 0usize..4, any::<u64>()), 0..100),
        level: bool,
    ) {
        let mut bus = bus(true);
        let mut signals = Signals::new();
        signals.set(SLOT, level);
        for (offset, width, value) in writes {
            let width = [Width::Byte, Width::Half, Width::Word, Width::Double][width];
            let before = (bus.function(SLOT).unwrap().msi().enabled(), message(&bus));
            let effect = bus.write(SPACE | offset, width, value & width.mask());
            let after = (bus.function(SLOT).unwrap().msi().enabled(), message(&bus));
            prop_assert_eq!(effect.message, before != after);
            prop_assert_eq!(read(&bus, SPACE | offset, width) & !width.mask(), 0);
            let function = bus.function(SLOT).unwrap();
            if function.msi().enabled() {
                prop_assert_eq!(signals.levels(&bus), 0);
            }
            let count = sent(&mut signals.clone(), &bus, Instant::from_nanos(0), true).len();
            prop_assert_eq!(count == 1, level && after.1.is_some());
        }
    }
}
