// SPDX-License-Identifier: GPL-3.0-or-later
//! Directories that cannot be served, by a toolstack's mistake or a guest's: the error node says why, the device
//! can be taken away again, and the neighbours do not notice.

use netback::demo::guest::options::FrontendOptions;
use netback::demo::toolstack::VifSpec;
use netback_tests::world::until;
use xenbus::Xs;

use crate::hood::{Neighbourhood, neighbourhood};

/// The backend says something like `text` about `vif`, closes it, and the neighbour does not notice.
fn assert_refused(hood: &Neighbourhood, vif: &VifSpec, text: &str) {
    // 5, and 6 as soon as a frontend has answered that. The reason was written before.
    until("the backend closes", || {
        matches!(hood.world.backend_state(vif).as_deref(), Some("5" | "6"))
    });
    let error = hood.world.error(vif).unwrap();
    assert!(error.contains(text), "{error:?} does not say {text:?}");
    let node = format!("{}/error", vif.backend_dir());
    let own = hood.world.toolstack().read(&node).unwrap();
    assert_eq!(own.as_ref(), Some(&error), "both error nodes say the same");
    let status = hood.world.vif_status(vif).unwrap();
    assert_eq!(status.reason, Some(error));
    hood.neighbour.ping();
}

/// A toolstack's mistake: refused, and gone without trace when the toolstack takes it away.
fn refused_directory(text: &str, change: impl FnOnce(&mut VifSpec)) {
    let hood = neighbourhood();
    let vif = hood.world.create_as(1, change);
    assert_refused(&hood, &vif, text);
    hood.world.detach(&vif);
    hood.finish();
}

fn with_key(key: &str, value: &str) -> impl FnOnce(&mut VifSpec) + use<> {
    let extra = (key.to_owned(), value.to_owned());
    move |vif| vif.extra.push(extra)
}

#[test]
fn a_handle_that_is_no_number() {
    refused_directory("handle is \"seven\"", with_key("handle", "seven"));
}

#[test]
fn a_frontend_of_another_guest() {
    refused_directory(
        "100",
        with_key("frontend", "/local/domain/100/device/vif/0"),
    );
}

#[test]
fn a_frontend_id_of_another_guest() {
    refused_directory("100", with_key("frontend-id", "100"));
}

#[test]
fn a_frontend_outside_of_any_guest() {
    refused_directory(
        "frontend",
        with_key("frontend", "/local/domain/1/device/vif/0/../../../9"),
    );
}

#[test]
fn an_unknown_state_of_its_own() {
    refused_directory("state", with_key("state", "17"));
}

#[test]
fn a_mac_that_is_none() {
    let hood = neighbourhood();
    let vif = hood
        .world
        .create_as(1, |vif| vif.mac = "00:16:3e:00:00".to_owned());
    hood.world.plug(&vif);
    let guest = hood
        .world
        .boot(vif.clone(), 1500, FrontendOptions::default());
    assert_refused(&hood, &vif, "00:16:3e:00:00");
    guest.wait_closed();
    hood.world.remove(guest);
    hood.finish();
}

/// A guest's mistake: refused; and when the driver starts anew without it, it is served and the error is gone.
fn refused_frontend(text: &str, overrides: &[(&str, Option<&str>)]) {
    refused_options(text, FrontendOptions::default(), overrides);
}

/// As [`refused_frontend`], with a driver that works in its own way otherwise.
pub(crate) fn refused_options(
    text: &str,
    options: FrontendOptions,
    overrides: &[(&str, Option<&str>)],
) {
    let mut hood = neighbourhood();
    hood.world.vcpus = 16;
    let vif = hood.world.attach(1);
    let overrides = overrides
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
        .collect();
    let bad = FrontendOptions {
        overrides,
        ..options
    };
    let guest = hood.world.boot(vif.clone(), 1500, bad);
    assert_refused(&hood, &vif, text);
    let census = hood.world.machine.hypervisor().census();
    assert_eq!(
        (census.mapped, census.bound_ports),
        (2, 2),
        "only the neighbour's are in use"
    );

    guest.wait_closed();
    guest.reload_with(|options| options.overrides.clear());
    guest.exercise();
    hood.world.wait_forgiven(&vif);
    // What may have been for want of room is remembered as that.
    until("no other reason is left", || {
        let reason = hood.world.vif_status(&vif).unwrap().reason;
        reason.is_none_or(|reason| reason.starts_with("more queues could not be served"))
    });
    hood.world.remove(guest);
    hood.finish();
}

#[test]
fn no_tx_ring() {
    refused_frontend("tx-ring-ref", &[("tx-ring-ref", None)]);
}

