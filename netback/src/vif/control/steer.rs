// SPDX-License-Identifier: GPL-3.0-or-later
//! Has the tap choose the queue of each frame as the guest wants it: by the frame's hash and the
//! guest's table. Only for vifs of several queues.
//!
//! How, and why in the kernel: [`hotplug::steering`].

use std::time::{Duration, Instant};

use hotplug::steering::Table;
use hotplug::{Steering, Tap};
use xen_ring::DomId;

use super::hash::Hasher;
use super::machine::HashConfig;
use crate::logging::{RateLimited, if_any};

/// What steers the frames of one connection.
#[derive(Debug)]
pub(super) struct Steer {
    steering: Steering,
    queues: u16,
    /// A guest may change its mind as often as it likes.
    failures: RateLimited,
}

impl Steer {
    pub(super) fn new(steering: Steering, queues: u16) -> Self {
        Self {
            steering,
            queues,
            failures: RateLimited::new(1, Duration::from_secs(60)),
        }
    }

    /// Brings a new configuration into effect: without a hash, the kernel chooses the queue by the
    /// flow that a frame belongs to. Nothing that a guest can configure makes this fail.
    pub(super) fn apply(
        &mut self,
        config: &HashConfig,
        hasher: Option<&Hasher>,
        tap: &Tap,
        guest: DomId,
    ) {
        let done = match hasher {
            None => tap.set_steering(None).map_err(|error| error.to_string()),
            Some(hasher) => self.steer(config, hasher, tap),
        };
        if let Err(error) = done
            && let Some(suppressed) = self.failures.allow(Instant::now())
        {
            tracing::error!(domid = %guest, %error, suppressed = if_any(suppressed), "packets are not steered as the guest wants it");
        }
    }

    fn steer(&self, config: &HashConfig, hasher: &Hasher, tap: &Tap) -> Result<(), String> {
        let modulo: Vec<u16> = (0..self.queues).collect();
        let table = Table {
            types: hasher.types().bits(),
            contributions: hasher.contributions(),
            queues: match config.mapping.as_slice() {
                [] => &modulo,
                mapping => mapping,
            },
        };
        self.steering
            .set(&table)
            .map_err(|error| error.to_string())?;
        tap.set_steering(Some(&self.steering))
            .map_err(|error| error.to_string())
    }
}
