//! A record, played to the real framework, driver and algorithm.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::cell::RefCell;

use super::event::{Answer, Call, Event, Header, Input, TEXT, Told, plain};
use super::text::{Reader, SyntaxError};
use crate::algorithm::{Algorithm, Tuning};
use crate::coproc::Settings;
use crate::driver::{Driver, Failure, Hardware, Step};
use crate::environment::{self, Environment, Stream};
use crate::id::VcoprocId;
use crate::iommu::{Faults, IommuError};
use crate::register::Width;
use crate::time::{Duration, Instant};
use crate::{Coproc, coproc::Outcome};

/// What a record ran with, by name.
pub trait Factory {
    /// The driver of this name.
    fn driver(&self, name: &str) -> Option<Box<dyn Driver>>;
    /// The algorithm of this name.
    fn algorithm(&self, name: &str, tuning: &Tuning) -> Option<Box<dyn Algorithm>>;
}

/// What was replayed, all of it as recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Inputs of all kinds.
    pub inputs: u64,
    /// Accesses of domains among them.
    pub accesses: u64,
    /// Physical interrupts among them.
    pub interrupts: u64,
    /// Changes of virtual interrupt lines, repeated values not counted.
    pub lines: u64,
    /// Reads and writes of the device.
    pub registers: u64,
    /// How often the device went to a vcoproc.
    pub slices: u64,
    /// The record ended for want of room.
    pub full: bool,
}

/// Why a record couldn't be replayed, or what went otherwise.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReplayError {
    /// It isn't a record.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// There is no such driver or algorithm here.
    #[error("there is no driver or algorithm `{0}`")]
    Unknown(String),
    /// Something was done, asked or answered that the record doesn't have at this place.
    #[error("line {line} of the record: {recorded}; replayed: {replayed}")]
    Differs {
        /// The line's number; the first is 1.
        line: usize,
        /// What the line says.
        recorded: String,
        /// What was done instead.
        replayed: String,
    },
}

/// Where the replay stands.
struct Tape<'a> {
    reader: Reader<'a>,
    line: usize,
    last: Instant,
    error: Option<ReplayError>,
    summary: Summary,
    /// Levels of virtual lines that are high.
    high: alloc::vec::Vec<(VcoprocId, usize)>,
}

impl<'a> Tape<'a> {
    fn next(&mut self) -> Option<Event<'a>> {
        match self.reader.next()? {
            Ok((line, event)) => {
                self.line = line;
                Some(event)
            }
            Err(error) => {
                self.error.get_or_insert(error.into());
                None
            }
        }
    }

    fn differs(&mut self, recorded: Option<Event<'_>>, replayed: Event<'_>) {
        let line = self.line;
        let recorded = recorded.map_or_else(|| "its end".into(), |event| format!("{event:?}"));
        self.error.get_or_insert_with(|| ReplayError::Differs {
            line,
            recorded,
            replayed: format!("{replayed:?}"),
        });
    }

    /// The recorded call, if this is it.
    fn call(&mut self, asked: Call) -> Option<Call> {
        if self.error.is_some() {
            return None;
        }
        let recorded = self.next();
        match recorded {
            Some(Event::Call(call)) if call.question() == asked.question() => {
                match call {
                    Call::Read(..) | Call::Write(..) => {
                        self.summary.registers = self.summary.registers.saturating_add(1);
                    }
                    Call::Line(who, index, high) => self.level(who, index, high),
                    _ => {}
                }
                Some(call)
            }
            other => {
                self.differs(other, Event::Call(asked));
                None
            }
        }
    }

    fn level(&mut self, who: VcoprocId, index: usize, high: bool) {
        let at = self.high.iter().position(|line| *line == (who, index));
        match (at, high) {
            (None, true) => self.high.push((who, index)),
            (Some(at), false) => _ = self.high.swap_remove(at),
            _ => return,
        }
        self.summary.lines = self.summary.lines.saturating_add(1);
    }
}

/// The environment that the record describes.
struct Stage<'a>(RefCell<Tape<'a>>);

