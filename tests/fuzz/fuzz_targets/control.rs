// SPDX-License-Identifier: GPL-3.0-or-later
//! What a guest asks of its control ring, with any lists, beside what `netif.h` says of it: the
//! answers, the configuration, and the static grants that are mapped.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use netback::vif::control::hash::Key;
use netback::vif::control::machine::{Change, Decision, HashConfig, Machine, Order, Reply, Step};
use netback::vif::control::message::Algorithm;
use netback::vif::control::statics::{Quotas, StaticGrants};
use netback_fuzz::Many;
use xen_ring::netif::CtrlRequest;
use xen_ring::{
    Access, CopyBatch, DomId, Errno, GrantRef, Grants, SharedPage, StaticPage, SysError,
};

const GUEST: DomId = DomId::new(7);

#[derive(Arbitrary, Debug)]
struct Input {
    queues: u8,
    hashes: bool,
    /// Static grants that the vif may have.
    quota: u16,
    requests: Many<Request>,
}

#[derive(Arbitrary, Debug)]
struct Request {
    kind: u8,
    data: [Number; 3],
    /// The list, again and again.
    list: [u8; 8],
    /// Whether its words are small, and flags mostly known ones.
    small: bool,
    /// Added to each entry's first byte, so that they differ.
    ascending: bool,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Number {
    Small(u8),
    Medium(u16),
    /// One of the limits, or one more or less.
    Limit(u8),
    Any(u32),
}

const LIMITS: [u32; 10] = [15, 16, 40, 41, 127, 128, 129, 511, 512, 513];

impl Request {
    fn data(&self) -> [u32; 3] {
        self.data.map(|number| match number {
            Number::Small(number) => u32::from(number % 4),
            Number::Medium(number) => u32::from(number % 600),
            Number::Limit(nth) => LIMITS[usize::from(nth) % LIMITS.len()],
            Number::Any(number) => number,
        })
    }

    fn list(&self, len: usize) -> Vec<u8> {
        let bytes = self.list.iter().cycle().take(len).copied().enumerate();
        bytes
            .map(|(at, byte)| {
                let nth = (at / 8).to_le_bytes();
                match at % 8 {
                    first if self.ascending && first < 2 => nth[first],
                    4 if self.small => byte % 3,
                    at if self.small && at > 0 => 0,
                    _ => byte,
                }
            })
            .collect()
    }
}

/// A hypervisor that has granted most pages.
struct Hypervisor(SharedPage);

fn is_granted(gref: u32) -> bool {
    gref & 0xfff < 512 || !gref.is_multiple_of(3)
}

impl Grants for Hypervisor {
    fn map_static(
        &self,
        dom: DomId,
        gref: GrantRef,
        access: Access,
    ) -> Result<StaticPage, SysError> {
        match is_granted(gref.raw()) {
            true => Ok(StaticPage::new(self.0.clone(), access)),
            false => Err(SysError::MapGrant {
                dom,
                gref,
                errno: Errno::EINVAL,
            }),
        }
    }

    fn map_page(&self, _: DomId, _: GrantRef) -> Result<SharedPage, SysError> {
        unreachable!("nobody asks for a ring")
    }

    fn batch(&self, _: DomId, _: usize, _: usize) -> Result<CopyBatch, SysError> {
        unreachable!("nobody copies")
    }

    fn copy(&self, _: &mut CopyBatch) -> Result<(), SysError> {
        unreachable!("nobody copies")
    }
}

/// What the requests so far add up to.
struct Model {
    queues: u32,
    hashes: bool,
    quota: usize,
    toeplitz: bool,
    types: u32,
    key: Vec<u8>,
    mapping: Vec<u32>,
    /// The pages of each queue, and whether they may only be read.
    statics: Vec<BTreeMap<u32, bool>>,
}

const INVALID: Result<u32, u32> = Err(2);

impl Model {
    /// Bytes of the list that comes with a request.
    fn list(&self, kind: u8, [_, b, c]: [u32; 3]) -> u32 {
        match kind {
            3 => b,
            6 => b.saturating_mul(4),
            9 | 10 => c.saturating_mul(8),
            _ => 0,
        }
    }

    /// The result of a request, or the status of its failure.
    fn answer(&mut self, kind: u8, [a, b, c]: [u32; 3], list: &[u8]) -> Result<u32, u32> {
        let words = list
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| u32::from_le_bytes(*word));
        match kind {
            1 if self.toeplitz => return Ok(15),
            1 => return Err(1),
            2 if a < 16 && self.toeplitz => self.types = a,
            3 if b > 40 => return Err(3),
            3 => self.key = list.to_vec(),
            4 => return Ok(128),
            5 if a <= 128 => self.mapping = vec![0; a as usize],
            6 => {
                let end = u64::from(b) + u64::from(c);
                if end > self.mapping.len() as u64
                    || words.clone().any(|queue| queue >= self.queues)
                {
                    return INVALID;
                }
                self.mapping
                    .splice(c as usize..c as usize + b as usize, words);
            }
            7 if a == 1 && !self.hashes => return Err(1),
            7 if a < 2 => self.toeplitz = a == 1,
            8 if a < self.queues => return Ok(512),
            9 | 10 if a < self.queues && c <= 512 => return self.statics(kind, a as usize, list),
            2..=10 => return INVALID,
            _ => return Err(1),
        }
        Ok(0)
    }

