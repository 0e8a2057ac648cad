//! Packages that have to be installed on the machine, which takes root.
//!
//! What is to be done is worked out as a list of steps first, so that root's run and the command
//! shown to everybody else are the same thing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{apt, say};
use crate::command;
use crate::qemu;

/// The first QEMU whose `virt` offers an SMMUv3 with both stages.
pub const OLDEST_QEMU: (u32, u32) = (9, 1);
/// The workspace's `rust-version`.
const OLDEST_RUST: (u32, u32) = (1, 95);
const BACKPORTS: &str = "bookworm-backports";
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/baton-backports.sources";

/// Something that comes as a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The emulator, new enough.
    Qemu,
    /// Debian's archive keys, on a machine of another distribution.
    DebianKeys,
    /// `dtc`, for device trees in source.
    DeviceTreeCompiler,
    /// `xz`, for compressed kernel modules.
    Xz,
    /// Debian's Rust compiler and library sources: the way out when rustup can't fetch the targets.
    DebianRust,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Write(PathBuf, String),
    Run(Vec<String>),
}

impl Need {
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Qemu => &["qemu-system-arm"],
            Self::DebianKeys => &["debian-archive-keyring"],
            Self::DeviceTreeCompiler => &["device-tree-compiler"],
            Self::Xz => &["xz-utils"],
            Self::DebianRust => &[
                "rustc-web",
                "rust-web-src",
                "gcc-aarch64-linux-gnu",
                "libc6-dev-arm64-cross",
            ],
        }
    }

    fn why(self) -> String {
        let (major, minor) = OLDEST_QEMU;
        match self {
            Self::Qemu => match qemu_version() {
                Some((a, b)) => format!(
                    "QEMU {a}.{b} is here, but its SMMUv3 has no stage 2: {major}.{minor} or newer is needed"
                ),
                None => "QEMU runs the machine that Baton boots on".to_owned(),
            },
            Self::DebianKeys => {
                "the domains' kernel is Debian's, signed with these keys".to_owned()
            }
            Self::DeviceTreeCompiler => "it compiles a device tree's source".to_owned(),
            Self::Xz => "the kernel's modules are compressed with it".to_owned(),
            Self::DebianRust => {
                "rustup can't fetch the AArch64 targets, so Debian's compiler stands in".to_owned()
            }
        }
    }

    /// Whether it is there already.
    pub fn met(self) -> bool {
        match self {
            Self::Qemu => qemu_version().is_some_and(|version| version >= OLDEST_QEMU),
            Self::DebianKeys => {
                Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").exists()
            }
            Self::DeviceTreeCompiler => command::exists("dtc"),
            Self::Xz => command::exists("xz"),
            Self::DebianRust => {
                debian_rust().is_some_and(|version| version >= OLDEST_RUST)
                    && command::exists("aarch64-linux-gnu-gcc")
            }
        }
    }
}

/// Installs what isn't there yet.
///
/// # Errors
/// If something is missing and this isn't root (the message holds the command to run), or if the
/// installation fails.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<Need> = needs.iter().copied().filter(|need| !need.met()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let root = rustix::process::geteuid().is_root();
    for need in &missing {
        say(&format!("{}: {}", need.packages().join(" "), need.why()));
    }
    if !command::exists("apt-get") {
        bail!(
            "this machine has no apt-get: install {} by its own means, then run this again",
            missing
                .iter()
                .flat_map(|need| need.packages())
                .copied()
                .collect::<Vec<_>>()
                .join(" ")
        );
    }
    let steps = steps(&missing, &apt::machine_sources()?, &release());
    if !root {
        bail!(
            "packages are missing, and installing them needs root. Run this, then try again:\n\n    sudo sh -c {}\n",
            command::quoted(&as_shell(&steps))
        );
    }
    for step in &steps {
        perform(step)?;
    }
    if let Some(need) = missing.iter().find(|need| !need.met()) {
        bail!(
            "{} was installed, but it isn't enough: {}",
            need.packages().join(" "),
            need.why()
        );
    }
    Ok(())
}

fn perform(step: &Step) -> Result<()> {
    match step {
        Step::Write(path, text) => {
            say(&format!(
                "adding {} (Debian's own newer packages)",
                path.display()
            ));
            std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
        }
        Step::Run(words) => {
            say(&words.join(" "));
            let (program, arguments) = words.split_first().context("an empty command")?;
            command::run(
                Command::new(program)
                    .args(arguments)
                    .env("DEBIAN_FRONTEND", "noninteractive"),
            )
        }
    }
}

/// The machine's release name, such as `bookworm`.
pub fn release() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    os_field(&text, "VERSION_CODENAME")
}

fn os_field(text: &str, name: &str) -> String {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .map(|value| value.trim_matches('"').to_owned())
        .unwrap_or_default()
}

