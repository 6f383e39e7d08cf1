// SPDX-License-Identifier: GPL-3.0-or-later
//! The printed table, word for word, and the names of the JSON.

use super::*;
use crate::control::render::table;

#[test]
fn golden() {
    let expected = r#"netback 0.1.0 in domain 0: up 2 h 05 min, 2 workers, xenstore connected

VIF     GUEST                            STATE          QUEUES  FEATURES              TX PACKETS  TX BYTES  RX PACKETS  RX BYTES
vif1.0  web (1)                          connected           1  sg csum4 csum6 split       1.23M  4.10 GiB        9999     512 B
    tx limited to 1.68 Mbit/s
    tx dropped: 12 tap-full
    rx dropped: 3 guest-slow, 1 too-long
    rx errors: 7 grant-copy
uplink  (20)                             await-hotplug       1  -                              0       0 B           0       0 B
    waiting for hotplug-status from /etc/xen/scripts/vif-bridge
(3.0)   \u{1b}[2Jroot\n\u{202e}evil (3)  failed              0  -                              0       0 B           0       0 B
    guest fault: \u{1b}]0;x\u{7} at slot 7

tx: what the guest transmits; rx: what it receives
"#;
    let printed = table(&sample());
    assert_eq!(printed, expected, "\n{printed}");
}

#[test]
fn golden_without_guests() {
    let status = Status {
        version: "0.1.0".into(),
        domid: 5,
        workers: 1,
        xenstore: XenstoreStatus::Reconnecting,
        ..Status::default()
    };
    let expected = "netback 0.1.0 in domain 5: up 0 s, 1 worker, xenstore LOST, reconnecting (traffic goes on; changes wait)\n\n\
        No guest has a network device here.\n";
    assert_eq!(table(&status), expected);
}

#[test]
fn what_ails_the_daemon_itself() {
    let status = Status {
        version: "0.1.0".into(),
        workers: 1,
        stopping: true,
        failed_unmaps: 3,
        ..Status::default()
    };
    let expected = "netback 0.1.0 in domain 0: up 0 s, 1 worker, xenstore connected\n\
        It was told to stop, and waits for vif scripts to end.\n\
        3 pages of guests could not be given back, which is a bug: please report it; a restart frees them.\n\n\
        No guest has a network device here.\n";
    assert_eq!(table(&status), expected);
}

fn queue(tx: u64, rx: u64) -> QueueStatus {
    let direction = |packets| DirectionStatus {
        packets,
        bytes: packets * 60,
        ..DirectionStatus::default()
    };
    QueueStatus {
        worker: Some(0),
        tx: direction(tx),
        rx: direction(rx),
    }
}

#[test]
fn several_queues_have_lines_of_their_own() {
    let mut status = sample();
    status.vifs.truncate(1);
    let vif = &mut status.vifs[0];
    vif.queues = 2;
    vif.by_queue = vec![queue(1_230_000, 9), queue(4_567, 9_990)];
    let expected = r#"netback 0.1.0 in domain 0: up 2 h 05 min, 2 workers, xenstore connected

VIF        GUEST    STATE      QUEUES  FEATURES              TX PACKETS  TX BYTES  RX PACKETS  RX BYTES
vif1.0     web (1)  connected       2  sg csum4 csum6 split       1.23M  4.10 GiB        9999     512 B
  queue 0                                                         1.23M  70.4 MiB           9     540 B
  queue 1                                                          4567   268 KiB        9990   585 KiB
    tx limited to 1.68 Mbit/s
    tx dropped: 12 tap-full
    rx dropped: 3 guest-slow, 1 too-long
    rx errors: 7 grant-copy

tx: what the guest transmits; rx: what it receives
"#;
    let printed = table(&status);
    assert_eq!(printed, expected, "\n{printed}");
}

#[test]
fn what_a_guest_has_configured_has_lines_of_its_own() {
    let mut status = sample();
    status.vifs.truncate(1);
    let printed = |status: &mut Status, control| {
        status.vifs[0].control = Some(control);
        table(status)
    };
    let unused = ControlStatus {
        hash_algorithm: "none".into(),
        ..ControlStatus::default()
    };
    let before = table(&status);
    assert_eq!(printed(&mut status, unused), before);
    let used = ControlStatus {
        hash_algorithm: "toeplitz".into(),
        hash_types: vec!["ipv4".into(), "ipv4-tcp".into()],
        hash_mapping_size: 16,
        static_grants: 512,
    };
    let printed = printed(&mut status, used.clone());
    let lines =
        "    rx hash toeplitz over ipv4 ipv4-tcp, mapping table of 16\n    512 static grants\n";
    assert!(printed.contains(lines), "\n{printed}");
    let expected = serde_json::json!({
        "hash_algorithm": "toeplitz",
        "hash_types": ["ipv4", "ipv4-tcp"],
        "hash_mapping_size": 16,
        "static_grants": 512
    });
    assert_eq!(serde_json::to_value(used).unwrap(), expected);
}

