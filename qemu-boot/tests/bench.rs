//! The bench, which is worth something only if its numbers are the same every time.

use qemu_boot::{Artifacts, bench};

/// Measured twice, every row is the same to the last digit, and the rows that need no hypervisor are what they must be.
#[test]
fn bench_is_deterministic() {
    let artifacts = Artifacts::get().unwrap();
    let peer = bench::peer(artifacts.workspace());
    let first = bench::measure(artifacts, "test-bench", peer.as_ref()).unwrap();
    let second = bench::measure(artifacts, "test-bench", peer.as_ref()).unwrap();
    assert_eq!(first, second);

    let cost = |row: &str| first[row].baton;
    // A decrement and a branch; a load besides, which is no exit.
    assert_eq!(cost("loop"), 2.0);
    assert_eq!(cost("coproc_direct_read"), 3.0);
    // An exit saves and restores 31 registers in pairs at least.
    for row in [
        "hvc",
        "gicd_read",
        "uart_read",
        "sgi_none",
        "coproc_emulated_read",
    ] {
        assert!(cost(row) > 40.0, "{row} costs {}", cost(row));
    }
    // Nothing is special-cased for the bench: neighbours cost the same, but for what they have to do.
    for (row, neighbour) in [
        ("hvc", "hvc_features"),
        ("gicd_read", "gicd_isenabler_read"),
        ("uart_read", "uart_ris_read"),
    ] {
        let ratio = cost(neighbour) / cost(row);
        assert!(
            (0.8..=1.2).contains(&ratio),
            "{neighbour} to {row}: {ratio}"
        );
    }
    // The exits' targets stay reached.
    for row in ["hvc", "gicd_read", "uart_read", "sgi_none"] {
        let known = bench::KNOWN.iter().find(|known| known.name == row).unwrap();
        let limit = known.limit.unwrap();
        assert!(cost(row) <= limit as f64, "{row} costs {}", cost(row));
    }
    // Xen runs all of these, and they cost what was measured there by other means.
    if let Some(peer) = &peer {
        for row in [
            "hvc",
            "gicd_read",
            "uart_read",
            "sgi_none",
            "sgi_other_cpu",
            "switch_pingpong",
            "timer_irq",
            "spi_irq",
            "eoi",
            "boot",
            "image_bytes",
            "ram_bytes",
        ] {
            assert!(first[row].xen.is_some_and(|cost| cost > 0.0), "{row}");
        }
        if peer.version.contains("_4.17.") {
            for (row, known) in [("hvc", 474.0), ("gicd_read", 613.0), ("sgi_none", 527.0)] {
                let ratio = first[row].xen.unwrap() / known;
                assert!((0.95..=1.05).contains(&ratio), "{row} on Xen: {ratio}");
            }
        }
    }
    // A switch between vCPUs is more than waking a CPU that sleeps.
    assert!(cost("switch_pingpong") > cost("sgi_other_cpu"));
    for (whole, part) in [
        ("coproc_irq_round_trip", "coproc_irq_delivery"),
        ("timer_irq_round_trip", "timer_irq"),
        ("sgi_self_round_trip", "sgi_self"),
        ("coproc_switch_framework_dma", "coproc_switch_framework"),
        (
            "coproc_switch_framework",
            "coproc_switch_framework_untouched",
        ),
    ] {
        assert!(cost(whole) > cost(part), "{whole} and {part}");
    }
}
