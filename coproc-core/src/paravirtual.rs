//! The paravirtual opt-in: a coprocessor that is given back when asked, instead of being taken.
//!
//! Some coprocessors can't be switched from outside at every moment, and some firmware would rather choose the moment. Both are agreements
//! between Baton and whoever runs in the vcoproc, and an agreement has to be found in the registers, before any work starts, with a
//! defined outcome if it isn't reached. That is this block: Baton *offers* features and says which it *requires*, the domain
//! *accepts*, and from then on the framework's wish to stop becomes a *request* that the other side answers by yielding.
//!
//! Trust isn't part of it. A side that agreed and doesn't yield refuses, like any other refusal: charged, bounded, then stopped by force. Who never
//! agreed is switched from outside where that can be done, and never starts where it can't.
//!
//! The state is plain data that a driver keeps in its context, and moves with it; where the block stands among a coprocessor's registers, and how
//! its firmware sees a request and yields, is the coprocessor's own.

use crate::register::Width;

/// Bytes of registers.
pub const SIZE: u64 = 0x20;
/// What [`register::ID`] reads: "PV" and the version of the block. A change that old software can't know changes it.
pub const ID: u32 = 0x5056_0001;

/// The registers, all of 4 bytes, accessed whole; anything else reads 0 and writes nothing.
pub mod register {
    /// Read-only: [`ID`](super::ID).
    pub const ID: u64 = 0x00;
    /// Read-only: [`feature`](super::feature)s that may be accepted.
    pub const OFFERED: u64 = 0x04;
    /// Read-only: features without which no work is taken.
    pub const REQUIRED: u64 = 0x08;
    /// Read-write: features that the domain accepts. Only offered ones stick; doesn't change while the vcoproc works.
    pub const ACCEPTED: u64 = 0x0c;
    /// Read-only: features that are asked for now: [`feature::YIELD`](super::feature::YIELD) while the coprocessor is wanted back.
    pub const REQUEST: u64 = 0x10;
    /// Read-only: see [`status`](super::status).
    pub const STATUS: u64 = 0x14;
}

/// Bits of [`register::OFFERED`] and its companions.
pub mod feature {
    /// Asked to yield, and not switched from outside.
    pub const YIELD: u32 = 1 << 0;
}

/// Bits of [`register::STATUS`].
pub mod status {
    /// The last start was ignored: a required feature isn't accepted. Cleared by a write to
    /// [`register::ACCEPTED`](super::register::ACCEPTED) that reaches it.
    pub const REFUSED: u32 = 1 << 0;
}

/// One vcoproc's side of the agreement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paravirtual {
    offered: u32,
    required: u32,
    accepted: u32,
    requested: bool,
    yielded: bool,
    refused: bool,
}

impl Paravirtual {
    /// Nothing accepted yet. What is required is offered too.
    pub const fn new(offered: u32, required: u32) -> Self {
        Self {
            offered: offered | required,
            required,
            accepted: 0,
            requested: false,
            yielded: false,
            refused: false,
        }
    }

    /// The domain reads at `offset` from the block's start.
    pub const fn read(&self, offset: u64, width: Width) -> u64 {
        if !matches!(width, Width::Word) {
            return 0;
        }
        let value = match offset {
            register::ID => ID,
            register::OFFERED => self.offered,
            register::REQUIRED => self.required,
            register::ACCEPTED => self.accepted,
            register::REQUEST if self.requested => feature::YIELD,
            register::STATUS if self.refused => status::REFUSED,
            _ => 0,
        };
        value as u64
    }

    /// The domain writes. `working`: the vcoproc has started work that isn't over, so that what was agreed for it stands.
    pub const fn write(&mut self, offset: u64, width: Width, value: u64, working: bool) {
        if matches!(width, Width::Word) && offset == register::ACCEPTED && !working {
            self.accepted = (value & 0xffff_ffff) as u32 & self.offered;
            if self.required & !self.accepted == 0 {
                self.refused = false;
            }
        }
    }

    /// Whether work may start; if not, the start is to be ignored, and the domain finds [`status::REFUSED`].
    pub const fn admits(&mut self) -> bool {
        self.refused = self.required & !self.accepted != 0;
        !self.refused
    }

    /// The features that were accepted.
    pub const fn accepted(&self) -> u32 {
        self.accepted
    }

    /// Whether the vcoproc is asked, instead of being switched from outside.
    pub const fn is_asked(&self) -> bool {
        self.accepted & feature::YIELD != 0
    }

    /// The coprocessor is wanted back. Whether this is news that the other side has to be told: not if it didn't accept, nor
    /// if it was asked already.
    pub const fn ask(&mut self) -> bool {
        let news = self.is_asked() && !self.requested;
        self.requested |= news;
        news
    }

    /// The other side yields. Without a request this does nothing: nobody yields in advance.
    pub const fn give(&mut self) {
        self.yielded |= self.requested;
    }

    /// Whether it has yielded since it was asked.
    pub const fn has_yielded(&self) -> bool {
        self.yielded
    }

    /// The request is over: fulfilled, or there is nothing to be asked for any more.
    pub const fn settle(&mut self) {
        self.requested = false;
        self.yielded = false;
    }

    /// What changes, in one word, to be kept in a context: see [`Paravirtual::restore`].
    pub const fn save(&self) -> u64 {
        self.accepted as u64
            | (self.requested as u64) << 32
            | (self.yielded as u64) << 33
            | (self.refused as u64) << 34
    }

    /// Puts back what [`Paravirtual::save`] told.
    pub const fn restore(&mut self, saved: u64) {
        self.accepted = (saved & 0xffff_ffff) as u32 & self.offered;
        self.requested = saved >> 32 & 1 != 0;
        self.yielded = saved >> 33 & 1 != 0;
        self.refused = saved >> 34 & 1 != 0;
    }
}
