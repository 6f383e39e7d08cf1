// SPDX-License-Identifier: GPL-3.0-or-later
//! What a shell of [`crate::backend`] reads and writes in the store for one device.
//!
//! Writes are made in transactions that first look for the device's `state` node: a
//! directory that the toolstack has removed is never made again. Reads never follow
//! a path that was not checked, and what a guest wrote badly is a value, not an error;
//! an `Err` means that the store itself failed.

use std::io;

use xenstore_rs::{Xs, XsTransaction, XsTransactionSpan};

use crate::backend::{Event, FrontendState, HotplugStatus};
use crate::error::is_disconnected;
use crate::path::{DevicePath, FrontendPath, Key};
use crate::state::XenbusState;
use crate::transaction::transact;

mod probe;
#[cfg(test)]
mod tests;

pub use probe::{Probe, probe};

/// What became of a write into a backend directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Written {
    /// It was made.
    Done,
    /// The nodes had these values already.
    Unchanged,
    /// The directory is gone; nothing was written.
    Gone,
}

/// Writes our own `state`.
///
/// # Errors
/// That of the store.
pub fn set_state<S>(store: &S, device: DevicePath, state: XenbusState) -> io::Result<Written>
where
    S: XsTransaction,
    S::Span: XsTransactionSpan,
{
    write_keys(store, device, &[(Key::State.name(), state.node())])
}

/// Writes nodes of the backend directory (features, say), all or none.
///
/// # Errors
/// That of the store.
pub fn write_keys<S>(store: &S, device: DevicePath, keys: &[(&str, &str)]) -> io::Result<Written>
where
    S: XsTransaction,
    S::Span: XsTransactionSpan,
{
    transact(store, |t| {
        let present = names(t, &device.dir())?;
        let is_present = |name: &str| present.iter().any(|present| **present == *name);
        if !is_present(Key::State.name()) {
            return Ok(Written::Gone);
        }
        let mut written = Written::Unchanged;
        for (name, value) in keys {
            let path = device.node(name);
            // One listing instead of a look for each of the many nodes that are not there yet.
            let same = is_present(name) && optional(t, &path)?.as_deref() == Some(*value);
            if !same {
                t.write(&path, value)?;
                written = Written::Done;
            }
        }
        Ok(written)
    })
}

/// Writes a sentence for the operator to `<backend>/error` (unless the directory is
/// gone) and to [`DevicePath::error_node`]. Control characters are dropped and the
/// text is cut at 500 characters, well below xenstored's limits.
///
/// # Errors
/// That of the store.
pub fn report_error<S>(store: &S, device: DevicePath, text: &str) -> io::Result<()>
where
    S: XsTransaction,
    S::Span: XsTransactionSpan,
{
    let text: String = text.chars().filter(|c| !c.is_control()).take(500).collect();
    write_keys(store, device, &[(Key::Error.name(), &text)])?;
    store.write(&device.error_node(), &text)
}

/// Removes both error nodes, if they are there.
///
/// # Errors
/// That of the store.
pub fn clear_error(store: &impl Xs, device: DevicePath) -> io::Result<()> {
    remove(store, &device.key(Key::Error))?;
    remove(store, &device.error_node())
}

/// Removes `hotplug-status`, if it is there.
///
/// # Errors
/// That of the store.
pub fn clear_hotplug_status(store: &impl Xs, device: DevicePath) -> io::Result<()> {
    remove(store, &device.key(Key::HotplugStatus))
}

/// Writes the MTU into the frontend's `mtu` node, by which the toolstack tells the guest
/// of it: the node is the backend's own, and a toolstack that does not make it does not
/// want it.
///
/// # Errors
/// That of the store.
pub fn follow_mtu<S>(store: &S, frontend: FrontendPath, mtu: &str) -> io::Result<Written>
where
    S: XsTransaction,
    S::Span: XsTransactionSpan,
{
    let node = frontend.node(Key::Mtu.name());
    transact(store, |t| match optional(t, &node)? {
        None => Ok(Written::Gone),
        Some(text) if &*text == mtu => Ok(Written::Unchanged),
        Some(_) => t.write(&node, mtu).map(|()| Written::Done),
    })
}

/// Reads the frontend's state. A node that the guest made unreadable is
/// [`FrontendState::Nonsense`], a missing one [`FrontendState::Absent`].
///
/// # Errors
/// Only that the connection is lost.
pub fn read_frontend(store: &impl Xs, frontend: FrontendPath) -> io::Result<FrontendState> {
    match optional(store, &frontend.state()) {
        Ok(Some(text)) => Ok(FrontendState::parse(&text)),
        Ok(None) => Ok(FrontendState::Absent),
        Err(error) if is_disconnected(&error) => Err(error),
        Err(error) => Ok(FrontendState::Nonsense(format!(
            "something unreadable ({})",
            error.kind()
        ))),
    }
}

/// Reads what the hotplug script says, and the node's text, if there is one.
///
/// # Errors
/// That of the store.
pub fn read_hotplug(
    store: &impl Xs,
    device: DevicePath,
) -> io::Result<(HotplugStatus, Option<Box<str>>)> {
    let status = optional(store, &device.key(Key::HotplugStatus))?;
    let meaning = match status.as_deref() {
        Some("connected") => HotplugStatus::Connected,
        Some("error") => {
            let text = optional(store, &device.key(Key::HotplugError))?;
            let text: String = text
                .as_deref()
                .unwrap_or_default()
                .chars()
                .take(300)
                .collect();
            HotplugStatus::Error(format!("{text:?}"))
        }
        _ => HotplugStatus::Other,
    };
    Ok((meaning, status))
}

/// The event for the `handle` node of a device that was found without one; `None`
/// while it is still missing.
///
/// # Errors
/// That of the store.
pub fn read_handle(store: &impl Xs, device: DevicePath) -> io::Result<Option<Event>> {
    probe::handle_event(store, device)
}

/// Whether `online` is 1.
///
/// # Errors
/// That of the store.
pub fn read_online(store: &impl Xs, device: DevicePath) -> io::Result<bool> {
    Ok(optional(store, &device.key(Key::Online))?.is_some_and(|text| text.trim() == "1"))
}

/// What a change of our own `state` or `online` node means for the device: call it
/// for events of either. `known` is the state that the shell found or wrote last.
///
/// # Errors
/// That of the store.
pub fn read_own(store: &impl Xs, device: DevicePath, known: XenbusState) -> io::Result<Vec<Event>> {
    let Some(text) = optional(store, &device.key(Key::State))? else {
        return Ok(vec![Event::BackendRemoved]);
    };
    let state = text.parse::<XenbusState>();
    if state == Ok(XenbusState::Initialising) && known != XenbusState::Initialising {
        // A new device took the path before we saw the old one go.
        return Ok(vec![Event::BackendRemoved]);
    }
    let online = read_online(store, device)?;
    let mut events = vec![Event::OnlineChanged(online)];
    if state == Ok(XenbusState::Closing) && !online {
        events.push(Event::ToolstackClosing);
    }
    Ok(events)
}

/// Reads a node that need not exist.
///
/// # Errors
/// That of the store, except that the node is missing.
pub fn optional(store: &impl Xs, path: &str) -> io::Result<Option<Box<str>>> {
    match store.read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names in a directory that need not exist.
///
/// # Errors
/// That of the store, except that the directory is missing.
pub fn names(store: &impl Xs, path: &str) -> io::Result<Vec<Box<str>>> {
    match store.directory(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

fn remove(store: &impl Xs, path: &str) -> io::Result<()> {
    match store.rm(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
