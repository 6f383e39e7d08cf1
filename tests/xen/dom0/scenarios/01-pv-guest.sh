# The whole life of a PV guest with one vif: create, connect, ping, TCP both ways, power off, nothing left.
# backends: netback kernel
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh

take_snapshot empty
guest_create pv01 pv 11
check_vif pv01
counts_more empty "event channels of dom0"
counts_more empty "grants mapped by dom0"
counts_more empty "backend nodes"

step "100 pings"
ping_all "$(address 11)" 100

step "TCP both ways"
iperf_serve 5201
tcp_both_ways pv01 8M 5201
kill "$iperf_pid"

if [ "$backend" = netback ]; then
    step "status"
    daemon_status >"$rig/status.json" || fail "netback status --json failed"
    cat "$rig/status.json"
    check_status "$(vif_of pv01)"

    step "what makes it fast is there"
    check "the daemon writes to taps without io_uring" grep -q 'anon_inode:\[io_uring\]' <<<"$(ls -l "/proc/$(daemon_pid)/fd")"
    check "the daemon's buffers are not granted to dom0 itself" grep -q /dev/xen/gntalloc "/proc/$(daemon_pid)/maps"
fi

guest_power_off pv01
nothing_left empty
