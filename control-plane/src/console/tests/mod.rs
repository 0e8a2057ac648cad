//! The console as its two users see it: a person or a program on the UART, and the domains.

mod answers;
mod commands;
mod lines;
mod sessions;
mod system;

use super::coprocs::*;
use super::domains::*;
use super::input::{ESCAPE, Focus, Routed, Router};
use super::management::*;
use super::multiplexer::*;
use super::shell::{Command, Editor, HELP, LINE_LENGTH, parse};
use super::*;
use crate::lifecycle::{Crash, Operation, Refusal, State};
use crate::trace::Rings;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use coproc_core::algorithm::Parameters;
use coproc_core::coproc::{Reason, Settings, Spread, Stage};
use coproc_core::driver::WorstCase;
use coproc_core::id::{CoprocId, Epoch, VcoprocId};
use coproc_core::ring::Ring;
use coproc_core::time::Duration;
use coproc_core::trace::{TraceEvent, TraceKind};
use proptest::prelude::*;

use system::System;

const D1: DomainId = DomainId(1);
const D2: DomainId = DomainId(2);
const T0: Instant = Instant::from_nanos(0);

fn at(milliseconds: u64) -> Instant {
    Instant::from_nanos(milliseconds * 1_000_000)
}

fn console() -> Console {
    let mut console = Console::new();
    console.add_domain(D1);
    console.add_domain(D2);
    console.start(T0);
    console
}

fn screen(console: &mut Console) -> String {
    let bytes: Vec<u8> = core::iter::from_fn(|| console.next_byte()).collect();
    String::from_utf8(bytes).unwrap()
}

/// Types a line and returns the answer's lines, without prompt and echo.
fn ask(console: &mut Console, system: &mut System, line: &str, now: Instant) -> Vec<String> {
    for byte in line.bytes().chain([b'\r']) {
        assert_eq!(console.input(byte, now), Event::None);
    }
    let mut text = String::new();
    loop {
        let more = console.poll(system, now);
        text += &screen(console);
        if !more {
            break;
        }
    }
    // The first row is the prompt's, with the echo; the last is the next prompt or nothing.
    let mut rows = text.split("\r\n").skip(1).collect::<Vec<_>>();
    let last = rows.pop().unwrap();
    assert!(last.is_empty() || last == "[baton] > ", "{last}");
    let lines = rows
        .iter()
        .map(|row| row.strip_prefix("[baton] ").unwrap().to_string());
    lines.collect()
}
