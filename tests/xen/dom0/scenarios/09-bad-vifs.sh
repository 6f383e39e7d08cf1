# Vifs that cannot work: a script that does not exist, no script at all, a bad mac, a bridge that does not exist.
# Each says so in xenstore, leaves nothing behind, and the guest's good vif goes on all the while.
# What xl refuses to write is written by a toolstack made by hand.
# backends: netback kernel
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh
. /tests/toolstack.sh

guest_create pv09 pv 19
check_vif pv09
domid=$(xl domid pv09)
be=/local/domain/0/backend/vif/$domid/1
ping_all "$(address 19)" 5
take_snapshot one-vif

good_vif_goes_on() {
    ping_all "$(address 19)" 10
    check_vif pv09
}

# error_says WORD...: the error nodes of the second vif carry a sentence with one of the words.
error_says() {
    local node words nodes
    words=$(IFS='|' && echo "$*")
    nodes=("/local/domain/0/error/backend/vif/$domid/1/error")
    if [ "$backend" = kernel ]; then
        words=$words'|probe' # Linux writes no second node, and writes over a good sentence with one about its probe function
    else
        nodes+=("$be/error")
    fi
    for node in "${nodes[@]}"; do
        wait_for 60 "nothing in $node" store_has "$node"
        echo "$node: $(xenstore-read "$node")"
        xenstore-read "$node" | grep -qiE "$words" || fail "$node does not say what is wrong: $(xenstore-read "$node")"
    done
}

# Linux leaves its error nodes when the vif goes; the daemon must not.
remove_error() {
    if [ "$backend" = kernel ]; then xenstore-rm "/local/domain/0/error/backend/vif/$domid" 2>/dev/null || true; fi
}

clear_away() {
    toolstack_remove "$domid" 1
    remove_error
    nothing_left one-vif
}

# xl leaves the nodes of a vif that it failed to attach, so that they can be read.
detach() {
    xenstore-ls -f "$be" || true
    if store_has "$be/error"; then remark "the daemon says: $(xenstore-read "$be/error")"; fi
    if store_has "$be"; then check "xl network-detach failed" timeout 120 xl network-detach pv09 1; fi
    remove_error
    nothing_left one-vif
}

step "xl: a script that does not exist"
if timeout 120 xl network-attach pv09 "mac=$(mac 142)" "bridge=$bridge" script=vif-nonexistent; then
    fail "xl network-attach succeeded with a script that does not exist"
fi
if [ "$backend" = netback ]; then error_says vif-nonexistent; fi # the kernel leaves that to libxl
good_vif_goes_on
detach

step "xl: a bridge that does not exist"
if timeout 120 xl network-attach pv09 "mac=$(mac 142)" bridge=nosuchbr; then
    fail "xl network-attach succeeded with a bridge that does not exist"
fi
xenstore-read "$be/hotplug-error" | grep -q nosuchbr || fail "the script's hotplug-error is not in the backend's directory"
good_vif_goes_on
detach

step "by hand: a bridge that does not exist"
toolstack_add "$domid" 1 "$(mac 142)" bridge=nosuchbr
wait_for 60 "the backend did not offer the vif" store_is "$be/state" 2
toolstack_script "$domid" 1 online && fail "the script accepted a bridge that does not exist"
wait_for 30 "the script left no hotplug-error" store_has "$be/hotplug-error"
store_is "$be/hotplug-status" error || fail "hotplug-status is '$(xenstore-read "$be/hotplug-status")', not error"
sleep 5
! store_is "$be/state" 4 || fail "the backend connected though the hotplug script had failed"
store_has "$be/hotplug-error" || fail "the script's hotplug-error was removed"
good_vif_goes_on
clear_away

step "by hand: no script node"
toolstack_add "$domid" 1 "$(mac 142)" script=-
error_says script
good_vif_goes_on
clear_away

step "by hand: a bad mac"
toolstack_add "$domid" 1 "$(mac 142)" mac=00:16:3e:zz:00:01
toolstack_script "$domid" 1 online || true
error_says mac
if [ "$backend" = netback ]; then # Linux goes on to 4 after its error; the daemon must not
    ! store_is "$be/state" 4 || fail "the backend connected with a bad mac"
fi
good_vif_goes_on
clear_away

guest_power_off pv09
