// SPDX-License-Identifier: GPL-3.0-or-later
//! One connection of a model frontend: its queues and event channels, and how they are told to the backend.

use super::NetfrontError;
use crate::demo::guest::options::FrontendOptions;
use crate::demo::guest::queue::{RxQueue, TxQueue};
use crate::demo::guest::store::FrontendStore;
use crate::demo::sim::{GuestPort, SimGuest};

/// All that exists only between the publication of the rings and the end of the connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) tx: TxQueue,
    pub(super) rx: RxQueue,
    pub(super) ports: Ports,
    /// The backend takes frames of more than one slot.
    pub(super) sg: bool,
    /// The backend segments TCP over IPv4.
    pub(super) gso: bool,
}

#[derive(Debug)]
pub(super) enum Ports {
    Single(GuestPort),
    Split { tx: GuestPort, rx: GuestPort },
}

impl Link {
    pub(super) fn new(
        guest: &SimGuest,
        store: &FrontendStore,
        options: &FrontendOptions,
    ) -> Result<Self, NetfrontError> {
        let split =
            options.split_event_channels && store.backend_offers("feature-split-event-channels")?;
        let ports = if split {
            Ports::Split {
                tx: guest.alloc_port()?,
                rx: guest.alloc_port()?,
            }
        } else {
            Ports::Single(guest.alloc_port()?)
        };
        Ok(Self {
            tx: TxQueue::new(guest, options)?,
            rx: RxQueue::new(guest, options)?,
            ports,
            sg: store.backend_offers("feature-sg")?,
            gso: store.backend_offers("feature-gso-tcpv4")?,
        })
    }

    /// What goes into the frontend's directory. Keys of an earlier connection that do not hold now are removed.
    pub(super) fn keys(&self, options: &FrontendOptions) -> Vec<(String, Option<String>)> {
        let flag = |on: bool| on.then(|| "1".to_owned());
        let (single, tx, rx) = match &self.ports {
            Ports::Single(port) => (Some(port.port().to_string()), None, None),
            Ports::Split { tx, rx } => (
                None,
                Some(tx.port().to_string()),
                Some(rx.port().to_string()),
            ),
        };
        [
            ("multi-queue-num-queues", flag(true)),
            ("tx-ring-ref", Some(self.tx.ring_ref().to_string())),
            ("rx-ring-ref", Some(self.rx.ring_ref().to_string())),
            ("event-channel", single),
            ("event-channel-tx", tx),
            ("event-channel-rx", rx),
            ("request-rx-copy", flag(options.rx_copy)),
            ("feature-rx-notify", flag(options.rx_notify)),
            ("feature-sg", flag(options.sg)),
            ("feature-gso-tcpv4", flag(options.gso)),
            ("feature-no-csum-offload", flag(!options.csum_offload)),
            ("feature-ipv6-csum-offload", flag(options.ipv6_csum_offload)),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }
}

impl Ports {
    pub(super) fn tx(&self) -> &GuestPort {
        match self {
            Self::Single(port) | Self::Split { tx: port, .. } => port,
        }
    }

    pub(super) fn rx(&self) -> &GuestPort {
        match self {
            Self::Single(port) | Self::Split { rx: port, .. } => port,
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &GuestPort> {
        let second = match self {
            Self::Single(_) => None,
            Self::Split { rx, .. } => Some(rx),
        };
        std::iter::once(self.tx()).chain(second)
    }
}
