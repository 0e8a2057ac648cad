//! The host side against the real QEMU and the real kernel, without Baton.
//!
//! If one of these fails, a failure with Baton isn't Baton's.

use std::process::Command;
use std::time::Duration;

use qemu_boot::device_tree::Tree;
use qemu_boot::qemu::{self, PROGRAM};
use qemu_boot::report::{WorkloadLine, workload_line};
use qemu_boot::{Artifacts, Mark, Qemu, Scenario, Workspace, command};

const LIMIT: Duration = Duration::from_secs(120);

fn artifacts() -> Artifacts {
    Artifacts::prepare_native(&Workspace::here()).unwrap()
}

fn result(qemu: &Qemu) -> qemu_boot::report::WorkloadResult {
    let found = qemu.wait_map(
        Mark::START,
        "the workload's end",
        LIMIT,
        |line| match workload_line(line)? {
            WorkloadLine::Done(result) => Some(Ok(result)),
            WorkloadLine::Failed(why) => Some(Err(why)),
            WorkloadLine::Progress(_) => None,
        },
    );
    found.unwrap().1.unwrap().expect("a result with numbers")
}

/// The workload on the plain machine: what the demo offers as `--native`.
#[test]
fn the_workload_runs_on_linux_without_baton() {
    let bootargs =
        "console=ttyAMA0 quiet panic=-1 workload.jobs=2 workload.seed=3 workload.name=native";
    let qemu = Qemu::native(&artifacts(), "test-native", bootargs, LIMIT).unwrap();
    let result = result(&qemu);
    assert_eq!((result.jobs, result.wrong), (2, 0));
    assert!(result.interrupts > 0 && result.dma_bytes > 0);
}

/// Linux takes Baton's place on Baton's machine: the rewritten device tree must describe CPUs,
/// interrupts, PCIe and the SMMU as well as QEMU's own.
#[test]
fn an_operating_system_boots_from_the_rewritten_device_tree() {
    let mut artifacts = artifacts();
    artifacts.hypervisor = artifacts.kernel.image.clone();
    let mut scenario = Scenario::sharing_edu("test-rewritten", 2, 1);
    let bootargs = "console=ttyAMA0 panic=-1 iommu.passthrough=1 workload.jobs=1 workload.seed=3";
    scenario.qemu_args = [
        "-initrd",
        &artifacts.initramfs.display().to_string(),
        "-append",
        bootargs,
    ]
    .map(str::to_owned)
    .to_vec();
    let qemu = Qemu::baton(&artifacts, &scenario, LIMIT).unwrap();
    let result = result(&qemu);
    assert_eq!((result.jobs, result.wrong), (1, 0));
    for sign in [
        "CPU(s) started at EL2",
        "arm-smmu-v3",
        "Brought up 1 node, 2 CPUs",
    ] {
        qemu.wait_for(sign, Duration::from_secs(1)).unwrap();
    }
}

/// What QEMU hands over is what was configured, after its own amendments.
#[test]
fn qemu_keeps_the_configuration_in_the_tree() {
    let mut artifacts = artifacts();
    artifacts.hypervisor = artifacts.kernel.image.clone();
    let scenario = Scenario::sharing_edu("test-kept", 2, 5);
    let configured = qemu::baton_command(&artifacts, &scenario).unwrap();
    let dump = artifacts
        .workspace()
        .images()
        .unwrap()
        .join("test-kept.final.dtb");
    let mut dumping = Command::new(PROGRAM);
    for word in configured.get_args() {
        let word = word.to_str().unwrap();
        if word.starts_with("virt,") {
            dumping.arg(format!("{word},dumpdtb={}", dump.display()));
        } else {
            dumping.arg(word);
        }
    }
    command::output(dumping.args(["-serial", "none", "-monitor", "none"])).unwrap();
    let mut kept = Tree::parse(&std::fs::read(&dump).unwrap()).unwrap();
    let file = artifacts
        .workspace()
        .images()
        .unwrap()
        .join("test-kept.dtb");
    let mut made = Tree::parse(&std::fs::read(file).unwrap()).unwrap();
    for path in [
        "/chosen/coprocs",
        "/chosen/domain@1",
        "/chosen/domain@2",
        "/cpus",
        "/psci",
    ] {
        let (made, kept) = (
            made.node_mut(path).unwrap().clone(),
            kept.node_mut(path).unwrap(),
        );
        assert_eq!(&made, kept, "{path}");
    }
    let stdout = kept
        .node_mut("/chosen")
        .unwrap()
        .get("stdout-path")
        .unwrap();
    assert!(stdout.starts_with(b"/pl011@"), "{stdout:?}");
    let memory = kept
        .root
        .children
        .iter()
        .filter(|node| node.name.starts_with("memory"))
        .count();
    assert_eq!(memory, 1);
}
