// SPDX-License-Identifier: GPL-3.0-or-later
//! The nodes. Each change gives a node a generation that no other ever had, which is
//! all that transactions need to see a conflict.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::perms::Perm;

/// A node; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Arc<[u8]>,
    pub(super) perms: Arc<[Perm]>,
    pub(super) children: Arc<BTreeSet<Box<str>>>,
    pub(super) generation: u64,
}

impl Node {
    pub(super) fn empty(perms: Arc<[Perm]>) -> Self {
        Self {
            value: Arc::from([]),
            perms,
            children: Arc::default(),
            generation: 0,
        }
    }

    /// The domain that the first permission entry names.
    pub(super) fn owner(&self) -> u16 {
        self.perms.first().map_or(0, |perm| perm.dom)
    }
}

/// All nodes by absolute path, and how many each domain owns.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: BTreeMap<Box<str>, Node>,
    owned: BTreeMap<u16, usize>,
    generation: u64,
}

impl Tree {
    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Sets or removes a node, as a change of its own generation.
    pub(super) fn put(&mut self, path: &str, node: Option<Node>) {
        self.generation += 1;
        let generation = self.generation;
        let old = match node {
            Some(node) => {
                *self.owned.entry(node.owner()).or_default() += 1;
                let node = Node { generation, ..node };
                self.nodes.insert(path.into(), node)
            }
            None => self.nodes.remove(path),
        };
        if let Some(old) = old
            && let Some(count) = self.owned.get_mut(&old.owner())
        {
            *count = count.saturating_sub(1);
        }
    }

    pub(super) fn owned_by(&self, dom: u16) -> usize {
        self.owned.get(&dom).copied().unwrap_or(0)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(AsRef::as_ref)
    }
}

/// The directory that a path is in; `None` for the root.
pub(super) fn parent(path: &str) -> Option<&str> {
    match path.rsplit_once('/')? {
        ("", "") => None,
        ("", _) => Some("/"),
        (parent, _) => Some(parent),
    }
}

/// The path of a child.
pub(super) fn join(dir: &str, name: &str) -> String {
    match dir {
        "/" => format!("/{name}"),
        dir => format!("{dir}/{name}"),
    }
}

/// The last component of a path.
pub(super) fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}
