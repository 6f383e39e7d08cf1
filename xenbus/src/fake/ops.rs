// SPDX-License-Identifier: GPL-3.0-or-later
//! What a caller can do to the nodes of the in-memory store, inside a transaction or
//! not, with the permissions, quotas and errors of the real xenstored.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::transaction::Txn;
use super::tree::{self, Node, Tree, join, parent};
use super::watches::Change;
use crate::error::ErrorCode;
use crate::perms::{Access, Perm};

/// The limits of an unprivileged domain (the defaults of Xen's xenstored).
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    /// Nodes that it owns.
    pub nodes: usize,
    /// Watches.
    pub watches: usize,
    /// Open transactions.
    pub transactions: usize,
    /// Bytes in a node.
    pub node_size: usize,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            nodes: 1000,
            watches: 128,
            transactions: 10,
            node_size: 2048,
        }
    }
}

/// A checked path.
#[derive(Debug, Clone)]
pub(super) struct Path {
    pub(super) absolute: Box<str>,
    /// The length of the caller's home directory and its slash, if the path was
    /// given relative to it.
    pub(super) home: usize,
}

impl Path {
    pub(super) fn new(dom: u16, text: &[u8]) -> Result<Self, ErrorCode> {
        let text = std::str::from_utf8(text).map_err(|_| ErrorCode::Inval)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-/_@".contains(&b);
        let well_formed =
            text == "/" || (!text.is_empty() && !text.ends_with('/') && !text.contains("//"));
        if !text.bytes().all(allowed) || !well_formed || text.len() > 2048 {
            return Err(ErrorCode::Inval);
        }
        if text.starts_with(['/', '@']) {
            return Ok(Self {
                absolute: text.into(),
                home: 0,
            });
        }
        let home = format!("/local/domain/{dom}/");
        Ok(Self {
            home: home.len(),
            absolute: (home + text).into(),
        })
    }
}

/// Whether a domain may do with a node what `want` asks of an [`Access`].
pub(super) fn may(dom: u16, perms: &[Perm], want: fn(Access) -> bool) -> bool {
    let Some((first, rest)) = perms.split_first() else {
        return dom == 0;
    };
    let named = rest.iter().find(|perm| perm.dom == dom);
    dom == 0 || dom == first.dom || want(named.unwrap_or(first).access)
}

/// The nodes as one request sees them.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) dom: u16,
    pub(super) tree: &'a mut Tree,
    pub(super) txn: Option<&'a mut Txn>,
    pub(super) quota: Quota,
    /// What watches are to tell of, when no transaction keeps it.
    pub(super) changes: Vec<Change>,
}

