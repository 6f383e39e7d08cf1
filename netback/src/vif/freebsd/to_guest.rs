// SPDX-License-Identifier: GPL-3.0-or-later
//! From a frame at the tap to the guest's buffers and their answers.

use xen_ring::front::{FrontExtra, FrontRxRequest, rx_flags};

use super::*;

const RX_BLANK_AND_VALIDATED: u16 = rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED;
const NO_OFFLOAD: [u8; HEADER] = [0; HEADER];

/// Gives the frames to a guest that has posted `buffers`, and lets the backend have its turn.
fn receive(buffers: usize, frames: &[&[u8]]) -> Rig {
    let mut rig = Rig::new();
    rig.post(0, buffers);
    for frame in frames {
        rig.give(NO_OFFLOAD, frame);
    }
    rig.turn();
    rig
}

/// How many slots a frame takes.
mod mbufc2pkt {
    use super::*;

    /// Slots that one frame took, of plenty.
    fn slots(len: usize) -> usize {
        receive(8, &[&plain(len)]).received().len()
    }

    /// The tap delivers a header without a frame: counted, and nothing of the guest's is used.
    #[test]
    fn empty() {
        let mut rig = receive(8, &[&[]]);
        assert!(rig.received().is_empty());
        let drops: Vec<_> = rig
            .counters
            .rx
            .drops()
            .map(|(why, n)| (why.name(), n))
            .collect();
        assert_eq!(drops, [("bad-from-tap", 1)]);
    }

    #[test]
    fn short() {
        assert_eq!(slots(60), 1);
    }

    #[test]
    fn one_cluster() {
        assert_eq!(slots(2048), 1);
    }

    /// Two buffers of FreeBSD's, one page of the guest's.
    #[test]
    fn two_short() {
        assert_eq!(slots(2 * 256), 1);
    }

    #[test]
    fn long() {
        assert_eq!(slots(PAGE), 1);
        assert_eq!(slots(PAGE + 1), 2);
        assert_eq!(slots(3 * PAGE + 17), 4);
    }

    #[test]
    fn extra() {
        let mut rig = Rig::new();
        rig.post(0, 8);
        let (header, frame) = segments();
        rig.give(header, &frame);
        rig.turn();
        assert_eq!(rig.received().len(), 2);
    }

    /// The frame waits until there is room for all of it, and then comes whole.
    #[test]
    fn nospace() {
        let frame = plain(2 * PAGE);
        let mut rig = receive(1, &[&frame]);
        assert!(rig.received().is_empty());
        rig.post(1, 1);
        rig.turn();
        assert_eq!(rig.received().len(), 2);
        assert_eq!([rig.page(0, PAGE), rig.page(1, PAGE)].concat(), frame);
    }
}

/// The copies: what lies in the guest's pages afterwards.
mod rxpkt2gnttab {
    use super::*;

    #[test]
    fn empty() {
        let mut rig = receive(2, &[]);
        assert!(rig.received().is_empty());
        assert_eq!(rig.page(0, PAGE), [0; PAGE]);
    }

    #[test]
    fn short() {
        let frame = plain(60);
        let rig = receive(2, &[&frame]);
        assert_eq!(rig.page(0, 60), frame);
        // Not a byte behind the frame, and nothing in the next page.
        assert!(rig.page(0, PAGE)[60..].iter().all(|byte| *byte == 0));
        assert_eq!(rig.page(1, PAGE), [0; PAGE]);
    }

    /// No page is overrun, and the parts are the whole.
    #[test]
    fn two_req() {
        let frame = plain(PAGE + 500);
        let mut rig = receive(3, &[&frame]);
        assert_eq!([rig.page(0, PAGE), rig.page(1, 500)].concat(), frame);
        assert!(rig.page(1, PAGE)[500..].iter().all(|byte| *byte == 0));
        assert_eq!(rig.page(2, PAGE), [0; PAGE]);
        let sum: i32 = rig
            .received()
            .iter()
            .map(|slot| i32::from(slot.as_response().status))
            .sum();
        assert_eq!(sum, 4596);
    }
}

/// The answers to the guest's buffers.
mod rxpkt2rsp {
    use super::*;

    #[test]
    fn empty() {
        let mut rig = receive(2, &[]);
        assert!(rig.received().is_empty());
    }

    #[test]
    fn short() {
        let mut rig = receive(2, &[&plain(60)]);
        let slots: Vec<_> = rig.received().into_iter().map(Rig::response).collect();
        assert_eq!(slots, [(0, 0, 0, 60)]);
    }

    #[test]
    fn extra() {
        let mut rig = Rig::new();
        rig.post(0, 4);
        let (header, frame) = segments();
        rig.give(header, &frame);
        rig.turn();
        let slots = rig.received();
        let flags = rx_flags::EXTRA_INFO | RX_BLANK_AND_VALIDATED;
        assert_eq!(Rig::response(slots[0]), (0, 0, flags, 3054));
        let gso = FrontExtra {
            kind: 1,
            flags: 0,
            body: [0xe8, 3, 1, 0, 0, 0],
        };
        assert_eq!(slots[1].as_extra(), gso);
        assert_eq!(slots.len(), 2);
    }

    #[test]
    fn two_slots() {
        let mut rig = receive(4, &[&plain(PAGE + 100)]);
        let slots: Vec<_> = rig.received().into_iter().map(Rig::response).collect();
        assert_eq!(slots, [(0, 0, rx_flags::MORE_DATA, 4096), (1, 0, 0, 100)]);
    }

    /// Where FreeBSD has two copies into one page, one slot tells of both. Here a page is one copy.
    #[test]
    fn two_short() {
        let mut rig = receive(4, &[&plain(2 * 256)]);
        let slots: Vec<_> = rig.received().into_iter().map(Rig::response).collect();
        assert_eq!(slots, [(0, 0, 0, 512)]);
    }

    /// A buffer that cannot be written is answered with an error; the next frame finds the next buffer.
    #[test]
    fn copyerror() {
        let mut rig = Rig::new();
        let nothing = FrontRxRequest { id: 77, gref: 9999 };
        rig.rx.push(nothing).unwrap();
        rig.post(1, 1);
        rig.give(NO_OFFLOAD, &plain(60));
        rig.turn();
        let slots: Vec<_> = rig.received().into_iter().map(Rig::response).collect();
        assert_eq!(slots, [(77, 0, 0, -1)]);
        assert_eq!(rig.page(1, PAGE), [0; PAGE]);
        rig.give(NO_OFFLOAD, &plain(61));
        rig.turn();
        let slots: Vec<_> = rig.received().into_iter().map(Rig::response).collect();
        assert_eq!(slots, [(1, 0, 0, 61)]);
        assert_eq!((rig.counters.rx.packets(), rig.page(1, 61)), (1, plain(61)));
    }
}
