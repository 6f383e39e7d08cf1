// SPDX-License-Identifier: GPL-3.0-or-later
//! Simulated grant tables and the operations of /dev/xen/gntdev on them.
//!
//! Each guest has a table: reference -> page, the one domain that may use it, and whether it may write. A page
//! that is mapped when its grant ends stays reachable through the mapping, and the entry stays in use, until it
//! is unmapped; no new use is possible. Statuses and errors are those of Xen and of Linux's gntdev.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use nix::errno::Errno;
use xen_ring::page::OutsidePage;
use xen_ring::{
    Access, CopyBatch, CopyOp, Direction, DomId, GrantRef, GrantStatus, Grants, SharedPage,
    StaticPage, SysError,
};

use super::memory::GuestPage;
use super::{read, refused, write};

/// References below this are reserved, as in every real guest.
const FIRST_REFERENCE: usize = 8;

/// The grant tables of every guest.
#[derive(Debug, Default)]
pub(super) struct GrantTables {
    domains: RwLock<HashMap<DomId, Arc<Table>>>,
    copies: AtomicU64,
}

/// One guest's grant table.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: RwLock<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    slots: Vec<Option<Entry>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    page: GuestPage,
    backend: DomId,
    readonly: bool,
    /// Mappings of it that exist now.
    maps: usize,
    /// The guest has ended the access; only existing mappings keep the entry.
    ended: bool,
}

impl GrantTables {
    /// The table of one domain, made when it is first asked for.
    pub(super) fn table(&self, guest: DomId) -> Arc<Table> {
        Arc::clone(write(&self.domains).entry(guest).or_default())
    }

    /// Entries in use in all tables: granted, or ended but still mapped.
    pub(super) fn granted(&self) -> usize {
        self.sum(|_| 1)
    }

    /// Mappings that exist now.
    pub(super) fn mapped(&self) -> usize {
        self.sum(|entry| entry.maps)
    }

    /// Copy operations done, ever.
    pub(super) fn copies(&self) -> u64 {
        self.copies.load(Ordering::Relaxed)
    }

    fn sum(&self, count: impl Fn(&Entry) -> usize) -> usize {
        let domains = read(&self.domains);
        domains
            .values()
            .map(|table| {
                read(&table.entries)
                    .slots
                    .iter()
                    .flatten()
                    .map(&count)
                    .sum::<usize>()
            })
            .sum()
    }
}

impl Table {
    fn grant(&self, entry: Entry) -> usize {
        let mut entries = write(&self.entries);
        if entries.slots.is_empty() {
            entries.slots.resize_with(FIRST_REFERENCE, || None);
        }
        let index = entries.free.pop().unwrap_or(entries.slots.len());
        match entries.slots.get_mut(index) {
            Some(slot) => *slot = Some(entry),
            None => entries.slots.push(Some(entry)),
        }
        index
    }

    fn end(&self, index: usize) {
        let mut entries = write(&self.entries);
        if let Some(Some(entry)) = entries.slots.get_mut(index) {
            entry.ended = true;
        }
        entries.reclaim(index);
    }

    fn map(self: &Arc<Self>, index: usize, backend: DomId, access: Access) -> Option<SharedPage> {
        let mut entries = write(&self.entries);
        let entry = entries.slots.get_mut(index)?.as_mut()?;
        let refused = entry.readonly && access == Access::ReadWrite;
        if entry.ended || refused || entry.backend != backend {
            return None;
        }
        entry.maps += 1;
        Some(entry.page.share(Mapping {
            table: Arc::clone(self),
            index,
        }))
    }

    fn unmap(&self, index: usize) {
        let mut entries = write(&self.entries);
        if let Some(Some(entry)) = entries.slots.get_mut(index) {
            entry.maps = entry.maps.saturating_sub(1);
        }
        entries.reclaim(index);
    }
}

impl Entries {
    /// Runs `with` on the page behind a reference if `backend` may use it so.
    fn access(
        &self,
        gref: GrantRef,
        backend: DomId,
        write: bool,
        with: impl FnOnce(&GuestPage) -> Result<(), OutsidePage>,
    ) -> GrantStatus {
        let entry = index_of(gref).and_then(|index| self.slots.get(index)?.as_ref());
        match entry {
            None => GrantStatus::BAD_GREF,
            // Xen calls both of these a general error.
            Some(entry) if entry.ended || entry.backend != backend => GrantStatus::GENERAL_ERROR,
            Some(entry) if write && entry.readonly => GrantStatus::GENERAL_ERROR,
            Some(entry) => match with(&entry.page) {
                Ok(()) => GrantStatus::OKAY,
                Err(OutsidePage { .. }) => GrantStatus::BAD_COPY_ARG,
            },
        }
    }

