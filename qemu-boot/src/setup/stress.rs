//! Debian's `stress-ng` and `cyclictest` for arm64, with the libraries they are linked with, as files for an initramfs.
//!
//! Debian has no static build of either. A package's `Depends` names much more than a program needs to start (`stress-ng`
//! would bring a graphics stack with a compiler in it), so what counts is what the program files themselves ask the dynamic
//! linker for (`DT_NEEDED`; System V ABI, dynamic linking): a package's dependencies are fetched only when one of its
//! files asks for a library that isn't there yet. Fetched only when somebody asks, which tests do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use object::elf::{DT_NEEDED, FileHeader64};
use object::endian::LittleEndian;
use object::read::elf::{Dyn as _, FileHeader as _};

use super::private_apt::{OTHER_SUITE, PrivateApt, file_name};
use super::say;
use super::stamp::Stamp;
use crate::initramfs::Initramfs;
use crate::workspace::Workspace;

/// Raised whenever what is fetched or how it is laid out changes.
const RECIPE: u32 = 1;
/// Package and program.
const PROGRAMS: [(&str, &str); 2] = [
    ("stress-ng", "usr/bin/stress-ng"),
    ("rt-tests", "usr/bin/cyclictest"),
];
/// Where libraries are in packages; the dynamic linker's own path comes first.
const LIBRARIES: [&str; 4] = [
    "lib",
    "lib/aarch64-linux-gnu",
    "usr/lib",
    "usr/lib/aarch64-linux-gnu",
];

/// The programs and their libraries.
#[derive(Clone, Debug)]
pub struct Stress {
    dir: PathBuf,
    /// Paths below `dir`, as they are in the domain: `bin/…`, `lib/…`.
    files: Vec<String>,
}

impl Stress {
    /// Finds the programs or fetches them, one process at a time.
    ///
    /// # Errors
    /// If they can't be fetched.
    pub fn ensure(workspace: &Workspace) -> Result<Self> {
        let _lock = workspace.lock()?;
        let dir = workspace.target("setup/debian-stress");
        let found = |dir: &Path| Stamp::read(dir, RECIPE, None);
        if found(&dir).is_none() {
            let _ = std::fs::remove_dir_all(&dir);
            for part in ["bin", "lib"] {
                std::fs::create_dir_all(dir.join(part))
                    .with_context(|| format!("making {}", dir.display()))?;
            }
            let scratch = workspace.target("setup/scratch-stress");
            let (version, files) =
                fetch(&dir, &scratch).context("fetching Debian's stress-ng and rt-tests")?;
            std::fs::remove_dir_all(&scratch).context("removing the scratch directory")?;
            Stamp::write(&dir, RECIPE, &version, &files)?;
            say(&format!("the domains' stress is {version}"));
        }
        let stamp = found(&dir).context("stress-ng was fetched, but isn't there")?;
        let files = stamp.names().map(str::to_owned).collect();
        Ok(Self { dir, files })
    }

    /// Adds the programs to `/bin` and the libraries to `/lib`.
    ///
    /// # Errors
    /// If one can't be read.
    pub fn add_to(&self, archive: &mut Initramfs) -> Result<()> {
        for name in &self.files {
            let path = self.dir.join(name);
            let content =
                std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            archive.file(name, 0o755, &content)?;
        }
        Ok(())
    }
}

/// Packages as they come in, unpacked each into a tree of its own, so that a file's package is known.
struct Packages {
    apt: PrivateApt,
    /// By name: the tree and the version.
    fetched: BTreeMap<String, (PathBuf, String)>,
}

impl Packages {
    /// Fetches and unpacks a package, unless it is there; gives the tree.
    fn tree(&mut self, package: &str) -> Result<PathBuf> {
        if let Some((tree, _)) = self.fetched.get(package) {
            return Ok(tree.clone());
        }
        let (tree, version) = self.apt.unpack(package)?;
        self.fetched
            .insert(package.to_owned(), (tree.clone(), version));
        Ok(tree)
    }

