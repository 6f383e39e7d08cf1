// SPDX-License-Identifier: GPL-3.0-or-later
//! Static grants on a simulated machine: what is mapped is counted by the hypervisor.

use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use xen_ring::Hypervisor;

use super::*;
use crate::demo::sim::{Grant, GuestPage, SimGrants, SimGuest, SimHypervisor};

const GUEST: DomId = DomId::new(1);

struct Bench {
    machine: SimHypervisor,
    guest: SimGuest,
    grants: SimGrants,
    quota: Arc<Quota>,
    table: StaticGrants,
}

fn bench(limit: usize) -> Bench {
    let machine = SimHypervisor::new(DomId::new(0));
    let quota = Quota::process().part(limit);
    Bench {
        guest: machine.guest(GUEST),
        grants: machine.open_grants().unwrap(),
        table: StaticGrants::new(Arc::clone(&quota)),
        machine,
        quota,
    }
}

impl Bench {
    fn granted(&self, count: usize, readonly: bool) -> Vec<Grant> {
        let grant = |page| self.guest.grant(&page, readonly).unwrap();
        GuestPage::many(count)
            .unwrap()
            .into_iter()
            .map(grant)
            .collect()
    }

    fn carry_out(&mut self, change: Change) -> Outcome {
        self.table.begin(change);
        for _ in 0..=STATIC_GRANTS_MAX / PAGES_PER_TURN {
            let before = self.machine.census().mapped;
            let done = self.table.step(&self.grants, GUEST);
            let moved = self.machine.census().mapped.abs_diff(before);
            assert!(moved <= PAGES_PER_TURN, "{moved} pages in one turn");
            if let Some(done) = done {
                assert!(!self.table.is_busy());
                return done.outcome;
            }
        }
        panic!("an order without end");
    }

    fn add(&mut self, grefs: &[GrantRef], access: Access) -> Outcome {
        let wanted = grefs.iter().map(|gref| (*gref, access)).collect();
        self.carry_out(Change::Add(wanted))
    }

    /// Which of them were deleted.
    fn delete(&mut self, grefs: &[GrantRef]) -> Vec<bool> {
        let entry = |gref: &GrantRef| GrefEntry {
            gref: *gref,
            flags: 0,
        };
        let (page, sent) = (GrantRef::new(7), grefs.iter().map(entry).collect());
        let outcome = self.carry_out(Change::Delete {
            list: page,
            entries: Vec::clone(&sent),
        });
        match outcome {
            Outcome::Deleted {
                list,
                entries,
                deleted,
            } if (list, &entries) == (page, &sent) => deleted,
            other => panic!("{other:?}"),
        }
    }

    fn assert_mapped(&self, count: usize) {
        assert_eq!(self.machine.census().mapped, count);
        assert_eq!(
            (self.table.grefs.len(), self.table.pages.len()),
            (count, count)
        );
        let above = self.quota.above.as_ref().unwrap().used();
        assert_eq!((self.quota.used(), above), (count, count));
    }
}

fn references(grants: &[Grant]) -> Vec<GrantRef> {
    grants.iter().map(Grant::gref).collect()
}

#[test]
fn a_full_table_and_back() {
    let mut bench = bench(STATIC_GRANTS_MAX);
    let grants = bench.granted(STATIC_GRANTS_MAX, false);
    let mut grefs = references(&grants);
    grefs.reverse();
    assert_eq!(bench.add(&grefs[..500], Access::ReadWrite), Outcome::Added);
    assert_eq!(bench.add(&grefs[500..], Access::ReadOnly), Outcome::Added);
    bench.assert_mapped(STATIC_GRANTS_MAX);
    for (n, gref) in grefs.iter().enumerate() {
        let page = bench.table.page(*gref).unwrap();
        assert_eq!(page.writable().is_some(), n < 500);
    }
    let one_more = references(&bench.granted(1, false));
    assert_eq!(bench.add(&one_more, Access::ReadWrite), Outcome::Refused);

    grefs.push(GrantRef::new(4_000_000));
    let mut all = vec![true; STATIC_GRANTS_MAX];
    all.push(false);
    assert_eq!(bench.delete(&grefs), all);
    bench.assert_mapped(0);
    assert!(bench.table.if_any().is_none());
}

#[test]
fn a_page_is_the_guests() {
    let mut bench = bench(8);
    let page = GuestPage::new().unwrap();
    let grant = bench.guest.grant(&page, true).unwrap();
    assert_eq!(bench.add(&[grant.gref()], Access::ReadOnly), Outcome::Added);
    page.write(7, b"hello").unwrap();
    let mut seen = [0; 5];
    let kept = bench.table.page(grant.gref()).unwrap();
    kept.copy_from(7, &mut seen).unwrap();
    assert_eq!(&seen, b"hello");
    assert!(
        bench
            .table
            .page(GrantRef::new(grant.gref().raw() + 1))
            .is_none()
    );
}

