// SPDX-License-Identifier: GPL-3.0-or-later
//! From a frontend that says Connected to queue pairs at work, and back.
//!
//! Everything that a connection needs is read and checked here first; then each worker that gets
//! a queue pair is sent all it needs, with a queue of the tap. While a vif is not connected, its
//! tap has one queue, held here. How the workers' answers become one: [`connection`](super::connection).

use std::io;
use std::sync::Arc;
use std::time::Instant;

use hotplug::{MacAddr, Steering, Tap, TapError, TapOffload};
use xen_ring::DomId;
use xenbus::backend::{Event, Phase, Unserved};
use xenbus::{Ahead, Client, FrontendPath, Key, XenbusState, device};

use super::connection::Connection;
use super::host::Host;
use super::vif::{Vif, if_visible};
use crate::logging::if_any;
use crate::vif::control::View;
use crate::vif::feature::Feature;
use crate::vif::negotiate::{MAX_QUEUES, Negotiated, OFFER, likely_keys, negotiate};
use crate::vif::{ConnectRequest, ControlRequest, Fault, RingRequest};
use crate::worker::{Command, WorkerId};

/// A connection that can begin: what each worker is to be sent.
struct Prepared {
    connection: Connection,
    requests: Vec<(WorkerId, ConnectRequest)>,
}

/// Why a frontend that asks for what it may have is not served all the same.
enum Refusal {
    /// There is no tap any more.
    NoTap,
    /// Fewer queues may have found room.
    NoRoom(String),
    /// None of both.
    Other(String),
}

impl From<TapError> for Refusal {
    fn from(error: TapError) -> Self {
        match error.is_gone() {
            true => Self::NoTap,
            false => Self::Other(error.to_string()),
        }
    }
}

impl Vif {
    /// The most queue pairs that are of use: no driver makes more than the guest has vCPUs.
    pub(super) fn queue_limit(&self, host: &Host) -> u16 {
        let vcpus = self.facts.vcpus.unwrap_or(u16::MAX);
        host.config.queue_limit().min(vcpus)
    }

    /// How many queue pairs the frontend may have read that it can have: what a former daemon offered holds until the
    /// guest connects anew. `None` while no frontend looks at that.
    pub(super) fn standing_offer(&self, host: &mut Host) -> Option<u16> {
        use XenbusState::{Connected, InitWait, Reconfigured, Reconfiguring};
        // As it is in the store: what ought to be there may not have got there.
        let read_by_now = [InitWait, Connected, Reconfiguring, Reconfigured];
        if !read_by_now.contains(&self.stored_state) {
            return None;
        }
        let offer = self.path.node(OFFER);
        let text = host
            .store
            .ask(self.path, "read the queues offered", |client| {
                device::optional(client, &offer)
            });
        offer_of(text.flatten())
    }

    /// The most queue pairs that a frontend can have from now on. A tap that a former daemon made
    /// may be good for one only, and for more than so many there may have been no room.
    pub(super) fn offered_queues(&self, host: &Host) -> u16 {
        let most = match self.netif.tap().map(Tap::is_multi_queue) {
            Some(Ok(false)) => 1,
            _ => self.queue_limit(host),
        };
        self.queues_at_most.map_or(most, |limit| limit.min(most))
    }

    /// Offers half as many queues as a connection had that could not be set up: it may have been for
    /// want of room (grants, event channels, descriptors). Whether the guest has given what is not
    /// there looks the same, so this is about no other vif. Returns the reason with what is offered.
    pub(super) fn offer_fewer(&mut self, queues: u16, reason: String, host: &Host) -> String {
        if queues < 2 {
            return reason;
        }
        self.queues_at_most = Some(queues / 2);
        let offered = self.offered_queues(host);
        format!("{reason}; its driver is offered {offered} when it starts anew")
    }

    /// Reads what the frontend wrote and asks workers to serve it. `Some` when that is over before
    /// it has begun.
    pub(super) fn connect(&mut self, host: &mut Host) -> Option<Event> {
        let Prepared {
            connection,
            requests,
        } = match self.prepare(host) {
            Ok(Some(prepared)) => prepared,
            // The store is gone: this is done again when it is back.
            Ok(None) => return None,
            Err(event) => return Some(event),
        };
        let connection = self.connection.insert(connection);
        // Queue 0 comes last: it may have the control ring, and what it then tells the others must
        // find them with their workers.
        for (worker, request) in requests.into_iter().rev() {
            let queue = request.queue;
            if !host.send(worker, Command::Connect(Box::new(request))) {
                let outcome = connection.failed(queue, "the worker thread is gone");
                return self.settle(outcome, host);
            }
        }
        None
    }

