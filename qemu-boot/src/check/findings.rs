//! What was found: mistakes first of all, then what would be made of the rest. As text for people, as JSON for programs.

use std::fmt::{self, Display, Write as _};

use control_plane::config::machine::{self, EnableMethod, Gic};
use control_plane::devicetree::Error;
use control_plane::startup::Voice;
use serde::Serialize;

/// Everything.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// The machine can't be used: nothing starts.
    pub fatal: bool,
    /// Mistakes, in the words of the boot log.
    pub errors: Vec<Mistake>,
    /// What has no effect, or hardly the intended one; likewise.
    pub warnings: Vec<Mistake>,
    /// The machine.
    pub machine: Option<Machine>,
    /// Pools of CPUs.
    pub pools: Vec<Pool>,
    /// The coprocs that could be shared.
    pub coprocs: Vec<Coproc>,
    /// The domains, also those that aren't created.
    pub domains: Vec<Domain>,
    /// Memory that domains share.
    pub shared_memory: Vec<Shared>,
    /// Memory in KiB.
    pub memory: Memory,
    /// What was taken for granted.
    pub not_checked: Vec<String>,
}

/// A mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// Path of the node.
    pub node: String,
    /// The property.
    pub property: Option<String>,
    /// The whole line.
    pub text: String,
}

/// The machine.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// The interrupt controller.
    pub interrupt_controller: String,
    /// Each CPU: how it is started.
    pub cpus: Vec<String>,
    /// MiB of RAM.
    pub memory_mib: u64,
    /// The console's UART.
    pub console: Option<String>,
    /// SMMUs, of which the first is used.
    pub iommus: Vec<String>,
    /// PCIe host bridges, of which the first is used.
    pub pcie: Vec<String>,
}

/// A pool of CPUs.
#[derive(Debug, Serialize)]
pub struct Pool {
    /// Its number.
    pub id: u32,
    /// Its algorithm.
    pub scheduler: String,
    /// Its CPUs that run vCPUs, counted in the order of the tree.
    pub cpus: Vec<usize>,
}

/// A coproc that could be shared.
#[derive(Debug, Serialize)]
pub struct Coproc {
    /// Its number.
    pub id: u32,
    /// Its device.
    pub device: String,
    /// Its driver.
    pub driver: String,
    /// Its algorithm.
    pub scheduler: String,
    /// The settings in force, those left to the driver, too.
    pub settings: String,
    /// Whether it is shared from boot on.
    pub shared: bool,
}

/// A domain.
#[derive(Debug, Serialize)]
pub struct Domain {
    /// Path of its node.
    pub node: String,
    /// Its number, if that could be read.
    pub id: Option<u16>,
    /// What becomes of it.
    pub fate: Fate,
    /// vCPUs.
    pub vcpus: u32,
    /// The number of their pool.
    pub pool: Option<u32>,
    /// MiB of RAM.
    pub memory_mib: u64,
    /// What it has besides, in words: images, coprocs, devices.
    pub has: Vec<String>,
}

/// What becomes of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It starts at boot.
    Starts,
    /// It is made when somebody asks for it (`status = "disabled"`).
    Waits,
    /// It has a mistake.
    NotCreated,
}

/// Memory that domains share.
#[derive(Debug, Serialize)]
pub struct Shared {
    /// Path of its node.
    pub node: String,
    /// KiB.
    pub kib: u64,
    /// Whose.
    pub domains: Vec<u16>,
}

/// Memory in KiB.
#[derive(Debug, Default, Serialize)]
pub struct Memory {
    /// All of it.
    pub total_kib: u64,
    /// Free before any domain is made: without Baton, the images, what is reserved.
    pub before_domains_kib: u64,
    /// Free when all have started.
    pub left_kib: u64,
}

impl Mistake {
    fn of(error: &Error) -> Self {
        Self {
            node: error.path().to_owned(),
            property: error.property_name().map(str::to_owned),
            text: error.to_string(),
        }
    }
}

impl Machine {
    /// A machine that was read.
    pub fn of(machine: &machine::Machine) -> Self {
        let interrupt_controller = match &machine.gic {
            Gic::V3(gic) => format!("GICv3 at {:#x}", gic.distributor.address),
            Gic::V2(gic) => format!("GICv2 at {:#x}", gic.distributor.address),
        };
        let method = |enable| match enable {
            EnableMethod::Psci => "psci",
            EnableMethod::SpinTable { .. } => "spin-table",
            EnableMethod::None => "no way to start it",
        };
        Self {
            interrupt_controller,
            cpus: machine
                .cpus
                .iter()
                .map(|cpu| method(cpu.enable).to_owned())
                .collect(),
            memory_mib: machine.memory.iter().map(|bank| bank.size).sum::<u64>() >> 20,
            console: machine.uart.as_ref().map(|uart| uart.path.clone()),
            iommus: machine.smmus.iter().map(|smmu| smmu.path.clone()).collect(),
            pcie: machine
                .pci_hosts
                .iter()
                .map(|host| {
                    format!(
                        "{}, segment {}, buses {} to {}",
                        host.path, host.segment, host.first_bus, host.last_bus
                    )
                })
                .collect(),
        }
    }
}

impl Findings {
    /// Nothing starts, because of this.
    pub fn fatal(&mut self, error: &Error) {
        self.fatal = true;
        self.error(error);
    }

    /// A warning that is about no property: in the boot log's words.
    pub fn remark(&mut self, node: &str, text: impl Into<String>) {
        self.warnings.push(Mistake {
            node: node.to_owned(),
            property: None,
            text: text.into(),
        });
    }

