// SPDX-License-Identifier: GPL-3.0-or-later
//! What the bench prints and writes: every figure with its unit and its bar.

pub(super) mod path;
pub(super) mod scale;

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::path::Series;
use path::PathFigure;
use scale::Bar;

/// All figures of a run, as JSON.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: String,
    /// When it ended.
    unix_time: u64,
    netback: &'static str,
    grant_copy: &'static str,
    path: Vec<PathFigure>,
    scale: Vec<Bar>,
    /// What explains those.
    scale_notes: Vec<String>,
}

impl Report {
    pub(super) fn of_path(machine: &str, path: &[Series]) -> Self {
        let path = path.iter().map(PathFigure::of).collect();
        Self {
            path,
            ..Self::new(machine)
        }
    }

    pub(super) fn of_scale(machine: &str, scale: Vec<Bar>, scale_notes: Vec<String>) -> Self {
        Self {
            scale,
            scale_notes,
            ..Self::new(machine)
        }
    }

    fn new(machine: &str) -> Self {
        Self {
            machine: machine.to_owned(),
            unix_time: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            netback: env!("CARGO_PKG_VERSION"),
            grant_copy: "simulated: a memcpy",
            path: vec![],
            scale: vec![],
            scale_notes: vec![],
        }
    }
}
