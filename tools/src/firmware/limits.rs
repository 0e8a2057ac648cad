//! What a firmware and its domain can't do, and how each end is told.

use super::driver::{Driver, Grant};
use super::host::Host;
use fw_core_abi::{
    GRANT_BASE, GRANT_END, ID, IMAGE_BASE, IMAGE_SIZE, LOCAL_BASE, REGISTERS_SIZE, SHARED_BASE,
    SHARED_SIZE, host, status,
};
use fw_logic::probes::{WENT_THROUGH, task};
use fw_logic::protocol::{exit, kind};
use std::io;

const PAGE: u64 = 4096;
/// ESR_ELx.EC of data and instruction aborts without a change of exception level.
const OWN_ABORTS: [u32; 2] = [0x21, 0x25];

/// Addresses where a firmware has nothing.
const OUTSIDE: [u64; 12] = [
    0,
    0x0800_0000, // the machine's interrupt controller
    0x0900_0000, // and UART
    0x4000_0000, // RAM
    0x5000_0000,
    LOCAL_BASE + REGISTERS_SIZE,
    IMAGE_BASE - 4,
    IMAGE_BASE + IMAGE_SIZE,
    SHARED_BASE - 4,
    SHARED_BASE + SHARED_SIZE,
    GRANT_END,
    0x40_1000_0000, // PCI configuration space
];

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The access went through.
    Through,
    /// Crashed, at this address.
    Crashed(u64),
    /// Exited with this code.
    Exited(u32),
    /// None of these in time.
    None,
}

/// Tries all of it; what the mode adds to the last line.
///
/// # Errors
/// When the system fails. What isn't as it must be is counted.
pub fn run<H: Host>(driver: &mut Driver<H>) -> io::Result<String> {
    let id = driver.register(host::ID);
    driver.check("id", ID.into(), id.into());
    let found = driver.status();
    driver.check("status-at-first", status::STOPPED.into(), found.into());
    driver.totals.jobs += 1;

    let large = vec![0; IMAGE_SIZE as usize + 1];
    if driver.load(&large).is_ok() {
        driver.wrong("image-too-large", "refused", "loaded");
    }
    driver.totals.jobs += 1;

    driver.load_named("hostile")?;
    for (what, task, inbox, code) in [
        ("exit", task::EXIT, 0x1234, 0x1234),
        ("exit-0", task::EXIT, 0, 0),
        ("panic", task::PANIC, 0, exit::PANIC),
    ] {
        let end = attempt(driver, task, inbox)?;
        expect(driver, what, end == End::Exited(code), end);
    }
    let mut crashes = 0;
    for (what, task) in [
        ("read", task::READ),
        ("write", task::WRITE),
        ("branch", task::BRANCH),
    ] {
        // Nothing is granted so far.
        for address in OUTSIDE.into_iter().chain([GRANT_BASE]) {
            let end = attempt(driver, task, address)?;
            let own = |code: &u32| OWN_ABORTS.iter().any(|ec| exit::EXCEPTION | ec == *code);
            let held = match end {
                End::Crashed(at) => at == address,
                End::Exited(code) => own(&code),
                End::Through | End::None => false,
            };
            crashes += u64::from(held);
            expect(driver, &format!("{what}-{address:#x}"), held, end);
        }
    }
    // An entry where nothing is.
    driver.start_at(IMAGE_BASE + IMAGE_SIZE, 0, 0);
    let end = outcome(driver)?;
    let at = IMAGE_BASE + IMAGE_SIZE;
    expect(driver, "entry-outside", end == End::Crashed(at), end);
    driver.stop();

    let grants = grants(driver)?;
    Ok(format!("contained={crashes} grants_refused={grants}"))
}

fn expect<H: Host>(driver: &mut Driver<H>, what: &str, held: bool, end: End) {
    driver.totals.jobs += 1;
    if !held {
        let found = format!("{end:x?}").replace(' ', "");
        driver.wrong(what, "contained", &found);
    }
}

