// SPDX-License-Identifier: GPL-3.0-or-later
//! What backend and frontend can agree on beyond plain frames through one queue: a row for each
//! feature.
//!
//! A row says how the feature is offered, how a frontend asks for it, what it stands on, and how
//! `netback status` calls it. The daemon's advertising, [`negotiate`](mod@super::negotiate) and the
//! status go through the table. What comes with a page or a number is read where these are parsed,
//! which its row names. The packet path asks with [`Features::has`], but for what is [asked for live](Asked::Live):
//! [`Live`](super::live::Live) knows of that. Keys and their meanings: Xen's `netif.h`; Linux's for `xdp-headroom`.

use std::fmt;

use super::negotiate::{HEADROOM, MULTICAST, Queues};

/// A feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Frames of several slots. Offered, the guest may send them; asked for, it may get them.
    Sg,
    /// TCP over IPv4 to be segmented, both ways.
    GsoTcpv4,
    /// TCP over IPv6 to be segmented, both ways.
    GsoTcpv6,
    /// The guest takes blank checksums of TCP and UDP over IPv4. A backend always does.
    CsumV4,
    /// Blank checksums over IPv6, both ways.
    CsumV6,
    /// An event channel for each direction.
    SplitEventChannels,
    /// The guest signals when it posts receive buffers, so a worker need not look for them.
    RxNotify,
    /// Multicast frames to addresses that are not in the guest's list are kept from it.
    MulticastControl,
    /// A control ring: hashes, steering, static grants.
    CtrlRing,
    /// Room before the data in each of the guest's rx buffers.
    XdpHeadroom,
}

/// What there is to know about a feature.
#[derive(Debug)]
pub struct Row {
    /// The feature.
    pub feature: Feature,
    /// The backend's keys that offer it, each as 1.
    pub offered: &'static [&'static str],
    /// How a frontend asks for it.
    pub asked: Asked,
    /// Without these it is not granted.
    pub needs: &'static [Feature],
    /// What the status says of it.
    pub shown: Shown,
}

