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

use super::feature::{Asked, Feature, Features, TABLE};
pub use queues::{Channels, MAX_QUEUES, OFFER, QueueKeys, Queues};
use requests::DISCONNECT;
pub(super) use requests::{HEADROOM, MULTICAST};
pub use requests::{KEYS as LIVE_KEYS, Requests, requests};

/// The frontend wants what it receives copied, not flipped (netif.h).
const RX_COPY: &str = "request-rx-copy";

/// What the guest may ask for in its packets: what is offered.
pub fn tx_limits() -> TxLimits {
    TxLimits {
        gso_v4: Feature::GsoTcpv4.is_offered(),
        gso_v6: Feature::GsoTcpv6.is_offered(),
        multicast: Feature::MulticastControl.is_offered(),
    }
}

/// The keys of a frontend that [`negotiate`] is likely to read: those of one queue pair with an event
/// channel for each ring. Whoever has them at hand saves time.
pub fn likely_keys() -> impl Iterator<Item = &'static str> {
    let features = TABLE.iter().filter_map(|row| match row.asked {
        Asked::With(key) | Asked::Without(key) | Asked::Live(key) => Some(key),
        Asked::Given(_) => None,
    });
    queues::LIKELY_KEYS
        .into_iter()
        .chain([RX_COPY])
        .chain(features)
        .chain([DISCONNECT])
}

/// What a frontend asked for, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// Its queue pairs, and its control ring if it has one.
    pub queues: Queues,
    /// What was agreed on for as long as it is connected. What it may take back is among its
    /// requests.
    pub features: Features,
    /// What it asks for at the moment.
    pub requests: Requests,
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
    if keys.number(RX_COPY)? == Some(0) {
        return Err(NegotiateError::Flip);
    }
    Ok(Negotiated {
        features: features(&keys, &queues)?,
        queues,
        requests: Requests::read(&keys)?,
    })
}

fn features<R: Read>(keys: &FrontendKeys<R>, queues: &Queues) -> Result<Features, NegotiateError> {
    let mut asked = Features::default();
    for row in &TABLE {
        let on = match row.asked {
            Asked::With(key) => keys.feature(key)?,
            Asked::Without(key) => !keys.feature(key)?,
            Asked::Given(given) => given(queues),
            Asked::Live(_) => continue,
        };
        asked = asked.with(row.feature, on);
    }
    Ok(asked.grantable())
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
        // As with states: some write the NUL of a C string, too.
        let digits = value.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0');
        match digits.parse() {
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
        assert_eq!(negotiated.features, Features::LINUX);
    }

    #[test]
    fn all_that_is_read_of_linux_is_known_before() {
        let asked = RefCell::default();
        negotiate(1, |key| {
            let value = LINUX.iter().find(|(name, _)| *name == key);
            RefCell::<Vec<_>>::borrow_mut(&asked).push(key.to_owned());
            Ok(value.map(|(_, value)| Box::from(*value)))
        })
        .unwrap();
        assert_eq!(
            BTreeSet::from_iter(asked.into_inner().iter().map(String::as_str)),
            BTreeSet::from_iter(likely_keys())
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
        assert_eq!(negotiated.features, Features::of(&[Feature::CsumV4]));
    }

    /// Whatever reads numbers as C does takes these, and so do all other backends.
    #[test]
    fn what_surrounds_a_number_is_of_no_account() {
        for value in ["7\0", " 7\n", "7\n\0"] {
            let queues = linux_with("tx-ring-ref", value).unwrap().queues;
            let tx_ring = queues.iter().next().unwrap().tx_ring;
            assert_eq!(tx_ring.raw(), 7, "{value:?}");
        }
        assert!(linux_with("tx-ring-ref", "7\0 7").is_err());
    }

    #[test]
    fn segmentation_needs_what_it_stands_on() {
        use Feature::{CsumV4, CsumV6, GsoTcpv4, GsoTcpv6, Sg};
        for (key, value, missing) in [
            ("feature-no-csum-offload", "1", &[CsumV4, GsoTcpv4][..]),
            ("feature-ipv6-csum-offload", "0", &[CsumV6, GsoTcpv6]),
            ("feature-sg", "0", &[Sg, GsoTcpv4, GsoTcpv6]),
            ("feature-gso-tcpv4", "0", &[GsoTcpv4]),
            ("feature-gso-tcpv6", "0", &[GsoTcpv6]),
        ] {
            let has = linux_with(key, value).unwrap().features;
            assert_eq!(has, Features::LINUX.without(missing), "{key} = {value}");
        }
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
