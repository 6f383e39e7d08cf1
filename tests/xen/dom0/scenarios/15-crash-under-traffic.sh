# The daemon is killed again and again in the midst of transfers both ways: connections live on, and every transfer arrives as it was sent.
# backends: netback
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh

guest=pv15
size=10000000 # bytes of one transfer
crashes=6
GUEST_TIMEOUT=600

# More than BYTES and another two million have come from the guest.
bytes_have_come() {
    [ "$(cat "/sys/class/net/$(vif_of "$guest")/statistics/rx_bytes")" -gt $(($1 + 2000000)) ]
}

take_snapshot empty
file_serve "$size"

guest_create "$guest" pv 25
check_vif "$guest"
guest_check "the guest cannot serve files" "$guest" \
    "mkdir -p /www && wget -q -O /www/data http://$dom0_address:8080/data && httpd -p 8080 -h /www"
tap=$(cat "/sys/class/net/$(vif_of "$guest")/ifindex")

step "$crashes crashes under traffic"
fetch_on "http://$(address 25):8080/data" "$rig/crash" &
fetcher=$!
guest_fetch "$guest"
for n in $(seq "$crashes"); do
    before=$(cat "/sys/class/net/$(vif_of "$guest")/statistics/rx_bytes")
    wait_for 120 "nothing comes from the guest before crash $n" bytes_have_come "$before"
    kill -KILL "$(daemon_pid)"
    wait_for 30 "the daemon outlives SIGKILL" test -e "$rig/netback.status"
    daemon_start
done
touch "$rig/crash.stop"
guest_fetched "$guest" "$file_sum"
wait "$fetcher"
arrived "in dom0" "$(cat "$rig/crash.sums")" "$file_sum"
[ "$(cat "/sys/class/net/$(vif_of "$guest")/ifindex")" = "$tap" ] || fail "the tap is another one"
check_vif "$guest"

kill "$file_pid"
guest_power_off "$guest"
nothing_left empty
