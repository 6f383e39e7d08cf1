// SPDX-License-Identifier: GPL-3.0-or-later
//! The thread that serves the in-memory store to its connections.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net as std_net;
use std::sync::mpsc::{Receiver, Sender};

use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};

use super::store::{ConnId, Store};
use crate::wire::{Decoder, Message};

const WAKER: Token = Token(0);
const LISTENER: Token = Token(1);
const FIRST_PEER: usize = 2;
/// A client that lets so many bytes wait is dropped.
const BACKLOG: usize = 64 << 20;

pub(super) enum Command {
    Connect(std_net::UnixStream, u16, Sender<io::Result<()>>),
    Listen(std_net::UnixListener, Sender<io::Result<()>>),
    With(Box<dyn FnOnce(&mut Store) + Send>),
    DropConnections(Sender<()>),
    Refuse(bool),
    Hang(bool),
    Stop,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Command")
    }
}

struct Peer {
    id: ConnId,
    stream: UnixStream,
    decoder: Decoder,
    out: Vec<u8>,
}

pub(super) struct Server {
    poll: Poll,
    inbox: Receiver<Command>,
    store: Store,
    peers: BTreeMap<Token, Peer>,
    tokens: BTreeMap<ConnId, Token>,
    listener: Option<UnixListener>,
    next: usize,
    refuse: bool,
    hang: bool,
    /// Peers for whom there is something new to send.
    touched: BTreeSet<Token>,
}

impl Server {
    pub(super) fn new(inbox: Receiver<Command>) -> io::Result<(Self, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let server = Self {
            poll,
            inbox,
            store: Store::new(),
            peers: BTreeMap::new(),
            tokens: BTreeMap::new(),
            listener: None,
            next: FIRST_PEER,
            refuse: false,
            hang: false,
            touched: BTreeSet::new(),
        };
        Ok((server, waker))
    }

    pub(super) fn run(&mut self) {
        let mut events = Events::with_capacity(256);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "the in-memory xenstored ends");
                    return;
                }
                Ok(()) => {}
            }
            for event in &events {
                match event.token() {
                    WAKER => {
                        if self.commands().is_none() {
                            return;
                        }
                    }
                    LISTENER => self.accept(),
                    _ if self.hang => {}
                    token => self.serve(token),
                }
            }
        }
    }

    /// Runs the waiting commands; `None` to stop.
    fn commands(&mut self) -> Option<()> {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Stop => return None,
                Command::Refuse(refuse) => self.refuse = refuse,
                Command::Hang(hang) => {
                    self.hang = hang;
                    if !hang {
                        for token in self.peers.keys().copied().collect::<Vec<_>>() {
                            self.serve(token);
                        }
                    }
                }
                Command::With(f) => {
                    f(&mut self.store);
                    let out = self.store.take_outgoing();
                    self.enqueue(out);
                    self.deliver();
                }
                // Whoever asked may have gone; that is nothing to us, here and below.
                Command::DropConnections(reply) => {
                    for token in self.peers.keys().copied().collect::<Vec<_>>() {
                        self.hang_up(token);
                    }
                    reply.send(()).unwrap_or_default();
                }
                Command::Connect(_, _, reply) if self.refuse => {
                    drop(reply.send(Err(io::ErrorKind::ConnectionRefused.into())));
                }
                Command::Connect(stream, dom, reply) => {
                    drop(reply.send(self.add(UnixStream::from_std(stream), dom)));
                }
                Command::Listen(listener, reply) => {
                    let mut listener = UnixListener::from_std(listener);
                    let registry = self.poll.registry();
                    let done = registry.register(&mut listener, LISTENER, Interest::READABLE);
                    self.listener = Some(listener);
                    drop(reply.send(done));
                }
            }
        }
        Some(())
    }

    fn accept(&mut self) {
        while let Some(Ok((stream, _))) = self.listener.as_ref().map(UnixListener::accept) {
            if self.refuse {
                continue;
            }
            if let Err(error) = self.add(stream, 0) {
                tracing::error!(%error, "the in-memory xenstored cannot take a connection");
            }
        }
    }

    fn add(&mut self, mut stream: UnixStream, dom: u16) -> io::Result<()> {
        let token = Token(self.next);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, token, interest)?;
        self.next += 1;
        let id = self.store.connect(dom);
        self.tokens.insert(id, token);
        let peer = Peer {
            id,
            stream,
            decoder: Decoder::new(),
            out: Vec::new(),
        };
        self.peers.insert(token, peer);
        Ok(())
    }

    fn serve(&mut self, token: Token) {
        let mut buffer = [0; 8192];
        loop {
            let Some(peer) = self.peers.get_mut(&token) else {
                return;
            };
            match peer.stream.read(&mut buffer) {
                Ok(0) => return self.hang_up(token),
                Ok(count) => {
                    peer.decoder.push(buffer.get(..count).unwrap_or_default());
                    let sense = self.requests(token);
                    self.deliver();
                    if !sense {
                        return self.hang_up(token);
                    }
                    // epoll(7): a stream that gave less than was asked for is empty.
                    if count < buffer.len() {
                        return self.flush(token);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.flush(token);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.hang_up(token),
            }
        }
    }

    /// Answers the requests that have arrived whole; false if the peer makes no sense.
    fn requests(&mut self, token: Token) -> bool {
        while let Some(peer) = self.peers.get_mut(&token) {
            let id = peer.id;
            match peer.decoder.next_message() {
                Ok(Some(request)) => {
                    let out = self.store.handle(id, &request);
                    self.enqueue(out);
                }
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    fn enqueue(&mut self, messages: Vec<(ConnId, Message)>) {
        for (conn, message) in messages {
            let Some(token) = self.tokens.get(&conn).copied() else {
                continue;
            };
            if let Some(peer) = self.peers.get_mut(&token) {
                if let Err(error) = message.encode(&mut peer.out) {
                    tracing::error!(%error, "a message of the in-memory xenstored is lost");
                }
                self.touched.insert(token);
            }
        }
    }

    /// Sends what has been enqueued: answers to requests that came together go together.
    fn deliver(&mut self) {
        while let Some(token) = self.touched.pop_first() {
            self.flush(token);
        }
    }

    fn flush(&mut self, token: Token) {
        let Some(peer) = self.peers.get_mut(&token) else {
            return;
        };
        let mut sent = 0;
        let alive = loop {
            let rest = peer.out.get(sent..).unwrap_or_default();
            if rest.is_empty() {
                break true;
            }
            match peer.stream.write(rest) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        peer.out.drain(..sent);
        if !alive || peer.out.len() > BACKLOG {
            self.hang_up(token);
        }
    }

    fn hang_up(&mut self, token: Token) {
        if let Some(peer) = self.peers.remove(&token) {
            self.tokens.remove(&peer.id);
            self.store.disconnect(peer.id);
        }
    }
}
