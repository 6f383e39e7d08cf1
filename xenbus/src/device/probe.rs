// SPDX-License-Identifier: GPL-3.0-or-later
//! The first look at a backend directory.

use std::io;

use xenstore_rs::Xs;

use super::{is_online, optional, read_frontend, read_keys};
use crate::backend::{Event, FrontendState, Probed};
use crate::many::XsMany;
use crate::path::{DevicePath, FrontendPath, Key, PathError, decimal};
use crate::state::{StateError, XenbusState};

/// What a backend directory holds when it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The directory.
    pub device: DevicePath,
    /// Our own `state`.
    pub own_state: Result<XenbusState, StateError>,
    /// Whether `online` is 1.
    pub online: bool,
    /// The checked frontend directory.
    pub frontend: Result<FrontendPath, PathError>,
    /// `handle`: `None` if it is not there yet, `Err` with its text if it is no number.
    pub handle: Result<Option<u32>, String>,
    /// Whether there is a `script` node: who plugs the netif in. libxl always writes it.
    pub script: bool,
    /// A device that is over: closed, and either not wanted any more or without a
    /// frontend. It waits for the toolstack to remove it and is none of ours.
    pub retired: bool,
}

impl Probe {
    /// The event that starts the state machine.
    pub fn event(&self) -> Event {
        let probed = || {
            self.frontend.as_ref().map_err(ToString::to_string)?;
            let own_state = self
                .own_state
                .clone()
                .map_err(|e| format!("our own state: {e}"))?;
            let handle = self.handle.clone().map_err(|text| handle_error(&text))?;
            if !self.script {
                return Err("the toolstack wrote no script node, so nothing would plug the vif into a network".to_owned());
            }
            Ok(Probed {
                own_state,
                handle,
                online: self.online,
            })
        };
        Event::Probed(probed())
    }
}

/// Reads a backend directory; `None` if there is no device (no `state` node, or a new one
/// without a frontend: it is gone, or the toolstack has not finished it).
///
/// # Errors
/// That of the store.
pub fn probe(store: &impl XsMany, device: DevicePath) -> io::Result<Option<Probe>> {
    let [state, online, path, id, handle, script] = read_keys(
        store,
        device,
        [
            Key::State,
            Key::Online,
            Key::Frontend,
            Key::FrontendId,
            Key::Handle,
            Key::Script,
        ],
    );
    let Some(state) = state? else {
        return Ok(None);
    };
    let own_state: Result<XenbusState, StateError> = state.parse();
    let online = is_online(online?.as_deref());
    let frontend = frontend(device, path?, id?);
    let handle = parse_handle(handle?);
    // A toolstack that does not write in one transaction is not done yet; the kernel waits too.
    let unfinished = matches!(frontend, Err(PathError::Missing { .. }));
    if unfinished && own_state == Ok(XenbusState::Initialising) {
        return Ok(None);
    }
    let script = script?.is_some();
    let retired = own_state == Ok(XenbusState::Closed) && (!online || absent(store, &frontend)?);
    Ok(Some(Probe {
        device,
        own_state,
        online,
        frontend,
        handle,
        script,
        retired,
    }))
}

/// What `handle` says: `None` if it is not there yet, `Err` with its text, cut short, if
/// it is no number.
fn parse_handle(text: Option<Box<str>>) -> Result<Option<u32>, String> {
    let Some(text) = text else { return Ok(None) };
    match decimal(&text) {
        Some(handle) => Ok(Some(handle)),
        None => Err(text.chars().take(32).collect()),
    }
}

/// The event for the `handle` node of a device that was found without one; `None` if
/// it is still missing.
///
/// # Errors
/// That of the store.
pub(super) fn handle_event(store: &impl Xs, device: DevicePath) -> io::Result<Option<Event>> {
    Ok(
        match parse_handle(optional(store, &device.key(Key::Handle))?) {
            Ok(None) => None,
            Ok(Some(handle)) => Some(Event::Handle(Ok(handle))),
            Err(text) => Some(Event::Handle(Err(handle_error(&text)))),
        },
    )
}

fn handle_error(text: &str) -> String {
    format!("handle is {text:?}, which is not a number")
}

fn frontend(
    device: DevicePath,
    path: Option<Box<str>>,
    id: Option<Box<str>>,
) -> Result<FrontendPath, PathError> {
    let missing = |key| move || PathError::Missing { key };
    let path = path.ok_or_else(missing(Key::Frontend))?;
    let id = id.ok_or_else(missing(Key::FrontendId))?;
    FrontendPath::check(device, &path, &id)
}

fn absent(store: &impl Xs, frontend: &Result<FrontendPath, PathError>) -> io::Result<bool> {
    Ok(match frontend {
        Ok(frontend) => read_frontend(store, *frontend)? == FrontendState::Absent,
        Err(_) => true,
    })
}
