// SPDX-License-Identifier: GPL-3.0-or-later
//! The limits of a vif's traffic: where they are written, and when they change.
//!
//! What the guest transmits is limited by the backend node `rate`, which libxl writes from the
//! vif line and anybody in dom0 may change at any time; what it receives by `limits.rate-to-guest`
//! of the configuration. Both are shared by all queues of the vif.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use xenbus::{Client, DevicePath, Key, device, is_disconnected};

use super::connection::Connection;
use super::host::Host;
use super::vif::Vif;
use crate::config::Config;
use crate::logging::{if_any, printable};
use crate::vif::{Bucket, Limits, Rate};
use crate::worker::Command;

/// The limits of one vif.
#[derive(Debug)]
pub(super) struct VifLimits {
    pub(super) buckets: Arc<Limits>,
    /// What the node `rate` says; an error is why it says nothing that can be understood.
    tx: Result<Option<Rate>, String>,
    rx: Option<Rate>,
}

impl VifLimits {
    /// No limit from the guest until the node has been read.
    pub(super) fn new(config: &Config) -> Self {
        let (now, rx) = (Instant::now(), config.limits.rate_to_guest);
        Self {
            buckets: Arc::new(Limits {
                tx: Bucket::new(None, now),
                rx: Bucket::new(rx, now),
            }),
            tx: Ok(None),
            rx,
        }
    }

    /// Of what the guest transmits.
    pub(super) fn tx(&self) -> Option<Rate> {
        self.tx.as_ref().copied().ok().flatten()
    }

    /// Of what it receives.
    pub(super) fn rx(&self) -> Option<Rate> {
        self.rx
    }
}

impl Vif {
    /// Reads the node `rate` and keeps to it from now on, also in the midst of traffic. A node
    /// that makes no sense is no limit, as with the kernel's backend, and a line in the log.
    pub(super) fn follow_rate(&mut self, host: &mut Host) {
        let path = self.path;
        let Some(read) = host.store.ask(path, "read rate", |c| read_rate(c, path)) else {
            return;
        };
        if read == self.limits.tx {
            return;
        }
        self.limits.tx = read;
        let rate = self.limits.tx();
        self.limits.buckets.tx.set(rate);
        for (worker, queue) in self.connection.iter().flat_map(Connection::queues) {
            host.send(worker, Command::Look(queue));
        }
        self.log_rate(rate);
    }

    fn log_rate(&mut self, rate: Option<Rate>) {
        let Some(suppressed) = self.log_limit.allow(Instant::now()) else {
            return;
        };
        let (vif, domid, suppressed) = (self.name(), self.path.dom, if_any(suppressed));
        match (&self.limits.tx, rate) {
            (Err(reason), _) => {
                tracing::warn!(%vif, %domid, %reason, suppressed, "the node rate makes no sense: what the guest transmits is not limited");
            }
            (_, Some(rate)) => {
                let mbit = rate.mbit_per_second();
                tracing::info!(%vif, %domid, %rate, mbit, suppressed, "what the guest transmits is limited");
            }
            (_, None) => {
                tracing::info!(%vif, %domid, suppressed, "what the guest transmits is not limited");
            }
        }
    }
}

/// The error is a lost store; the inner one a node that makes no sense.
fn read_rate(client: &Client, path: DevicePath) -> io::Result<Result<Option<Rate>, String>> {
    let text = match device::optional(client, &path.key(Key::Rate)) {
        Err(error) if is_disconnected(&error) => return Err(error),
        Err(error) => return Ok(Err(format!("it cannot be read: {error}"))),
        Ok(text) => text,
    };
    let parse = |text: Box<str>| {
        Rate::from_node(&text).map_err(|why| format!("{:?}: {why}", printable(&text, 60)))
    };
    Ok(text.map(parse).transpose())
}
