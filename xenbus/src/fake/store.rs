// SPDX-License-Identifier: GPL-3.0-or-later
//! The in-memory store as its clients see it: messages in, replies and events out.

use std::collections::{BTreeMap, VecDeque};

use super::ops::{Path, Quota, View};
use super::transaction::Txn;
use super::tree::{Node, Tree};
use super::watches::{Change, Watches};
use crate::error::ErrorCode;
use crate::perms::{Access, Perm};
use crate::wire::{self, Kind, Message, NO_TRANSACTION, PAYLOAD_MAX};

/// A connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

/// What is to go wrong.
#[derive(Debug, Default)]
pub struct Faults {
    /// So many commits fail with EAGAIN.
    pub failing_commits: u32,
    /// The next request of that kind fails with that error; first entry first.
    pub refusals: VecDeque<(Kind, ErrorCode)>,
    /// So many requests of the first entry's kind are let through before.
    pub skip: u32,
}

impl Faults {
    fn refuse(&mut self, kind: Kind) -> Option<ErrorCode> {
        let (_, code) = *self
            .refusals
            .front()
            .filter(|(refused, _)| *refused == kind)?;
        if let Some(left) = self.skip.checked_sub(1) {
            self.skip = left;
            return None;
        }
        self.refusals.pop_front();
        Some(code)
    }
}

#[derive(Debug)]
struct Conn {
    dom: u16,
    transactions: BTreeMap<u32, Txn>,
}

/// An in-memory xenstored without input and output.
#[derive(Debug)]
pub struct Store {
    tree: Tree,
    watches: Watches,
    conns: BTreeMap<ConnId, Conn>,
    introduced: std::collections::BTreeSet<u16>,
    last_conn: u64,
    last_transaction: u32,
    outgoing: Vec<(ConnId, Message)>,
    /// The limits of unprivileged domains.
    pub quota: Quota,
    /// What is to go wrong.
    pub faults: Faults,
}

/// What a request is answered with.
type Reply = Result<Vec<u8>, ErrorCode>;

