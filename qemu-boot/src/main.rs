//! `cargo xtask`: the one command that sets up, builds, runs, shows and tests.
//!
//! Each subcommand first makes what it needs exist, so there is no order in which a user has to call them.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use qemu_boot::scenario::{DomainSpec, GUEST_CONSOLE, Scenario};
use qemu_boot::setup::toolchain::{BARE, cargo};
use qemu_boot::{Artifacts, Board, Workspace, bench, check, command, demo, qemu, setup, sim};

/// Baton's host program: sets up, builds, runs, shows and tests.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Makes everything exist that building and running takes
    Setup,
    /// Builds the hypervisor, the domains' programs and their images
    Build,
    /// Says all that Baton would say about a device tree, and what it would do, without booting
    ///
    /// The exit status is 0 if there is no mistake, 1 if there is one, 2 if the file can't be read.
    Check(Check),
    /// Boots Baton with its console on this terminal
    Run(Run),
    /// Shows two Linux domains sharing one device, and checks the outcome
    Demo(Demo),
    /// Counts the instructions of exits, interrupts and switches, by QEMU's instruction counter
    Bench {
        /// Prints one JSON object instead of the table
        #[arg(long)]
        json: bool,
        /// Measures twice and fails unless every number is the same
        #[arg(long)]
        twice: bool,
    },
    /// Compares the scheduling algorithms in virtual time
    Sim(Sim),
    /// Runs every test
    Test {
        /// Only tests whose name contains this
        filter: Option<String>,
        /// Also those that take minutes and are left out otherwise
        #[arg(long)]
        long: bool,
    },
    /// Checks formatting, lints and documentation, with warnings as errors
    Lint,
}