#[test]
fn what_is_unusual_about_the_link_is_said() {
    let mut status = sample();
    status.vifs.truncate(1);
    let vif = &mut status.vifs[0];
    (vif.tx, vif.rx) = Default::default();
    vif.carrier = Some(false);
    vif.carrier_reason = Some("the tap is down".into());
    vif.mtu = Some(9000);
    vif.features.on = vif.features.on.with(Feature::MulticastControl, true);
    assert!(!vif.features.has(Feature::XdpHeadroom));
    vif.features.xdp_headroom = 256;
    assert!(vif.features.has(Feature::XdpHeadroom));
    let printed = table(&status);
    assert!(printed.contains("csum6 split mcast xdp256 "), "{printed}");
    let notes = "\n    link down: the tap is down\n    mtu 9000\n";
    assert!(printed.contains(notes), "{printed}");

    let vif = &mut status.vifs[0];
    vif.features.on = vif.features.on.without(&[Feature::Sg]);
    let printed = table(&status);
    let note = "\n    mtu 9000, but the guest takes frames of one page at most (no sg)\n";
    assert!(printed.contains(note), "{printed}");

    status.vifs[0].queues = 0;
    let printed = table(&status);
    assert!(
        !printed.contains("mtu") && !printed.contains("link"),
        "of a connected guest only: {printed}"
    );
}

#[test]
fn long_strings_are_cut() {
    let mut status = sample();
    for vif in &mut status.vifs {
        vif.guest = Some("g".repeat(10_000));
        vif.reason = Some("r".repeat(10_000));
        vif.state = "s".repeat(10_000);
        vif.tx.drops = [("d".repeat(10_000), 1)].into();
    }
    for line in table(&status).lines() {
        assert!(line.chars().count() < 420, "{line}");
    }
}

#[test]
fn drops_add_up() {
    let status = sample();
    assert_eq!(
        status
            .vifs
            .iter()
            .map(|vif| vif.rx.dropped())
            .collect::<Vec<_>>(),
        [4, 0, 0]
    );
    let full = DirectionStatus {
        drops: [("a".into(), u64::MAX), ("b".into(), 1)].into(),
        ..Default::default()
    };
    assert_eq!(full.dropped(), u64::MAX);
}

#[test]
fn json_names_are_what_programs_rely_on() {
    let mut status = sample();
    status.vifs.truncate(1);
    status.vifs[0].by_queue = vec![queue(0, 5)];
    let expected = serde_json::json!({
        "version": "0.1.0",
        "domid": 0,
        "workers": 2,
        "uptime_seconds": 7500,
        "xenstore": "connected",
        "stopping": false,
        "failed_unmaps": 0,
        "vifs": [{
            "domid": 1,
            "handle": 0,
            "vif": "vif1.0",
            "guest": "web",
            "uuid": "6a1f3bd2-0c5e-4f0e-9a53-cd7dd6b0a001",
            "mac": "00:16:3e:00:00:01",
            "state": "connected",
            "reason": null,
            "hotplug_status": "connected",
            "queues": 1,
            "features": {
                "sg": true, "gso_tcpv4": false, "gso_tcpv6": false, "csum_v4": true, "csum_v6": true,
                "split_event_channels": true, "rx_notify": false, "multicast_control": false, "xdp_headroom": 0,
                "ctrl_ring": false
            },
            "control": null,
            "script": "/etc/xen/scripts/vif-bridge",
            "bridge": "xenbr0",
            "mtu": 1500,
            "carrier": true,
            "carrier_reason": null,
            "multicast_addresses": 3,
            "tx": {
                "packets": 1234567, "bytes": 4402341478_u64, "limit_mbit_per_second": 1.6776,
                "drops": { "tap-full": 12, "never": 0 }, "errors": {}
            },
            "rx": {
                "packets": 9999, "bytes": 512, "limit_mbit_per_second": null,
                "drops": { "guest-slow": 3, "too-long": 1 },
                "errors": { "grant-copy": 7 }
            },
            "by_queue": [{
                "worker": 0,
                "tx": { "packets": 0, "bytes": 0, "limit_mbit_per_second": null, "drops": {}, "errors": {} },
                "rx": { "packets": 5, "bytes": 300, "limit_mbit_per_second": null, "drops": {}, "errors": {} }
            }]
        }]
    });
    assert_eq!(serde_json::to_value(&status).unwrap(), expected);
    assert_eq!(serde_json::from_value::<Status>(expected).unwrap(), status);
}

#[test]
fn an_older_or_newer_daemon_is_understood() {
    let older: Status =
        serde_json::from_str(r#"{"version":"0.0.1","vifs":[{"vif":"vif1.0"}]}"#).unwrap();
    assert_eq!(
        (
            older.version.as_str(),
            older.vifs[0].vif.as_str(),
            older.vifs[0].mtu
        ),
        ("0.0.1", "vif1.0", None)
    );
    let newer: Status = serde_json::from_str(
        r#"{"version":"9","colour":"blue","vifs":[{"features":{"sg":true,"ctrl_ring":false,"warp":9}}]}"#,
    )
    .unwrap();
    assert_eq!(newer.version, "9");
    assert_eq!(newer.vifs[0].features.on, Features::of(&[Feature::Sg]));
}
