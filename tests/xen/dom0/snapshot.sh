# Counts what a vif is made of in dom0, so that a scenario can show that nothing is left of it. Sourced by lib.sh.
# Grants and event channels are counted where nobody can hide them: in the hypervisor.
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash

# grant_mappings DOMID: grant entries of other domains that this one holds mapped now: the hypervisor's debug key g prints every active entry.
grant_mappings() {
    xl dmesg -c >/dev/null
    xl debug-keys g
    local text
    for _ in $(seq 100); do
        text=$(xl dmesg)
        grep -q 'gnttab_usage_print_all \] done' <<<"$text" && break
        sleep 0.1
    done
    grep -cE "\[0x[0-9a-f]+\] +$1 " <<<"$text" || true
}

# interdomain_ports DOMID
interdomain_ports() {
    lsevtchn "$1" | grep -ciE 'interdomain|unbound' || true
}

snapshot() {
    echo "network devices: $(cd /sys/class/net && echo *)"
    echo "bridge ports: $(cd "/sys/class/net/$bridge/brif" && shopt -s nullglob && echo *)"
    echo "backend nodes: $( (xenstore-ls -f /local/domain/0/backend/vif 2>/dev/null || true) | grep -cE '^/local/domain/0/backend/vif/[0-9]+' || true)"
    echo "error nodes: $( (xenstore-ls -f /local/domain/0/error/backend/vif 2>/dev/null || true) | grep -cE '^/local/domain/0/error/backend/vif/[0-9]+' || true)"
    echo "domains: $(xl list | awk 'NR > 1 { print $1 }' | tr '\n' ' ')"
    echo "event channels of dom0: $(interdomain_ports 0)"
    echo "grants mapped by dom0: $(grant_mappings 0)"
    if [ "$backend" = netback ] && daemon_runs; then
        local fds
        fds=/proc/$(daemon_pid)/fd
        echo "fds of the daemon: $(for fd in "$fds"/*; do readlink "$fd" || true; done | sed 's/:\[.*//' | sort | uniq -c | tr -s ' \n' ' ')"
        echo "gntdev mappings of the daemon: $(grep -c /dev/xen/gntdev "/proc/$(daemon_pid)/maps" || true)"
    fi
}

# take_snapshot NAME [COUNTER], and later nothing_left NAME [COUNTER]: everything must count again as it did then. Teardown is given time.
take_snapshot() {
    "${2:-snapshot}" >"$rig/$scenario.$1.before"
    cat "$rig/$scenario.$1.before"
}

nothing_left() {
    local before=$rig/$scenario.$1.before after=$rig/$scenario.$1.after deadline=$((SECONDS + 60))
    step "nothing left?"
    while :; do
        "${2:-snapshot}" >"$after"
        cmp -s "$before" "$after" && return
        [ "$SECONDS" -lt "$deadline" ] || break
        sleep 1
    done
    diff "$before" "$after" || true
    fail "not as before: $(diff "$before" "$after" | sed -n 's/^> //p' | tr '\n' ';') was: $(diff "$before" "$after" | sed -n 's/^< //p' | tr '\n' ';')"
}

# counts_more NAME WHAT: the counting is not blind, there is more of it now than when the snapshot was taken.
counts_more() {
    local before now
    before=$(sed -n "s/^$2: //p" "$rig/$scenario.$1.before")
    now=$(snapshot | sed -n "s/^$2: //p")
    echo "$2: $before before, $now with a vif"
    [ "$now" -gt "$before" ] || fail "the rig cannot count '$2': $before before, $now with a connected vif"
}
