// SPDX-License-Identifier: GPL-3.0-or-later
//! Whose turn it is: the queue pairs of a worker that have something to do.
//!
//! They share the worker evenly, by the work that they make for it: first is who would be the least ahead of all others
//! after its turn, were that like its last one. So those that always have something to do go round; who makes little work is
//! served before those who make much, for as long as it has had less than its share; and nobody gains by having had nothing
//! to do. This is fair queueing with a virtual time (Demers, Keshav and Shenker, 1989; the time is that of start-time fair
//! queueing, Goyal, Vin and Cheng, 1996).
//!
//! A worker's loop puts the keys of its queue pairs in and takes them out; each is here once at most.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Those that have something to do, and what those that have not have had.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: BinaryHeap<Reverse<Entry>>,
    /// The virtual time: what a queue pair has had that has always had something to do.
    now: u64,
    /// How many have joined, ever: whoever came first is first among equals.
    joined: u64,
    /// By key.
    members: Vec<Member>,
}

/// Who is the least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// The virtual time at the end of its turn, if that is like its last.
    end: u64,
    joined: u64,
    key: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Member {
    waits: bool,
    /// The virtual time from which its next turn counts.
    start: u64,
    /// The work of its last turn.
    work: u64,
}

impl Line {
    /// How many have something to do.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A queue pair has something to do. Its place is kept if it has one.
    pub(super) fn join(&mut self, key: usize) {
        // Keys are those of a slab, which are dense.
        if key >= self.members.len() {
            self.members.resize(key + 1, Member::default());
        }
        let Some(member) = self.members.get_mut(key) else {
            return;
        };
        if std::mem::replace(&mut member.waits, true) {
            return;
        }
        member.start = member.start.max(self.now);
        self.joined += 1;
        self.waiting.push(Reverse(Entry {
            end: member.start + member.work,
            joined: self.joined,
            key,
        }));
    }

    /// Takes out who is to have its turn.
    pub(super) fn next(&mut self) -> Option<usize> {
        let Reverse(Entry { key, .. }) = self.waiting.pop()?;
        let member = self.members.get_mut(key)?;
        member.waits = false;
        self.now = self.now.max(member.start);
        Some(key)
    }

    /// After a turn, before the queue pair may [join](Self::join) again. `work` is in slots; a turn by itself counts for one.
    pub(super) fn had_turn(&mut self, key: usize, work: usize) {
        if let Some(member) = self.members.get_mut(key) {
            member.work = work as u64 + 1;
            member.start += member.work;
        }
    }

    /// A queue pair is no more, and its key may be used again.
    pub(super) fn leave(&mut self, key: usize) {
        if let Some(member) = self.members.get_mut(key)
            && std::mem::take(member).waits
        {
            self.waiting.retain(|Reverse(entry)| entry.key != key);
        }
    }

    /// Who has something to do, in order.
    #[cfg(test)]
    pub(super) fn keys(&self) -> Vec<usize> {
        let mut waiting = self.waiting.clone().into_vec();
        waiting.sort_unstable_by_key(|Reverse(entry)| *entry);
        waiting
            .into_iter()
            .map(|Reverse(entry)| entry.key)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A turn of whoever is next.
    fn turn(line: &mut Line, work: usize) -> usize {
        let key = line.next().unwrap();
        line.had_turn(key, work);
        key
    }

    /// Who makes so much work, by key, and always has something to do: what each of them has had after so many turns.
    fn shares(line: &mut Line, work: &[usize], turns: usize) -> Vec<usize> {
        let mut shares = vec![0; work.len()];
        (0..work.len()).for_each(|key| line.join(key));
        for _ in 0..turns {
            let key = line.next().unwrap();
            line.had_turn(key, work[key]);
            shares[key] += work[key] + 1;
            line.join(key);
        }
        shares
    }

    #[test]
    fn equals_go_round() {
        let mut line = Line::default();
        shares(&mut line, &[99; 3], 3);
        line.join(1);
        for key in [0, 1, 2, 0, 1, 2] {
            assert_eq!((line.len(), turn(&mut line, 99)), (3, key));
            line.join(key);
        }
        for key in 0..3 {
            assert_eq!(turn(&mut line, 99), key);
        }
        assert!(line.is_empty());
        assert_eq!(line.next(), None);
        // Whoever comes back is behind those who wait.
        line.join(2);
        line.join(0);
        assert_eq!(line.keys(), [2, 0]);
    }

    #[test]
    fn work_is_shared_evenly_however_it_is_cut_into_turns() {
        let shares = shares(&mut Line::default(), &[0, 9, 99, 255], 20_000);
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert!(most - least <= 2 * 256, "{shares:?}");
    }

    /// As of an exchange of requests and answers, beside transfers.
    #[test]
    fn who_makes_little_work_does_not_wait_while_it_has_had_less_than_its_share() {
        let mut line = Line::default();
        shares(&mut line, &[99; 10], 10);
        let mut waited = Vec::new();
        for _ in 0..100 {
            line.join(10);
            let mut before = 0;
            loop {
                let key = line.next().unwrap();
                line.had_turn(key, if key == 10 { 1 } else { 99 });
                if key == 10 {
                    break;
                }
                line.join(key);
                before += 1;
            }
            waited.push(before);
            // Others have theirs while it has nothing to do.
            let key = turn(&mut line, 99);
            line.join(key);
        }
        assert_eq!(waited.iter().max(), Some(&0), "{waited:?}");
    }

    #[test]
    fn who_does_not_stop_has_no_more_than_its_share() {
        let shares = shares(&mut Line::default(), &[1, 99, 99, 99], 10_000);
        assert!(shares[0] <= shares[1] + 100, "{shares:?}");
    }

    /// Nor does it lose by that.
    #[test]
    fn nobody_gains_by_having_had_nothing_to_do() {
        let mut line = Line::default();
        shares(&mut line, &[99; 2], 1_000);
        let shares = shares(&mut line, &[99; 3], 300);
        assert_eq!(shares, [10_000; 3]);
    }

    #[test]
    fn who_turns_out_to_make_much_work_waits_for_longer_afterwards() {
        let mut line = Line::default();
        shares(&mut line, &[9; 3], 30);
        line.join(3);
        assert_eq!(turn(&mut line, 99), 3);
        line.join(3);
        let order: Vec<_> = (0..30)
            .map(|_| {
                let key = turn(&mut line, 9);
                line.join(key);
                key
            })
            .collect();
        assert!(!order[..27].contains(&3), "{order:?}");
    }

    #[test]
    fn who_leaves_leaves_nothing() {
        let mut line = Line::default();
        shares(&mut line, &[99; 3], 30);
        line.leave(1);
        line.leave(1);
        line.leave(7);
        assert_eq!((line.keys(), line.len()), (vec![0, 2], 2));
        // A new one with its key has had nothing yet.
        line.join(1);
        assert_eq!(line.keys(), [1, 0, 2]);
    }
}
