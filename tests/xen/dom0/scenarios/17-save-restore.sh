# A guest is saved and goes on, and is saved and restored, in the midst of transfers and by a daemon that came meanwhile: its network is there again, and
# nothing is left of the vif that it had. (Live migration takes log-dirty mode, which Xen cannot have for PV guests under the emulator.)
# backends: netback kernel
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh

guest=pv17
image=$rig/$guest.image
size=10000000 # bytes of the transfer

take_snapshot empty
file_serve "$size"
guest_create "$guest" pv 28
check_vif "$guest"
ping_all "$(address 28)" 5
take_snapshot one-guest

step "saved, and goes on"
check "xl save -c failed" timeout 300 xl save -c "$guest" "$image"
check_vif "$guest"
ping_all "$(address 28)" 20
nothing_left one-guest

step "saved and restored in the midst of transfers"
before=$(xl domid "$guest")
guest_fetch "$guest"
check "xl save failed" timeout 300 xl save "$guest" "$image"
nothing_left empty
if [ "$backend" = netback ]; then # what has seen the former domain is gone
    backend_stop
    backend_start
fi
check "xl restore failed" timeout 300 xl restore "$rig/$guest.cfg" "$image"
rm "$image"
check "there is no $guest any more" guest_exists "$guest"
[ "$(xl domid "$guest")" != "$before" ] || fail "$guest is the same domain still"
check_vif "$guest"
ping_all "$(address 28)" 20
guest_fetched "$guest" "$file_sum"

kill "$file_pid"
guest_power_off "$guest"
nothing_left empty
