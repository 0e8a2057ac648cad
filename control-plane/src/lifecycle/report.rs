//! What is told about a crash: who, why, registers, the last exits; line by line, since a console's lines are bounded.

use super::Crash;
use super::exits::{Exit, KEPT};
use arrayvec::ArrayVec;
use coproc_core::id::DomainId;
use core::fmt;

/// General registers on a line.
const PER_LINE: usize = 4;
/// Lines of general registers: 31 of them.
const REGISTER_LINES: usize = 8;
/// Exits on a line.
const EXITS_PER_LINE: usize = 4;

/// EL1's registers that say what it was about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exception {
    /// SP_EL1.
    pub sp: u64,
    /// VBAR_EL1.
    pub vbar: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// ELR_EL1.
    pub elr: u64,
    /// FAR_EL1.
    pub far: u64,
    /// SPSR_EL1.
    pub spsr: u64,
    /// SCTLR_EL1.
    pub sctlr: u64,
    /// TTBR0_EL1 and TTBR1_EL1.
    pub ttbr: [u64; 2],
}

/// A crash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Whose.
    pub domain: DomainId,
    /// Why.
    pub reason: Crash,
    /// The vCPU on which it showed, or whose state is told.
    pub vcpu: usize,
    /// X0 to X30.
    pub x: [u64; 31],
    /// Where it was.
    pub pc: u64,
    /// Its processor state.
    pub pstate: u64,
    /// EL1's registers.
    pub el1: Exception,
    /// Its last exits, the newest first.
    pub exits: ArrayVec<Exit, KEPT>,
}

impl Report {
    /// Line `index`, from 0 on; `None` after the last.
    pub fn line(&self, index: usize) -> Option<Line<'_>> {
        let exits = self.exits.len().div_ceil(EXITS_PER_LINE);
        let last = REGISTER_LINES.saturating_add(exits).saturating_add(1);
        (index <= last).then_some(Line {
            report: self,
            index,
        })
    }
}

/// One line of a report.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    report: &'a Report,
    index: usize,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            domain,
            reason,
            vcpu,
            pc,
            pstate,
            el1,
            ..
        } = self.report;
        write!(f, "crash domain={domain} vcpu={vcpu}")?;
        match self.index {
            0 => write!(f, " reason={reason} pc={pc:#x} pstate={pstate:#x}"),
            1 => write!(
                f,
                " esr_el1={:#x} far_el1={:#x} elr_el1={:#x} spsr_el1={:#x} vbar_el1={:#x} sp_el1={:#x} sctlr_el1={:#x} \
                 ttbr0_el1={:#x} ttbr1_el1={:#x}",
                el1.esr,
                el1.far,
                el1.elr,
                el1.spsr,
                el1.vbar,
                el1.sp,
                el1.sctlr,
                el1.ttbr[0],
                el1.ttbr[1]
            ),
            index => {
                let index = index.saturating_sub(2);
                if index < REGISTER_LINES {
                    let first = index.saturating_mul(PER_LINE);
                    let registers = self.report.x.iter().enumerate();
                    for (number, value) in registers.skip(first).take(PER_LINE) {
                        write!(f, " x{number}={value:#x}")?;
                    }
                } else {
                    let first = index
                        .saturating_sub(REGISTER_LINES)
                        .saturating_mul(EXITS_PER_LINE);
                    let exits = self.report.exits.iter().enumerate();
                    for (number, exit) in exits.skip(first).take(EXITS_PER_LINE) {
                        write!(
                            f,
                            " exit{number}_esr={:#x} exit{number}_pc_low={:#x}",
                            exit.syndrome, exit.pc
                        )?;
                    }
                }
                Ok(())
            }
        }
    }
}
