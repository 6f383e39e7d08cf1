// SPDX-License-Identifier: GPL-3.0-or-later
//! What the demo prints: a few lines that a stranger understands, every figure with its unit.

use std::fmt;
use std::time::Duration;

use super::probe::{Pings, Transfer};

/// The figures of one demo.
#[derive(Debug, Clone)]
pub struct Report {
    /// From the toolstack's request to the first frame that could flow.
    pub connected_after: Duration,
    /// Small pings, and pings of a whole frame.
    pub pings: [(usize, Pings); 2],
    /// TCP to the guest.
    pub to_guest: Transfer,
    /// TCP from the guest.
    pub from_guest: Transfer,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  connected after  {}", Millis(self.connected_after))?;
        for (bytes, pings) in &self.pings {
            writeln!(
                f,
                "  ping {bytes:>4} bytes  {} of {} answered, round trip {} / {} / {} (min / mean / max)",
                pings.answered,
                pings.sent,
                Millis(pings.min),
                Millis(pings.mean),
                Millis(pings.max),
            )?;
        }
        for (label, transfer) in [
            ("TCP to guest", &self.to_guest),
            ("TCP from guest", &self.from_guest),
        ] {
            writeln!(
                f,
                "  {label:<15}  {:.0} Mbit/s ({} MB in {:.2} s, every byte compared)",
                transfer.megabits(),
                transfer.bytes / 1_000_000,
                transfer.took.as_secs_f64(),
            )?;
        }
        Ok(())
    }
}

/// A duration in milliseconds with three significant decimals.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ms", self.0.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_unit() {
        let pings = Pings {
            sent: 100,
            answered: 99,
            min: Duration::from_micros(31),
            mean: Duration::from_micros(62),
            max: Duration::from_micros(1_234),
        };
        let report = Report {
            connected_after: Duration::from_millis(12),
            pings: [(56, pings), (1472, pings)],
            to_guest: Transfer {
                bytes: 100_000_000,
                took: Duration::from_millis(800),
            },
            from_guest: Transfer {
                bytes: 50_000_000,
                took: Duration::from_secs(1),
            },
        };
        assert_eq!(
            report.to_string(),
            "  connected after  12.000 ms\n  \
             ping   56 bytes  99 of 100 answered, round trip 0.031 ms / 0.062 ms / 1.234 ms (min / mean / max)\n  \
             ping 1472 bytes  99 of 100 answered, round trip 0.031 ms / 0.062 ms / 1.234 ms (min / mean / max)\n  \
             TCP to guest     1000 Mbit/s (100 MB in 0.80 s, every byte compared)\n  \
             TCP from guest   400 Mbit/s (50 MB in 1.00 s, every byte compared)\n"
        );
    }
}
