// SPDX-License-Identifier: GPL-3.0-or-later
//! The table that `netback status` prints: a line for each vif, and below it its queues, if it has several, and what
//! is wrong with it.
//!
//! Strings from guests and from xenstore are escaped and cut, so none can forge a line or drive the terminal.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::model::{
    ControlStatus, DirectionStatus, FeatureStatus, QueueStatus, Status, VifStatus, XenstoreStatus,
};
use super::units;
use crate::logging::printable;
use crate::vif::feature::{Feature, Shown};

const HEAD: [&str; 9] = [
    "VIF",
    "GUEST",
    "STATE",
    "QUEUES",
    "FEATURES",
    "TX PACKETS",
    "TX BYTES",
    "RX PACKETS",
    "RX BYTES",
];
/// Columns whose text is set to the right, being numbers.
const RIGHT: [bool; 9] = [false, false, false, true, false, true, true, true, true];
const GAP: &str = "  ";
/// Ethernet's own MTU, not worth a word.
const ORDINARY_MTU: u32 = 1500;

/// The whole table, ready to print.
#[must_use]
pub fn table(status: &Status) -> String {
    let mut out = head(status);
    if status.vifs.is_empty() {
        out.push_str("\nNo guest has a network device here.\n");
        return out;
    }
    let rows: Vec<_> = status.vifs.iter().map(rows).collect();
    let mut widths = HEAD.map(str::len);
    for row in rows.iter().flatten() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    out.push('\n');
    line(&mut out, &widths, &HEAD.map(str::to_owned));
    for (vif, rows) in status.vifs.iter().zip(&rows) {
        for row in rows {
            line(&mut out, &widths, row);
        }
        notes(&mut out, vif);
    }
    out.push_str("\ntx: what the guest transmits; rx: what it receives\n");
    out
}

fn head(status: &Status) -> String {
    let xenstore = match status.xenstore {
        XenstoreStatus::Connected => "xenstore connected",
        XenstoreStatus::Reconnecting => {
            "xenstore LOST, reconnecting (traffic goes on; changes wait)"
        }
    };
    let workers = if status.workers == 1 {
        "worker"
    } else {
        "workers"
    };
    let mut out = format!(
        "netback {} in domain {}: up {}, {} {workers}, {xenstore}\n",
        printable(&status.version, 20),
        status.domid,
        units::seconds(status.uptime_seconds),
        status.workers
    );
    if status.stopping {
        out.push_str("It was told to stop, and waits for vif scripts to end.\n");
    }
    if status.failed_unmaps > 0 {
        // Writing into a String cannot fail.
        let _infallible = writeln!(
            out,
            "{} pages of guests could not be given back, which is a bug: please report it; a restart frees them.",
            status.failed_unmaps
        );
    }
    out
}

/// The vif's line, and one for each queue pair where several have been in use.
fn rows(vif: &VifStatus) -> Vec<[String; 9]> {
    let queues = if vif.by_queue.len() > 1 {
        vif.by_queue.as_slice()
    } else {
        &[]
    };
    let queues = queues.iter().enumerate();
    std::iter::once(row(vif))
        .chain(queues.map(|(index, queue)| queue_row(index, queue)))
        .collect()
}

fn queue_row(index: usize, queue: &QueueStatus) -> [String; 9] {
    let [tx_packets, tx_bytes, rx_packets, rx_bytes] = traffic(&queue.tx, &queue.rx);
    let none = String::new;
    [
        format!("{GAP}queue {index}"),
        none(),
        none(),
        none(),
        none(),
        tx_packets,
        tx_bytes,
        rx_packets,
        rx_bytes,
    ]
}

fn traffic(tx: &DirectionStatus, rx: &DirectionStatus) -> [String; 4] {
    [
        units::count(tx.packets),
        units::bytes(tx.bytes),
        units::count(rx.packets),
        units::bytes(rx.bytes),
    ]
}

fn row(vif: &VifStatus) -> [String; 9] {
    let [tx_packets, tx_bytes, rx_packets, rx_bytes] = traffic(&vif.tx, &vif.rx);
    let guest = match &vif.guest {
        Some(name) => format!("{} ({})", printable(name, 32), vif.domid),
        None => format!("({})", vif.domid),
    };
    [
        if vif.vif.is_empty() {
            format!("({}.{})", vif.domid, vif.handle)
        } else {
            printable(&vif.vif, 15)
        },
        guest,
        printable(&vif.state, 16),
        vif.queues.to_string(),
        features(vif.features),
        tx_packets,
        tx_bytes,
        rx_packets,
        rx_bytes,
    ]
}

