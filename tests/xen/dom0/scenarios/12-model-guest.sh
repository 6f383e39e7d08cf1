# What Linux's netfront never asks for, on a real Xen: the control ring's ten messages, static grants that carry packets, XDP headroom, multicast
# control, and features in other sets than all of them, with one queue and with two; and a cable that the toolstack pulls out. The model frontend of the tests drives the
# vif from user space inside the guest; real grants, real event channels, the real store.
# backends: netback
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh

guest=model12

# model COMMAND: has the model guest do something; the answer goes to the log.
model() {
    guest_check "the model guest" "$guest" \
        "echo $1 >/tmp/commands; read -r answer </tmp/answers; echo \"\$answer\"; case \$answer in ok*) true ;; *) false ;; esac"
}

# Every byte there and back.
exercise() {
    local said
    said=$(netback-model probe "$(address 20)" "$(mac 20)" "$bridge" "$bytes" 2>&1) || fail "with $1: $said"
    echo "with $1: $said"
}

# Every packet has its hash from now on, and the model guest looks for it.
hashes() {
    model hash
    # A ping that follows finds the hash in effect.
    ping -c 1 -W 10 "$(address 20)" >/dev/null 2>&1 || fail "no ping is answered once packets are hashed"
    model expect-hashes
}

# of_status KEY: the number that status has for it.
of_status() {
    daemon_status | tr -d ' \n' | grep -oE "\"$1\":[0-9]+" | head -n 1 | cut -d : -f 2
}

# Grants that the daemon has mapped; the hypervisor's own list does not have room for so many.
grants_mapped() {
    grep -c /dev/xen/gntdev "/proc/$(daemon_pid)/maps" || true
}

grep_status() {
    daemon_status | grep -q "$1"
}

# Twenty pings to a multicast group, which nobody answers. Sets $kept: frames that were kept from the guest meanwhile, a few of other groups among them.
to_the_group() {
    local before
    before=$(all_kept)
    ping -c 20 -i 0.1 -W 1 239.1.2.3 >/dev/null 2>&1 || true
    kept=$(($(all_kept) - before))
}

# Of one queue, and so of the vif. Nothing that has not happened is listed.
all_kept() {
    local count
    count=$(daemon_status | tr -d ' \n' | sed -n 's/.*"not-in-multicast-list":\([0-9]*\).*/\1/p')
    echo "${count:-0}"
}

# cable in|out: the host sees it so.
cable() {
    case $1 in
    in) grep -qx 1 "/sys/class/net/$(vif_of "$guest")/carrier" ;;
    out) grep -qx 0 "/sys/class/net/$(vif_of "$guest")/carrier" && daemon_status | grep -q '"carrier_reason": .*disconnect' ;;
    esac
}

backend_stop
backend_queues 2
backend_start
take_snapshot empty
guest_extra=model guest_vcpus=2 guest_create "$guest" pv 20
guest_check "the model guest does not start" "$guest" \
    "echo 2048 >/sys/module/xen_gntalloc/parameters/limit && mkfifo /tmp/commands /tmp/answers && (netback-model guest $(address 20)/25 /tmp/commands /tmp/answers >/tmp/model.log 2>&1 </dev/null &)"
check_vif "$guest"
model connected
exercise "nothing asked for"

step "hash and steering"
hashes
exercise "hashes"

step "static grants"
model refusals
before=$(grants_mapped)
model add-grants
check "status does not show 512 static grants, but $(of_status static_grants)" [ "$(of_status static_grants)" = 512 ]
check "dom0 maps $(($(grants_mapped) - before)) grants more, not 512" [ $(($(grants_mapped) - before)) = 512 ]
exercise "static grants"
model delete-grants
check "grants are still mapped: $(($(grants_mapped) - before))" [ "$(grants_mapped)" = "$before" ]
exercise "no static grants any more"

step "headroom"
model headroom
exercise "headroom"
model no-headroom
exercise "no headroom any more"

step "multicast control"
ip route add 239.1.2.0/24 dev "$bridge"
model multicast-control
wait_for 60 "status does not show multicast control" grep_status '"multicast_control": *true'
to_the_group
check "what is sent to a group that the guest is not in is not kept from it" [ "$kept" -ge 20 ]
model join
check "status does not show one address" [ "$(of_status multicast_addresses)" = 1 ]
to_the_group
check "$kept frames to a group that the guest is in were kept from it" [ "$kept" -lt 10 ]
model leave
to_the_group
check "what is sent to a group that the guest has left is not kept from it" [ "$kept" -ge 20 ]
model no-multicast-control
wait_for 60 "status still shows multicast control" grep_status '"multicast_control": *false'
to_the_group
check "$kept frames were kept from a guest that did not ask for it" [ "$kept" = 0 ]
ip route del 239.1.2.0/24 dev "$bridge"
exercise "no multicast control any more"

step "the driver goes with its grants mapped, and comes back with one set of features after another"
all="control split sg csum csum6 gso gso6"
model add-grants
model no-hash
for features in plain csum sg "sg csum" "sg csum gso" "split sg csum csum6 gso6" \
    "two-queues" "two-queues sg csum gso" "two-queues split sg csum6 gso6" "two-queues $all" "$all"; do
    model "reload $features"
    check_vif "$guest"
    check "status shows $(of_status queues) queue(s) with $features" \
        [ "$(of_status queues)" = "$(grep -q two-queues <<<"$features" && echo 2 || echo 1)" ]
    exercise "$features"
done
check "grants of a former connection are still mapped: $(($(grants_mapped) - before))" [ "$(grants_mapped)" = "$before" ]
hashes
exercise "hashes again"

step "the cable"
frontend=/local/domain/$(xl domid "$guest")/device/vif/0
xenstore-write "$frontend/disconnect" 1
wait_for 60 "the cable is not out" cable out
check "a ping was answered without a cable" not ping -c 1 -W 3 "$(address 20)"
xenstore-write "$frontend/disconnect" 0
wait_for 60 "the cable is not in again" cable in
exercise "the cable in again"

account=$(model account) || exit 1
remark "${account#ok }"
check "no packet had a hash: $account" not grep -q " 0 of them hashed" <<<"$account"
check "no packet had headroom: $account" not grep -q " 0 with headroom" <<<"$account"
check "grant copies failed" not grep -q '"grant-copy"' <<<"$(daemon_status)"

guest_power_off "$guest"
nothing_left empty
backend_stop
backend_queues
backend_start
