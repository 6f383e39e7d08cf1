// SPDX-License-Identifier: GPL-3.0-or-later
//! Simulated event channels, with the semantics of Xen and of /dev/xen/evtchn.
//!
//! A guest allocates a port for one backend domain ([`EventBus::alloc`]); the backend binds a local port to it
//! through an open [`SimEventChannels`], which stands for one open evtchn device. An event for a local port
//! queues it, makes the fd readable and masks the port; until it is unmasked, further events are remembered as
//! one. Binding sets the local port pending. When the backend unbinds or dies, the guest's port is free to be
//! bound again by the same domain; when the guest closes its port, the backend's notifications go nowhere.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use crossbeam::queue::SegQueue;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use xen_ring::{DomId, EventChannels, LocalPort, RemotePort, SysError};

use super::{lock, read, refused, write};

/// Every channel of the simulated machine.
#[derive(Debug, Default)]
pub(super) struct EventBus {
    guests: RwLock<HashMap<(DomId, RemotePort), Arc<Channel>>>,
    /// The backend domain's ports.
    locals: Mutex<BTreeMap<LocalPort, Arc<Binding>>>,
}

/// A guest's end, bound or not.
#[derive(Debug)]
struct Channel {
    /// The one domain that may bind.
    backend: DomId,
    signal: EventFd,
    /// Events received, ever.
    events: AtomicU64,
    binding: RwLock<Option<Arc<Binding>>>,
}

/// The backend's end of a bound channel.
#[derive(Debug)]
struct Binding {
    port: LocalPort,
    device: Arc<Device>,
    state: AtomicU8,
    channel: Arc<Channel>,
}

/// What is queued on one open evtchn device.
#[derive(Debug)]
struct Device {
    signal: EventFd,
    queue: SegQueue<LocalPort>,
}

/// States of a local port.
const OPEN: u8 = 0;
const MASKED: u8 = 1;
const MASKED_AND_PENDING: u8 = 2;

impl EventBus {
    /// A new port of `guest` that `backend` may bind.
    pub(super) fn alloc(
        self: &Arc<Self>,
        guest: DomId,
        backend: DomId,
    ) -> Result<GuestPort, SysError> {
        let channel = Arc::new(Channel {
            backend,
            signal: event_fd("EVTCHNOP_alloc_unbound")?,
            events: AtomicU64::new(0),
            binding: RwLock::new(None),
        });
        let mut guests = write(&self.guests);
        // The lowest free port, as Xen does it, so that numbers are used again; 0 is never valid.
        let mut number = 1;
        while guests.contains_key(&(guest, RemotePort::new(number))) {
            number += 1;
        }
        let port = RemotePort::new(number);
        guests.insert((guest, port), Arc::clone(&channel));
        Ok(GuestPort {
            bus: Arc::clone(self),
            guest,
            port,
            channel,
        })
    }

    pub(super) fn open(self: &Arc<Self>, domain: DomId) -> Result<SimEventChannels, SysError> {
        Ok(SimEventChannels {
            bus: Arc::clone(self),
            domain,
            device: Arc::new(Device {
                signal: event_fd("open /dev/xen/evtchn")?,
                queue: SegQueue::new(),
            }),
            bound: HashMap::new(),
        })
    }

    /// Local ports bound now.
    pub(super) fn bound(&self) -> usize {
        lock(&self.locals).len()
    }

    /// Guest ports in existence now.
    pub(super) fn allocated(&self) -> usize {
        read(&self.guests).len()
    }
}

impl Channel {
    fn signal_guest(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
        // Fails only when the counter would pass 2^64 - 2: the guest is signalled already then.
        let _already = self.signal.write(1);
    }
}

impl Binding {
    /// An event has come in for the port.
    fn raise(&self) {
        let step = |state| match state {
            OPEN => Some(MASKED),
            MASKED => Some(MASKED_AND_PENDING),
            _ => None,
        };
        if self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step)
            == Ok(OPEN)
        {
            self.deliver();
        }
    }

    fn unmask(&self) {
        let step = |state| match state {
            MASKED => Some(OPEN),
            MASKED_AND_PENDING => Some(MASKED),
            _ => None,
        };
        if self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step)
            == Ok(MASKED_AND_PENDING)
        {
            self.deliver();
        }
    }

    fn deliver(&self) {
        self.device.queue.push(self.port);
        // As above: a full counter is a signalled one.
        let _already = self.device.signal.write(1);
    }
}

/// A guest's event channel port. Dropping it closes the port.
pub struct GuestPort {
    bus: Arc<EventBus>,
    guest: DomId,
    port: RemotePort,
    channel: Arc<Channel>,
}

impl GuestPort {
    /// The number that goes to xenstore.
    #[must_use]
    pub fn port(&self) -> RemotePort {
        self.port
    }

    /// Signals the backend; nothing happens when none is bound.
    pub fn notify(&self) {
        if let Some(binding) = read(&self.channel.binding).as_ref() {
            binding.raise();
        }
    }

