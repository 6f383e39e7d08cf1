// SPDX-License-Identifier: GPL-3.0-or-later
//! Watch events that wait to be handled, in bounded memory.
//!
//! A guest may write its nodes as fast as it likes, and each write is an event for
//! us (XSA-349). An event carries no value, only "look again", so equal events are
//! kept once; and what counts as equal is decided by the watch ([`Coalesce`]), not
//! by the path that a guest chose. The queue therefore never holds more than one
//! event for each watch and each node that the watch tells apart: a list that is
//! ours, or the known keys of the devices under the backend root, which only the
//! toolstack can create.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::path::Subject;

#[cfg(test)]
mod tests;

/// Something changed at or below `path`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchEvent {
    /// What changed, as far as the watch tells it apart ([`Coalesce`]).
    pub path: String,
    /// The token that the watch was made with.
    pub token: String,
}

/// Which events of a watch are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coalesce {
    /// All of them: the event's path is the watched path, whatever changed below.
    Watched,
    /// For a watch of [`crate::path::BACKEND_ROOT`]: those for the same known key of
    /// a device, or for anything else in the device, the guest or the root
    /// ([`Subject`]).
    Devices,
    /// Those for the same of these nodes in the watched directory, and those for the
    /// directory itself. For other nodes there are none.
    Nodes(&'static [&'static str]),
}

#[derive(Debug)]
struct Watch {
    path: String,
    coalesce: Coalesce,
}

/// The registered watches and the events that wait.
#[derive(Debug, Default)]
pub struct EventQueue {
    /// By token and path, as xenstored knows them.
    watches: BTreeMap<String, Vec<Watch>>,
    order: VecDeque<WatchEvent>,
    pending: BTreeSet<WatchEvent>,
}

impl EventQueue {
    /// No watches, no events.
    pub fn new() -> Self {
        Self::default()
    }

    /// Expects events of a watch from now on.
    pub fn register(&mut self, path: &str, token: &str, coalesce: Coalesce) {
        let watches = self.watches.entry(token.to_owned()).or_default();
        watches.retain(|watch| watch.path != path);
        watches.push(Watch {
            path: path.to_owned(),
            coalesce,
        });
    }

    /// Expects none any more, and drops those that wait.
    pub fn unregister(&mut self, path: &str, token: &str) {
        let Some(watches) = self.watches.get_mut(token) else {
            return;
        };
        watches.retain(|watch| watch.path != path);
        if watches.is_empty() {
            self.watches.remove(token);
        }
        let gone = |event: &WatchEvent| event.token == token && covers(path, &event.path);
        self.order.retain(|event| !gone(event));
        self.pending.retain(|event| !gone(event));
    }

    /// Takes an event from xenstored. Events of watches that are not registered (an
    /// unwatch was on its way) are dropped.
    pub fn push(&mut self, path: &str, token: &str) {
        let watch = self
            .watches
            .get(token)
            .and_then(|watches| watches.iter().find(|watch| covers(&watch.path, path)));
        let Some(watch) = watch else {
            return;
        };
        let path = match watch.coalesce {
            Coalesce::Watched => watch.path.clone(),
            Coalesce::Devices => Subject::of(path).path(),
            Coalesce::Nodes(nodes) => match node_of(&watch.path, path) {
                None => watch.path.clone(),
                Some(node) if nodes.contains(&node) => format!("{}/{node}", watch.path),
                Some(_) => return,
            },
        };
        let event = WatchEvent {
            path,
            token: token.to_owned(),
        };
        if self.pending.insert(event.clone()) {
            self.order.push_back(event);
        }
    }

    /// The event that has waited longest.
    pub fn pop(&mut self) -> Option<WatchEvent> {
        let event = self.order.pop_front()?;
        self.pending.remove(&event);
        Some(event)
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// The node of the directory `root` that `path`, which is covered by it, is or lies
/// below; `None` for `root` itself.
fn node_of<'a>(root: &str, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(root)?.strip_prefix('/')?;
    rest.split('/').next()
}

/// Whether `path` is `root` or below it.
fn covers(root: &str, path: &str) -> bool {
    path.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || root == "/")
}
