// SPDX-License-Identifier: GPL-3.0-or-later
//! Where xenstored is, and a descriptor to it within a limited time.
//!
//! connect(2) waits for room in a listener's backlog, without end unless it is told otherwise: a
//! xenstored that hangs would take along the thread that connects.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};

/// Where xenstored listens: the environment's word, the usual sockets, else the
/// kernel's device (which is how a driver domain reaches the store).
pub(crate) fn open(limit: Duration) -> io::Result<OwnedFd> {
    open_at(std::env::var_os("XENSTORED_PATH").as_deref(), limit)
}

pub(crate) fn open_at(named: Option<&OsStr>, limit: Duration) -> io::Result<OwnedFd> {
    if let Some(path) = named {
        return socket(Path::new(path), limit);
    }
    for path in ["/run/xenstored/socket", "/var/run/xenstored/socket"] {
        match socket(Path::new(path), limit) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    let device = Path::new("/dev/xen/xenbus");
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(device)
        .map(OwnedFd::from)
        .map_err(|error| with_path(&error, device))
}

/// A socket that is connected, after a wait of `limit` at most: `TimedOut` then.
pub(crate) fn socket(path: &Path, limit: Duration) -> io::Result<OwnedFd> {
    match connected(path, limit) {
        Ok(stream) => Ok(stream.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!(
                "cannot connect to xenstored at {}: it is there, but has taken no connection for {limit:?} (does it hang, or is it stopped?)",
                path.display()
            ),
        )),
        Err(error) => Err(with_path(&error, path)),
    }
}

fn connected(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let stream = UnixStream::from(socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?);
    // For connect(2), too: unix(7) has no other limit.
    stream.set_write_timeout(Some(limit))?;
    socket::connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(stream)
}

fn with_path(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot connect to xenstored at {}: {error}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{Backlog, bind, listen};

    use super::*;
    use crate::client::Client;
    use crate::fake::FakeXenstored;

    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn the_environment_names_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let store = FakeXenstored::spawn().unwrap();
        store.listen(&socket).unwrap();
        let client = Client::over(open_at(Some(socket.as_os_str()), LONG).unwrap()).unwrap();
        assert_eq!(client.domid(LONG).unwrap().raw(), 0);
        let missing = open_at(Some(dir.path().join("none").as_os_str()), LONG).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(missing.to_string().contains("none"), "{missing}");
    }

    /// It listens, but whoever connects has to wait until it takes a connection, which it never does.
    #[test]
    fn a_xenstored_that_takes_no_connection_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = socket::socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let _takes_the_only_place = UnixStream::connect(&path).unwrap();
        let hung = Client::connect_to(&path, Duration::from_millis(20)).unwrap_err();
        assert_eq!(hung.kind(), io::ErrorKind::TimedOut);
        let text = hung.to_string();
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        assert!(text.contains("20ms"), "{text}");
    }
}
