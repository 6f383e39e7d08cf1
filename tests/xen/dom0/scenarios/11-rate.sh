# A guest whose vif line has a rate: what it sends takes as long as the rate says at least, arrives unchanged, and a change of the node takes effect
# while the vif lives; a backend that is replaced keeps to it. Only lower bounds of times are judged, which a slow machine does not break.
# backends: netback kernel
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh

at_once=500000 # bytes: more than passes at once whatever the rate is

# fetch BYTES RATE: dom0 fetches as many random bytes from the guest, which may send RATE bytes in a second.
fetch() {
    local bytes=$1 rate=$2 sent received begin end least
    sent=$(guest_check "no random data" pv11 \
        "mkdir -p /www && head -c $bytes /dev/urandom >/www/data && { netstat -ltn | grep -q :80 || httpd -h /www; } && sha256sum </www/data") || exit 1
    begin=$(cut -d' ' -f1 /proc/uptime)
    received=$(timeout 600 wget -q -O - "http://$(address 21)/data" | sha256sum) || fail "dom0 could not fetch $bytes bytes"
    end=$(cut -d' ' -f1 /proc/uptime)
    [ "$received" = "$sent" ] || fail "other bytes arrived than were sent"
    least=$(((bytes - at_once) * 1000 / rate))
    echo "$bytes bytes in $(awk -v b="$begin" -v e="$end" 'BEGIN { print e - b }') s; no less than $least ms are allowed"
    awk -v b="$begin" -v e="$end" -v least="$least" 'BEGIN { exit !((e - b) * 1000 >= least) }' ||
        fail "$bytes bytes went from $begin s to $end s, faster than $rate bytes in a second"
}

take_snapshot empty
guest_create pv11 pv 21 "rate=1MB/s@50ms"
check_vif pv11
node=$(backend_path pv11)/rate
store_is "$node" 50000,50000 || fail "xl wrote another rate than expected: $(xenstore-read "$node")"
step "1 MB/s"
fetch 5000000 1000000

step "200 KB/s from now on"
xenstore-write "$node" 10000,50000
fetch 1500000 200000

if [ "$backend" = netback ]; then
    step "another daemon"
    backend_kill
    backend_start
    check_vif pv11
    fetch 1500000 200000
fi

step "no rate"
xenstore-rm "$node"
fetch 5000000 1000000000 # it gets through; how fast is not judged

guest_power_off pv11
nothing_left empty
