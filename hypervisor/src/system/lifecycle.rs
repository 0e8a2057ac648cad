//! Carrying out what [`hypervisor::lifecycle`] decides: a domain is built, held, stopped, taken apart.
//!
//! All of it takes time that EL2 must not take at once: memory is scrubbed and copied, CPUs let go of vCPUs, coprocessors of contexts, the
//! IOMMU of address spaces. So each is a [`Job`] whose steps are done one by one, on whichever CPU's timer comes first; whoever asked
//! doesn't wait. At boot, when nothing else runs, the same steps are done in a row.

use super::domain::Domain;
use super::load::{self, Cursor, Images};
use super::sharing::Instance;
use super::{FRAMES, attachment, definition, passthrough, processors};
use crate::arch::{self, timer};
use coproc_core::time::{Duration, Instant};
use core::sync::atomic::{AtomicBool, Ordering};
use hypervisor::config::DomainConfig;
use hypervisor::config::domains::file::Found;
use hypervisor::devicetree::Error;
use hypervisor::lifecycle::{Action, Ending, Lifecycle, Operation, Refusal, State};

/// How often jobs are looked after that wait for others …
const INTERVAL: Duration = Duration::from_millis(1);
/// … and those that wait for nothing but time.
const WORK_INTERVAL: Duration = Duration::from_micros(100);
/// How long a domain is given to switch itself off in every second round of a cycle.
const ROUND: Duration = Duration::from_millis(200);

static BUSY: AtomicBool = AtomicBool::new(false);
static WORKING: AtomicBool = AtomicBool::new(false);

/// A domain's life, and what is being done about it.
pub struct Control {
    /// Its state.
    pub life: Lifecycle,
    job: Option<Job>,
    /// The VMID of its stage 2.
    vmid: Option<u8>,
    cycle: Option<Cycle>,
    /// What it's built from, whenever it is. Changes only while nothing of it is there.
    pub config: DomainConfig,
}

impl Control {
    /// A domain of which there is nothing yet.
    pub const fn new(config: DomainConfig) -> Self {
        Self {
            life: Lifecycle::new(config.restart),
            job: None,
            vmid: None,
            cycle: None,
            config,
        }
    }
}

/// What a job is to end in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Goal {
    Build,
    Retire,
    Rebuild,
    Dismantle,
}

struct Job {
    goal: Goal,
    phase: Phase,
}

enum Phase {
    /// Its vCPUs are told to stop.
    Stop,
    /// Until they have.
    Stopping,
    /// Until its coprocessors, and the IOMMU, have let go of it.
    Leaving,
    Take,
    /// Its flash is filled, from here on.
    Flash(u64),
    Map(Cursor),
    Scrub(Cursor),
    Copy(Images),
    /// Until the IOMMU knows of its own devices.
    Entrust,
    Connect(usize),
    /// Until its memory is clean and free.
    Cleaning,
}

/// What a step came to.
enum Step {
    /// Go on with this.
    Next(Phase),
    /// Again later: somebody else has to do something.
    Wait(Phase),
    /// The job is done.
    Done,
    /// It can't be.
    Failed(Error),
}

/// Something has to be looked at, soon.
pub fn notice() {
    BUSY.store(true, Ordering::SeqCst);
    super::schedule::rearm();
}

/// Whether there is something to look after, in [`interval`] at the latest.
pub fn occupied() -> bool {
    BUSY.load(Ordering::SeqCst)
}

/// How long [`attend`] may be put off.
pub fn interval() -> Duration {
    if WORKING.load(Ordering::Relaxed) {
        WORK_INTERVAL
    } else {
        INTERVAL
    }
}

/// Looks after all domains, one step; cheap when there is nothing.
pub fn attend() {
    let Some(system) = super::get().filter(|_| occupied()) else {
        return;
    };
    BUSY.store(false, Ordering::SeqCst);
    let mut left = false;
    let mut working = false;
    for domain in system.domains.all() {
        let Some(mut control) = domain.control.try_lock() else {
            // Another CPU is at it, or somebody asks for something.
            left = true;
            continue;
        };
        act_on_ending(domain, &mut control);
        // One domain's work at a time; all of them may wait.
        if control.job.is_some() && !working {
            working = !step(domain, &mut control, &system.instances);
        }
        advance_cycle(domain, &mut control);
        left |= control.job.is_some() || control.cycle.is_some();
    }
    WORKING.store(working, Ordering::Relaxed);
    if left {
        BUSY.store(true, Ordering::SeqCst);
    }
}

