//! The domains' operating system: Debian's arm64 kernel, unmodified.
//!
//! It is fetched with apt, which checks Debian's signature, but from a package database of its own under the
//! target directory: the usual `dpkg --add-architecture arm64` would change how the user's machine
//! installs everything else, and would need root. Only the kernel image and three modules are
//! kept of its 60 MB.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{apt, packages, say};
use crate::command;
use crate::workspace::Workspace;

/// Raised whenever what is fetched or how it is laid out changes: older results are fetched again.
const RECIPE: u32 = 2;
const METAPACKAGE: &str = "linux-image-arm64";
const MODULES: [&str; 3] = ["uio", "uio_pci_generic", "sbsa_gwdt"];
/// The suite whose kernel is taken on a machine that isn't Debian.
const OTHER_SUITE: &str = "bookworm";

/// A kernel and the modules that demo and tests need.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The raw arm64 `Image`.
    pub image: PathBuf,
    /// Modules by name and file, in the order in which they must be loaded.
    pub modules: Vec<(String, PathBuf)>,
    /// The package and its version.
    pub version: String,
}

/// What was fetched, written last: without it, or when a size differs, all is fetched again.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Stamp {
    recipe: u32,
    version: String,
    sizes: Vec<(String, u64)>,
}

impl Kernel {
    /// Finds the kernel or fetches it.
    ///
    /// # Errors
    /// If it can't be fetched or isn't what was expected.
    pub fn ensure(workspace: &Workspace) -> Result<Self> {
        let dir = workspace.target("setup/debian-arm64");
        if let Some(version) = read_stamp(&dir) {
            return Ok(Self::at(&dir, version));
        }
        if !command::exists("apt-get") || !command::exists("dpkg-deb") {
            bail!(
                "fetching Debian's arm64 kernel takes apt-get and dpkg-deb, which this machine doesn't have"
            );
        }
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let scratch = workspace.target("setup/scratch");
        let version = fetch(&dir, &scratch).context("fetching Debian's arm64 kernel")?;
        std::fs::remove_dir_all(&scratch).context("removing the scratch directory")?;
        write_stamp(&dir, &version)?;
        say(&format!("the domains' kernel is {version}"));
        Ok(Self::at(&dir, version))
    }

    fn at(dir: &Path, version: String) -> Self {
        let modules = MODULES
            .iter()
            .map(|name| ((*name).to_owned(), dir.join(format!("{name}.ko"))))
            .collect();
        Self {
            image: dir.join("Image"),
            modules,
            version,
        }
    }
}

fn file_names() -> Vec<String> {
    std::iter::once("Image".to_owned())
        .chain(MODULES.iter().map(|name| format!("{name}.ko")))
        .collect()
}

fn sizes(dir: &Path) -> Result<Vec<(String, u64)>> {
    file_names()
        .into_iter()
        .map(|name| {
            let size = std::fs::metadata(dir.join(&name))
                .with_context(|| name.clone())?
                .len();
            Ok((name, size))
        })
        .collect()
}

fn read_stamp(dir: &Path) -> Option<String> {
    let stamp: Stamp = serde_json::from_slice(&std::fs::read(dir.join("stamp.json")).ok()?).ok()?;
    let valid = stamp.recipe == RECIPE && sizes(dir).is_ok_and(|sizes| sizes == stamp.sizes);
    valid.then_some(stamp.version)
}

fn write_stamp(dir: &Path, version: &str) -> Result<()> {
    let stamp = Stamp {
        recipe: RECIPE,
        version: version.to_owned(),
        sizes: sizes(dir)?,
    };
    std::fs::write(dir.join("stamp.json"), serde_json::to_vec_pretty(&stamp)?)
        .context("writing the stamp")
}