    fn statics(&mut self, kind: u8, queue: usize, list: &[u8]) -> Result<u32, u32> {
        let entries = list.as_chunks::<8>().0.iter();
        let entries = entries.map(|[a, b, c, d, e, f, ..]| {
            (
                u32::from_le_bytes([*a, *b, *c, *d]),
                u16::from_le_bytes([*e, *f]),
            )
        });
        let used: usize = self.statics.iter().map(BTreeMap::len).sum();
        let pages = &mut self.statics[queue];
        if kind == 10 {
            return Ok(entries
                .filter(|(gref, _)| pages.remove(gref).is_some())
                .map(|_| 1)
                .sum());
        }
        let mut with = pages.clone();
        for (gref, flags) in entries.clone() {
            if flags > 1 || !is_granted(gref) || with.insert(gref, flags == 1).is_some() {
                return INVALID;
            }
        }
        if with.len() > 512 || used + entries.len() > self.quota {
            return INVALID;
        }
        *pages = with;
        Ok(0)
    }

    fn check(&self, config: &HashConfig) {
        assert_eq!(config.algorithm == Algorithm::Toeplitz, self.toeplitz);
        assert_eq!(u32::from(config.types.bits()), self.types);
        assert_eq!(Some(config.key), Key::new(&self.key));
        assert!(
            config
                .mapping
                .iter()
                .map(|queue| u32::from(*queue))
                .eq(self.mapping.iter().copied())
        );
        assert_eq!(config.hasher().is_some(), self.toeplitz && self.types != 0);
    }
}

/// Has the queue's worker carry out an order.
fn obey(statics: &mut StaticGrants, change: Change, grants: &Hypervisor) -> Reply {
    statics.begin(change);
    // 32 of 512 at a time there, and back.
    for _ in 0..34 {
        if let Some(done) = statics.step(grants, GUEST) {
            assert!(!statics.is_busy());
            return done.outcome.reply();
        }
    }
    panic!("the order is never carried out");
}

fuzz_target!(|input: Input| {
    let queues = u16::from(input.queues % 4 + 1);
    let quota = usize::from(input.quota % 1200);
    let grants = Hypervisor(SharedPage::anonymous().unwrap());
    let counted = Quotas::default().of(GUEST).part(quota);
    let mut statics: Vec<_> = (0..queues)
        .map(|_| StaticGrants::new(counted.clone()))
        .collect();
    let mut machine = Machine::new(queues, input.hashes);
    let mut told = HashConfig::default();
    let mut model = Model {
        queues: queues.into(),
        hashes: input.hashes,
        quota,
        toeplitz: false,
        types: 0,
        key: vec![],
        mapping: vec![],
        statics: vec![BTreeMap::new(); queues.into()],
    };
    for asked in input.requests.0 {
        let (kind, data) = (asked.kind % 12, asked.data());
        let (mut list, step) = (
            vec![],
            machine.request(&CtrlRequest {
                id: 1,
                kind: kind.into(),
                data,
            }),
        );
        let decision = match step {
            Step::Fetch(fetch) => {
                assert!((1..=4096).contains(&fetch.bytes));
                assert_eq!(u32::from(fetch.bytes), model.list(kind, data));
                assert_eq!(fetch.gref.raw(), data[usize::from(kind > 8)]);
                list = asked.list(fetch.bytes.into());
                machine.fetched(fetch.purpose, fetch.gref, &list)
            }
            Step::Decided(decision) => decision,
        };
        let reply = match decision {
            Decision::Reply(reply) => reply,
            Decision::Order(Order { queue, change }) => {
                assert_eq!(u32::from(queue), data[0]);
                obey(&mut statics[usize::from(queue)], change, &grants)
            }
        };
        let expected = model.answer(kind, data, &list);
        let (status, result) = (reply.status as u32, reply.data);
        assert_eq!(
            (status, result),
            expected.map_or_else(|status| (status, 0), |data| (0, data))
        );
        if let Some(config) = machine.changed() {
            told = config.clone();
        }
        model.check(&told);
        for (queue, pages) in statics.iter().zip(&model.statics) {
            assert_eq!(queue.if_any().is_some(), !pages.is_empty());
            for (gref, read_only) in pages {
                let access = queue.page(GrantRef::new(*gref)).map(StaticPage::access);
                assert_eq!(access == Some(Access::ReadOnly), *read_only);
                assert!(access.is_some());
            }
        }
        assert_eq!(
            counted.used(),
            model.statics.iter().map(BTreeMap::len).sum::<usize>()
        );
    }
    drop(statics);
    assert_eq!(counted.used(), 0);
});
