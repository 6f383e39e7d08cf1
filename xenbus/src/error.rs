// SPDX-License-Identifier: GPL-3.0-or-later
//! Errors of the store, and how they travel inside `std::io::Error`.
//!
//! xenstore-rs's traits speak `io::Error`. An answer of xenstored becomes one whose
//! `kind()` is that of the errno it names (ENOENT is `NotFound`, EAGAIN
//! `WouldBlock`, ...); a connection that is no more gives one for which
//! [`is_disconnected`] is true.

use std::fmt;
use std::io;

use thiserror::Error;

/// An error that xenstored answers with, by its name on the wire (the list
/// `xsd_errors` of Xen's `io/xs_wire.h`, and EQUOTA of oxenstored).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of errno(3)")]
pub enum ErrorCode {
    Inval,
    Acces,
    Exist,
    IsDir,
    NoEnt,
    NoMem,
    NoSpc,
    Io,
    NotEmpty,
    NoSys,
    RoFs,
    Busy,
    Again,
    IsConn,
    TooBig,
    Perm,
    Quota,
}

impl ErrorCode {
    const TABLE: [(Self, &'static str, i32); 17] = [
        (Self::Inval, "EINVAL", libc::EINVAL),
        (Self::Acces, "EACCES", libc::EACCES),
        (Self::Exist, "EEXIST", libc::EEXIST),
        (Self::IsDir, "EISDIR", libc::EISDIR),
        (Self::NoEnt, "ENOENT", libc::ENOENT),
        (Self::NoMem, "ENOMEM", libc::ENOMEM),
        (Self::NoSpc, "ENOSPC", libc::ENOSPC),
        (Self::Io, "EIO", libc::EIO),
        (Self::NotEmpty, "ENOTEMPTY", libc::ENOTEMPTY),
        (Self::NoSys, "ENOSYS", libc::ENOSYS),
        (Self::RoFs, "EROFS", libc::EROFS),
        (Self::Busy, "EBUSY", libc::EBUSY),
        (Self::Again, "EAGAIN", libc::EAGAIN),
        (Self::IsConn, "EISCONN", libc::EISCONN),
        (Self::TooBig, "E2BIG", libc::E2BIG),
        (Self::Perm, "EPERM", libc::EPERM),
        (Self::Quota, "EQUOTA", libc::EDQUOT),
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        Self::TABLE
            .iter()
            .find(|row| row.0 == self)
            .map_or("EINVAL", |row| row.1)
    }

    /// The code of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::TABLE
            .iter()
            .find(|row| row.1 == name)
            .map(|row| row.0)
    }

    /// The errno.
    pub fn errno(self) -> i32 {
        Self::TABLE
            .iter()
            .find(|row| row.0 == self)
            .map_or(libc::EINVAL, |row| row.2)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// xenstored refused a request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("xenstored answered {code} to {operation} {path:?}")]
pub struct Refused {
    /// The operation, as Xen names it.
    pub operation: &'static str,
    /// What it was about.
    pub path: String,
    /// The answer.
    pub code: ErrorCode,
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        let kind = Self::from_raw_os_error(refused.code.errno()).kind();
        Self::new(kind, refused)
    }
}

/// The connection to xenstored is no more; a new [`crate::Client`] is needed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the connection to xenstored is lost: {reason}")]
pub struct Disconnected {
    /// Why.
    pub reason: String,
}

impl From<Disconnected> for io::Error {
    fn from(lost: Disconnected) -> Self {
        Self::new(io::ErrorKind::NotConnected, lost)
    }
}

/// Whether an error means that the connection to xenstored is no more.
pub fn is_disconnected(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<Disconnected>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again_and_kinds_are_those_of_the_errno() {
        for (code, name, errno) in ErrorCode::TABLE {
            assert_eq!((code.name(), code.errno()), (name, errno));
            assert_eq!(ErrorCode::from_name(name), Some(code));
        }
        assert_eq!(ErrorCode::from_name("ENOENT\0"), None);
        let kind = |code| {
            io::Error::from(Refused {
                operation: "READ",
                path: "a".to_owned(),
                code,
            })
            .kind()
        };
        assert_eq!(kind(ErrorCode::NoEnt), io::ErrorKind::NotFound);
        assert_eq!(kind(ErrorCode::Again), io::ErrorKind::WouldBlock);
        assert_eq!(kind(ErrorCode::Acces), io::ErrorKind::PermissionDenied);
        assert_eq!(kind(ErrorCode::Quota), io::ErrorKind::QuotaExceeded);
        assert_eq!(kind(ErrorCode::NoSpc), io::ErrorKind::StorageFull);
        assert_eq!(kind(ErrorCode::TooBig), io::ErrorKind::ArgumentListTooLong);
        assert_eq!(kind(ErrorCode::Exist), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(ErrorCode::Busy), io::ErrorKind::ResourceBusy);
    }

    #[test]
    fn only_a_lost_connection_is_disconnected() {
        let lost = Disconnected {
            reason: "end of file".to_owned(),
        };
        assert!(is_disconnected(&lost.into()));
        assert!(!is_disconnected(&io::Error::from(
            io::ErrorKind::NotConnected
        )));
        assert!(!is_disconnected(&io::Error::from_raw_os_error(
            libc::ENOENT
        )));
    }
}
