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
use crate::many::{XsMany, present};
use crate::path::{DevicePath, DomId, ERROR_ROOT, FrontendPath, Key, decimal};
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
    /// The toolstack asks for removal there; nothing was written ([`set_connected`]).
    Withheld,
}

/// Writes our own `state`.
///
/// # Errors
/// That of the store.
pub fn set_state<S>(store: &S, device: DevicePath, state: XenbusState) -> io::Result<Written>
where
    S: XsTransaction,
    S::Span: XsTransactionSpan + XsMany,
{
    write_keys(store, device, &[(Key::State.name(), state.node())])
}

/// Writes Connected as our own `state`, unless the toolstack has written Closing there: it asks the frontend to go, which
/// has to be able to read that. Not for a device whose node is Closing by our own hand.
///
/// # Errors
/// That of the store.
pub fn set_connected<S>(store: &S, device: DevicePath) -> io::Result<Written>
where
    S: XsTransaction,
    S::Span: XsTransactionSpan,
{
    let node = device.key(Key::State);
    transact(store, |t| {
        let Some(text) = optional(t, &node)? else {
            return Ok(Written::Gone);
        };
        match text.parse() {
            Ok(XenbusState::Closing) => Ok(Written::Withheld),
            Ok(XenbusState::Connected) => Ok(Written::Unchanged),
            _ => t
                .write(&node, XenbusState::Connected.node())
                .map(|()| Written::Done),
        }
    })
}

