// SPDX-License-Identifier: GPL-3.0-or-later
//! Pages of a simulated guest's memory.
//!
//! A page is shared between the guest, which holds a [`GuestPage`], and whatever the backend has mapped of it;
//! it lives until the last of them is gone, as a page does under Xen. All access goes through [`SharedPage`]:
//! both sides may write at any time.

use std::any::Any;

use xen_ring::page::OutsidePage;
use xen_ring::{SharedPage, SysError};

/// One page of a guest's memory. Cheap to clone: every clone is the same page.
#[derive(Debug, Clone)]
pub struct GuestPage(SharedPage);

impl GuestPage {
    /// A fresh page of zeroes.
    ///
    /// # Errors
    /// The host is out of memory or mappings.
    pub fn new() -> Result<Self, SysError> {
        SharedPage::anonymous().map(Self)
    }

    /// Many fresh pages of zeroes, next to each other.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn many(count: usize) -> Result<Vec<Self>, SysError> {
        Ok(SharedPage::anonymous_pages(count)?
            .into_iter()
            .map(Self)
            .collect())
    }

    /// Another owner of the same page; `guard` is dropped with it.
    pub(super) fn share<G: Any + Send + Sync>(&self, guard: G) -> SharedPage {
        self.0.with_guard(guard)
    }

    /// The page as the guest's own driver uses it, for instance as a ring.
    #[must_use]
    pub fn mapped(&self) -> SharedPage {
        self.0.clone()
    }

    /// Copies out of the page.
    ///
    /// # Errors
    /// The range is not inside the page; nothing is copied.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), OutsidePage> {
        self.0.copy_from(offset, out)
    }

    /// Copies into the page.
    ///
    /// # Errors
    /// The range is not inside the page; nothing is copied.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), OutsidePage> {
        self.0.copy_to(offset, bytes)
    }
}
