// SPDX-License-Identifier: GPL-3.0-or-later
//! What a frontend may ask for and take back while it is connected.
//!
//! Read with its other keys when it connects, and again whenever one of [`KEYS`] changes.

use std::io;

use super::super::headroom::Headroom;
use super::{FrontendKeys, NegotiateError, Read};

pub(in crate::vif) const MULTICAST: &str = "request-multicast-control";
pub(in crate::vif) const HEADROOM: &str = "xdp-headroom";
pub(super) const DISCONNECT: &str = "disconnect";

const HEADROOM_ALLOWED: &str = "0 to 2578 bytes";
const _: () = assert!(Headroom::MAX.bytes() == 2578);

/// The keys that say it, relative to the frontend's directory.
pub const KEYS: [&str; 3] = [MULTICAST, HEADROOM, DISCONNECT];

/// What a frontend asks for at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// Multicast frames are to be kept from it unless they are to an address in its list
    /// (netif.h, `request-multicast-control`).
    pub multicast_control: bool,
    /// Room before the data in each rx buffer (`xdp-headroom`).
    pub headroom: Headroom,
    /// Its cable is to be pulled out. Not in netif.h: xapi writes `disconnect`, at any time, and
    /// Windows' frontend shows it to its user.
    pub disconnect: bool,
}

impl Requests {
    pub(super) fn read<R: Read>(keys: &FrontendKeys<R>) -> Result<Self, NegotiateError> {
        let bytes = keys.number(HEADROOM)?.unwrap_or(0);
        Ok(Self {
            multicast_control: keys.feature(MULTICAST)?,
            headroom: Headroom::new(bytes).ok_or_else(|| NegotiateError::Malformed {
                key: HEADROOM.to_owned(),
                value: bytes.to_string(),
                expected: HEADROOM_ALLOWED,
            })?,
            disconnect: keys.feature(DISCONNECT)?,
        })
    }
}

/// Reads what a connected frontend asks for now.
///
/// # Errors
///
/// [`NegotiateError`] when it asks for what there is not.
pub fn requests(
    read: impl Fn(&str) -> io::Result<Option<Box<str>>>,
) -> Result<Requests, NegotiateError> {
    Requests::read(&FrontendKeys(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(key: &str, value: &str) -> Result<Requests, NegotiateError> {
        requests(|wanted| Ok((wanted == key).then(|| Box::from(value))))
    }

    #[test]
    fn nothing_by_default() {
        assert_eq!(asked("state", "4").unwrap(), Requests::default());
    }

    #[test]
    fn each_by_its_key() {
        let none = Requests::default();
        let multicast_control = true;
        let disconnect = true;
        let headroom = Headroom::new(256).unwrap();
        for (key, value, expected) in [
            (
                MULTICAST,
                "1",
                Requests {
                    multicast_control,
                    ..none
                },
            ),
            (MULTICAST, "0", none),
            (HEADROOM, "256", Requests { headroom, ..none }),
            (HEADROOM, "0", none),
            (DISCONNECT, "1", Requests { disconnect, ..none }),
            (DISCONNECT, "0", none),
        ] {
            assert_eq!(asked(key, value).unwrap(), expected, "{key} {value}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for key in KEYS {
            for value in ["", "-1", "yes", "4294967296", "1\n2", "0x1"] {
                let error = asked(key, value).unwrap_err().to_string();
                assert!(error.contains(key) && error.contains("decimal"), "{error}");
            }
        }
        for value in [
            "2579",
            "4095",
            "4096",
            "32767",
            "65535",
            "65536",
            "4294967295",
        ] {
            let sentence = format!(
                "the frontend wrote xdp-headroom = {value:?}, which is not 0 to 2578 bytes"
            );
            assert_eq!(asked(HEADROOM, value).unwrap_err().to_string(), sentence);
        }
        let denied = requests(|_| Err(io::ErrorKind::PermissionDenied.into()));
        let error = denied.unwrap_err().to_string();
        assert_eq!(
            error,
            "the frontend's xdp-headroom cannot be read: permission denied"
        );
    }
}
