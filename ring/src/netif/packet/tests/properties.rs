// SPDX-License-Identifier: MIT OR Apache-2.0
//! What holds for any slots at all, and for any packet that a correct frontend can build.

use proptest::prelude::*;

use super::*;

/// Slots that are near enough to sense for every rule to be reached.
fn plausible_slot() -> impl Strategy<Value = TxSlot> {
    let size = prop_oneof![0u16..100, 0u16..4200, any::<u16>()];
    let request = (0u16..16, prop_oneof![Just(0u16), 0u16..4200], size)
        .prop_map(|(flags, offset, size)| data(1, TxFlags::new(flags), offset, size));
    let extra = (0u32..7, 0u32..2, any::<u16>(), 0u32..4).prop_map(|(kind, more, size, gso)| {
        TxSlot::new([kind | more << 8 | u32::from(size) << 16, gso, 0])
    });
    prop_oneof![4 => request, 1 => extra, 1 => any::<[u32; 3]>().prop_map(TxSlot::new)]
}

fn check(slots: &[TxSlot], limits: TxLimits) -> Result<(), TestCaseError> {
    let Ok(packet) = next_packet(slots, &limits) else {
        return Ok(());
    };
    prop_assert!((1..=slots.len()).contains(&packet.slots));
    prop_assert!(packet.slots <= 1 + FATAL_LATER_SLOTS + packet.extras);
    prop_assert_eq!(packet.responses(slots, Status::Okay).count(), packet.slots);
    let nulls = packet
        .responses(slots, Status::Error)
        .filter(|r| r.status == Status::Null)
        .count();
    prop_assert_eq!(nulls, packet.extras);
    let fragments: Vec<_> = packet.fragments(slots).collect();
    for fragment in &fragments {
        prop_assert!(fragment.len > 0);
        prop_assert!(usize::from(fragment.offset) + usize::from(fragment.len) <= PAGE_SIZE);
        prop_assert_eq!(slots[fragment.slot].as_request().gref, fragment.gref);
    }
    if packet.verdict == Verdict::Deliver {
        prop_assert_eq!(
            fragments.iter().map(|f| u32::from(f.len)).sum::<u32>(),
            packet.size
        );
        prop_assert_eq!(fragments[0].slot, 0);
        prop_assert!(fragments[0].len >= HEADER_BYTES);
        prop_assert!(fragments.len() <= 1 + LATER_SLOTS);
        // What comes after the packet has no part in it.
        prop_assert_eq!(next_packet(&slots[..packet.slots], &limits), Ok(packet));
    } else {
        prop_assert!(fragments.is_empty());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_slots_are_handled(
        words in prop::collection::vec(any::<[u32; 3]>(), 0..40),
        gso_v4: bool, gso_v6: bool, multicast: bool,
    ) {
        let slots: Vec<_> = words.into_iter().map(TxSlot::new).collect();
        check(&slots, TxLimits { gso_v4, gso_v6, multicast })?;
    }

    #[test]
    fn plausible_slots_are_handled(
        slots in prop::collection::vec(plausible_slot(), 0..30),
        gso_v4: bool, gso_v6: bool, multicast: bool,
    ) {
        check(&slots, TxLimits { gso_v4, gso_v6, multicast })?;
    }

    /// Whatever a correct frontend can build is delivered, byte for byte.
    #[test]
    fn correct_packets_are_delivered(
        lens in prop::collection::vec((0u16..4096, 0u16..=3000), 0..=18),
        own in HEADER_BYTES..=4096,
        with_gso: bool,
    ) {
        let later: u32 = lens.iter().map(|(_, len)| u32::from(*len)).sum();
        let Ok(total) = u16::try_from(later + u32::from(own)) else { return Ok(()) };
        let flags = |last: bool| if last { NONE } else { MORE };
        let first = flags(lens.is_empty()).with(if with_gso { EXTRA } else { NONE });
        let mut slots = vec![data(0, first, 4096 - own, total)];
        slots.extend(with_gso.then(|| extra(gso(1448, GsoKind::TcpV4), false)));
        let mut expected = vec![own];
        for (i, (offset, len)) in lens.iter().enumerate() {
            slots.push(data(0, flags(i + 1 == lens.len()), (*offset).min(4096 - len), *len));
            expected.extend((*len > 0).then_some(*len));
        }
        let packet = next_packet(&slots, &ALL).unwrap();
        prop_assert_eq!(packet.verdict, Verdict::Deliver);
        prop_assert_eq!(packet.slots, slots.len());
        let got: Vec<_> = packet.fragments(&slots).map(|f| f.len).collect();
        prop_assert_eq!(got, expected);
    }
}
