// SPDX-License-Identifier: GPL-3.0-or-later
//! What the backend offers and what the frontend asked for, read when it says Connected; what it
//! may ask for later too is in [`Requests`].
//!
//! Everything in the frontend's directory is the guest's to write, so every value is parsed into
//! a type that is right by construction, or the connection fails with a sentence that names the
//! key and the value. Key names and defaults: Xen's `netif.h`; Linux's `xen-netback/xenbus.c` for
//! what a frontend may leave out.

mod queues;
mod requests;

use std::io;

use xen_ring::netif::TxLimits;

use super::offload::Offloads;
pub use queues::{Channels, MAX_QUEUES, OFFER, QueueKeys, Queues};
pub use requests::{KEYS as LIVE_KEYS, Requests, requests};

/// The keys a backend of this version writes before InitWait, with their values; [`OFFER`] comes
/// with them, whose value differs from vif to vif.
///
/// `feature-rx-copy` is required by every frontend; `feature-rx-flip` is long gone, and is
/// written as 0 because frontends look at it.
pub const ADVERTISED: &[(&str, &str)] = &[
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

/// What the guest may ask for in its packets: what is [`ADVERTISED`].
pub fn tx_limits() -> TxLimits {
    let is_offered = |key| ADVERTISED.contains(&(key, "1"));
    TxLimits {
        gso_v4: is_offered("feature-gso-tcpv4"),
        gso_v6: is_offered("feature-gso-tcpv6"),
        multicast: is_offered("feature-multicast-control"),
    }
}

/// The keys of a frontend that [`negotiate`] is likely to read, beside [`LIVE_KEYS`]: those of one
/// queue pair with an event channel for each ring. Whoever has them at hand saves time.
pub const KEYS: &[&str] = &[
    "multi-queue-num-queues",
    "tx-ring-ref",
    "rx-ring-ref",
    "event-channel-tx",
    "event-channel-rx",
    "ctrl-ring-ref",
    "event-channel-ctrl",
    "request-rx-copy",
    "feature-sg",
    "feature-no-csum-offload",
    "feature-ipv6-csum-offload",
    "feature-gso-tcpv4",
    "feature-gso-tcpv6",
    "feature-rx-notify",
];

/// What a frontend asked for, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// Its queue pairs, and its control ring if it has one.
    pub queues: Queues,
    /// What may be sent to it.
    pub features: Features,
    /// What it asks for at the moment.
    pub requests: Requests,
}

/// What may be sent to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Frames of more than one slot.
    pub sg: bool,
    /// The guest signals when it posts buffers.
    pub rx_notify: bool,
    /// Blank checksums, and frames to be segmented.
    pub offloads: Offloads,
}

