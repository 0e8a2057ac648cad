//! Where things are: the repository and the places below its target directory.
//!
//! All that the host side makes goes below cargo's target directory, so that removing that one
//! directory removes every trace. `CARGO_TARGET_DIR` is honoured, as cargo itself does.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

/// The repository's root and its target directory.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// The workspace this program was built from.
    pub fn here() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().unwrap_or(manifest).to_path_buf();
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |dir| root.join(dir));
        Self { root, target }
    }

    /// The repository's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A place below the target directory.
    pub fn target(&self, below: &str) -> PathBuf {
        self.target.join(below)
    }

    /// The directory for console logs, made if missing.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn logs(&self) -> Result<PathBuf> {
        make_dir(self.target("logs"))
    }

    /// The directory for generated images (initramfs, device trees), made if missing.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn images(&self) -> Result<PathBuf> {
        make_dir(self.target("images"))
    }

    /// Waits until no other process sets up or builds here; held until the file is dropped.
    ///
    /// # Errors
    /// If the lock file can't be made or locked.
    pub fn lock(&self) -> Result<File> {
        let path = make_dir(self.target.clone())?.join("xtask.lock");
        let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        file.lock()
            .with_context(|| format!("locking {}", path.display()))?;
        Ok(file)
    }
}

fn make_dir(path: PathBuf) -> Result<PathBuf> {
    std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}

/// Writes a file unless it already holds exactly these bytes; a reader never sees half of it.
///
/// # Errors
/// If the file can't be written.
pub fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    // Tests write the same image at the same time, in one process and in several.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let scratch = path.with_extension(format!("new{}-{number}", std::process::id()));
    std::fs::write(&scratch, bytes).with_context(|| format!("writing {}", scratch.display()))?;
    std::fs::rename(&scratch, path).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_may_write_one_file_at_once() {
        let directory = tempfile_directory();
        let path = directory.join("image.cpio");
        for round in 0..50_u8 {
            let bytes = vec![round; 1 << 16];
            std::thread::scope(|scope| {
                let writers: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| write_if_changed(&path, &bytes)))
                    .collect();
                for writer in writers {
                    writer.join().unwrap().unwrap();
                }
            });
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    fn tempfile_directory() -> PathBuf {
        let name = format!("baton-writes-{}", std::process::id());
        make_dir(std::env::temp_dir().join(name)).unwrap()
    }
}