    /// Forgets the events that have come so far, so that the fd is readable only after the next one.
    pub fn clear(&self) {
        // EAGAIN: there was none.
        let _none = self.channel.signal.read();
    }

    /// Waits until the backend has signalled or the time is over; true when it has.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        poll(&mut fds, timeout) == Ok(1)
    }

    /// How many events the backend has ever sent here.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.channel.events.load(Ordering::Relaxed)
    }

    /// Whether a backend is bound.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        read(&self.channel.binding).is_some()
    }
}

impl fmt::Debug for GuestPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestPort({} of domain {})", self.port, self.guest)
    }
}

impl AsFd for GuestPort {
    /// Readable when the backend has signalled since the last [`clear`](Self::clear).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.signal.as_fd()
    }
}

impl Drop for GuestPort {
    fn drop(&mut self) {
        write(&self.bus.guests).remove(&(self.guest, self.port));
        *write(&self.channel.binding) = None;
    }
}

/// One open event-channel device of the backend domain. Dropping it unbinds its ports.
pub struct SimEventChannels {
    bus: Arc<EventBus>,
    domain: DomId,
    device: Arc<Device>,
    bound: HashMap<LocalPort, Arc<Binding>>,
}

impl SimEventChannels {
    fn binding(&self, operation: &'static str, port: LocalPort) -> Result<&Binding, SysError> {
        match self.bound.get(&port) {
            Some(binding) => Ok(binding),
            None => Err(refused(operation, Errno::ENOTCONN)),
        }
    }
}

impl EventChannels for SimEventChannels {
    fn bind(&mut self, dom: DomId, port: RemotePort) -> Result<LocalPort, SysError> {
        let refusal = SysError::Bind {
            dom,
            port,
            errno: Errno::EINVAL,
        };
        let channel = read(&self.bus.guests)
            .get(&(dom, port))
            .cloned()
            .ok_or_else(|| refusal.clone())?;
        let mut peer = write(&channel.binding);
        if channel.backend != self.domain || peer.is_some() {
            return Err(refusal);
        }
        let mut locals = lock(&self.bus.locals);
        // The lowest free number, so that numbers are used again, as in Xen.
        let mut number = 1;
        while locals.contains_key(&LocalPort::new(number)) {
            number += 1;
        }
        let local = LocalPort::new(number);
        let binding = Arc::new(Binding {
            port: local,
            device: Arc::clone(&self.device),
            state: AtomicU8::new(OPEN),
            channel: Arc::clone(&channel),
        });
        locals.insert(local, Arc::clone(&binding));
        drop(locals);
        *peer = Some(Arc::clone(&binding));
        drop(peer);
        binding.raise();
        self.bound.insert(local, binding);
        Ok(local)
    }

    fn unbind(&mut self, port: LocalPort) -> Result<(), SysError> {
        let binding = self
            .bound
            .remove(&port)
            .ok_or_else(|| refused("IOCTL_EVTCHN_UNBIND", Errno::ENOTCONN))?;
        release(&self.bus, &binding);
        Ok(())
    }

    fn notify(&self, port: LocalPort) -> Result<(), SysError> {
        let binding = self.binding("IOCTL_EVTCHN_NOTIFY", port)?;
        let connected = read(&binding.channel.binding).is_some();
        if connected {
            binding.channel.signal_guest();
        }
        Ok(())
    }

    fn pending(&mut self, out: &mut Vec<LocalPort>) -> Result<(), SysError> {
        // Cleared before the queue is emptied: what comes in between makes it readable again.
        // EAGAIN: nothing was signalled.
        let _none = self.device.signal.read();
        while let Some(port) = self.device.queue.pop() {
            // Closing a port takes its queued event away with it.
            if self.bound.contains_key(&port) {
                out.push(port);
            }
        }
        Ok(())
    }

    fn unmask(&self, ports: &[LocalPort]) -> Result<(), SysError> {
        for port in ports {
            // The device ignores ports that are not (or no longer) bound, as Linux's does.
            if let Some(binding) = self.bound.get(port) {
                binding.unmask();
            }
        }
        Ok(())
    }
}

impl AsFd for SimEventChannels {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.signal.as_fd()
    }
}

impl fmt::Debug for SimEventChannels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.bound.keys()).finish()
    }
}

impl Drop for SimEventChannels {
    fn drop(&mut self) {
        for binding in self.bound.values() {
            release(&self.bus, binding);
        }
    }
}

/// Takes a binding out of both tables; the guest's port is free to be bound again.
fn release(bus: &EventBus, binding: &Arc<Binding>) {
    lock(&bus.locals).remove(&binding.port);
    let mut peer = write(&binding.channel.binding);
    if peer
        .as_ref()
        .is_some_and(|current| Arc::ptr_eq(current, binding))
    {
        *peer = None;
    }
}

fn event_fd(operation: &'static str) -> Result<EventFd, SysError> {
    EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
        .map_err(|errno| refused(operation, errno))
}