fn ok() -> Reply {
    Ok(b"OK\0".to_vec())
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// A store with domain 0 introduced.
    pub fn new() -> Self {
        let mut tree = Tree::default();
        let perms = [Perm::new(Access::None, 0)];
        tree.put("/", Some(Node::empty(perms.as_slice().into())));
        let mut store = Self {
            tree,
            watches: Watches::default(),
            conns: BTreeMap::new(),
            introduced: std::collections::BTreeSet::new(),
            last_conn: 0,
            last_transaction: 0,
            outgoing: Vec::new(),
            quota: Quota::default(),
            faults: Faults::default(),
        };
        store.introduce(0);
        store
    }

    /// A new connection of a domain.
    pub fn connect(&mut self, dom: u16) -> ConnId {
        self.last_conn += 1;
        let id = ConnId(self.last_conn);
        let transactions = BTreeMap::new();
        self.conns.insert(id, Conn { dom, transactions });
        id
    }

    /// A connection is gone, and its watches and transactions with it.
    pub fn disconnect(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
        self.watches.remove_all(conn);
    }

    /// Takes a request and returns the messages to be sent, to this and to other
    /// connections, in order.
    pub fn handle(&mut self, conn: ConnId, request: &Message) -> Vec<(ConnId, Message)> {
        let reply = self.answer(conn, request);
        let (kind, payload) = match reply {
            Ok(payload) if payload.len() <= PAYLOAD_MAX => (request.kind, payload),
            Ok(_) => (Kind::Error, b"E2BIG\0".to_vec()),
            Err(code) => (Kind::Error, format!("{code}\0").into_bytes()),
        };
        let Message { req_id, tx_id, .. } = *request;
        let reply = Message {
            kind,
            req_id,
            tx_id,
            payload,
        };
        let mut out = vec![(conn, reply)];
        out.append(&mut self.take_outgoing());
        out
    }

    /// The events that operations on the store itself have caused.
    pub fn take_outgoing(&mut self) -> Vec<(ConnId, Message)> {
        std::mem::take(&mut self.outgoing)
    }

    /// Makes a domain known: its home directory, and in it those directories that
    /// the domain itself may write.
    pub fn introduce(&mut self, dom: u16) {
        self.introduced.insert(dom);
        let home = format!("/local/domain/{dom}");
        let ours = [Perm::new(Access::None, 0), Perm::new(Access::Read, dom)];
        let theirs = [Perm::new(Access::None, dom)];
        self.as_control(|view| {
            view.mkdir(&home)?;
            view.set_perms(&home, ours.to_vec())?;
            view.write(&format!("{home}/domid"), dom.to_string().as_bytes())?;
            for name in ["device", "backend", "error", "data"] {
                let path = format!("{home}/{name}");
                view.mkdir(&path)?;
                view.set_perms(&path, theirs.to_vec())?;
            }
            Ok(())
        });
        self.special("@introduceDomain");
    }

    /// A domain is gone: its home directory with it.
    pub fn release(&mut self, dom: u16) {
        self.introduced.remove(&dom);
        self.rm(&format!("/local/domain/{dom}"));
        self.special("@releaseDomain");
    }

    /// The value of a node, as domain 0.
    pub fn read(&mut self, path: &str) -> Option<String> {
        let node = self.tree.get(path)?;
        Some(String::from_utf8_lossy(&node.value).into_owned())
    }

    /// Writes a node, as domain 0.
    pub fn write(&mut self, path: &str, value: impl AsRef<[u8]>) {
        self.as_control(|view| view.write(path, value.as_ref()));
    }

    /// Removes a node and all below it, as domain 0. True if it was there.
    pub fn rm(&mut self, path: &str) -> bool {
        let there = self.tree.get(path).is_some();
        there && self.as_control(|view| view.rm(path)).is_some()
    }

    /// Sets a node's permissions, as domain 0. False if it is not there.
    pub fn set_perms(&mut self, path: &str, perms: &[Perm]) -> bool {
        self.as_control(|view| view.set_perms(path, perms.to_vec()))
            .is_some()
    }

    /// Every path at or below `prefix`, in order.
    pub fn paths_below(&self, prefix: &str) -> Vec<String> {
        let inside = |path: &&str| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.tree
            .paths()
            .filter(inside)
            .map(str::to_owned)
            .collect()
    }

    /// How many connections, watches and open transactions there are.
    pub fn census(&self) -> (usize, usize, usize) {
        let transactions = self.conns.values().map(|c| c.transactions.len()).sum();
        (self.conns.len(), self.watches.count(), transactions)
    }

    fn as_control<T>(
        &mut self,
        f: impl FnOnce(&mut View<'_>) -> Result<T, ErrorCode>,
    ) -> Option<T> {
        let mut view = View {
            dom: 0,
            tree: &mut self.tree,
            txn: None,
            quota: self.quota,
            changes: Vec::new(),
        };
        let result = f(&mut view);
        let changes = view.changes;
        self.tell(&changes);
        result.ok()
    }

    fn answer(&mut self, conn: ConnId, request: &Message) -> Reply {
        self.faults.refuse(request.kind).map_or(Ok(()), Err)?;
        let dom = self.conns.get(&conn).ok_or(ErrorCode::Inval)?.dom;
        let mut words = wire::strings(&request.payload);
        let mut word = || words.next().ok_or(ErrorCode::Inval);
        match request.kind {
            Kind::Watch => {
                let path = Path::new(dom, word()?)?;
                self.watch(conn, dom, &path, utf8(word()?)?)
            }
            Kind::Unwatch => {
                let path = Path::new(dom, word()?)?;
                self.watches.remove(conn, &path, utf8(word()?)?)?;
                ok()
            }
            Kind::ResetWatches => {
                self.watches.remove_all(conn);
                ok()
            }
            Kind::TransactionStart => self.start(conn, dom),
            Kind::TransactionEnd => self.end(conn, request.tx_id, word()?),
            Kind::GetDomainPath => {
                let dom: u16 = number(word()?)?;
                Ok(format!("/local/domain/{dom}\0").into_bytes())
            }
            Kind::IsDomainIntroduced => {
                let dom: u16 = number(word()?)?;
                let known = self.introduced.contains(&dom);
                Ok(if known {
                    b"T\0".to_vec()
                } else {
                    b"F\0".to_vec()
                })
            }
            _ => self.on_nodes(conn, dom, request),
        }
    }

    fn on_nodes(&mut self, conn: ConnId, dom: u16, request: &Message) -> Reply {
        let txn = match request.tx_id {
            NO_TRANSACTION => None,
            id => {
                let conn = self.conns.get_mut(&conn).ok_or(ErrorCode::Inval)?;
                Some(conn.transactions.get_mut(&id).ok_or(ErrorCode::NoEnt)?)
            }
        };
        let mut view = View {
            dom,
            tree: &mut self.tree,
            txn,
            quota: self.quota,
            changes: Vec::new(),
        };
        let reply = node_request(&mut view, request);
        let changes = view.changes;
        self.tell(&changes);
        reply
    }

    fn watch(&mut self, conn: ConnId, dom: u16, path: &Path, token: &str) -> Reply {
        if dom != 0 && self.watches.count_of(dom) >= self.quota.watches {
            return Err(ErrorCode::TooBig);
        }
        self.watches.add(conn, dom, path, token)?;
        let given = path.absolute.get(path.home..).unwrap_or_default();
        self.event(conn, given, token);
        ok()
    }

    fn start(&mut self, conn: ConnId, dom: u16) -> Reply {
        let limit = self.quota.transactions;
        self.last_transaction = self.last_transaction.wrapping_add(1).max(1);
        let id = self.last_transaction;
        let conn = self.conns.get_mut(&conn).ok_or(ErrorCode::Inval)?;
        if dom != 0 && conn.transactions.len() >= limit {
            return Err(ErrorCode::NoSpc);
        }
        conn.transactions.insert(id, Txn::default());
        Ok(format!("{id}\0").into_bytes())
    }

    fn end(&mut self, conn: ConnId, id: u32, verdict: &[u8]) -> Reply {
        let conn = self.conns.get_mut(&conn).ok_or(ErrorCode::Inval)?;
        let txn = conn.transactions.remove(&id).ok_or(ErrorCode::NoEnt)?;
        match verdict {
            b"F" => ok(),
            b"T" => {
                if let Some(left) = self.faults.failing_commits.checked_sub(1) {
                    self.faults.failing_commits = left;
                    return Err(ErrorCode::Again);
                }
                let changes = txn.commit(&mut self.tree).ok_or(ErrorCode::Again)?;
                self.tell(&changes);
                ok()
            }
            _ => Err(ErrorCode::Inval),
        }
    }

    fn special(&mut self, path: &str) {
        let perms = [Perm::new(Access::Read, 0)];
        self.tell(&[Change {
            path: path.into(),
            exact: true,
            perms: perms.as_slice().into(),
        }]);
    }

    fn tell(&mut self, changes: &[Change]) {
        for change in changes {
            for (conn, path, token) in self.watches.fire(change) {
                self.event(conn, &path, &token);
            }
        }
    }

    fn event(&mut self, conn: ConnId, path: &str, token: &str) {
        let message = Message {
            kind: Kind::WatchEvent,
            req_id: 0,
            tx_id: NO_TRANSACTION,
            payload: format!("{path}\0{token}\0").into_bytes(),
        };
        self.outgoing.push((conn, message));
    }
}

fn node_request(view: &mut View<'_>, request: &Message) -> Reply {
    let mut words = wire::strings(&request.payload);
    let path = Path::new(view.dom, words.next().ok_or(ErrorCode::Inval)?)?;
    let path = &*path.absolute;
    if path.starts_with('@') {
        return Err(ErrorCode::Inval);
    }
    match request.kind {
        Kind::Read => Ok(view.read(path)?.value.to_vec()),
        Kind::Directory => Ok(listing(&view.read(path)?)),
        Kind::DirectoryPart => {
            let offset = number(words.next().ok_or(ErrorCode::Inval)?)?;
            Ok(listing_part(&view.read(path)?, offset))
        }
        Kind::GetPerms => {
            let perms = &view.read(path)?.perms;
            Ok(perms
                .iter()
                .map(|p| format!("{p}\0"))
                .collect::<String>()
                .into_bytes())
        }
        Kind::Write => {
            // The value is what follows the path's NUL, to the end, NULs included.
            let end = request.payload.iter().position(|b| *b == 0);
            let value = end.and_then(|end| request.payload.get(end + 1..));
            view.write(path, value.ok_or(ErrorCode::Inval)?)?;
            ok()
        }
        Kind::Mkdir => view.mkdir(path).and_then(|()| ok()),
        Kind::Rm => view.rm(path).and_then(|()| ok()),
        Kind::SetPerms => {
            let perms = words
                .map(|word| utf8(word)?.parse().map_err(|_| ErrorCode::Inval))
                .collect::<Result<Vec<Perm>, _>>()?;
            view.set_perms(path, perms)?;
            ok()
        }
        _ => Err(ErrorCode::NoSys),
    }
}

fn listing(node: &Node) -> Vec<u8> {
    let names = node.children.iter();
    names
        .flat_map(|name| [name.as_bytes(), b"\0"].concat())
        .collect()
}

/// The generation, then as many whole names from `offset` on as fit; an empty name
/// after the last one.
fn listing_part(node: &Node, offset: usize) -> Vec<u8> {
    let mut reply = format!("{}\0", node.generation).into_bytes();
    let mut at = 0;
    for name in node.children.iter() {
        let size = name.len() + 1;
        if at >= offset {
            if reply.len() + size + 1 > PAYLOAD_MAX {
                return reply;
            }
            reply.extend_from_slice(name.as_bytes());
            reply.push(0);
        }
        at += size;
    }
    reply.push(0);
    reply
}

fn utf8(bytes: &[u8]) -> Result<&str, ErrorCode> {
    std::str::from_utf8(bytes).map_err(|_| ErrorCode::Inval)
}

fn number<T: std::str::FromStr>(bytes: &[u8]) -> Result<T, ErrorCode> {
    utf8(bytes)?.parse().map_err(|_| ErrorCode::Inval)
}
