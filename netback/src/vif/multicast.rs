// SPDX-License-Identifier: GPL-3.0-or-later
//! Multicast control (netif.h, "feature-multicast-control"): the vif's list of multicast
//! addresses, and whether frames to others are kept from the guest.
//!
//! The list belongs to the vif and lives as long as a connection. The guest edits it on any of its
//! tx queues, at any time; the control thread says whether it is applied. Each entry is one atomic
//! word, so that all queues read and edit the list without a lock and without memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use xen_ring::netif::Multicast;

/// Addresses that one list can hold: as many as Linux's netback takes, so no frontend counts on
/// more.
pub const LIST_MAX: usize = 64;

/// An Ethernet address.
type Address = [u8; 6];

/// Nothing is in this place of the list.
const EMPTY: u64 = 0;
/// Marks a place in use: an address has 48 bits, and may be all zero.
const USED: u64 = 1 << 48;
/// The group bit of an address' first byte: multicast and broadcast have it.
const GROUP: u8 = 1;
const BROADCAST: Address = [0xff; 6];

/// A vif's multicast list, and whether it is applied.
#[derive(Debug)]
pub struct MulticastFilter {
    /// `request-multicast-control`.
    requested: AtomicBool,
    /// Whether the list holds everything that the guest has ever put there.
    whole: bool,
    places: [AtomicU64; LIST_MAX],
}

/// There is no room for another address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListFull;

impl MulticastFilter {
    /// An empty list that is not applied yet.
    pub fn new() -> Self {
        Self {
            requested: AtomicBool::new(false),
            whole: true,
            places: [const { AtomicU64::new(EMPTY) }; LIST_MAX],
        }
    }

    /// The list of a connection that a former daemon had. What the guest told that one is lost,
    /// and the guest will not say it again, so the list is never applied: to get too much is
    /// harmless, and too little is not.
    pub fn forgotten() -> Self {
        Self {
            whole: false,
            ..Self::new()
        }
    }

    /// Whether the frontend wants the list to be applied.
    pub fn request(&self, requested: bool) {
        self.requested.store(requested, Ordering::Relaxed);
    }

    /// Whether frames to addresses that are not in the list are kept from the guest.
    pub fn is_applied(&self) -> bool {
        self.whole && self.requested.load(Ordering::Relaxed)
    }

    /// Carries out a change that the guest asks for. An address that is there already is not
    /// added a second time; one that is not there may be removed.
    ///
    /// # Errors
    ///
    /// [`ListFull`], when there is no room.
    pub fn change(&self, change: Multicast) -> Result<(), ListFull> {
        match change {
            Multicast::Add(address) => self.add(place(address)),
            Multicast::Del(address) => {
                self.remove(place(address));
                Ok(())
            }
        }
    }

    /// Whether `frame`, which is on its way to the guest, is to be kept from it.
    pub fn blocks(&self, frame: &[u8]) -> bool {
        if !self.is_applied() {
            return false;
        }
        match frame.first_chunk::<6>() {
            Some(&to) if to[0] & GROUP != 0 && to != BROADCAST => !self.holds(place(to)),
            _ => false,
        }
    }