fn attempt<H: Host>(driver: &mut Driver<H>, task: u64, inbox: u64) -> io::Result<End> {
    driver.start(task, inbox);
    let end = outcome(driver)?;
    driver.stop();
    Ok(end)
}

fn outcome<H: Host>(driver: &mut Driver<H>) -> io::Result<End> {
    let timeout = driver.timeout();
    let end = driver.wait_for(timeout, |driver| match driver.status() {
        status::CRASHED => Some(End::Crashed(driver.register64(host::CRASH_ADDRESS))),
        status::EXITED => Some(End::Exited(driver.register(host::EXIT_CODE))),
        _ => (driver.register64(host::OUTBOX) == WENT_THROUGH).then_some(End::Through),
    })?;
    Ok(end.unwrap_or(End::None))
}

/// Grants that must hold, and those that mustn't; how many of these were refused.
fn grants<H: Host>(driver: &mut Driver<H>) -> io::Result<u64> {
    let address = driver.host.grant_address()?;
    let good = Grant {
        address,
        size: PAGE,
        target: GRANT_BASE + PAGE,
    };
    if !driver.grant(1, good) {
        return Err(io::Error::other(format!("not granted: {good:x?}")));
    }
    let end = attempt(driver, task::READ, good.target)?;
    expect(driver, "read-granted", end == End::Through, end);
    let beside = attempt(driver, task::READ, GRANT_BASE)?;
    let held = !matches!(beside, End::Through | End::None);
    expect(driver, "read-beside-granted", held, beside);

    let bad = [
        ("uart", 0x0900_0000, PAGE, GRANT_BASE),
        ("own-registers", 0x1000_0000, PAGE, GRANT_BASE),
        ("low", 0, PAGE, GRANT_BASE),
        ("beyond-ram", 0x80_0000_0000, PAGE, GRANT_BASE),
        ("beyond-everything", !0xfff, PAGE, GRANT_BASE),
        ("into-nothing", address, 1 << 40, GRANT_BASE),
        ("wrapping", address, 0u64.wrapping_sub(PAGE), GRANT_BASE),
        ("unaligned-address", address + 8, PAGE, GRANT_BASE),
        ("unaligned-size", address, PAGE + 8, GRANT_BASE),
        ("unaligned-target", address, PAGE, GRANT_BASE + 8),
        ("nothing", address, 0, GRANT_BASE),
        ("into-image", address, PAGE, IMAGE_BASE),
        ("into-shared", address, PAGE, SHARED_BASE),
        ("into-registers", address, PAGE, LOCAL_BASE),
        ("past-the-end", address, PAGE, GRANT_END),
        ("on-another", address, PAGE, good.target),
    ];
    let mut refused = 0;
    for (what, address, size, target) in bad {
        let held = driver.grant(
            2,
            Grant {
                address,
                size,
                target,
            },
        );
        driver.totals.jobs += 1;
        refused += u64::from(!held);
        if held {
            driver.wrong(&format!("grant-{what}"), "refused", "granted");
            driver.take_back(2);
        }
    }
    // Neither given nor taken while it runs.
    driver.load_named("hung")?;
    driver.start(0, 0);
    driver.wait_ready(kind::HUNG)?;
    if driver.grant(
        2,
        Grant {
            target: GRANT_BASE,
            ..good
        },
    ) {
        driver.wrong("grant-while-running", "refused", "granted");
    }
    if driver.take_back(1) {
        driver.wrong("taken-back-while-running", "refused", "taken");
    }
    driver.stop();
    let found = driver.status();
    driver.check("status-stopped", status::STOPPED.into(), found.into());
    driver.totals.jobs += 3;

    if !driver.take_back(1) {
        driver.wrong("taken-back", "done", "refused");
    }
    driver.load_named("hostile")?;
    let end = attempt(driver, task::READ, good.target)?;
    let held = !matches!(end, End::Through | End::None);
    expect(driver, "read-taken-back", held, end);
    Ok(refused)
}