/// Writes nodes of the backend directory (features, say), all or none.
///
/// # Errors
/// That of the store.
pub fn write_keys<S>(store: &S, device: DevicePath, keys: &[(&str, &str)]) -> io::Result<Written>
where
    S: XsTransaction,
    S::Span: XsTransactionSpan + XsMany,
{
    let node = |name: &str| device.node(name);
    let paths: Vec<_> = [Key::State.name()]
        .into_iter()
        .chain(keys.iter().map(|(name, _)| *name))
        .map(node)
        .collect();
    transact(store, |t| {
        let mut texts = t.read_many(&paths).into_iter().map(present);
        if texts.next().transpose()?.flatten().is_none() {
            return Ok(Written::Gone);
        }
        let mut changed = Vec::new();
        for ((name, value), text) in keys.iter().zip(texts) {
            if text?.as_deref() != Some(*value) {
                changed.push((device.node(name), *value));
            }
        }
        if changed.is_empty() {
            return Ok(Written::Unchanged);
        }
        t.write_many(&changed).map(|()| Written::Done)
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
    S::Span: XsTransactionSpan + XsMany,
{
    let text: String = text.chars().filter(|c| !c.is_control()).take(500).collect();
    // One of them may be refused without the other.
    let own = write_keys(store, device, &[(Key::Error.name(), &text)]);
    let other = store.write(&device.error_node(), &text);
    own.and(other)
}

/// Removes both error nodes, if they are there.
///
/// # Errors
/// That of the store.
pub fn clear_error(store: &impl XsMany, device: DevicePath) -> io::Result<()> {
    let nodes = [device.key(Key::Error), device.error_node()];
    let removed = store.rm_many(&nodes).into_iter();
    removed.map(present).try_for_each(|done| done.map(drop))
}

/// Removes what [`report_error`] has left of a device that is gone, as nobody else would: each boot
/// makes a guest a new domain, and a driver domain may have so many nodes only.
///
/// # Errors
/// That of the store.
pub fn forget_error<S>(store: &S, device: DevicePath) -> io::Result<()>
where
    S: Xs + XsTransaction,
    S::Span: XsTransactionSpan,
{
    let (dir, of_guest) = (device.error_dir(), errors_of(device.dom));
    if optional(store, &dir)?.is_none() {
        return Ok(());
    }
    transact(store, |t| {
        remove(t, &dir)?;
        if names(t, &of_guest)?.is_empty() {
            remove(t, &of_guest)?;
        }
        Ok(())
    })
}

/// The devices, present ones and others, that [`forget_error`] has something to remove of.
///
/// # Errors
/// That of the store.
pub fn with_errors(store: &impl Xs) -> io::Result<Vec<DevicePath>> {
    let mut found = Vec::new();
    for dom in names(store, ERROR_ROOT)?
        .iter()
        .filter_map(|name| DomId::parse(name))
    {
        let handles = names(store, &errors_of(dom))?;
        let handles = handles.iter().filter_map(|name| decimal(name));
        found.extend(handles.map(|handle| DevicePath::new(dom, handle)));
    }
    Ok(found)
}

fn errors_of(guest: DomId) -> String {
    format!("{ERROR_ROOT}/{guest}")
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
/// want it. One that the backend may not write is the guest's, and as good as gone.
///
/// # Errors
/// That of the store.
pub fn follow_mtu<S>(store: &S, frontend: FrontendPath, mtu: &str) -> io::Result<Written>
where
    S: XsTransaction,
    S::Span: XsTransactionSpan + XsMany,
{
    let node = frontend.node(Key::Mtu.name());
    transact(store, |t| match optional(t, &node)? {
        None => Ok(Written::Gone),
        Some(text) if &*text == mtu => Ok(Written::Unchanged),
        Some(_) => match t.write(&node, mtu) {
            Err(error) if is_denied(&error) => Ok(Written::Gone),
            written => written.map(|()| Written::Done),
        },
    })
}

/// Reads the frontend's state. A missing node is [`FrontendState::Absent`], and so is one that may
/// not be read if its directory may not either: xenstored tells a driver domain no more of a guest
/// that is gone. A node that the guest made unreadable is [`FrontendState::Nonsense`].
///
/// # Errors
/// Only that the connection is lost.
pub fn read_frontend(store: &impl Xs, frontend: FrontendPath) -> io::Result<FrontendState> {
    match optional(store, &frontend.state()) {
        Ok(Some(text)) => Ok(FrontendState::parse(&text)),
        Ok(None) => Ok(FrontendState::Absent),
        Err(error) if is_disconnected(&error) => Err(error),
        Err(error) if is_denied(&error) => match store.directory(&frontend.dir()) {
            Err(error) if is_disconnected(&error) => Err(error),
            Err(error) if is_denied(&error) => Ok(FrontendState::Absent),
            _ => Ok(FrontendState::Nonsense("something unreadable".to_owned())),
        },
        Err(error) => Ok(FrontendState::Nonsense(format!(
            "something unreadable ({})",
            error.kind()
        ))),
    }
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
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

/// What the node `online` means.
fn is_online(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.trim() == "1")
}

/// What a change of our own `state` or `online` node means for the device: call it
/// for events of either. `known` is the state that the shell found or wrote last.
///
/// # Errors
/// That of the store.
pub fn read_own(
    store: &impl XsMany,
    device: DevicePath,
    known: XenbusState,
) -> io::Result<Vec<Event>> {
    let [state, online] = read_keys(store, device, [Key::State, Key::Online]);
    let Some(text) = state? else {
        return Ok(vec![Event::BackendRemoved]);
    };
    let state = text.parse::<XenbusState>();
    if state == Ok(XenbusState::Initialising) && known != XenbusState::Initialising {
        // A new device took the path before we saw the old one go.
        return Ok(vec![Event::BackendRemoved]);
    }
    let online = is_online(online?.as_deref());
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
    present(store.read(path))
}

/// Reads nodes of the backend directory, which need not exist.
fn read_keys<const N: usize>(
    store: &impl XsMany,
    device: DevicePath,
    keys: [Key; N],
) -> [io::Result<Option<Box<str>>>; N] {
    let mut texts = store
        .read_many(&keys.map(|key| device.key(key)))
        .into_iter();
    // There are as many answers as questions.
    keys.map(|_| texts.next().map_or(Ok(None), present))
}

/// The names in a directory that need not exist.
///
/// # Errors
/// That of the store, except that the directory is missing.
pub fn names(store: &impl Xs, path: &str) -> io::Result<Vec<Box<str>>> {
    present(store.directory(path)).map(Option::unwrap_or_default)
}

fn remove(store: &impl Xs, path: &str) -> io::Result<()> {
    present(store.rm(path)).map(drop)
}