impl Stage<'_> {
    fn call(&self, asked: Call) -> Option<Call> {
        self.0.try_borrow_mut().ok()?.call(asked)
    }
}

impl Hardware for Stage<'_> {
    fn read(&mut self, window: usize, offset: u64, width: Width) -> u64 {
        match self.call(Call::Read(window, offset, width, 0)) {
            Some(Call::Read(.., value)) => value,
            _ => width.mask(),
        }
    }

    fn write(&mut self, window: usize, offset: u64, width: Width, value: u64) {
        self.call(Call::Write(window, offset, width, value));
    }

    fn now(&self) -> Instant {
        Environment::now(self)
    }
}

impl Environment for Stage<'_> {
    fn now(&self) -> Instant {
        let answer = self.call(Call::Now(Instant::default()));
        let Ok(mut tape) = self.0.try_borrow_mut() else {
            return Instant::default();
        };
        match answer {
            Some(Call::Now(now)) => tape.last = now,
            // Whoever waits for a time to come shall not wait for ever.
            _ => tape.last = tape.last.saturating_add(Duration::from_secs(1)),
        }
        tape.last
    }

    fn arm_timer(&mut self, at: Option<Instant>) {
        self.call(Call::ArmTimer(at));
    }

    fn hardware(&mut self) -> &mut dyn Hardware {
        self
    }

    fn mask_interrupts(&mut self, masked: bool) {
        self.call(Call::Mask(masked));
    }

    fn interrupt_asserted(&mut self, index: usize) -> bool {
        matches!(
            self.call(Call::Asserted(index, false)),
            Some(Call::Asserted(_, true))
        )
    }

    fn interrupts_settled(&mut self) -> bool {
        matches!(
            self.call(Call::Settled(false)),
            Some(Call::Settled(true)) | None
        )
    }

    fn map_windows(&mut self, who: VcoprocId) -> bool {
        matches!(self.call(Call::Map(who, false)), Some(Call::Map(_, true)))
    }

    fn unmap_windows(&mut self, who: VcoprocId) {
        self.call(Call::Unmap(who));
    }

    fn point_streams(&mut self, target: Stream) -> Result<(), IommuError> {
        match self.call(Call::Point(target, false)) {
            Some(Call::Point(_, true)) => Ok(()),
            _ => Err(IommuError::Hardware(TEXT)),
        }
    }

    fn sync_streams(&mut self) -> Step {
        match self.call(Call::Sync(Step::Done)) {
            Some(Call::Sync(step)) => plain(step),
            _ => Step::Failed(Failure(TEXT)),
        }
    }

    fn take_faults(&mut self) -> Option<Faults> {
        match self.call(Call::Faults(None)) {
            Some(Call::Faults(faults)) => faults,
            _ => Some(Faults::default()),
        }
    }

    fn set_interrupt(&mut self, who: VcoprocId, index: usize, pending: bool) {
        self.call(Call::Line(who, index, pending));
    }

    fn release_parked(&mut self, who: VcoprocId) {
        self.call(Call::Release(who));
    }

    fn notify(&mut self, who: VcoprocId, event: environment::Event) {
        self.call(Call::Notify(who, Told::from(event)));
    }
}

