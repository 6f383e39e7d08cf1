// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back end and the front end under the loom model checker: every interleaving (of up
//! to as many preemptions as each test says), and every value that a relaxed load may return.
//!
//! ```text
//! CARGO_TARGET_DIR=/tmp/target-loom RUSTFLAGS="--cfg loom" \
//!     cargo test -p xen-ring --release --lib loom_
//! ```
//!
//! A lost wake-up shows as a deadlock (on which loom aborts the process), a slot read before it was
//! written (or after it was reused) as a wrong value. Slots are relaxed atomics here, so nothing but the indices' release and
//! acquire orders them. That the checker would notice is itself checked: without the full fences
//! each direction must fail.

use std::sync::atomic::Ordering::{self, Relaxed};

use loom::sync::atomic::{AtomicU32, fence};
use loom::sync::{Arc, Notify as Event};
use loom::thread;

use super::{BackRing, RingKind};
use crate::front::{FrontKind, FrontRing};
use crate::page::Page;

/// A page of a few loom words: the four indices and the slots. `FENCED` says whether its full
/// fence is one.
#[derive(Clone)]
struct LoomPage<const FENCED: bool> {
    words: Arc<[AtomicU32; 8]>,
}

impl<const FENCED: bool> LoomPage<FENCED> {
    fn new() -> Self {
        Self {
            words: Arc::new(std::array::from_fn(|_| AtomicU32::new(0))),
        }
    }

    /// Indices are words 0 to 3 of the real page, slots start at its word 16.
    fn word(&self, offset: usize) -> &AtomicU32 {
        let index = if offset < 16 {
            offset / 4
        } else {
            4 + (offset - 64) / 4
        };
        &self.words[index]
    }
}

impl<const FENCED: bool> Page for LoomPage<FENCED> {
    fn load(&self, offset: usize, order: Ordering) -> u32 {
        self.word(offset).load(order)
    }

    fn store(&self, offset: usize, value: u32, order: Ordering) {
        self.word(offset).store(value, order);
    }

    fn read_words<const N: usize>(&self, offset: usize) -> [u32; N] {
        std::array::from_fn(|i| self.word(offset + 4 * i).load(Relaxed))
    }

    fn write_words<const N: usize>(&self, offset: usize, words: [u32; N]) {
        for (i, word) in words.into_iter().enumerate() {
            self.word(offset + 4 * i).store(word, Relaxed);
        }
    }

    fn full_fence(&self) {
        if FENCED {
            fence(Ordering::SeqCst);
        }
    }
}

/// A ring of two slots of one word, so that slots are soon used again.
enum Tiny {}

impl RingKind for Tiny {
    type Request = u32;
    type Response = u32;
    const SLOTS: u32 = 2;
    const SLOT_BYTES: usize = 4;

    fn read_request<P: Page>(page: &P, offset: usize) -> u32 {
        let [word] = page.read_words(offset);
        word
    }

    fn write_response<P: Page>(page: &P, offset: usize, response: u32) {
        page.write_words(offset, [response]);
    }
}

impl FrontKind for Tiny {
    type Request = u32;
    type Response = u32;
    const STRIDE: usize = 4;
    const COUNT: u32 = 2;

    fn put<P: Page>(page: &P, offset: usize, request: u32) {
        page.write_words(offset, [request]);
    }

    fn get<P: Page>(page: &P, offset: usize) -> u32 {
        let [word] = page.read_words(offset);
        word
    }
}

type Front<const F: bool> = FrontRing<Tiny, LoomPage<F>>;
type Back<const F: bool> = BackRing<Tiny, LoomPage<F>>;

/// Both ends of a fresh ring that is about to wrap, and the event of either direction.
fn ring<const F: bool>() -> (Front<F>, Back<F>, [Arc<Event>; 2]) {
    let page = LoomPage::new();
    let front = FrontRing::init_at(page.clone(), u32::MAX);
    let back = BackRing::attach(page).unwrap();
    (
        front,
        back,
        [Arc::new(Event::new()), Arc::new(Event::new())],
    )
}

fn request(number: u32) -> u32 {
    100 + number
}

fn response(number: u32) -> u32 {
    200 + number
}

fn send<const F: bool>(front: &mut Front<F>, number: u32, event: &Event) {
    front.push(request(number)).unwrap();
    if front.publish() {
        event.notify();
    }
}

fn answer<const F: bool>(back: &mut Back<F>, number: u32, event: &Event) {
    back.respond(response(number)).unwrap();
    if back.publish().is_needed() {
        event.notify();
    }
}

/// Sleeps until there is a request, and takes it.
fn receive<const F: bool>(back: &mut Back<F>, event: &Event) -> u32 {
    while back.unconsumed().unwrap() == 0 {
        if !back.arm().unwrap() {
            event.wait();
        }
    }
    back.take().unwrap()
}