impl View<'_> {
    pub(super) fn read(&mut self, path: &str) -> Result<Node, ErrorCode> {
        self.permitted(path, Access::can_read)
    }

    pub(super) fn write(&mut self, path: &str, value: &[u8]) -> Result<(), ErrorCode> {
        let node = match self.permitted(path, Access::can_write) {
            Ok(node) => node,
            Err(ErrorCode::NoEnt) => self.create(path)?,
            Err(other) => return Err(other),
        };
        if self.dom != 0 && value.len() > self.quota.node_size {
            return Err(ErrorCode::NoSpc);
        }
        let node = Node {
            value: value.into(),
            ..node
        };
        self.changed(path, &node.perms, false);
        self.put(path, Some(node));
        Ok(())
    }

    pub(super) fn mkdir(&mut self, path: &str) -> Result<(), ErrorCode> {
        match self.permitted(path, Access::can_write) {
            Err(ErrorCode::NoEnt) => {}
            found => return found.map(drop),
        }
        let node = self.create(path)?;
        self.changed(path, &node.perms, false);
        self.put(path, Some(node));
        Ok(())
    }

    pub(super) fn rm(&mut self, path: &str) -> Result<(), ErrorCode> {
        let dir = parent(path).ok_or(ErrorCode::Inval)?;
        let node = match self.permitted(path, Access::can_write) {
            Ok(node) => node,
            // Nothing to remove is as good, but its place must exist.
            Err(ErrorCode::NoEnt) => {
                return self.get(dir).map(drop).ok_or(ErrorCode::NoEnt);
            }
            Err(other) => return Err(other),
        };
        self.changed(path, &node.perms, false);
        self.remove_below(path, &node);
        self.put(path, None);
        if let Some(mut place) = self.get(dir) {
            Arc::make_mut(&mut place.children).remove(tree::name(path));
            self.put(dir, Some(place));
        }
        Ok(())
    }

    pub(super) fn set_perms(&mut self, path: &str, perms: Vec<Perm>) -> Result<(), ErrorCode> {
        let node = self.permitted(path, Access::can_write)?;
        let owner = perms.first().ok_or(ErrorCode::Inval)?.dom;
        if self.dom != 0 && (node.owner() != self.dom || owner != self.dom) {
            return Err(ErrorCode::Perm);
        }
        let node = Node {
            perms: perms.into(),
            ..node
        };
        self.changed(path, &node.perms, false);
        self.put(path, Some(node));
        Ok(())
    }

    fn permitted(&mut self, path: &str, want: fn(Access) -> bool) -> Result<Node, ErrorCode> {
        let Some(node) = self.get(path) else {
            return Err(self.why_missing(path));
        };
        if may(self.dom, &node.perms, want) {
            Ok(node)
        } else {
            Err(ErrorCode::Acces)
        }
    }

    /// Whoever may not read a directory may not learn what is missing in it either.
    fn why_missing(&mut self, path: &str) -> ErrorCode {
        match self.nearest(path) {
            Some(node) if !may(self.dom, &node.perms, Access::can_read) => ErrorCode::Acces,
            _ => ErrorCode::NoEnt,
        }
    }

    fn nearest(&mut self, path: &str) -> Option<Node> {
        let mut place = parent(path);
        while let Some(dir) = place {
            if let Some(node) = self.get(dir) {
                return Some(node);
            }
            place = parent(dir);
        }
        None
    }

    /// A new empty node, its missing parents made and itself entered in its parent.
    fn create(&mut self, path: &str) -> Result<Node, ErrorCode> {
        let dir = parent(path).ok_or(ErrorCode::Inval)?;
        let mut place = match self.get(dir) {
            Some(place) if !may(self.dom, &place.perms, Access::can_write) => {
                return Err(ErrorCode::Acces);
            }
            Some(place) => place,
            None => self.create(dir)?,
        };
        self.check_quota()?;
        Arc::make_mut(&mut place.children).insert(tree::name(path).into());
        let mut perms = Arc::clone(&place.perms);
        // Inherited, except that an unprivileged domain owns what it makes.
        if self.dom != 0
            && let Some(first) = Arc::make_mut(&mut perms).first_mut()
        {
            first.dom = self.dom;
        }
        self.put(dir, Some(place));
        let node = Node::empty(perms);
        self.put(path, Some(node.clone()));
        Ok(node)
    }

    fn check_quota(&self) -> Result<(), ErrorCode> {
        if self.dom == 0 {
            return Ok(());
        }
        let growth = self
            .txn
            .as_ref()
            .map_or(0, |t| t.growth(self.tree, self.dom));
        if self.tree.owned_by(self.dom) + growth < self.quota.nodes {
            Ok(())
        } else {
            Err(ErrorCode::NoSpc)
        }
    }

    fn remove_below(&mut self, path: &str, node: &Node) {
        let children: Arc<BTreeSet<Box<str>>> = Arc::clone(&node.children);
        for name in children.iter() {
            let child = join(path, name);
            if let Some(node) = self.get(&child) {
                self.changed(&child, &node.perms, true);
                self.remove_below(&child, &node);
                self.put(&child, None);
            }
        }
    }

    fn get(&mut self, path: &str) -> Option<Node> {
        match &mut self.txn {
            Some(txn) => txn.get(self.tree, path),
            None => self.tree.get(path).cloned(),
        }
    }

    fn put(&mut self, path: &str, node: Option<Node>) {
        match &mut self.txn {
            Some(txn) => txn.put(path, node),
            None => self.tree.put(path, node),
        }
    }

    fn changed(&mut self, path: &str, perms: &Arc<[Perm]>, exact: bool) {
        let change = Change {
            path: path.into(),
            exact,
            perms: Arc::clone(perms),
        };
        match &mut self.txn {
            Some(txn) => txn.changes.push(change),
            None => self.changes.push(change),
        }
    }
}