    /// What was taken for granted.
    pub fn unchecked(&mut self, text: String) {
        if !self.not_checked.contains(&text) {
            self.not_checked.push(text);
        }
    }

    /// Whether Baton would find no mistake.
    pub fn is_good(&self) -> bool {
        self.errors.is_empty()
    }

    /// As one JSON object.
    ///
    /// # Errors
    /// Never, but the type says so.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// The domains with this fate.
    pub fn domains_that(&self, fate: Fate) -> impl Iterator<Item = &Domain> {
        self.domains
            .iter()
            .filter(move |domain| domain.fate == fate)
    }

    /// The last line: what it comes to.
    fn verdict(&self) -> String {
        let count = |number: usize, what: &str| match number {
            1 => format!("1 {what}"),
            number => format!("{number} {what}s"),
        };
        let mut text = match self.errors.len() {
            0 => "No mistake".to_owned(),
            number => count(number, "mistake"),
        };
        if !self.warnings.is_empty() {
            let _ = write!(text, ", {}", count(self.warnings.len(), "warning"));
        }
        if self.fatal {
            text.push_str(": Baton can't use this machine, nothing starts.");
            return text;
        }
        let starts = self.domains_that(Fate::Starts).count();
        let not = self.domains_that(Fate::NotCreated).count();
        let _ = write!(
            text,
            ": {starts} of {} start{}",
            count(self.domains.len(), "domain"),
            if starts == 1 { "s" } else { "" }
        );
        if not > 0 {
            let _ = write!(text, ", {not} can't be created");
        }
        text.push('.');
        text
    }
}

impl Voice for Findings {
    fn error(&mut self, error: &Error) {
        self.errors.push(Mistake::of(error));
    }

    fn warning(&mut self, path: &str, line: fmt::Arguments<'_>) {
        self.remark(path, line.to_string());
    }

    fn note(&mut self, _: &str, line: fmt::Arguments<'_>) {
        self.unchecked(line.to_string());
    }
}

/// A line of the summary: what it is about stands in front, once.
fn line(f: &mut fmt::Formatter<'_>, about: &str, text: impl Display) -> fmt::Result {
    writeln!(f, "{about:<10} {text}")
}

fn list<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    items.join(", ")
}

impl Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut methods = self.cpus.clone();
        methods.dedup();
        line(
            f,
            "machine",
            format_args!(
                "{} CPUs ({}), {} MiB of RAM, {}",
                self.cpus.len(),
                list(&methods),
                self.memory_mib,
                self.interrupt_controller
            ),
        )?;
        let first = |of: &[String]| of.first().cloned().unwrap_or_else(|| "none".to_owned());
        line(
            f,
            "",
            format_args!("console {}", self.console.as_deref().unwrap_or("none")),
        )?;
        line(f, "", format_args!("IOMMU {}", first(&self.iommus)))?;
        line(f, "", format_args!("PCIe {}", first(&self.pcie)))
    }
}

impl Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = match self.id {
            Some(id) => format!("domain {id}"),
            None => "domain".to_owned(),
        };
        let vcpus = |f: &mut fmt::Formatter<'_>, fate: &str| {
            let s = if self.vcpus == 1 { "" } else { "s" };
            let pool = self
                .pool
                .map_or_else(String::new, |pool| format!(" in pool {pool}"));
            line(
                f,
                &about,
                format_args!(
                    "{fate}: {} vCPU{s}{pool}, {} MiB",
                    self.vcpus, self.memory_mib
                ),
            )
        };
        match self.fate {
            Fate::Starts => vcpus(f, "starts")?,
            Fate::Waits => vcpus(f, "waits for `create` (it is disabled)")?,
            Fate::NotCreated => {
                line(f, &about, format_args!("is not created ({})", self.node))?;
            }
        }
        for has in &self.has {
            line(f, "", has)?;
        }
        Ok(())
    }
}

impl Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(machine) = &self.machine {
            machine.fmt(f)?;
            for pool in &self.pools {
                let text = format!("{}, CPUs {}", pool.scheduler, list(&pool.cpus));
                line(f, &format!("pool {}", pool.id), text)?;
            }
            for coproc in &self.coprocs {
                let shared = if coproc.shared {
                    ""
                } else {
                    ", not shared: it is disabled"
                };
                let text = format!(
                    "{} at {}, {}, {}{shared}",
                    coproc.driver, coproc.device, coproc.scheduler, coproc.settings
                );
                line(f, &format!("coproc {}", coproc.id), text)?;
            }
            for domain in &self.domains {
                domain.fmt(f)?;
            }
            for shared in &self.shared_memory {
                let domains: Vec<String> = shared
                    .domains
                    .iter()
                    .map(|id| format!("domain {id}"))
                    .collect();
                let text = format!("{} KiB of {} ({})", shared.kib, list(&domains), shared.node);
                line(f, "shared", text)?;
            }
            let Memory {
                before_domains_kib,
                left_kib,
                ..
            } = self.memory;
            let text = format!(
                "{} MiB free for domains, of which {} MiB are left",
                before_domains_kib >> 10,
                left_kib >> 10
            );
            line(f, "memory", text)?;
            for (at, text) in self.not_checked.iter().enumerate() {
                line(f, if at == 0 { "unchecked" } else { "" }, text)?;
            }
            writeln!(f)?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {}", warning.text)?;
        }
        for error in &self.errors {
            writeln!(f, "error: {}", error.text)?;
        }
        writeln!(f, "{}", self.verdict())
    }
}
