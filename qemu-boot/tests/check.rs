//! `cargo xtask check` as a user or a script calls it: what it prints, and its exit status.

use std::path::PathBuf;
use std::process::{Command, Output};

use qemu_boot::command;
use qemu_boot::device_tree::{Node, Tree};
use qemu_boot::workspace::Workspace;

const GICV3: &[u8] =
    include_bytes!("../../control-plane/src/devicetree/fixtures/qemu-virt-gicv3.dtb");

/// A domain in source, for a board's `chosen`.
const DOMAIN: &str = r#"
        domain@1 {
            compatible = "xen,domain";
            #address-cells = <2>;
            #size-cells = <2>;
            cpus = <1>;
            memory = <0 0x20000>;
            module@50000000 {
                compatible = "multiboot,kernel", "multiboot,module";
                reg = <0 0x50000000 0 0x100000>;
            };
        };
"#;

fn file(name: &str, content: &[u8]) -> PathBuf {
    let file = Workspace::here().images().unwrap().join(name);
    std::fs::write(&file, content).unwrap();
    file
}

fn check(arguments: &[&str]) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("check")
        .args(arguments)
        .output()
        .unwrap();
    let text = [stdout, stderr].concat();
    (status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn the_exit_status_says_whether_there_is_a_mistake() {
    let good = file("check-good.dtb", GICV3);
    let good = good.to_str().unwrap();
    let (status, text) = check(&[good]);
    assert_eq!(status, Some(0), "{text}");
    assert!(
        text.ends_with("No mistake: 0 of 0 domains start.\n"),
        "{text}"
    );
    let (status, text) = check(&[good, "--json"]);
    assert_eq!(status, Some(0));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["machine"]["memory_mib"], 1024);

    let mut tree = Tree::parse(GICV3).unwrap();
    tree.root.children.retain(|child| child.name != "timer");
    let bad = file("check-bad.dtb", &tree.to_blob().unwrap());
    let (status, text) = check(&[bad.to_str().unwrap()]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.starts_with("error: /: no timer; expected"), "{text}");

    let truncated = file("check-truncated.dtb", &GICV3[..1000]);
    for (arguments, says) in [
        (vec![truncated.to_str().unwrap()], "device tree blob"),
        (vec!["no-such-file.dtb"], "reading no-such-file.dtb"),
        (vec!["no-such-file.dts"], "reading no-such-file.dts"),
        (
            vec![good, "--features", "edo"],
            "there is no feature \"edo\"",
        ),
        (vec![good, "--image", "12"], "expected ADDRESS=FILE"),
        (vec![good, "--memory", "0=x"], "expected ADDRESS=MIB"),
        (vec![good, "--frobnicate"], "--frobnicate"),
        (vec![good, "--define", "5=x"], "expected dN=FILE"),
        (vec![], "<FILE>"),
    ] {
        let (status, text) = check(&arguments);
        assert_eq!(status, Some(2), "{arguments:?}: {text}");
        assert!(text.contains(says), "{text}");
    }
}

/// A file for a domain that comes later is read beside the tree of boot: its own mistakes count, as Baton would tell them.
#[test]
fn a_file_for_a_domain_is_checked_with_the_tree_of_boot() {
    let module = |node: &mut Node, size: u32| {
        node.set_strings("compatible", &["xen,domain"])
            .set_cells("#address-cells", &[2])
            .set_cells("#size-cells", &[2])
            .set_cells("cpus", &[1])
            .set_cells("memory", &[0, 0x2_0000]);
        let mut module = Node::new("module@50000000");
        module
            .set_strings("compatible", &["multiboot,kernel"])
            .set_cells("reg", &[0, 0x5000_0000, 0, size]);
        node.children.push(module);
    };
    let with = |mut tree: Tree, domain: &str, size: u32| {
        let mut node = Node::new(domain);
        module(&mut node, size);
        let mut chosen = Node::new("chosen");
        chosen.children.push(node);
        tree.root.children.retain(|child| child.name != "chosen");
        tree.root.children.push(chosen);
        tree.to_blob().unwrap()
    };
    let boot = with(Tree::parse(GICV3).unwrap(), "domain@1", 0x10_0000);
    let boot = file("check-define-boot.dtb", &boot);
    let boot = boot.to_str().unwrap();
    for (size, status, says) in [
        (0x8_0000, 0, "No mistake"),
        (
            0x20_0000,
            1,
            "error: /chosen/domain@5/module@50000000: reg: 0x50000000+0x200000, which is not kept since boot",
        ),
    ] {
        let other = file("check-define.dtb", &with(Tree::default(), "domain@5", size));
        let define = format!("d5={}", other.display());
        let (found, text) = check(&[boot, "--define", &define]);
        assert_eq!(found, Some(status), "{text}");
        assert!(text.contains(says), "{text}");
        let (found, text) = check(&[boot, "--define", &define.replace("d5", "d6")]);
        assert_eq!(found, Some(1), "{text}");
        assert!(text.contains("error: /chosen: no domain 6;"), "{text}");
    }
}

/// Where the compiler is missing and only root could fetch it, that is said instead.
#[test]
fn a_source_is_compiled_and_its_mistakes_are_told() {
    let source = |domain: &str| {
        // The board itself, from its blob, in source.
        let board = file("check-board.dtb", GICV3);
        let mut dtc = Command::new("dtc");
        dtc.args(["-q", "-I", "dtb", "-O", "dts"]).arg(board);
        let text = command::output(&mut dtc).unwrap_or_default();
        format!("{text}/ {{ chosen {{ {domain} }}; }};")
    };
    let first = file("check.dts", b"/dts-v1/; / { };");
    let (status, text) = check(&[first.to_str().unwrap()]);
    if text.contains("sudo") {
        assert_eq!(status, Some(2), "{text}");
        assert!(text.contains("device-tree-compiler"), "{text}");
        return;
    }
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("error: /: no interrupt controller"), "{text}");
    for (domain, status, says) in [
        (DOMAIN.to_owned(), 0, "No mistake: 1 of 1 domain starts."),
        (
            DOMAIN.replace("cpus = <1>", "cpus = <9>"),
            1,
            "error: /chosen/domain@1: cpus: 9",
        ),
        (
            DOMAIN.replace("cpus = <1>;", "cpus = <1>"),
            2,
            "syntax error",
        ),
    ] {
        let tree = file("check-domain.dts", source(&domain).as_bytes());
        let (found, text) = check(&[tree.to_str().unwrap()]);
        assert_eq!(found, Some(status), "{text}");
        assert!(text.contains(says), "{text}");
    }
}
