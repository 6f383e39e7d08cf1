// SPDX-License-Identifier: GPL-3.0-or-later
//! What the host side does to see whether a guest's network works: ping it, move TCP both ways.
//!
//! Everything goes through the host kernel's own stack and the real tap. All probes are bounded in bytes and in
//! time, and none trusts the other side: what was moved is compared with the known stream.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use smoltcp::wire::checksum;

use crate::demo::guest::services::{ECHO_PORT, SINK_PORT, SOURCE_PORT, SinkReply};
use crate::demo::pattern;

/// How long any single wait for the other side may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes handed to or taken from the kernel per call.
const CHUNK: usize = 128 * 1024;
/// More than the guest and this host can have in their buffers when a stream is to end.
const SOURCE_QUEUE_MAX: usize = 64 << 20;

/// A probe failed, and how.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A system call failed or timed out.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
    /// No answer came to any of the pings.
    #[error("none of {sent} pings to {to} was answered")]
    NoAnswer {
        /// Requests sent.
        sent: u32,
        /// Their destination.
        to: Ipv4Addr,
    },
    /// Bytes were lost, repeated or changed on the way.
    #[error("{what}: {detail}")]
    Corrupt {
        /// The probe.
        what: &'static str,
        /// What differs.
        detail: String,
    },
}

/// What came of a series of pings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pings {
    /// Requests sent.
    pub sent: u32,
    /// Answers received.
    pub answered: u32,
    /// Fastest round trip.
    pub min: Duration,
    /// Mean round trip.
    pub mean: Duration,
    /// Slowest round trip.
    pub max: Duration,
}

/// What came of one TCP transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Payload bytes moved and compared.
    pub bytes: u64,
    /// From the first byte sent to the last one confirmed.
    pub took: Duration,
}

impl Transfer {
    /// Payload speed in megabits per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn megabits(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e6 / self.took.as_secs_f64().max(1e-9)
    }
}

/// A guest that is to be spoken to over TCP: its address.
#[derive(Debug, Clone, Copy)]
pub struct Peer(SocketAddr);

impl From<Ipv4Addr> for Peer {
    fn from(guest: Ipv4Addr) -> Self {
        Self((guest, 0).into())
    }
}

/// The port is not used; an address on a link needs the scope of the interface.
impl From<SocketAddrV6> for Peer {
    fn from(guest: SocketAddrV6) -> Self {
        Self(guest.into())
    }
}

/// Where a TCP probe stops: at this many bytes, or after this long, whichever comes first.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Most bytes to move.
    pub bytes: u64,
    /// Longest time to spend.
    pub time: Duration,
}

/// Sends `count` ICMP echo requests, one after the other, each with `payload` bytes.
///
/// Needs CAP_NET_RAW in the network namespace. A lost ping costs `wait`.
///
/// # Errors
/// [`ProbeError::NoAnswer`] when all were lost, [`ProbeError::Io`] when the socket fails.
pub fn ping(to: Ipv4Addr, count: u32, payload: usize, wait: Duration) -> Result<Pings, ProbeError> {
    let socket = icmp_socket(wait)?;
    let mut pings = Pings {
        sent: 0,
        answered: 0,
        min: Duration::MAX,
        mean: Duration::ZERO,
        max: Duration::ZERO,
    };
    let mut total = Duration::ZERO;
    let [.., high, low] = std::process::id().to_be_bytes();
    for n in 0..count {
        let [.., seq_high, seq_low] = n.to_be_bytes();
        let mut request = vec![8, 0, 0, 0, high, low, seq_high, seq_low];
        request.resize(8 + payload, 0x5a);
        let [sum_high, sum_low] = (!checksum::data(&request)).to_be_bytes();
        if let Some(field) = request.get_mut(2..4) {
            field.copy_from_slice(&[sum_high, sum_low]);
        }
        let started = Instant::now();
        sendto(
            socket.as_raw_fd(),
            &request,
            &SockaddrIn::from(SocketAddrV4::new(to, 0)),
            MsgFlags::empty(),
        )
        .map_err(|errno| ProbeError::Io {
            what: "sending a ping",
            error: errno.into(),
        })?;
        pings.sent += 1;
        if await_reply(&socket, &request, started + wait)? {
            let took = started.elapsed();
            pings.answered += 1;
            pings.min = pings.min.min(took);
            pings.max = pings.max.max(took);
            total += took;
        }
    }
    if pings.answered == 0 {
        return Err(ProbeError::NoAnswer {
            sent: pings.sent,
            to,
        });
    }
    pings.mean = total / pings.answered;
    Ok(pings)
}

