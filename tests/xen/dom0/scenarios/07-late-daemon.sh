# The backend starts when xl create is under way already, within the 10 s that libxl waits for it: the device that is there is picked up.
# backends: netback kernel
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh

backend_stop
guest_config pv07 pv 17
step "xl create without a backend"
xl_create pv07 &
create_pid=$!
node_waits() { xenstore-ls -f /local/domain/0/backend/vif | grep -qE '/vif/[0-9]+/0/state = "1"'; }
wait_for 120 "xl create did not write the backend's nodes" node_waits
sleep 2
check "the vif left state 1 with no backend running" node_waits
backend_start
wait "$create_pid" || fail "xl create failed, though the backend was there within its 10 s"
guest_wait_ready pv07
check_vif pv07
ping_all "$(address 17)" 20
guest_power_off pv07
