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
