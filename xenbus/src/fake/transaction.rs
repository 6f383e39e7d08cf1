// SPDX-License-Identifier: GPL-3.0-or-later
//! A transaction of the in-memory store: what it saw, what it would change.
//!
//! As in the real xenstored, it fails with EAGAIN if any node that it looked at has
//! another generation at its end; creating a child counts as a change of the parent.

use std::collections::BTreeMap;

use super::tree::{Node, Tree};
use super::watches::Change;

/// An open transaction.
#[derive(Debug, Default)]
pub(super) struct Txn {
    /// The generation of each node at first sight; `None` if it was missing.
    seen: BTreeMap<Box<str>, Option<u64>>,
    writes: BTreeMap<Box<str>, Option<Node>>,
    pub(super) changes: Vec<Change>,
}

impl Txn {
    pub(super) fn get(&mut self, tree: &Tree, path: &str) -> Option<Node> {
        if let Some(written) = self.writes.get(path) {
            return written.clone();
        }
        let node = tree.get(path);
        self.seen
            .entry(path.into())
            .or_insert_with(|| node.map(|node| node.generation));
        node.cloned()
    }

    pub(super) fn put(&mut self, path: &str, node: Option<Node>) {
        self.writes.insert(path.into(), node);
    }

    /// How many more nodes of a domain there would be.
    pub(super) fn growth(&self, tree: &Tree, dom: u16) -> usize {
        let mut made = 0;
        for (path, node) in &self.writes {
            let theirs = node.as_ref().is_some_and(|node| node.owner() == dom);
            made += usize::from(theirs && tree.get(path).is_none());
        }
        made
    }

    /// Makes the changes, or none if somebody was faster.
    pub(super) fn commit(self, tree: &mut Tree) -> Option<Vec<Change>> {
        let unchanged = self
            .seen
            .iter()
            .all(|(path, seen)| tree.get(path).map(|node| node.generation) == *seen);
        if !unchanged {
            return None;
        }
        for (path, node) in self.writes {
            tree.put(&path, node);
        }
        Some(self.changes)
    }
}
