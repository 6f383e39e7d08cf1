// SPDX-License-Identifier: GPL-3.0-or-later
//! Granted pages of the bench's guest, used round and round: slot N of a ring has page N, modulo their number.

use xen_ring::SysError;

use crate::bench::BenchError;
use crate::demo::sim::{Grant, GuestPage, SimGuest};

/// Some pages, granted for as long as this lives.
#[derive(Debug)]
pub(super) struct Memory {
    pages: Vec<GuestPage>,
    grants: Vec<Grant>,
}

impl Memory {
    /// `count` pages, at least one.
    pub(super) fn new(guest: &SimGuest, count: usize, readonly: bool) -> Result<Self, BenchError> {
        let pages = GuestPage::many(count.max(1))?;
        let grants = pages.iter().map(|page| guest.grant(page, readonly));
        let grants = grants.collect::<Result<_, SysError>>()?;
        Ok(Self { pages, grants })
    }

    /// The reference of the page that a slot has.
    #[inline]
    pub(super) fn of_slot(&self, index: u32) -> u32 {
        let page = index as usize % self.grants.len();
        self.grants.get(page).map_or(0, |grant| grant.gref().raw())
    }

    /// Fills the beginning of every page.
    pub(super) fn fill(&self, bytes: &[u8]) -> Result<(), BenchError> {
        for page in &self.pages {
            page.write(0, bytes)?;
        }
        Ok(())
    }
}
