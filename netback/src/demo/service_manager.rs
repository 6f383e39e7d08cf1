// SPDX-License-Identifier: GPL-3.0-or-later
//! Plays the service manager that keeps taps open while the machine has no daemon.

use std::io;
use std::sync::mpsc::Receiver;

use crate::keeper::{Keeper, Kept, Order};

/// A service manager that carries orders out late: when it starts the next daemon. What it is ordered to keep is
/// kept from the order on.
#[derive(Debug)]
pub(super) struct ServiceManager {
    keeper: Keeper,
    orders: Receiver<Order>,
    kept: Kept,
}

impl ServiceManager {
    pub(super) fn new() -> Self {
        let (keeper, orders) = Keeper::new();
        Self {
            keeper,
            orders,
            kept: Kept::new(),
        }
    }

    /// What the next daemon starts with.
    pub(super) fn pass(&mut self) -> io::Result<(Keeper, Kept)> {
        self.carry_out();
        let copies = self.kept.iter().map(|(device, tap)| {
            let copy = tap.try_clone()?;
            Ok((*device, copy))
        });
        Ok((self.keeper.clone(), copies.collect::<io::Result<_>>()?))
    }

    /// How many taps it keeps.
    pub(super) fn count(&mut self) -> usize {
        self.carry_out();
        self.kept.len()
    }

    fn carry_out(&mut self) {
        for order in self.orders.try_iter() {
            match order {
                Order::Keep(device, tap) => drop(self.kept.insert(device, tap)),
                Order::Release(device) => drop(self.kept.remove(&device)),
            }
        }
    }
}
