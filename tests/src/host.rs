// SPDX-License-Identifier: GPL-3.0-or-later
//! What an administrator does and sees on the host, by ip(8) and tc(8), in the calling thread's network namespace.

use std::net::Ipv4Addr;
use std::process::{Command, Output};

/// Runs ip(8) with these words.
pub fn ip(arguments: &str) -> Output {
    run("ip", arguments)
}

fn run(program: &str, arguments: &str) -> Output {
    let words = arguments.split_whitespace();
    // tc is where only root looks, on Debian.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut command = Command::new(program);
    let output = command.args(words).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {output:?}");
    output
}

/// What the tap's queue has no room for is dropped at once, also by kernels that would let it wait before the queue
/// (Linux from 7.2 on, as far as we know).
pub fn without_waiting(tap: &str) {
    run("tc", &format!("qdisc replace dev {tap} root noqueue"));
}

/// Enters a guest's address by hand, so that what is sent to it needs no answer to ARP.
pub fn add_neighbour(address: Ipv4Addr, tap: &str) {
    ip(&format!(
        "neigh replace {address} lladdr 00:16:3e:00:00:01 dev {tap}"
    ));
}

/// Whether the host sees a carrier on the tap.
#[must_use]
pub fn has_carrier(tap: &str) -> bool {
    let shown = ip(&format!("-oneline link show dev {tap}"));
    !String::from_utf8(shown.stdout)
        .unwrap()
        .contains("NO-CARRIER")
}