    /// The library's package and file, if it is in one that was fetched.
    fn library(&self, name: &str) -> Option<(String, PathBuf)> {
        self.fetched.iter().find_map(|(package, (tree, _))| {
            let mut files = LIBRARIES.iter().map(|dir| tree.join(dir).join(name));
            Some((package.clone(), files.find(|file| file.is_file())?))
        })
    }

    /// The library's package and file; the dependencies of the package that needs it are fetched if need be.
    fn library_for(&mut self, package: &str, name: &str) -> Result<(String, PathBuf)> {
        if let Some(found) = self.library(name) {
            return Ok(found);
        }
        for dependency in dependencies(&self.apt.depends(package)?) {
            self.tree(&dependency)?;
        }
        self.library(name)
            .with_context(|| format!("{package} needs {name}, which none of its dependencies has"))
    }
}

/// Fetches all; gives the version and what was kept.
fn fetch(dir: &Path, scratch: &Path) -> Result<(String, Vec<String>)> {
    // One suite wherever this runs: what is tested is the domains, not the host's release.
    let apt = PrivateApt::new(scratch, Some(OTHER_SUITE))?;
    say("asking Debian for stress-ng and rt-tests (about 10 MB, once)");
    apt.get("apt-get", &["update", "-q"])?;
    let mut packages = Packages {
        apt,
        fetched: BTreeMap::new(),
    };
    let mut kept = Vec::new();
    let mut pending = Vec::new();
    for (package, file) in PROGRAMS {
        let file = packages.tree(package)?.join(file);
        let name = format!("bin/{}", file_name(&file));
        pending.push((package.to_owned(), file, name));
    }
    while let Some((package, file, name)) = pending.pop() {
        if kept.contains(&name) {
            continue;
        }
        let content =
            std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        std::fs::write(dir.join(&name), &content).with_context(|| format!("writing {name}"))?;
        kept.push(name);
        for library in needed(&content).with_context(|| file.display().to_string())? {
            let (package, file) = packages.library_for(&package, &library)?;
            pending.push((package, file, format!("lib/{library}")));
        }
    }
    kept.sort();
    let versions: Vec<&str> = PROGRAMS
        .iter()
        .filter_map(|(package, _)| packages.fetched.get(*package))
        .map(|(_, version)| version.as_str())
        .collect();
    Ok((versions.join(" "), kept))
}

/// The packages that `apt-cache depends` says must be there; of alternatives all, since apt may have any of them.
fn dependencies(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim().trim_start_matches('|');
            line.strip_prefix("Depends: ")
                .or_else(|| line.strip_prefix("PreDepends: "))
        })
        .filter(|name| !name.starts_with('<'))
        .map(str::to_owned)
        .collect()
}

/// The libraries that an AArch64 program or library asks the dynamic linker for.
fn needed(file: &[u8]) -> Result<Vec<String>> {
    let header = FileHeader64::<LittleEndian>::parse(file).context("not an ELF file")?;
    let endian = header.endian()?;
    ensure!(
        header.e_machine.get(endian) == object::elf::EM_AARCH64,
        "not for AArch64"
    );
    let sections = header.sections(endian, file)?;
    let Some((dynamics, link)) = sections.dynamic(endian, file)? else {
        return Ok(Vec::new());
    };
    let strings = sections.strings(endian, file, link)?;
    dynamics
        .iter()
        .filter(|entry| entry.tag32(endian) == Some(DT_NEEDED))
        .map(|entry| Ok(String::from_utf8(entry.string(endian, strings)?.to_vec())?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_named_without_their_versions_and_virtual_packages() {
        let text = "stress-ng\n  Depends: libc6\n |Depends: libegl1\n  Depends: libgl1\n\
                    \x20 PreDepends: libcrypt1\n  Depends: <libz>\n    zlib1g\n  Suggests: x\n";
        assert_eq!(
            dependencies(text),
            ["libc6", "libegl1", "libgl1", "libcrypt1"]
        );
        assert!(dependencies("stress-ng\n").is_empty());
    }

    #[test]
    fn only_programs_for_the_domains_are_looked_into() {
        assert!(needed(b"#!/bin/sh\n").is_err());
        // This test itself: an ELF file of the host's kind, or none at all.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(needed(&own).is_ok(), cfg!(target_arch = "aarch64"));
    }
}
