# The life of a PVH guest, in short: its event channels and grants reach Xen another way than a PV guest's.
# backends: netback kernel
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh

take_snapshot empty
guest_create pvh02 pvh 12
check_vif pvh02
ping_all "$(address 12)" 20
iperf_serve 5201
tcp_both_ways pvh02 3M 5201
kill "$iperf_pid"
guest_power_off pvh02
nothing_left empty
