//! Which drivers and algorithms a Baton has that was built with certain Cargo features.

use anyhow::{Result, bail};
use control_plane::config::{Known, KnownName};
use platforms::uart;

/// The package's default features: `hypervisor/Cargo.toml`.
const DEFAULT: &[&str] = &[
    "qemu-virt",
    "raspi4b",
    "rcar-gen3",
    "sharing",
    "edu",
    "fw-core",
    "rr",
    "weighted",
    "priority",
    "reservation",
    "null",
];
/// Those besides that are no driver and no algorithm.
const OTHERS: &[&str] = &["mini-uart", "scif", "fault-injection"];

/// The features of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features(Vec<String>);

impl Default for Features {
    fn default() -> Self {
        Self(DEFAULT.iter().map(ToString::to_string).collect())
    }
}

/// Driver and algorithm names with the feature of each.
fn names() -> impl Iterator<Item = &'static (&'static str, &'static str, bool)> {
    platforms::coproc::KNOWN.iter().chain(sched_algos::KNOWN)
}

impl Features {
    /// As `cargo build --features LIST` takes them: names with commas or spaces between, in addition to the default ones unless `bare`.
    ///
    /// # Errors
    /// If there is no such feature.
    pub fn of(lists: &[String], bare: bool) -> Result<Self> {
        let mut features = if bare {
            Self(Vec::new())
        } else {
            Self::default()
        };
        let all: Vec<&str> = DEFAULT.iter().chain(OTHERS).copied().collect();
        for name in lists
            .iter()
            .flat_map(|list| list.split([',', ' ']))
            .filter(|name| !name.is_empty())
        {
            let driver = names().any(|(_, feature, _)| *feature == name);
            if !driver && !all.contains(&name) {
                bail!(
                    "there is no feature {name:?}; there are {}",
                    Self::all().join(", ")
                );
            }
            if driver {
                features.0.push("sharing".to_owned());
            }
            features.0.push(name.to_owned());
        }
        Ok(features)
    }

    fn all() -> Vec<&'static str> {
        let mut all: Vec<&str> = names().map(|(_, feature, _)| *feature).collect();
        all.extend(DEFAULT.iter().chain(OTHERS));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether this one is on.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|one| one == name)
    }

    /// Whether coprocessors can be shared at all.
    pub fn sharing(&self) -> bool {
        self.has("sharing")
    }

    /// Whether there is a driver for a UART with these `compatible` strings.
    pub fn drives_uart(&self, compatible: &[String]) -> bool {
        let mini = self.has("mini-uart") || self.has("raspi4b");
        let scif = self.has("scif") || self.has("rcar-gen3");
        let drivers = [
            (true, uart::PL011_COMPATIBLE),
            (mini, uart::mini::COMPATIBLE),
            (scif, uart::scif::COMPATIBLE),
        ];
        drivers.iter().any(|(there, names)| {
            let driven = |name: &String| names.contains(&name.as_str());
            *there && compatible.iter().any(driven)
        })
    }

    /// Calls `read` with the names that a configuration may use.
    pub fn known<R>(&self, read: impl FnOnce(&Known<'_>) -> R) -> R {
        let list = |all| KnownName::list(all, self.sharing(), &|feature, _| self.has(feature));
        read(&Known {
            drivers: &list(platforms::coproc::KNOWN),
            schedulers: &list(sched_algos::KNOWN),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_features_are_the_packages() {
        let manifest = std::fs::read_to_string(
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../hypervisor/Cargo.toml"),
        )
        .unwrap();
        let line = manifest
            .lines()
            .find_map(|line| line.strip_prefix("default = "))
            .unwrap();
        let named: Vec<String> = serde_json::from_str(line).unwrap();
        assert_eq!(Features::default().0, named);
        for (_, feature, _) in names() {
            assert!(
                manifest.contains(&format!("\n{feature} = [\"sharing\"")),
                "{feature}"
            );
        }
        for feature in OTHERS {
            assert!(manifest.contains(&format!("\n{feature} = [")), "{feature}");
        }
    }

    #[test]
    fn features_add_up_as_cargos_do() {
        let features = Features::of(&["copier, accumulator".into()], false).unwrap();
        assert!(features.has("copier") && features.has("accumulator") && features.has("rr"));
        let few = Features::of(&["edu".into(), "rr".into()], true).unwrap();
        assert!(few.sharing() && few.has("edu") && !few.has("weighted"));
        assert!(!Features::of(&["qemu-virt".into()], true).unwrap().sharing());
        let error = Features::of(&["edo".into()], false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("edo") && error.contains("edu, "), "{error}");
    }
}
