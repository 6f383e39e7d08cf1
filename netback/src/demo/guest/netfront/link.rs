// SPDX-License-Identifier: GPL-3.0-or-later
//! One connection of a model frontend: its queue pairs with their event channels, how they are told to the backend,
//! and which of them a frame goes through.

use super::NetfrontError;
use crate::demo::guest::checksum;
use crate::demo::guest::control::Control;
use crate::demo::guest::domain::{Domain, Port};
use crate::demo::guest::options::FrontendOptions;
use crate::demo::guest::queue::{FrontStats, Received, RxQueue, TxQueue};
use crate::demo::guest::store::FrontendStore;

/// All that exists only between the publication of the rings and the end of the connection.
#[derive(Debug)]
pub(super) struct Link {
    /// At least one.
    pub(super) pairs: Vec<Pair>,
    pub(super) control: Option<Control>,
    /// The backend takes frames of more than one slot.
    pub(super) sg: bool,
    /// The backend segments TCP over IPv4.
    gso: bool,
    /// The backend segments TCP over IPv6.
    gso_v6: bool,
    /// The backend takes blank checksums over IPv6. Over IPv4 every backend does.
    ipv6_csum: bool,
    /// Where to look for the next received frame first.
    next: usize,
}

/// One queue pair.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) tx: TxQueue,
    pub(super) rx: RxQueue,
    pub(super) ports: Ports,
}

#[derive(Debug)]
pub(super) enum Ports {
    Single(Port),
    Split { tx: Port, rx: Port },
}

/// The keys of a control ring.
const CONTROL_KEYS: [&str; 2] = ["ctrl-ring-ref", "event-channel-ctrl"];

/// A key of the frontend's directory with its value, or `None` where it must not be there.
type Key = (String, Option<String>);

impl Link {
    pub(super) fn new(
        domain: &Domain,
        store: &FrontendStore,
        options: &FrontendOptions,
    ) -> Result<Self, NetfrontError> {
        let split =
            options.split_event_channels && store.backend_offers("feature-split-event-channels")?;
        let count = options.queues.clamp(1, store.backend_queues()?);
        let pairs = (0..count).map(|_| Pair::new(domain, options, split));
        let pairs = pairs.collect::<Result<_, _>>()?;
        let control = options.control_ring && store.backend_offers("feature-ctrl-ring")?;
        let control = control.then(|| Control::new(domain, options.start_index));
        Ok(Self {
            pairs,
            control: control.transpose()?,
            sg: store.backend_offers("feature-sg")?,
            gso: store.backend_offers("feature-gso-tcpv4")?,
            gso_v6: store.backend_offers("feature-gso-tcpv6")?,
            ipv6_csum: store.backend_offers("feature-ipv6-csum-offload")?,
            next: 0,
        })
    }

    /// What goes into the frontend's directory. Keys of an earlier connection that do not hold now are removed, of
    /// which `formerly` had queues in directories of their own.
    pub(super) fn keys(&self, options: &FrontendOptions, formerly: usize) -> Vec<Key> {
        let flag = |on: bool| on.then(|| "1".to_owned());
        let features = [
            ("multi-queue-num-queues", Some(self.pairs.len().to_string())),
            ("request-rx-copy", flag(options.rx_copy)),
            ("feature-rx-notify", flag(options.rx_notify)),
            ("feature-sg", flag(options.sg)),
            ("feature-gso-tcpv4", flag(options.gso)),
            ("feature-gso-tcpv6", flag(options.gso_v6)),
            ("feature-no-csum-offload", flag(!options.csum_offload)),
            ("feature-ipv6-csum-offload", flag(options.ipv6_csum_offload)),
        ];
        let mut keys: Vec<Key> = (0..formerly)
            .map(|index| (format!("queue-{index}"), None))
            .collect();
        keys.extend(features.map(|(key, value)| (key.to_owned(), value)));
        match &self.control {
            Some(control) => {
                let control = control.keys().into_iter();
                keys.extend(control.map(|(key, value)| (key.to_owned(), Some(value))));
            }
            // What an earlier connection wrote is removed.
            None => keys.extend(CONTROL_KEYS.map(|key| (key.to_owned(), None))),
        }
        match self.pairs.as_slice() {
            [only] => keys.extend(only.keys("")),
            several => {
                let flat = several.iter().take(1).flat_map(|pair| pair.keys(""));
                keys.extend(flat.map(|(key, _)| (key, None)));
                for (index, pair) in several.iter().enumerate() {
                    keys.extend(pair.keys(&format!("queue-{index}/")));
                }
            }
        }
        keys
    }

