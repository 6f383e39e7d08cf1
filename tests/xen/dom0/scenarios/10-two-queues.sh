# A guest with two vCPUs and two queues: both are used, what goes through them arrives unchanged, a driver may come back with one queue and then
# with two again, and a backend that is replaced in the meantime serves both.
# backends: netback kernel
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh

files=8       # fetched at a time: as many flows
bytes=1000000 # in each

# guest_has_queues COUNT: queues of eth0 as the guest's kernel has them.
guest_has_queues() {
    local names
    names=$(guest_check "no queues in the guest" pv10 "ls /sys/class/net/eth0/queues") || exit 1
    [ "$(grep -c '^rx-' <<<"$names")" = "$1" ] || fail "eth0 has other queues than $1: ${names//$'\n'/ }"
}

# interrupts_of QUEUE: how many the guest has had from it.
interrupts_of() {
    guest_check "no interrupts in the guest" pv10 "grep -E '(eth0|vif0)-q$1-' /proc/interrupts" |
        awk '{ for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) n += $i } END { print n + 0 }'
}

# fetch_both_ways: files of random bytes go both ways at once, each a flow of its own, and are compared by their checksums.
fetch_both_ways() {
    local sent there back n pids=()
    guest_check "no random data in the guest" pv10 \
        "mkdir -p /www /got && for n in \$(seq $files); do head -c $bytes /dev/urandom >/www/\$n; done; netstat -ltn | grep -q :80 || httpd -h /www" >/dev/null
    guest_write pv10 \
        "for n in \$(seq $files); do (timeout 600 wget -q -O /got/\$n http://$dom0_address:8080/\$n || echo file \$n is not fetched) & done; wait"
    for n in $(seq "$files"); do
        timeout 600 wget -q -O "$rig/got/$n" "http://$(address 20)/$n" &
        pids+=($!)
    done
    for n in "${pids[@]}"; do wait "$n" || fail "dom0 could not fetch a file from the guest"; done
    there=$(guest_check "no checksums in the guest" pv10 "cd /got && sha256sum *") || exit 1
    sent=$(cd "$rig/www" && sha256sum ./* | sed 's,\./,,')
    [ "$there" = "$sent" ] || fail "other bytes arrived in the guest than were sent: $(diff <(echo "$sent") <(echo "$there") | tr '\n' ' ')"
    sent=$(guest_check "no checksums in the guest" pv10 "cd /www && sha256sum *") || exit 1
    back=$(cd "$rig/got" && sha256sum ./* | sed 's,\./,,')
    [ "$back" = "$sent" ] || fail "other bytes arrived in dom0 than were sent: $(diff <(echo "$sent") <(echo "$back") | tr '\n' ' ')"
}

# both_used: interrupts of both queues go on. A flow's queue is a matter of its hash, so it may take several rounds.
both_used() {
    local before0 before1 round
    before0=$(interrupts_of 0)
    before1=$(interrupts_of 1)
    for round in 1 2 3 4 5; do
        fetch_both_ways
        if [ "$(interrupts_of 0)" -gt "$before0" ] && [ "$(interrupts_of 1)" -gt "$before1" ]; then return; fi
    done
    fail "after $round rounds of $files flows each way one of the queues has not been used"
}

# reload COUNT: the guest's driver is unloaded, and loaded again with so many queues at most.
reload() {
    step "driver with $1 queue(s)"
    guest_check "unbind and rmmod failed" pv10 "echo vif-0 >/sys/bus/xen/drivers/vif/unbind && rmmod xen_netfront"
    guest_check "insmod failed" pv10 "insmod /modules/xen-netfront.ko max_queues=$1"
    guest_check "eth0 did not come back" pv10 netup eth0 "$(address 20)/25"
    check_vif pv10
    guest_has_queues "$1"
    ping_all "$(address 20)" 20
}

backend_stop
backend_queues 4
backend_start
take_snapshot empty

mkdir -p "$rig/www" "$rig/got"
for n in $(seq "$files"); do head -c "$bytes" /dev/urandom >"$rig/www/$n"; done
httpd -f -p 8080 -h "$rig/www" &
server=$!
wait_for 30 "dom0 does not serve files" port_listens 8080

guest_vcpus=2 guest_create pv10 pv 20
check_vif pv10
guest_has_queues 2
if [ "$backend" = netback ]; then
    # Not the four that are configured: libxl says how many vCPUs the guest has. The kernel's backend does not look.
    store_is "$(backend_path pv10)/multi-queue-max-queues" 2 || fail "more queues are offered than the guest has vCPUs"
fi
ping_all "$(address 20)" 20
both_used

if [ "$backend" = netback ]; then
    step "status"
    daemon_status >"$rig/status.json" || fail "netback status --json failed"
    check_status "$(vif_of pv10)"
    counted=$(tr -d ' \n\t' <"$rig/status.json" | sed 's/.*"by_queue":\[\([^]]*\)\].*/\1/' | grep -oE '"packets":[1-9]' | wc -l)
    [ "$counted" = 4 ] || fail "netback status does not show two queues with packets both ways: $(cat "$rig/status.json")"

    step "another daemon"
    backend_kill
    backend_queues 4
    backend_start
    check_vif pv10
    ping_all "$(address 20)" 20
    both_used
fi

reload 1
fetch_both_ways
reload 2
both_used

kill "$server"
guest_power_off pv10
nothing_left empty
backend_stop
backend_queues
backend_start