/// Sleeps until there is a response, and takes it.
fn collect<const F: bool>(front: &mut Front<F>, event: &Event) -> u32 {
    loop {
        if let Some((_, response)) = front.take().unwrap() {
            return response;
        }
        if !front.arm().unwrap() {
            event.wait();
        }
    }
}

fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

fn requests() {
    let (mut front, mut back, [to_back, _]) = ring::<true>();
    let event = to_back.clone();
    let guest = thread::spawn(move || {
        for number in 0..2 {
            send(&mut front, number, &event);
        }
    });
    for number in 0..2 {
        assert_eq!(receive(&mut back, &to_back), request(number));
    }
    guest.join().unwrap();
}

fn responses() {
    let (mut front, mut back, [_, to_front]) = ring::<true>();
    for number in 0..2 {
        front.push(request(number)).unwrap();
    }
    let _ = front.publish();
    let event = to_front.clone();
    let backend = thread::spawn(move || {
        assert_eq!(back.unconsumed().unwrap(), 2);
        for number in 0..2 {
            assert_eq!(back.take().unwrap(), request(number));
            answer(&mut back, number, &event);
        }
    });
    for number in 0..2 {
        assert_eq!(collect(&mut front, &to_front), response(number));
    }
    backend.join().unwrap();
}

#[test]
fn loom_a_sleeping_backend_is_woken() {
    model(4, requests);
}

#[test]
fn loom_a_sleeping_frontend_is_woken() {
    model(4, responses);
}

/// The heart of it: one end publishes while the other arms. Either the first is told to notify, or
/// the second sees what was published.
fn nobody_sleeps_on_a_request<const F: bool>() {
    let (mut front, mut back, _) = ring::<F>();
    // The first request uses up the event of a fresh ring.
    send(&mut front, 0, &Event::new());
    assert_eq!(back.unconsumed().unwrap(), 1);
    assert_eq!(back.take(), Some(request(0)));
    let guest = thread::spawn(move || {
        front.push(request(1)).unwrap();
        front.publish()
    });
    let seen = back.arm().unwrap();
    let notified = guest.join().unwrap();
    assert!(seen || notified, "the backend sleeps on");
}

fn nobody_sleeps_on_a_response<const F: bool>() {
    let (mut front, mut back, _) = ring::<F>();
    // The first response uses up the event of a fresh ring.
    front.push(request(0)).unwrap();
    front.push(request(1)).unwrap();
    let _ = front.publish();
    assert_eq!(back.unconsumed().unwrap(), 2);
    let _ = (back.take(), back.take());
    back.respond(response(0)).unwrap();
    let _ = back.publish();
    assert_eq!(front.take().unwrap(), Some((u32::MAX, response(0))));
    let backend = thread::spawn(move || {
        back.respond(response(1)).unwrap();
        back.publish().is_needed()
    });
    let seen = front.arm().unwrap();
    let notified = backend.join().unwrap();
    assert!(seen || notified, "the frontend sleeps on");
}

#[test]
fn loom_publish_and_arm_never_both_miss() {
    loom::model(nobody_sleeps_on_a_request::<true>);
    loom::model(nobody_sleeps_on_a_response::<true>);
}

#[test]
#[should_panic(expected = "the backend sleeps on")]
fn loom_without_fences_a_request_is_missed() {
    loom::model(nobody_sleeps_on_a_request::<false>);
}

#[test]
#[should_panic(expected = "the frontend sleeps on")]
fn loom_without_fences_a_response_is_missed() {
    loom::model(nobody_sleeps_on_a_response::<false>);
}

/// The receive side's sleep: two requests are needed at once.
#[test]
fn loom_a_backend_that_waits_for_two_is_woken() {
    model(4, || {
        let (mut front, mut back, [to_back, _]) = ring::<true>();
        let event = to_back.clone();
        let guest = thread::spawn(move || {
            for number in 0..2 {
                send(&mut front, number, &event);
            }
        });
        while !back.arm_for(2).unwrap() {
            to_back.wait();
        }
        assert_eq!(
            (back.take(), back.take()),
            (Some(request(0)), Some(request(1)))
        );
        guest.join().unwrap();
    });
}

/// Both directions at once, three requests through two slots: each slot is written by both ends
/// and used again.
#[test]
fn loom_slots_are_reused_only_when_they_are_done_with() {
    model(3, || {
        let (mut front, mut back, [to_back, to_front]) = ring::<true>();
        let (wake_back, woken_front) = (to_back.clone(), to_front.clone());
        let guest = thread::spawn(move || {
            for number in 0..2 {
                send(&mut front, number, &wake_back);
            }
            assert_eq!(collect(&mut front, &woken_front), response(0));
            send(&mut front, 2, &wake_back);
            for number in 1..3 {
                assert_eq!(collect(&mut front, &woken_front), response(number));
            }
        });
        for number in 0..3 {
            assert_eq!(receive(&mut back, &to_back), request(number));
            answer(&mut back, number, &to_front);
        }
        guest.join().unwrap();
    });
}
