// SPDX-License-Identifier: GPL-3.0-or-later
//! How a guest's ring pages and event channels come to be a queue pair's, and go back: what Xen is asked for, and what
//! can be wrong with it.
//!
//! Called by [`QueuePair`](super::QueuePair) when it is connected and when it ends.

use std::io;

use arrayvec::ArrayVec;
use xen_ring::netif::{CtrlRing, RxRing, TxRing};
use xen_ring::page::SharedPage;
use xen_ring::{
    BackRing, DomId, EventChannels, GrantRef, Grants, LocalPort, PeerFault, RemotePort, SysError,
};

use super::fault::Ring;
use super::negotiate::{Channels, QueueKeys};

/// Why a queue pair could not be connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Xen refused a page or a port: the frontend gave one that is not there, or there is no room
    /// for it.
    #[error("{what}: {source}")]
    Xen {
        /// What it was for.
        what: String,
        /// Xen's answer.
        source: SysError,
    },
    /// The ring's indices make no sense.
    #[error("the {ring} ring cannot be attached: {source}")]
    Ring {
        /// Which.
        ring: Ring,
        /// What is wrong.
        source: PeerFault,
    },
    /// The tap cannot be used.
    #[error("the tap cannot be used: {0}")]
    Tap(#[source] io::Error),
}

/// Maps both rings' pages and takes the rings over, those of a daemon that may have been killed with care. `hashes`: the
/// guest may have asked for its packets' hashes.
pub(super) fn rings(
    guest: DomId,
    keys: QueueKeys,
    adopted: bool,
    hashes: bool,
    grants: &impl Grants,
) -> Result<(BackRing<TxRing>, BackRing<RxRing>), ConnectError> {
    let tx = map(Ring::Tx, guest, keys.tx_ring, grants)?;
    let rx = map(Ring::Rx, guest, keys.rx_ring, grants)?;
    if !adopted {
        let tx = BackRing::attach(tx).map_err(unfit(Ring::Tx))?;
        return Ok((tx, BackRing::attach(rx).map_err(unfit(Ring::Rx))?));
    }
    let (tx, tx_slots) = BackRing::<TxRing>::take_over(tx).map_err(unfit(Ring::Tx))?;
    let (rx, rx_slots) = BackRing::<RxRing>::take_over(rx, hashes).map_err(unfit(Ring::Rx))?;
    if tx_slots + rx_slots > 0 {
        tracing::info!(domid = %guest, tx_slots, rx_slots, "answers that the former daemon had not published are given now");
    }
    Ok((tx, rx))
}

/// Maps the control ring's page and takes the ring over.
pub(super) fn control(
    guest: DomId,
    gref: GrantRef,
    grants: &impl Grants,
) -> Result<BackRing<CtrlRing>, ConnectError> {
    let page = map(Ring::Control, guest, gref, grants)?;
    BackRing::attach(page).map_err(unfit(Ring::Control))
}

/// The event channels of both rings: one, or one for each.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ports {
    Single(LocalPort),
    Split { tx: LocalPort, rx: LocalPort },
}

impl Ports {
    pub(super) fn bind(
        channels: &mut impl EventChannels,
        guest: DomId,
        wanted: Channels,
    ) -> Result<Self, ConnectError> {
        match wanted {
            Channels::Single(port) => Ok(Self::Single(bind(channels, guest, port)?)),
            Channels::Split { tx, rx } => {
                let tx = bind(channels, guest, tx)?;
                match bind(channels, guest, rx) {
                    Ok(rx) => Ok(Self::Split { tx, rx }),
                    Err(error) => {
                        unbind(channels, guest, tx);
                        Err(error)
                    }
                }
            }
        }
    }

    pub(super) fn all(self) -> ArrayVec<LocalPort, 2> {
        match self {
            Self::Single(port) => [port].into_iter().collect(),
            Self::Split { tx, rx } => [tx, rx].into_iter().collect(),
        }
    }

    pub(super) fn tx(self) -> LocalPort {
        match self {
            Self::Single(port) | Self::Split { tx: port, .. } => port,
        }
    }

    pub(super) fn rx(self) -> LocalPort {
        match self {
            Self::Single(port) | Self::Split { rx: port, .. } => port,
        }
    }
}

/// Maps a ring's page.
fn map(
    ring: Ring,
    guest: DomId,
    gref: GrantRef,
    grants: &impl Grants,
) -> Result<SharedPage, ConnectError> {
    grants
        .map_page(guest, gref)
        .map_err(|source| ConnectError::Xen {
            what: format!("the {ring} ring"),
            source,
        })
}

/// What is in the page is no ring.
fn unfit(ring: Ring) -> impl FnOnce(PeerFault) -> ConnectError {
    move |source| ConnectError::Ring { ring, source }
}

pub(super) fn bind(
    channels: &mut impl EventChannels,
    guest: DomId,
    port: RemotePort,
) -> Result<LocalPort, ConnectError> {
    channels
        .bind(guest, port)
        .map_err(|source| ConnectError::Xen {
            what: "the event channel".to_owned(),
            source,
        })
}

pub(super) fn unbind(channels: &mut impl EventChannels, guest: DomId, port: LocalPort) {
    if let Err(error) = channels.unbind(port) {
        tracing::error!(domid = %guest, %port, %error, "an event channel cannot be unbound");
    }
}
