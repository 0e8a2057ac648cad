//! Where a domain's kernel, ramdisk and device tree go in its memory.
//!
//! A kernel must be a raw arm64 Image (Linux, Documentation/arch/arm64/booting.rst): its header says how much memory it needs, which
//! may be more than its file has.

use crate::config::DomainConfig;
use crate::devicetree::{Error, Region};
use crate::guest_tree::layout;
use alloc::format;
use coproc_core::address::GuestPhysical;

const MIB2: u64 = 0x20_0000;
/// Largest device tree that the boot protocol allows, and what is set aside for it at the start of RAM.
pub const TREE_SPACE: u64 = MIB2;

/// What can't be placed, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImageError {
    /// The file has no arm64 Image header.
    #[error("is not a raw arm64 Image (no magic number \"ARM\\x64\" at offset 56{hint})")]
    NotAnImage {
        /// What it looks like instead.
        hint: &'static str,
    },
    /// The image is big-endian.
    #[error("is a big-endian image; expected little-endian")]
    BigEndian,
    /// Kernel, ramdisk and device tree need more RAM than the domain has.
    #[error(
        "needs {needed} MiB of RAM for kernel, ramdisk and device tree, the domain has {available} MiB"
    )]
    TooLarge {
        /// MiB needed.
        needed: u64,
        /// MiB available.
        available: u64,
    },
}

/// The interesting fields of an arm64 Image header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Offset from a 2 MiB boundary.
    pub text_offset: u64,
    /// Memory that the kernel takes from there, at least the file's length.
    pub size: u64,
}

impl Header {
    /// Reads the header of `file`.
    ///
    /// # Errors
    /// [`ImageError::NotAnImage`], [`ImageError::BigEndian`].
    pub fn read(file: &[u8]) -> Result<Self, ImageError> {
        let word = |offset: usize| -> Option<u64> {
            let bytes = file.get(offset..offset.checked_add(8)?)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        if file.get(56..60) != Some(b"ARM\x64") {
            let hint = if file.starts_with(&[0x1f, 0x8b]) {
                "; it is compressed by gzip: unpack it"
            } else if file.starts_with(b"\x7fELF") {
                "; it is an ELF file: use arch/arm64/boot/Image"
            } else {
                ""
            };
            return Err(ImageError::NotAnImage { hint });
        }
        let flags = word(24).unwrap_or(0);
        if flags & 1 != 0 {
            return Err(ImageError::BigEndian);
        }
        let image_size = word(16).unwrap_or(0);
        // Kernels before 3.17 say 0, and mean the text_offset 0x80000.
        let text_offset = if image_size == 0 {
            0x8_0000
        } else {
            word(8).unwrap_or(0)
        };
        Ok(Self {
            text_offset,
            size: image_size.max(file.len() as u64),
        })
    }
}

/// Where everything goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The device tree: the start of RAM, where firmware built for QEMU virt looks, too.
    pub tree: GuestPhysical,
    /// First byte of the kernel, and its entry.
    pub kernel: GuestPhysical,
    /// The ramdisk.
    pub ramdisk: Option<Region>,
}

/// Places a kernel with `header` and a ramdisk of `ramdisk` bytes in `size` bytes of RAM at `ram`.
///
/// # Errors
/// [`ImageError::TooLarge`].
pub fn place(
    header: &Header,
    ramdisk: Option<u64>,
    ram: GuestPhysical,
    size: u64,
) -> Result<Placement, ImageError> {
    let available = size >> 20;
    let too_large = |bytes: u64| ImageError::TooLarge {
        needed: bytes.div_ceil(1 << 20),
        available,
    };
    let kernel = TREE_SPACE.saturating_add(header.text_offset);
    let kernel_end = kernel.saturating_add(header.size);
    let initrd = kernel_end
        .checked_next_multiple_of(MIB2)
        .ok_or(too_large(kernel_end))?;
    let end = match ramdisk {
        Some(bytes) => initrd.saturating_add(bytes),
        None => kernel_end,
    };
    if end > size {
        return Err(too_large(end));
    }
    Ok(Placement {
        tree: ram,
        kernel: ram.wrapping_add(kernel),
        ramdisk: ramdisk.map(|size| Region {
            address: ram.wrapping_add(initrd).get(),
            size,
        }),
    })
}

/// Places the kernel of a domain, which begins like this, and its ramdisk of so many bytes.
///
/// # Errors
/// What is no kernel, or doesn't fit: naming node and property.
pub fn of_domain(
    config: &DomainConfig,
    kernel: &[u8],
    ramdisk: Option<u64>,
) -> Result<Placement, Error> {
    let header = Header::read(kernel).map_err(|error| {
        let found = format!("a file that {error}");
        Error::new(config.kernel.path.clone(), found, "a raw arm64 Image").property("reg")
    })?;
    let ram = GuestPhysical::new(layout::RAM_BASE);
    place(&header, ramdisk, ram, config.memory).map_err(|error| {
        let found = format!("a kernel that {error}");
        Error::new(config.path.clone(), found, "more memory").property("memory")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn image(text_offset: u64, image_size: u64, flags: u64, length: usize) -> Vec<u8> {
        let mut file = alloc::vec![0u8; length];
        file[8..16].copy_from_slice(&text_offset.to_le_bytes());
        file[16..24].copy_from_slice(&image_size.to_le_bytes());
        file[24..32].copy_from_slice(&flags.to_le_bytes());
        file[56..60].copy_from_slice(b"ARM\x64");
        file
    }

    const RAM: GuestPhysical = GuestPhysical::new(0x4000_0000);

    #[test]
    fn memory_beyond_the_file_is_counted() {
        let header = Header::read(&image(0, 0x30_0000, 0xa, 4096)).unwrap();
        let placed = place(&header, Some(0x10_0000), RAM, 16 << 20).unwrap();
        assert_eq!(placed.kernel.get(), 0x4020_0000);
        let ramdisk = Region {
            address: 0x4060_0000,
            size: 0x10_0000,
        };
        assert_eq!(placed.ramdisk, Some(ramdisk));
        assert_eq!(placed.tree, RAM);
    }

    #[test]
    fn old_kernels_have_their_offset() {
        let header = Header::read(&image(0, 0, 0, 4096)).unwrap();
        assert_eq!(
            header,
            Header {
                text_offset: 0x8_0000,
                size: 4096
            }
        );
    }

    #[test]
    fn what_is_no_image_is_named() {
        let text = alloc::format!("{}", Header::read(&[0x1f, 0x8b, 8, 0]).unwrap_err());
        assert!(text.contains("gzip"), "{text}");
        assert_eq!(
            Header::read(&image(0, 4096, 1, 4096)),
            Err(ImageError::BigEndian)
        );
        assert!(Header::read(&[]).is_err());
    }

    #[test]
    fn what_does_not_fit_says_how_much_is_needed() {
        let header = Header {
            text_offset: 0,
            size: 30 << 20,
        };
        let error = place(&header, Some(5 << 20), RAM, 32 << 20).unwrap_err();
        assert_eq!(
            error,
            ImageError::TooLarge {
                needed: 37,
                available: 32
            }
        );
        assert!(
            place(
                &Header {
                    text_offset: u64::MAX,
                    size: u64::MAX
                },
                None,
                RAM,
                1 << 30
            )
            .is_err()
        );
    }
}
