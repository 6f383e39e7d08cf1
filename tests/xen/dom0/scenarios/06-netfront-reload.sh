# The guest unloads xen-netfront and loads it again: the vif connects again on the same network device, and the hotplug script is not run twice.
# backends: netback kernel
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh

# The stock script, behind one that takes a note of each call.
cat >"$scripts/vif-noted" <<'END'
#!/bin/bash
echo "$1 $XENBUS_PATH" >>/run/rig/vif-noted
exec /etc/xen/scripts/vif-bridge "$@"
END
chmod +x "$scripts/vif-noted"
rm -f "$rig/vif-noted"

take_snapshot empty
guest_create pv06 pv 16 script=vif-noted
check_vif pv06
ping_all "$(address 16)" 5
vif=$(vif_of pv06)
index=$(cat "/sys/class/net/$vif/ifindex")
[ "$(wc -l <"$rig/vif-noted")" = 1 ] || fail "the hotplug script was not run once: $(cat "$rig/vif-noted")"
take_snapshot connected

for round in 1 2; do
    step "unload, round $round"
    # Linux counts a bound device as a use of the module, so the device is unbound first.
    guest_check "unbind and rmmod failed" pv06 "echo vif-0 >/sys/bus/xen/drivers/vif/unbind && rmmod xen_netfront"
    guest_check "eth0 is still in the guest" pv06 "test ! -e /sys/class/net/eth0"
    step "load, round $round"
    guest_check "insmod failed" pv06 "insmod /modules/xen-netfront.ko"
    guest_check "eth0 did not come back" pv06 netup eth0 "$(address 16)/25"
    check_vif pv06
    ping_all "$(address 16)" 20
    [ "$(cat "/sys/class/net/$vif/ifindex")" = "$index" ] || fail "$vif is another device than before"
    nothing_left connected
done
[ "$(wc -l <"$rig/vif-noted")" = 1 ] || fail "the hotplug script was run again: $(tr '\n' ';' <"$rig/vif-noted")"

guest_power_off pv06
nothing_left empty
wait_for 30 "the script was not called to take the vif down" grep -q '^offline' "$rig/vif-noted"
