// SPDX-License-Identifier: GPL-3.0-or-later
//! The static grants of one queue pair: packet pages of the guest that stay mapped, so that a slot
//! which names one is copied by the processor and not by the hypervisor.
//!
//! Owned by the queue's worker, like everything that the packet path reads: a look-up takes no
//! lock, and after an order is answered nobody else still uses what it unmapped. Orders are
//! carried out a few pages a turn, since a page costs several system calls.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use xen_ring::netif::GrefEntry;
use xen_ring::{Access, DomId, GrantRef, Grants, StaticPage};

use super::machine::{Change, Outcome};
use super::message::STATIC_GRANTS_MAX;
use crate::logging::{RateLimited, if_any};

/// Pages mapped or unmapped in one turn, at most.
const PAGES_PER_TURN: usize = 32;

/// Pages that all guests together may have mapped. Each takes one of the process's memory
/// mappings, of which Linux allows 65530 by default (vm.max_map_count): half of them are kept for
/// everything else.
pub const PROCESS_PAGES_MAX: usize = 32_768;

/// Pages of one guest, over all its vifs, so that it leaves most to the others: enough for eight
/// queues, or two vifs of as many queues as are offered by default.
pub const GUEST_PAGES_MAX: usize = PROCESS_PAGES_MAX / 8;
const _: () = assert!(GUEST_PAGES_MAX == 8 * STATIC_GRANTS_MAX);

/// A queue pair's static grants.
#[derive(Debug)]
pub struct StaticGrants {
    /// In ascending order.
    grefs: Vec<GrantRef>,
    /// Their pages, in the same order.
    pages: Vec<Kept>,
    quota: Arc<Quota>,
    work: Option<Work>,
    /// Pages that were mapped (or could not be) and unmapped for the present order.
    moved: usize,
    /// A guest may ask as often as it likes for what is refused.
    refusals: RateLimited,
}

/// A page, and the permission to have it.
#[derive(Debug)]
struct Kept {
    page: StaticPage,
    _permit: Permit,
}

/// An order that is being carried out.
#[derive(Debug)]
enum Work {
    /// Mapping, the last of `wanted` first.
    Adding {
        wanted: Vec<(GrantRef, Access)>,
        mapped: Vec<(GrantRef, Kept)>,
    },
    /// Unmapping what was mapped before one was refused.
    Undoing(Vec<(GrantRef, Kept)>),
    /// Unmapping, the first of `entries` first.
    Deleting {
        list: GrantRef,
        entries: Vec<GrefEntry>,
        deleted: Vec<bool>,
    },
}

/// An order that has been carried out.
#[derive(Debug)]
pub struct Done {
    /// What has become of it.
    pub outcome: Outcome,
    /// Pages that were mapped (or could not be) and unmapped for it.
    pub pages: usize,
}

impl StaticGrants {
    /// None yet, and no more than `quota` allows.
    pub fn new(quota: Arc<Quota>) -> Self {
        Self {
            grefs: Vec::new(),
            pages: Vec::new(),
            quota,
            work: None,
            moved: 0,
            refusals: RateLimited::new(1, Duration::from_secs(60)),
        }
    }

    /// Itself, if there are any: one look for a whole burst.
    #[inline]
    pub fn if_any(&self) -> Option<&Self> {
        (!self.grefs.is_empty()).then_some(self)
    }

    /// The page of a reference, if it is mapped. A binary search, so that a guest that chooses its
    /// references with care gains nothing.
    #[inline]
    pub fn page(&self, gref: GrantRef) -> Option<&StaticPage> {
        let at = self.grefs.binary_search(&gref).ok()?;
        Some(&self.pages.get(at)?.page)
    }

    /// Takes an order. There is one at a time: a control ring waits for each to be carried out.
    pub fn begin(&mut self, change: Change) {
        self.moved = 0;
        self.work = Some(match change {
            Change::Add(wanted) if self.is_addable(&wanted) => Work::Adding {
                mapped: Vec::with_capacity(wanted.len()),
                wanted,
            },
            Change::Add(_) => Work::Undoing(Vec::new()),
            Change::Delete { list, entries } => Work::Deleting {
                deleted: Vec::with_capacity(entries.len()),
                list,
                entries,
            },
        });
    }