    /// How many queues have directories of their own.
    pub(super) fn directories(&self) -> usize {
        match self.pairs.len() {
            1 => 0,
            several => several,
        }
    }

    /// Whether the backend segments a TCP frame like this.
    pub(super) fn takes_gso(&self, frame: &[u8]) -> bool {
        if checksum::is_ipv6(frame) {
            self.gso_v6
        } else {
            self.gso
        }
    }

    /// Whether the backend takes a frame like this with a blank checksum.
    pub(super) fn takes_blank(&self, frame: &[u8]) -> bool {
        self.ipv6_csum || !checksum::is_ipv6(frame)
    }

    /// Which queue pair a frame is sent on: always the same for one flow, so that it stays in order.
    pub(super) fn queue_of(&self, frame: &[u8]) -> usize {
        flow(frame) % self.pairs.len().max(1)
    }

    /// The next received frame; the pairs take turns.
    pub(super) fn receive(&mut self, stats: &mut FrontStats) -> Option<Received> {
        let count = self.pairs.len();
        for offset in 0..count {
            let index = (self.next + offset) % count;
            let pair = self.pairs.get_mut(index)?;
            if let Some(frame) = pair.rx.receive(stats) {
                stats.queues(count).get_mut(index)?.rx_frames += 1;
                self.next = index + 1;
                return Some(frame);
            }
        }
        None
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = &Port> {
        self.pairs.iter().flat_map(|pair| pair.ports.all())
    }
}

impl Pair {
    fn new(domain: &Domain, options: &FrontendOptions, split: bool) -> Result<Self, NetfrontError> {
        let ports = if split {
            Ports::Split {
                tx: domain.alloc_port()?,
                rx: domain.alloc_port()?,
            }
        } else {
            Ports::Single(domain.alloc_port()?)
        };
        Ok(Self {
            tx: TxQueue::new(domain, options)?,
            rx: RxQueue::new(domain, options)?,
            ports,
        })
    }

    fn keys(&self, dir: &str) -> impl Iterator<Item = Key> {
        let (single, tx, rx) = match &self.ports {
            Ports::Single(port) => (Some(port.port().to_string()), None, None),
            Ports::Split { tx, rx } => (
                None,
                Some(tx.port().to_string()),
                Some(rx.port().to_string()),
            ),
        };
        [
            ("tx-ring-ref", Some(self.tx.ring_ref().to_string())),
            ("rx-ring-ref", Some(self.rx.ring_ref().to_string())),
            ("event-channel", single),
            ("event-channel-tx", tx),
            ("event-channel-rx", rx),
        ]
        .map(|(key, value)| (format!("{dir}{key}"), value))
        .into_iter()
    }
}

/// A number that is the same for all frames of a TCP connection or a UDP socket pair, and 0 for all others.
fn flow(frame: &[u8]) -> usize {
    // Ethernet: type at 12. IPv4 at 14: version and length, fragment at +6, protocol at +9, addresses at +12, ports
    // at +20 if there are no options.
    let is_ipv4 = frame.get(12..15) == Some(&[0x08, 0x00, 0x45]);
    let is_whole = matches!(frame.get(20..22), Some(&[0 | 0x40, 0]));
    let has_ports = matches!(frame.get(23), Some(6 | 17));
    let is_v4_flow = is_ipv4 && is_whole && has_ports;
    // IPv6: next header at +6, addresses at +8, ports at +40 if there are no extension headers.
    let is_v6_flow = checksum::is_ipv6(frame) && matches!(frame.get(20), Some(6 | 17));
    let words = match (is_v4_flow, is_v6_flow) {
        (true, _) => frame.get(26..38),
        (_, true) => frame.get(22..58),
        _ => None,
    };
    words.map_or(0, |words| {
        words.iter().fold(5381_usize, |hash, byte| {
            hash.wrapping_mul(33) ^ usize::from(*byte)
        })
    })
}

impl Ports {
    pub(super) fn tx(&self) -> &Port {
        match self {
            Self::Single(port) | Self::Split { tx: port, .. } => port,
        }
    }

    pub(super) fn rx(&self) -> &Port {
        match self {
            Self::Single(port) | Self::Split { rx: port, .. } => port,
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Port> {
        let second = match self {
            Self::Single(_) => None,
            Self::Split { rx, .. } => Some(rx),
        };
        std::iter::once(self.tx()).chain(second)
    }
}