fn act_on_ending(domain: &Domain, control: &mut Control) {
    let Some(how) = domain.ending() else {
        return;
    };
    let Some(action) = control.life.ended(how, timer::now()) else {
        return;
    };
    let follows = match control.life.state() {
        State::Restarting => "it is restarted",
        State::Off => "it is off",
        _ => "it stays stopped",
    };
    match how {
        Ending::Off => log::info!("{}: switched itself off; {follows}", domain.id),
        Ending::Reset => log::info!("{}: asks for a restart; {follows}", domain.id),
        Ending::Crash(why) => log::warn!("{}: crashed ({why}); {follows}", domain.id),
    }
    carry_out(domain, control, action);
}

/// Begins what was decided.
fn carry_out(domain: &Domain, control: &mut Control, action: Action) {
    let (goal, phase) = match action {
        Action::Build => (Goal::Build, Phase::Take),
        Action::Retire => (Goal::Retire, Phase::Stop),
        Action::Rebuild => (Goal::Rebuild, Phase::Stop),
        Action::Dismantle => (Goal::Dismantle, Phase::Stop),
        Action::Hold => {
            domain.hold();
            return;
        }
        Action::Release => {
            domain.release();
            return;
        }
    };
    control.job = Some(Job { goal, phase });
    notice();
}

/// Does a step of the domain's job; returns whether it waits for somebody else.
fn step(domain: &Domain, control: &mut Control, instances: &[Instance]) -> bool {
    let Some(Job { goal, phase }) = control.job.take() else {
        return true;
    };
    match next(domain, control, instances, goal, phase) {
        Step::Next(phase) => {
            control.job = Some(Job { goal, phase });
            false
        }
        Step::Wait(phase) => {
            control.job = Some(Job { goal, phase });
            true
        }
        Step::Done => {
            finish(domain, control, goal);
            false
        }
        Step::Failed(error) => {
            log::error!("{error}");
            if let Some(action) = control.life.built(false) {
                carry_out(domain, control, action);
            }
            false
        }
    }
}

fn next(
    domain: &Domain,
    control: &mut Control,
    instances: &[Instance],
    goal: Goal,
    phase: Phase,
) -> Step {
    let config = &control.config;
    match phase {
        Phase::Stop => {
            domain.stop();
            Step::Next(Phase::Stopping)
        }
        Phase::Stopping if !domain.is_stopped() => Step::Wait(Phase::Stopping),
        Phase::Stopping => {
            tell(domain, control);
            load::disconnect(domain, instances);
            passthrough::withdraw(domain);
            Step::Next(Phase::Leaving)
        }
        Phase::Leaving if attachment::holds(domain.id) || !passthrough::is_withdrawn(domain) => {
            Step::Wait(Phase::Leaving)
        }
        Phase::Leaving => match goal {
            Goal::Retire | Goal::Build => Step::Done,
            Goal::Rebuild => Step::Next(Phase::Scrub(Cursor::default())),
            Goal::Dismantle => {
                load::give_back(domain, &mut control.vmid);
                Step::Next(Phase::Cleaning)
            }
        },
        Phase::Cleaning if attachment::holds(domain.id) => Step::Wait(Phase::Cleaning),
        Phase::Cleaning => Step::Done,
        Phase::Take => match load::take(domain, config, &mut control.vmid) {
            Ok(()) => Step::Next(Phase::Flash(0)),
            Err(error) => Step::Failed(error),
        },
        Phase::Flash(offset) => match load::fill_flash(domain, config, offset) {
            Ok(Some(offset)) => Step::Next(Phase::Flash(offset)),
            Ok(None) => Step::Next(Phase::Map(Cursor::default())),
            Err(error) => Step::Failed(error),
        },
        Phase::Map(mut cursor) => match load::map(domain, config, &mut cursor) {
            Ok(true) => Step::Next(Phase::Map(cursor)),
            Ok(false) => Step::Next(Phase::Scrub(Cursor::default())),
            Err(error) => Step::Failed(error),
        },
        Phase::Scrub(mut cursor) => {
            if load::scrub(domain, &mut cursor) {
                return Step::Next(Phase::Scrub(cursor));
            }
            match Images::new(domain, config) {
                Ok(images) => Step::Next(Phase::Copy(images)),
                Err(error) => Step::Failed(error),
            }
        }
        Phase::Copy(mut images) => {
            if images.copy(domain) {
                return Step::Next(Phase::Copy(images));
            }
            load::reset(domain, config, &images);
            Step::Next(Phase::Entrust)
        }
        Phase::Entrust => match passthrough::entrust(domain) {
            Ok(true) => Step::Next(Phase::Connect(0)),
            Ok(false) => Step::Wait(Phase::Entrust),
            Err(error) => Step::Failed(error),
        },
        Phase::Connect(number) => match load::connect(domain, config, instances, number) {
            Ok(true) => Step::Next(Phase::Connect(number.saturating_add(1))),
            Ok(false) => Step::Done,
            // A coprocessor that was lost meanwhile doesn't keep a domain that had it from working without.
            Err(error) if goal == Goal::Rebuild => {
                log::error!("{error}");
                Step::Next(Phase::Connect(number.saturating_add(1)))
            }
            Err(error) => Step::Failed(error),
        },
    }
}

