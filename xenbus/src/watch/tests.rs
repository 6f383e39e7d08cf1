// SPDX-License-Identifier: GPL-3.0-or-later
//! Storms, and what is told apart.

use super::*;

fn drain(queue: &mut EventQueue) -> Vec<(String, String)> {
    std::iter::from_fn(|| queue.pop())
        .map(|event| (event.path, event.token))
        .collect()
}

#[test]
fn a_storm_of_a_guest_costs_one_event() {
    let mut queue = EventQueue::new();
    let state = "/local/domain/7/device/vif/0/state";
    queue.register(state, "front", Coalesce::Watched);
    for n in 0..100_000 {
        // The guest also makes nodes below the one that is watched.
        queue.push(&format!("{state}/{n}"), "front");
        queue.push(state, "front");
    }
    assert_eq!(queue.len(), 1);
    assert_eq!(queue.pending.len(), 1);
    assert_eq!(drain(&mut queue), [(state.to_owned(), "front".to_owned())]);
    queue.push(state, "front");
    assert_eq!(
        queue.len(),
        1,
        "an event after the first was taken is a new one"
    );
}

#[test]
fn a_storm_under_the_backend_root_costs_one_event_for_each_known_key() {
    let mut queue = EventQueue::new();
    queue.register("backend/vif", "root", Coalesce::Devices);
    for n in 0..100_000u32 {
        let dom = n % 10;
        queue.push(&format!("backend/vif/{dom}/0/feature-{n}"), "root");
        queue.push(&format!("backend/vif/{dom}/0/state"), "root");
        queue.push(&format!("backend/vif/{dom}/0/hotplug-status/{n}"), "root");
    }
    assert_eq!(queue.len(), 30);
}

#[test]
fn events_keep_their_order_and_their_differences() {
    let mut queue = EventQueue::new();
    queue.register("backend/vif", "root", Coalesce::Devices);
    queue.register("/x", "a", Coalesce::Watched);
    queue.register("/x", "b", Coalesce::Watched);
    queue.push("backend/vif/1/0/state", "root");
    queue.push("/x", "b");
    queue.push("/x/y", "a");
    queue.push("backend/vif/1/0/online", "root");
    queue.push("backend/vif/1/0/state", "root");
    queue.push("backend/vif", "root");
    let events = drain(&mut queue);
    let events: Vec<_> = events
        .iter()
        .map(|(path, token)| (path.as_str(), token.as_str()))
        .collect();
    assert_eq!(
        events,
        [
            ("backend/vif/1/0/state", "root"),
            ("/x", "b"),
            ("/x", "a"),
            ("backend/vif/1/0/online", "root"),
            ("backend/vif", "root"),
        ]
    );
}

#[test]
fn events_of_nobodys_watch_are_dropped() {
    let mut queue = EventQueue::new();
    queue.push("/x", "a");
    queue.register("/x", "a", Coalesce::Watched);
    queue.push("/xy", "a");
    queue.push("/x", "b");
    assert!(queue.is_empty());
    queue.push("/x", "a");
    queue.unregister("/x", "a");
    assert!(queue.is_empty());
    queue.push("/x", "a");
    assert!(queue.is_empty());
    queue.unregister("/x", "a");
}

#[test]
fn one_token_may_watch_several_paths() {
    let mut queue = EventQueue::new();
    queue.register("/x", "t", Coalesce::Watched);
    queue.register("/y", "t", Coalesce::Watched);
    queue.push("/x/1", "t");
    queue.push("/y/1", "t");
    queue.unregister("/x", "t");
    assert_eq!(drain(&mut queue), [("/y".to_owned(), "t".to_owned())]);
}

#[test]
fn special_watches_and_the_root_are_watches_too() {
    let mut queue = EventQueue::new();
    queue.register("@releaseDomain", "r", Coalesce::Watched);
    queue.register("/", "all", Coalesce::Watched);
    queue.push("@releaseDomain", "r");
    queue.push("/local/domain/1", "all");
    assert_eq!(queue.len(), 2);
}

/// A guest owns its directory and may write there what it likes.
#[test]
fn of_a_directory_only_the_nodes_of_interest_are_told() {
    let mut queue = EventQueue::new();
    let dir = "/local/domain/7/device/vif/0";
    queue.register(dir, "front", Coalesce::Nodes(&["state", "xdp-headroom"]));
    for n in 0..100_000 {
        queue.push(&format!("{dir}/{n}"), "front");
        queue.push(&format!("{dir}/state-{n}"), "front");
        queue.push(&format!("{dir}/queue-{n}/state"), "front");
        queue.push(&format!("{dir}/state/{n}"), "front");
        queue.push(&format!("{dir}/xdp-headroom"), "front");
        queue.push(&format!("{dir}/"), "front");
    }
    let state = format!("{dir}/state");
    let headroom = format!("{dir}/xdp-headroom");
    queue.push(dir, "front");
    let paths: Vec<_> = drain(&mut queue)
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    assert_eq!(paths, [state, headroom, dir.to_owned()]);
    // An event beside the directory is nobody's.
    queue.push("/local/domain/7/device/vif/01", "front");
    assert!(queue.is_empty());
}
