// SPDX-License-Identifier: GPL-3.0-or-later
//! Frames for a guest that found no room in its tap. They wait in the tap's queue (`tap.txqueuelen`) for a guest that is
//! slow, and beyond its end the kernel drops them and counts them on the interface, whatever becomes of the guest. Those
//! of its connections are the guest's, for `netback status`; what the interface drops in between nobody was there for.

use super::vif::Vif;

/// What `netback status` calls them, beside the names of [`DropReason`](crate::vif::DropReason).
pub(crate) const TAP_QUEUE_FULL: &str = "tap-queue-full";

/// How many, over all connections of a device's life.
#[derive(Debug, Default)]
pub(super) struct Losses {
    former: u64,
    /// What the interface had counted when the present connection began.
    base: Option<u64>,
}

impl Losses {
    fn begin(&mut self, counted: Option<u64>) {
        self.end(counted);
        self.base = counted;
    }

    fn end(&mut self, counted: Option<u64>) {
        self.former = self.total(counted);
        self.base = None;
    }

    fn total(&self, counted: Option<u64>) -> u64 {
        let present = self.base.zip(counted);
        self.former + present.map_or(0, |(base, counted)| counted.saturating_sub(base))
    }
}

impl Vif {
    /// A guest is there from now on.
    pub(super) fn begin_losses(&mut self) {
        let counted = self.counted_losses();
        self.losses.begin(counted);
    }

    /// It is not any more.
    pub(super) fn end_losses(&mut self) {
        let counted = self.counted_losses();
        self.losses.end(counted);
    }

    /// How many frames for the guest have found no room.
    pub(super) fn lost_in_tap(&self) -> u64 {
        self.losses.total(self.counted_losses())
    }

    /// `None` of a tap that has been deleted, or is out of sight in another namespace.
    fn counted_losses(&self) -> Option<u64> {
        self.netif.tap()?.dropped().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_between_two_connections_is_nobodys() {
        let mut losses = Losses::default();
        assert_eq!(losses.total(Some(7)), 0);
        losses.begin(Some(7));
        assert_eq!(losses.total(Some(10)), 3);
        losses.end(Some(12));
        assert_eq!(losses.total(Some(20)), 5);
        losses.begin(Some(30));
        assert_eq!(losses.total(Some(31)), 6);
        // As good as ended, in whatever way.
        losses.begin(Some(40));
        assert_eq!(losses.total(Some(41)), 16);
    }

    #[test]
    fn a_tap_that_is_another_one_or_gone_takes_nothing_away() {
        let mut losses = Losses::default();
        losses.begin(Some(100));
        losses.end(Some(104));
        losses.begin(None);
        assert_eq!(losses.total(Some(50)), 4);
        losses.begin(Some(50));
        assert_eq!((losses.total(Some(3)), losses.total(None)), (4, 4));
    }
}
