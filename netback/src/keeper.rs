// SPDX-License-Identifier: GPL-3.0-or-later
//! Who keeps the taps open while no daemon runs: the service manager (systemd's file descriptor store), if it has
//! started this daemon and its unit allows for it.
//!
//! A tap that nobody holds has no carrier: a bridge forgets what it has learnt behind such a port and, if it speaks the
//! spanning tree protocol, lets nothing through for a while; and what the host sends is lost. One that is kept open has
//! its carrier, and what comes for the guest waits in its queue for the next daemon.
//!
//! Of each tap the descriptor of its first queue is kept, which lives as long as the tap; the host then puts all of the
//! guest's frames into that one. The control thread orders; orders are carried out by a thread of their own, since a
//! service manager that is busy makes whoever tells it something wait.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};

use sd_notify::NotifyState;
use xenbus::DevicePath;
use xenbus::path::Subject;

/// What the service manager is asked to do.
#[derive(Debug)]
pub enum Order {
    /// To keep the device's tap open.
    Keep(DevicePath, OwnedFd),
    /// To close whatever it keeps of the device.
    Release(DevicePath),
}

/// Orders to whoever keeps taps.
#[derive(Debug, Clone)]
pub struct Keeper {
    orders: Sender<Order>,
}

/// Taps that were kept, by device.
pub type Kept = HashMap<DevicePath, OwnedFd>;

impl Keeper {
    /// A keeper whose orders come out of the other end.
    #[must_use]
    pub fn new() -> (Self, Receiver<Order>) {
        let (orders, taken) = channel();
        (Self { orders }, taken)
    }

    /// The service manager that has started this process. `None` if there is none that listens.
    ///
    /// # Errors
    ///
    /// There is no thread.
    pub fn service_manager() -> io::Result<Option<Self>> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(None);
        }
        let (keeper, orders) = Self::new();
        std::thread::Builder::new()
            .name("keeper".into())
            .spawn(move || orders.into_iter().for_each(carry_out))?;
        Ok(Some(keeper))
    }

    /// Has the device's tap kept.
    pub fn keep(&self, device: DevicePath, tap: OwnedFd) {
        self.order(Order::Keep(device, tap));
    }

    /// Has it closed.
    pub fn release(&self, device: DevicePath) {
        self.order(Order::Release(device));
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            tracing::error!("nobody takes orders to keep taps open");
        }
    }
}

/// What the service manager has kept from a former daemon, among what was passed to this process
/// ([`hotplug::inherited`]). Whatever else was passed is closed. There cannot be more than one tap of a device that has
/// not gone, so the last is the one.
#[must_use]
pub fn kept(passed: Vec<(String, OwnedFd)>) -> Kept {
    let device = |(name, tap): (String, OwnedFd)| match Subject::of(&name) {
        Subject::Device(device) if device.dir() == name => Some((device, tap)),
        _ => {
            tracing::warn!(
                ?name,
                "the service manager has passed what is no tap: it is closed"
            );
            None
        }
    };
    passed.into_iter().filter_map(device).collect()
}

fn carry_out(order: Order) {
    let told = match &order {
        Order::Keep(device, tap) => sd_notify::notify_with_fds(
            &[
                NotifyState::FdStore,
                NotifyState::FdName(&device.dir()),
                UNWATCHED,
            ],
            &[tap.as_fd()],
        ),
        Order::Release(device) => sd_notify::notify(&[
            NotifyState::FdStoreRemove,
            NotifyState::FdName(&device.dir()),
        ]),
    };
    if let Err(error) = told {
        tracing::warn!(%error, ?order, "the service manager cannot be told to keep taps open");
    }
}

/// systemd need not wait for a kept tap to be gone. It would be woken for each frame: only to see that this is no error.
const UNWATCHED: NotifyState<'_> = NotifyState::Custom("FDPOLL=0");

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use xenbus::DomId;

    use super::*;

    #[test]
    fn taps_are_known_by_their_devices() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let passed = [
            "backend/vif/5/0",
            "backend/vif/5",
            "backend/vif/5/1/state",
            "unknown",
            "",
        ];
        let copies = passed.map(|name| (name.to_owned(), ours.try_clone().unwrap().into()));
        let mut kept = super::kept(copies.into());
        assert_eq!(kept.len(), 1);
        let device = DevicePath::new(DomId::parse("5").unwrap(), 0);
        let tap = kept.remove(&device).unwrap();
        drop(ours);
        theirs.send(b"x").unwrap();
        drop(tap);
        assert!(theirs.send(b"x").is_err(), "the others are closed");
    }

    /// Linux starts no program with a longer variable: neither would the next daemon start, however often it is tried.
    #[test]
    fn the_names_of_all_that_is_kept_fit_into_one_variable() {
        const LONGEST: usize = 32 * 4096; // MAX_ARG_STRLEN, name and NUL included
        let unit = include_str!("../netback.service");
        let mut settings = unit.lines().filter_map(|line| line.split_once('='));
        let most = settings.find(|(name, _)| *name == "FileDescriptorStoreMax");
        let most: usize = most.unwrap().1.parse().unwrap();
        let device = DevicePath::new(DomId::parse("32751").unwrap(), u32::MAX);
        let names = vec![device.dir(); most].join(":");
        assert!("LISTEN_FDNAMES=".len() + names.len() < LONGEST);
    }

    #[test]
    fn orders_come_out_as_they_were_given() {
        let (keeper, orders) = Keeper::new();
        let device = DevicePath::new(DomId::parse("5").unwrap(), 0);
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        keeper.keep(device, ours.into());
        keeper.release(device);
        theirs.send(b"x").unwrap();
        assert!(matches!(orders.recv().unwrap(), Order::Keep(of, _) if of == device));
        assert!(matches!(orders.recv().unwrap(), Order::Release(of) if of == device));
        assert!(
            theirs.send(b"x").is_err(),
            "an order that is carried out keeps nothing"
        );
        // A daemon whose orders nobody takes goes on.
        drop(orders);
        keeper.release(device);
    }
}