/// Shows the report on a crash that nobody has seen yet.
fn tell(domain: &Domain, control: &Control) {
    if !matches!(domain.ending(), Some(Ending::Crash(_))) {
        return;
    }
    if !matches!(control.life.state(), State::Crashed(_) | State::Restarting) {
        return;
    }
    let report = domain.report.lock();
    let lines = report
        .as_ref()
        .map(|report| (0..).map_while(|index| report.line(index)));
    for line in lines.into_iter().flatten() {
        log::warn!("{line}");
    }
}

fn finish(domain: &Domain, control: &mut Control, goal: Goal) {
    match goal {
        Goal::Retire => {}
        Goal::Dismantle => {
            control.life.dismantled();
            if control.cycle.is_none() {
                log::info!("{}: destroyed", domain.id);
            }
        }
        Goal::Build => {
            control.life.built(true);
            // Before the system is complete, at boot, all start together later.
            if super::get().is_some() {
                start_locked(domain, control);
                if control.cycle.is_none() {
                    log::info!("{}: created, starts ({})", domain.id, control.config.path);
                }
            }
        }
        Goal::Rebuild => {
            if control.life.built(true) == Some(Action::Release) {
                run(domain);
                log::info!("{}: restarted", domain.id);
            }
        }
    }
}

/// Its first vCPU runs.
fn run(domain: &Domain) {
    domain.forget_ending();
    passthrough::enable(domain);
    domain.release();
    if let Some(first) = domain.vcpus.first() {
        first.start();
    }
}

fn start_locked(domain: &Domain, control: &mut Control) {
    if control.life.start() {
        run(domain);
    }
}

/// Starts a domain that was created at boot. Returns whether there is one.
pub fn start(domain: &Domain) -> bool {
    let mut control = domain.control.lock();
    let created = control.life.state() == State::Created;
    start_locked(domain, &mut control);
    created
}

/// Creates a domain at boot, in one go. Returns whether it could be; if not, that was said, and nothing is left.
pub fn create_at_boot(domain: &Domain, instances: &[Instance]) -> bool {
    let mut control = domain.control.lock();
    if let Ok(action) = control.life.request(Operation::Create) {
        carry_out(domain, &mut control, action);
    }
    let limit = timer::now().saturating_add(Duration::from_secs(60));
    while control.job.is_some() && timer::now() < limit {
        if step(domain, &mut control, instances) {
            attachment::settle(instances);
        }
    }
    control.life.state() == State::Created
}

/// Why an operation wasn't begun.
#[derive(Debug)]
pub enum Refused {
    /// It doesn't fit the state.
    State(Refusal),
    /// CPUs are about to let go of it.
    NotStill,
    /// Rounds of creating and destroying are under way.
    Cycling,
}

