//! What a domain takes of the machine when it is created, and what is said if there isn't enough.

use crate::config::{DomainConfig, SharedMemory, passthrough};
use crate::devicetree::Error;
use crate::memory::frames::{FrameError, Frames, Piece};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use coproc_core::id::{CoprocId, DomainId};
use core::ops::Range;

/// VMIDs of domains, of which each has one while it is there.
pub const VMIDS: Range<u8> = 1..96;

const BLOCK: u64 = 2 << 20;
/// Bytes of variables that there is memory for. UEFI uses 768 KiB, U-Boot 256.
const VARIABLES: u64 = BLOCK;

impl DomainConfig {
    /// Takes its RAM: in as few, as large and as well aligned pieces as there are.
    ///
    /// # Errors
    /// If there isn't enough; what could be had is in `taken` all the same.
    pub fn take_memory(&self, frames: &mut Frames, taken: &mut Vec<Piece>) -> Result<(), Error> {
        let mut left = self.memory;
        while left > 0 {
            let Ok(piece) = frames.allocate_blocks(left) else {
                let given = self.memory.saturating_sub(left);
                let free = frames.total().saturating_add(given);
                let expected = format!("at most {} KiB, which is free", free / 1024);
                let found = format!("{} KiB", self.memory / 1024);
                return Err(Error::new(self.path.clone(), found, expected)
                    .property("memory")
                    .remedy("give the domain less memory or the machine more"));
            };
            taken.push(piece);
            left = left.saturating_sub(piece.size);
        }
        Ok(())
    }

    /// Takes memory for both banks of its flash: its firmware, and variables.
    ///
    /// # Errors
    /// If there isn't enough; nothing is taken then.
    pub fn take_flash(&self, frames: &mut Frames) -> Result<[Piece; 2], Error> {
        let mut take = || {
            let size = self.kernel.region.size.checked_next_multiple_of(BLOCK);
            let code = frames.allocate(size.unwrap_or(u64::MAX), BLOCK)?;
            match frames.allocate(VARIABLES, BLOCK) {
                Ok(variables) => Ok([code, variables]),
                Err(error) => frames.free(code).and(Err(error)),
            }
        };
        take().map_err(|error: FrameError| {
            Error::new(self.path.clone(), error.to_string(), "memory for flash")
        })
    }

    /// The error that no VMID is left for it.
    pub fn no_vmid(&self) -> Error {
        let expected = "at most 95 domains at a time, one VMID each";
        Error::new(self.path.clone(), "one domain more", expected)
    }

    /// An error about its own devices.
    pub fn passthrough_error(&self, found: String, expected: &'static str) -> Error {
        Error::new(self.path.clone(), found, expected).property(passthrough::PROPERTY)
    }

    /// An error about its coprocs.
    pub fn coprocs_error(&self, found: String, expected: &'static str) -> Error {
        Error::new(self.path.clone(), found, expected).property("baton,coprocs")
    }

    /// The error that one of its coprocs isn't there.
    pub fn coproc_unavailable(&self, coproc: CoprocId) -> Error {
        self.coprocs_error(
            format!("{coproc}, which can't be used"),
            "a coproc that works",
        )
        .remedy("see the error of that coproc")
    }

    /// The error that it has no slot for one more coproc.
    pub fn too_many_coprocs(&self) -> Error {
        self.coprocs_error("too many coprocs".into(), "at most 31")
    }

    /// The error that one of its coprocs doesn't take it.
    pub fn coproc_refuses(&self, found: String) -> Error {
        self.coprocs_error(found, "a coproc that takes the domain")
    }
}

impl SharedMemory {
    fn domains_error(&self, found: String, expected: &'static str) -> Error {
        Error::new(self.path.clone(), found, expected).property("domains")
    }

    /// The error that one of its domains isn't there.
    pub fn not_created(&self, domain: DomainId) -> Error {
        let found = format!("{domain}, which was not created");
        self.domains_error(found, "domains that work")
    }

    /// The error that one of its domains has no slot left.
    pub fn no_slot(&self, domain: DomainId) -> Error {
        let found = format!("{domain}, whose PCI slots are taken");
        self.domains_error(found, "a free PCI slot")
    }

    /// The error that there is no memory for it.
    pub fn no_memory(&self, error: FrameError) -> Error {
        Error::new(self.path.clone(), error.to_string(), "free memory").property("size")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::configuration;
    use super::*;
    use coproc_core::address::HostPhysical;
    use proptest::prelude::*;

    #[test]
    fn flash_is_taken_whole_or_not_at_all() {
        let mut configuration = configuration();
        let config = configuration.domains[0].as_mut().unwrap();
        config.kernel.region.size = BLOCK + 1;
        let start = HostPhysical::new(1 << 30);
        for blocks in 1..4 {
            let mut frames = Frames::new();
            frames.add(start, blocks * BLOCK).unwrap();
            let taken = config.take_flash(&mut frames);
            if blocks < 3 {
                let error = taken.unwrap_err().to_string();
                assert!(error.starts_with("/chosen/domain@1: 0x"), "{error}");
                assert!(error.ends_with("; expected memory for flash"), "{error}");
                assert_eq!(frames.total(), blocks * BLOCK);
            } else {
                let sizes = taken.unwrap().map(|piece| piece.size);
                assert_eq!(sizes, [2 * BLOCK, BLOCK]);
            }
        }
    }

    proptest! {
        /// All of it or the truth about what there was; and nothing is lost or taken twice.
        #[test]
        fn a_domain_gets_all_its_memory_or_is_told_how_much_there_is(
            banks in prop::collection::vec(1u64..40, 1..6),
            wanted in 1u64..100,
        ) {
            let mut frames = Frames::new();
            for (at, blocks) in (1u64..).zip(&banks) {
                frames.add(HostPhysical::new(at << 30), blocks * BLOCK).unwrap();
            }
            let all = frames.total();
            let mut configuration = configuration();
            let config = configuration.domains[0].as_mut().unwrap();
            config.memory = wanted * BLOCK;
            let mut taken = Vec::new();
            let result = config.take_memory(&mut frames, &mut taken);
            let given: u64 = taken.iter().map(|piece| piece.size).sum();
            prop_assert_eq!(given + frames.total(), all);
            match result {
                Ok(()) => prop_assert_eq!(given, config.memory),
                Err(error) => {
                    prop_assert!(given < config.memory);
                    let text = format!(
                        "/chosen/domain@1: memory: {} KiB; expected at most {} KiB, which is free; ",
                        config.memory / 1024,
                        all / 1024
                    );
                    prop_assert!(error.to_string().starts_with(&text), "{}", error);
                }
            }
            for piece in taken {
                frames.free(piece).unwrap();
            }
            prop_assert_eq!(frames.total(), all);
        }
    }
}