fn fetch(dir: &Path, scratch: &Path) -> Result<String> {
    let apt = PrivateApt::new(scratch)?;
    say("asking Debian for its arm64 kernel (about 70 MB, once)");
    apt.get("apt-get", &["update", "-q"])?;
    let depends = apt.depends(METAPACKAGE)?;
    let package = dependency(&depends, "linux-image-")
        .with_context(|| format!("{METAPACKAGE} depends on no kernel:\n{depends}"))?;
    let (tree, version) = apt.unpack(&package)?;

    let image = entries(&tree.join("boot"))?
        .into_iter()
        .find(|path| file_name(path).starts_with("vmlinuz-"))
        .context("the package holds no /boot/vmlinuz-*")?;
    let bytes = raw_image(&image)?;
    std::fs::write(dir.join("Image"), bytes).context("writing the kernel")?;
    for module in MODULES {
        let file = find_module(&tree, module)?
            .with_context(|| format!("the kernel has no module {module}"))?;
        std::fs::write(dir.join(format!("{module}.ko")), plain(&file)?)
            .context("writing a module")?;
    }
    Ok(version)
}

/// apt with its own lists and cache for arm64; the user's proxy and keys still apply.
pub(super) struct PrivateApt {
    dir: PathBuf,
}

impl PrivateApt {
    pub(super) fn new(dir: &Path) -> Result<Self> {
        let _ = std::fs::remove_dir_all(dir);
        for part in [
            "state/lists/partial",
            "cache/archives/partial",
            "sources",
            "preferences",
        ] {
            std::fs::create_dir_all(dir.join(part))
                .with_context(|| format!("making {}", dir.display()))?;
        }
        std::fs::write(dir.join("state/status"), "")?;
        let release = packages::release();
        let sources = apt::machine_sources()?;
        // Ubuntu's entries match neither Debian's release names nor its kernel's.
        let (source, suite) = match apt::find(&sources, &release) {
            Some(source) if source.uris.contains("debian") => (source.clone(), release.as_str()),
            _ => {
                packages::ensure(&[packages::Need::DebianKeys])?;
                (apt::Source::public(OTHER_SUITE), OTHER_SUITE)
            }
        };
        std::fs::write(
            dir.join("sources/debian.sources"),
            source.stanza(suite, Some("arm64")),
        )?;
        Ok(Self {
            dir: dir.to_path_buf(),
        })
    }