    /// Whether an order is being carried out.
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.work.is_some()
    }

    /// Goes on with the order. When it has been carried out, what has become of it.
    pub fn step(&mut self, grants: &impl Grants, guest: DomId) -> Option<Done> {
        let (work, outcome) = match self.work.take()? {
            Work::Adding { wanted, mapped } => self.add(wanted, mapped, grants, guest),
            Work::Undoing(mut mapped) => {
                let kept = mapped.len().saturating_sub(PAGES_PER_TURN);
                self.moved += mapped.len() - kept;
                mapped.truncate(kept);
                match mapped.is_empty() {
                    true => (None, Some(Outcome::Refused)),
                    false => (Some(Work::Undoing(mapped)), None),
                }
            }
            Work::Deleting {
                list,
                entries,
                deleted,
            } => self.delete(list, entries, deleted),
        };
        self.work = work;
        let pages = self.moved;
        outcome.map(|outcome| Done { outcome, pages })
    }

    /// Each page once, and no more than there is room for.
    fn is_addable(&self, wanted: &[(GrantRef, Access)]) -> bool {
        let mut seen = HashSet::with_capacity(wanted.len());
        self.grefs.len() + wanted.len() <= STATIC_GRANTS_MAX
            && wanted
                .iter()
                .all(|(gref, _)| self.page(*gref).is_none() && seen.insert(*gref))
    }

    fn add(
        &mut self,
        mut wanted: Vec<(GrantRef, Access)>,
        mut mapped: Vec<(GrantRef, Kept)>,
        grants: &impl Grants,
        guest: DomId,
    ) -> (Option<Work>, Option<Outcome>) {
        for _ in 0..PAGES_PER_TURN {
            let Some((gref, access)) = wanted.pop() else {
                break;
            };
            self.moved += 1;
            let Some(kept) = self.map(gref, access, grants, guest) else {
                return (Some(Work::Undoing(mapped)), None);
            };
            mapped.push((gref, kept));
        }
        if !wanted.is_empty() {
            return (Some(Work::Adding { wanted, mapped }), None);
        }
        self.keep(mapped);
        (None, Some(Outcome::Added))
    }

    fn map(
        &mut self,
        gref: GrantRef,
        access: Access,
        grants: &impl Grants,
        guest: DomId,
    ) -> Option<Kept> {
        let permit = Quota::permit(&self.quota)?;
        match grants.map_static(guest, gref, access) {
            Ok(page) => Some(Kept {
                page,
                _permit: permit,
            }),
            Err(error) => {
                if let Some(suppressed) = self.refusals.allow(Instant::now()) {
                    tracing::debug!(domid = %guest, %error, suppressed = if_any(suppressed), "a static grant is refused");
                }
                None
            }
        }
    }

    fn keep(&mut self, mapped: Vec<(GrantRef, Kept)>) {
        let old = std::mem::take(&mut self.grefs).into_iter();
        let mut all: Vec<_> = old.zip(self.pages.drain(..)).chain(mapped).collect();
        all.sort_unstable_by_key(|(gref, _)| *gref);
        (self.grefs, self.pages) = all.into_iter().unzip();
    }

    fn delete(
        &mut self,
        list: GrantRef,
        entries: Vec<GrefEntry>,
        mut deleted: Vec<bool>,
    ) -> (Option<Work>, Option<Outcome>) {
        for entry in entries.iter().skip(deleted.len()).take(PAGES_PER_TURN) {
            let found = self.grefs.binary_search(&entry.gref);
            if let Ok(at) = found {
                self.grefs.remove(at);
                self.pages.remove(at);
                self.moved += 1;
            }
            deleted.push(found.is_ok());
        }
        if deleted.len() < entries.len() {
            let work = Work::Deleting {
                list,
                entries,
                deleted,
            };
            return (Some(work), None);
        }
        let outcome = Outcome::Deleted {
            list,
            entries,
            deleted,
        };
        (None, Some(outcome))
    }
}

/// What the static grants of all guests are counted by.
#[derive(Debug)]
pub struct Quotas {
    process: Arc<Quota>,
    /// Of the guests that have vifs with a control ring.
    guests: HashMap<DomId, Weak<Quota>>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            process: Quota::process(),
            guests: HashMap::new(),
        }
    }
}

impl Quotas {
    /// That of a guest, of which each of its vifs gets a part.
    pub fn of(&mut self, guest: DomId) -> Arc<Quota> {
        self.guests.retain(|_, quota| quota.strong_count() > 0);
        let known = self.guests.get(&guest).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let quota = self.process.part(GUEST_PAGES_MAX);
            self.guests.insert(guest, Arc::downgrade(&quota));
            quota
        })
    }
}

/// How many pages may be mapped: by a vif's queues together, by a guest's vifs, and by all. The
/// default is none.
#[derive(Debug, Default)]
pub struct Quota {
    used: AtomicUsize,
    limit: usize,
    above: Option<Arc<Self>>,
}

/// The permission to have one page mapped, given back when dropped.
#[derive(Debug)]
struct Permit(Arc<Quota>);

impl Quota {
    fn process() -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            limit: PROCESS_PAGES_MAX,
            above: None,
        })
    }

    /// A part of this one: at most `limit` pages.
    pub fn part(self: &Arc<Self>, limit: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            limit,
            above: Some(Arc::clone(self)),
        })
    }

    /// Pages that are mapped now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn permit(this: &Arc<Self>) -> Option<Permit> {
        this.take().then(|| Permit(Arc::clone(this)))
    }

    fn take(&self) -> bool {
        let more = |used: usize| (used < self.limit).then_some(used + 1);
        let here = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if here.is_err() {
            return false;
        }
        let allowed = self.above.as_ref().is_none_or(|above| above.take());
        if !allowed {
            self.used.fetch_sub(1, Ordering::Relaxed);
        }
        allowed
    }

    fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
        if let Some(above) = &self.above {
            above.give_back();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests;
