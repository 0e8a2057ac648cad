//! `docs/requirements.md` names tests; each of them must exist, and each fault and new feature must have one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type().unwrap().is_dir() {
            if name != "target" && !name.starts_with('.') {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

fn is_name(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !text.is_empty() && text.chars().all(word)
}

/// What stands in backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Names of tests in a cell: paths such as `qemu::live::…`, and names that follow one and belong to the same file.
fn tests(cell: &str) -> Vec<&str> {
    quoted(cell)
        .filter(|text| text.split("::").all(|part| is_name(part) || part == "*"))
        .filter(|text| text.contains("::") || text.matches('_').count() >= 2)
        .filter_map(|text| text.rsplit("::").next())
        .collect()
}

#[test]
fn every_test_that_is_named_exists_and_no_fault_goes_without() {
    let mut text = String::new();
    sources(&root(), &mut text);
    let functions: BTreeSet<&str> = text
        .split("fn ")
        .skip(1)
        .filter_map(|rest| rest.split('(').next())
        .filter(|name| is_name(name))
        .collect();
    let modules: BTreeSet<&str> = text
        .split("mod ")
        .skip(1)
        .filter_map(|rest| rest.split([';', ' ']).next())
        .collect();

    let requirements = fs::read_to_string(root().join("docs/requirements.md")).unwrap();
    let mut seen = 0;
    let mut proven = BTreeSet::new();
    for line in requirements.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, id, _, _, test, ..] = cells.as_slice() else {
            continue;
        };
        for name in tests(test) {
            // Some are made by a macro from their names.
            let made = || text.contains(&format!("    {name}: "));
            let known = name == "*" || functions.contains(name) || modules.contains(name);
            let known = known || made();
            assert!(known, "{id}: there is no test {name}");
            seen += 1;
            proven.insert(*id);
        }
    }
    assert!(
        seen > 150,
        "only {seen} names found: not how the page is written"
    );
    // The ancestor's faults, and the new features that aren't another row's.
    for fault in (1..=14).filter(|fault| *fault != 6) {
        assert!(proven.contains(fault.to_string().as_str()), "fault {fault}");
    }
    for feature in [1, 2, 4, 6, 7, 8, 9, 10] {
        assert!(
            proven.contains(format!("N{feature}").as_str()),
            "N{feature}"
        );
    }
}