    /// Frees an entry that nobody can reach any more.
    fn reclaim(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index)
            && slot
                .as_ref()
                .is_some_and(|entry| entry.ended && entry.maps == 0)
        {
            *slot = None;
            self.free.push(index);
        }
    }
}

fn index_of(gref: GrantRef) -> Option<usize> {
    usize::try_from(gref.raw()).ok()
}

/// Keeps a mapping counted until the backend drops its page.
struct Mapping {
    table: Arc<Table>,
    index: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.table.unmap(self.index);
    }
}

/// A page granted by a guest. Dropping it ends the access.
pub struct Grant {
    table: Arc<Table>,
    index: usize,
    gref: GrantRef,
}

impl Grant {
    pub(super) fn new(
        table: Arc<Table>,
        page: GuestPage,
        backend: DomId,
        readonly: bool,
    ) -> Result<Self, SysError> {
        let index = table.grant(Entry {
            page,
            backend,
            readonly,
            maps: 0,
            ended: false,
        });
        let number = u32::try_from(index).map_err(|_| refused("granting a page", Errno::ENOSPC))?;
        Ok(Self {
            table,
            index,
            gref: GrantRef::new(number),
        })
    }

    /// The reference that goes into rings and xenstore.
    #[must_use]
    pub fn gref(&self) -> GrantRef {
        self.gref
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grant({})", self.gref)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.table.end(self.index);
    }
}

/// One open grant device of the backend domain.
pub struct SimGrants {
    pub(super) tables: Arc<GrantTables>,
    pub(super) domain: DomId,
}

impl SimGrants {
    fn map(&self, dom: DomId, gref: GrantRef, access: Access) -> Result<SharedPage, SysError> {
        let table = read(&self.tables.domains).get(&dom).cloned();
        // gntdev reports every bad reference as EINVAL.
        index_of(gref)
            .and_then(|index| table?.map(index, self.domain, access))
            .ok_or(SysError::MapGrant {
                dom,
                gref,
                errno: Errno::EINVAL,
            })
    }

    fn copy_one(
        &self,
        batch: &mut CopyBatch,
        op: CopyOp,
        entries: Option<&Entries>,
    ) -> GrantStatus {
        let CopyOp {
            gref,
            len,
            offset,
            at,
            ..
        } = op;
        let ours = at..at + usize::from(len);
        let writes = op.direction == Direction::ToGuest;
        // An operation without bytes succeeds without a look at the reference.
        if len == 0 {
            return GrantStatus::OKAY;
        }
        let Some(entries) = entries else {
            return GrantStatus::BAD_DOMAIN;
        };
        entries.access(gref, self.domain, writes, |page| match op.direction {
            Direction::FromGuest => page.read(offset.into(), batch.bytes_mut(ours)),
            Direction::ToGuest => page.write(offset.into(), batch.bytes(ours)),
        })
    }
}

impl Grants for SimGrants {
    fn map_page(&self, dom: DomId, gref: GrantRef) -> Result<SharedPage, SysError> {
        self.map(dom, gref, Access::ReadWrite)
    }

    fn map_static(
        &self,
        dom: DomId,
        gref: GrantRef,
        access: Access,
    ) -> Result<StaticPage, SysError> {
        let page = self.map(dom, gref, access)?;
        Ok(StaticPage::new(page, access))
    }

    fn batch(&self, _own: DomId, ops: usize, bytes: usize) -> Result<CopyBatch, SysError> {
        CopyBatch::new(ops, bytes)
    }

    fn copy(&self, batch: &mut CopyBatch) -> Result<(), SysError> {
        // No operation crosses its page, for which gntdev would refuse the call: the batch does not take such.
        self.tables
            .copies
            .fetch_add(batch.len() as u64, Ordering::Relaxed);
        let domains = read(&self.tables.domains);
        let mut index = 0;
        // A run of operations on one guest's pages, as a rule the whole batch, costs one look-up.
        while let Some(guest) = batch.op(index).map(|op| op.dom) {
            let entries = domains.get(&guest).map(|table| read(&table.entries));
            while let Some(op) = batch.op(index).filter(|op| op.dom == guest) {
                let status = self.copy_one(batch, op, entries.as_deref());
                batch.set_status(index, status);
                index += 1;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SimGrants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimGrants(domain {})", self.domain)
    }
}
