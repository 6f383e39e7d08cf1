// SPDX-License-Identifier: GPL-3.0-or-later
//! The table of many vifs: each figure beside its bar.

use std::io::{self, Write};

use serde::Serialize;

use crate::bench::scale::{Outcome, Size};

/// A figure and what it should be at most.
#[derive(Debug, Clone, Serialize)]
pub(in crate::bench) struct Bar {
    what: String,
    unit: &'static str,
    value: f64,
    bar: f64,
}

/// What top(1) rounds to 0.0 %: a tick of the kernel's clock.
const NOTHING_MS: f64 = 10.0;

/// The figures beside their bars.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(in crate::bench) fn bars(size: Size, outcome: Outcome) -> Vec<Bar> {
    let Size { vifs, busy, .. } = size;
    let (most, fewest) = outcome.shares;
    let idle = size.idle.as_secs();
    let bar = |what, unit, value, bar| Bar {
        what,
        unit,
        value,
        bar,
    };
    vec![
        bar(
            format!(
                "attaching {vifs} vifs ({:.2} s of processor time, simulation included)",
                outcome.attach_cpu.as_secs_f64()
            ),
            "s",
            outcome.attach.as_secs_f64(),
            5.0,
        ),
        bar(
            format!("processor time while idle for {idle} s"),
            "ms",
            outcome.idle_cpu.as_secs_f64() * 1e3,
            NOTHING_MS,
        ),
        bar(
            "resident memory without vifs".to_owned(),
            "kB",
            outcome.empty_bytes as f64 / 1e3,
            8_000.0,
        ),
        bar(
            "resident memory for each idle vif".to_owned(),
            "kB",
            outcome.vif_bytes as f64 / 1e3,
            100.0,
        ),
        bar(
            "threads more with all vifs".to_owned(),
            "",
            outcome.threads.1 as f64 - outcome.threads.0 as f64,
            0.0,
        ),
        bar(
            format!("most frames / fewest, of {busy} busy vifs ({fewest} to {most})"),
            "",
            most as f64 / fewest as f64,
            1.2,
        ),
    ]
}

/// What stands above the table.
pub(in crate::bench) fn head(out: &mut impl Write, machine: &str) -> io::Result<()> {
    writeln!(
        out,
        "netback bench scale: many vifs on one daemon, in one process with the simulated store, hypervisor and guests.\n\
         {machine}.\n"
    )?;
    out.flush()
}

/// The table.
pub(in crate::bench) fn table(out: &mut impl Write, bars: &[Bar]) -> io::Result<()> {
    writeln!(out, "{:<72}{:>12}{:>15}", "", "", "BAR")?;
    for Bar {
        what,
        unit,
        value,
        bar,
    } in bars
    {
        // A NaN (nothing was sent) misses.
        let verdict = if value <= bar { "" } else { "  missed" };
        writeln!(
            out,
            "{what:<72}{value:>9.2} {unit:<2}{:>12} {unit:<2}{verdict}",
            format!("<= {bar}")
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_misses_its_bar_says_so() {
        let size = Size {
            vifs: 10,
            busy: 2,
            idle: Duration::from_secs(10),
            sending: Duration::from_secs(1),
        };
        let outcome = Outcome {
            attach: Duration::from_secs(1),
            attach_cpu: Duration::from_secs(1),
            idle_cpu: Duration::from_millis(11),
            empty_bytes: 7_000_000,
            vif_bytes: 100_001,
            threads: (5, 5),
            shares: (120, 100),
        };
        let missed = |outcome| {
            let mut text = Vec::new();
            table(&mut text, &bars(size, outcome)).unwrap();
            String::from_utf8(text).unwrap().matches("missed").count()
        };
        assert_eq!(missed(outcome), 2);
        let unfair = Outcome {
            threads: (5, 6),
            shares: (121, 100),
            ..outcome
        };
        assert_eq!(missed(unfair), 4);
        let silent = Outcome {
            shares: (0, 0),
            ..outcome
        };
        assert_eq!(missed(silent), 3);
    }
}
