// SPDX-License-Identifier: GPL-3.0-or-later
//! The control ring as a guest's driver uses it: ask, wait, read the answer.
//!
//! Layouts and numbers are those of netif.h, written down here a second time. Linux's netfront has no control ring;
//! Windows's driver uses messages 1 to 7, and nothing that is known uses 8 to 10.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xen_ring::front::{
    FrontCtrl, FrontCtrlRequest, FrontCtrlResponse, FrontFault, FrontKind, FrontRing,
};
use xen_ring::{GrantRef, PAGE_SIZE, SharedPage, SysError};

use super::domain::{Domain, Grant, Port};

// netif.h: types of messages.
/// Which hash types there are.
pub const GET_HASH_FLAGS: u16 = 1;
/// Which are wanted.
pub const SET_HASH_FLAGS: u16 = 2;
/// The key.
pub const SET_HASH_KEY: u16 = 3;
/// How large the table from hashes to queues may be.
pub const GET_HASH_MAPPING_SIZE: u16 = 4;
/// How large it is.
pub const SET_HASH_MAPPING_SIZE: u16 = 5;
/// What is in it.
pub const SET_HASH_MAPPING: u16 = 6;
/// The algorithm: 0 none, 1 Toeplitz.
pub const SET_HASH_ALGORITHM: u16 = 7;
/// How many static grants a queue may have.
pub const GET_GREF_MAPPING_SIZE: u16 = 8;
/// Keep these mapped.
pub const ADD_GREF_MAPPING: u16 = 9;
/// Unmap these.
pub const DEL_GREF_MAPPING: u16 = 10;

/// netif.h: the flag of a page that the backend may only read.
pub const GREF_READ_ONLY: u16 = 1;

/// Bytes of an entry of a list of grants: reference, flags, status.
const GREF_ENTRY: usize = 8;

/// A control ring and the page that lists are put into.
#[derive(Debug)]
pub struct Control {
    ring: FrontRing<FrontCtrl>,
    ring_grant: Grant,
    port: Port,
    list: SharedPage,
    list_grant: Grant,
    next_id: u16,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It did not come in time.
    #[error("the backend does not answer control request {0}")]
    Timeout(u16),
    /// The ring, or the answer, is not as it can be.
    #[error("the backend broke the control ring: {0}")]
    Broken(String),
    /// The list does not fit into its page.
    #[error("a list of {0} bytes does not fit into a page")]
    TooLong(usize),
}

impl From<FrontFault> for ControlError {
    fn from(fault: FrontFault) -> Self {
        Self::Broken(fault.to_string())
    }
}

/// A status, and what comes with it.
pub type Answer = (u32, u32);

impl Control {
    pub(super) fn new(domain: &Domain, start: u32) -> Result<Self, SysError> {
        let (ring, list) = (domain.granted_page()?, domain.granted_page()?);
        Ok(Self {
            ring: FrontRing::init_at(ring.page, start),
            ring_grant: ring.grant,
            port: domain.alloc_port()?,
            list_grant: list.grant,
            list: list.page,
            next_id: 0xfff0,
        })
    }

    /// Its keys in the frontend's directory.
    pub(super) fn keys(&self) -> [(&'static str, String); 2] {
        [
            ("ctrl-ring-ref", self.ring_grant.gref().to_string()),
            ("event-channel-ctrl", self.port.port().to_string()),
        ]
    }

    /// The reference of the page with the list.
    #[must_use]
    pub fn list_ref(&self) -> u32 {
        self.list_grant.gref().raw()
    }

    /// The ring itself, for frontends that lie.
    pub fn ring(&mut self) -> &mut FrontRing<FrontCtrl> {
        &mut self.ring
    }

    /// Signals the backend, needed or not.
    pub fn kick(&self) {
        self.port.notify();
    }

    /// Sends a message and waits for its answer.
    ///
    /// # Errors
    /// There is none within `limit`, or it is no answer to this.
    pub fn ask(
        &mut self,
        kind: u16,
        data: [u32; 3],
        limit: Duration,
    ) -> Result<Answer, ControlError> {
        let id = self.send(kind, data)?;
        self.flush();
        let answer = self.wait(limit)?.ok_or(ControlError::Timeout(id))?;
        if (answer.id, answer.kind) != (id, kind) {
            return Err(ControlError::Broken(format!(
                "{answer:?} is no answer to message {kind} with id {id}"
            )));
        }
        Ok((answer.status, answer.data))
    }

    /// Puts a message into the ring; returns its id.
    ///
    /// # Errors
    /// The ring is full.
    pub fn send(&mut self, kind: u16, data: [u32; 3]) -> Result<u16, FrontFault> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.ring.push(FrontCtrlRequest { id, kind, data })?;
        Ok(id)
    }

    /// Publishes what was put into the ring.
    pub fn flush(&mut self) {
        if self.ring.publish() {
            self.port.notify();
        }
    }

