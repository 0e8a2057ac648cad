//! Initial RAM file systems for the domains.
//!
//! A domain needs one program and two kernel modules, so its whole user space is an archive
//! of a few files, made here rather than by a distribution's tools: newc format (Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst), uncompressed, the same bytes for
//! the same input.

use std::collections::BTreeSet;
use std::io::Write as _;

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

/// An archive being filled.
#[derive(Clone, Debug, Default)]
pub struct Initramfs {
    bytes: Vec<u8>,
    made: BTreeSet<String>,
    inodes: u32,
}

impl Initramfs {
    /// The usual base: `/proc`, `/sys`, `/dev`, `/tmp`, the console device, and `/init`.
    ///
    /// The kernel opens `/dev/console` before `/init` runs, so it must be in the archive.
    ///
    /// # Errors
    /// If the program is too large for the format (4 GiB).
    pub fn with_init(init: &[u8]) -> Result<Self> {
        let mut archive = Self::default();
        for directory in ["dev", "proc", "sys", "tmp"] {
            archive.directory(directory)?;
        }
        archive.device("dev/console", 5, 1)?;
        archive.file("init", 0o755, init)?;
        Ok(archive)
    }

    /// Adds a directory and those above it.
    ///
    /// # Errors
    /// If the archive can't be written.
    pub fn directory(&mut self, path: &str) -> Result<()> {
        let path = path.trim_matches('/');
        if path.is_empty() || self.made.contains(path) {
            return Ok(());
        }
        self.parent(path)?;
        self.entry(path, 0o755, ModeFileType::Directory, (0, 0), &[])
    }

    /// Adds a file, and the directories above it.
    ///
    /// # Errors
    /// If the file is too large for the format (4 GiB).
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.parent(path)?;
        self.entry(path, mode, ModeFileType::Regular, (0, 0), content)
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// If the archive can't be written.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        self.parent(path)?;
        self.entry(path, 0o600, ModeFileType::Char, (major, minor), &[])
    }

    /// The finished archive.
    ///
    /// # Errors
    /// If the archive can't be written.
    pub fn finish(self) -> Result<Vec<u8>> {
        trailer(self.bytes).context("initramfs trailer")
    }

    fn parent(&mut self, path: &str) -> Result<()> {
        match path.trim_matches('/').rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        kind: ModeFileType,
        device: (u32, u32),
        content: &[u8],
    ) -> Result<()> {
        let path = path.trim_matches('/');
        let size = u32::try_from(content.len()).with_context(|| format!("{path} is too large"))?;
        self.inodes += 1;
        let mut writer = Builder::new(path)
            .ino(self.inodes)
            .nlink(1)
            .mode(mode)
            .set_mode_file_type(kind)
            .rdev_major(device.0)
            .rdev_minor(device.1)
            .write(&mut self.bytes, size);
        writer
            .write_all(content)
            .with_context(|| format!("initramfs entry {path}"))?;
        writer
            .finish()
            .with_context(|| format!("initramfs entry {path}"))?;
        self.made.insert(path.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;
    use std::io::Read as _;

    #[test]
    fn the_archive_lists_what_was_put_in() {
        let mut archive = Initramfs::with_init(b"#!program").unwrap();
        archive
            .file("lib/modules/uio.ko", 0o644, b"module")
            .unwrap();
        archive
            .file("/lib/modules/other.ko", 0o644, b"another")
            .unwrap();
        let bytes = archive.finish().unwrap();

        let mut rest = bytes.as_slice();
        let mut seen = Vec::new();
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            let entry = reader.entry();
            seen.push((
                entry.name().to_owned(),
                entry.mode(),
                content,
                (entry.rdev_major(), entry.rdev_minor()),
            ));
            rest = reader.finish().unwrap();
        }
        let names: Vec<_> = seen.iter().map(|entry| entry.0.as_str()).collect();
        assert_eq!(
            names,
            [
                "dev",
                "proc",
                "sys",
                "tmp",
                "dev/console",
                "init",
                "lib",
                "lib/modules",
                "lib/modules/uio.ko",
                "lib/modules/other.ko"
            ]
        );
        let find = |name: &str| seen.iter().find(|entry| entry.0 == name).unwrap();
        assert_eq!(find("init").1, 0o100_755);
        assert_eq!(find("init").2, b"#!program");
        assert_eq!(find("lib").1, 0o040_755);
        assert_eq!(
            (find("dev/console").1, find("dev/console").3),
            (0o020_600, (5, 1))
        );
    }
}