/// Why a frontend cannot be connected. The text ends up in its error node.
#[derive(Debug, thiserror::Error)]
pub enum NegotiateError {
    /// A key without which there is no connection.
    #[error("the frontend is Connected but has not written {key}")]
    Missing {
        /// The key, relative to the frontend's directory.
        key: String,
    },
    /// A value that does not parse.
    #[error("the frontend wrote {key} = {value:?}, which is not {expected}")]
    Malformed {
        /// The key, relative to the frontend's directory.
        key: String,
        /// What it wrote.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// More queues than were offered, or none.
    #[error("the frontend asks for {asked} queues; this backend offers {offered}")]
    Queues {
        /// What it asked for.
        asked: u32,
        /// What [`OFFER`] says.
        offered: u16,
    },
    /// One page for two rings, or one event channel given as two.
    #[error("the frontend gave {what} {value} twice: as {first} and as {second}")]
    Twice {
        /// "grant reference" or "event channel".
        what: &'static str,
        /// The number.
        value: u32,
        /// The key that it was read from first.
        first: String,
        /// The other key.
        second: String,
    },
    /// A frontend from before copying receive, which no backend serves any more.
    #[error("the frontend wrote request-rx-copy = 0: page flipping is not supported")]
    Flip,
    /// The store did not answer.
    #[error("the frontend's {key} cannot be read: {source}")]
    Store {
        /// The key, relative to the frontend's directory.
        key: String,
        /// Why.
        source: io::Error,
    },
}

impl NegotiateError {
    /// The error of the store, if it is that the connection to it is lost: then this says nothing
    /// about the frontend.
    ///
    /// # Errors
    ///
    /// The error itself, if it is about the frontend.
    pub fn lost_store(self) -> Result<io::Error, Self> {
        match self {
            Self::Store { source, .. } if xenbus::is_disconnected(&source) => Ok(source),
            other => Err(other),
        }
    }
}

/// Characters of a guest's value that an error repeats: the text goes to the log and the store.
const VALUE_SHOWN: usize = 40;

/// Reads a connecting frontend's keys through `read`, which returns a key's value, or `None` if
/// there is no such key. `offered` is what [`OFFER`] told the frontend.
///
/// # Errors
///
/// [`NegotiateError`] for anything that cannot be served.
pub fn negotiate(
    offered: u16,
    read: impl Fn(&str) -> io::Result<Option<Box<str>>>,
) -> Result<Negotiated, NegotiateError> {
    let keys = FrontendKeys(read);
    let queues = Queues::read(&keys, offered)?;
    if keys.number("request-rx-copy")? == Some(0) {
        return Err(NegotiateError::Flip);
    }
    Ok(Negotiated {
        queues,
        features: features(&keys)?,
        requests: Requests::read(&keys)?,
    })
}

/// A frame to be segmented is large and has a blank checksum, so a frontend that takes it must
/// take both.
fn features<R: Read>(keys: &FrontendKeys<R>) -> Result<Features, NegotiateError> {
    let sg = keys.feature("feature-sg")?;
    let csum_v4 = !keys.feature("feature-no-csum-offload")?;
    let csum_v6 = keys.feature("feature-ipv6-csum-offload")?;
    let offloads = Offloads {
        csum_v4,
        csum_v6,
        gso_v4: keys.feature("feature-gso-tcpv4")? && csum_v4 && sg,
        gso_v6: keys.feature("feature-gso-tcpv6")? && csum_v6 && sg,
    };
    Ok(Features {
        sg,
        rx_notify: keys.feature("feature-rx-notify")?,
        offloads,
    })
}

trait Read: Fn(&str) -> io::Result<Option<Box<str>>> {}
impl<T: Fn(&str) -> io::Result<Option<Box<str>>>> Read for T {}

struct FrontendKeys<R>(R);

impl<R: Read> FrontendKeys<R> {
    fn number(&self, key: &str) -> Result<Option<u32>, NegotiateError> {
        let value = (self.0)(key).map_err(|source| NegotiateError::Store {
            key: key.to_owned(),
            source,
        })?;
        let Some(value) = value else { return Ok(None) };
        match value.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(NegotiateError::Malformed {
                key: key.to_owned(),
                value: value.chars().take(VALUE_SHOWN).collect(),
                expected: "a decimal number of at most 32 bits",
            }),
        }
    }

    fn required(&self, key: &str) -> Result<u32, NegotiateError> {
        self.number(key)?.ok_or_else(|| NegotiateError::Missing {
            key: key.to_owned(),
        })
    }

