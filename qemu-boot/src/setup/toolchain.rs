//! The compiler for AArch64.
//!
//! rustup usually has both targets already, or fetches them in seconds. When it can't (a
//! closed network, a server that is down), Debian's own compiler builds the standard library from
//! its sources: slower once, otherwise the same. Which of the two is used is nobody's business but this module's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{packages, say};
use crate::command;
use crate::workspace::Workspace;

/// The target for the hypervisor.
pub const BARE: &str = "aarch64-unknown-none-softfloat";
/// The target for the domains' programs.
pub const LINUX: &str = "aarch64-unknown-linux-musl";
/// The same with Debian's compiler, which has no sources of musl.
const LINUX_DEBIAN: &str = "aarch64-unknown-linux-gnu";

/// How to compile for AArch64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// rustup's compiler with its ready-made targets.
    Rustup,
    /// Debian's compiler at `/usr/bin/rustc`, building the library; linking by this `rust-lld`.
    Debian {
        /// The linker in rustup's sysroot.
        lld: PathBuf,
    },
}

impl Toolchain {
    /// Finds the targets, fetches them, or falls back to Debian's compiler.
    ///
    /// # Errors
    /// If none of this works.
    pub fn ensure(workspace: &Workspace) -> Result<Self> {
        let sysroot = PathBuf::from(
            command::output(rustc(workspace).args(["--print", "sysroot"]))
                .context("asking for the sysroot")?
                .trim(),
        );
        let has = |target: &str| {
            let library = sysroot.join("lib/rustlib").join(target).join("lib");
            std::fs::read_dir(library).is_ok_and(|mut entries| entries.next().is_some())
        };
        let missing: Vec<&str> = [BARE, LINUX]
            .into_iter()
            .filter(|target| !has(target))
            .collect();
        if missing.is_empty() {
            return Ok(Self::Rustup);
        }
        let debian = packages::Need::DebianRust;
        if debian.met() {
            // Fallen back before: no need to wait for the network each time.
            return Self::debian(&sysroot);
        }
        say(&format!(
            "fetching Rust's libraries for {}",
            missing.join(" and ")
        ));
        let mut rustup = Command::new("rustup");
        rustup
            .args(["target", "add"])
            .args(&missing)
            .current_dir(workspace.root());
        match command::run(&mut rustup) {
            Ok(()) if missing.iter().all(|target| has(target)) => return Ok(Self::Rustup),
            Ok(()) => say("rustup has them for another toolchain only"),
            Err(error) => say(&format!("{error:#}")),
        }
        packages::ensure(&[debian])?;
        Self::debian(&sysroot)
    }

    fn debian(sysroot: &Path) -> Result<Self> {
        let lld = sysroot.join("lib/rustlib").join(HOST).join("bin/rust-lld");
        ensure!(
            lld.exists(),
            "{} isn't there, so nothing can link for AArch64",
            lld.display()
        );
        Ok(Self::Debian { lld })
    }

    /// The target triple for the domains' programs.
    pub fn linux_target(&self) -> &'static str {
        match self {
            Self::Rustup => LINUX,
            Self::Debian { .. } => LINUX_DEBIAN,
        }
    }

    /// A `cargo build` or `cargo clippy` for one of the targets.
    pub fn cargo(&self, workspace: &Workspace, subcommand: &str, target: &str) -> Command {
        let mut command = cargo(workspace);
        command.args([subcommand, "--target", target]);
        if let Self::Debian { lld } = self {
            command
                .env("RUSTC", "/usr/bin/rustc")
                .env("RUSTC_BOOTSTRAP", "1");
            if target == BARE {
                command
                    .args([
                        "-Zbuild-std=core,alloc",
                        "-Zbuild-std-features=compiler-builtins-mem",
                    ])
                    .env("CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_LINKER", lld);
            } else {
                command
                    .arg("-Zbuild-std=std,panic_abort")
                    .env(
                        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
                        "aarch64-linux-gnu-gcc",
                    )
                    .env(
                        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
                        "-Ctarget-feature=+crt-static",
                    );
            }
        }
        command
    }
}

/// The host's triple, as far as the linker's place needs it.
const HOST: &str = if cfg!(target_arch = "aarch64") {
    "aarch64-unknown-linux-gnu"
} else {
    "x86_64-unknown-linux-gnu"
};

fn rustc(workspace: &Workspace) -> Command {
    let mut command = Command::new("rustc");
    command.current_dir(workspace.root());
    command
}

/// cargo in the workspace, free of what an outer cargo or the user's shell would pass on: flags
/// meant for the host must not reach another target.
pub fn cargo(workspace: &Workspace) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace.root());
    for name in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_BUILD_RUSTFLAGS",
    ] {
        command.env_remove(name);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> String {
        command::shown(command)
    }

    #[test]
    fn rustup_needs_no_flags_and_debian_builds_the_library() {
        let workspace = Workspace::here();
        let plain = words(&Toolchain::Rustup.cargo(&workspace, "build", BARE));
        assert!(
            plain.ends_with("build --target aarch64-unknown-none-softfloat"),
            "{plain}"
        );

        let debian = Toolchain::Debian {
            lld: "/x/rust-lld".into(),
        };
        assert!(words(&debian.cargo(&workspace, "build", BARE)).contains("-Zbuild-std=core,alloc"));
        assert_eq!(debian.linux_target(), "aarch64-unknown-linux-gnu");
        let linux = debian.cargo(&workspace, "build", debian.linux_target());
        assert!(words(&linux).contains("-Zbuild-std=std,panic_abort"));
        assert!(linux.get_envs().any(|(name, value)| {
            name == "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS"
                && value.is_some_and(|value| value == "-Ctarget-feature=+crt-static")
        }));
    }
}
