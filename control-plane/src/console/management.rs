//! What can be asked of and done to the running system: typed operations, typed results.
//!
//! Lists are read item by item, not as a whole, because an answer may be longer than the console
//! has room for and is then made over many milliseconds; an item that disappears meanwhile ends
//! or shortens the list, nothing worse.
//!
//! Each result's `Display` is one line of `key=value`, for people and programs alike: keys are never
//! renamed, new ones come at the end, times are whole nanoseconds (`_ns`), absent values are `-`.

use super::coprocs::{CoprocReport, HistogramReport, RecordReport, SliceReport, VcoprocReport};
use super::cpus::{PoolReport, VcpuReport};
use super::devices::DeviceReport;
use super::domains::{DomainReport, MemoryReport};
use super::file::FileError;
use crate::devicetree::Error;
use crate::lifecycle::{Operation, Refusal};
use crate::trace::Rings;
use alloc::vec::Vec;
use arrayvec::ArrayString;
use coproc_core::id::{CoprocId, DomainId};
use core::fmt;

/// A word of a command's text.
pub type Word = ArrayString<32>;

/// Why an operation failed; reads "what, remedy".
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ManagementError {
    /// There is no such domain.
    #[error("no domain {0}, `domains` lists them")]
    NoDomain(DomainId),
    /// There is no such coprocessor.
    #[error("no coproc {}, `coproc list` lists them", .0.0)]
    NoCoproc(CoprocId),
    /// The domain has no vcoproc of this coprocessor.
    #[error("{domain} has no vcoproc of coproc {0}, `coproc attach {0} {domain}` gives it one", coproc.0)]
    NotAttached {
        /// The coprocessor.
        coproc: CoprocId,
        /// The domain.
        domain: DomainId,
    },
    /// The domain has a vcoproc of this coprocessor already.
    #[error("{domain} has a vcoproc of coproc {0} already, `coproc query {0}` shows it", coproc.0)]
    AlreadyAttached {
        /// The coprocessor.
        coproc: CoprocId,
        /// The domain.
        domain: DomainId,
    },
    /// The coprocessor isn't recorded.
    #[error("coproc {} is not recorded, give its node `baton,record`", .0.0)]
    NotRecorded(CoprocId),
    /// Nobody shares this coprocessor.
    #[error("coproc {id} is not shared, `coproc share {id}` shares it", id = .0.0)]
    NotShared(CoprocId),
    /// This coprocessor is shared.
    #[error("coproc {id} is shared already, `coproc query {id}` shows it", id = .0.0)]
    AlreadyShared(CoprocId),
    /// The last contexts are still leaving this coprocessor.
    #[error("coproc {} is still being unshared, `coproc list` tells when that is over", .0.0)]
    Unsharing(CoprocId),
    /// There is no such pool.
    #[error("no pool {0}, `pool list` lists them")]
    NoPool(u32),
    /// There is no such parameter.
    #[error("no parameter `{0}`, `help` lists them")]
    NoParameter(Word),
    /// The parameter can't have this value.
    #[error("`{value}` is no value for {name}, expected {expected}")]
    BadValue {
        /// The parameter.
        name: Word,
        /// What was given.
        value: Word,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// The domain has no report.
    #[error("{0} never crashed, nothing is to be told")]
    NoReport(DomainId),
    /// A file isn't as it should be.
    #[error(transparent)]
    File(#[from] FileError),
    /// The operation doesn't fit the domain's state.
    #[error("{0}, {remedy}", remedy = .0.remedy())]
    Refused(Refusal),
    /// Anything else.
    #[error("{what}, {remedy}")]
    Failed {
        /// What went wrong.
        what: alloc::string::String,
        /// What helps.
        remedy: &'static str,
    },
}

/// What was found in a domain's configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Definition {
    /// Mistakes; if there are none, it's in force.
    pub mistakes: Vec<Error>,
    /// What has no effect, and probably should have.
    pub warnings: Vec<Error>,
}

/// The operations. Indices count from 0; `None` ends a list.
pub trait Management {
    /// Begins an operation on a domain; its state tells when it is done.
    ///
    /// # Errors
    /// [`ManagementError`]; nothing is changed then.
    fn operate(&mut self, domain: DomainId, operation: Operation) -> Result<(), ManagementError>;

    /// Takes a part of a file, which begins at byte `offset`; at 0 a new one begins. Returns how many bytes there are now.
    ///
    /// # Errors
    /// [`ManagementError::File`]; what was there is there still.
    fn put(&mut self, offset: u32, part: &[u8]) -> Result<usize, ManagementError>;

    /// Gives a domain that is gone the configuration that the file has for it.
    ///
    /// # Errors
    /// [`ManagementError`] if the domain or the file doesn't allow it. Then, and if there is a mistake in the file, nothing is changed.
    fn define(&mut self, domain: DomainId) -> Result<Definition, ManagementError>;

    /// Writes line `index` of the report on a domain's last crash; returns whether there is one.
    ///
    /// # Errors
    /// [`ManagementError`] if there is no report.
    fn crash(
        &mut self,
        domain: DomainId,
        index: usize,
        line: &mut dyn fmt::Write,
    ) -> Result<bool, ManagementError>;

    /// Begins to create and destroy a domain so many times; the end is a message.
    ///
    /// # Errors
    /// [`ManagementError`]; nothing is changed then.
    fn cycle(&mut self, domain: DomainId, rounds: u32) -> Result<(), ManagementError>;

    /// What is free and what is used.
    fn memory(&mut self) -> MemoryReport;

    /// Lets the `nth` call of this kind from now on fail. Returns how many calls were missing until the one that was to fail before; 0: it did, or none was.
    #[cfg(feature = "fault-injection")]
    fn inject(&mut self, kind: crate::injection::Kind, nth: u32) -> u32 {
        crate::injection::arm(kind, nth)
    }

    /// The domain at `index`.
    fn domain(&mut self, index: usize) -> Option<DomainReport>;

    /// The coprocessor at `index`.
    fn coproc(&mut self, index: usize) -> Option<CoprocReport>;

    /// The vcoproc at `index` of one coprocessor.
    fn vcoproc(&mut self, coproc: CoprocId, index: usize) -> Option<VcoprocReport>;

    /// The oldest recorded slice of one coprocessor whose sequence number is at least `from`,
    /// with that number.
    fn slice(&mut self, coproc: CoprocId, from: u64) -> Option<(u64, SliceReport)>;

    /// One of a vcoproc's histograms, both by index.
    fn histogram(
        &mut self,
        coproc: CoprocId,
        vcoproc: usize,
        histogram: usize,
    ) -> Option<HistogramReport>;

    /// The trace.
    fn trace(&mut self) -> &dyn Rings;

    /// How far a coprocessor's record is.
    ///
    /// # Errors
    /// [`ManagementError::NoCoproc`], [`ManagementError::NotRecorded`].
    fn recorded(&mut self, coproc: CoprocId) -> Result<RecordReport, ManagementError>;

    /// Puts the line of a coprocessor's record that begins at byte `from` into `line`, and tells where the next one begins. `None` behind the last, or if no
    /// line begins there.
    fn record(&mut self, coproc: CoprocId, from: u64, line: &mut dyn fmt::Write) -> Option<u64>;

    /// Sets a parameter of a coprocessor's scheduling, from the next decision on.
    ///
    /// # Errors
    /// [`ManagementError`]; nothing is changed then.
    fn set(&mut self, coproc: CoprocId, name: &str, value: &str) -> Result<(), ManagementError>;

    /// The device at `index` that a domain has for itself, of all domains in order.
    fn device(&mut self, index: usize) -> Option<DeviceReport>;

    /// The pool of CPUs at `index`.
    fn pool(&mut self, index: usize) -> Option<PoolReport>;

    /// The vCPU at `index`, of all domains in order.
    fn vcpu(&mut self, index: usize) -> Option<VcpuReport>;

    /// Gives a pool another algorithm, live.
    ///
    /// # Errors
    /// [`ManagementError`]; the old algorithm stays then.
    fn set_pool(&mut self, pool: u32, scheduler: &str) -> Result<(), ManagementError>;

    /// Sets `dN.NAME` for all vCPUs of a domain, from the next decision on.
    ///
    /// # Errors
    /// [`ManagementError`]; nothing is changed then.
    fn set_domain(&mut self, name: &str, value: &str) -> Result<(), ManagementError>;

    /// Gives a domain a vcoproc of a coprocessor. It appears to the domain at its next PCI rescan.
    ///
    /// # Errors
    /// [`ManagementError`]; nothing is left behind then.
    fn attach(&mut self, coproc: CoprocId, domain: DomainId) -> Result<(), ManagementError>;

    /// Takes it away: from now on it reads as all-ones, like a card that was pulled.
    ///
    /// # Errors
    /// [`ManagementError`]; nothing is changed then.
    fn detach(&mut self, coproc: CoprocId, domain: DomainId) -> Result<(), ManagementError>;

    /// Shares a coprocessor that is described but not shared, as the configuration says. No domain has a vcoproc of it yet.
    ///
    /// # Errors
    /// [`ManagementError`]; it stays unshared, or is quarantined if it had been and can't be reset.
    fn share(&mut self, coproc: CoprocId) -> Result<(), ManagementError>;

    /// Ends the sharing: every domain loses its vcoproc as by [`Management::detach`], and when the last context has left the device
    /// belongs to nobody.
    ///
    /// # Errors
    /// [`ManagementError`]; nothing is changed then.
    fn unshare(&mut self, coproc: CoprocId) -> Result<(), ManagementError>;
}
