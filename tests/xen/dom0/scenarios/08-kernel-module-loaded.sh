# With the kernel's xen-netback loaded both would claim the vifs: the daemon refuses to start, and says why and what to do. If it is loaded later,
# the daemon says the same of the next vif.
# backends: netback
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh
. /tests/toolstack.sh

backend_stop
kernel_backend_load
step "netback run, which must refuse"
status=0
timeout -k 5 60 netback run >"$rig/refusal" 2>&1 || status=$?
cat "$rig/refusal"
kernel_backend_unload
[ "$status" != 124 ] || fail "the daemon went on beside the kernel's xen-netback"
[ "$status" != 0 ] || fail "the daemon ended with status 0 though xen-netback was loaded"
[ "$status" -lt 126 ] || fail "the daemon did not refuse, it died (status $status)"
grep -qiE 'xen.netback' "$rig/refusal" || fail "the refusal does not name xen-netback: $(tail -n 1 "$rig/refusal")"
! grep -q 'panicked at' "$rig/refusal" || fail "the daemon panicked"
remark "says: $(tail -n 1 "$rig/refusal" | cut -c 1-160)"

step "after rmmod it starts"
backend_start

step "loaded while the daemon runs"
kernel_backend_load
toolstack_add 0 0 "$(mac 18)"
says_so() { grep -q 'xen-netback driver is loaded' "$backend_log"; }
wait_for 60 "the daemon does not say that there is another backend: $(tail -n 1 "$backend_log")" says_so
toolstack_remove 0 0
kernel_backend_unload
check "the daemon has ended" daemon_runs
guest_create pv08 pv 18
check_vif pv08
ping_all "$(address 18)" 5
guest_power_off pv08
