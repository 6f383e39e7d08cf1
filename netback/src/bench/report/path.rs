// SPDX-License-Identifier: GPL-3.0-or-later
//! The table of the packet path.

use std::io::{self, Write};

use serde::Serialize;

use crate::bench::cost::Cost;
use crate::bench::path::{Series, Way};

/// The share of the bare loop's speed that the backend is to reach.
const PATH_BAR: f64 = 0.85;

/// One way and one size.
#[derive(Debug, Serialize)]
pub(super) struct PathFigure {
    way: &'static str,
    frame: &'static str,
    frame_bytes: usize,
    rounds: usize,
    bare_ns: f64,
    backend_ns: f64,
    /// How fast the backend is beside the bare loop: the median of the rounds' own ratios.
    ratio: f64,
    bar: f64,
    bare_cpu_ns: f64,
    backend_cpu_ns: f64,
    cpu_ratio: f64,
}

impl PathFigure {
    pub(super) fn of(series: &Series) -> Self {
        let median_of = |figure: &dyn Fn(&(Cost, Cost)) -> f64| {
            median(series.rounds.iter().map(figure).collect())
        };
        Self {
            way: match series.way {
                Way::FromGuest => "guest -> tap",
                Way::ToGuest => "tap -> guest",
            },
            frame: series.shape.name(),
            frame_bytes: series.shape.len(),
            rounds: series.rounds.len(),
            bare_ns: median_of(&|(bare, _)| bare.wall),
            backend_ns: median_of(&|(_, backend)| backend.wall),
            ratio: median_of(&|(bare, backend)| bare.wall / backend.wall),
            bar: PATH_BAR,
            bare_cpu_ns: median_of(&|(bare, _)| bare.cpu),
            backend_cpu_ns: median_of(&|(_, backend)| backend.cpu),
            cpu_ratio: median_of(&|(bare, backend)| bare.cpu / backend.cpu),
        }
    }
}

/// What stands above the rows of the packet path.
pub(in crate::bench) fn head(out: &mut impl Write, machine: &str, rounds: usize) -> io::Result<()> {
    let rounds = match rounds {
        1 => "One round".to_owned(),
        rounds => format!("Medians of {rounds} rounds"),
    };
    writeln!(
        out,
        "netback bench: the packet path against its own tap, with one queue and one worker.\n\
         {machine}. {rounds}, bare loop and backend in turn.\n\
         The hypervisor is simulated: its grant copy is a memcpy, and the guest polls its rings.\n\n\
         {:<14}{:<11}{:>12}{:>12}{:>8}{:>8}{:>14}{:>14}{:>8}",
        "WAY", "FRAME", "BARE LOOP", "NETBACK", "RATIO", "BAR", "BARE CPU", "NETBACK CPU", "RATIO"
    )
}

/// One row.
pub(in crate::bench) fn row(out: &mut impl Write, series: &Series) -> io::Result<()> {
    let figure = PathFigure::of(series);
    let verdict = if figure.ratio >= figure.bar {
        ""
    } else {
        "  missed"
    };
    writeln!(
        out,
        "{:<14}{:<11}{:>9.0} ns{:>9.0} ns{:>8.2}{:>8.2}{:>11.0} ns{:>11.0} ns{:>8.2}{verdict}",
        figure.way,
        figure.frame,
        figure.bare_ns,
        figure.backend_ns,
        figure.ratio,
        figure.bar,
        figure.bare_cpu_ns,
        figure.backend_cpu_ns,
        figure.cpu_ratio,
    )?;
    out.flush()
}

/// What stands below.
pub(in crate::bench) fn foot(out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "\nTimes are for one frame. RATIO is the backend's speed beside the bare loop's: on the clock, and by processor\n\
         time of the one thread that writes or reads the tap. Frames of 64 and 1514 bytes are UDP datagrams of one flow: from\n\
         the guest they go to the tap many at a time, where the kernel takes them so (Linux 6.6 and newer)."
    )
}

/// The middle value, or the lower one of two; 0 without values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::frames::Shape;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.0);
        assert_eq!(median(vec![]), 0.0);
    }

    #[test]
    fn a_ratio_is_of_speeds() {
        let cost = |ns: f64| Cost {
            wall: ns,
            cpu: 2.0 * ns,
        };
        let series = Series {
            way: Way::FromGuest,
            shape: Shape::Small,
            rounds: vec![(cost(400.0), cost(500.0)), (cost(400.0), cost(800.0))],
        };
        let figure = PathFigure::of(&series);
        assert_eq!((figure.bare_ns, figure.backend_ns), (400.0, 500.0));
        assert_eq!((figure.ratio, figure.cpu_ratio), (0.5, 0.5));
        let row_of = |series: &Series| {
            let mut text = Vec::new();
            row(&mut text, series).unwrap();
            String::from_utf8(text).unwrap()
        };
        let text = row_of(&series);
        assert!(text.contains("0.50    0.85"), "{text}");
        assert!(text.ends_with("  missed\n"), "{text}");
        let even = Series {
            rounds: vec![(cost(400.0), cost(400.0))],
            ..series
        };
        assert!(!row_of(&even).contains("missed"));
    }
}
