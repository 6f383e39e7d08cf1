// SPDX-License-Identifier: GPL-3.0-or-later
//! The first look at a backend directory.

use std::io;

use xenstore_rs::Xs;

use super::{optional, read_frontend, read_online};
use crate::backend::{Event, FrontendState, Probed};
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
pub fn probe(store: &impl Xs, device: DevicePath) -> io::Result<Option<Probe>> {
    let Some(state) = optional(store, &device.key(Key::State))? else {
        return Ok(None);
    };
    let own_state: Result<XenbusState, StateError> = state.parse();
    let online = read_online(store, device)?;
    let frontend = frontend(store, device)?;
    let handle = read_handle(store, device)?;
    // A toolstack that does not write in one transaction is not done yet; the kernel waits too.
    let unfinished = matches!(frontend, Err(PathError::Missing { .. }));
    if unfinished && own_state == Ok(XenbusState::Initialising) {
        return Ok(None);
    }
    let script = optional(store, &device.key(Key::Script))?.is_some();
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

/// Reads `handle`: `None` if it is not there yet, `Err` with its text, cut short, if
/// it is no number.
///
/// # Errors
/// That of the store.
fn read_handle(store: &impl Xs, device: DevicePath) -> io::Result<Result<Option<u32>, String>> {
    let Some(text) = optional(store, &device.key(Key::Handle))? else {
        return Ok(Ok(None));
    };
    Ok(match decimal(&text) {
        Some(handle) => Ok(Some(handle)),
        None => Err(text.chars().take(32).collect()),
    })
}

/// The event for the `handle` node of a device that was found without one; `None` if
/// it is still missing.
///
/// # Errors
/// That of the store.
pub(super) fn handle_event(store: &impl Xs, device: DevicePath) -> io::Result<Option<Event>> {
    Ok(match read_handle(store, device)? {
        Ok(None) => None,
        Ok(Some(handle)) => Some(Event::Handle(Ok(handle))),
        Err(text) => Some(Event::Handle(Err(handle_error(&text)))),
    })
}

fn handle_error(text: &str) -> String {
    format!("handle is {text:?}, which is not a number")
}

fn frontend(store: &impl Xs, device: DevicePath) -> io::Result<Result<FrontendPath, PathError>> {
    let mut texts = [None, None];
    for (text, key) in texts.iter_mut().zip([Key::Frontend, Key::FrontendId]) {
        *text = optional(store, &device.key(key))?;
        if text.is_none() {
            return Ok(Err(PathError::Missing { key }));
        }
    }
    let [path, id] = texts.map(Option::unwrap_or_default);
    Ok(FrontendPath::check(device, &path, &id))
}

fn absent(store: &impl Xs, frontend: &Result<FrontendPath, PathError>) -> io::Result<bool> {
    Ok(match frontend {
        Ok(frontend) => read_frontend(store, *frontend)? == FrontendState::Absent,
        Err(_) => true,
    })
}
