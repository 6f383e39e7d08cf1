// SPDX-License-Identifier: GPL-3.0-or-later
//! What all devices share on the control thread: the store, the workers, the timers, the poll.

use hotplug::{Spread, Tap};
use mio::{Registry, Token};
use std::collections::HashMap;
use std::os::fd::AsFd;

use xenbus::DevicePath;

use super::store::Store;
use super::timers::Due;
use crate::config::Config;
use crate::keeper::{Keeper, Kept};
use crate::preflight;
use crate::timers::Timers;
use crate::vif::QueueId;
use crate::vif::control::Peer;
use crate::vif::control::statics::Quotas;
use crate::worker::{Command, Place, WorkerId, Workers};

pub(super) struct Host {
    pub(super) config: Config,
    pub(super) store: Store,
    pub(super) workers: Workers,
    pub(super) timers: Timers<Due>,
    pub(super) registry: Registry,
    /// What the guests' static grants are counted by.
    pub(super) static_grants: Quotas,
    /// Where the kernel's driver may turn up beside this daemon; `None` if all here is simulated.
    pub(super) machine: Option<preflight::Host>,
    /// Who keeps taps open while no daemon runs.
    pub(super) keeper: Option<Keeper>,
    /// Of those that were kept from the daemon before: for which no device has asked yet.
    pub(super) kept: Kept,
    /// What spreads flows over the queues of a tap; `None` if that is left to the kernel.
    spread: Option<Spread>,
    scripts: HashMap<Token, DevicePath>,
    connections: u64,
    next_script: usize,
}

/// Scripts get tokens from here on; below are the control thread's own.
pub(super) const FIRST_SCRIPT: usize = 1 << 16;

impl Host {
    pub(super) fn new(config: Config, store: Store, workers: Workers, registry: Registry) -> Self {
        Self {
            config,
            store,
            workers,
            timers: Timers::default(),
            registry,
            static_grants: Quotas::default(),
            machine: None,
            keeper: None,
            kept: Kept::new(),
            spread: spread(),
            scripts: HashMap::new(),
            connections: 0,
            next_script: FIRST_SCRIPT,
        }
    }

    /// What spreads the flows of a guest that does not say how, over so many queues.
    pub(super) fn spread(&self, queues: u16) -> Option<&Spread> {
        self.spread.as_ref().filter(|_| queues > 1)
    }

    /// A new connection of `device` with so many queue pairs: their names, and a worker for each.
    pub(super) fn assign(&mut self, device: DevicePath, count: u16) -> Vec<(QueueId, Place)> {
        self.connections += 1;
        let connection = self.connections;
        let assign = |index| {
            let id = QueueId {
                device,
                connection,
                index,
            };
            (id, self.workers.assign())
        };
        (0..count).map(assign).collect()
    }

    /// Queue pairs as they can be told something by one another. `None` if a worker is not there.
    pub(super) fn peers(&self, assigned: &[(QueueId, Place)]) -> Option<Vec<Peer>> {
        let peer = |(queue, place): &(QueueId, Place)| {
            let worker = self.workers.link(place.worker())?.clone();
            Some(Peer {
                queue: *queue,
                worker,
            })
        };
        assigned.iter().map(peer).collect()
    }

    /// Sends a worker a command. `false`, with a line in the log, when the worker is dead.
    pub(super) fn send(&self, worker: WorkerId, command: Command) -> bool {
        match self.workers.send(worker, command) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "a worker cannot be reached");
                false
            }
        }
    }

    /// Has the device's tap kept open for the next daemon.
    pub(super) fn keep(&self, device: DevicePath, tap: &Tap) {
        let Some(keeper) = &self.keeper else {
            return;
        };
        match tap.as_fd().try_clone_to_owned() {
            Ok(tap) => keeper.keep(device, tap),
            Err(error) => {
                tracing::warn!(%device, %error, "the tap will not be kept open when the daemon ends");
            }
        }
    }

    /// Nothing of the device is to be kept any more.
    pub(super) fn release(&self, device: DevicePath) {
        if let Some(keeper) = &self.keeper {
            keeper.release(device);
        }
    }

    /// A new token for a script of `device`.
    pub(super) fn new_script(&mut self, device: DevicePath) -> Token {
        let token = Token(self.next_script);
        self.next_script += 1;
        self.scripts.insert(token, device);
        token
    }

    /// Whose script it is.
    pub(super) fn script_owner(&self, token: Token) -> Option<DevicePath> {
        self.scripts.get(&token).copied()
    }

    /// The script has ended.
    pub(super) fn drop_script(&mut self, token: Token) {
        self.scripts.remove(&token);
    }
}

/// Loads the program that spreads flows. Without it all goes on as well, with a little more work.
fn spread() -> Option<Spread> {
    let spread = Spread::new();
    if let Err(error) = &spread {
        tracing::info!(%error, "the kernel lets netback load no BPF program: it chooses the queues of several by itself, which costs it more");
    }
    spread.ok()
}
