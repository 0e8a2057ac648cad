//! The text of a record, and its bound.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::Log;
use super::event::{Answer, Call, Event, Header, Input, Told, plain};
use super::text::{Clock, Reader};
use crate::address::DeviceAddress;
use crate::algorithm::Parameters;
use crate::coproc::{Outcome, Settings};
use crate::driver::{Failure, Step};
use crate::environment::Stream;
use crate::id::{CoprocId, DomainId, VcoprocId};
use crate::iommu::Faults;
use crate::register::{Access, Operation, Width};
use crate::time::{Duration, Instant};

fn who() -> impl Strategy<Value = VcoprocId> {
    any::<u32>().prop_map(VcoprocId)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..300_u64, any::<u64>()]
}

fn span() -> impl Strategy<Value = Duration> {
    number().prop_map(Duration::from_nanos)
}

fn instant() -> impl Strategy<Value = Instant> {
    number().prop_map(Instant::from_nanos)
}

fn width() -> impl Strategy<Value = Width> {
    prop::sample::select(&[Width::Byte, Width::Half, Width::Word, Width::Double][..])
}

fn faults() -> impl Strategy<Value = Faults> {
    let last = prop::option::of(number().prop_map(DeviceAddress::new));
    (number(), last, any::<bool>(), any::<bool>()).prop_map(|(count, last, write, overflow)| {
        Faults {
            count,
            last,
            write,
            overflow,
        }
    })
}

