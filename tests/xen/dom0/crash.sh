# Daemons that are killed in the midst of transfers both ways. Sourced by the scenarios that do it to one guest, $guest, whose address ends in $number.
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash

# A guest that serves a file of as many bytes, and to which dom0 serves it.
crash_guest() {
    file_serve "$1"
    guest_create "$guest" pv "$number"
    check_vif "$guest"
    guest_check "the guest cannot serve files" "$guest" \
        "mkdir -p /www && wget -q -O /www/data http://$dom0_address:8080/data && httpd -p 8080 -h /www"
}

# What the kernel says of the vif in dom0: link KEY
link() {
    cat "/sys/class/net/$(vif_of "$guest")/$1"
}

# More than BYTES and another two million have come from the guest.
bytes_have_come() {
    [ "$(link statistics/rx_bytes)" -gt $(($1 + 2000000)) ]
}

# crashes COUNT REPLACE: kills the daemon as often in the midst of transfers both ways; REPLACE returns when the next one answers. Connections live on, every
# transfer arrives as it was sent, and the tap is the same.
crashes() {
    local n before fetcher tap
    tap=$(link ifindex)
    rm -f "$rig"/crash.*
    fetch_on "http://$(address "$number"):8080/data" "$rig/crash" &
    fetcher=$!
    guest_fetch "$guest"
    for n in $(seq "$1"); do
        before=$(link statistics/rx_bytes)
        wait_for 120 "nothing comes from the guest before crash $n" bytes_have_come "$before"
        kill -KILL "$(daemon_pid)"
        "$2"
    done
    touch "$rig/crash.stop"
    guest_fetched "$guest" "$file_sum"
    wait "$fetcher"
    arrived "in dom0" "$(cat "$rig/crash.sums")" "$file_sum"
    [ "$(link ifindex)" = "$tap" ] || fail "the tap is another one"
    check_vif "$guest"
}