    /// The next answer, waited for.
    ///
    /// # Errors
    /// The backend breaks the ring.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<FrontCtrlResponse>, ControlError> {
        let deadline = Instant::now() + limit;
        loop {
            self.port.clear();
            if let Some((_, answer)) = self.ring.take()? {
                return Ok(Some(answer));
            }
            if self.ring.arm()? {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let mut fds = [PollFd::new(self.port.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            // Whatever it says, the ring is looked at again.
            let _woken = poll(&mut fds, timeout);
        }
    }

    /// Writes a list to the start of its page.
    ///
    /// # Errors
    /// It does not fit.
    pub fn write_list(&self, bytes: &[u8]) -> Result<(), ControlError> {
        let written = self.list.copy_to(0, bytes);
        written.map_err(|_| ControlError::TooLong(bytes.len()))
    }

    /// Sets the key.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn set_key(&mut self, key: &[u8], limit: Duration) -> Result<Answer, ControlError> {
        self.write_list(key)?;
        let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
        self.ask(SET_HASH_KEY, [self.list_ref(), len, 0], limit)
    }

    /// Sets entries of the mapping table from `offset` on.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn set_mapping(
        &mut self,
        queues: &[u32],
        offset: u32,
        limit: Duration,
    ) -> Result<Answer, ControlError> {
        let bytes: Vec<u8> = queues
            .iter()
            .flat_map(|queue| queue.to_le_bytes())
            .collect();
        self.write_list(&bytes)?;
        let count = u32::try_from(queues.len()).unwrap_or(u32::MAX);
        self.ask(SET_HASH_MAPPING, [self.list_ref(), count, offset], limit)
    }

    /// Asks for static grants of a queue to be mapped or unmapped (`kind`): references and flags.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn change_grants(
        &mut self,
        kind: u16,
        queue: u32,
        grants: &[(GrantRef, u16)],
        limit: Duration,
    ) -> Result<Answer, ControlError> {
        let entry = |(gref, flags): &(GrantRef, u16)| {
            let [a, b, c, d] = gref.raw().to_le_bytes();
            let [e, f] = flags.to_le_bytes();
            // What is in the status beforehand is of no account.
            [a, b, c, d, e, f, 0xee, 0xee]
        };
        let bytes: Vec<u8> = grants.iter().flat_map(entry).collect();
        self.write_list(&bytes)?;
        let count = u32::try_from(grants.len()).unwrap_or(u32::MAX);
        self.ask(kind, [queue, self.list_ref(), count], limit)
    }

    /// The statuses of the first `count` entries of the list.
    #[must_use]
    pub fn statuses(&self, count: usize) -> Vec<u16> {
        let mut bytes = vec![0; PAGE_SIZE];
        // The whole page is always inside the page.
        let _whole = self.list.copy_from(0, &mut bytes);
        let entries = bytes.as_chunks::<GREF_ENTRY>().0.iter().take(count);
        entries
            .map(|[.., low, high]| u16::from_le_bytes([*low, *high]))
            .collect()
    }

    /// Slots of the ring.
    #[must_use]
    pub const fn slots() -> u32 {
        FrontCtrl::COUNT
    }
}

/// What a guest asked to be told about the frames that it receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedHash {
    /// The key.
    pub key: Vec<u8>,
    /// The types, as a set of bits.
    pub types: u8,
}

impl ExpectedHash {
    /// Type and value of the hash that must come with a frame, if one must.
    #[must_use]
    pub fn of(&self, frame: &[u8]) -> Option<(u8, u32)> {
        let wants = |bit: u8| self.types & (1 << bit) != 0;
        let (plain, addresses, ports) = match frame.get(12..14)? {
            [0x08, 0] => {
                let header = usize::from(*frame.get(14)? & 15) * 4;
                let fragment =
                    matches!(frame.get(20..22)?, [high, low] if high & 0x3f != 0 || *low != 0);
                let tcp = *frame.get(23)? == 6 && !fragment;
                (0, frame.get(26..34)?, tcp.then_some(14 + header))
            }
            [0x86, 0xdd] => (2, frame.get(22..54)?, (*frame.get(20)? == 6).then_some(54)),
            _ => return None,
        };
        let ports = ports.and_then(|at| frame.get(at..at + 4));
        match ports {
            Some(ports) if wants(plain + 1) => {
                Some((plain + 1, self.toeplitz(&[addresses, ports].concat())))
            }
            _ => wants(plain).then(|| (plain, self.toeplitz(addresses))),
        }
    }

    /// netif.h's definition, one bit at a time: key and input are shifted to the left together.
    fn toeplitz(&self, input: &[u8]) -> u32 {
        let bit = |bytes: &[u8], at: usize| {
            let byte = bytes.get(at / 8).copied().unwrap_or(0);
            u32::from(byte >> (7 - at % 8)) & 1
        };
        let mut hash = 0;
        for at in 0..input.len() * 8 {
            if bit(input, at) == 1 {
                hash ^= (0..32).fold(0, |window, n| window << 1 | bit(&self.key, at + n));
            }
        }
        hash
    }
}
