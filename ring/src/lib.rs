// SPDX-License-Identifier: MIT OR Apache-2.0
//! Xen's shared rings and the netif protocol: everything between a guest's network driver and a
//! backend's packets, without policy, threads or xenstore.
//!
//! # Map
//!
//! | module | idea |
//! |---|---|
//! | [`ids`] | names for domains, grant references and ports |
//! | [`index`], [`layout`] | free-running indices; where things lie in a ring page |
//! | [`page`] | **the one module that touches guest-shared memory** |
//! | [`back`] | the back end of a ring: take by copy, respond, publish, arm |
//! | [`front`] | an independent front end, for simulated guests and tests |
//! | [`netif`] | the messages of the rings; [`netif::packet`] validates whole packets |
//! | [`copy`] | batches of grant copies that own their memory |
//! | [`hyper`] | what a backend needs from a hypervisor, as traits |
//! | [`sys`] | the real hypervisor: `/dev/xen/gntdev`, `/dev/xen/gntalloc`, `/dev/xen/evtchn` |
//! | [`error`] | [`PeerFault`] (the guest lied) and [`SysError`] (the kernel refused) |
//!
//! # The protocol in short
//!
//! A ring is one page: four indices, then a power of two of slots. The frontend writes requests
//! and advances `req_prod`; the backend overwrites answered requests with responses and advances
//! `rsp_prod`. Indices run freely and wrap at 2^32; an index's slot is its low bits. Each side says
//! in an event index when it wants to be woken. Writer: slots, release, index, full barrier, look
//! at the other's event index. Sleeper: own event index, full barrier, look at the other's index
//! once more. Whichever order the two barriers fall in, one side sees the other. The model checker
//! goes through all of them (`back/loom_tests.rs`).
//!
//! # Trust
//!
//! Everything in a shared page is the guest's to change at any time. So slots are copied once and
//! only the copy is judged and used; our own indices are private and only ever written to the
//! page; the guest's index is bounded at every read. What a guest can do wrong is a [`PeerFault`].
//! Nothing it does can panic, loop, or allocate.
//!
//! `unsafe` is confined to [`page`] and [`sys`]; everything else is denied it.
//!
//! # One round trip
//!
//! ```
//! use xen_ring::front::{FrontRing, FrontTx, FrontTxRequest, FrontTxSlot};
//! use xen_ring::netif::{Status, TxLimits, TxRing, TxSlot, next_packet};
//! use xen_ring::{BackRing, SharedPage};
//!
//! let page = SharedPage::anonymous()?;
//!
//! // The guest initialises the ring, sends one packet of 60 bytes ...
//! let mut front = FrontRing::<FrontTx>::init(page.clone());
//! let request = FrontTxRequest { gref: 8, offset: 0, flags: 0, id: 5, size: 60 };
//! front.push(FrontTxSlot::Request(request))?;
//!
//! let mut back = BackRing::<TxRing>::attach(page)?;
//! assert!(front.publish(), "the first request wants an event");
//!
//! // ... the backend takes all that is there, reads it as packets, answers ...
//! let mut slots = [TxSlot::default(); 256];
//! let taken = back.take_into(&mut slots)?;
//! let packet = next_packet(&slots[..taken], &TxLimits::default())?;
//! let fragment = packet.fragments(&slots).next().expect("one fragment");
//! assert_eq!((fragment.gref.raw(), fragment.offset, fragment.len), (8, 0, 60));
//! for response in packet.responses(&slots, Status::Okay) {
//!     back.respond(response)?;
//! }
//! assert!(back.publish().is_needed());
//! assert!(!back.arm()?, "nothing more to do: wait for the event");
//!
//! // ... and the guest gets its answer, in the slot of its request.
//! let (index, response) = front.take()?.expect("one response");
//! assert_eq!((index, response.id, response.status), (0, 5, 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod back;
pub mod copy;
pub mod error;
pub mod front;
pub mod hyper;
pub mod ids;
pub mod index;
pub mod layout;
pub mod netif;
pub mod page;
pub mod sys;

pub use back::{BackRing, Notify, ResponseOverflow, RingKind, RingSnapshot};
pub use copy::{BatchFull, CopyBatch, CopyOp, Direction, GrantStatus};
pub use error::{PeerFault, SysError};
pub use front::FrontRing;
pub use hyper::{EventChannels, Grants, Hypervisor};
pub use ids::{DomId, GrantRef, LocalPort, RemotePort};
pub use index::Index;
pub use layout::PAGE_SIZE;
pub use netif::{RxRing, TxRing};
/// The system's error number, as [`SysError`] carries it.
pub use nix::errno::Errno;
pub use page::{Access, OutsidePage, Page, SharedPage, StaticPage};
pub use sys::{XenEventChannels, XenGrants, XenHypervisor, failed_unmaps, grant_pages};
