//! The places in a domain's tree of coprocessors that the machine's tree describes.
//!
//! A tree is read once, so the node is there for the domain's whole life, and so are its addresses and interrupts; what comes and goes is the
//! share behind it. Without one the registers read all-ones, like a card that was pulled.

use super::domain::Domain;
use super::exit::within;
use super::sharing::{self, Link};
use alloc::vec::Vec;
use coproc_core::id::{CoprocId, VcoprocId};
use hypervisor::config::DomainConfig;
use hypervisor::guest_tree::layout;
use hypervisor::passthrough::{Pages, plan};
use hypervisor::vgic::Line;
use spin::Mutex;

/// One of them.
pub struct Fixture {
    /// Whose place it is.
    pub coproc: CoprocId,
    /// Its registers, in the order of `reg`.
    pub registers: Vec<Pages>,
    /// The SPI (counted from 0) of each of its interrupts.
    pub spis: Vec<u32>,
    link: Mutex<Option<Link>>,
}

impl Fixture {
    /// The share behind it.
    pub fn link(&self) -> Option<Link> {
        *self.link.lock()
    }

    /// Puts a share behind it.
    pub fn connect(&self, link: Link) {
        *self.link.lock() = Some(link);
    }

    /// Takes it away again.
    pub fn disconnect(&self) -> Option<Link> {
        self.link.lock().take()
    }
}

/// Those of a domain, where its tree has them.
pub fn of(config: &DomainConfig) -> Vec<Fixture> {
    // The configuration has looked whether there is room.
    let places = plan(&config.passthrough, &config.fixtures).unwrap_or_default();
    let places = places.into_iter().skip(config.passthrough.len());
    let fixtures = config.fixtures.iter().zip(places);
    let fixtures = fixtures.map(|(fixture, place)| Fixture {
        coproc: fixture.coproc,
        registers: place.registers,
        spis: place.spis,
        link: Mutex::new(None),
    });
    fixtures.collect()
}

/// The place of a coprocessor, if the domain's tree has it.
pub fn position(domain: &Domain, coproc: CoprocId) -> Option<u8> {
    let fixtures = domain.fixtures.read();
    let at = fixtures
        .iter()
        .position(|fixture| fixture.coproc == coproc)?;
    u8::try_from(at).ok()
}

/// What is at an address: the share, if there is one, window and offset in it.
pub fn find(domain: &Domain, address: u64) -> Option<(Option<Link>, usize, u64)> {
    within(address, layout::PASSTHROUGH_BASE, layout::PASSTHROUGH_SIZE)?;
    domain.fixtures.read().iter().find_map(|fixture| {
        let mut windows = fixture.registers.iter().enumerate();
        windows.find_map(|(index, pages)| {
            let offset = within(address, pages.at, pages.size)?;
            Some((fixture.link(), index, offset))
        })
    })
}

/// The domain ended an interrupt. Returns whether it's one of these.
pub fn ended(domain: &Domain, intid: u32) -> bool {
    for fixture in domain.fixtures.read().iter() {
        let mut spis = fixture.spis.iter();
        if let Some(index) = spis.position(|spi| spi.wrapping_add(32) == intid) {
            if let Some(link) = fixture.link() {
                sharing::resample_line(&link, index);
            }
            return true;
        }
    }
    false
}

/// Takes a share from its place.
pub fn pull(domain: &Domain, who: VcoprocId) {
    let fixtures = domain.fixtures.read();
    let found = fixtures
        .iter()
        .find(|fixture| fixture.link().is_some_and(|link| link.who == who));
    if let Some(fixture) = found {
        fixture.disconnect();
        for spi in &fixture.spis {
            domain.set_line(Line::Spi(spi.wrapping_add(32)), false);
        }
    }
}
