# Two guests on the bridge send each other 10 MB, which arrive unchanged: frames go from ring to ring without a host stack between them.
# backends: netback kernel
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh

take_snapshot empty
guest_create pv05a pv 15
guest_create pv05b pv 25
check_vif pv05a
check_vif pv05b
guest_check "pv05a cannot ping pv05b" pv05a "ping -c 5 -W 10 $(address 25)"

# send FROM FROM_ADDRESS TO: the one serves a file of random bytes over HTTP, the other fetches it; both say its checksum.
send() {
    local from=$1 from_address=$2 to=$3 sent received
    step "10 MB from $from to $to"
    sent=$(guest_check "no random data" "$from" \
        "mkdir -p /www && head -c 10000000 /dev/urandom >/www/data && httpd -h /www && wc -c </www/data && sha256sum </www/data") || exit 1
    received=$(guest_check "the transfer failed" "$to" \
        "timeout 600 wget -q -O /tmp/data http://$from_address/data && wc -c </tmp/data && sha256sum </tmp/data") || exit 1
    echo "sent ${sent//$'\n'/ bytes }, received ${received//$'\n'/ bytes }"
    [ "$received" = "$sent" ] || fail "$from sent ${sent//$'\n'/ bytes }, but $to received ${received//$'\n'/ bytes }"
}

send pv05a "$(address 15)" pv05b
send pv05b "$(address 25)" pv05a

guest_power_off pv05a
guest_power_off pv05b
nothing_left empty
