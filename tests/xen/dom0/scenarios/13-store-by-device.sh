# xenstored has no socket here, as in a driver domain: the daemon reaches the store through the kernel's device, which takes one request at a time.
# backends: netback
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh

socket=/run/xenstored/socket

# Whatever comes of it, the next scenario finds the socket where it was.
trap '[ ! -e "$socket.away" ] || mv "$socket.away" "$socket"; kill $(jobs -p) 2>/dev/null || true' EXIT

backend_stop
mv "$socket" "$socket.away"
backend_start
check "the daemon has not opened the device" grep -q /dev/xen/xenbus <<<"$(ls -l "/proc/$(daemon_pid)/fd")"
take_snapshot empty

guest_create device13 pv 21
check_vif device13
ping_all "$(address 21)" 20
iperf_serve 5213
tcp_both_ways device13 8M 5213
kill "$iperf_pid"

step "a second vif comes and goes"
check "xl network-attach failed" timeout 120 xl network-attach device13 "mac=$(mac 121)" "bridge=$bridge"
check_vif device13 1
check "xl network-detach failed" timeout 120 xl network-detach device13 1

guest_power_off device13
nothing_left empty

# The next scenario finds a daemon as any other, too.
backend_stop
mv "$socket.away" "$socket"
backend_start