    /// Reads and checks everything that a connection needs. `None` when the store is gone; the error is what comes of
    /// the device.
    fn prepare(&mut self, host: &mut Host) -> Result<Option<Prepared>, Event> {
        let no_frontend = || Event::QueuesFailed("the device has no frontend".into());
        let frontend = self.frontend.ok_or_else(no_frontend)?;
        let Some(client) = host.store.client() else {
            return Ok(None);
        };
        let negotiated = match self.negotiate(client, frontend) {
            Ok(negotiated) => negotiated,
            Err(lost) => {
                host.store.lost(&lost);
                return Ok(None);
            }
        };
        let rings = negotiated.as_ref().ok().map(|now| now.queues.clone());
        self.last_rings = rings;
        let negotiated = negotiated.map_err(Event::QueuesFailed)?;
        let queues = negotiated.queues.count();
        match self.share_out(negotiated, host) {
            Ok(prepared) => Ok(Some(prepared)),
            Err(Refusal::NoTap) => Err(Event::NetifFailed(Fault::Tap.to_string())),
            Err(Refusal::NoRoom(reason)) => {
                let reason = self.offer_fewer(queues, reason, host);
                Err(Event::QueuesFailed(reason))
            }
            Err(Refusal::Other(reason)) => Err(Event::QueuesFailed(reason)),
        }
    }

    /// Gives each queue pair a worker, a queue of the tap and counters.
    fn share_out(&mut self, negotiated: Negotiated, host: &mut Host) -> Result<Prepared, Refusal> {
        let count = negotiated.queues.count();
        let steering = match (count, negotiated.queues.control()) {
            (2.., Some(_)) => self.steering(),
            _ => None,
        };
        let tap = self.netif.tap().ok_or(Refusal::NoTap)?;
        tap.set_offload(tap_offload(&negotiated))?;
        // Also to rid the tap of what a former connection's guest has chosen.
        match tap.set_steering(host.spread(count).into()) {
            // Linux before 4.16 has no steering, so there is none from a former connection.
            Err(error) if error.is_unknown_to_the_kernel() => {}
            set => set?,
        }
        let further: Vec<Tap> = (1..count)
            .map(|_| tap.attach_queue())
            .collect::<Result<_, _>>()
            .map_err(|error| match error.is_gone() {
                true => Refusal::NoTap,
                false => Refusal::NoRoom(format!("the frontend has {count} queues: {error}")),
            })?;
        self.counters
            .resize_with(self.counters.len().max(count.into()), Arc::default);

        let live = Arc::new(self.new_live(negotiated.requests));
        let assigned = host.assign(self.path, count);
        let guest = DomId::new(self.path.dom.raw());
        let view = (negotiated.queues.control())
            .map(|_| Arc::new(View::new(count, &host.static_grants.of(guest))));
        let mut ring = match negotiated.queues.control() {
            None => None,
            Some(keys) => Some(RingRequest {
                keys,
                queues: (host.peers(&assigned))
                    .ok_or_else(|| Refusal::Other("a worker thread is gone".into()))?,
                steering,
                spread: host.spread(count).cloned(),
            }),
        };
        let mut requests = Vec::with_capacity(count.into());
        let keys = negotiated.queues.iter();
        let taps = std::iter::once(tap).chain(&further);
        for ((queue, place), ((&keys, tap), counters)) in
            assigned.iter().zip(keys.zip(taps).zip(&self.counters))
        {
            let tap = tap
                .try_clone()
                .map_err(|error| Refusal::NoRoom(format!("cannot duplicate the tap: {error}")))?;
            let request = ConnectRequest {
                queue: *queue,
                guest,
                keys,
                adopted: self.adopted,
                features: negotiated.features,
                tap,
                limits: Arc::clone(&self.limits.buckets),
                stall: host.config.limits.stall,
                live: Arc::clone(&live),
                counters: Arc::clone(counters),
                control: view.as_ref().map(|view| ControlRequest {
                    view: Arc::clone(view),
                    // The first one's.
                    ring: ring.take(),
                }),
            };
            requests.push((place.worker(), request));
        }
        Ok(Prepared {
            connection: Connection::new(negotiated, live, assigned, further, view),
            requests,
        })
    }

