# The daemon as the README installs it: by its unit, under the distribution's systemd. systemd is the first process of a process namespace in dom0 and has
# nothing else to do; it sees dom0's files and devices. Sourced by the scenario that needs it.
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash

systemd_log=/var/log/systemd.log

# systemd runs, and has netback's unit, which is not started.
systemd_start() {
    step "start systemd"
    mkdir -p /etc/systemd/system/netback.service.d /usr/local/sbin /etc/netback
    cp /tests/netback.service /etc/systemd/system/
    ln -sf /usr/sbin/netback /usr/local/sbin/netback
    # There is no journal here.
    printf '[Service]\nStandardOutput=append:%s\nStandardError=inherit\n' "$backend_log" >/etc/systemd/system/netback.service.d/log.conf
    trap 'systemd_end; kill $(jobs -p) 2>/dev/null || true' EXIT
    # systemd writes to the console until it has a journal. "container" tells it that it need not care for devices and the like.
    touch "$systemd_log"
    # shellcheck disable=SC2016 # for the inner shell
    setsid unshare --fork --pid --mount --mount-proc sh -c '
        mount -t xenfs none /proc/xen &&
            mount -t tmpfs none /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup &&
            mount --bind "$1" /dev/console &&
            exec env -i PATH="$PATH" container=rig /usr/lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=no
    ' systemd "$systemd_log" </dev/null >"$rig/systemd.out" 2>&1 &
    disown
    wait_for 120 "systemd does not come up" unit_ctl is-active multi-user.target
}

# systemctl, where systemd can see who asks.
unit_ctl() {
    nsenter -t "$(pidof systemd)" -m -p /usr/bin/systemctl "$@"
}

# systemd and all that it has started are gone.
systemd_end() {
    local pid
    for pid in $(pidof systemd || true); do kill -KILL "$pid" || true; done
    rm -rf /run/systemd
}

# The unit's daemon, for those that ask for the daemon's process.
unit_daemon() {
    pidof netback >"$rig/netback.pid"
}

# unit_property NAME
unit_property() {
    unit_ctl show --value --property="$1" netback.service
}

unit_is() {
    [ "$(unit_property "$1")" = "$2" ]
}