    /// Fetches a package and unpacks it; gives the directory that stands for `/`, and name and version.
    pub(super) fn unpack(&self, package: &str) -> Result<(PathBuf, String)> {
        self.get("apt-get", &["download", "-q", package])?;
        let files = entries(&self.dir)?;
        let deb = files
            .iter()
            .find(|path| file_name(path).starts_with(&format!("{package}_")))
            .with_context(|| format!("apt-get left no file of {package}"))?;
        let tree = self.dir.join("tree").join(package);
        std::fs::create_dir_all(&tree).context("making the scratch tree")?;
        command::run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&tree))?;
        let name = deb
            .file_stem()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        Ok((tree, name.replace("%3a", ":")))
    }

    /// The packages that `package` depends on.
    pub(super) fn depends(&self, package: &str) -> Result<String> {
        command::output(self.command("apt-cache").args(["depends", package]))
    }

    fn command(&self, program: &str) -> Command {
        let path = |below: &str| self.dir.join(below).display().to_string();
        let mut command = Command::new(program);
        command
            .current_dir(&self.dir)
            .env("DEBIAN_FRONTEND", "noninteractive");
        for (option, value) in [
            ("APT::Architecture", "arm64".to_owned()),
            ("APT::Architectures", "arm64".to_owned()),
            ("APT::Sandbox::User", "root".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
            (
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
                "false".to_owned(),
            ),
            ("Dir::Etc::sourcelist", "/dev/null".to_owned()),
            ("Dir::Etc::sourceparts", path("sources")),
            ("Dir::Etc::preferences", "/dev/null".to_owned()),
            ("Dir::Etc::preferencesparts", path("preferences")),
            ("Dir::State", path("state")),
            ("Dir::State::status", path("state/status")),
            ("Dir::Cache", path("cache")),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        command
    }

    pub(super) fn get(&self, program: &str, arguments: &[&str]) -> Result<()> {
        command::run(self.command(program).args(arguments))
    }
}

/// What begins with `prefix` of what `apt-cache depends` names.
pub(super) fn dependency(depends: &str, prefix: &str) -> Option<String> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = std::fs::read_dir(dir)
        .with_context(|| format!("reading {}", dir.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Newer Debian compresses modules and keeps them below `/usr`.
fn find_module(tree: &Path, module: &str) -> Result<Option<PathBuf>> {
    let mut pending = vec![tree.join("lib/modules"), tree.join("usr/lib/modules")];
    while let Some(dir) = pending.pop() {
        if !dir.is_dir() {
            continue;
        }
        for path in entries(&dir)? {
            let name = file_name(&path);
            if path.is_dir() && !path.is_symlink() {
                pending.push(path);
            } else if name.split('.').next() == Some(module) && name.contains(".ko") {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// A file's content, decompressed by its extension.
fn plain(file: &Path) -> Result<Vec<u8>> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => {
            packages::ensure(&[packages::Need::Xz])?;
            command::output_bytes(Command::new("xz").arg("-dc").arg(file))
        }
        Some("gz") => command::output_bytes(Command::new("gzip").arg("-dc").arg(file)),
        Some("zst") => command::output_bytes(Command::new("zstd").arg("-dc").arg(file)),
        _ => std::fs::read(file).with_context(|| format!("reading {}", file.display())),
    }
}

/// The flat arm64 image that the boot protocol asks for (Linux,
/// Documentation/arch/arm64/booting.rst): magic `ARM\x64` at byte 56.
fn raw_image(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        bytes =
            command::output_bytes(Command::new("gzip").arg("-dc").arg(file).env_remove("GZIP"))?;
    }
    ensure!(
        bytes.get(56..60) == Some(b"ARM\x64".as_slice()),
        "{} is neither an arm64 Image nor a compressed one",
        file.display()
    );
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metapackage_names_the_kernel() {
        let text = "linux-image-arm64\n  Depends: linux-image-6.1.0-50-arm64\n  Suggests: x\n";
        assert_eq!(
            dependency(text, "linux-image-").unwrap(),
            "linux-image-6.1.0-50-arm64"
        );
        let none = "linux-image-arm64\n  Suggests: linux-image-x\n";
        assert_eq!(dependency(none, "linux-image-"), None);
    }

    #[test]
    fn a_stamp_holds_only_while_the_files_are_as_written() {
        let dir = std::env::temp_dir().join(format!("baton-stamp-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        assert_eq!(read_stamp(&dir), None);
        for name in file_names() {
            std::fs::write(dir.join(name), "12345").unwrap();
        }
        assert_eq!(read_stamp(&dir), None);
        write_stamp(&dir, "v1").unwrap();
        assert_eq!(read_stamp(&dir).as_deref(), Some("v1"));
        std::fs::write(dir.join("uio.ko"), "1234").unwrap();
        assert_eq!(read_stamp(&dir), None);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn images_are_recognised_plain_and_compressed() {
        let dir = std::env::temp_dir().join(format!("baton-image-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut image = vec![0u8; 64];
        image[56..60].copy_from_slice(b"ARM\x64");
        let file = dir.join("vmlinuz");
        std::fs::write(&file, &image).unwrap();
        assert_eq!(raw_image(&file).unwrap(), image);
        command::run(Command::new("gzip").arg("-k").arg(&file)).unwrap();
        assert_eq!(raw_image(&dir.join("vmlinuz.gz")).unwrap(), image);
        assert_eq!(plain(&dir.join("vmlinuz.gz")).unwrap(), image);
        std::fs::write(&file, b"MZ").unwrap();
        assert!(raw_image(&file).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
