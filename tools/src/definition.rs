//! What of a device tree is about one domain.
//!
//! Baton takes a file of a page, so that it has read it soon; the tree that a machine boots with is larger. What would be passed over anyway is left out
//! here: then that tree, with a domain edited, is such a file.

use control_plane::devicetree::{Node, Tree};
use vm_fdt::{Error, FdtWriter};

const CELLS: [&str; 2] = ["#address-cells", "#size-cells"];
/// What coprocs and pools are found by.
const NAMES: [&str; 3] = ["reg", "phandle", "linux,phandle"];
/// What says which domain it is, and whether it counts.
const NUMBERS: [&str; 3] = ["compatible", "reg", "status"];

/// The tree in `blob` with no more than `name` (`dN`) needs; all of it if it isn't one.
pub fn pruned(blob: Vec<u8>, name: &str) -> Vec<u8> {
    let number = name.strip_prefix('d').and_then(|text| text.parse().ok());
    match (Tree::new(&blob), number) {
        (Ok(tree), Some(number)) => prune(&tree, number).unwrap_or(blob),
        _ => blob,
    }
}

fn prune(tree: &Tree<'_>, number: u64) -> Result<Vec<u8>, Error> {
    let mut out = FdtWriter::new()?;
    let root = out.begin_node("")?;
    some(&mut out, &tree.root(), &CELLS)?;
    if let Some(chosen) = tree.find("/chosen") {
        let open = out.begin_node("chosen")?;
        some(&mut out, &chosen, &CELLS)?;
        for node in chosen.children() {
            if matches!(node.name(), "coprocs" | "cpu-pools") {
                let open = out.begin_node(node.name())?;
                for node in node.children() {
                    bare(&mut out, &node, &NAMES)?;
                }
                out.end_node(open)?;
            } else if !node.is_compatible(&["xen,domain"]) {
                continue;
            } else if asked(&node).is_none_or(|asked| asked == number) {
                whole(&mut out, &node)?;
            } else {
                bare(&mut out, &node, &NUMBERS)?;
            }
        }
        out.end_node(open)?;
    }
    out.end_node(root)?;
    out.finish()
}

/// The number that a domain's node asks for.
fn asked(node: &Node<'_>) -> Option<u64> {
    match node.property("reg") {
        Some(reg) => reg.u64().ok(),
        None => u64::from_str_radix(node.unit_address()?, 16).ok(),
    }
}

fn some(out: &mut FdtWriter, node: &Node<'_>, names: &[&str]) -> Result<(), Error> {
    for property in node.properties() {
        if names.is_empty() || names.contains(&property.name()) {
            out.property(property.name(), property.value())?;
        }
    }
    Ok(())
}

fn bare(out: &mut FdtWriter, node: &Node<'_>, names: &[&str]) -> Result<(), Error> {
    let open = out.begin_node(node.name())?;
    some(out, node, names)?;
    out.end_node(open)
}

fn whole(out: &mut FdtWriter, node: &Node<'_>) -> Result<(), Error> {
    let open = out.begin_node(node.name())?;
    some(out, node, &[])?;
    for child in node.children() {
        whole(out, &child)?;
    }
    out.end_node(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(fdt: &mut FdtWriter, name: &str, body: impl FnOnce(&mut FdtWriter)) {
        let open = fdt.begin_node(name).unwrap();
        body(fdt);
        fdt.end_node(open).unwrap();
    }

    fn boot() -> Vec<u8> {
        let mut fdt = FdtWriter::new().unwrap();
        node(&mut fdt, "", |fdt| {
            fdt.property_u32("#size-cells", 1).unwrap();
            fdt.property_string("model", "machine").unwrap();
            node(fdt, "soc", |fdt| fdt.property("large", &[7; 9000]).unwrap());
            node(fdt, "chosen", |fdt| {
                fdt.property("rng-seed", &[1; 32]).unwrap();
                node(fdt, "coprocs", |fdt| {
                    fdt.property_string("compatible", "baton,coprocs").unwrap();
                    node(fdt, "coproc@0", |fdt| {
                        fdt.property_u32("reg", 0).unwrap();
                        fdt.property_u32("phandle", 5).unwrap();
                        fdt.property_string("driver", "qemu,edu").unwrap();
                    });
                });
                for name in ["domain@1", "domain@b", "domU0"] {
                    node(fdt, name, |fdt| {
                        fdt.property_string("compatible", "xen,domain").unwrap();
                        fdt.property_u32("cpus", 2).unwrap();
                        node(fdt, "module", |fdt| {
                            fdt.property_string("bootargs", "quiet").unwrap();
                        });
                    });
                }
            });
        });
        fdt.finish().unwrap()
    }

    #[test]
    fn what_is_about_the_domain_is_left() {
        let file = pruned(boot(), "d11");
        assert!(file.len() < 1000, "{}", file.len());
        let tree = Tree::new(&file).unwrap();
        let names = |node: &Node<'_>| -> Vec<String> {
            node.properties()
                .map(|property| property.name().to_owned())
                .collect()
        };
        let found = |path: &str| names(&tree.find(path).unwrap());
        assert_eq!(names(&tree.root()), ["#size-cells"]);
        assert!(tree.find("/soc").is_none());
        assert!(found("/chosen").is_empty());
        assert_eq!(found("/chosen/coprocs/coproc@0"), ["reg", "phandle"]);
        assert_eq!(found("/chosen/domain@1"), ["compatible"]);
        // Its number depends on the others'.
        for whole in ["/chosen/domain@b", "/chosen/domU0"] {
            assert_eq!(found(whole), ["compatible", "cpus"]);
            let module = tree.find(&format!("{whole}/module")).unwrap();
            let line = module.property("bootargs").unwrap();
            assert_eq!(line.string(), Ok("quiet"));
        }
        // The number without a unit is the whole tree's to give.
        assert_eq!(pruned(b"no tree".to_vec(), "d1"), b"no tree");
    }
}