/// Begins an operation.
///
/// # Errors
/// [`Refused`]; nothing changes then.
pub fn request(domain: &Domain, operation: Operation) -> Result<(), Refused> {
    let mut control = domain.control.lock();
    if control.cycle.is_some() {
        return Err(Refused::Cycling);
    }
    // A pause is over when the CPUs have let go, and time stands still for all vCPUs alike.
    if operation == Operation::Resume && !domain.is_still() {
        return Err(Refused::NotStill);
    }
    let action = control.life.request(operation).map_err(Refused::State)?;
    if action == Action::Release {
        domain.continue_time();
    }
    carry_out(domain, &mut control, action);
    Ok(())
}

/// Has a domain that is gone built from another configuration from now on: the one that `read` makes of the one in force. Nothing changes if that is none,
/// or doesn't suit the domain's pool.
///
/// # Errors
/// [`Refused`] if it isn't gone.
pub fn define(
    domain: &Domain,
    read: impl FnOnce(&DomainConfig) -> Found,
    running: &[Option<usize>],
) -> Result<Found, Refused> {
    let mut control = domain.control.lock();
    if control.cycle.is_some() {
        return Err(Refused::Cycling);
    }
    control.life.may_be_defined().map_err(Refused::State)?;
    let mut found = read(&control.config);
    let Some(config) = found.domain.take() else {
        return Ok(found);
    };
    if let Err(error) = processors::ask_for(domain, &config, running) {
        found.errors.push(error);
        return Ok(found);
    }
    domain.reshape(&config);
    control.life.define(config.restart);
    definition::tell(&config);
    control.config = config;
    Ok(found)
}

/// What must be as before when a domain is gone.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Resources {
    free: u64,
    vmids: u32,
    heap: usize,
}

impl Resources {
    fn now() -> Self {
        Self {
            free: FRAMES.lock().total(),
            vmids: load::vmids_lent(),
            heap: arch::heap::heap_use().0,
        }
    }
}

/// Rounds of creating and destroying, for those who look for leaks.
struct Cycle {
    rounds: u32,
    left: u32,
    /// As it was after the first round, which fills what is filled once.
    before: Option<Resources>,
    /// Until when this round's domain may run.
    until: Option<Instant>,
}

/// Creates and destroys a domain so many times: every other time when it has switched itself off, else at once.
///
/// # Errors
/// [`Refused`]; nothing changes then.
pub fn cycle(domain: &Domain, rounds: u32) -> Result<(), Refused> {
    let mut control = domain.control.lock();
    if control.cycle.is_some() || control.job.is_some() {
        return Err(Refused::Cycling);
    }
    control.cycle = Some(Cycle {
        rounds,
        left: rounds.saturating_add(1),
        before: None,
        until: None,
    });
    notice();
    Ok(())
}

fn advance_cycle(domain: &Domain, control: &mut Control) {
    if control.job.is_some() {
        return;
    }
    let Some(mut cycle) = control.cycle.take() else {
        return;
    };
    let operation = match control.life.state() {
        State::Gone => {
            if cycle.left == cycle.rounds {
                cycle.before = Some(Resources::now());
            }
            if cycle.left == 0 {
                let after = Resources::now();
                if let Some(before) = cycle.before {
                    log::info!(
                        "{}: {} rounds; free_bytes={} to {}, vmids={} to {}, heap_bytes={} to {}",
                        domain.id,
                        cycle.rounds,
                        before.free,
                        after.free,
                        before.vmids,
                        after.vmids,
                        before.heap,
                        after.heap
                    );
                }
                return;
            }
            cycle.left = cycle.left.saturating_sub(1);
            cycle.until = None;
            Some(Operation::Create)
        }
        State::Running if cycle.left & 1 != 0 => {
            let now = timer::now();
            let until = *cycle.until.get_or_insert(now.saturating_add(ROUND));
            (now >= until).then_some(Operation::Destroy)
        }
        _ => Some(Operation::Destroy),
    };
    control.cycle = Some(cycle);
    if let Some(operation) = operation {
        match control.life.request(operation) {
            Ok(action) => carry_out(domain, control, action),
            Err(refusal) => {
                log::error!("{}: {refusal}", domain.id);
                control.cycle = None;
            }
        }
    }
}