/// Replays a record: [`Log::text`](super::Log::text).
///
/// # Errors
/// [`ReplayError`]: the first line at which the framework, the driver or the algorithm did something else than recorded.
pub fn replay(text: &str, factory: &dyn Factory) -> Result<Summary, ReplayError> {
    let (header, reader) = Reader::open(text)?;
    let mut coproc = make(&header, factory)?;
    let mut stage = Stage(RefCell::new(Tape {
        reader,
        line: 3,
        last: header.now,
        error: None,
        summary: Summary::default(),
        high: alloc::vec::Vec::new(),
    }));
    let mut current = None;
    loop {
        let input = match stage.0.get_mut().next() {
            Some(Event::Input(input)) => input,
            Some(Event::Full) => {
                let tape = stage.0.get_mut();
                tape.summary.full = true;
                match tape.next() {
                    None => break,
                    more => tape.differs(more, Event::Full),
                }
                break;
            }
            None => break,
            other => {
                stage.0.get_mut().differs(other, Event::Input(Input::Timer));
                break;
            }
        };
        let answer = feed(&mut coproc, &mut stage, input, factory)?;
        let tape = stage.0.get_mut();
        if tape.error.is_some() {
            break;
        }
        let mut recorded = tape.next();
        let now = coproc.current();
        if now != current {
            current = now;
            if recorded != Some(Event::Current(now)) {
                tape.differs(recorded, Event::Current(now));
                break;
            }
            tape.summary.slices = tape.summary.slices.saturating_add(u64::from(now.is_some()));
            recorded = tape.next();
        }
        if recorded != Some(Event::Answer(answer)) {
            tape.differs(recorded, Event::Answer(answer));
            break;
        }
        let summary = &mut tape.summary;
        summary.inputs = summary.inputs.saturating_add(1);
        match input {
            Input::Access(..) => summary.accesses = summary.accesses.saturating_add(1),
            Input::Interrupt(_) => summary.interrupts = summary.interrupts.saturating_add(1),
            _ => {}
        }
    }
    let tape = stage.0.into_inner();
    tape.error.map_or(Ok(tape.summary), Err)
}

fn make(header: &Header<'_>, factory: &dyn Factory) -> Result<Coproc, ReplayError> {
    let unknown = |name: &str| ReplayError::Unknown(name.into());
    let driver = factory
        .driver(header.driver)
        .ok_or_else(|| unknown(header.driver))?;
    let tuning = Settings::tuning(&header.settings, &*driver);
    let algorithm = factory
        .algorithm(header.algorithm, &tuning)
        .ok_or_else(|| unknown(header.algorithm))?;
    Ok(Coproc::new(
        header.id,
        driver,
        algorithm,
        header.settings,
        header.now,
    ))
}

fn feed(
    coproc: &mut Coproc,
    env: &mut Stage<'_>,
    input: Input<'_>,
    factory: &dyn Factory,
) -> Result<Answer, ReplayError> {
    let mut done = Answer::Done;
    match input {
        Input::Timer => coproc.timer(env),
        Input::Interrupt(index) => coproc.interrupt(env, index),
        Input::Resample(who, index) => coproc.resample(env, who, index),
        Input::WindowsChanged(who) => coproc.windows_changed(env, who),
        _ => done = answer(coproc, env, input, factory)?,
    }
    Ok(done)
}

/// Those that answer something.
fn answer(
    coproc: &mut Coproc,
    env: &mut Stage<'_>,
    input: Input<'_>,
    factory: &dyn Factory,
) -> Result<Answer, ReplayError> {
    Ok(match input {
        Input::Start => Answer::from(&coproc.start(env)),
        Input::Attach(who, domain, parameters) => {
            Answer::from(&coproc.attach(env, who, domain, &parameters))
        }
        Input::Detach(who) => Answer::from(&coproc.detach(env, who)),
        Input::Parameters(who, parameters) => {
            Answer::from(&coproc.set_parameters(env, who, &parameters))
        }
        Input::Tune(settings) => Answer::from(&coproc.tune(env, settings)),
        Input::Algorithm(name) => {
            let algorithm = factory
                .algorithm(name, &coproc.tuning())
                .ok_or_else(|| ReplayError::Unknown(name.into()))?;
            Answer::from(&coproc.replace_algorithm(env, algorithm))
        }
        Input::Access(who, access) => {
            let outcome: Outcome = coproc.access(env, who, &access);
            outcome.into()
        }
        Input::Pending(who, index) => coproc.interrupt_pending(env, who, index).into(),
        Input::CollectFaults => coproc.collect_faults(env).into(),
        Input::Timer | Input::Interrupt(_) | Input::Resample(..) | Input::WindowsChanged(_) => {
            Answer::Done
        }
    })
}
