// SPDX-License-Identifier: GPL-3.0-or-later
//! The user's end of the control socket: `netback status` asks, waits for the answer, and says what is wrong when
//! there is none.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::model::Status;

/// How long the daemon may take for each step of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer taken: about 1 KiB for each of 65,536 devices.
const MAX_ANSWER: u64 = 64 << 20;

/// The daemon's answer.
#[derive(Debug, Clone)]
pub struct Answer {
    json: serde_json::Value,
}

impl Answer {
    /// The answer as the daemon gave it, for `--json`: also what a newer daemon says and this program does not know.
    #[must_use]
    pub const fn json(&self) -> &serde_json::Value {
        &self.json
    }

    /// The answer as far as this program knows it.
    pub fn status(&self) -> Result<Status, ClientError> {
        serde::Deserialize::deserialize(&self.json).map_err(ClientError::Answer)
    }
}

/// Asks the daemon behind the control socket `path` for its status. Blocks for some seconds at most.
pub fn status(path: &Path) -> Result<Answer, ClientError> {
    let mut text = Vec::new();
    let mut exchange = || {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"status\n")?;
        stream.take(MAX_ANSWER).read_to_end(&mut text)
    };
    exchange().map_err(|error| ClientError::of(path, error))?;
    let json: serde_json::Value = serde_json::from_slice(&text).map_err(ClientError::Answer)?;
    match json.get("error").and_then(|error| error.as_str()) {
        Some(error) => Err(ClientError::Refused(error.escape_debug().to_string())),
        None => Ok(Answer { json }),
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon.
    #[error(
        "netback is not running (no socket at {0}): `journalctl -u netback` says why if it has ended, `systemctl start netback` starts it; a socket elsewhere is named with --socket"
    )]
    NotRunning(PathBuf),
    /// A socket, and nobody behind it.
    #[error("netback is not running (nobody answers on {0}, which it left behind)")]
    Dead(PathBuf),
    /// Not allowed.
    #[error("no permission to use the control socket {0}: try as root")]
    Permission(PathBuf),
    /// The daemon does not answer in time.
    #[error("netback does not answer on {0} although it is running: see its log")]
    Silent(PathBuf),
    /// Any other failure of the connection.
    #[error("cannot talk to netback on {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Not what a netback says.
    #[error("the answer is not that of a netback this program understands: {0}")]
    Answer(#[source] serde_json::Error),
    /// The daemon says no.
    #[error("netback refused the request: {0}")]
    Refused(String),
}

impl ClientError {
    fn of(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotRunning(path),
            io::ErrorKind::ConnectionRefused => Self::Dead(path),
            io::ErrorKind::PermissionDenied => Self::Permission(path),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent(path),
            _ => Self::Io { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_said() {
        let path = Path::new("/run/netback/control.sock");
        let cases = [
            (
                libc_enoent(),
                "netback is not running (no socket at /run/netback/control.sock)",
            ),
            (
                io::ErrorKind::ConnectionRefused.into(),
                "nobody answers on /run/netback/control.sock",
            ),
            (io::ErrorKind::PermissionDenied.into(), "try as root"),
            (io::ErrorKind::WouldBlock.into(), "does not answer"),
            (
                io::ErrorKind::BrokenPipe.into(),
                "cannot talk to netback on /run/netback/control.sock: broken pipe",
            ),
        ];
        for (error, part) in cases {
            let said = ClientError::of(path, error).to_string();
            assert!(said.contains(part), "{said}");
        }
    }

    fn libc_enoent() -> io::Error {
        UnixStream::connect("/nonexistent/netback.sock").unwrap_err()
    }
}
