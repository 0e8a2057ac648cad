//! Disks for domains that boot from one: a FAT file system without partitions, which UEFI reads.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

/// Makes `disk`, of so many bytes, with these files in its root: name and content.
///
/// # Errors
/// If it can't be written, or they don't fit.
pub fn fat(disk: &Path, bytes: u64, files: &[(&str, &[u8])]) -> Result<()> {
    let what = || format!("writing {}", disk.display());
    let mut image = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(disk)
        .with_context(what)?;
    image.set_len(bytes).with_context(what)?;
    fatfs::format_volume(&mut image, FormatVolumeOptions::new()).with_context(what)?;
    image.seek(SeekFrom::Start(0)).with_context(what)?;
    let system = FileSystem::new(image, FsOptions::new()).with_context(what)?;
    for (name, content) in files {
        let mut file = system.root_dir().create_file(name).with_context(what)?;
        file.write_all(content).with_context(what)?;
    }
    system.unmount().with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn files_are_there_again() {
        let path = std::env::temp_dir().join(format!("baton-fat-{}", std::process::id()));
        let long = vec![0x5a; 100_000];
        fat(
            &path,
            1 << 20,
            &[("linux.efi", &long), ("a-long-name.cpio", b"2")],
        )
        .unwrap();
        let system = FileSystem::new(File::open(&path).unwrap(), FsOptions::new()).unwrap();
        for (name, expected) in [("LINUX.EFI", &long[..]), ("a-long-name.cpio", b"2")] {
            let mut found = Vec::new();
            let mut file = system.root_dir().open_file(name).unwrap();
            file.read_to_end(&mut found).unwrap();
            assert_eq!(found, expected, "{name}");
        }
        assert!(fat(&path, 1 << 20, &[("more", &[0; 2 << 20])]).is_err());
        std::fs::remove_file(path).unwrap();
    }
}