fn features(status: FeatureStatus) -> String {
    let flags = status.on.rows().filter_map(|row| match row.shown {
        Shown::Flag { table, .. } => table,
        Shown::Number => None,
    });
    let mut on: Vec<_> = flags.map(str::to_owned).collect();
    if status.xdp_headroom > 0 {
        on.push(format!("xdp{}", status.xdp_headroom));
    }
    if on.is_empty() {
        "-".to_owned()
    } else {
        on.join(" ")
    }
}

fn line(out: &mut String, widths: &[usize; 9], cells: &[String; 9]) {
    let mut text = String::new();
    for ((cell, width), right) in cells.iter().zip(widths).zip(RIGHT) {
        let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
        let (before, after) = if right {
            (pad.as_str(), "")
        } else {
            ("", pad.as_str())
        };
        text.push_str(before);
        text.push_str(cell);
        text.push_str(after);
        text.push_str(GAP);
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

fn notes(out: &mut String, vif: &VifStatus) {
    if let Some(reason) = &vif.reason {
        note(out, &printable(reason, 400));
    }
    if let Some(control) = &vif.control {
        configured(out, control);
    }
    link(out, vif);
    limits(out, vif);
    direction(out, "tx", &vif.tx);
    direction(out, "rx", &vif.rx);
}

/// What a guest has configured while it runs. One that has a control ring and does not use it
/// takes no line.
fn configured(out: &mut String, control: &ControlStatus) {
    if !control.hash_types.is_empty() {
        let types = control.hash_types.iter().map(|name| printable(name, 16));
        let types: Vec<_> = types.collect();
        let (algorithm, mapping) = (
            printable(&control.hash_algorithm, 16),
            control.hash_mapping_size,
        );
        let types = types.join(" ");
        note(
            out,
            &format!("rx hash {algorithm} over {types}, mapping table of {mapping}"),
        );
    }
    if control.static_grants > 0 {
        note(out, &format!("{} static grants", control.static_grants));
    }
}

/// What is not as usual about the link of a connected guest.
fn link(out: &mut String, vif: &VifStatus) {
    if vif.queues == 0 {
        return;
    }
    if vif.carrier == Some(false) {
        let reason = vif.carrier_reason.as_deref().unwrap_or_default();
        note(out, &format!("link down: {}", printable(reason, 200)));
    }
    match vif.mtu {
        None | Some(ORDINARY_MTU) => {}
        Some(mtu @ ORDINARY_MTU..) if !vif.features.has(Feature::Sg) => {
            let limit = "but the guest takes frames of one page at most (no sg)";
            note(out, &format!("mtu {mtu}, {limit}"));
        }
        Some(mtu) => note(out, &format!("mtu {mtu}")),
    }
}

fn limits(out: &mut String, vif: &VifStatus) {
    let limit = |name, direction: &DirectionStatus| {
        let mbit = units::mbit(direction.limit_mbit_per_second?);
        Some(format!("{name} limited to {mbit}"))
    };
    let limits = [limit("tx", &vif.tx), limit("rx", &vif.rx)];
    let limits: Vec<_> = limits.into_iter().flatten().collect();
    if !limits.is_empty() {
        note(out, &limits.join(", "));
    }
}

fn direction(out: &mut String, name: &str, direction: &DirectionStatus) {
    for (what, reasons) in [("dropped", &direction.drops), ("errors", &direction.errors)] {
        let list = nonzero(reasons);
        if !list.is_empty() {
            note(out, &format!("{name} {what}: {}", list.join(", ")));
        }
    }
}

fn nonzero(reasons: &BTreeMap<String, u64>) -> Vec<String> {
    reasons
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(reason, n)| format!("{} {}", n, printable(reason, 40)))
        .collect()
}

fn note(out: &mut String, text: &str) {
    // Writing into a String cannot fail.
    let _infallible = writeln!(out, "{GAP}{GAP}{text}");
}
