// SPDX-License-Identifier: GPL-3.0-or-later
//! The host's side of the tap: frames put into it and read out of it.

use std::io;
use std::time::{Duration, Instant};

use hotplug::{Injector, Tap};

use super::BenchError;
use super::frames::Frame;
use super::path::PATIENCE;

/// Time between two probes of a tap that was just taken over.
const PROBE_PAUSE: Duration = Duration::from_millis(1);

/// Room for a frame of any size behind its header.
pub(super) fn room() -> Vec<u8> {
    vec![0; 70_000]
}

/// Waits until frames get into the tap's queue: the kernel opens it in its own time after the tap was taken over, and
/// drops what comes before that. Sends `probe`s until one `arrives`.
pub(super) fn until_open(
    source: &Injector,
    probe: &Frame,
    mut arrives: impl FnMut() -> Result<bool, BenchError>,
) -> Result<(), BenchError> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        source.send(probe.on_tap())?;
        let next = Instant::now() + PROBE_PAUSE;
        while Instant::now() < next {
            if arrives()? {
                return Ok(());
            }
        }
    }
    Err(BenchError::Stalled { after: PATIENCE })
}

/// Puts frames into the tap's queue.
pub(super) fn fill(source: &Injector, frame: &Frame, frames: u64) -> Result<(), BenchError> {
    for _ in 0..frames {
        source.send(frame.on_tap())?;
    }
    Ok(())
}

pub(super) fn read(tap: &Tap, room: &mut [u8]) -> Result<Option<usize>, BenchError> {
    match tap.read(room) {
        Ok(len) => Ok(Some(len)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}
