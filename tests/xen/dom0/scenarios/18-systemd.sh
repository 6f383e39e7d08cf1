# The unit, as the README installs it, under the distribution's systemd: it is ready when it says so; a daemon that is killed or restarted in the midst of
# transfers is replaced, and the host sees no change of the vif, since systemd keeps the tap open; what only an administrator can mend is not tried again.
# backends: netback
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh
. /tests/crash.sh
. /tests/systemd.sh

guest=pv18
number=28
GUEST_TIMEOUT=600

has_been_replaced() {
    [ "$(pidof netback)" != "$(daemon_pid)" ] && daemon_answers
}

next_daemon() {
    wait_for 60 "no daemon follows the one that was killed" has_been_replaced
    unit_daemon
}

backend_stop
rm -f "$rig/netback.status"
systemd_start

step "enable and start the unit"
check "systemctl enable --now netback fails" unit_ctl enable --now netback
check "the unit is active, and netback does not answer" daemon_status
unit_daemon
take_snapshot empty
crash_guest 10000000
check "systemd keeps $(unit_property NFileDescriptorStore) descriptors" unit_is NFileDescriptorStore 1
changes=$(link carrier_changes)

step "crashes under traffic"
crashes 4 next_daemon
check "systemd has replaced $(unit_property NRestarts) daemons" unit_is NRestarts 4
check "the host has seen the carrier change $(($(link carrier_changes) - changes)) times" [ "$(link carrier_changes)" = "$changes" ]

step "restart"
check "systemctl restart netback fails" unit_ctl restart netback
unit_daemon
check "the host has seen the carrier change" [ "$(link carrier_changes)" = "$changes" ]
ping_all "$(address "$number")" 10

step "a configuration with a mistake"
echo 'workers = "many"' >/etc/netback/netback.toml
unit_ctl restart netback && fail "systemctl restarts a daemon whose configuration cannot be read"
check "the daemon ended with status $(unit_property ExecMainStatus)" unit_is ExecMainStatus 78
sleep 3 # longer than the unit waits before it tries again
check "the unit is $(unit_property ActiveState)" unit_is ActiveState failed
rm /etc/netback/netback.toml
check "systemctl start netback fails" unit_ctl start netback
unit_daemon
check_vif "$guest"
ping_all "$(address "$number")" 10

kill "$file_pid"
guest_power_off "$guest"
nothing_left empty
check "systemd keeps $(unit_property NFileDescriptorStore) descriptors of a vif that is gone" unit_is NFileDescriptorStore 0

step "stop the unit"
check "systemctl disable --now netback fails" unit_ctl disable --now netback
check "the daemon ended with status $(unit_property ExecMainStatus)" unit_is ExecMainStatus 0
check "a daemon is left" not pidof netback
systemd_end
backend_start
