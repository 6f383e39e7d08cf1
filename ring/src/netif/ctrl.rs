// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control ring: 16-byte requests in, 12-byte responses out (netif.h, "Control requests",
//! "Control responses" and "Static Grants").
//!
//! Only the layout is here. What a message means, and whether its numbers make sense, is the
//! backend's to say: every bit pattern is a request.

use super::{halves, word};
use crate::back::RingKind;
use crate::ids::GrantRef;
use crate::layout::{CTRL_SLOT_BYTES, CTRL_SLOTS};
use crate::page::Page;

/// The ring by which the guest configures its backend.
#[derive(Clone, Copy, Debug)]
pub enum CtrlRing {}

impl RingKind for CtrlRing {
    type Request = CtrlRequest;
    type Response = CtrlResponse;
    const SLOTS: u32 = CTRL_SLOTS;
    const SLOT_BYTES: usize = CTRL_SLOT_BYTES;

    #[inline]
    fn read_request<P: Page>(page: &P, offset: usize) -> CtrlRequest {
        CtrlRequest::from_words(page.read_words(offset))
    }

    #[inline]
    fn write_response<P: Page>(page: &P, offset: usize, response: CtrlResponse) {
        page.write_words(offset, response.to_words());
    }
}

/// What the guest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtrlRequest {
    /// The guest's name for the request, echoed in the response.
    pub id: u16,
    /// Which message (`XEN_NETIF_CTRL_TYPE_*`).
    pub kind: u16,
    /// Its parameters, by type.
    pub data: [u32; 3],
}

impl CtrlRequest {
    /// The request in these words, as they lie in the ring.
    #[must_use]
    pub const fn from_words([first, a, b, c]: [u32; 4]) -> Self {
        let (id, kind) = halves(first);
        Self {
            id,
            kind,
            data: [a, b, c],
        }
    }
}

/// The answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtrlResponse {
    /// The request's id.
    pub id: u16,
    /// The request's type.
    pub kind: u16,
    /// How it ended.
    pub status: CtrlStatus,
    /// A result, by type; 0 where the type has none or the request failed.
    pub data: u32,
}

impl CtrlResponse {
    /// The response as it lies in the ring: all of its 12 bytes are defined (XSA-216).
    #[must_use]
    pub const fn to_words(self) -> [u32; 3] {
        // Lossless: the discriminants are 0 to 3.
        [word(self.id, self.kind), self.status as u32, self.data]
    }
}

/// How a control request ended (`XEN_NETIF_CTRL_STATUS_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CtrlStatus {
    /// Done.
    Success = 0,
    /// This backend does not do that, or not in the state that it is in.
    NotSupported = 1,
    /// A parameter makes no sense.
    InvalidParameter = 2,
    /// More than this backend can hold.
    BufferOverflow = 3,
}

/// One entry of the list that goes with a static grant message (`struct xen_netif_gref`), as the
/// guest wrote it: 8 bytes, {reference u32, flags u16, status u16 (ours to write)}.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrefEntry {
    /// The page.
    pub gref: GrantRef,
    /// Bit 0: the backend may only read it. The others are reserved.
    pub flags: u16,
}

impl GrefEntry {
    /// Bytes of an entry.
    pub const BYTES: usize = 8;
    /// The flag of a page that the backend may only read.
    pub const READ_ONLY: u16 = 1;

    /// Reads an entry from a private copy of its bytes. What the guest left in the status is of no
    /// account.
    #[must_use]
    pub const fn from_bytes([r0, r1, r2, r3, f0, f1, ..]: [u8; Self::BYTES]) -> Self {
        Self {
            gref: GrantRef::new(u32::from_le_bytes([r0, r1, r2, r3])),
            flags: u16::from_le_bytes([f0, f1]),
        }
    }

    /// The entry's bytes with our answer in them.
    #[must_use]
    pub const fn to_bytes(self, status: CtrlStatus) -> [u8; Self::BYTES] {
        let [r0, r1, r2, r3] = self.gref.raw().to_le_bytes();
        let [f0, f1] = self.flags.to_le_bytes();
        let [s0, s1] = (status as u16).to_le_bytes();
        [r0, r1, r2, r3, f0, f1, s0, s1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_request() {
        let words = [0x000a_1234, 0x0102_0304, 0xffff_ffff, 0x8000_0000];
        let request = CtrlRequest {
            id: 0x1234,
            kind: 10,
            data: [0x0102_0304, u32::MAX, 1 << 31],
        };
        assert_eq!(CtrlRequest::from_words(words), request);
    }

    #[test]
    fn golden_responses() {
        for (status, number) in [
            (CtrlStatus::Success, 0),
            (CtrlStatus::NotSupported, 1),
            (CtrlStatus::InvalidParameter, 2),
            (CtrlStatus::BufferOverflow, 3),
        ] {
            let response = CtrlResponse {
                id: 0x1234,
                kind: 7,
                status,
                data: 0xdead_beef,
            };
            assert_eq!(response.to_words(), [0x0007_1234, number, 0xdead_beef]);
        }
    }

    /// What the independent front end writes is what is read here, and the other way round.
    #[test]
    fn both_ends_agree() {
        use crate::front::{FrontCtrl, FrontCtrlRequest, FrontCtrlResponse, FrontRing};
        use crate::{BackRing, SharedPage};
        let page = SharedPage::anonymous().unwrap();
        let mut front = FrontRing::<FrontCtrl>::init(page.clone());
        let mut back = BackRing::<CtrlRing>::attach(page).unwrap();
        // Twice around the ring of 128 slots.
        for id in 0..300_u16 {
            let data = [u32::from(id), 7, u32::MAX];
            let (kind, status) = (id % 11, CtrlStatus::BufferOverflow);
            front.push(FrontCtrlRequest { id, kind, data }).unwrap();
            assert!(front.publish());
            back.unconsumed().unwrap();
            assert_eq!(back.take(), Some(CtrlRequest { id, kind, data }));
            let data = 0xffff_0000 | u32::from(id);
            let response = CtrlResponse {
                id,
                kind,
                status,
                data,
            };
            back.respond(response).unwrap();
            assert!(back.publish().is_needed());
            let expected = FrontCtrlResponse {
                id,
                kind,
                status: 3,
                data,
            };
            assert_eq!(front.take().unwrap().unwrap().1, expected);
            assert!(!front.arm().unwrap() && !back.arm().unwrap());
        }
    }

    #[test]
    fn golden_gref_entry() {
        let bytes = [0x08, 0x02, 0, 0, 1, 0, 0xff, 0xff];
        let entry = GrefEntry {
            gref: GrantRef::new(0x208),
            flags: GrefEntry::READ_ONLY,
        };
        assert_eq!(GrefEntry::from_bytes(bytes), entry);
        let answered = [0x08, 0x02, 0, 0, 1, 0, 2, 0];
        assert_eq!(entry.to_bytes(CtrlStatus::InvalidParameter), answered);
    }
}