fn parameters() -> impl Strategy<Value = Parameters> {
    let spans = (prop::option::of(span()), prop::option::of(span()));
    (any::<u32>(), any::<u32>(), spans).prop_map(|(weight, priority, (budget, period))| {
        Parameters {
            weight,
            priority,
            budget,
            period,
        }
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    (span(), span(), prop::option::of(span())).prop_map(
        |(slice, refusal_bound, starvation_bound)| Settings {
            slice,
            refusal_bound,
            starvation_bound,
        },
    )
}

fn input() -> impl Strategy<Value = Input<'static>> {
    let operation = prop_oneof![Just(Operation::Read), number().prop_map(Operation::Write)];
    let access = (any::<usize>(), number(), width(), operation).prop_map(
        |(window, offset, width, operation)| Access {
            window,
            offset,
            width,
            operation,
        },
    );
    prop_oneof![
        Just(Input::Start),
        (who(), any::<u16>(), parameters()).prop_map(|(v, d, p)| Input::Attach(v, DomainId(d), p)),
        who().prop_map(Input::Detach),
        (who(), parameters()).prop_map(|(v, p)| Input::Parameters(v, p)),
        settings().prop_map(Input::Tune),
        Just(Input::Algorithm("weighted")),
        Just(Input::Timer),
        (who(), access).prop_map(|(v, a)| Input::Access(v, a)),
        any::<usize>().prop_map(Input::Interrupt),
        (who(), any::<usize>()).prop_map(|(v, i)| Input::Resample(v, i)),
        (who(), any::<usize>()).prop_map(|(v, i)| Input::Pending(v, i)),
        who().prop_map(Input::WindowsChanged),
        Just(Input::CollectFaults),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let target = prop_oneof![
        Just(Stream::Abort),
        who().prop_map(Stream::Save),
        who().prop_map(Stream::Domain)
    ];
    let step = prop_oneof![
        Just(Step::Done),
        span().prop_map(Step::Again),
        Just(plain(Step::Failed(Failure("whatever"))))
    ];
    let told = prop_oneof![
        Just(Told::Faulted),
        Just(Told::Quarantined),
        faults().prop_map(Told::IommuFault)
    ];
    let register = || (any::<usize>(), number(), width(), number());
    prop_oneof![
        instant().prop_map(Call::Now),
        prop::option::of(instant()).prop_map(Call::ArmTimer),
        any::<bool>().prop_map(Call::Mask),
        (any::<usize>(), any::<bool>()).prop_map(|(i, b)| Call::Asserted(i, b)),
        any::<bool>().prop_map(Call::Settled),
        (who(), any::<bool>()).prop_map(|(v, b)| Call::Map(v, b)),
        who().prop_map(Call::Unmap),
        (target, any::<bool>()).prop_map(|(t, b)| Call::Point(t, b)),
        step.prop_map(Call::Sync),
        prop::option::of(faults()).prop_map(Call::Faults),
        (who(), any::<usize>(), any::<bool>()).prop_map(|(v, i, b)| Call::Line(v, i, b)),
        who().prop_map(Call::Release),
        (who(), told).prop_map(|(v, t)| Call::Notify(v, t)),
        register().prop_map(|(n, o, w, v)| Call::Read(n, o, w, v)),
        register().prop_map(|(n, o, w, v)| Call::Write(n, o, w, v)),
    ]
}

fn event() -> impl Strategy<Value = Event<'static>> {
    let outcome = prop_oneof![
        number().prop_map(Outcome::Value),
        Just(Outcome::Retry),
        Just(Outcome::Park),
        Just(Outcome::Fault)
    ];
    let answer = prop_oneof![
        Just(Answer::Done),
        Just(Answer::Failed),
        any::<bool>().prop_map(Answer::Is),
        Just(Answer::Pending),
        outcome.prop_map(Answer::Outcome),
    ];
    prop_oneof![
        3 => input().prop_map(Event::Input),
        6 => call().prop_map(Event::Call),
        1 => prop::option::of(who()).prop_map(Event::Current),
        1 => answer.prop_map(Event::Answer),
        1 => Just(Event::Full),
    ]
}

fn header(settings: Settings, now: Instant) -> Header<'static> {
    Header {
        id: CoprocId(7),
        driver: "qemu,edu",
        algorithm: "rr",
        settings,
        now,
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        settings in settings(), now in instant(), events in prop::collection::vec(event(), 0..60),
    ) {
        let header = header(settings, now);
        let (mut text, mut clock) = (String::new(), Clock::default());
        header.write(&mut text, &mut clock).unwrap();
        for event in &events {
            event.write(&mut text, &mut clock).unwrap();
        }
        let (found, mut reader) = Reader::open(&text).unwrap();
        prop_assert_eq!(found, header);
        let mut read = Vec::new();
        while let Some(event) = reader.next() {
            let (line, event) = event.unwrap();
            prop_assert_eq!(line, read.len() + 4);
            read.push(event);
        }
        prop_assert_eq!(read, events, "{}", text);
    }

    /// No text makes the reader panic, and a changed line is read as something else or not at all.
    #[test]
    fn any_text_has_an_answer(line in "[ -~]{0,30}", event in event(), at in 0..40_usize, byte in b' '..b'~') {
        let _ = Event::parse(&line, &mut Clock::default());
        let mut text = String::new();
        event.write(&mut text, &mut Clock::default()).unwrap();
        let mut bytes = text.trim_end().as_bytes().to_vec();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let changed = String::from_utf8(bytes).unwrap();
        let same = |a: &str, b: &str| a.split_whitespace().eq(b.split_whitespace());
        if let Some(read) = Event::parse(&changed, &mut Clock::default())
            && read == event
        {
            // Leading zeroes and the case of digits say nothing.
            let plain = |t: &str| t.to_lowercase().split_whitespace().map(|w| w.trim_start_matches('0').into()).collect::<Vec<String>>();
            prop_assert!(same(&changed, text.trim_end()) || plain(&changed) == plain(text.trim_end()), "{changed} for {text}");
        }
    }

    /// However little room there is: the record is whole inputs, and says so if some are missing.
    #[test]
    fn a_full_record_ends_at_a_whole_input(
        inputs in prop::collection::vec((input(), prop::collection::vec(call(), 0..5)), 1..30),
        capacity in 80..2000_usize,
    ) {
        let settings = Settings { slice: Duration::from_nanos(1), refusal_bound: Duration::from_nanos(2), starvation_bound: None };
        let header = header(settings, Instant::default());
        let Some(mut log) = Log::new(&header, capacity) else {
            panic!("the header fits");
        };
        let mut wanted = Vec::new();
        let mut ends = Vec::from([(0, log.text().len())]);
        for (input, calls) in &inputs {
            let mut events = Vec::from([Event::Input(*input)]);
            events.extend(calls.iter().map(|call| Event::Call(*call)));
            events.push(Event::Answer(Answer::Done));
            for event in events {
                log.add(&event);
                wanted.push(event);
            }
            log.commit();
            ends.push((wanted.len(), 0));
        }
        prop_assert!(log.text().len() <= capacity);
        let (_, mut reader) = Reader::open(log.text()).unwrap();
        let mut read = Vec::new();
        while let Some(event) = reader.next() {
            read.push(event.unwrap().1);
        }
        prop_assert_eq!(log.lines(), read.len() as u64 + 3);
        let lost = log.lost() as usize;
        if lost > 0 {
            prop_assert_eq!(read.pop(), Some(Event::Full));
        }
        let kept = ends[inputs.len() - lost].0;
        prop_assert_eq!(&read[..], &wanted[..kept]);
        // Line by line it is the same text.
        let (mut at, mut lines) = (0, String::new());
        while let Some((line, next)) = log.line_at(at) {
            lines.push_str(line);
            lines.push('\n');
            at = next;
        }
        prop_assert_eq!(lines, log.text());
    }
}
