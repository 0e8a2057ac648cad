//! apt for arm64 without telling the machine's package system.
//!
//! `dpkg --add-architecture` would change how the user's machine installs everything else, and take root. With lists,
//! cache and status of its own below the target directory, apt fetches and checks signatures all the same.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{apt, packages};
use crate::command;

/// The suite whose packages are taken on a machine that isn't Debian.
pub(super) const OTHER_SUITE: &str = "bookworm";

/// The machine's own source and its release, if it is Debian.
fn own_source() -> Result<Option<(apt::Source, String)>> {
    let release = packages::release();
    let sources = apt::machine_sources()?;
    // Ubuntu's entries match neither Debian's release names nor its kernel's.
    let own = apt::find(&sources, &release).filter(|source| source.uris.contains("debian"));
    Ok(own.cloned().map(|source| (source, release)))
}

/// apt with its own lists and cache for arm64; the user's proxy and keys still apply.
pub(super) struct PrivateApt {
    dir: PathBuf,
}

impl PrivateApt {
    /// The suite that is asked when the caller doesn't care: the machine's release if that is Debian's.
    pub(super) fn default_suite() -> Result<String> {
        Ok(own_source()?.map_or_else(|| OTHER_SUITE.to_owned(), |(_, release)| release))
    }

    /// For packages of this suite, or of the default one.
    pub(super) fn new(dir: &Path, suite: Option<&str>) -> Result<Self> {
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
        let (source, release) = match own_source()? {
            Some(own) => own,
            None => {
                packages::ensure(&[packages::Need::DebianKeys])?;
                (apt::Source::public(OTHER_SUITE), OTHER_SUITE.to_owned())
            }
        };
        std::fs::write(
            dir.join("sources/debian.sources"),
            source.stanza(suite.unwrap_or(&release), Some("arm64")),
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

pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = std::fs::read_dir(dir)
        .with_context(|| format!("reading {}", dir.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
