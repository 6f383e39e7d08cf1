// SPDX-License-Identifier: GPL-3.0-or-later
//! The servers that run in the model guest: echo, sink and source over TCP, echo over UDP.
//!
//! | port | protocol | what it does |
//! |---|---|---|
//! | 7 | TCP, UDP | sends back what comes |
//! | 9 | TCP | takes a stream of [`pattern`] until the client shuts down its side, then answers with a [`SinkReply`] |
//! | 19 | TCP | sends an endless stream of [`pattern`] until the client closes |
//!
//! A fixed set of sockets serves each port, so a client that opens many connections costs nothing.

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};

use crate::demo::pattern;

/// TCP and UDP echo.
pub const ECHO_PORT: u16 = 7;
/// The TCP sink.
pub const SINK_PORT: u16 = 9;
/// The TCP source.
pub const SOURCE_PORT: u16 = 19;

/// Connections that each TCP port serves at a time. One whose last packet was lost, as the guest's driver went away at
/// that moment, takes its place for a second or more; buffers that are not used cost no memory.
const CONNECTIONS: usize = 16;
/// Socket buffer in each direction: enough to keep a burst of full frames in flight.
const BUFFER: usize = 512 * 1024;
/// Datagrams that wait at a time in each direction, and their bytes: at least one of any size.
const DATAGRAMS: usize = 64;
const DATAGRAM_BYTES: usize = 256 * 1024;
/// No datagram is longer.
const DATAGRAM_MAX: usize = 65_535;

/// What the sink answers when its client has finished: how much came, and whether all of it was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkReply {
    /// Bytes received.
    pub bytes: u64,
    /// Whether every byte was the stream's.
    pub intact: bool,
}

impl SinkReply {
    /// Bytes of the reply on the wire.
    pub const LEN: usize = 9;

    /// Big-endian count, then 1 when intact, else 0.
    #[must_use]
    pub fn encode(self) -> [u8; Self::LEN] {
        let [a, b, c, d, e, f, g, h] = self.bytes.to_be_bytes();
        [a, b, c, d, e, f, g, h, u8::from(self.intact)]
    }

