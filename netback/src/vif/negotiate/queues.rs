// SPDX-License-Identifier: GPL-3.0-or-later
//! How many queue pairs a frontend has, and where each one's rings and event channels are; and
//! where its control ring is, if it has one.
//!
//! One queue pair has its keys in the frontend's own directory; of several each has a directory
//! `queue-N` (netif.h, "multi-queue"). Each pair may have one event channel or two. No page and
//! no port may be given twice, in one pair or over all of them, the control ring's included.

use std::collections::BTreeMap;

use xen_ring::{GrantRef, RemotePort};

use super::{FrontendKeys, NegotiateError, Read};
use crate::vif::control::RingKeys;

/// The most queue pairs that can be offered. More than any guest's driver asks for, and few
/// enough that reading their keys does not hold up the control thread.
pub const MAX_QUEUES: u16 = 32;

/// The key with the number of queue pairs that a backend offers.
pub const OFFER: &str = "multi-queue-max-queues";

/// The key with the number of queue pairs that the frontend has made.
const CHOICE: &str = "multi-queue-num-queues";

/// The keys of a control ring's page and event channel: in the frontend's own directory, however
/// many queues there are.
const CONTROL: (&str, &str) = ("ctrl-ring-ref", "event-channel-ctrl");

/// The keys of a frontend with one queue pair, an event channel for each of its rings, and a control
/// ring.
pub(super) const LIKELY_KEYS: [&str; 7] = [
    CHOICE,
    "tx-ring-ref",
    "rx-ring-ref",
    "event-channel-tx",
    "event-channel-rx",
    CONTROL.0,
    CONTROL.1,
];

/// A frontend's queue pairs, in order, and its control ring: at least one pair, and nothing
/// shares a page or a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queues {
    pairs: Vec<QueueKeys>,
    control: Option<RingKeys>,
}

/// Where one queue pair's rings are and how to signal them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueKeys {
    /// The tx ring's page.
    pub tx_ring: GrantRef,
    /// The rx ring's page: never the tx ring's.
    pub rx_ring: GrantRef,
    /// The event channels.
    pub channels: Channels,
}

/// One event channel for both rings, or one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// `event-channel`.
    Single(RemotePort),
    /// `event-channel-tx` and `event-channel-rx`: two different ports.
    Split {
        /// For the tx ring.
        tx: RemotePort,
        /// For the rx ring.
        rx: RemotePort,
    },
}

impl Queues {
    /// Reads them, `offered` at most.
    pub(super) fn read<R: Read>(
        keys: &FrontendKeys<R>,
        offered: u16,
    ) -> Result<Self, NegotiateError> {
        let asked = keys.number(CHOICE)?.unwrap_or(1);
        let mut reader = Reader {
            keys,
            pages: BTreeMap::new(),
            ports: BTreeMap::new(),
        };
        let pairs = match asked {
            1 => vec![reader.queue("")?],
            2.. if asked <= offered.into() => (0..asked)
                .map(|index| reader.queue(&format!("queue-{index}/")))
                .collect::<Result<_, _>>()?,
            _ => return Err(NegotiateError::Queues { asked, offered }),
        };
        Ok(Self {
            pairs,
            control: reader.control()?,
        })
    }

    /// Each one's keys, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &QueueKeys> {
        self.pairs.iter()
    }

    /// How many there are: never 0.
    pub fn count(&self) -> u16 {
        // Lossless: there are MAX_QUEUES at most.
        u16::try_from(self.pairs.len()).unwrap_or(u16::MAX)
    }

    /// Where the control ring is.
    pub fn control(&self) -> Option<RingKeys> {
        self.control
    }

    /// Whether there is a control ring.
    pub fn have_control(&self) -> bool {
        self.control.is_some()
    }

    /// Whether each direction has an event channel of its own, in every pair.
    pub fn are_split(&self) -> bool {
        self.iter()
            .all(|queue| matches!(queue.channels, Channels::Split { .. }))
    }
}

/// Reads one queue pair after another, and remembers the key of each number that was given.
struct Reader<'k, R> {
    keys: &'k FrontendKeys<R>,
    pages: BTreeMap<u32, String>,
    ports: BTreeMap<u32, String>,
}

impl<R: Read> Reader<'_, R> {
    fn queue(&mut self, dir: &str) -> Result<QueueKeys, NegotiateError> {
        Ok(QueueKeys {
            tx_ring: self.page(format!("{dir}tx-ring-ref"))?,
            rx_ring: self.page(format!("{dir}rx-ring-ref"))?,
            channels: self.channels(dir)?,
        })
    }

    /// Both keys or neither.
    fn control(&mut self) -> Result<Option<RingKeys>, NegotiateError> {
        let (ring, port) = CONTROL;
        if self
            .keys
            .number(ring)?
            .or(self.keys.number(port)?)
            .is_none()
        {
            return Ok(None);
        }
        Ok(Some(RingKeys {
            ring: self.page(ring.to_owned())?,
            port: self.port(port.to_owned())?,
        }))
    }

    /// A frontend with split channels writes the pair and no `event-channel`, so the pair is
    /// tried first.
    fn channels(&mut self, dir: &str) -> Result<Channels, NegotiateError> {
        let key = format!("{dir}event-channel-tx");
        match self.keys.number(&key)? {
            None => Ok(Channels::Single(self.port(format!("{dir}event-channel"))?)),
            Some(tx) => Ok(Channels::Split {
                tx: self.own_port(tx, key)?,
                rx: self.port(format!("{dir}event-channel-rx"))?,
            }),
        }
    }

    fn page(&mut self, key: String) -> Result<GrantRef, NegotiateError> {
        let number = self.keys.required(&key)?;
        only_once("grant reference", &mut self.pages, number, key)?;
        Ok(GrantRef::new(number))
    }

    fn port(&mut self, key: String) -> Result<RemotePort, NegotiateError> {
        let number = self.keys.required(&key)?;
        self.own_port(number, key)
    }

    fn own_port(&mut self, number: u32, key: String) -> Result<RemotePort, NegotiateError> {
        only_once("event channel", &mut self.ports, number, key)?;
        Ok(RemotePort::new(number))
    }
}

fn only_once(
    what: &'static str,
    given: &mut BTreeMap<u32, String>,
    value: u32,
    key: String,
) -> Result<(), NegotiateError> {
    match given.insert(value, key.clone()) {
        None => Ok(()),
        Some(first) => Err(NegotiateError::Twice {
            what,
            value,
            first,
            second: key,
        }),
    }
}

#[cfg(test)]
mod tests;