fn icmp_socket(wait: Duration) -> Result<OwnedFd, ProbeError> {
    let failed = |errno: nix::Error| ProbeError::Io {
        what: "opening a raw ICMP socket",
        error: errno.into(),
    };
    let fd = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Icmp,
    )
    .map_err(failed)?;
    let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX).max(1);
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::microseconds(micros)).map_err(failed)?;
    Ok(fd)
}

/// Waits for the echo reply with the request's id, sequence number and payload.
fn await_reply(socket: &OwnedFd, request: &[u8], deadline: Instant) -> Result<bool, ProbeError> {
    let mut buffer = vec![0; 65_536];
    while Instant::now() < deadline {
        let len = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(len) => len,
            Err(nix::Error::EAGAIN) => return Ok(false),
            Err(nix::Error::EINTR) => continue,
            Err(errno) => {
                return Err(ProbeError::Io {
                    what: "waiting for a ping's answer",
                    error: errno.into(),
                });
            }
        };
        // A raw socket gives the IP header too, and all ICMP that the host receives.
        let packet = buffer.get(..len).unwrap_or_default();
        let header = packet
            .first()
            .map_or(0, |first| usize::from(first & 0x0f) * 4);
        let icmp = packet.get(header..).unwrap_or_default();
        if icmp.first() == Some(&0) && icmp.get(4..) == request.get(4..) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Sends the known stream to the guest's sink, which compares it and says how much came.
///
/// # Errors
/// [`ProbeError`]; a short or changed stream is [`ProbeError::Corrupt`].
pub fn tcp_to_guest(guest: impl Into<Peer>, bound: Bound) -> Result<Transfer, ProbeError> {
    let mut stream = connect(guest, SINK_PORT)?;
    let started = Instant::now();
    let mut chunk = vec![0; CHUNK];
    let mut sent = 0;
    while sent < bound.bytes && started.elapsed() < bound.time {
        let want = usize::try_from(bound.bytes - sent).map_or(CHUNK, |left| left.min(CHUNK));
        let piece = chunk.get_mut(..want).unwrap_or_default();
        pattern::fill(sent, piece);
        stream
            .write_all(piece)
            .map_err(io("sending TCP to the guest"))?;
        sent += want as u64;
    }
    stream
        .shutdown(Shutdown::Write)
        .map_err(io("ending the stream to the guest"))?;
    let mut wire = [0; SinkReply::LEN];
    stream
        .read_exact(&mut wire)
        .map_err(io("waiting for the guest's count"))?;
    let took = started.elapsed();
    let reply = SinkReply::decode(wire);
    if reply
        != (SinkReply {
            bytes: sent,
            intact: true,
        })
    {
        return Err(ProbeError::Corrupt {
            what: "TCP to the guest",
            detail: format!("{sent} bytes sent, the guest saw {reply:?}"),
        });
    }
    Ok(Transfer { bytes: sent, took })
}

/// Reads the known stream from the guest's source and compares it.
///
/// # Errors
/// [`ProbeError`]; a changed stream is [`ProbeError::Corrupt`].
pub fn tcp_from_guest(guest: impl Into<Peer>, bound: Bound) -> Result<Transfer, ProbeError> {
    let mut stream = connect(guest, SOURCE_PORT)?;
    let started = Instant::now();
    let mut chunk = vec![0; CHUNK];
    let mut received = 0;
    while received < bound.bytes && started.elapsed() < bound.time {
        let len = read(&mut stream, &mut chunk).map_err(io("receiving TCP from the guest"))?;
        if len == 0 {
            return Err(ProbeError::Corrupt {
                what: "TCP from the guest",
                detail: format!("the guest ended an endless stream after {received} bytes"),
            });
        }
        if !pattern::matches(received, chunk.get(..len).unwrap_or_default()) {
            return Err(ProbeError::Corrupt {
                what: "TCP from the guest",
                detail: format!("wrong bytes after {received}"),
            });
        }
        received += len as u64;
    }
    let took = started.elapsed();
    end_source(&mut stream, &mut chunk)?;
    Ok(Transfer {
        bytes: received,
        took,
    })
}

/// Reads once. A socket with a timeout is interrupted by any signal, and by a machine that is suspended.
fn read(stream: &mut TcpStream, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Asks the guest's source to end, and takes what it had sent by then. Closing with bytes unread would reset the
/// connection, and a reset that is lost leaves the guest with a connection to nobody.
fn end_source(stream: &mut TcpStream, chunk: &mut [u8]) -> Result<(), ProbeError> {
    stream
        .shutdown(Shutdown::Write)
        .map_err(io("ending the stream from the guest"))?;
    let mut left = SOURCE_QUEUE_MAX;
    while left > 0 {
        let len =
            read(stream, chunk).map_err(io("waiting for the end of the stream from the guest"))?;
        if len == 0 {
            return Ok(());
        }
        left = left.saturating_sub(len);
    }
    Err(ProbeError::Corrupt {
        what: "TCP from the guest",
        detail: "the guest goes on after it was asked to end".to_owned(),
    })
}

/// Sends one datagram of `len` bytes to the guest's UDP echo and compares what comes back; tries `tries` times.
///
/// # Errors
/// [`ProbeError::Io`] when no answer comes, [`ProbeError::Corrupt`] when a different one does.
pub fn udp_echo(guest: Ipv4Addr, len: usize, tries: u32) -> Result<(), ProbeError> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(io("opening a UDP socket"))?;
    socket
        .connect((guest, ECHO_PORT))
        .map_err(io("choosing the UDP peer"))?;
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .map_err(io("setting a timeout"))?;
    let mut datagram = vec![0; len];
    pattern::fill(len as u64, &mut datagram);
    let mut answer = vec![0; len + 1];
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..tries.max(1) {
        socket
            .send(&datagram)
            .map_err(io("sending UDP to the guest"))?;
        match socket.recv(&mut answer) {
            Ok(n) if answer.get(..n) == Some(datagram.as_slice()) => return Ok(()),
            Ok(n) => {
                return Err(ProbeError::Corrupt {
                    what: "UDP echo",
                    detail: format!("{len} bytes sent, {n} others came back"),
                });
            }
            Err(error) => last = error,
        }
    }
    Err(ProbeError::Io {
        what: "waiting for the UDP echo",
        error: last,
    })
}

/// Opens a TCP connection to a port of the guest with the probes' timeouts.
///
/// # Errors
/// [`ProbeError::Io`].
pub fn connect(guest: impl Into<Peer>, port: u16) -> Result<TcpStream, ProbeError> {
    let Peer(mut address) = guest.into();
    address.set_port(port);
    let stream =
        TcpStream::connect_timeout(&address, PATIENCE).map_err(io("connecting to the guest"))?;
    let timeouts = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    timeouts.map_err(io("setting a timeout"))?;
    Ok(stream)
}

fn io(what: &'static str) -> impl FnOnce(io::Error) -> ProbeError {
    move |error| ProbeError::Io { what, error }
}
