// SPDX-License-Identifier: GPL-3.0-or-later
//! The watches of the in-memory store, and who is told what about a change.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ops::{Path, may};
use super::store::ConnId;
use super::tree;
use crate::error::ErrorCode;
use crate::perms::{Access, Perm};

/// Something that watches may tell of.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) path: Box<str>,
    /// Only watches of exactly this path: the nodes below a removed one.
    pub(super) exact: bool,
    /// Who may know.
    pub(super) perms: Arc<[Perm]>,
}

#[derive(Debug)]
struct Watch {
    conn: ConnId,
    dom: u16,
    token: Box<str>,
    /// How much of an event's path is left out: the caller's home directory.
    omit: usize,
}

/// All watches, by absolute path.
#[derive(Debug, Default)]
pub(super) struct Watches {
    by_path: BTreeMap<Box<str>, Vec<Watch>>,
}

impl Watches {
    pub(super) fn add(
        &mut self,
        conn: ConnId,
        dom: u16,
        path: &Path,
        token: &str,
    ) -> Result<(), ErrorCode> {
        let here = self.by_path.entry(path.absolute.clone()).or_default();
        if here.iter().any(|w| w.conn == conn && &*w.token == token) {
            return Err(ErrorCode::Exist);
        }
        here.push(Watch {
            conn,
            dom,
            token: token.into(),
            omit: path.home,
        });
        Ok(())
    }

    pub(super) fn remove(
        &mut self,
        conn: ConnId,
        path: &Path,
        token: &str,
    ) -> Result<(), ErrorCode> {
        let here = self
            .by_path
            .get_mut(&path.absolute)
            .ok_or(ErrorCode::NoEnt)?;
        let before = here.len();
        here.retain(|w| w.conn != conn || &*w.token != token);
        if here.len() == before {
            return Err(ErrorCode::NoEnt);
        }
        if here.is_empty() {
            self.by_path.remove(&path.absolute);
        }
        Ok(())
    }

    pub(super) fn remove_all(&mut self, conn: ConnId) {
        self.by_path.retain(|_, here| {
            here.retain(|w| w.conn != conn);
            !here.is_empty()
        });
    }

    pub(super) fn count_of(&self, dom: u16) -> usize {
        let watches = self.by_path.values().flatten();
        watches.filter(|w| w.dom == dom).count()
    }

    pub(super) fn count(&self) -> usize {
        self.by_path.values().map(Vec::len).sum()
    }

    /// Who is to be told of a change: connection, path as that one knows it, token.
    pub(super) fn fire(&self, change: &Change) -> Vec<(ConnId, Box<str>, Box<str>)> {
        let mut told = Vec::new();
        let mut place = Some(&*change.path);
        while let Some(path) = place {
            for watch in self.by_path.get(path).into_iter().flatten() {
                if may(watch.dom, &change.perms, Access::can_read) {
                    let name = change.path.get(watch.omit..).unwrap_or(&change.path);
                    told.push((watch.conn, name.into(), watch.token.clone()));
                }
            }
            place = tree::parent(path).filter(|_| !change.exact);
        }
        told
    }
}
