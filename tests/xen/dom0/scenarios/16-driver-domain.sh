# Vifs in a driver domain: xl in dom0, `xl devd` and the daemon in a guest, which has no right but its own and xenstored's quotas. Guests come and go, the
# daemon is killed in the midst of a transfer, and nothing of them stays.
# backends: netback
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh
. /tests/driver.sh

size=4000000 # bytes of one transfer

driver_create driver16 pv
take_snapshot empty driver_snapshot

guest_create pv16 pv 26 "backend=$driver"
driver_vif pv16
driver_do ping_all "$(address 26)" 20

step "a transfer each way"
sum=$(driver_do serve "$size")
[ "$(guest_check "nothing arrives in pv16" pv16 "wget -q -O /data http://$dom0_address:8080/data && md5sum </data")" = "$sum" ] ||
    fail "other bytes arrived in pv16 than were sent"
guest_check "pv16 does not serve" pv16 "httpd -p 8080 -h /"
[ "$(driver_do fetch "$(address 26)")" = "$sum" ] || fail "other bytes arrived in the driver domain than were sent"

step "a crash in the midst of transfers"
guest_fetch pv16
driver_do crash
driver_do ping_all "$(address 26)" 20
guest_fetched pv16 "$sum"
driver_vif pv16

step "a second vif comes and goes"
check "xl network-attach failed" timeout 120 xl network-attach pv16 "mac=$(mac 126)" "bridge=$bridge" "backend=$driver"
driver_vif pv16 1
check "xl network-detach failed" timeout 120 xl network-detach pv16 1
guest_power_off pv16
nothing_left empty driver_snapshot

step "a guest that is destroyed"
guest_create pvh16 pvh 27 "backend=$driver"
driver_vif pvh16
driver_do ping_all "$(address 27)" 20
check "xl destroy failed" timeout 120 xl destroy pvh16
nothing_left empty driver_snapshot

driver_do daemon_stop
guest_power_off "$driver"