    /// Addresses in the list.
    pub fn len(&self) -> usize {
        let used = |place: &&AtomicU64| place.load(Ordering::Relaxed) != EMPTY;
        self.places.iter().filter(used).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn holds(&self, wanted: u64) -> bool {
        let mut places = self.places.iter();
        places.any(|place| place.load(Ordering::Relaxed) == wanted)
    }

    /// Two queues that add one address at the same moment may add it twice, which costs a place
    /// until it is removed.
    fn add(&self, wanted: u64) -> Result<(), ListFull> {
        if self.holds(wanted) {
            return Ok(());
        }
        let mut places = self.places.iter();
        let taken = places.any(|place| swap(place, EMPTY, wanted));
        if taken { Ok(()) } else { Err(ListFull) }
    }

    fn remove(&self, wanted: u64) {
        for place in &self.places {
            swap(place, wanted, EMPTY);
        }
    }
}

impl Default for MulticastFilter {
    fn default() -> Self {
        Self::new()
    }
}

/// What stands for the address in the list.
fn place([a, b, c, d, e, f]: Address) -> u64 {
    USED | u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Nothing else hangs on an entry, so no order is needed.
fn swap(place: &AtomicU64, from: u64, to: u64) -> bool {
    place.load(Ordering::Relaxed) == from
        && place
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    const MDNS: Address = [0x01, 0x00, 0x5e, 0, 0, 0xfb];

    fn frame_to(address: Address) -> Vec<u8> {
        let mut frame = address.to_vec();
        frame.resize(60, 0);
        frame
    }

    fn nth(n: u8) -> Address {
        [0x33, 0x33, 0, 0, 0, n]
    }

    #[test]
    fn applies_only_while_requested() {
        let filter = MulticastFilter::new();
        assert!(!filter.blocks(&frame_to(MDNS)));
        filter.request(true);
        assert!(filter.blocks(&frame_to(MDNS)));
        filter.change(Multicast::Add(MDNS)).unwrap();
        assert!(!filter.blocks(&frame_to(MDNS)));
        assert!(filter.blocks(&frame_to(nth(1))));
        filter.request(false);
        assert!(!filter.blocks(&frame_to(nth(1))));
        // The list stays, and can be edited meanwhile.
        filter.change(Multicast::Del(MDNS)).unwrap();
        filter.request(true);
        assert!(filter.blocks(&frame_to(MDNS)));
    }

    #[test]
    fn only_multicast_is_filtered() {
        let filter = MulticastFilter::new();
        filter.request(true);
        for passes in [
            frame_to(BROADCAST),
            frame_to([0x00, 0x16, 0x3e, 0, 0, 1]),
            vec![],
            MDNS[..5].to_vec(),
        ] {
            assert!(!filter.blocks(&passes), "{passes:?}");
        }
    }

    #[test]
    fn is_full_at_its_limit_and_not_before() {
        let filter = MulticastFilter::new();
        for n in 0..64 {
            assert_eq!(filter.change(Multicast::Add(nth(n))), Ok(()));
        }
        assert_eq!(filter.len(), LIST_MAX);
        assert_eq!(filter.change(Multicast::Add(nth(64))), Err(ListFull));
        // What is there already needs no room, and what is not there can always be removed.
        assert_eq!(filter.change(Multicast::Add(nth(63))), Ok(()));
        assert_eq!(filter.change(Multicast::Del(nth(64))), Ok(()));
        assert_eq!(filter.len(), LIST_MAX);
        assert_eq!(filter.change(Multicast::Del(nth(0))), Ok(()));
        assert_eq!(filter.change(Multicast::Add(nth(64))), Ok(()));
    }

    #[test]
    fn the_zero_address_is_one() {
        let filter = MulticastFilter::new();
        filter.change(Multicast::Add([0; 6])).unwrap();
        assert_eq!(filter.len(), 1);
        filter.change(Multicast::Del([0; 6])).unwrap();
        assert!(filter.is_empty());
    }

    #[test]
    fn a_forgotten_list_lets_everything_pass() {
        let filter = MulticastFilter::forgotten();
        filter.request(true);
        filter.change(Multicast::Add(nth(1))).unwrap();
        assert!(!filter.blocks(&frame_to(MDNS)));
    }

    #[test]
    fn queues_edit_it_at_the_same_time() {
        let filter = MulticastFilter::new();
        std::thread::scope(|scope| {
            for queue in 0..4 {
                let filter = &filter;
                scope.spawn(move || {
                    for n in (0..16).cycle().take(1_000) {
                        let address = nth(queue * 16 + n);
                        filter.change(Multicast::Add(address)).unwrap();
                        filter.change(Multicast::Del(address)).unwrap();
                    }
                    // An address that no other queue touches.
                    filter.change(Multicast::Add(nth(200 + queue))).unwrap();
                });
            }
        });
        assert_eq!(filter.len(), 4);
    }

    proptest! {
        #[test]
        fn is_a_set(changes in proptest::collection::vec((any::<bool>(), 0_u8..100), 0..400)) {
            let (filter, mut model) = (MulticastFilter::new(), BTreeSet::new());
            filter.request(true);
            for (add, n) in changes {
                if add {
                    let fits = model.contains(&n) || model.len() < LIST_MAX;
                    prop_assert_eq!(filter.change(Multicast::Add(nth(n))).is_ok(), fits);
                    if fits {
                        model.insert(n);
                    }
                } else {
                    prop_assert_eq!(filter.change(Multicast::Del(nth(n))), Ok(()));
                    model.remove(&n);
                }
            }
            prop_assert_eq!(filter.len(), model.len());
            for n in 0..100 {
                prop_assert_eq!(filter.blocks(&frame_to(nth(n))), !model.contains(&n));
            }
        }
    }
}
