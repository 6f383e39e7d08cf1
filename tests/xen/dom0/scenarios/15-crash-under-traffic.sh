# The daemon is killed again and again in the midst of transfers both ways: connections live on, and every transfer arrives as it was sent.
# backends: netback
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh
. /tests/crash.sh

guest=pv15
number=25
GUEST_TIMEOUT=600

next_daemon() {
    wait_for 30 "the daemon outlives SIGKILL" test -e "$rig/netback.status"
    daemon_start
}

take_snapshot empty
crash_guest 10000000

step "crashes under traffic"
crashes 6 next_daemon
remark "the host has seen the carrier change $(link carrier_changes) times"

kill "$file_pid"
guest_power_off "$guest"
nothing_left empty