    /// The reverse of [`encode`](Self::encode).
    #[must_use]
    pub fn decode(wire: [u8; Self::LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, intact] = wire;
        Self {
            bytes: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            intact: intact == 1,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Echo,
    Sink,
    Source,
}

impl Kind {
    const fn port(self) -> u16 {
        match self {
            Self::Echo => ECHO_PORT,
            Self::Sink => SINK_PORT,
            Self::Source => SOURCE_PORT,
        }
    }
}

/// One server socket and what it has seen of its present connection.
#[derive(Debug)]
struct Connection {
    handle: SocketHandle,
    kind: Kind,
    bytes: u64,
    intact: bool,
    /// The sink has sent its reply.
    answered: bool,
}

/// All servers of one guest.
#[derive(Debug)]
pub struct Services {
    connections: Vec<Connection>,
    datagrams: SocketHandle,
    scratch: Vec<u8>,
}

impl Services {
    /// Adds the servers' sockets to the set.
    pub fn new(sockets: &mut SocketSet<'_>) -> Self {
        let mut connections = Vec::new();
        for kind in [Kind::Echo, Kind::Sink, Kind::Source] {
            for _ in 0..CONNECTIONS {
                connections.push(Connection {
                    handle: sockets.add(tcp_socket()),
                    kind,
                    bytes: 0,
                    intact: true,
                    answered: false,
                });
            }
        }
        Self {
            connections,
            datagrams: sockets.add(udp_socket()),
            scratch: vec![0; DATAGRAM_MAX],
        }
    }

    /// One turn: every socket gets on with what it can do now. Bounded by the sockets' buffers.
    ///
    /// Returns whether anything was done, in which case the stack has something to send.
    pub fn step(&mut self, sockets: &mut SocketSet<'_>) -> bool {
        let mut busy = false;
        for connection in &mut self.connections {
            busy |= connection.step(sockets.get_mut::<tcp::Socket<'_>>(connection.handle));
        }
        busy | echo_datagrams(
            sockets.get_mut::<udp::Socket<'_>>(self.datagrams),
            &mut self.scratch,
        )
    }
}

impl Connection {
    fn step(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        if !socket.is_open() {
            (self.bytes, self.intact, self.answered) = (0, true, false);
            // Refused only for port 0 or an open socket, which it is not.
            return socket.listen(self.kind.port()).is_ok();
        }
        match self.kind {
            Kind::Echo => step_echo(socket),
            Kind::Sink => self.step_sink(socket),
            Kind::Source => self.step_source(socket),
        }
    }

    fn step_sink(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        let mut busy = false;
        while socket.can_recv() {
            let (at, mut right) = (self.bytes, true);
            let Ok(taken) = socket.recv(|bytes| {
                right = pattern::matches(at, bytes);
                (bytes.len(), bytes.len())
            }) else {
                break;
            };
            self.bytes += taken as u64;
            self.intact &= right;
            busy = true;
        }
        // The client has shut down its side and everything it sent is taken.
        if socket.state() == tcp::State::CloseWait && !self.answered && !socket.can_recv() {
            let reply = SinkReply {
                bytes: self.bytes,
                intact: self.intact,
            };
            // The send buffer is empty here: nothing else is ever sent on this connection.
            self.answered = socket.send_slice(&reply.encode()) == Ok(SinkReply::LEN);
            socket.close();
            busy = true;
        }
        busy
    }

    fn step_source(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        if !socket.may_recv() && socket.state() == tcp::State::CloseWait {
            socket.close();
            return true;
        }
        let mut busy = false;
        while socket.can_send() {
            let at = self.bytes;
            let Ok(sent) = socket.send(|room| {
                pattern::fill(at, room);
                (room.len(), room.len())
            }) else {
                break;
            };
            self.bytes += sent as u64;
            busy = true;
        }
        busy
    }
}

fn step_echo(socket: &mut tcp::Socket<'_>) -> bool {
    let mut busy = false;
    let mut buffer = [0; 4096];
    while socket.can_recv() && socket.can_send() {
        let room = (socket.send_capacity() - socket.send_queue()).min(buffer.len());
        let Some(space) = buffer.get_mut(..room) else {
            break;
        };
        let Ok(len) = socket.recv_slice(space) else {
            break;
        };
        // There is room: it was measured before receiving.
        if len == 0 || socket.send_slice(space.get(..len).unwrap_or_default()) != Ok(len) {
            break;
        }
        busy = true;
    }
    if socket.state() == tcp::State::CloseWait && !socket.can_recv() && socket.send_queue() == 0 {
        socket.close();
        busy = true;
    }
    busy
}

fn echo_datagrams(socket: &mut udp::Socket<'_>, buffer: &mut [u8]) -> bool {
    // Refused only when it is open already.
    if !socket.is_open() && socket.bind(ECHO_PORT).is_err() {
        return false;
    }
    let mut busy = false;
    while socket.can_recv() && socket.can_send() {
        let Ok((len, from)) = socket.recv_slice(buffer) else {
            break;
        };
        busy = true;
        // A full send buffer drops the datagram, as UDP may.
        if socket
            .send_slice(buffer.get(..len).unwrap_or_default(), from.endpoint)
            .is_err()
        {
            break;
        }
    }
    busy
}

fn tcp_socket() -> tcp::Socket<'static> {
    let mut socket = tcp::Socket::new(
        tcp::SocketBuffer::new(vec![0; BUFFER]),
        tcp::SocketBuffer::new(vec![0; BUFFER]),
    );
    // The sink's reply and echoes must not wait for an acknowledgement of earlier data.
    socket.set_nagle_enabled(false);
    socket
}

fn udp_socket() -> udp::Socket<'static> {
    let buffer = || {
        udp::PacketBuffer::new(
            vec![udp::PacketMetadata::EMPTY; DATAGRAMS],
            vec![0; DATAGRAM_BYTES],
        )
    };
    udp::Socket::new(buffer(), buffer())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sink_reply_survives_the_wire() {
        for (bytes, intact) in [(0, true), (u64::MAX, false), (64 << 20, true)] {
            let reply = SinkReply { bytes, intact };
            assert_eq!(SinkReply::decode(reply.encode()), reply);
        }
        assert_eq!(
            SinkReply {
                bytes: 0x0102,
                intact: true
            }
            .encode(),
            [0, 0, 0, 0, 0, 0, 1, 2, 1]
        );
    }
}
