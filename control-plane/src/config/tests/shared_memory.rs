//! Memory that domains share: good ones, and every mistake.

use super::domains::{configured, domain, read, text};
use super::*;
use crate::config::SharedMemory;
use alloc::string::String;
use coproc_core::id::DomainId;

/// Three domains, phandles 0x201 to 0x203, the last one with a mistake; and these regions.
fn with(regions: impl FnOnce(&mut FdtWriter)) -> Configuration {
    read(&configured(|fdt| {
        for number in [1, 2, 3] {
            let name = alloc::format!("domain@{number}");
            domain(fdt, &name, number == 3, |fdt| {
                cells(fdt, "phandle", &[0x200 + number]);
            });
        }
        regions(fdt);
    }))
}

fn shared(fdt: &mut FdtWriter, size: &[u32], domains: &[u32]) {
    text(fdt, "compatible", "baton,shared-memory");
    cells(fdt, "size", size);
    cells(fdt, "domains", domains);
}

/// The mistakes that are about shared memory.
fn mistakes(body: impl FnOnce(&mut FdtWriter)) -> Vec<String> {
    let configuration = with(|fdt| node(fdt, "shared-memory@0", body));
    assert_eq!(configuration.shared, []);
    let all: Vec<String> = configuration.errors().map(ToString::to_string).collect();
    let own: Vec<String> = configuration
        .shared_errors
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(all.ends_with(&own), "they are told with the others");
    own
}

#[test]
fn regions_read_as_they_were_written() {
    let configuration = with(|fdt| {
        node(fdt, "shared-memory@0", |fdt| {
            shared(fdt, &[0, 0x10_0000], &[0x202, 0x201])
        });
        node(fdt, "shared-memory@1", |fdt| {
            shared(fdt, &[0, 0x4000_0000], &[0x201, 0x202])
        });
        node(fdt, "shared-memory@2", |fdt| {
            shared(fdt, &[0, 0], &[]);
            text(fdt, "status", "disabled");
        });
    });
    assert_eq!(configuration.shared_errors, []);
    let expected = |number: u32, size, domains: [u16; 2]| SharedMemory {
        path: alloc::format!("/chosen/shared-memory@{number}"),
        size,
        domains: domains.map(DomainId).to_vec(),
    };
    assert_eq!(
        configuration.shared,
        [expected(0, 1 << 20, [2, 1]), expected(1, 1 << 30, [1, 2])]
    );
}

#[test]
fn every_mistake_is_named() {
    let cases: [(&[u32], &[u32], &str); 8] = [
        (
            &[0, 0x1800],
            &[0x201, 0x202],
            "size: 0x1800; expected bytes as a 64-bit number: a power of two, 4 KiB to 1 GiB",
        ),
        (&[0, 0x800], &[0x201, 0x202], "size: 0x800; expected"),
        (&[1, 0], &[0x201, 0x202], "size: 0x100000000; expected"),
        (&[0x1000], &[0x201, 0x202], "size: 4 bytes; expected"),
        (
            &[0, 0x1000],
            &[0x201],
            "domains: 1 domains; expected phandles of at least two domains",
        ),
        (
            &[0, 0x1000],
            &[0x201, 0x20],
            "domains: /dma-controller@e6700000, which is no domain",
        ),
        (
            &[0, 0x1000],
            &[0x201, 0x203],
            "domains: /chosen/domain@3, which has a mistake",
        ),
        (
            &[0, 0x1000],
            &[0x201, 0x201],
            "domains: /chosen/domain@1 twice",
        ),
    ];
    for (size, domains, expected) in cases {
        let found = mistakes(|fdt| shared(fdt, size, domains));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(expected), "{found:?}: {expected}");
        assert!(found[0].contains("/chosen/shared-memory@0"), "{found:?}");
    }
    let found = mistakes(|fdt| {
        shared(fdt, &[0, 0x1000], &[0x201, 0x209]);
        text(fdt, "sizes", "");
    });
    assert_eq!(found.len(), 2, "all at once: {found:?}");
    let found = mistakes(|fdt| text(fdt, "compatible", "baton,shared-memory"));
    assert_eq!(found.len(), 2, "both are needed: {found:?}");
    let _ = vec![0];
}