/// What root has to do for these needs.
fn steps(missing: &[Need], sources: &[apt::Source], release: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let apt_get = |words: &[&str]| {
        Step::Run(
            ["apt-get"]
                .iter()
                .chain(words)
                .map(|word| (*word).to_owned())
                .collect(),
        )
    };
    let backports = release == "bookworm" && missing.contains(&Need::Qemu);
    if backports && apt::find(sources, BACKPORTS).is_none() {
        let source = apt::find(sources, release)
            .cloned()
            .unwrap_or_else(|| apt::Source::public(release));
        steps.push(Step::Write(
            BACKPORTS_FILE.into(),
            source.stanza(BACKPORTS, None),
        ));
    }
    steps.push(apt_get(&["update"]));
    let mut plain = Vec::new();
    for need in missing {
        if *need == Need::Qemu && backports {
            let install = ["install", "-y", "--no-install-recommends", "-t", BACKPORTS];
            steps.push(apt_get(&[&install, need.packages()].concat()));
        } else {
            plain.extend(need.packages());
        }
    }
    if !plain.is_empty() {
        let install = ["install", "-y", "--no-install-recommends"];
        steps.push(apt_get(&[&install, plain.as_slice()].concat()));
    }
    steps
}

fn as_shell(steps: &[Step]) -> String {
    steps
        .iter()
        .map(|step| match step {
            Step::Write(path, text) => {
                format!("printf %s {} > {}", command::quoted(text), path.display())
            }
            Step::Run(words) => words
                .iter()
                .map(|word| command::quoted(word))
                .collect::<Vec<_>>()
                .join(" "),
        })
        .collect::<Vec<_>>()
        .join(" && ")
}

/// The version of Debian's compiler, if its library's sources are there too.
fn debian_rust() -> Option<(u32, u32)> {
    let compiler = "/usr/bin/rustc";
    let sysroot = command::output(Command::new(compiler).args(["--print", "sysroot"])).ok()?;
    let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    let text = command::output(Command::new(compiler).arg("--version")).ok()?;
    version(&text.replacen("rustc ", "version ", 1)).filter(|_| sources.exists())
}

/// The installed QEMU's version.
pub fn qemu_version() -> Option<(u32, u32)> {
    version(&command::output(Command::new(qemu::PROGRAM).arg("--version")).ok()?)
}

/// Reads `QEMU emulator version 10.0.2 (Debian …)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let number = text.split_once("version ")?.1;
    let mut parts = number.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(
            version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds)"),
            Some((10, 0))
        );
        assert_eq!(version("QEMU emulator version 7.2.17"), Some((7, 2)));
        assert_eq!(version("nothing"), None);
        assert!((10, 0) > OLDEST_QEMU && (9, 0) < OLDEST_QEMU);
    }

    #[test]
    fn bookworm_takes_qemu_from_backports_at_the_machines_own_mirror() {
        let mirror = apt::Source {
            uris: "http://m.example/debian".into(),
            ..apt::Source::public("bookworm")
        };
        let steps = steps(
            &[Need::Qemu, Need::Xz],
            std::slice::from_ref(&mirror),
            "bookworm",
        );
        let shell = as_shell(&steps);
        assert!(
            matches!(&steps[0], Step::Write(_, text) if text.contains("http://m.example/debian\nSuites: bookworm-backports"))
        );
        assert!(shell.ends_with(
            "apt-get update && apt-get install -y --no-install-recommends -t bookworm-backports qemu-system-arm \
             && apt-get install -y --no-install-recommends xz-utils"
        ), "{shell}");
    }

    #[test]
    fn a_known_backports_entry_is_not_added_twice_and_newer_releases_need_none() {
        let have = apt::Source::public(BACKPORTS);
        assert_eq!(steps(&[Need::Qemu], &[have], "bookworm").len(), 2);
        let shell = as_shell(&steps(&[Need::Qemu], &[], "trixie"));
        assert_eq!(
            shell,
            "apt-get update && apt-get install -y --no-install-recommends qemu-system-arm"
        );
    }

    #[test]
    fn the_shown_command_is_one_that_a_shell_understands() {
        let target = std::env::temp_dir().join(format!("baton-steps-{}", std::process::id()));
        let text = "Signed-By:\n it's $(a) \"key\"\n";
        let script = as_shell(&[
            Step::Write(target.clone(), text.to_owned()),
            Step::Run(vec!["true".into()]),
        ]);
        let line = format!("sh -c {}", command::quoted(&script));
        command::run(Command::new("sh").args(["-c", &line])).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), text);
        std::fs::remove_file(target).unwrap();
    }

    #[test]
    fn os_release_fields() {
        assert_eq!(
            os_field(
                "ID=debian\nVERSION_CODENAME=\"bookworm\"\n",
                "VERSION_CODENAME"
            ),
            "bookworm"
        );
        assert_eq!(os_field("ID=debian\n", "VERSION_CODENAME"), "");
    }
}
