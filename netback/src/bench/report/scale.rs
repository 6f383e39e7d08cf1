// SPDX-License-Identifier: GPL-3.0-or-later
//! The table of many vifs: each figure beside its bar.

use std::io::{self, Write};

use serde::Serialize;

use crate::bench::scale::{AttachTime, Light, Outcome, Share, Size};

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
pub(in crate::bench) fn bars(size: Size, outcome: &Outcome) -> Vec<Bar> {
    let Size { vifs, busy, .. } = size;
    let (most, fewest) = extremes(outcome.shares.iter());
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
                outcome.attach_cpu.all().as_secs_f64()
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

/// What explains the figures, line by line.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(in crate::bench) fn notes(outcome: &Outcome) -> Vec<String> {
    let AttachTime {
        daemon,
        store,
        others,
    } = outcome.attach_cpu;
    let [daemon, store, others] = [daemon, store, others].map(|time| time.as_secs_f64());
    let mut notes = vec![format!(
        "processor time of attaching: daemon {daemon:.2} s, simulated store {store:.2} s, simulated toolstack and \
         guests {others:.2} s"
    )];
    for (worker, cpu) in outcome.worker_cpu.iter().enumerate() {
        let own = || outcome.shares.iter().filter(|share| share.worker == worker);
        let (most, fewest) = extremes(own());
        let frames: u64 = own().map(|share| share.frames).sum();
        notes.push(format!(
            "worker {worker}: {} busy vifs, most / fewest {:.2}; it ran for {:.2} s, {:.0} ns for a frame",
            own().count(),
            most as f64 / fewest as f64,
            cpu.as_secs_f64(),
            cpu.as_nanos() as f64 / frames as f64
        ));
    }
    let Light {
        beside,
        median,
        most,
    } = outcome.light;
    notes.push(format!(
        "one more vif sends a frame now and then: until it is answered, {beside} busy ones of its worker get {median} frames \
         through (median; nine of ten: at most {most})"
    ));
    notes
}

/// The most frames that one got through, and the fewest.
fn extremes<'s>(shares: impl Iterator<Item = &'s Share> + Clone) -> (u64, u64) {
    let frames = shares.map(|share| share.frames);
    let most = frames.clone().max().unwrap_or_default();
    (most, frames.min().unwrap_or_default())
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

/// The table, and what explains it.
pub(in crate::bench) fn table(
    out: &mut impl Write,
    bars: &[Bar],
    notes: &[String],
) -> io::Result<()> {
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
    writeln!(out)?;
    notes.iter().try_for_each(|note| writeln!(out, "{note}"))
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
        let shares = |frames: &[u64]| {
            let share = |(worker, frames)| Share { worker, frames };
            (0..).zip(frames.iter().copied()).map(share).collect()
        };
        let outcome = Outcome {
            attach: Duration::from_secs(1),
            attach_cpu: AttachTime {
                daemon: Duration::from_millis(500),
                store: Duration::from_millis(300),
                others: Duration::from_millis(200),
            },
            idle_cpu: Duration::from_millis(11),
            empty_bytes: 7_000_000,
            vif_bytes: 100_001,
            threads: (5, 5),
            shares: shares(&[120, 100]),
            worker_cpu: vec![Duration::from_micros(12), Duration::from_micros(20)],
            light: Light {
                beside: 1,
                median: 30,
                most: 90,
            },
        };
        let text = |outcome: &Outcome| {
            let mut text = Vec::new();
            table(&mut text, &bars(size, outcome), &notes(outcome)).unwrap();
            String::from_utf8(text).unwrap()
        };
        let missed = |outcome| text(&outcome).matches("missed").count();
        let shown = text(&outcome);
        for line in [
            "attaching 10 vifs (1.00 s of processor time, simulation included)",
            "daemon 0.50 s, simulated store 0.30 s, simulated toolstack and guests 0.20 s",
            "worker 0: 1 busy vifs, most / fewest 1.00; it ran for 0.00 s, 100 ns for a frame",
            "worker 1: 1 busy vifs, most / fewest 1.00; it ran for 0.00 s, 200 ns for a frame",
            "1 busy ones of its worker get 30 frames through (median; nine of ten: at most 90)",
        ] {
            assert!(shown.contains(line), "{shown}");
        }
        assert_eq!(missed(outcome.clone()), 2);
        let unfair = Outcome {
            threads: (5, 6),
            shares: shares(&[121, 100]),
            ..outcome.clone()
        };
        assert_eq!(missed(unfair), 4);
        let silent = Outcome {
            shares: shares(&[0, 0]),
            ..outcome
        };
        assert_eq!(missed(silent), 3);
    }
}