#[test]
fn all_or_nothing() {
    let mut bench = bench(STATIC_GRANTS_MAX);
    let grants = bench.granted(100, false);
    let readonly = bench.granted(1, true);
    let good = references(&grants);
    assert_eq!(bench.add(&good[..1], Access::ReadWrite), Outcome::Added);
    let with = |gref| [&good[1..], &[gref]].concat();
    for (what, grefs) in [
        ("not granted", with(GrantRef::new(4_000_000))),
        ("granted for reading", with(readonly[0].gref())),
        ("mapped already", with(good[0])),
        ("twice in the list", with(good[5])),
    ] {
        // The last is mapped first: also when everything before it went well.
        for reversed in [false, true] {
            let mut grefs = grefs.clone();
            if reversed {
                grefs.reverse();
            }
            assert_eq!(
                bench.add(&grefs, Access::ReadWrite),
                Outcome::Refused,
                "{what}"
            );
            bench.assert_mapped(1);
        }
    }
    assert_eq!(bench.add(&[], Access::ReadWrite), Outcome::Added);
    assert!(bench.delete(&[]).is_empty());
    assert_eq!(bench.delete(&[good[0], good[0]]), [true, false]);
    bench.assert_mapped(0);
}

/// Counts the events of a thread.
#[derive(Clone, Default)]
struct Lines(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, _event: &tracing::Event<'_>, _context: Context<'_, S>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_guest_that_asks_again_and_again_for_what_it_is_refused_does_not_fill_the_log() {
    let mut bench = bench(1);
    let lines = Lines::default();
    let log = tracing_subscriber::registry().with(lines.clone());
    tracing::subscriber::with_default(log, || {
        for _ in 0..100 {
            let refused = bench.add(&[GrantRef::new(4_000_000)], Access::ReadWrite);
            assert_eq!(refused, Outcome::Refused);
        }
    });
    assert_eq!(lines.0.load(Ordering::Relaxed), 1);
}

#[test]
fn quotas_bound_a_vif_and_all_vifs_together() {
    let mut bench = bench(40);
    let grants = bench.granted(41, false);
    let grefs = references(&grants);
    assert_eq!(bench.add(&grefs, Access::ReadWrite), Outcome::Refused);
    bench.assert_mapped(0);
    assert_eq!(bench.add(&grefs[..40], Access::ReadWrite), Outcome::Added);
    bench.assert_mapped(40);

    let above = Quota::process().part(2);
    let (first, second) = (above.part(2), above.part(2));
    let held = [
        Quota::permit(&first).unwrap(),
        Quota::permit(&second).unwrap(),
    ];
    assert!(Quota::permit(&second).is_none());
    assert_eq!((first.used(), second.used(), above.used()), (1, 1, 2));
    drop(held);
    assert_eq!((first.used(), second.used(), above.used()), (0, 0, 0));
}

/// Whatever a guest has, most of what there is stays for the others.
#[test]
fn the_vifs_of_a_guest_share_its_part() {
    let mut quotas = Quotas::default();
    let vifs = [GUEST, GUEST].map(|guest| quotas.of(guest).part(GUEST_PAGES_MAX));
    let mut held = Vec::new();
    while let Some(permit) = Quota::permit(&vifs[0]) {
        held.push(permit);
    }
    assert_eq!(held.len(), GUEST_PAGES_MAX);
    assert!(Quota::permit(&vifs[1]).is_none());
    let other = quotas.of(DomId::new(2));
    let others = Quota::permit(&other).unwrap();
    assert_eq!(quotas.process.used(), GUEST_PAGES_MAX + 1);
    assert_eq!((vifs[1].used(), other.used()), (0, 1));
    held.pop();
    held.extend(Quota::permit(&vifs[1]));
    assert_eq!((vifs[1].used(), held.len()), (1, GUEST_PAGES_MAX));

    // What it has for a moment after its vifs have gone is counted, too.
    drop(vifs);
    assert!(Quota::permit(&quotas.of(GUEST)).is_none());
    drop((held, others));
    assert_eq!(quotas.process.used(), 0);
    drop(other);
    let _last = quotas.of(DomId::new(3));
    assert_eq!(quotas.guests.len(), 1, "nothing is kept of those that went");
}

#[test]
fn nothing_stays_mapped_when_the_table_goes() {
    let mut bench = bench(STATIC_GRANTS_MAX);
    let grants = bench.granted(200, false);
    let grefs = references(&grants);
    assert_eq!(bench.add(&grefs[..100], Access::ReadWrite), Outcome::Added);
    // In the middle of an order.
    let wanted = grefs[100..].iter().map(|gref| (*gref, Access::ReadWrite));
    bench.table.begin(Change::Add(wanted.collect()));
    assert!(bench.table.step(&bench.grants, GUEST).is_none());
    assert_eq!(bench.machine.census().mapped, 100 + PAGES_PER_TURN);
    bench.table = StaticGrants::new(Arc::clone(&bench.quota));
    bench.assert_mapped(0);
}
