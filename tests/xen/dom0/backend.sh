# The backend under test: the netback daemon, or the kernel's xen-netback as a check of the rig itself. Sourced by lib.sh.
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash

backend_log=/var/log/netback.log

backend_start() {
    step "start the $backend backend"
    case $backend in
    kernel) kernel_backend_load ;;
    netback) daemon_start ;;
    esac
}

# Stops it in good order; for the daemon that means exit status 0 after SIGTERM.
backend_stop() {
    step "stop the $backend backend"
    case $backend in
    kernel) kernel_backend_unload ;;
    netback) daemon_stop ;;
    esac
}

# backend_queues [COUNT]: how many queues the backend offers for a vif, from its next start on; without a count, by its default: as many as dom0 has
# CPUs, which is one.
# shellcheck disable=SC2119,SC2120 # what calls it with a count is a file that reads this one
backend_queues() {
    mkdir -p /etc/netback
    rm -f /etc/netback/netback.toml "$rig/kernel-options"
    [ -n "${1:-}" ] || return 0
    echo "max-queues = $1" >/etc/netback/netback.toml
    echo "max_queues=$1" >"$rig/kernel-options"
}

backend_runs() {
    case $backend in
    kernel) [ -d /sys/module/xen_netback ] ;;
    netback) daemon_runs ;;
    esac
}

kernel_backend_load() {
    local module options
    while read -r module; do
        options=
        if [ "$module" = xen-netback ]; then options=$(cat "$rig/kernel-options" 2>/dev/null) || true; fi
        # shellcheck disable=SC2086 # no option is no word
        [ -d "/sys/module/${module//-/_}" ] || insmod "/modules/$module.ko" $options || fail "cannot load $module"
    done </modules/order-netback
}

kernel_backend_unload() {
    rmmod xen_netback || fail "cannot unload xen-netback"
}

daemon_pid() {
    cat "$rig/netback.pid"
}

daemon_runs() {
    [ -e "$rig/netback.pid" ] && kill -0 "$(daemon_pid)" 2>/dev/null
}

daemon_status() {
    timeout 30 netback status --json
}

daemon_start() {
    rm -f "$rig/netback.pid" "$rig/netback.status"
    # A keeper of its own waits for the daemon, so that whoever stops it can read the exit status.
    # shellcheck disable=SC2016 # for the inner shell
    setsid bash -c 'netback run >>"$1" 2>&1 & echo $! >"$2.new"; mv "$2.new" "$2"; wait $!; echo $? >"$3"' \
        keeper "$backend_log" "$rig/netback.pid" "$rig/netback.status" </dev/null >/dev/null 2>&1 &
    disown # a scenario's end ends its background jobs, but not this one
    wait_for 30 "the daemon was not started" test -e "$rig/netback.pid"
    wait_for 60 "the daemon does not answer 'netback status --json'" daemon_answers
}

daemon_answers() {
    [ ! -e "$rig/netback.status" ] || fail "the daemon ended at once with status $(cat "$rig/netback.status"): $(tail -n 1 "$backend_log")"
    daemon_status
}

daemon_stop() {
    local status
    kill -TERM "$(daemon_pid)" || fail "the daemon is not running any more: $(tail -n 1 "$backend_log")"
    wait_for 60 "the daemon goes on after SIGTERM" test -e "$rig/netback.status"
    status=$(cat "$rig/netback.status")
    [ "$status" = 0 ] || fail "the daemon ended with status $status after SIGTERM"
}

# No matter how, and the next one starts as by default.
backend_kill() {
    backend_queues
    case $backend in
    kernel) rmmod xen_netback 2>/dev/null || true ;;
    netback)
        if daemon_runs; then kill -KILL "$(daemon_pid)" || true; fi
        rmmod xen_netback 2>/dev/null || true # a scenario that failed may have left it
        ;;
    esac
}

# check_status VIF: what `netback status --json` said into $rig/status.json has the vif connected, with packets counted in both directions.
check_status() {
    local json counted
    json=$(tr -d ' \n\t' <"$rig/status.json")
    [[ $json == *"\"$1\""* ]] || fail "netback status does not list $1"
    grep -qiE '"state":"connected"' <<<"$json" || fail "netback status does not show $1 as connected"
    counted=$(grep -oE '"[a-z_]*packets[a-z_]*":[1-9][0-9]*' <<<"$json" | wc -l)
    [ "$counted" -ge 2 ] || fail "netback status has no packets counted in both directions"
}
