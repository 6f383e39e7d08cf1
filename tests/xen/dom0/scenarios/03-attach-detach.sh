# A second vif comes and goes twice while the guest runs; the first one does not notice, and nothing of the second stays.
# backends: netback kernel
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh

guest_create pv03 pv 13
check_vif pv03
ping_all "$(address 13)" 5
take_snapshot one-vif

for round in 1 2; do
    step "attach, round $round"
    check "xl network-attach failed in round $round" timeout 120 xl network-attach pv03 "mac=$(mac 141)" "bridge=$bridge"
    check_vif_soon() { [ -e "/sys/class/net/$(vif_of pv03 1)" ]; }
    wait_for 60 "no second vif in dom0" check_vif_soon
    guest_check "the attached device did not come up" pv03 netup eth1 "$(address 141)/25"
    check_vif pv03 1
    ping_all "$(address 141)" 20
    ping_all "$(address 13)" 5

    step "detach, round $round"
    check "xl network-detach failed in round $round" timeout 120 xl network-detach pv03 1
    wait_for 60 "eth1 is still in the guest" guest_run pv03 'test ! -e /sys/class/net/eth1'
    nothing_left one-vif
    ping_all "$(address 13)" 5
done
guest_power_off pv03