#[test]
fn a_tx_ring_that_is_no_number() {
    refused_frontend("\"0x10\"", &[("tx-ring-ref", Some("0x10"))]);
}

#[test]
fn an_rx_ring_that_was_not_granted() {
    refused_frontend("4000000000", &[("rx-ring-ref", Some("4000000000"))]);
}

#[test]
fn one_page_for_both_rings() {
    refused_frontend(
        "grant reference 8 twice",
        &[("tx-ring-ref", Some("8")), ("rx-ring-ref", Some("8"))],
    );
}

#[test]
fn no_event_channel() {
    refused_frontend(
        "event-channel",
        &[("event-channel-tx", None), ("event-channel-rx", None)],
    );
}

#[test]
fn half_a_pair_of_event_channels() {
    refused_frontend("event-channel-rx", &[("event-channel-rx", None)]);
}

#[test]
fn an_event_channel_that_was_not_allocated() {
    refused_frontend("4711", &[("event-channel-tx", Some("4711"))]);
}

#[test]
fn more_queues_than_offered() {
    refused_frontend("64 queues", &[("multi-queue-num-queues", Some("64"))]);
}

#[test]
fn no_queue_at_all() {
    refused_frontend("0 queues", &[("multi-queue-num-queues", Some("0"))]);
}

#[test]
fn half_a_control_ring() {
    refused_frontend("event-channel-ctrl", &[("ctrl-ring-ref", Some("4711"))]);
    refused_frontend("ctrl-ring-ref", &[("event-channel-ctrl", Some("4711"))]);
}

#[test]
fn a_control_ring_that_is_not_there() {
    refused_frontend(
        "the control ring",
        &[
            ("ctrl-ring-ref", Some("4000000")),
            ("event-channel-ctrl", Some("4711")),
        ],
    );
    // A page for receiving; a port that there is not.
    refused_frontend(
        "4711",
        &[
            ("ctrl-ring-ref", Some("266")),
            ("event-channel-ctrl", Some("4711")),
        ],
    );
}

#[test]
fn page_flipping() {
    refused_frontend("request-rx-copy", &[("request-rx-copy", Some("0"))]);
}

#[test]
fn a_value_of_two_thousand_bytes() {
    let long: &'static str = "9".repeat(2_000).leak();
    refused_frontend("rx-ring-ref", &[("rx-ring-ref", Some(long))]);
}

#[test]
fn a_state_that_is_none() {
    let hood = neighbourhood();
    let guest = hood.world.guest(1, FrontendOptions::default());
    for nonsense in ["17", "", "four", "\u{1b}[31m", "-1", "4294967300"] {
        guest.exercise();
        guest
            .with(move |netfront| netfront.store().set_raw("state", nonsense))
            .unwrap();
        assert_refused(&hood, &guest.vif, "state");
        assert!(!hood.world.error(&guest.vif).unwrap().contains('\u{1b}'));
        guest.wait_closed();
        guest.reload();
        hood.world.wait_forgiven(&guest.vif);
    }
    hood.world.remove(guest);
    hood.finish();
}

/// A guest owns its directory and may remove what is in it.
#[test]
fn a_guest_that_removes_its_state() {
    let hood = neighbourhood();
    let (vif, netfront) = hood.world.raw(1, FrontendOptions::default());
    netfront.store().client().rm("device/vif/0/state").unwrap();
    until("the vif has gone", || hood.world.vif_status(&vif).is_none());
    until("its tap has gone", || {
        !hood.world.interfaces().contains(&vif.tap())
    });
    assert_eq!(hood.world.backend_state(&vif).as_deref(), Some("6"));
    hood.world.toolstack().remove_vif(&vif).unwrap();
    drop(netfront);
    hood.finish();
}

/// libxl always writes one; without it nobody would plug the vif in.
#[test]
fn no_script() {
    let hood = neighbourhood();
    let vif = hood.world.create_as(1, |vif| vif.script = None);
    assert_refused(&hood, &vif, "script");
    hood.world.detach(&vif);
    hood.finish();
}

/// Older toolstacks let the hotplug side write the handle, after InitWait.
#[test]
fn a_handle_that_comes_late() {
    let hood = neighbourhood();
    let vif = hood.world.create_as(1, |vif| vif.with_handle = false);
    hood.world.wait_init(&vif);
    assert!(
        !hood.world.interfaces().contains(&vif.tap()),
        "no netif without a handle"
    );
    hood.world
        .toolstack()
        .store()
        .write(&format!("{}/handle", vif.backend_dir()), "0")
        .unwrap();
    hood.world.wait_tap(&vif);
    hood.world.run_script(&vif);
    let guest = hood.world.boot_connected(vif, FrontendOptions::default());
    guest.exercise();
    hood.world.remove(guest);
    hood.finish();
}
