# xl destroy tears the guest away while TCP flows both ways; nothing is left, and a new guest works.
# backends: netback kernel
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh

take_snapshot empty
guest_create pv04a pv 14
check_vif pv04a
ping_all "$(address 14)" 3
iperf_serve 5204
guest_check "iperf3 did not start" pv04a "iperf3 -c $dom0_address -p 5204 -t 600 --bidir >/tmp/iperf 2>&1 &"
transmitted() { [ "$(cat "/sys/class/net/$(vif_of pv04a)/statistics/$1")" -gt 1000000 ]; }
wait_for 120 "no traffic from the guest" transmitted rx_bytes
wait_for 120 "no traffic to the guest" transmitted tx_bytes

step "destroy"
check "xl destroy failed" timeout 120 xl destroy pv04a
kill -KILL "$iperf_pid"
wait "$iperf_pid" 2>/dev/null || true
nothing_left empty

guest_create pv04b pv 14
check_vif pv04b
ping_all "$(address 14)" 20
guest_power_off pv04b
nothing_left empty