#[derive(Debug, clap::Args)]
struct Check {
    /// The tree: a blob, or a source (.dts), which dtc compiles
    file: PathBuf,
    /// Prints one JSON object instead of the text
    #[arg(long)]
    json: bool,
    /// Cargo features of the Baton that is to boot, in addition to the default ones
    #[arg(long, value_name = "LIST")]
    features: Vec<String>,
    /// Without the default features
    #[arg(long)]
    no_default_features: bool,
    /// What the boot loader puts at an address: a kernel is looked at, and whether it fits
    #[arg(long = "image", value_name = "ADDRESS=FILE")]
    images: Vec<String>,
    /// RAM that the boot loader tells of, in place of what the tree says
    #[arg(long, value_name = "ADDRESS=MIB")]
    memory: Vec<String>,
    /// A file from which a domain is to be defined when all runs
    #[arg(long, value_name = "dN=FILE")]
    define: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The board
    #[arg(long, value_enum, default_value_t)]
    machine: Board,
    /// Number of domains, each running Debian's kernel and the demo workload [default: 2; raspi4b: 1]
    #[arg(long)]
    domains: Option<u32>,
    /// Jobs that each domain's workload does
    #[arg(long, default_value_t = 40)]
    jobs: u32,
    /// The machine's memory in MiB [default: 3072; raspi4b: always 2048]
    #[arg(long)]
    memory: Option<u32>,
    /// The machine's CPUs [default: 2; raspi4b: always 4]
    #[arg(long)]
    cpus: Option<u32>,
    /// Another command line for the domains' kernels
    #[arg(long)]
    bootargs: Option<String>,
    /// Another program as the domains' /init, by the name of its binary
    #[arg(long)]
    init: Option<String>,
    /// Boots two domains with a firmware each, checksum and filter, on one firmware core
    #[arg(long, conflicts_with_all = ["machine", "domains", "jobs", "bootargs", "init"])]
    firmware: bool,
    /// Only prints QEMU's command line
    #[arg(long)]
    dry_run: bool,
    /// More arguments for QEMU, such as -d int or -s -S
    #[arg(last = true)]
    qemu: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Sim {
    /// Prints one JSON object for each algorithm and workload instead of the table
    #[arg(long)]
    json: bool,
    /// Also puts the pictures into docs/plots
    #[arg(long)]
    docs: bool,
    /// Jobs with a deadline that are done at least
    #[arg(long, default_value_t = 20_000)]
    jobs: u64,
    /// Virtual time of each simulation, in seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Length of a slice, in microseconds
    #[arg(long, default_value_t = 5_000)]
    slice: u64,
    /// Seed of all randomness
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this algorithm
    #[arg(long)]
    algorithm: Option<String>,
    /// Only this workload
    #[arg(long)]
    workload: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Demo {
    /// Boots Linux directly, without Baton, and runs the same program
    #[arg(long)]
    native: bool,
    /// Jobs for each domain
    #[arg(long, default_value_t = 40)]
    jobs: u32,
    /// Where the timeline picture goes [default: target/demo/timeline.svg]
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Longest time for the run, in seconds
    #[arg(long, default_value_t = 600)]
    limit: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Task::Check(options) = &arguments.task {
        return match checked(&Workspace::here(), options) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::from(2)
            }
        };
    }
    match run(&arguments.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<()> {
    let workspace = Workspace::here();
    match task {
        Task::Setup => {
            let _lock = workspace.lock()?;
            let tools = setup::ensure(&workspace)?;
            println!(
                "Everything is there; the domains' kernel is {}.",
                tools.kernel.version
            );
            Ok(())
        }
        Task::Build => {
            let artifacts = Artifacts::prepare(&workspace)?;
            println!("Baton:      {}", artifacts.hypervisor.display());
            println!("  symbols:  {}", artifacts.hypervisor_elf.display());
            println!("kernel:     {}", artifacts.kernel.image.display());
            println!("initramfs:  {}", artifacts.initramfs.display());
            println!("  firmware: {}", artifacts.firmware_initramfs()?.display());
            Ok(())
        }
        // `main` does it, for its exit status.
        Task::Check(_) => Ok(()),
        Task::Run(options) => interactive(&workspace, options),
        Task::Demo(options) => {
            let demand = demo::Options {
                jobs: options.jobs,
                svg: options.svg.clone(),
                limit: Duration::from_secs(options.limit),
            };
            if options.native {
                demo::native(&Artifacts::prepare_native(&workspace)?, &demand)
            } else {
                demo::shared(&Artifacts::prepare(&workspace)?, &demand)
            }
        }
        Task::Bench { json, twice } => measure(&workspace, *json, *twice),
        Task::Sim(options) => simulate(&workspace, options),
        Task::Test { filter, long } => test(&workspace, filter.as_deref(), *long),
        Task::Lint => lint(&workspace),
    }
}

/// Checks a device tree; tells whether it has no mistake.
fn checked(workspace: &Workspace, options: &Check) -> Result<bool> {
    let images = options.images.iter().map(|text| check::Image::read(text));
    let demand = check::Options {
        features: check::Features::of(&options.features, options.no_default_features)?,
        images: images.collect::<Result<_>>()?,
        define: options
            .define
            .as_deref()
            .map(check::definition)
            .transpose()?,
        baton: check::size_of_baton(workspace),
    };
    let file = options.file.display();
    let banks = options.memory.iter().map(|text| check::source::bank(text));
    let banks: Vec<_> = banks.collect::<Result<_>>()?;
    let blob = check::source::read(&options.file)?;
    let blob = check::source::with_memory(blob, &banks).with_context(|| file.to_string())?;
    let findings =
        check::check(&blob, &demand).map_err(|error| anyhow::anyhow!("{file}: {error}"))?;
    if options.json {
        println!("{}", findings.json()?);
    } else {
        print!("{findings}");
    }
    Ok(findings.is_good())
}

/// Boots Baton with the terminal as its console; returns only on an error, since QEMU takes this
/// process's place.
fn interactive(workspace: &Workspace, options: &Run) -> Result<()> {
    let artifacts = Artifacts::prepare(workspace)?;
    if options.firmware {
        let ramdisk = artifacts.firmware_initramfs()?;
        let domains = ["image=checksum jobs=2000", "image=filter jobs=2000"];
        let cpus = options.cpus.unwrap_or(3).max(3);
        let mut scenario = Scenario::firmware("run-firmware", cpus, &ramdisk, &domains);
        for domain in &mut scenario.domains {
            domain.bootargs = domain.bootargs.replace("quiet ", "");
        }
        return console(&artifacts, scenario, options);
    }
    let mut scenario = match options.machine {
        Board::Virt => Scenario::sharing_edu("run", options.domains.unwrap_or(2), options.jobs),
        Board::Raspi4b => idle_on_raspi4b(options.domains.unwrap_or(1)),
    };
    scenario.cpus = options.cpus.unwrap_or(scenario.cpus);
    let all = scenario.cpus.max(1);
    let ramdisk = match &options.init {
        Some(init) => {
            let archive = artifacts.initramfs_with(init)?;
            Some(artifacts.save_initramfs(&format!("run-{init}"), archive)?)
        }
        None => None,
    };
    for (number, domain) in (0_u32..).zip(&mut scenario.domains) {
        *domain = DomainSpec {
            affinity: (0..domain.vcpus)
                .map(|vcpu| (number + vcpu) % all)
                .collect(),
            ramdisk: ramdisk.clone(),
            bootargs: options.bootargs.as_ref().map_or_else(
                || domain.bootargs.replace("quiet ", ""),
                |args| format!("{GUEST_CONSOLE} {args}"),
            ),
            ..domain.clone()
        };
    }
    console(&artifacts, scenario, options)
}

/// A Raspberry Pi with domains that have all its CPUs and no coprocessor, since there is none: their program only listens.
fn idle_on_raspi4b(domains: u32) -> Scenario {
    let mut scenario = Scenario::raspi4b("run-raspi4b");
    for number in 1..=domains {
        let bootargs =
            format!("panic=-1 workload.name=d{number} workload.mode=idle workload.wait=1");
        let mut domain = DomainSpec::linux(0, &bootargs);
        domain.vcpus = scenario.cpus;
        domain.memory_kib = (512 << 10) / u64::from(domains.max(1));
        scenario.domains.push(domain);
    }
    scenario
}

/// Puts QEMU with this scenario in this process's place.
fn console(artifacts: &Artifacts, mut scenario: Scenario, options: &Run) -> Result<()> {
    scenario.memory_mib = options.memory.unwrap_or(scenario.memory_mib);
    scenario.qemu_args.clone_from(&options.qemu);
    let mut command = qemu::baton_command(artifacts, &scenario)?;
    // Ctrl-A is Baton's, so QEMU's own escape has to be another one.
    command
        .args(scenario.board.console("mon:stdio"))
        .args(["-echr", "0x1d"]);
    if options.dry_run {
        println!("{}", command::shown(&command));
        return Ok(());
    }
    println!("Leave with Ctrl-] x; switch the console's input with Ctrl-A three times.");
    Err(command.exec()).with_context(|| format!("starting {}", command::shown(&command)))
}

/// Measures, and shows the rows.
fn measure(workspace: &Workspace, json: bool, twice: bool) -> Result<()> {
    let artifacts = Artifacts::prepare(workspace)?;
    let peer = bench::peer(workspace);
    let costs = bench::measure(&artifacts, "bench", peer.as_ref())?;
    if twice {
        let again = bench::measure(&artifacts, "bench", peer.as_ref())?;
        if again != costs {
            bail!(
                "two runs differ:\n{}\n{}",
                bench::table(&costs),
                bench::table(&again)
            );
        }
    }
    if json {
        println!("{}", bench::json(&costs)?);
    } else {
        print!("{}", bench::table(&costs));
        if let Some(peer) = &peer {
            println!("Xen is Debian's {}.", peer.version);
        }
    }
    Ok(())
}

/// Compares the algorithms in virtual time, as numbers and pictures.
fn simulate(workspace: &Workspace, options: &Sim) -> Result<()> {
    let comparison = sim::compare(
        &sim::run::Options {
            slice: options.slice.max(1).saturating_mul(1_000),
            time: options.seconds.max(1).saturating_mul(1_000_000_000),
            jobs: options.jobs,
            seed: options.seed,
            starvation: None,
        },
        options.algorithm.as_deref(),
        options.workload.as_deref(),
    )?;
    if options.json {
        println!("{}", sim::json(&comparison.rows)?);
    } else {
        print!("{}", sim::table(&comparison.rows));
    }
    let mut files = sim::pictures(&comparison, &workspace.target("sim"))?;
    if options.docs {
        files.extend(sim::pictures(
            &comparison,
            &workspace.root().join("docs/plots"),
        )?);
    }
    for file in files {
        eprintln!("drawn: {}", file.display());
    }
    Ok(())
}

/// Runs all tests of the workspace and sums them up.
fn test(workspace: &Workspace, filter: Option<&str>, long: bool) -> Result<()> {
    let started = Instant::now();
    Artifacts::prepare(workspace)?;
    let mut tests = cargo(workspace);
    tests
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(filter);
    if long {
        tests.args(["--", "--include-ignored"]);
    }
    eprintln!("test: {}", command::shown(&tests));
    let mut child = tests
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", command::shown(&tests)))?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let mut sum = Sum::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("reading cargo test's output")?;
        sum.take(&line);
        println!("{line}");
    }
    let status = child.wait().context("waiting for cargo test")?;
    println!("\n{}", "─".repeat(72));
    for name in &sum.failures {
        println!("failed: {name}");
    }
    println!(
        "{} tests passed, {} failed, {} ignored, in {:.0} s.",
        sum.passed,
        sum.failed,
        sum.ignored,
        started.elapsed().as_secs_f64()
    );
    if !status.success() || sum.failed > 0 {
        bail!(
            "the tests failed; console logs are in {}",
            workspace.logs()?.display()
        );
    }
    if sum.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// The test harnesses' own lines, added up.
#[derive(Debug, Default)]
struct Sum {
    passed: u64,
    failed: u64,
    ignored: u64,
    failures: Vec<String>,
}

impl Sum {
    fn take(&mut self, line: &str) {
        if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split(';') {
            let mut words = count.split_whitespace();
            let number = words
                .next()
                .and_then(|word| word.parse::<u64>().ok())
                .unwrap_or(0);
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// Packages with features that must build alone.
const HOST_FEATURES: [(&str, &str); 15] = [
    ("sched-algos", ""),
    ("sched-algos", "rr"),
    ("sched-algos", "weighted"),
    ("sched-algos", "priority"),
    ("sched-algos", "reservation"),
    ("sched-algos", "null"),
    ("platforms", ""),
    ("platforms", "smmuv3"),
    ("platforms", "mini-uart"),
    ("platforms", "scif"),
    ("platforms", "edu"),
    ("platforms", "accumulator"),
    ("platforms", "pl061"),
    ("platforms", "copier"),
    ("platforms", "fw-core"),
];
/// Sets of features that Baton must build with: no framework; no driver and no algorithm; one of each; everything.
const BARE_FEATURES: [&str; 7] = [
    "qemu-virt",
    "raspi4b",
    "rcar-gen3",
    "qemu-virt,sharing",
    "qemu-virt,edu,weighted",
    "qemu-virt,fw-core,weighted",
    "qemu-virt,raspi4b,rcar-gen3,edu,fw-core,accumulator,copier,pl061,rr,weighted,priority,reservation,null,fault-injection",
];

/// Formatting, lints for the host and both targets, documentation: all of them, so that one run
/// shows everything there is to mend.
fn lint(workspace: &Workspace) -> Result<()> {
    let tools = {
        let _lock = workspace.lock()?;
        setup::ensure(workspace)?
    };
    let mut failures = Vec::new();
    let mut step = |command: &mut Command| {
        eprintln!("lint: {}", command::shown(command));
        if let Err(error) = command::run(command) {
            failures.push(format!("{error:#}"));
        }
    };
    step(cargo(workspace).args(["fmt", "--all", "--check"]));
    step(cargo(workspace).args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]));
    let hypervisor = workspace.target("hypervisor");
    let bare = |arguments: &[&str]| {
        let mut command = tools.toolchain.cargo(workspace, "clippy", BARE);
        command
            .args(arguments)
            .args(["--release", "--target-dir"])
            .arg(&hypervisor)
            .args(["--", "-D", "warnings"])
            // Instead of those of the builds, which make rustc warn of a feature that only the code generator knows.
            .env("CARGO_ENCODED_RUSTFLAGS", "-Ccode-model=tiny");
        command
    };
    step(&mut bare(&[
        "--package",
        "hypervisor",
        "--bin",
        "baton",
        "--lib",
    ]));
    step(&mut bare(&["--package", "bench-guest"]));
    step(&mut bare(&[
        "--package",
        "firmware",
        "--package",
        "fw-runtime",
    ]));
    // Each algorithm and driver alone, none, and Baton with few and with all (F9).
    for (package, features) in HOST_FEATURES {
        step(
            cargo(workspace)
                .args([
                    "clippy",
                    "--quiet",
                    "--package",
                    package,
                    "--no-default-features",
                ])
                .args(["--features", features, "--", "-D", "warnings"]),
        );
    }
    for features in BARE_FEATURES {
        step(&mut bare(&[
            "--quiet",
            "--package",
            "hypervisor",
            "--bin",
            "baton",
            "--no-default-features",
            "--features",
            features,
        ]));
    }
    let guest = workspace.target("guest");
    let mut linux = tools
        .toolchain
        .cargo(workspace, "clippy", tools.toolchain.linux_target());
    linux
        .args([
            "--package",
            "baton-tools",
            "--bins",
            "--release",
            "--target-dir",
        ])
        .arg(guest);
    step(linux.args(["--", "-D", "warnings"]));
    step(
        cargo(workspace)
            .args(["doc", "--no-deps", "--workspace"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    );
    if !failures.is_empty() {
        bail!("{}", failures.join("\n       "));
    }
    println!("Formatting, lints and documentation are in order.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn test_results_add_up() {
        let mut sum = Sum::default();
        for line in [
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.1s",
            "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        ] {
            sum.take(line);
        }
        assert_eq!((sum.passed, sum.failed, sum.ignored), (7, 1, 2));
        assert_eq!(sum.failures, ["a::c"]);
    }
}
