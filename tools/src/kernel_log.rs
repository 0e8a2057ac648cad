//! What the kernel complains about, found in its own log.
//!
//! A kernel that runs on faulty hardware mostly goes on and says so: a CPU that doesn't answer, a timer that is late, a
//! lock that is held too long. So "it ran" is shown by a log without such a line.

/// How the kernel's reports of its own trouble begin or what they hold (Linux: `lib/bug.c`, `kernel/panic.c`, `kernel/watchdog.c`,
/// `kernel/hung_task.c`, `kernel/rcu/tree_stall.h`, `arch/arm64/kernel/traps.c`, `kernel/time/clocksource.c`, `kernel/irq/spurious.c`,
/// `kernel/workqueue.c`).
const COMPLAINTS: [&str; 19] = [
    "WARNING:",
    "BUG:",
    "BUG at",
    "Oops",
    "Internal error",
    "Unable to handle kernel",
    "Kernel panic",
    "Call trace:",
    "soft lockup",
    "hard LOCKUP",
    "blocked for more than",
    "detected stall",
    "detected stalls",
    "kthread starved",
    "expedited stalls",
    "as unstable because",
    "nobody cared",
    "workqueue lockup",
    "failed to come online",
];

/// What is more urgent than an error: emergency, alert, critical (`include/linux/kern_levels.h`).
const CRITICAL: u32 = 2;

/// The text of a record of `/dev/kmsg` (Linux, Documentation/ABI/testing/dev-kmsg) if it is a complaint.
pub fn complaint(record: &str) -> Option<&str> {
    let (prefix, text) = record.split_once(';')?;
    let text = text.lines().next().unwrap_or_default();
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    // The upper bits are the facility; what programs write there (facility 1 and above) isn't the kernel's.
    let (facility, level) = (priority >> 3, priority & 7);
    let known = || COMPLAINTS.iter().any(|complaint| text.contains(complaint));
    (facility == 0 && (level <= CRITICAL || known())).then_some(text)
}

/// Whether a record of `/dev/kmsg` says that the kernel moved itself, by `kaslr-seed` (`arch/arm64/kernel/kaslr.c`).
pub fn is_moved(record: &str) -> bool {
    record
        .split_once(';')
        .is_some_and(|(_, text)| text.starts_with("KASLR enabled"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_moved_itself_says_so() {
        assert!(is_moved("6,41,21000,-;KASLR enabled\n"));
        assert!(!is_moved(
            "6,41,21000,-;KASLR disabled due to lack of seed\n"
        ));
    }

    #[test]
    fn complaints_are_told_from_other_lines() {
        for (record, expected) in [
            (
                "3,400,21000000,-;rcu: INFO: rcu_preempt self-detected stall on CPU\n",
                true,
            ),
            (
                "3,1,5,-;rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:\n",
                true,
            ),
            (
                "0,1,5,-;watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [swapper:0]\n",
                true,
            ),
            (
                "4,9,7,-;WARNING: CPU: 0 PID: 1 at kernel/x.c:5 f+0x1/0x2\n SUBSYSTEM=x\n",
                true,
            ),
            (
                "3,9,7,-;INFO: task init:1 blocked for more than 120 seconds.\n",
                true,
            ),
            ("2,9,7,-;something critical\n", true),
            ("3,9,7,-;CPU1: failed to come online\n", true),
            ("6,9,7,-;smp: Brought up 1 node, 4 CPUs\n", false),
            ("4,9,7,-;psci: CPU1 killed (polled 0 ms)\n", false),
            ("12,9,7,-;WARNING: said by a program\n", false),
            ("nothing", false),
            ("x,1,2,-;BUG: no number\n", false),
        ] {
            assert_eq!(complaint(record).is_some(), expected, "{record}");
        }
        let found = complaint("4,9,7,-;WARNING: CPU: 0\n SUBSYSTEM=x\n");
        assert_eq!(found, Some("WARNING: CPU: 0"));
    }
}