    fn feature(&self, key: &str) -> Result<bool, NegotiateError> {
        Ok(self.number(key)?.unwrap_or(0) != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::{BTreeSet, HashMap};

    use super::*;

    fn frontend(keys: &[(&str, &str)]) -> Result<Negotiated, NegotiateError> {
        let keys: HashMap<&str, &str> = keys.iter().copied().collect();
        negotiate(1, |key| Ok(keys.get(key).map(|value| Box::from(*value))))
    }

    const LINUX: &[(&str, &str)] = &[
        ("multi-queue-num-queues", "1"),
        ("tx-ring-ref", "520"),
        ("rx-ring-ref", "521"),
        ("event-channel-tx", "8"),
        ("event-channel-rx", "9"),
        ("request-rx-copy", "1"),
        ("feature-rx-notify", "1"),
        ("feature-sg", "1"),
        ("feature-gso-tcpv4", "1"),
        ("feature-gso-tcpv6", "1"),
        ("feature-ipv6-csum-offload", "1"),
    ];

    fn linux_with(key: &'static str, value: &'static str) -> Result<Negotiated, NegotiateError> {
        let mut keys = LINUX.to_vec();
        keys.push((key, value));
        frontend(&keys)
    }

    #[test]
    fn linux_as_recorded() {
        let negotiated = frontend(LINUX).unwrap();
        assert_eq!(negotiated.queues.count(), 1);
        let features = Features {
            sg: true,
            rx_notify: true,
            offloads: Offloads::ALL,
        };
        assert_eq!(negotiated.features, features);
    }

    #[test]
    fn all_that_is_read_of_linux_is_known_before() {
        let asked = RefCell::default();
        let known = [KEYS, &LIVE_KEYS].concat();
        negotiate(1, |key| {
            let value = LINUX.iter().find(|(name, _)| *name == key);
            RefCell::<Vec<_>>::borrow_mut(&asked).push(key.to_owned());
            Ok(value.map(|(_, value)| Box::from(*value)))
        })
        .unwrap();
        assert_eq!(
            BTreeSet::from_iter(asked.into_inner().iter().map(String::as_str)),
            BTreeSet::from_iter(known)
        );
    }

    #[test]
    fn the_barest_frontend_gets_the_defaults() {
        let keys = [
            ("tx-ring-ref", "8"),
            ("rx-ring-ref", "9"),
            ("event-channel", "3"),
        ];
        let negotiated = frontend(&keys).unwrap();
        assert_eq!(negotiated.queues.count(), 1);
        let offloads = Offloads {
            csum_v4: true,
            csum_v6: false,
            gso_v4: false,
            gso_v6: false,
        };
        assert_eq!(
            negotiated.features,
            Features {
                sg: false,
                rx_notify: false,
                offloads
            }
        );
    }

    #[test]
    fn segmentation_needs_what_it_stands_on() {
        let offloads = |key, value| linux_with(key, value).unwrap().features.offloads;
        let all = Offloads::ALL;
        let no_v4 = Offloads {
            csum_v4: false,
            gso_v4: false,
            ..all
        };
        assert_eq!(offloads("feature-no-csum-offload", "1"), no_v4);
        let no_v6 = Offloads {
            csum_v6: false,
            gso_v6: false,
            ..all
        };
        assert_eq!(offloads("feature-ipv6-csum-offload", "0"), no_v6);
        let no_gso = Offloads {
            gso_v4: false,
            gso_v6: false,
            ..all
        };
        assert_eq!(offloads("feature-sg", "0"), no_gso);
        assert_eq!(
            offloads("feature-gso-tcpv4", "0"),
            Offloads {
                gso_v4: false,
                ..all
            }
        );
        assert_eq!(
            offloads("feature-gso-tcpv6", "0"),
            Offloads {
                gso_v6: false,
                ..all
            }
        );
    }

    #[test]
    fn each_refusal_names_the_key_and_the_value() {
        for (result, sentence) in [
            (
                frontend(&[]),
                "the frontend is Connected but has not written tx-ring-ref",
            ),
            (
                frontend(&[("tx-ring-ref", "1"), ("rx-ring-ref", "2")]),
                "the frontend is Connected but has not written event-channel",
            ),
            (
                frontend(&[
                    ("tx-ring-ref", "1"),
                    ("rx-ring-ref", "2"),
                    ("event-channel-tx", "3"),
                ]),
                "the frontend is Connected but has not written event-channel-rx",
            ),
            (
                linux_with("tx-ring-ref", "-1\n"),
                "the frontend wrote tx-ring-ref = \"-1\\n\", which is not a decimal number of at most 32 bits",
            ),
            (
                linux_with("request-rx-copy", "0"),
                "the frontend wrote request-rx-copy = 0: page flipping is not supported",
            ),
            (
                negotiate(1, |_| Err(io::ErrorKind::PermissionDenied.into())),
                "the frontend's multi-queue-num-queues cannot be read: permission denied",
            ),
        ] {
            assert_eq!(result.unwrap_err().to_string(), sentence);
        }
    }
}
