// SPDX-License-Identifier: GPL-3.0-or-later
//! Typed xenstore paths: where a vif's backend and frontend directories are.
//!
//! Backend paths are relative (`backend/vif/...`), so that xenstored resolves them
//! against the caller's own domain: the same code serves dom0 and a driver domain.
//! A frontend path is only built from checked numbers, never taken as it stands.

use std::fmt;

use thiserror::Error;

mod key;
#[cfg(test)]
mod tests;

pub use key::Key;

/// The directory of all our vif backends, relative to our own domain.
pub const BACKEND_ROOT: &str = "backend/vif";

/// The directory of all errors about them.
pub const ERROR_ROOT: &str = "error/backend/vif";

/// A domain's number, below the numbers that Xen reserves (`DOMID_FIRST_RESERVED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomId(u16);

impl DomId {
    /// The control domain.
    pub const ZERO: Self = Self(0);
    /// The first number that is not a domain's (Xen's `DOMID_FIRST_RESERVED`).
    const FIRST_RESERVED: u16 = 0x7ff0;

    /// A domain number, if it is one that a real domain can have.
    pub const fn new(raw: u16) -> Option<Self> {
        if raw < Self::FIRST_RESERVED {
            Some(Self(raw))
        } else {
            None
        }
    }

    /// The number.
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// Parses the decimal text of a path component or of a `frontend-id` node.
    pub fn parse(text: &str) -> Option<Self> {
        decimal(text)
            .and_then(|n| u16::try_from(n).ok())
            .and_then(Self::new)
    }
}

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One vif's backend directory: `backend/vif/<dom>/<handle>` of our own domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevicePath {
    /// The guest.
    pub dom: DomId,
    /// The number of the vif within the guest (libxl's devid).
    pub handle: u32,
}

impl DevicePath {
    /// The directory of vif `handle` of guest `dom`.
    pub const fn new(dom: DomId, handle: u32) -> Self {
        Self { dom, handle }
    }

    /// The backend directory, relative to our own domain; also the `XENBUS_PATH`
    /// of hotplug scripts.
    pub fn dir(self) -> String {
        format!("{BACKEND_ROOT}/{}/{}", self.dom, self.handle)
    }

    /// The path of one of the keys that this crate knows.
    pub fn key(self, key: Key) -> String {
        self.node(key.name())
    }

    /// The path of any node in the backend directory.
    pub fn node(self, name: &str) -> String {
        format!("{}/{name}", self.dir())
    }

    /// The node for the device's last error, where Xen's backends have always told it:
    /// outside of the device's directory, so that it does not go with that.
    pub fn error_node(self) -> String {
        format!("{}/error", self.error_dir())
    }

    /// The directory of [`Self::error_node`].
    pub fn error_dir(self) -> String {
        format!("{ERROR_ROOT}/{}/{}", self.dom, self.handle)
    }
}

impl fmt::Display for DevicePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BACKEND_ROOT}/{}/{}", self.dom, self.handle)
    }
}

/// A checked frontend directory: `/local/domain/<dom>/device/vif/<index>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendPath {
    dom: DomId,
    index: u32,
}

impl FrontendPath {
    /// Checks what the backend directory says about its frontend: `frontend` must
    /// be a vif directory in the guest that `frontend-id` names, and that must be
    /// the guest in the backend's own path (XSA-175: never follow a path on trust).
    ///
    /// # Errors
    /// [`PathError`] says which of the three disagree.
    pub fn check(device: DevicePath, frontend: &str, frontend_id: &str) -> Result<Self, PathError> {
        let id = DomId::parse(frontend_id).ok_or_else(|| PathError::FrontendId {
            text: excerpt(frontend_id),
        })?;
        if id != device.dom {
            return Err(PathError::OtherGuest { device, found: id });
        }
        let path = Self::parse(frontend).ok_or_else(|| PathError::Frontend {
            text: excerpt(frontend),
        })?;
        if path.dom != id {
            return Err(PathError::OtherGuest {
                device,
                found: path.dom,
            });
        }
        Ok(path)
    }

    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("/local/domain/")?;
        let (dom, rest) = rest.split_once('/')?;
        let index = rest.strip_prefix("device/vif/")?;
        Some(Self {
            dom: DomId::parse(dom)?,
            index: decimal(index)?,
        })
    }

    /// The guest.
    pub const fn dom(self) -> DomId {
        self.dom
    }

    /// The frontend directory.
    pub fn dir(self) -> String {
        self.to_string()
    }

    /// The path of a node in the frontend directory (`state`, `queue-0/tx-ring-ref`).
    pub fn node(self, name: &str) -> String {
        format!("{self}/{name}")
    }

    /// The path of the frontend's `state`.
    pub fn state(self) -> String {
        self.node("state")
    }
}

impl fmt::Display for FrontendPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/local/domain/{}/device/vif/{}", self.dom, self.index)
    }
}

/// A backend directory whose references to its frontend are not to be followed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    /// `frontend-id` is not a domain number.
    #[error("frontend-id is {text:?}, which is not a domain number")]
    FrontendId {
        /// What the node holds.
        text: String,
    },
    /// `frontend` is not a vif's frontend directory.
    #[error("frontend is {text:?}, expected /local/domain/<guest>/device/vif/<n>")]
    Frontend {
        /// What the node holds.
        text: String,
    },
    /// `frontend` or `frontend-id` names another guest than the backend's path.
    #[error("{device} is for domain {} but its frontend belongs to domain {found}", .device.dom)]
    OtherGuest {
        /// The backend directory.
        device: DevicePath,
        /// The guest that the node names.
        found: DomId,
    },
    /// `frontend` or `frontend-id` is missing.
    #[error("{key} is missing from the backend directory")]
    Missing {
        /// The missing key.
        key: Key,
    },
}

/// What a path under [`BACKEND_ROOT`] (of a watch event, say) is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The root itself, or something above or outside of it.
    Root,
    /// A guest's directory.
    Domain(DomId),
    /// A device's directory, or a node in it that nobody waits for.
    Device(DevicePath),
    /// One of the known keys of a device.
    Key(DevicePath, Key),
}

impl Subject {
    /// What `path` is about. Total: whatever is not understood is about the next
    /// directory above it that is.
    pub fn of(path: &str) -> Self {
        let Some(rest) = path
            .strip_prefix(BACKEND_ROOT)
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            return Self::Root;
        };
        let mut parts = rest.split('/');
        let Some(dom) = parts.next().and_then(DomId::parse) else {
            return Self::Root;
        };
        let Some(handle) = parts.next().and_then(decimal) else {
            return Self::Domain(dom);
        };
        let device = DevicePath::new(dom, handle);
        match parts.next().and_then(Key::from_name) {
            Some(key) => Self::Key(device, key),
            None => Self::Device(device),
        }
    }

    /// The path that stands for the subject.
    pub fn path(self) -> String {
        match self {
            Self::Root => BACKEND_ROOT.to_owned(),
            Self::Domain(dom) => format!("{BACKEND_ROOT}/{dom}"),
            Self::Device(device) => device.dir(),
            Self::Key(device, key) => device.key(key),
        }
    }
}

/// Parses a number as xenstore paths carry it: decimal digits, no sign, no leading
/// zeros, so that each number has one spelling only.
pub fn decimal(text: &str) -> Option<u32> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// The beginning of a text that somebody else wrote, short enough for a log line.
fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}
