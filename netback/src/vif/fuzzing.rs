// SPDX-License-Identifier: GPL-3.0-or-later
//! What the fuzz targets (`tests/fuzz`) reach of the packet path beyond what is public. Compiled for
//! them only, so the crate's interface stays as it is.

use std::ops::Range;

use super::cut::Cut;
use super::train::Writes;
use super::vnet::{VNET_HDR_LEN, VnetHdr};
use super::workbench;

/// Frames in one burst, at most.
pub const FRAMES_MAX: usize = workbench::BURST_FRAMES;
/// The longest frame, in bytes.
pub const FRAME_MAX: usize = workbench::FRAME_MAX;

/// What goes to the tap with one write.
#[derive(Debug, Clone)]
pub struct OnTap {
    /// The virtio header and the frame, in the buffers.
    pub place: Range<usize>,
    /// Frames of the guest's in it.
    pub frames: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// Joins frames that stand in the buffers one behind the other, each with room for a header before
/// it: [`FRAMES_MAX`] at most, and none of more than `longest` bytes.
pub fn join(buffers: &mut [u8], frames: &[(Range<usize>, VnetHdr)], longest: usize) -> Vec<OnTap> {
    let mut writes = Writes::new(longest);
    for (frame, header) in frames {
        writes.add(buffers, frame.clone(), *header);
    }
    let writes = writes.finish(buffers).iter();
    writes
        .map(|write| OnTap {
            place: write.on_tap.clone(),
            frames: write.frames,
            bytes: write.bytes,
        })
        .collect()
}

/// The segments of a frame, each behind its header; `None` if it is not cut.
pub fn cut(frame: &[u8], header: VnetHdr) -> Option<Vec<Vec<u8>>> {
    let mut cut = Cut::new(frame, header)?;
    let mut room = vec![0xee; VNET_HDR_LEN + frame.len()];
    let mut segments = Vec::with_capacity(cut.left());
    while let Some(len) = cut.next(&mut room) {
        segments.push(room.get(..len)?.to_vec());
    }
    assert_eq!((segments.len(), cut.left()), (segments.capacity(), 0));
    Some(segments)
}
