//! From the linker's ELF file to the raw image that `-kernel` and boot loaders take.
//!
//! The arm64 boot protocol wants a flat image that starts with its 64-byte header. `objcopy` would
//! make one, but it comes with a cross toolchain that nobody should have to install, and the
//! work is small: the loadable segments, by *physical* address, gaps filled with zeros, and
//! nothing for memory that is only reserved (.bss), which the header's image_size accounts for.

use anyhow::{Context, Result, bail, ensure};
use fw_core_abi::{IMAGE_BASE, IMAGE_SIZE};
use object::elf::{FileHeader64, PT_LOAD};
use object::endian::LittleEndian;
use object::read::elf::{FileHeader as _, ProgramHeader as _};

/// More than any sensible hypervisor image, in bytes; a wild physical address would otherwise
/// ask for a file of terabytes.
const LARGEST: u64 = 64 << 20;

/// Flattens an ELF executable's loadable segments.
///
/// # Errors
/// If the file isn't little-endian AArch64 ELF, has nothing to load, or spans too much.
pub fn flatten(elf: &[u8]) -> Result<Vec<u8>> {
    let header = FileHeader64::<LittleEndian>::parse(elf).context("not a 64-bit ELF file")?;
    let endian = header.endian().context("not a little-endian ELF file")?;
    ensure!(
        header.e_machine(endian) == object::elf::EM_AARCH64,
        "the ELF file isn't for AArch64 (machine {})",
        header.e_machine(endian)
    );
    let segments: Vec<_> = header
        .program_headers(endian, elf)
        .context("program headers")?
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD && segment.p_filesz(endian) > 0)
        .collect();
    let Some(base) = segments.iter().map(|segment| segment.p_paddr(endian)).min() else {
        bail!("the ELF file has nothing to load");
    };
    let mut image = Vec::new();
    for segment in segments {
        let offset = segment.p_paddr(endian) - base;
        let end = offset
            .checked_add(segment.p_filesz(endian))
            .filter(|&end| end <= LARGEST)
            .with_context(|| {
                format!(
                    "a segment at physical {:#x} is far from {base:#x}",
                    segment.p_paddr(endian)
                )
            })?;
        let Ok(data) = segment.data(endian, elf) else {
            bail!("a segment reaches past the end of the file");
        };
        let (offset, end) = (usize::try_from(offset)?, usize::try_from(end)?);
        if image.len() < end {
            image.resize(end, 0);
        }
        image[offset..end].copy_from_slice(data);
    }
    Ok(image)
}

/// Flattens a firmware, whose image is loaded to the start of the image memory and entered there.
///
/// # Errors
/// As for [`flatten`], or if it is linked elsewhere, entered elsewhere, or too large.
pub fn firmware(elf: &[u8]) -> Result<Vec<u8>> {
    let image = flatten(elf)?;
    let header = FileHeader64::<LittleEndian>::parse(elf).context("not a 64-bit ELF file")?;
    let endian = header.endian().context("not a little-endian ELF file")?;
    let segments = header
        .program_headers(endian, elf)
        .context("program headers")?;
    let loaded = segments
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD && segment.p_memsz(endian) > 0);
    let (mut start, mut end) = (u64::MAX, 0);
    for segment in loaded {
        start = start.min(segment.p_paddr(endian));
        let last = segment.p_paddr(endian).checked_add(segment.p_memsz(endian));
        end = end.max(last.context("a segment reaches past the end of memory")?);
    }
    ensure!(
        start == IMAGE_BASE && header.e_entry(endian) == IMAGE_BASE,
        "linked at {start:#x} and entered at {:#x}, expected {IMAGE_BASE:#x}",
        header.e_entry(endian)
    );
    ensure!(
        end <= IMAGE_BASE + IMAGE_SIZE,
        "{} bytes with stack and zeroed data, expected at most {IMAGE_SIZE}",
        end - start
    );
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minimal ELF with these segments: (physical address, bytes, size in memory).
    fn elf(machine: u16, segments: &[(u64, &[u8], u64)]) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend(2u16.to_le_bytes());
        file.extend(machine.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        for word in [0u64, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend(0u32.to_le_bytes());
        for half in [64u16, 56, segments.len() as u16, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let mut data_at = 64 + 56 * segments.len() as u64;
        for (address, data, memory) in segments {
            file.extend(1u32.to_le_bytes());
            file.extend(5u32.to_le_bytes());
            for word in [
                data_at,
                0xffff_0000_0000_0000 + address,
                *address,
                data.len() as u64,
                *memory,
                8,
            ] {
                file.extend(word.to_le_bytes());
            }
            data_at += data.len() as u64;
        }
        for (_, data, _) in segments {
            file.extend(*data);
        }
        file
    }

    #[test]
    fn segments_go_by_physical_address_with_zeroed_gaps_and_no_bss() {
        let file = elf(
            183,
            &[
                (0x4020_0008, b"late", 4),
                (0x4020_0000, b"head", 4),
                (0x4030_0000, b"", 0x1000),
            ],
        );
        assert_eq!(flatten(&file).unwrap(), b"head\0\0\0\0late");
    }

    #[test]
    fn a_firmware_starts_and_is_entered_at_the_image_base() {
        // Entry is at byte 24 of the header.
        let enter = |mut file: Vec<u8>, entry: u64| {
            file[24..32].copy_from_slice(&entry.to_le_bytes());
            firmware(&file).map_err(|error| error.to_string())
        };
        let file = |at, memory| elf(183, &[(at, b"code", memory)]);
        assert_eq!(enter(file(IMAGE_BASE, 64), IMAGE_BASE).unwrap(), b"code");
        let message = enter(file(IMAGE_BASE, 64), IMAGE_BASE + 4).unwrap_err();
        assert!(message.contains("entered at 0x80000004"), "{message}");
        let message = enter(file(IMAGE_BASE + 0x1000, 64), IMAGE_BASE).unwrap_err();
        assert!(message.contains("linked at 0x80001000"), "{message}");
        let message = enter(file(IMAGE_BASE, IMAGE_SIZE + 1), IMAGE_BASE).unwrap_err();
        assert!(message.contains("at most 262144"), "{message}");
    }

    #[test]
    fn mistakes_are_told() {
        let message = |file: &[u8]| flatten(file).unwrap_err().to_string();
        assert!(message(b"junk").contains("ELF"));
        assert!(message(&elf(62, &[(0, b"x", 1)])).contains("AArch64"));
        assert!(message(&elf(183, &[])).contains("nothing to load"));
        assert!(message(&elf(183, &[(0, b"x", 1), (1 << 40, b"y", 1)])).contains("far from"));
    }
}