    /// What steers packets to the queues of a guest that asks for it. Without it, such a guest is
    /// told that hashing is not supported.
    fn steering(&mut self) -> Option<Steering> {
        let steering = Steering::new();
        if let Err(error) = &steering
            && let Some(suppressed) = self.log_limit.allow(Instant::now())
        {
            tracing::warn!(vif = %self.name(), %error, suppressed = if_any(suppressed), "the kernel lets netback load no BPF program, so packets cannot be steered to queues as a guest may want it");
        }
        steering.ok()
    }

    /// The outer error is a lost connection to the store, the inner one the frontend's.
    fn negotiate(
        &mut self,
        client: &Client,
        frontend: FrontendPath,
    ) -> io::Result<Result<Negotiated, String>> {
        let name = format!("/local/domain/{}/name", self.path.dom);
        let own = [self.path.key(Key::Mac), self.path.node(OFFER), name];
        let keys = likely_keys().map(|key| frontend.node(key));
        let ahead = own.iter().cloned().chain(keys);
        let ahead = Ahead::new(client, ahead.collect());
        let [mac, offered, name] = own.map(|node| ahead.optional(&node));
        // It may have another one since: `xl migrate` starts it under a name of its own.
        if let Some(name) = if_visible(name)? {
            self.facts.guest = Some(name.into());
        }
        let mac = match mac {
            Err(error) if xenbus::is_disconnected(&error) => return Err(error),
            Err(error) => return Ok(Err(format!("the node mac cannot be read: {error}"))),
            Ok(mac) => mac.unwrap_or_default(),
        };
        if mac.parse::<MacAddr>().is_err() {
            return Ok(Err(format!(
                "the backend's node mac is {mac:?}: set mac= in the vif line to an address like 00:16:3e:01:02:03"
            )));
        }
        // What this directory says was read by the frontend, whoever wrote it: this daemon may be
        // another one, with another configuration. (A frontend that does not wait for InitWait may
        // have read an older offer, and is refused once.)
        let offered = match offered {
            Err(error) if xenbus::is_disconnected(&error) => return Err(error),
            Err(error) => return Ok(Err(format!("the node {OFFER} cannot be read: {error}"))),
            // Nobody can have read more out of it.
            Ok(offered) => offer_of(offered).unwrap_or(1),
        };
        let offered = offered.min(MAX_QUEUES);
        match negotiate(offered, |key| ahead.optional(&frontend.node(key))) {
            Ok(negotiated) => Ok(Ok(negotiated)),
            Err(error) => match error.lost_store() {
                Ok(lost) => Err(lost),
                Err(error) => Ok(Err(error.to_string())),
            },
        }
    }

    /// Whether a frontend that is Connected has given other rings and channels than those that it is, or could not be,
    /// connected with: it has started anew, and so fast (or so carelessly) that nobody has seen it in another state. What
    /// cannot be made out of it changes nothing.
    pub(super) fn has_other_rings(&mut self, frontend: FrontendPath, host: &mut Host) -> bool {
        // Where there is no connection, a frontend is tried whatever it has, except after a failure.
        let failed = [Phase::Failed, Phase::Answered(Unserved::Failed)];
        if self.connection.is_none() && !failed.contains(&self.machine.phase()) {
            return false;
        }
        let Some(client) = host.store.client() else {
            return false;
        };
        let negotiated = match self.negotiate(client, frontend) {
            Ok(negotiated) => negotiated.ok(),
            Err(lost) => {
                host.store.lost(&lost);
                None
            }
        };
        negotiated.is_some_and(|now| self.last_rings.as_ref() != Some(&now.queues))
    }

    /// Asks the workers to give everything back. `Some` when there is nothing to wait for.
    pub(super) fn disconnect(&mut self, host: &mut Host) -> Option<Event> {
        self.set_carrier(false);
        self.end_losses();
        let Some(connection) = &mut self.connection else {
            return Some(Event::QueuesDown);
        };
        let outcome = connection.leave();
        self.settle(outcome, host)
    }
}

/// The number of queues that our node [`OFFER`] offers.
fn offer_of(node: Option<Box<str>>) -> Option<u16> {
    node?.parse().ok().filter(|queues| *queues > 0)
}

/// What the tap may deliver at the moment. It has one switch for the checksums of both protocols;
/// a blank one that the frontend cannot take is computed on the way.
pub(super) fn tap_offload(negotiated: &Negotiated) -> TapOffload {
    let headroom = negotiated.requests.headroom;
    let features = headroom.limit(negotiated.features);
    TapOffload {
        csum: features.has(Feature::CsumV4) || features.has(Feature::CsumV6),
        tso4: features.has(Feature::GsoTcpv4),
        tso6: features.has(Feature::GsoTcpv6),
        tso_ecn: false,
    }
}
