// SPDX-License-Identifier: GPL-3.0-or-later
//! Server and client over a real socket, the server driven by a mio loop as the daemon does.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::*;
use crate::control::client::{self, ClientError};
use crate::control::server::{BindError, MAX_CLIENTS, Server, TOKENS};

const FIRST: usize = 7;

/// A server in its loop.
struct World {
    poll: Poll,
    server: Server,
    asked: usize,
}

impl World {
    fn new(path: &Path) -> Self {
        let poll = Poll::new().unwrap();
        let mut server = Server::bind(path).unwrap();
        server.register(poll.registry(), Token(FIRST)).unwrap();
        Self {
            poll,
            server,
            asked: 0,
        }
    }

    /// Handles events until `done` says so.
    fn run(&mut self, mut done: impl FnMut(&Server) -> bool) {
        let mut events = Events::with_capacity(64);
        while !done(&self.server) {
            // The timeout only paces the question; it decides nothing.
            self.poll
                .poll(&mut events, Some(Duration::from_millis(20)))
                .unwrap();
            for event in &events {
                assert!(self.server.owns(event.token()));
                self.server.ready(event.token(), Instant::now(), &mut || {
                    self.asked += 1;
                    sample()
                });
            }
        }
    }
}

fn socket(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("run/control.sock")
}

fn ask(path: &Path) -> std::thread::JoinHandle<Result<client::Answer, ClientError>> {
    let path = path.to_owned();
    std::thread::spawn(move || client::status(&path))
}

#[test]
fn status_goes_all_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&socket(&dir));
    let asked = ask(&socket(&dir));
    world.run(|_| asked.is_finished());
    let answer = asked.join().unwrap().unwrap();
    assert_eq!(answer.status().unwrap(), sample());
    assert_eq!(*answer.json(), serde_json::to_value(sample()).unwrap());
    assert_eq!(world.asked, 1);
    world.run(|server| server.clients() == 0);
    assert_eq!(world.server.deadline(), None);
}

#[test]
fn a_large_answer_is_sent_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let path = socket(&dir);
    let mut world = World::new(&path);
    let mut large = sample();
    large.vifs = vec![large.vifs[0].clone(); 5000];
    let asked = ask(&path);
    let mut events = Events::with_capacity(64);
    while !asked.is_finished() {
        world
            .poll
            .poll(&mut events, Some(Duration::from_millis(20)))
            .unwrap();
        for event in &events {
            world
                .server
                .ready(event.token(), Instant::now(), &mut || large.clone());
        }
    }
    assert_eq!(
        asked.join().unwrap().unwrap().status().unwrap().vifs.len(),
        5000
    );
}

#[test]
fn modes_and_removal() {
    let dir = tempfile::tempdir().unwrap();
    let path = socket(&dir);
    let server = Server::bind(&path).unwrap();
    assert_eq!(server.path(), path);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()) & 0o022, 0);
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = socket(&dir);
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    assert!(matches!(client::status(&path), Err(ClientError::Dead(_))));
    let first = Server::bind(&path).unwrap();
    let error = Server::bind(&path).unwrap_err();
    assert!(matches!(error, BindError::InUse(_)), "{error}");

    // One whose path another has taken meanwhile leaves it alone.
    std::fs::remove_file(&path).unwrap();
    let second = Server::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[test]
fn other_files_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(Server::bind(&file), Err(BindError::NotASocket(_))));
    assert!(matches!(
        Server::bind(&file.join("sock")),
        Err(BindError::Directory { .. })
    ));
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(matches!(Server::bind(&link), Err(BindError::NotASocket(_))));
    let long = dir.path().join("x".repeat(200));
    assert!(matches!(Server::bind(&long), Err(BindError::Socket { .. })));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn idle_clients_are_closed_and_the_rest_wait_their_turn() {
    let dir = tempfile::tempdir().unwrap();
    let path = socket(&dir);
    let mut world = World::new(&path);
    let mut idle: Vec<_> = (0..MAX_CLIENTS)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    world.run(|server| server.clients() == MAX_CLIENTS);
    let asked = ask(&path);
    // It has connected, and is not served.
    for _ in 0..5 {
        let mut once = true;
        world.run(|_| !std::mem::take(&mut once));
    }
    assert_eq!((world.server.clients(), world.asked), (MAX_CLIENTS, 0));

    let deadline = world.server.deadline().unwrap();
    world.server.expire(deadline - Duration::from_nanos(1));
    assert_eq!(world.server.clients(), MAX_CLIENTS);
    world.server.expire(deadline + Duration::from_secs(1));
    world.run(|_| asked.is_finished());
    assert_eq!(asked.join().unwrap().unwrap().status().unwrap(), sample());
    for stream in &mut idle {
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    }
}

#[test]
fn clients_that_go_or_talk_nonsense_harm_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = socket(&dir);
    let mut world = World::new(&path);
    let mut half = UnixStream::connect(&path).unwrap();
    half.write_all(b"sta").unwrap();
    drop(half);
    drop(UnixStream::connect(&path).unwrap());
    let mut nonsense = UnixStream::connect(&path).unwrap();
    nonsense.write_all(&[b'x'; 255]).unwrap();
    let mut gone = UnixStream::connect(&path).unwrap();
    gone.write_all(b"status\n").unwrap();
    drop(gone);
    world.run(|server| server.clients() == 1);
    nonsense.write_all(b"x").unwrap();
    world.run(|server| server.clients() == 0);
    let mut text = String::new();
    nonsense.read_to_string(&mut text).unwrap();
    assert!(text.contains("longer than 256"), "{text}");

    let asked = ask(&path);
    world.run(|_| asked.is_finished());
    asked.join().unwrap().unwrap();
}

#[test]
fn tokens_of_others_are_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&socket(&dir));
    for token in [0, FIRST - 1, FIRST + TOKENS, usize::MAX] {
        assert!(!world.server.owns(Token(token)));
        world
            .server
            .ready(Token(token), Instant::now(), &mut || panic!("asked"));
    }
    for token in [FIRST, FIRST + 1, FIRST + TOKENS - 1] {
        assert!(world.server.owns(Token(token)));
        world
            .server
            .ready(Token(token), Instant::now(), &mut || panic!("asked"));
    }
}

#[test]
fn the_client_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let none = socket(&dir);
    let error = client::status(&none).unwrap_err();
    let expected = format!("netback is not running (no socket at {})", none.display());
    assert!(error.to_string().starts_with(&expected), "{error}");

    let path = dir.path().join("other");
    let listener = UnixListener::bind(&path).unwrap();
    let answers: [&[u8]; 4] = [
        b"",
        b"hello\n",
        b"{\"error\":\"no\\u001b\"}\n",
        b"{\"vifs\":7}\n",
    ];
    let impostor = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 7];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(&request, b"status\n");
            stream.write_all(answer).unwrap();
        }
    });
    assert!(matches!(client::status(&path), Err(ClientError::Answer(_))));
    assert!(matches!(client::status(&path), Err(ClientError::Answer(_))));
    let refused = client::status(&path).unwrap_err().to_string();
    assert_eq!(refused, "netback refused the request: no\\u{1b}");
    assert!(matches!(
        client::status(&path).unwrap().status(),
        Err(ClientError::Answer(_))
    ));
    impostor.join().unwrap();
}