/// How a frontend asks for a feature, relative to its directory.
#[derive(Debug, Clone, Copy)]
pub enum Asked {
    /// With this key, which says other than 0 when it connects.
    With(&'static str),
    /// By leaving out this key, or saying 0.
    Without(&'static str),
    /// By giving the pages and ports for it: whether these do.
    Given(fn(&Queues) -> bool),
    /// With this key when it connects, and later as it likes ([`Requests`](super::negotiate::Requests)).
    Live(&'static str),
}

/// How the status shows a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// On or off.
    Flag {
        /// In JSON.
        json: &'static str,
        /// In the table, if it is worth the room.
        table: Option<&'static str>,
    },
    /// As the number that it comes with, in a field of its own.
    Number,
}

const fn flag(json: &'static str, table: &'static str) -> Shown {
    let table = Some(table);
    Shown::Flag { json, table }
}

/// Every feature, in the order of the status.
pub const TABLE: [Row; 10] = [
    Row {
        feature: Feature::Sg,
        offered: &["feature-sg"],
        asked: Asked::With("feature-sg"),
        needs: &[],
        shown: flag("sg", "sg"),
    },
    // A frame to be segmented is large and has a blank checksum.
    Row {
        feature: Feature::GsoTcpv4,
        offered: &["feature-gso-tcpv4"],
        asked: Asked::With("feature-gso-tcpv4"),
        needs: &[Feature::Sg, Feature::CsumV4],
        shown: flag("gso_tcpv4", "gso4"),
    },
    Row {
        feature: Feature::GsoTcpv6,
        offered: &["feature-gso-tcpv6"],
        asked: Asked::With("feature-gso-tcpv6"),
        needs: &[Feature::Sg, Feature::CsumV6],
        shown: flag("gso_tcpv6", "gso6"),
    },
    Row {
        feature: Feature::CsumV4,
        offered: &[],
        asked: Asked::Without("feature-no-csum-offload"),
        needs: &[],
        shown: flag("csum_v4", "csum4"),
    },
    Row {
        feature: Feature::CsumV6,
        offered: &["feature-ipv6-csum-offload"],
        asked: Asked::With("feature-ipv6-csum-offload"),
        needs: &[],
        shown: flag("csum_v6", "csum6"),
    },
    Row {
        feature: Feature::SplitEventChannels,
        offered: &["feature-split-event-channels"],
        asked: Asked::Given(Queues::are_split),
        needs: &[],
        shown: flag("split_event_channels", "split"),
    },
    Row {
        feature: Feature::RxNotify,
        offered: &[],
        asked: Asked::With("feature-rx-notify"),
        needs: &[],
        shown: Shown::Flag {
            json: "rx_notify",
            table: None,
        },
    },
    Row {
        feature: Feature::MulticastControl,
        offered: &[
            "feature-multicast-control",
            "feature-dynamic-multicast-control",
        ],
        asked: Asked::Live(MULTICAST),
        needs: &[],
        shown: flag("multicast_control", "mcast"),
    },
    Row {
        feature: Feature::CtrlRing,
        offered: &["feature-ctrl-ring"],
        asked: Asked::Given(Queues::have_control),
        needs: &[],
        shown: flag("ctrl_ring", "ctrl"),
    },
    Row {
        feature: Feature::XdpHeadroom,
        offered: &["feature-xdp-headroom"],
        asked: Asked::Live(HEADROOM),
        needs: &[],
        shown: Shown::Number,
    },
];

/// What every backend writes, and no frontend has a choice of: frames are copied to it. Flipping
/// pages is long gone, and is said to be so because frontends look at it.
const ALWAYS: [(&str, &str); 2] = [("feature-rx-copy", "1"), ("feature-rx-flip", "0")];

/// The keys that a backend writes before InitWait, with their values. With them go those whose
/// values differ from vif to vif.
pub fn advertised() -> impl Iterator<Item = (&'static str, &'static str)> {
    let offered = TABLE.iter().flat_map(|row| row.offered);
    offered.map(|key| (*key, "1")).chain(ALWAYS)
}

impl Feature {
    /// Whether a key of the backend offers it: then guests may use it in what they send.
    pub fn is_offered(self) -> bool {
        let row = TABLE.iter().find(|row| row.feature == self);
        row.is_some_and(|row| !row.offered.is_empty())
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(u16);

impl Features {
    /// These.
    pub const fn of(list: &[Feature]) -> Self {
        let (mut bits, mut rest) = (0, list);
        while let [first, others @ ..] = rest {
            bits |= first.bit();
            rest = others;
        }
        Self(bits)
    }

    /// Whether one is in it.
    #[inline]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// With one in it, or not.
    #[must_use]
    pub const fn with(self, feature: Feature, on: bool) -> Self {
        match on {
            true => Self(self.0 | feature.bit()),
            false => Self(self.0 & !feature.bit()),
        }
    }

    /// Without these.
    #[must_use]
    pub const fn without(self, list: &[Feature]) -> Self {
        Self(self.0 & !Self::of(list).0)
    }

    /// Those of it that have what they need.
    #[must_use]
    pub fn grantable(self) -> Self {
        self.rows()
            .filter(|row| row.needs.iter().all(|need| self.has(*need)))
            .fold(Self::default(), |set, row| set.with(row.feature, true))
    }

    /// The rows of those in it.
    pub fn rows(self) -> impl Iterator<Item = &'static Row> {
        TABLE.iter().filter(move |row| self.has(row.feature))
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.rows().map(|row| row.feature))
            .finish()
    }
}

#[cfg(test)]
impl Features {
    /// What Linux's netfront asks for.
    pub(crate) const LINUX: Self = Self::of(&[
        Feature::Sg,
        Feature::GsoTcpv4,
        Feature::GsoTcpv6,
        Feature::CsumV4,
        Feature::CsumV6,
        Feature::SplitEventChannels,
        Feature::RxNotify,
    ]);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::negotiate::LIVE_KEYS;
    use super::*;

    #[test]
    fn what_is_advertised() {
        let expected = [
            ("feature-sg", "1"),
            ("feature-gso-tcpv4", "1"),
            ("feature-gso-tcpv6", "1"),
            ("feature-ipv6-csum-offload", "1"),
            ("feature-rx-copy", "1"),
            ("feature-rx-flip", "0"),
            ("feature-split-event-channels", "1"),
            ("feature-ctrl-ring", "1"),
            ("feature-multicast-control", "1"),
            ("feature-dynamic-multicast-control", "1"),
            ("feature-xdp-headroom", "1"),
        ];
        assert_eq!(advertised().count(), expected.len());
        assert_eq!(BTreeSet::from_iter(advertised()), BTreeSet::from(expected));
        assert!(Feature::GsoTcpv4.is_offered() && !Feature::RxNotify.is_offered());
    }

    #[test]
    fn each_feature_has_a_row_and_each_name_is_used_once() {
        let bits = TABLE.iter().fold(0, |bits, row| bits | row.feature.bit());
        assert_eq!(bits, (1 << TABLE.len()) - 1);
        let names: Vec<_> = TABLE
            .iter()
            .filter_map(|row| match row.shown {
                Shown::Flag { json, table } => Some([Some(json), table]),
                Shown::Number => None,
            })
            .collect();
        for column in 0..2 {
            let names: Vec<_> = names.iter().filter_map(|both| both[column]).collect();
            assert_eq!(names.len(), BTreeSet::from_iter(&names).len(), "{names:?}");
        }
    }

    #[test]
    fn what_is_asked_for_live_is_read_live() {
        let live = TABLE.iter().filter_map(|row| match row.asked {
            Asked::Live(key) => Some(key),
            Asked::With(_) | Asked::Without(_) | Asked::Given(_) => None,
        });
        assert!(live.clone().count() > 0 && live.clone().all(|key| LIVE_KEYS.contains(&key)));
    }

    /// One look at the set is enough as long as nothing that is needed needs something itself.
    #[test]
    fn what_is_needed_needs_nothing() {
        for need in TABLE.iter().flat_map(|row| row.needs) {
            let row = TABLE.iter().find(|row| row.feature == *need).unwrap();
            assert!(row.needs.is_empty(), "{row:?}");
        }
    }

    #[test]
    fn sets() {
        use Feature::{CsumV4, CsumV6, GsoTcpv4, Sg};
        let set = Features::of(&[GsoTcpv4, Sg, CsumV6]);
        assert!(set.has(Sg) && !set.has(CsumV4));
        assert_eq!(set.grantable(), Features::of(&[Sg, CsumV6]));
        let set = set.with(CsumV4, true).with(CsumV6, false);
        assert_eq!(set.grantable(), set);
        assert_eq!(
            set.without(&[GsoTcpv4, CsumV6]),
            Features::of(&[Sg, CsumV4])
        );
        assert_eq!(format!("{set:?}"), "{Sg, GsoTcpv4, CsumV4}");
        assert_eq!(Features::of(&[]), Features::default());
    }
}
